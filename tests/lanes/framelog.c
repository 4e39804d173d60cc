#include "halley/framelog.h"
#include "lanes/test_lanes.h"

#include <string.h>

static const struct halley_framelog_bounds bounds = {.bytes = 1000, .ttl_ms = 100};

static int append(struct halley_framelog *log, uint32_t now_ms, size_t len0, size_t len1)
{
    static const char zeros[4096];
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{zeros, len0}, {zeros, len1}};
    return halley_framelog_append(log, &bounds, now_ms, 0, frames);
}

/* A fresh log with `count` frames of 100 bytes in the first encoding, at 0, 1, 2 … ms. */
static struct halley_framelog *log_of(uint32_t first_number, uint32_t count)
{
    struct halley_framelog *log = halley_framelog_create(first_number);
    assert_non_null(log);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(append(log, i, 100, 0), HALLEY_FRAMELOG_OK);
    return log;
}

static void framelog__is_empty_when_made(void **state)
{
    (void)state;
    struct iovec iov[2];
    size_t into = 1;
    struct halley_framelog *log = log_of(42, 0);
    assert_int_equal(halley_framelog_head(log), 42);
    assert_int_equal(halley_framelog_tail(log), 42);
    assert_int_equal(halley_framelog_range(log, 0, 42, iov), 0);
    assert_int_equal(halley_framelog_pending(log, 1, 42), 0);
    assert_int_equal(halley_framelog_locate(log, 0, 42, 0, &into), 42);
    assert_int_equal(into, 0);
    assert_int_equal(halley_framelog_resume(log, &bounds, 0, 5), 42);
    assert_int_equal(halley_framelog_age_ms(log, 42, 5), 0);
    assert_int_equal(halley_framelog_trim(log, 0), 0);
    assert_true(halley_framelog_memory(log) < 128);
    assert_true(halley_framelog_check(log));
    halley_framelog_destroy(log);
    halley_framelog_destroy(NULL);
}

static void framelog_append__keeps_exactly_its_bytes(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 10);
    assert_int_equal(halley_framelog_tail(log), 0);
    assert_int_equal(halley_framelog_pending(log, 0, 0), bounds.bytes);
    assert_int_equal(append(log, 10, 1, 0), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_tail(log), 1);
    assert_int_equal(append(log, 10, bounds.bytes, 0), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_tail(log), 11);
    halley_framelog_destroy(log);
}

static void framelog_append__refuses_what_is_too_large_and_keeps_the_rest(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 5);
    assert_int_equal(append(log, 500, bounds.bytes + 1, 0), HALLEY_FRAMELOG_ERR_TOO_LARGE);
    assert_int_equal(append(log, 500, 0, bounds.bytes + 1), HALLEY_FRAMELOG_ERR_TOO_LARGE);
    assert_int_equal(halley_framelog_tail(log), 0);
    assert_int_equal(halley_framelog_head(log), 5);
    halley_framelog_destroy(log);
}

static void framelog_append__bounds_each_encoding(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 0);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(append(log, 0, 20, 100), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_tail(log), 0);
    assert_int_equal(append(log, 0, 20, 100), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_tail(log), 1);
    halley_framelog_destroy(log);
}

static void framelog__lets_a_frame_live_for_its_ttl_and_not_longer(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 3); /* at 0, 1 and 2 ms */
    halley_framelog_expire(log, &bounds, 100);
    assert_int_equal(halley_framelog_tail(log), 0);
    assert_int_equal(halley_framelog_age_ms(log, 1, 100), 99);
    halley_framelog_expire(log, &bounds, 101);
    assert_int_equal(halley_framelog_tail(log), 1);
    assert_int_equal(append(log, 102, 1, 0), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_tail(log), 2);
    halley_framelog_destroy(log);
}

static void framelog_expire__gives_all_memory_back_when_nothing_is_left(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(7, 0);
    size_t empty = halley_framelog_memory(log);
    assert_int_equal(append(log, 0, 300, 300), HALLEY_FRAMELOG_OK);
    assert_true(halley_framelog_memory(log) >= empty + 600);
    halley_framelog_expire(log, &bounds, 101);
    assert_int_equal(halley_framelog_memory(log), empty);
    assert_int_equal(halley_framelog_head(log), 8);
    assert_int_equal(halley_framelog_tail(log), 8);
    assert_int_equal(append(log, 102, 10, 0), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_pending(log, 0, 8), 10);
    halley_framelog_destroy(log);
}

static void framelog_trim__shrinks_the_memory(void **state)
{
    (void)state;
    const struct halley_framelog_bounds large = {.bytes = 1 << 20, .ttl_ms = 100};
    static const char zeros[500];
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{zeros, 500}, {zeros, 100}};
    struct halley_framelog *log = log_of(0, 0);
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(halley_framelog_append(log, &large, 0, 0, frames), HALLEY_FRAMELOG_OK);
    size_t before = halley_framelog_memory(log);
    assert_true(before > 1 << 20);
    assert_int_equal(halley_framelog_trim(log, 100000), 1800);
    assert_true(halley_framelog_memory(log) < 2 * 131072);
    assert_int_equal(halley_framelog_pending(log, 0, 1800), 100000);
    assert_int_equal(halley_framelog_trim(log, 100000), 0);
    assert_int_equal(halley_framelog_trim(log, 0), 200);
    assert_true(halley_framelog_memory(log) < 128);
    halley_framelog_destroy(log);
}

