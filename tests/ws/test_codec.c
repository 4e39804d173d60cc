#include "ws/test_ws.h"
#include "ws/viewer.h"

#include <stdio.h>

/* What the codec makes of streams of bytes, however they are cut. */

enum { MESSAGE_BYTES = 5000 };

static const struct codec_limits limits = {
    .message_bytes = MESSAGE_BYTES, .open_messages = 4, .idle_contexts = 4};

static struct codec_pool *pool;

static int create_pool(void **state)
{
    (void)state;
    pool = codec_pool_create(&limits);
    return pool ? 0 : -1;
}

static int destroy_pool(void **state)
{
    (void)state;
    uint32_t open = codec_pool_open(pool);
    codec_pool_trim(pool);
    codec_pool_destroy(pool);
    return open == 0 ? 0 : -1;
}

/* A fresh block of exactly the bytes, so that the address sanitizer sees reads past them. */
static int feed_copy(struct viewer *viewer, struct bytes bytes)
{
    char *copy = test_malloc(bytes.len ? bytes.len : 1);
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    int rc = viewer_feed(viewer, bytes_of(copy, bytes.len));
    test_free(copy);
    return rc;
}

static void assert_split_at(struct bytes stream, size_t at, const char *expected)
{
    struct viewer viewer = {.pool = pool};
    bool ended = feed_copy(&viewer, bytes_of(stream.data, at)) != 0;
    if (!ended && !viewer_closed(&viewer))
        feed_copy(&viewer, bytes_of(stream.data + at, stream.len - at));
    assert_bytes(buf_view(&viewer.log), expected);
    viewer_fini(&viewer);
}

static void assert_pieces(struct bytes stream, size_t piece, const char *expected)
{
    struct viewer viewer = {.pool = pool};
    viewer_feed_pieces(&viewer, stream, piece);
    assert_bytes(buf_view(&viewer.log), expected);
    viewer_fini(&viewer);
}

/* Feeds the stream whole, cut in two at every place and in pieces of several sizes; each way
 * must give the same. */
static void assert_events(struct buf *stream, const char *expected)
{
    struct bytes view = buf_view(stream);
    for (size_t at = 0; at <= view.len; at++)
        assert_split_at(view, at, expected);
    for (size_t piece = 1; piece <= 17; piece++)
        assert_pieces(view, piece, expected);
    buf_clear(stream);
}

/* One byte a time: refused with `code` as soon as byte number `at` has come. */
static void assert_refused_at(struct buf *stream, int code, size_t at)
{
    struct viewer viewer = {.pool = pool};
    size_t ended = viewer_feed_pieces(&viewer, buf_view(stream), 1);
    char expected[16];
    snprintf(expected, sizeof(expected), "=%d", code);
    assert_bytes(buf_view(&viewer.log), expected);
    assert_int_equal(ended, at);
    assert_null(viewer.slot);
    viewer_fini(&viewer);
    buf_clear(stream);
}

static void plain_frames__in_order(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_TEXT, "hello");
    frame_text(&stream, FIN | WS_BINARY, "\xff\xfe");
    frame_text(&stream, FIN | WS_TEXT, "");
    frame_text(&stream, FIN | WS_PING, "p");
    frame_text(&stream, FIN | WS_PONG, "");
    frame_text(&stream, FIN | WS_BINARY, "");
    frame_text(&stream, FIN | WS_TEXT, "k\xc3\xb6\xf0\x9f\x98\x80");
    assert_events(&stream, "text(hello) binary(\xff\xfe) text() ping(p) pong() binary() "
                           "text(k\xc3\xb6\xf0\x9f\x98\x80) ");
    buf_fini(&stream);
}

static void fragments_with_controls_between__one_message(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, WS_TEXT, "a\xf0\x9f");
    frame_text(&stream, FIN | WS_PING, "1");
    frame_text(&stream, WS_CONTINUATION, "\x98");
    frame_text(&stream, WS_CONTINUATION, "");
    frame_text(&stream, FIN | WS_PONG, "2");
    frame_text(&stream, FIN | WS_PING, "");
    frame_text(&stream, FIN | WS_CONTINUATION, "\x80z");
    frame_text(&stream, WS_BINARY, "");
    frame_text(&stream, FIN | WS_CONTINUATION, "");
    frame_text(&stream, WS_TEXT, "");
    frame_text(&stream, FIN | WS_CONTINUATION, "q");
    assert_events(&stream, "ping(1) pong(2) ping() text(a\xf0\x9f\x98\x80z) binary() text(q) ");
    buf_fini(&stream);
}

