#include "ws/test_ws.h"
#include "ws/viewer.h"

#include <stdlib.h>

/* What the codec holds: contexts, stashes, open messages, and for how long. */

static struct codec_pool *pool_with(uint64_t message_bytes, uint32_t open, uint32_t idle)
{
    struct codec_limits limits = {message_bytes, open, idle};
    struct codec_pool *pool = codec_pool_create(&limits);
    assert_non_null(pool);
    return pool;
}

static void between_messages__nothing_held(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(1000, 2, 0);
    size_t empty = codec_pool_bytes(pool);
    struct viewer viewer = {.pool = pool};
    struct buf stream = {0};
    frame_text(&stream, FIN | WS_TEXT, "hello");
    frame_text(&stream, WS_TEXT, "a");
    frame_text(&stream, FIN | WS_CONTINUATION, "b");
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < stream.len; i++)
            viewer_feed(&viewer, bytes_of(stream.data + i, 1));
        assert_null(viewer.slot);
        assert_int_equal(codec_pool_bytes(pool), empty);
        assert_int_equal(codec_pool_open(pool), 0);
    }
    assert_int_equal(viewer.events, 6);
    viewer_fini(&viewer);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static void small_unfinished_frame__stash_without_context(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(10000, 0, 0);
    size_t empty = codec_pool_bytes(pool);
    struct viewer viewer = {.pool = pool};
    struct buf stream = {0};
    static char payload[CODEC_STASH_MAX - 8];
    memset(payload, 't', sizeof(payload));
    frame_append(&stream, FIN | WS_TEXT, bytes_of(payload, sizeof(payload)));
    viewer_feed(&viewer, bytes_of(stream.data, 1));
    assert_non_null(viewer.slot);
    assert_true(codec_pool_bytes(pool) < empty + 300);
    viewer_feed(&viewer, bytes_of(stream.data + 1, stream.len - 2));
    assert_true(codec_pool_bytes(pool) < empty + CODEC_STASH_MAX + 300);
    assert_int_equal(codec_pool_open(pool), 0);
    assert_int_equal(viewer_feed(&viewer, bytes_of(stream.data + stream.len - 1, 1)), 0);
    assert_int_equal(viewer.events, 1);
    assert_null(viewer.slot);
    viewer_fini(&viewer);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static size_t bytes_held(struct bytes stream, size_t piece)
{
    struct codec_pool *pool = pool_with(10000, 1, 0);
    struct viewer viewer = {.pool = pool};
    viewer_feed_pieces(&viewer, stream, piece);
    assert_int_equal(codec_pool_open(pool), 1);
    size_t held = codec_pool_bytes(pool);
    viewer_fini(&viewer);
    codec_pool_destroy(pool);
    return held;
}

static void open_message__stash_given_back(void **state)
{
    (void)state;
    static char payload[1500];
    struct buf stream = {0};
    frame_append(&stream, WS_BINARY, bytes_of(payload, sizeof(payload)));
    assert_int_equal(bytes_held(buf_view(&stream), 10), bytes_held(buf_view(&stream), 10000));
    buf_fini(&stream);
}

static void announced_length__allocates_nothing(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(UINT64_C(1) << 40, 1, 0);
    struct viewer viewer = {.pool = pool};
    struct buf stream = {0};
    frame_head(&stream, FIN | WS_BINARY, UINT64_C(1) << 39, 8);
    buf_text(&stream, "a few bytes");
    assert_int_equal(viewer_feed(&viewer, buf_view(&stream)), 0);
    assert_true(codec_pool_bytes(pool) < 12000);
    viewer_fini(&viewer);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static void open_messages_past_the_limit__1013(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(100000, 2, 2);
    struct viewer viewers[4] = {{.pool = pool}, {.pool = pool}, {.pool = pool}, {.pool = pool}};
    struct buf open = {0};
    struct buf whole = {0};
    struct buf end = {0};
    frame_text(&open, WS_TEXT, "open");
    frame_text(&whole, WS_TEXT, "whole");
    frame_text(&whole, FIN | WS_CONTINUATION, "");
    frame_text(&end, FIN | WS_CONTINUATION, "");
    assert_int_equal(viewer_feed(&viewers[0], buf_view(&open)), 0);
    frame_head(&end, FIN | WS_BINARY, 50000, 2);
    assert_int_equal(viewer_feed(&viewers[1], bytes_of(end.data + 6, 8)), 0);
    assert_int_equal(codec_pool_open(pool), 2);
    assert_int_equal(viewer_feed(&viewers[2], buf_view(&open)), 1013);
    assert_null(viewers[2].slot);
    /* What ends within the feed needs no place, and one that ends makes room. */
    assert_int_equal(viewer_feed(&viewers[3], buf_view(&whole)), 0);
    assert_int_equal(viewer_feed(&viewers[0], bytes_of(end.data, 6)), 0);
    assert_int_equal(codec_pool_open(pool), 1);
    assert_int_equal(viewer_feed(&viewers[3], buf_view(&open)), 0);
    assert_int_equal(codec_pool_open(pool), 2);
    for (int i = 0; i < 4; i++)
        viewer_fini(&viewers[i]);
    assert_int_equal(codec_pool_open(pool), 0);
    buf_fini(&open);
    buf_fini(&whole);
    buf_fini(&end);
    codec_pool_destroy(pool);
}

static void idle_contexts__bounded_and_trimmed(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(100000, 8, 2);
    size_t empty = codec_pool_bytes(pool);
    struct viewer viewers[4] = {{.pool = pool}, {.pool = pool}, {.pool = pool}, {.pool = pool}};
    static char payload[50000];
    struct buf open = {0};
    struct buf end = {0};
    frame_append(&open, WS_BINARY, bytes_of(payload, sizeof(payload)));
    frame_text(&end, FIN | WS_CONTINUATION, "");
    for (int i = 0; i < 4; i++)
        viewer_feed(&viewers[i], buf_view(&open));
    assert_true(codec_pool_bytes(pool) > empty + 4 * sizeof(payload));
    for (int i = 0; i < 4; i++) {
        viewer_feed(&viewers[i], buf_view(&end));
        viewer_fini(&viewers[i]);
    }
    /* Two contexts, without the large buffers of their last messages. */
    assert_in_range(codec_pool_bytes(pool), empty + 2 * 8000, empty + 2 * 10000);
    struct codec_limits fewer = {100000, 8, 1};
    codec_pool_set_limits(pool, &fewer);
    assert_in_range(codec_pool_bytes(pool), empty + 8000, empty + 10000);
    codec_pool_trim(pool);
    assert_int_equal(codec_pool_bytes(pool), empty);
    buf_fini(&open);
    buf_fini(&end);
    codec_pool_destroy(pool);
}

static void after_an_error__context_not_reused(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(1000, 8, 8);
    size_t empty = codec_pool_bytes(pool);
    static const char *const bad[] = {"\xff", "ok"};
    for (int i = 0; i < 2; i++) {
        struct buf stream = {0};
        struct viewer viewer = {.pool = pool};
        frame_text(&stream, WS_TEXT, bad[i]);
        frame_text(&stream, FIN | WS_CLOSE, i ? "" : "\x03\xe8");
        viewer_feed(&viewer, buf_view(&stream));
        assert_null(viewer.slot);
        assert_int_equal(codec_pool_bytes(pool), empty);
        viewer_fini(&viewer);
        buf_fini(&stream);
    }
    codec_pool_destroy(pool);
}

static void detach_in_the_middle__all_given_back(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(1000000, 8, 8);
    size_t empty = codec_pool_bytes(pool);
    struct buf stream = {0};
    frame_text(&stream, WS_BINARY, "open");
    frame_text(&stream, FIN | WS_PING, "control");
    frame_head(&stream, FIN | WS_CONTINUATION, 100000, 8);
    buf_text(&stream, "masked bytes");
    for (size_t len = 1; len <= stream.len; len++) {
        struct viewer viewer = {.pool = pool};
        viewer_feed(&viewer, bytes_of(stream.data, len));
        assert_non_null(viewer.slot);
        codec_detach(pool, &viewer.slot);
        assert_null(viewer.slot);
        viewer_fini(&viewer);
        codec_pool_trim(pool);
        assert_int_equal(codec_pool_bytes(pool), empty);
    }
    buf_fini(&stream);
    codec_pool_destroy(pool);
    codec_pool_destroy(NULL);
}

static void since__first_byte_of_what_is_unfinished(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(100000, 8, 8);
    struct viewer viewer = {.pool = pool, .now_ms = 100};
    struct buf stream = {0};
    frame_text(&stream, WS_TEXT, "open");
    for (size_t i = 0; i < stream.len; i++, viewer.now_ms += 10) {
        viewer_feed(&viewer, bytes_of(stream.data + i, 1));
        assert_int_equal(codec_since_ms(viewer.slot), 100);
    }
    buf_clear(&stream);
    frame_text(&stream, FIN | WS_PING, "between");
    viewer_feed(&viewer, bytes_of(stream.data, 3));
    assert_int_equal(codec_since_ms(viewer.slot), 100);
    viewer_feed(&viewer, bytes_of(stream.data + 3, stream.len - 3));
    assert_int_equal(codec_since_ms(viewer.slot), 100);
    buf_clear(&stream);
    frame_text(&stream, FIN | WS_CONTINUATION, "end");
    frame_text(&stream, FIN | WS_TEXT, "next");
    viewer.now_ms = 500;
    viewer_feed(&viewer, bytes_of(stream.data, stream.len - 1));
    assert_int_equal(codec_since_ms(viewer.slot), 500);
    viewer.now_ms = 600;
    viewer_feed(&viewer, bytes_of(stream.data + stream.len - 1, 1));
    assert_null(viewer.slot);
    viewer_fini(&viewer);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static void many_pings_within_a_message__nothing_piles_up(void **state)
{
    (void)state;
    struct codec_pool *pool = pool_with(1000, 8, 8);
    struct viewer viewer = {.pool = pool};
    struct buf stream = {0};
    frame_text(&stream, WS_TEXT, "a");
    viewer_feed(&viewer, buf_view(&stream));
    size_t open = codec_pool_bytes(pool);
    buf_clear(&stream);
    for (int i = 0; i < 10000; i++)
        frame_text(&stream, FIN | WS_PING, "");
    viewer_feed(&viewer, buf_view(&stream));
    assert_int_equal(viewer.events, 10000);
    assert_int_equal(codec_pool_bytes(pool), open);
    viewer_fini(&viewer);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static struct bytes received;
static uint64_t received_sum;

static int sum_message(void *ctx, enum ws_opcode opcode, struct bytes payload)
{
    (void)ctx, (void)opcode;
    received = payload;
    received_sum = 0;
    for (size_t i = 0; i < payload.len; i++)
        received_sum += (unsigned char)payload.data[i] * (i % 251);
    return 0;
}

static void large_message_of_65537_fragments__whole(void **state)
{
    (void)state;
    static const struct codec_events events = {.on_message = sum_message};
    enum { FRAGMENTS = 65537, EACH = 200 };
    const size_t total = (size_t)FRAGMENTS * EACH;
    struct codec_pool *pool = pool_with(total, 1, 0);
    struct codec *slot = NULL;
    struct buf stream = {0};
    char payload[EACH];
    uint64_t sum = 0;
    for (size_t i = 0; i < FRAGMENTS; i++) {
        for (size_t j = 0; j < EACH; j++) {
            payload[j] = (char)((i * 7 + j) & 0x7f);
            sum += (unsigned char)payload[j] * ((i * EACH + j) % 251);
        }
        unsigned first = (i == 0 ? WS_TEXT : WS_CONTINUATION) | (i + 1 == FRAGMENTS ? FIN : 0u);
        frame_append(&stream, first, bytes_of(payload, EACH));
    }
    for (size_t at = 0; at < stream.len; at += 65536) {
        size_t n = stream.len - at < 65536 ? stream.len - at : 65536;
        assert_int_equal(codec_feed(pool, &slot, bytes_of(stream.data + at, n), 0, &events, NULL),
                         0);
        assert_true(codec_pool_bytes(pool) < total + 12000);
    }
    assert_int_equal(received.len, total);
    assert_int_equal(received_sum, sum);
    assert_null(slot);
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

int run_codec_pool_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(between_messages__nothing_held),
        cmocka_unit_test(small_unfinished_frame__stash_without_context),
        cmocka_unit_test(open_message__stash_given_back),
        cmocka_unit_test(announced_length__allocates_nothing),
        cmocka_unit_test(open_messages_past_the_limit__1013),
        cmocka_unit_test(idle_contexts__bounded_and_trimmed),
        cmocka_unit_test(after_an_error__context_not_reused),
        cmocka_unit_test(detach_in_the_middle__all_given_back),
        cmocka_unit_test(since__first_byte_of_what_is_unfinished),
        cmocka_unit_test(many_pings_within_a_message__nothing_piles_up),
        cmocka_unit_test(large_message_of_65537_fragments__whole),
    };
    return cmocka_run_group_tests_name("ws codec pool", tests, NULL, NULL);
}
