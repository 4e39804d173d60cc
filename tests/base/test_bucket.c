#include "base/bucket.h"
#include "base/clock.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

struct limit {
    uint32_t per;
    uint32_t period_ms;
    uint32_t burst;
};

/* Rates that divide well and badly, the shipped ones, and the ends of what conf allows. */
static const struct limit limits[] = {
    {20, SECOND, 60}, {5, SECOND, 40},   {30, MINUTE, 30}, {1, SECOND, 1},       {7, SECOND, 3},
    {1, MINUTE, 10},  {99, SECOND, 999}, {3, SECOND, 100}, {10000, MINUTE, 200}, {1, 13, 4},
};

/* The first milliseconds, near a wrap of the state, near a wrap of the clock. */
static const uint32_t clocks[] = {0,       1, (1u << 24) - 20, (1u << 23) - 20, UINT32_MAX - 20,
                                  12345678};

enum { LIMITS = sizeof(limits) / sizeof(*limits), CLOCKS = sizeof(clocks) / sizeof(*clocks) };

static void for_each(void (*check)(const struct limit *limit, uint32_t clock))
{
    for (size_t i = 0; i < LIMITS * CLOCKS; i++)
        check(&limits[i % LIMITS], clocks[i / LIMITS]);
}

static uint32_t take(struct bucket *bucket, uint32_t now_ms, const struct limit *limit)
{
    return bucket_take(bucket, now_ms, limit->per, limit->period_ms, limit->burst);
}

/* How many tokens are there at once. */
static uint32_t drain(struct bucket *bucket, uint32_t now_ms, const struct limit *limit)
{
    uint32_t taken = 0;
    while (taken <= limit->burst && take(bucket, now_ms, limit) == 0)
        taken++;
    return taken;
}

static void check_fresh(const struct limit *limit, uint32_t clock)
{
    for (uint32_t offset = 0; offset < 2000; offset += 7) {
        struct bucket bucket = {0};
        assert_int_equal(drain(&bucket, clock - offset, limit), limit->burst);
    }
}

static void bucket__a_zeroed_one_is_full_whatever_the_clock(void **state)
{
    (void)state;
    for_each(check_fresh);
}

static void check_wait(const struct limit *limit, uint32_t clock)
{
    struct bucket bucket = {0};
    uint32_t now = clock;
    (void)drain(&bucket, now, limit);
    for (int i = 0; i < 200; i++) {
        uint32_t wait = take(&bucket, now, limit);
        assert_in_range(wait, 1, limit->period_ms / limit->per + 1);
        struct bucket early = bucket;
        assert_int_equal(take(&early, now + wait - 1, limit), 1);
        now += wait;
        assert_int_equal(take(&bucket, now, limit), 0);
    }
}

static void bucket__the_wait_it_tells_is_the_shortest_that_helps(void **state)
{
    (void)state;
    for_each(check_wait);
}

/* A sender that takes all it can for hours gets the burst and then the rate. */
static void check_rate(const struct limit *limit, uint32_t clock)
{
    struct bucket bucket = {0};
    uint64_t taken = 0;
    uint32_t now = 0;
    while (now < 6 * HOUR && taken < 10000000) {
        uint32_t wait = take(&bucket, clock + now, limit);
        now += wait;
        taken += wait == 0;
    }
    double exact = limit->burst + (double)limit->per * now / limit->period_ms;
    double steps = 256.0 * limit->period_ms / limit->per; /* a token is a whole number of them */
    double tolerance = 2 + exact / steps / 2;
    assert_true((double)taken > exact - tolerance && (double)taken < exact + tolerance);
}

static void bucket__keeps_its_rate_for_hours(void **state)
{
    (void)state;
    for_each(check_rate);
}

static void bucket__keeps_high_rates_as_well_as_its_steps_allow(void **state)
{
    (void)state;
    static const uint32_t rates[] = {10000, 50000, 100000};
    for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
        struct bucket bucket = {0};
        const struct limit limit = {rates[i], SECOND, rates[i] / 10};
        uint64_t taken = 0;
        for (uint32_t now = 0; now < 2 * SECOND; now++)
            taken += drain(&bucket, now, &limit);
        uint64_t exact = limit.burst + 2ull * rates[i];
        assert_in_range(taken, exact - exact / 5, exact + exact / 5);
    }
}

/* The same algorithm with a clock that never wraps. */
struct reference {
    uint64_t full_at;
};