static void frames_around_the_stash_size__whole(void **state)
{
    (void)state;
    static char payload[CODEC_STASH_MAX + 10];
    memset(payload, 'x', sizeof(payload));
    for (size_t len = CODEC_STASH_MAX - 9; len <= CODEC_STASH_MAX + 1; len += 5) {
        struct buf stream = {0};
        struct viewer whole = {.pool = pool};
        frame_append(&stream, FIN | WS_TEXT, bytes_of(payload, len));
        frame_append(&stream, FIN | WS_BINARY, bytes_of(payload, 126));
        frame_text(&stream, FIN | WS_PING, "end");
        viewer_feed(&whole, buf_view(&stream));
        assert_non_null(memmem(whole.log.data, whole.log.len, "ping(end)", 9));
        buf_byte(&whole.log, '\0');
        assert_events(&stream, whole.log.data);
        viewer_fini(&whole);
        buf_fini(&stream);
    }
}

static void control_frames_of_125__whole(void **state)
{
    (void)state;
    char payload[125];
    memset(payload, 'p', sizeof(payload));
    struct buf stream = {0};
    frame_append(&stream, WS_BINARY, bytes_of(payload, 125));
    frame_append(&stream, FIN | WS_PING, bytes_of(payload, 125));
    frame_close(&stream, FIN | WS_CLOSE, 1000, bytes_of(payload, 123));
    frame_text(&stream, FIN | WS_TEXT, "ignored");
    char expected[300];
    snprintf(expected, sizeof(expected), "ping(%.125s) close(1000,%.123s) ", payload, payload);
    assert_events(&stream, expected);
    buf_fini(&stream);
}

static void close_with_and_without_code__told(void **state)
{
    (void)state;
    static const unsigned codes[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_CLOSE, "");
    frame_text(&stream, FIN | WS_TEXT, "ignored");
    assert_events(&stream, "close(0,) ");
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        char expected[32];
        frame_close(&stream, FIN | WS_CLOSE, codes[i],
                    BYTES_LIT("b\xc3\xa9"
                              "e"));
        buf_text(&stream, "\xff garbage behind it");
        snprintf(expected, sizeof(expected),
                 "close(%u,b\xc3\xa9"
                 "e) ",
                 codes[i]);
        assert_events(&stream, expected);
    }
    frame_text(&stream, WS_TEXT, "half");
    frame_close(&stream, FIN | WS_CLOSE, 1001, (struct bytes){0});
    assert_events(&stream, "close(1001,) ");
    buf_fini(&stream);
}

static void close_broken__1002_or_1007(void **state)
{
    (void)state;
    static const unsigned codes[] = {0,    1,    999,  1004, 1005, 1006, 1015,
                                     1016, 1100, 2000, 2999, 5000, 65535};
    struct buf stream = {0};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        frame_close(&stream, FIN | WS_CLOSE, codes[i], BYTES_LIT("r"));
        assert_events(&stream, "=1002");
    }
    frame_text(&stream, FIN | WS_CLOSE, "\x03");
    assert_refused_at(&stream, 1002, 2);
    frame_close(&stream, FIN | WS_CLOSE, 1000, BYTES_LIT("a\xc3"));
    assert_events(&stream, "=1007");
    frame_close(&stream, FIN | WS_CLOSE, 1013, BYTES_LIT("\xed\xa0\x80"));
    assert_events(&stream, "=1007");
    buf_fini(&stream);
}

static void broken_heads__1002_at_their_byte(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_TEXT | 0x40, "rsv1");
    assert_refused_at(&stream, 1002, 1);
    frame_text(&stream, FIN | 0x3, "reserved opcode");
    assert_refused_at(&stream, 1002, 1);
    frame_text(&stream, WS_PING, "fragmented control");
    assert_refused_at(&stream, 1002, 1);
    frame_text(&stream, FIN | WS_TEXT | UNMASKED, "unmasked");
    assert_refused_at(&stream, 1002, 2);
    frame_head(&stream, FIN | WS_PING, 126, 2);
    assert_refused_at(&stream, 1002, 2);
    frame_head(&stream, FIN | WS_TEXT, 125, 2);
    assert_refused_at(&stream, 1002, 4);
    frame_head(&stream, FIN | WS_TEXT, 65535, 8);
    assert_refused_at(&stream, 1002, 10);
    frame_head(&stream, FIN | WS_TEXT, UINT64_C(1) << 63, 8);
    assert_refused_at(&stream, 1002, 10);
    buf_fini(&stream);
}