/* What helps whoever has to bring the heap of many logs down: each step frees something. */
static void framelog_trim__to_an_eighth_of_the_heap_always_frees_much(void **state)
{
    (void)state;
    const struct halley_framelog_bounds large = {.bytes = 1 << 18, .ttl_ms = 100};
    static const size_t sizes[] = {0, 1, 2, 7, 16, 33, 100, 1000, 2047};
    static const char zeros[2047];
    const size_t kinds = sizeof(sizes) / sizeof(*sizes);
    for (size_t i = 0; i < kinds * kinds; i++) {
        const struct halley_frame frames[] = {{zeros, sizes[i / kinds]}, {zeros, sizes[i % kinds]}};
        for (uint32_t count = 40; count < 30000; count *= 2) {
            struct halley_framelog *log = log_of(0, 0);
            for (uint32_t n = 0; n < count; n++)
                assert_int_equal(halley_framelog_append(log, &large, 0, 0, frames), 0);
            size_t before = halley_framelog_memory(log);
            (void)halley_framelog_trim(log, (uint32_t)(before / 8));
            if (before >= 4096)
                assert_true(halley_framelog_memory(log) <= before - before / 4);
            halley_framelog_destroy(log);
        }
    }
}

static void framelog__bounds_frames_that_nobody_reads(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 0);
    size_t empty = halley_framelog_memory(log);
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(append(log, 0, 0, 0), HALLEY_FRAMELOG_OK);
    assert_int_equal(halley_framelog_head(log), 100000);
    assert_true(halley_framelog_memory(log) <= empty + 2 * bounds.bytes);
    assert_true(halley_framelog_trim(log, bounds.bytes / 2) > 0);
    assert_int_equal(halley_framelog_trim(log, 0) > 0, 1);
    assert_int_equal(halley_framelog_tail(log), 100000);
    halley_framelog_destroy(log);
}

static void framelog_resume__lies_within_half_of_both_bounds(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(UINT32_MAX - 4, 10); /* 100 bytes each, at 0 to 9 ms */
    uint32_t tail = UINT32_MAX - 4;
    assert_int_equal(halley_framelog_resume(log, &bounds, 0, 9), (uint32_t)(tail + 5));
    assert_int_equal(halley_framelog_resume(log, &bounds, 1, 9), tail); /* no bytes there */
    assert_int_equal(halley_framelog_resume(log, &bounds, 1, 53), (uint32_t)(tail + 3));
    assert_int_equal(halley_framelog_resume(log, &bounds, 0, 57), (uint32_t)(tail + 7));
    assert_int_equal(halley_framelog_resume(log, &bounds, 0, 60), (uint32_t)(tail + 10));
    halley_framelog_destroy(log);
}

static void framelog_check__sees_through_a_changing_capacity(void **state)
{
    (void)state;
    struct halley_framelog *log = log_of(0, 1);
    size_t least = halley_framelog_memory(log);
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(append(log, 1, 1 + i * 4, 900 - i * 4), HALLEY_FRAMELOG_OK);
        assert_true(halley_framelog_check(log));
        assert_true(halley_framelog_memory(log) <= least + 4096);
    }
    halley_framelog_destroy(log);
}

/* Frames 10 to 19 with the marks 65533 to 65535 and on from 0; every fourth carries its predecessor's. */
static struct halley_framelog *marked_log(size_t len1)
{
    struct halley_framelog *log = log_of(10, 0);
    uint16_t mark = 65532;
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(append(log, 0, 10, i < 5 ? 0 : len1), HALLEY_FRAMELOG_OK);
        mark = i % 4 == 3 ? mark : (uint16_t)(mark + 1);
        halley_framelog_mark(log, mark);
    }
    return log;
}

static void framelog_seek__finds_the_frame_behind_a_mark(void **state)
{
    (void)state;
    uint32_t number = 0;
    struct halley_framelog *log = marked_log(10);
    /* marks: 65533 65534 65535 65535 0 1 2 2 3 4 */
    assert_true(halley_framelog_seek(log, 0, 65532, 10, &number));
    assert_int_equal(number, 10);
    assert_true(halley_framelog_seek(log, 0, 65535, 10, &number));
    assert_int_equal(number, 14);
    assert_true(halley_framelog_seek(log, 0, 3, 10, &number));
    assert_int_equal(number, 19);
    assert_true(halley_framelog_seek(log, 0, 4, 10, &number));
    assert_int_equal(number, 20);
    assert_false(
        halley_framelog_seek(log, 0, 65531, 10, &number)); /* 65532 is not there any more */
    assert_false(halley_framelog_seek(log, 0, 65533, 12, &number)); /* nor before `since` */
    assert_true(halley_framelog_seek(log, 1, 0, 10, &number));
    assert_int_equal(number, 15);
    assert_false(halley_framelog_seek(log, 1, 65535, 10, &number)); /* 14 lacks this encoding */
    halley_framelog_destroy(log);
}

int run_framelog_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framelog__is_empty_when_made),
        cmocka_unit_test(framelog_append__keeps_exactly_its_bytes),
        cmocka_unit_test(framelog_append__refuses_what_is_too_large_and_keeps_the_rest),
        cmocka_unit_test(framelog_append__bounds_each_encoding),
        cmocka_unit_test(framelog__lets_a_frame_live_for_its_ttl_and_not_longer),
        cmocka_unit_test(framelog_expire__gives_all_memory_back_when_nothing_is_left),
        cmocka_unit_test(framelog_trim__shrinks_the_memory),
        cmocka_unit_test(framelog_trim__to_an_eighth_of_the_heap_always_frees_much),
        cmocka_unit_test(framelog__bounds_frames_that_nobody_reads),
        cmocka_unit_test(framelog_resume__lies_within_half_of_both_bounds),
        cmocka_unit_test(framelog_seek__finds_the_frame_behind_a_mark),
        cmocka_unit_test(framelog_check__sees_through_a_changing_capacity),
    };
    return cmocka_run_group_tests_name("framelog", tests, NULL, NULL);
}
