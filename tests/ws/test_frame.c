#include "base/minmax.h"
#include "ws/frame.h"
#include "ws/test_ws.h"

#include <stdlib.h>

static void assert_head(enum ws_opcode opcode, uint64_t payload_len, struct bytes expected)
{
    unsigned char head[WS_HEAD_MAX];
    size_t len = ws_frame_head(head, opcode, payload_len);
    assert_int_equal(len, expected.len);
    assert_memory_equal(head, expected.data, len);
}

static void head_at_each_length_step__shortest_form(void **state)
{
    (void)state;
    assert_head(WS_TEXT, 0, BYTES_LIT("\x81\x00"));
    assert_head(WS_BINARY, 125, BYTES_LIT("\x82\x7d"));
    assert_head(WS_TEXT, 126, BYTES_LIT("\x81\x7e\x00\x7e"));
    assert_head(WS_TEXT, 65535, BYTES_LIT("\x81\x7e\xff\xff"));
    assert_head(WS_TEXT, 65536, BYTES_LIT("\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"));
    assert_head(WS_TEXT, 0x0102030405060708u,
                BYTES_LIT("\x81\x7f\x01\x02\x03\x04\x05\x06\x07\x08"));
    assert_head(WS_PONG, 3, BYTES_LIT("\x8a\x03"));
}

static void append__head_and_payload(void **state)
{
    (void)state;
    struct buf out = {0};
    ws_frame_append(&out, WS_TEXT, BYTES_LIT("hi"));
    ws_frame_append(&out, WS_PING, (struct bytes){0});
    assert_true(bytes_equal(buf_view(&out), BYTES_LIT("\x81\x02hi\x89\x00")));
    buf_fini(&out);
}

static void row_of_frames__cut_where_they_end(void **state)
{
    (void)state;
    struct buf row = {0};
    char long_text[300] = {0};
    ws_frame_append(&row, WS_TEXT, BYTES_LIT("12345678"));    /* 10 */
    ws_frame_append(&row, WS_PONG, (struct bytes){0});        /* 12 */
    ws_frame_append(&row, WS_TEXT, bytes_of(long_text, 300)); /* 316 */
    ws_frame_append(&row, WS_CLOSE, BYTES_LIT("\x03\xe8"));   /* 320 */
    const size_t cuts[][2] = {{0, 10},   {9, 10},    {10, 10},   {11, 10},   {12, 12},
                              {315, 12}, {316, 316}, {319, 316}, {320, 320}, {9999, 320}};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
        assert_int_equal(ws_frames_cut(buf_view(&row), cuts[i][0]), cuts[i][1]);
    const size_t ends[][2] = {{0, 0},    {1, 10},    {10, 10},   {11, 12},  {12, 12},
                              {13, 316}, {316, 316}, {317, 320}, {320, 320}};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        assert_int_equal(ws_frames_end(buf_view(&row), ends[i][0]), ends[i][1]);
    buf_fini(&row);
}

static void row_of_something_else__no_cut(void **state)
{
    (void)state;
    const struct bytes rows[] = {BYTES_LIT("HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x00"),
                                 BYTES_LIT("\x81\x05"
                                           "half"),
                                 BYTES_LIT("\x81\x7e\x01"),
                                 BYTES_LIT("\x81\x81mask!"),
                                 BYTES_LIT("\x83\x00"),
                                 BYTES_LIT("\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
                                 BYTES_LIT("\x81"),
                                 {0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(ws_frames_cut(rows[i], 100), 0);
        assert_int_equal(ws_frames_end(rows[i], least(1, (uint32_t)rows[i].len)), rows[i].len);
    }
    assert_int_equal(ws_frames_end(BYTES_LIT("\x8a\x00\x81\x05half"), 3), 8);
}

static void append_when_memory_is_out__nothing_written(void **state)
{
    (void)state;
    struct buf out = {0};
    ws_frame_append(&out, WS_TEXT, BYTES_LIT("a"));
    ws_frame_append(&out, WS_TEXT, bytes_of("b", SIZE_MAX));
    assert_true(out.failed);
    assert_int_equal(out.len, 3);
    buf_fini(&out);
}

static void close_with_code__two_bytes_then_reason(void **state)
{
    (void)state;
    struct buf out = {0};
    ws_frame_close(&out, 1002, "bad");
    assert_true(bytes_equal(buf_view(&out), BYTES_LIT("\x88\x05\x03\xea"
                                                      "bad")));
    buf_clear(&out);
    ws_frame_close(&out, 4011, NULL);
    assert_true(bytes_equal(buf_view(&out), BYTES_LIT("\x88\x02\x0f\xab")));
    buf_fini(&out);
}

static void close_without_code__empty(void **state)
{
    (void)state;
    struct buf out = {0};
    ws_frame_close(&out, 0, "never sent");
    assert_true(bytes_equal(buf_view(&out), BYTES_LIT("\x88\x00")));
    buf_fini(&out);
}

static void close_with_long_reason__cut_between_characters(void **state)
{
    (void)state;
    char reason[200];
    memset(reason, 'a', sizeof(reason));
    reason[199] = '\0';
    struct buf out = {0};
    ws_frame_close(&out, 1000, reason);
    assert_int_equal(out.len, 2 + WS_CONTROL_MAX);
    /* The 123rd and 124th byte are one character: both go. */
    memcpy(reason + 122, "\xc3\xa9", 2);
    buf_clear(&out);
    ws_frame_close(&out, 1000, reason);
    assert_int_equal(out.len, 2 + 2 + 122);
    assert_int_equal(out.data[1], 124);
    buf_fini(&out);
}

static void assert_begin_end(size_t likely, size_t len)
{
    struct buf out = {0};
    struct buf expected = {0};
    char *payload = test_malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        payload[i] = (char)('a' + i % 26);
    buf_text(&out, "before");
    size_t mark = ws_frame_begin(&out, likely);
    buf_append(&out, payload, len);
    ws_frame_end(&out, mark, WS_TEXT);
    buf_text(&expected, "before");
    ws_frame_append(&expected, WS_TEXT, bytes_of(payload, len));
    assert_true(bytes_equal(buf_view(&out), buf_view(&expected)));
    test_free(payload);
    buf_fini(&out);
    buf_fini(&expected);
}

static void begin_end_whatever_was_likely__same_as_append(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536};
    enum { COUNT = sizeof(lengths) / sizeof(lengths[0]) };
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = 0; j < COUNT; j++)
            assert_begin_end(lengths[i], lengths[j]);
    }
}