static void broken_heads_behind_good_frames__events_first(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_TEXT, "good");
    frame_text(&stream, FIN | WS_TEXT | UNMASKED, "bad");
    frame_text(&stream, FIN | WS_TEXT, "never seen");
    assert_events(&stream, "text(good) =1002");
    frame_text(&stream, WS_TEXT, "open");
    frame_text(&stream, FIN | WS_PING, "p");
    frame_text(&stream, FIN | WS_CONTINUATION | 0x10, "bad");
    assert_events(&stream, "ping(p) =1002");
    buf_fini(&stream);
}

static void frames_out_of_place__1002_at_first_byte(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_CONTINUATION, "no message open");
    assert_refused_at(&stream, 1002, 1);
    frame_text(&stream, WS_CONTINUATION, "no message open");
    assert_refused_at(&stream, 1002, 1);
    frame_text(&stream, WS_TEXT, "open");
    size_t first = stream.len;
    frame_text(&stream, FIN | WS_TEXT, "second start");
    assert_refused_at(&stream, 1002, first + 1);
    frame_text(&stream, WS_BINARY, "");
    frame_text(&stream, WS_BINARY, "");
    assert_refused_at(&stream, 1002, 7);
    frame_text(&stream, WS_TEXT, "a");
    frame_text(&stream, FIN | WS_CONTINUATION, "b");
    frame_text(&stream, FIN | WS_CONTINUATION, "c");
    assert_events(&stream, "text(ab) =1002");
    buf_fini(&stream);
}

/* The payload's byte number `at` makes it impossible UTF-8, and more is announced than comes. */
static void assert_not_utf8_at(const char *payload, size_t at, size_t announced, unsigned first)
{
    struct buf stream = {0};
    struct buf whole = {0};
    buf_text(&whole, payload);
    while (whole.len < announced)
        buf_byte(&whole, 'x');
    frame_append(&stream, first, buf_view(&whole));
    size_t head = stream.len - announced;
    if (stream.len > head + at + 3)
        stream.len = head + at + 3;
    assert_refused_at(&stream, 1007, head + at);
    buf_fini(&whole);
    buf_fini(&stream);
}

static void text_not_utf8__1007_at_the_byte(void **state)
{
    (void)state;
    static const size_t announced[] = {30, 1500, 4000};
    for (size_t i = 0; i < sizeof(announced) / sizeof(announced[0]); i++) {
        for (unsigned fin = 0; fin <= FIN; fin += FIN) {
            assert_not_utf8_at("\xff", 1, announced[i], fin | WS_TEXT);
            assert_not_utf8_at("ab\x80", 3, announced[i], fin | WS_TEXT);
            assert_not_utf8_at("\xc0\x80", 1, announced[i], fin | WS_TEXT);         /* overlong */
            assert_not_utf8_at("k\xed\xa0\x80", 3, announced[i], fin | WS_TEXT);    /* surrogate */
            assert_not_utf8_at("\xf4\x90\x80\x80", 2, announced[i], fin | WS_TEXT); /* > 10ffff */
            assert_not_utf8_at("\xe2\x82"
                               "a",
                               3, announced[i], fin | WS_TEXT);
        }
    }
}

static void text_not_utf8_in_a_later_fragment__1007_at_the_byte(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, WS_TEXT, "fine \xce");
    frame_text(&stream, FIN | WS_PING, "");
    size_t before = stream.len;
    frame_text(&stream, FIN | WS_CONTINUATION, "\xba\xed\xa0 and more");
    struct viewer viewer = {.pool = pool};
    assert_int_equal(viewer_feed_pieces(&viewer, buf_view(&stream), 1), before + 6 + 3);
    viewer_fini(&viewer);
    assert_events(&stream, "ping() =1007");
    buf_fini(&stream);
}

static void text_ending_inside_a_character__1007(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_TEXT, "ok");
    frame_text(&stream, FIN | WS_TEXT, "a\xe2\x82");
    assert_events(&stream, "text(ok) =1007");
    frame_text(&stream, WS_TEXT, "a\xe2");
    frame_text(&stream, FIN | WS_CONTINUATION, "\x82");
    assert_events(&stream, "=1007");
    frame_text(&stream, WS_TEXT, "a\xe2");
    frame_text(&stream, FIN | WS_CONTINUATION, "");
    assert_events(&stream, "=1007");
    buf_fini(&stream);
}

