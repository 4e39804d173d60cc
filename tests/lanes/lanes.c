#include "halley/lanes.h"
#include "lanes/test_lanes.h"

enum { HIGH = HALLEY_LANE_HIGH, NORMAL = HALLEY_LANE_NORMAL, LOW = HALLEY_LANE_LOW, ALL = 7 };

static const struct halley_lane_policy policies[HALLEY_LANES] = {
    [HIGH] = {.bounds = {.bytes = 1000, .ttl_ms = 1000}, .interval_ms = 0},
    [NORMAL] = {.bounds = {.bytes = 1000, .ttl_ms = 300}, .interval_ms = 20},
    [LOW] = {.bounds = {.bytes = 400, .ttl_ms = 200}, .interval_ms = 100},
};

static void append(struct halley_lanes *lanes, int lane, uint32_t now_ms, size_t len)
{
    static const char zeros[1000];
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{zeros, len}, {NULL, 0}};
    assert_int_equal(halley_lanes_append(lanes, &policies[lane], lane, now_ms, 0, frames), 0);
}

/* Milliseconds until the first lane is due; -1: none is pending. */
static int due_in(const struct halley_lanes *lanes,
                  const struct halley_lane_policy lane_policies[HALLEY_LANES], uint32_t now_ms)
{
    int next;
    unsigned due = halley_lanes_due(lanes, lane_policies, now_ms, &next);
    return due ? 0 : next;
}

static void lanes_due__quiet_lanes_flush_at_once_whatever_the_clock(void **state)
{
    (void)state;
    static const uint32_t clocks[] = {0, 1, 3599999, 3600000, INT32_MAX, UINT32_MAX - 5};
    for (size_t i = 0; i < sizeof(clocks) / sizeof(*clocks); i++) {
        for (int lane = 0; lane < HALLEY_LANES; lane++) {
            struct halley_lanes lanes;
            lanes_fresh(&lanes, clocks[i]);
            assert_int_equal(due_in(&lanes, policies, clocks[i]), -1);
            append(&lanes, lane, clocks[i], 10);
            assert_int_equal(due_in(&lanes, policies, clocks[i]), 0);
            halley_lanes_fini(&lanes);
        }
    }
}

static void lanes_due__busy_lanes_gather_for_the_rest_of_the_interval(void **state)
{
    (void)state;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        uint32_t interval = policies[lane].interval_ms;
        uint32_t flushed = UINT32_MAX - 10; /* the clock wraps while messages gather */
        struct halley_lanes lanes;
        lanes_fresh(&lanes, flushed);
        append(&lanes, lane, flushed, 10);
        assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, flushed), 1u << lane);
        for (uint32_t passed = 0; passed <= interval + 5; passed++) {
            uint32_t now = flushed + passed;
            if (passed == 1)
                assert_int_equal(due_in(&lanes, policies, now), -1);
            if (passed == 2)
                append(&lanes, lane, now, 10);
            int left = passed < interval ? (int)(interval - passed) : 0;
            if (passed >= 2)
                assert_int_equal(due_in(&lanes, policies, now), left);
        }
        halley_lanes_fini(&lanes);
    }
}

static void lanes_due__is_that_of_the_most_urgent_lane(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    append(&lanes, LOW, 0, 10);
    append(&lanes, NORMAL, 0, 10);
    assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, 0), 1u << LOW | 1u << NORMAL);
    append(&lanes, LOW, 1, 10);
    assert_int_equal(due_in(&lanes, policies, 1), 99);
    append(&lanes, NORMAL, 2, 10);
    assert_int_equal(due_in(&lanes, policies, 2), 18);
    append(&lanes, HIGH, 3, 10);
    assert_int_equal(due_in(&lanes, policies, 3), 0);
    halley_lanes_fini(&lanes);
}

static void lanes_flush_begin__takes_every_pending_lane_along_once(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, 0), 0);
    append(&lanes, LOW, 0, 10);
    append(&lanes, HIGH, 0, 10);
    assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, 0), 1u << HIGH | 1u << LOW);
    assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, 0), 0);
    assert_int_equal(due_in(&lanes, policies, 500), -1);
    append(&lanes, NORMAL, 1, 10); /* it was not flushed, so it was quiet */
    assert_int_equal(due_in(&lanes, policies, 1), 0);
    halley_lanes_fini(&lanes);
}