static uint32_t reference_take(struct reference *bucket, uint64_t now_ms, const struct limit *limit)
{
    uint64_t step = (((uint64_t)limit->period_ms << 8) + limit->per / 2) / limit->per;
    uint64_t now = now_ms << 8;
    uint64_t depth = step * limit->burst;
    uint64_t full_at = (bucket->full_at > now ? bucket->full_at : now) + step;
    if (full_at <= now + depth) {
        bucket->full_at = full_at;
        return 0;
    }
    return (uint32_t)((full_at - now - depth + 255) / 256);
}

static void check_traffic(const struct limit *limit, uint32_t clock)
{
    struct bucket bucket = {0};
    struct reference reference = {0};
    uint64_t now = 0;
    uint64_t random = clock + 99u;
    for (int i = 0; i < 20000; i++) {
        uint32_t dice = (uint32_t)(random_next(&random) >> 32);
        uint32_t usual = 2 * limit->period_ms / limit->per + 2;
        now += dice % 8 == 0 ? 0 : dice % 1000 == 1 ? dice % (2 * HOUR) : dice % usual;
        assert_int_equal(take(&bucket, clock + (uint32_t)now, limit),
                         reference_take(&reference, now, limit));
    }
}

static void bucket__decides_as_one_with_an_endless_clock(void **state)
{
    (void)state;
    for_each(check_traffic);
}

/* The state comes round every 4.66 hours. However long nothing was taken, no more than the burst is
 * there, and what seems to be missing is back when a burst's time has passed. */
static void check_idle(const struct limit *limit, uint32_t clock)
{
    const uint32_t burst_ms =
        (uint32_t)((uint64_t)limit->period_ms * limit->burst / limit->per) + 2;
    uint64_t random = clock + 3u;
    for (int i = 0; i < 300; i++) {
        struct bucket bucket = {0};
        uint32_t now = clock;
        (void)drain(&bucket, now, limit);
        now += i == 0 ? (1u << 24) + 1 : (uint32_t)(random_next(&random) >> 32) % (50u * HOUR);
        (void)drain(&bucket, now, limit);
        assert_true(take(&bucket, now, limit) > 0);
        assert_int_equal(drain(&bucket, now + burst_ms, limit), limit->burst);
    }
}

static void bucket__after_any_idle_time_it_is_not_generous_and_soon_right(void **state)
{
    (void)state;
    for_each(check_idle);
}

/* Idle times that do not end within a burst's time before such a round: everything is there. */
static void check_full_again(const struct limit *limit, uint32_t clock)
{
    static const uint32_t idle[] = {20 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 10 * HOUR, 45 * HOUR};
    for (size_t i = 0; i < sizeof(idle) / sizeof(*idle); i++) {
        struct bucket bucket = {0};
        (void)drain(&bucket, clock, limit);
        assert_int_equal(drain(&bucket, clock + idle[i], limit), limit->burst);
    }
}

static void bucket__is_full_again_after_idle_hours(void **state)
{
    (void)state;
    for_each(check_full_again);
}

static void bucket__follows_a_limit_that_was_made_smaller(void **state)
{
    (void)state;
    const struct limit before = {20, SECOND, 60};
    const struct limit after = {20, SECOND, 10};
    struct bucket bucket = {0};
    assert_int_equal(drain(&bucket, 1000, &before), 60);
    (void)drain(&bucket, 1000, &after); /* the debt is more than the new burst: it is forgotten */
    assert_true(take(&bucket, 1000, &after) > 0);
    assert_int_equal(drain(&bucket, 1500, &after), 10);
}

int run_bucket_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bucket__a_zeroed_one_is_full_whatever_the_clock),
        cmocka_unit_test(bucket__the_wait_it_tells_is_the_shortest_that_helps),
        cmocka_unit_test(bucket__keeps_its_rate_for_hours),
        cmocka_unit_test(bucket__keeps_high_rates_as_well_as_its_steps_allow),
        cmocka_unit_test(bucket__decides_as_one_with_an_endless_clock),
        cmocka_unit_test(bucket__after_any_idle_time_it_is_not_generous_and_soon_right),
        cmocka_unit_test(bucket__is_full_again_after_idle_hours),
        cmocka_unit_test(bucket__follows_a_limit_that_was_made_smaller),
    };
    return cmocka_run_group_tests_name("bucket", tests, NULL, NULL);
}
