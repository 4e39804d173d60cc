#include "base/clock.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static void clock__never_goes_back_and_agrees_in_both_units(void **state)
{
    (void)state;
    uint64_t last_ns = clock_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t before = clock_ns();
        uint64_t ms = clock_ms();
        uint64_t after = clock_ns();
        assert_true(last_ns <= before && before <= after);
        assert_in_range(ms, before / 1000000, after / 1000000);
        last_ns = after;
    }
}

static void clock__moves_on(void **state)
{
    (void)state;
    uint64_t start = clock_ns();
    while (clock_ns() == start)
        ;
    uint64_t start_ms = clock_ms();
    while (clock_ms() == start_ms)
        ;
    assert_true(clock_ms() > start_ms);
}

static void clock_unix__is_the_calendars_time(void **state)
{
    (void)state;
    struct timespec before;
    struct timespec after;
    clock_gettime(CLOCK_REALTIME, &before);
    uint64_t now = clock_unix_ms();
    clock_gettime(CLOCK_REALTIME, &after);
    assert_true(now >= (uint64_t)before.tv_sec * 1000 + (uint64_t)before.tv_nsec / 1000000);
    assert_true(now <= (uint64_t)after.tv_sec * 1000 + (uint64_t)after.tv_nsec / 1000000);
}

static void random_next__is_never_zero_and_uses_every_bit(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {1, 2, 0x8000000000000000u, UINT64_MAX};
    for (size_t i = 0; i < sizeof(seeds) / sizeof(*seeds); i++) {
        unsigned ones[64] = {0};
        uint64_t generator = seeds[i];
        uint64_t last = 0;
        for (unsigned n = 0; n < 20000; n++) {
            uint64_t value = random_next(&generator);
            assert_true(value != 0 && value != last);
            last = value;
            for (unsigned bit = 0; bit < 64; bit++)
                ones[bit] += (unsigned)(value >> bit) & 1;
        }
        for (unsigned bit = 0; bit < 64; bit++)
            assert_in_range(ones[bit], 9500, 10500);
    }
}

static void random_seed__differs_each_time_and_is_never_zero(void **state)
{
    (void)state;
    uint64_t seeds[100];
    for (int i = 0; i < 100; i++) {
        seeds[i] = random_seed();
        assert_true(seeds[i] != 0);
        for (int j = 0; j < i; j++)
            assert_true(seeds[i] != seeds[j]);
    }
}

int run_clock_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock__never_goes_back_and_agrees_in_both_units),
        cmocka_unit_test(clock__moves_on),
        cmocka_unit_test(clock_unix__is_the_calendars_time),
        cmocka_unit_test(random_next__is_never_zero_and_uses_every_bit),
        cmocka_unit_test(random_seed__differs_each_time_and_is_never_zero),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