static void lanes_due__names_each_lane_and_the_time_of_the_others(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    int next;
    lanes_fresh(&lanes, 0);
    append(&lanes, NORMAL, 0, 10);
    append(&lanes, LOW, 0, 10);
    assert_int_equal(halley_lanes_flush_begin(&lanes, ALL, 0), 1u << NORMAL | 1u << LOW);
    append(&lanes, HIGH, 5, 10);
    append(&lanes, NORMAL, 5, 10);
    append(&lanes, LOW, 5, 10);
    assert_int_equal(halley_lanes_due(&lanes, policies, 5, &next), 1u << HIGH);
    assert_int_equal(next, 15);
    assert_int_equal(halley_lanes_due(&lanes, policies, 25, &next), 1u << HIGH | 1u << NORMAL);
    assert_int_equal(next, 75);
    assert_int_equal(halley_lanes_due(&lanes, policies, 100, &next), ALL);
    assert_int_equal(next, -1);
    halley_lanes_fini(&lanes);
}

static void lanes_flush_begin__leaves_the_other_lanes_pending(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    append(&lanes, HIGH, 0, 10);
    append(&lanes, LOW, 0, 10);
    assert_int_equal(halley_lanes_flush_begin(&lanes, 1u << HIGH | 1u << NORMAL, 7), 1u << HIGH);
    assert_int_equal(lanes.pending, 1u << LOW);
    assert_int_equal(lanes.flushed_ms[HIGH], 7);
    assert_int_not_equal(lanes.flushed_ms[LOW], 7);
    halley_lanes_fini(&lanes);
}

static void lanes_rest__numbers_and_times_outlive_the_logs(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    for (int i = 0; i < 3; i++)
        append(&lanes, NORMAL, 50, 10);
    append(&lanes, LOW, 50, 10);
    halley_lanes_flush_begin(&lanes, ALL, 60);
    struct halley_lanes_rest rest = halley_lanes_rest(&lanes);
    halley_lanes_fini(&lanes);
    halley_lanes_init(&lanes, &rest);
    assert_int_equal(lanes.next[HIGH], 0);
    assert_int_equal(lanes.next[NORMAL], 3);
    assert_int_equal(lanes.next[LOW], 1);
    assert_false(halley_lanes_lost(&lanes, NORMAL, 3));
    assert_true(halley_lanes_lost(&lanes, NORMAL, 2)); /* its frame went with the log */
    append(&lanes, NORMAL, 61, 10);
    assert_int_equal(lanes.next[NORMAL], 4);
    assert_int_equal(halley_framelog_tail(lanes.log[NORMAL]), 3);
    assert_int_equal(due_in(&lanes, policies, 61), 19); /* of 20 since the flush */
    halley_lanes_fini(&lanes);
}

static void lanes_append__what_fails_is_not_pending(void **state)
{
    (void)state;
    static const char zeros[1001];
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{zeros, 1001}, {NULL, 0}};
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    assert_int_equal(halley_lanes_append(&lanes, &policies[NORMAL], NORMAL, 0, 0, frames),
                     HALLEY_FRAMELOG_ERR_TOO_LARGE);
    assert_int_equal(lanes.next[NORMAL], 0);
    assert_int_equal(due_in(&lanes, policies, 0), -1);
    assert_false(halley_lanes_expire(&lanes, policies, 0)); /* an empty log does not stay */
    assert_null(lanes.log[NORMAL]);
    halley_lanes_fini(&lanes);
}

