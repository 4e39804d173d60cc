#include "bench/frames.h"
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>

/* What a sink saw: opcode, length and a sum over the payload that was kept. */
struct seen {
    size_t count;
    struct buf log;
};

static void note(void *ctx, const struct server_frame *frame)
{
    struct seen *seen = ctx;
    uint64_t sum = 0;
    for (size_t i = 0; i < frame->payload.len; i++)
        sum = sum * 31 + (unsigned char)frame->payload.data[i];
    seen->count++;
    buf_printf(&seen->log, "%u %d %llu %zu %llx\n", frame->opcode, frame->fin,
               (unsigned long long)frame->length, frame->payload.len, (unsigned long long)sum);
}

static void add(struct buf *stream, uint8_t opcode, bool fin, size_t len)
{
    size_t at = stream->len;
    frame_write_head(stream, opcode, len);
    if (!fin)
        stream->data[at] = (char)(stream->data[at] & 0x7f);
    for (size_t i = 0; i < len; i++)
        buf_byte(stream, (char)(len + i * 7));
}

/* Feeds the stream in pieces, most of them of `step` bytes, each in memory of its own so that a sanitizer sees reads
 * past its end. */
static const char *feed(struct bytes stream, size_t step, struct seen *seen)
{
    struct frame_reader reader = {0};
    const char *wrong = NULL;
    for (size_t at = 0; at < stream.len && !wrong; at += step) {
        size_t len = stream.len - at < step ? stream.len - at : step;
        char *piece = malloc(len);
        assert_non_null(piece);
        memcpy(piece, stream.data + at, len);
        wrong = frame_reader_feed(&reader, bytes_of(piece, len), note, seen);
        free(piece);
    }
    frame_reader_fini(&reader);
    return wrong;
}

static void feed__sees_the_same_frames_however_they_are_cut(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 65537, 70000, 3};
    struct buf stream = {0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        add(&stream, FRAME_TEXT, true, sizes[i]);
    add(&stream, FRAME_BINARY, false, 10);
    add(&stream, FRAME_PING, true, 4);
    add(&stream, FRAME_CONTINUATION, false, 200);
    add(&stream, FRAME_CONTINUATION, true, 0);
    add(&stream, FRAME_CLOSE, true, 2);
    struct seen whole = {0};
    assert_null(feed(buf_view(&stream), stream.len, &whole));
    assert_int_equal(whole.count, 15);
    const size_t steps[] = {1, 2, 3, 7, 129, 1000, 4096, 65536};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct seen seen = {0};
        assert_null(feed(buf_view(&stream), steps[i], &seen));
        assert_true(bytes_equal(buf_view(&seen.log), buf_view(&whole.log)));
        buf_fini(&seen.log);
    }
    buf_fini(&whole.log);
    buf_fini(&stream);
}

static void feed__cuts_what_is_larger_than_it_keeps(void **state)
{
    (void)state;
    struct buf stream = {0};
    add(&stream, FRAME_TEXT, true, FRAME_KEPT_MAX + 1);
    add(&stream, FRAME_TEXT, true, 5);
    struct seen seen = {0};
    assert_null(feed(buf_view(&stream), 5000, &seen));
    buf_byte(&seen.log, 0);
    assert_int_equal(seen.count, 2);
    assert_non_null(strstr(seen.log.data, "1 1 65537 1024 "));
    assert_non_null(strstr(seen.log.data, "1 1 5 5 "));
    buf_fini(&seen.log);
    buf_fini(&stream);
}

static void feed__says_what_a_server_does_wrong(void **state)
{
    (void)state;
    const struct {
        struct bytes stream;
        const char *says;
    } cases[] = {
        {BYTES_LIT("\xc1\x00"), "reserved bit"},
        {BYTES_LIT("\x81\x80mask"), "masked"},
        {BYTES_LIT("\x83\x00"), "unknown data opcode"},
        {BYTES_LIT("\x8b\x00"), "unknown control opcode"},
        {BYTES_LIT("\x09\x00"), "fragmented or above 125"},
        {BYTES_LIT("\x89\x7e\x00\x7e"), "fragmented or above 125"},
        {BYTES_LIT("\x80\x00"), "continuation out of place"},
        {BYTES_LIT("\x01\x00\x81\x00"), "continuation out of place"},
        {BYTES_LIT("\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), "2^63"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step < 12; step += 10) {
            struct seen seen = {0};
            const char *wrong = feed(cases[i].stream, step, &seen);
            assert_non_null(wrong);
            assert_non_null(strstr(wrong, cases[i].says));
            buf_fini(&seen.log);
        }
    }
}

static void write_masked__unmasks_to_the_payload(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 5, 125, 126, 65535};
    static char payload[65535];
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (char)(i * 13);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf out = {0};
        size_t head = sizes[i] < 126 ? 2 : 4;
        frame_write_masked(&out, FRAME_TEXT, bytes_of(payload, sizes[i]), 0xa1b2c3d4);
        assert_int_equal(out.len, head + 4 + sizes[i]);
        assert_int_equal((unsigned char)out.data[0], 0x81);
        assert_int_equal((unsigned char)out.data[1], 0x80 | (sizes[i] < 126 ? sizes[i] : 126));
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal((char)(out.data[head + 4 + at] ^ out.data[head + at % 4]),
                             payload[at]);
        buf_fini(&out);
    }
}

int suite_frames(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feed__sees_the_same_frames_however_they_are_cut),
        cmocka_unit_test(feed__cuts_what_is_larger_than_it_keeps),
        cmocka_unit_test(feed__says_what_a_server_does_wrong),
        cmocka_unit_test(write_masked__unmasks_to_the_payload),
    };
    return cmocka_run_group_tests_name("frames", tests, NULL, NULL);
}
