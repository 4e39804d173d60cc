#include "base/clock.h"
#include "base/test_base.h"
#include "base/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { TIMERS = 40 };

struct timer {
    struct link link;
    uint32_t at; /* when it must come out */
    bool on_wheel;
};

static const uint32_t starts[] = {0, 1, 63, 64, 255, 256, UINT32_MAX - 300, UINT32_MAX - 1};

enum { STARTS = sizeof(starts) / sizeof(*starts) };

/* The tick at which the header says that a link comes out. */
static uint32_t clamped(const struct wheel *wheel, uint32_t due)
{
    int32_t ahead = (int32_t)(due - wheel->now);
    return wheel->now + (uint32_t)(ahead < 1 ? 1 : ahead > 255 ? 255 : ahead);
}

static bool advance(struct wheel *wheel, uint32_t now, const struct link *expected)
{
    struct link due;
    list_init(&due);
    wheel_advance(wheel, now, &due);
    struct link *first = list_shift(&due);
    assert_true(first == NULL || first == expected);
    assert_true(list_empty(&due));
    return first != NULL;
}

static void wheel__a_link_comes_out_at_its_tick_whatever_the_distance(void **state)
{
    (void)state;
    for (size_t s = 0; s < STARTS; s++) {
        for (int32_t distance = -300; distance <= 600; distance++) {
            struct wheel wheel;
            struct link link;
            list_init(&link);
            wheel_init(&wheel, starts[s]);
            assert_int_equal(wheel_next(&wheel), 0);
            wheel_add(&wheel, &link, starts[s] + (uint32_t)distance);
            uint32_t at = distance < 1 ? 1 : distance > 255 ? 255 : (uint32_t)distance;
            assert_int_equal(wheel_next(&wheel), at);
            assert_false(advance(&wheel, starts[s] + at - 1, &link));
            assert_int_equal(wheel_next(&wheel), 1);
            assert_true(advance(&wheel, starts[s] + at, &link));
            assert_int_equal(wheel_next(&wheel), 0);
        }
    }
}

static void wheel__loses_nothing_in_a_long_pause(void **state)
{
    (void)state;
    static const uint32_t pauses[] = {255, 256, 257, 511, 512, 1000, 1u << 20, INT32_MAX};
    for (size_t p = 0; p < sizeof(pauses) / sizeof(*pauses); p++) {
        for (uint32_t distance = 1; distance <= 255; distance++) {
            struct wheel wheel;
            struct link link;
            list_init(&link);
            wheel_init(&wheel, UINT32_MAX - 1000);
            wheel_add(&wheel, &link, wheel.now + distance);
            assert_true(advance(&wheel, wheel.now + pauses[p], &link));
            assert_int_equal(wheel.now, UINT32_MAX - 1000 + pauses[p]);
            wheel_add(&wheel, &link, wheel.now + 7);
            assert_false(advance(&wheel, wheel.now + 6, &link));
            assert_true(advance(&wheel, wheel.now + 1, &link));
        }
    }
}

static void wheel__does_not_turn_back(void **state)
{
    (void)state;
    struct wheel wheel;
    struct link link;
    list_init(&link);
    wheel_init(&wheel, 100);
    wheel_add(&wheel, &link, 103);
    assert_false(advance(&wheel, 100, &link));
    assert_false(advance(&wheel, 50, &link));
    assert_int_equal(wheel.now, 100);
    assert_true(advance(&wheel, 103, &link));
}

static void wheel_add__moves_a_link_that_is_on_it_already(void **state)
{
    (void)state;
    struct wheel wheel;
    struct link link;
    list_init(&link);
    wheel_init(&wheel, 0);
    wheel_add(&wheel, &link, 10);
    wheel_add(&wheel, &link, 200);
    wheel_add(&wheel, &link, 20);
    assert_false(advance(&wheel, 19, &link));
    assert_true(advance(&wheel, 20, &link));
    assert_false(advance(&wheel, 600, &link));
}

static void wheel__a_removed_link_stays_away(void **state)
{
    (void)state;
    struct wheel wheel;
    struct link link;
    list_init(&link);
    wheel_init(&wheel, 0);
    wheel_add(&wheel, &link, 10);
    list_remove(&link);
    assert_in_range(wheel_next(&wheel), 0, 10); /* it may look for nothing once */
    assert_false(advance(&wheel, 600, &link));
    assert_int_equal(wheel_next(&wheel), 0);
}

/* Takes what came out and checks that it is exactly what had to. */
static void advance_all(struct wheel *wheel, struct timer *timers, uint32_t now)
{
    struct link due;
    struct link *link;
    list_init(&due);
    wheel_advance(wheel, now, &due);
    while ((link = list_shift(&due))) {
        struct timer *timer = CONTAINER_OF(link, struct timer, link);
        assert_true(timer->on_wheel);
        assert_true((int32_t)(timer->at - now) <= 0);
        timer->on_wheel = false;
    }
    for (int i = 0; i < TIMERS; i++)
        assert_true(!timers[i].on_wheel || (int32_t)(timers[i].at - now) > 0);
}

/* Brute force for wheel_next(); 0: there is none. */
static uint32_t nearest(const struct wheel *wheel, const struct timer *timers)
{
    uint32_t least = 0;
    for (int i = 0; i < TIMERS; i++) {
        uint32_t ahead = timers[i].at - wheel->now;
        if (timers[i].on_wheel && (least == 0 || ahead < least))
            least = ahead;
    }
    return least;
}

/* exact: no link leaves but by coming out, so wheel_next() may not be early either. */
static void turn(uint64_t seed, uint32_t start, bool exact)
{
    struct wheel wheel;
    struct timer timers[TIMERS] = {0};
    uint64_t random = seed;
    wheel_init(&wheel, start);
    for (int i = 0; i < TIMERS; i++)
        list_init(&timers[i].link);
    for (int step = 0; step < 4000; step++) {
        uint32_t dice = (uint32_t)(random_next(&random) >> 40);
        struct timer *timer = &timers[dice % TIMERS];
        if (dice / 64 % 3 > 0 && !(exact && timer->on_wheel)) {
            uint32_t due = wheel.now + dice / 256 % 300 - 10;
            timer->at = clamped(&wheel, due);
            timer->on_wheel = true;
            wheel_add(&wheel, &timer->link, due);
        } else if (dice / 64 % 16 == 0 && !exact) {
            list_remove(&timer->link);
            timer->on_wheel = false;
        }
        uint32_t pause = dice / 4096 % 8 ? dice % 5 : dice % 600;
        advance_all(&wheel, timers, wheel.now + pause);
        uint32_t least = nearest(&wheel, timers);
        if (exact)
            assert_int_equal(wheel_next(&wheel), least);
        else if (least > 0)
            assert_in_range(wheel_next(&wheel), 1, least);
    }
}

static void wheel__does_what_brute_force_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        turn(seed, UINT32_MAX - 5000, true);
        turn(seed, UINT32_MAX - 5000, false);
    }
}

int run_wheel_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wheel__a_link_comes_out_at_its_tick_whatever_the_distance),
        cmocka_unit_test(wheel__loses_nothing_in_a_long_pause),
        cmocka_unit_test(wheel__does_not_turn_back),
        cmocka_unit_test(wheel_add__moves_a_link_that_is_on_it_already),
        cmocka_unit_test(wheel__a_removed_link_stays_away),
        cmocka_unit_test(wheel__does_what_brute_force_does),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