static void lanes_expire__frees_logs_and_keeps_cursors_valid(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    lanes.next[NORMAL] = UINT32_MAX - 1; /* as after a long life */
    uint32_t current = lanes.next[NORMAL];
    for (uint32_t i = 0; i < 3; i++)
        append(&lanes, NORMAL, i, 10);
    append(&lanes, LOW, 0, 10);
    uint32_t late = current;
    current += 3;
    assert_int_equal(current, 1);
    assert_true(halley_lanes_memory(&lanes) > 0);
    assert_true(halley_lanes_expire(&lanes, policies, 201));
    assert_null(lanes.log[LOW]);
    assert_non_null(lanes.log[NORMAL]);
    assert_false(halley_lanes_expire(&lanes, policies, 303));
    assert_int_equal(halley_lanes_memory(&lanes), 0);

    assert_false(halley_lanes_lost(&lanes, NORMAL, current));
    assert_true(halley_lanes_lost(&lanes, NORMAL, late));
    append(&lanes, NORMAL, 400, 25);
    assert_int_equal(lanes.next[NORMAL], 2);
    assert_int_equal(halley_framelog_tail(lanes.log[NORMAL]), current);
    assert_int_equal(halley_framelog_pending(lanes.log[NORMAL], 0, current), 25);
    assert_true(halley_lanes_lost(&lanes, NORMAL, late));
    uint32_t skipped = halley_lanes_catch_up(&lanes, &policies[NORMAL], NORMAL, 0, 400, &late);
    assert_int_equal(skipped, 3);
    assert_int_equal(late, current);
    halley_lanes_fini(&lanes);
}

static void lanes_catch_up__leaves_a_cursor_that_is_not_behind(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    for (uint32_t i = 0; i < 10; i++)
        append(&lanes, NORMAL, 0, 100);
    for (uint32_t at = 0; at <= 10; at++) {
        uint32_t cursor = at;
        assert_false(halley_lanes_lost(&lanes, NORMAL, cursor));
        assert_int_equal(halley_lanes_catch_up(&lanes, &policies[NORMAL], NORMAL, 0, 0, &cursor),
                         0);
        assert_int_equal(cursor, at);
    }
    halley_lanes_fini(&lanes);
}

static void lanes_catch_up__counts_what_it_skips_and_leaves_half_the_bound(void **state)
{
    (void)state;
    for (uint32_t first = UINT32_MAX - 30; first != 10; first++) {
        struct halley_lanes lanes;
        lanes_fresh(&lanes, 0);
        lanes.next[NORMAL] = first;
        for (uint32_t i = 0; i < 25; i++)
            append(&lanes, NORMAL, 0, 100);
        for (uint32_t behind = 0; behind < 15; behind++) {
            uint32_t cursor = first + behind;
            assert_true(halley_lanes_lost(&lanes, NORMAL, cursor));
            assert_int_equal(
                halley_lanes_catch_up(&lanes, &policies[NORMAL], NORMAL, 0, 0, &cursor),
                20 - behind);
            assert_int_equal(cursor, first + 20);
            assert_false(halley_lanes_lost(&lanes, NORMAL, cursor));
        }
        halley_lanes_fini(&lanes);
    }
}

static void lanes_catch_up__goes_to_the_next_frame_when_the_log_is_gone(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    for (uint32_t i = 0; i < 4; i++)
        append(&lanes, LOW, 0, 10);
    (void)halley_lanes_expire(&lanes, policies, 5000);
    uint32_t cursor = 1;
    assert_int_equal(halley_lanes_catch_up(&lanes, &policies[LOW], LOW, 0, 5000, &cursor), 3);
    assert_int_equal(cursor, lanes.next[LOW]);
    assert_int_equal(halley_lanes_catch_up(&lanes, &policies[LOW], LOW, 0, 5000, &cursor), 0);
    halley_lanes_fini(&lanes);
}

int run_lanes_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_due__quiet_lanes_flush_at_once_whatever_the_clock),
        cmocka_unit_test(lanes_due__busy_lanes_gather_for_the_rest_of_the_interval),
        cmocka_unit_test(lanes_due__is_that_of_the_most_urgent_lane),
        cmocka_unit_test(lanes_due__names_each_lane_and_the_time_of_the_others),
        cmocka_unit_test(lanes_flush_begin__leaves_the_other_lanes_pending),
        cmocka_unit_test(lanes_rest__numbers_and_times_outlive_the_logs),
        cmocka_unit_test(lanes_flush_begin__takes_every_pending_lane_along_once),
        cmocka_unit_test(lanes_append__what_fails_is_not_pending),
        cmocka_unit_test(lanes_expire__frees_logs_and_keeps_cursors_valid),
        cmocka_unit_test(lanes_catch_up__leaves_a_cursor_that_is_not_behind),
        cmocka_unit_test(lanes_catch_up__counts_what_it_skips_and_leaves_half_the_bound),
        cmocka_unit_test(lanes_catch_up__goes_to_the_next_frame_when_the_log_is_gone),
    };
    return cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
}