static void begin_end_after_failure__harmless(void **state)
{
    (void)state;
    struct buf out = {.failed = true};
    size_t mark = ws_frame_begin(&out, 10);
    buf_text(&out, "x");
    ws_frame_end(&out, mark, WS_TEXT);
    assert_int_equal(out.len, 0);
    assert_true(out.failed);
}

/* Returns at how many bytes the head is refused, or 0 when it is not. */
static size_t refused_at(struct bytes view)
{
    struct ws_head head;
    for (size_t len = 0; len <= view.len; len++) {
        if (!ws_head_read(bytes_of(view.data, len), &head))
            return len;
    }
    return 0;
}

static void head_read_broken_rule__refused_at_its_byte(void **state)
{
    (void)state;
    assert_int_equal(refused_at(BYTES_LIT("\xc1\x80")), 1); /* RSV1 */
    assert_int_equal(refused_at(BYTES_LIT("\xa1\x80")), 1);
    assert_int_equal(refused_at(BYTES_LIT("\x91\x80")), 1);
    for (unsigned opcode = 0; opcode < 16; opcode++) {
        char first = (char)(0x80 | opcode);
        bool reserved = (opcode > 2 && opcode < 8) || opcode > 10;
        assert_int_equal(refused_at(bytes_of(&first, 1)), reserved ? 1 : 0);
    }
    assert_int_equal(refused_at(BYTES_LIT("\x09\x80")), 1);         /* ping without FIN */
    assert_int_equal(refused_at(BYTES_LIT("\x81\x05")), 2);         /* no mask */
    assert_int_equal(refused_at(BYTES_LIT("\x89\xfe\x00\x7e")), 2); /* ping of 126 */
    assert_int_equal(refused_at(BYTES_LIT("\x88\x81")), 2);         /* close of 1 */
    assert_int_equal(refused_at(BYTES_LIT("\x81\xfe\x00\x7d")), 4); /* 125 in 16 bits */
    assert_int_equal(refused_at(BYTES_LIT("\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff")), 10);
    assert_int_equal(refused_at(BYTES_LIT("\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00")), 10);
}

static void assert_read(struct bytes view, uint64_t payload_len, size_t length, bool complete)
{
    struct ws_head head;
    assert_true(ws_head_read(view, &head));
    assert_true(head.sized);
    assert_int_equal(head.payload_len, payload_len);
    assert_int_equal(head.length, length);
    assert_int_equal(head.complete, complete);
}

static void head_read_proper__length_known_before_the_mask(void **state)
{
    (void)state;
    struct ws_head head;
    assert_read(BYTES_LIT("\x81\xfd\x00\x00\x00\x00"), 125, 6, true);
    assert_read(BYTES_LIT("\x81\xfd"), 125, 6, false);
    assert_read(BYTES_LIT("\x81\xfe\x00\x7e"), 126, 8, false);
    assert_read(BYTES_LIT("\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00"), 65536, 14, false);
    assert_read(BYTES_LIT("\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff"
                          "mask"),
                INT64_MAX, 14, true);
    assert_true(ws_head_read(BYTES_LIT("\x01\xfe\x01"), &head));
    assert_false(head.sized);
    assert_false(head.final);
    assert_int_equal(head.opcode, WS_TEXT);
    assert_int_equal(head.length, 8);
}

int run_frame_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_at_each_length_step__shortest_form),
        cmocka_unit_test(append__head_and_payload),
        cmocka_unit_test(row_of_frames__cut_where_they_end),
        cmocka_unit_test(row_of_something_else__no_cut),
        cmocka_unit_test(append_when_memory_is_out__nothing_written),
        cmocka_unit_test(close_with_code__two_bytes_then_reason),
        cmocka_unit_test(close_without_code__empty),
        cmocka_unit_test(close_with_long_reason__cut_between_characters),
        cmocka_unit_test(begin_end_whatever_was_likely__same_as_append),
        cmocka_unit_test(begin_end_after_failure__harmless),
        cmocka_unit_test(head_read_broken_rule__refused_at_its_byte),
        cmocka_unit_test(head_read_proper__length_known_before_the_mask),
    };
    return cmocka_run_group_tests_name("ws frame", tests, NULL, NULL);
}
