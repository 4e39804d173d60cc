#include "bench/latency.h"
#include "suites.h"

#include <string.h>

static struct latency histogram;

static int clear(void **state)
{
    (void)state;
    memset(&histogram, 0, sizeof(histogram));
    return 0;
}

static void quantile__empty_is_zero(void **state)
{
    (void)state;
    assert_int_equal(latency_quantile(&histogram, 0.99), 0);
}

static void buckets__follow_each_other_without_hole(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < LATENCY_BUCKETS; i++) {
        uint64_t end = latency_bucket_end(i);
        clear(NULL);
        latency_add(&histogram, end);
        latency_add(&histogram, end + 1);
        assert_int_equal(histogram.buckets[i], 1);
        assert_int_equal(histogram.buckets[i + 1], 1);
    }
}

static void buckets__are_at_most_a_64th_wide(void **state)
{
    (void)state;
    for (size_t i = 1; i < LATENCY_BUCKETS; i++) {
        uint64_t first = latency_bucket_end(i - 1) + 1;
        assert_true((latency_bucket_end(i) - first) * LATENCY_STEPS <= first);
    }
}

static void quantile__is_the_value_that_so_many_do_not_exceed(void **state)
{
    (void)state;
    for (uint64_t ms = 1; ms <= 1000; ms++)
        latency_add(&histogram, ms * 1000000);
    const struct {
        double quantile;
        double ms;
    } cases[] = {{0.5, 500}, {0.9, 900}, {0.99, 990}, {0.999, 999}, {1, 1000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double ms = (double)latency_quantile(&histogram, cases[i].quantile) / 1e6;
        assert_true(ms >= cases[i].ms && ms <= cases[i].ms * (1 + 1.0 / LATENCY_STEPS));
    }
}

static void quantile__never_exceeds_the_highest_value(void **state)
{
    (void)state;
    latency_add(&histogram, 1000001);
    assert_int_equal(latency_quantile(&histogram, 0.5), 1000001);
    latency_add(&histogram, UINT64_C(1) << 50);
    assert_int_equal(latency_quantile(&histogram, 1), UINT64_C(1) << 50);
}

static void merge__counts_like_one_histogram(void **state)
{
    (void)state;
    static struct latency other;
    memset(&other, 0, sizeof(other));
    for (uint64_t value = 0; value < 100; value++)
        latency_add(value % 2 ? &histogram : &other, value);
    latency_merge(&histogram, &other);
    assert_int_equal(histogram.count, 100);
    assert_int_equal(histogram.max, 99);
    assert_int_equal(latency_quantile(&histogram, 0.5), 49);
}

int suite_latency(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(quantile__empty_is_zero, clear),
        cmocka_unit_test_setup(buckets__follow_each_other_without_hole, clear),
        cmocka_unit_test_setup(buckets__are_at_most_a_64th_wide, clear),
        cmocka_unit_test_setup(quantile__is_the_value_that_so_many_do_not_exceed, clear),
        cmocka_unit_test_setup(quantile__never_exceeds_the_highest_value, clear),
        cmocka_unit_test_setup(merge__counts_like_one_histogram, clear),
    };
    return cmocka_run_group_tests_name("latency", tests, NULL, NULL);
}