static void binary__never_judged_as_text(void **state)
{
    (void)state;
    struct buf stream = {0};
    frame_text(&stream, WS_BINARY, "\xff\xc0");
    frame_text(&stream, FIN | WS_PONG, "\xfe");
    frame_text(&stream, FIN | WS_CONTINUATION, "\xed\xa0");
    assert_events(&stream, "pong(\xfe) binary(\xff\xc0\xed\xa0) ");
    buf_fini(&stream);
}

static void message_bytes__whole_up_to_it_1009_past_it(void **state)
{
    (void)state;
    static char payload[MESSAGE_BYTES + 1];
    memset(payload, 'm', sizeof(payload));
    struct buf stream = {0};
    frame_append(&stream, FIN | WS_BINARY, bytes_of(payload, MESSAGE_BYTES));
    frame_append(&stream, WS_BINARY, bytes_of(payload, MESSAGE_BYTES - 1));
    frame_append(&stream, FIN | WS_CONTINUATION, bytes_of(payload, 1));
    struct viewer viewer = {.pool = pool};
    viewer_feed_pieces(&viewer, buf_view(&stream), 7);
    assert_int_equal(viewer.events, 2);
    assert_null(viewer.slot);
    viewer_fini(&viewer);
    buf_clear(&stream);
    frame_append(&stream, FIN | WS_BINARY, bytes_of(payload, MESSAGE_BYTES + 1));
    assert_refused_at(&stream, 1009, 4);
    frame_append(&stream, WS_TEXT, bytes_of(payload, MESSAGE_BYTES - 1));
    size_t before = stream.len;
    frame_append(&stream, FIN | WS_CONTINUATION, bytes_of(payload, 2));
    assert_refused_at(&stream, 1009, before + 2);
    frame_head(&stream, FIN | WS_TEXT, INT64_MAX, 8);
    assert_refused_at(&stream, 1009, 10);
    buf_fini(&stream);
}

static void pings_past_message_bytes__not_messages(void **state)
{
    (void)state;
    struct codec_limits small = limits;
    small.message_bytes = 2;
    codec_pool_set_limits(pool, &small);
    struct buf stream = {0};
    frame_text(&stream, WS_TEXT, "a");
    frame_text(&stream, FIN | WS_PING, "longer than two");
    frame_text(&stream, FIN | WS_CONTINUATION, "b");
    assert_events(&stream, "ping(longer than two) text(ab) ");
    codec_pool_set_limits(pool, &limits);
    buf_fini(&stream);
}

static void callback_says_stop__feed_returns_it(void **state)
{
    (void)state;
    for (int stop_at = 1; stop_at <= 4; stop_at++) {
        struct buf stream = {0};
        frame_text(&stream, FIN | WS_TEXT, "1");
        frame_text(&stream, WS_TEXT, "4");
        frame_text(&stream, FIN | WS_PING, "2");
        frame_text(&stream, FIN | WS_PONG, "3");
        frame_close(&stream, FIN | WS_CLOSE, 1000, (struct bytes){0});
        struct viewer viewer = {.pool = pool, .stop_at = stop_at, .stop_with = -5};
        assert_int_equal(viewer_feed(&viewer, buf_view(&stream)), -5);
        assert_int_equal(viewer.events, stop_at);
        assert_null(viewer.slot);
        viewer_fini(&viewer);
        buf_fini(&stream);
    }
}

int run_codec_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frames__in_order),
        cmocka_unit_test(fragments_with_controls_between__one_message),
        cmocka_unit_test(frames_around_the_stash_size__whole),
        cmocka_unit_test(control_frames_of_125__whole),
        cmocka_unit_test(close_with_and_without_code__told),
        cmocka_unit_test(close_broken__1002_or_1007),
        cmocka_unit_test(broken_heads__1002_at_their_byte),
        cmocka_unit_test(broken_heads_behind_good_frames__events_first),
        cmocka_unit_test(frames_out_of_place__1002_at_first_byte),
        cmocka_unit_test(text_not_utf8__1007_at_the_byte),
        cmocka_unit_test(text_not_utf8_in_a_later_fragment__1007_at_the_byte),
        cmocka_unit_test(text_ending_inside_a_character__1007),
        cmocka_unit_test(binary__never_judged_as_text),
        cmocka_unit_test(message_bytes__whole_up_to_it_1009_past_it),
        cmocka_unit_test(pings_past_message_bytes__not_messages),
        cmocka_unit_test(callback_says_stop__feed_returns_it),
    };
    return cmocka_run_group_tests_name("ws codec", tests, create_pool, destroy_pool);
}
