#include "policy/sample.h"
#include "policy/test_policy.h"

#include <stdio.h>

enum { CHAT = 11, ENTER = 12, POLL = 13, RATE = 20, TYPES = 3 };

struct run {
    struct sampler sampler;
    uint64_t now;
    uint32_t random;
    uint32_t passed[64];
    uint32_t seconds[64]; /* passed in each */
    uint64_t start;
};

static void run_start(struct run *run, uint64_t now)
{
    *run = (struct run){.now = now, .start = now, .random = 7};
    sampler_init(&run->sampler);
}

static uint32_t random_below(struct run *run, uint32_t bound)
{
    run->random = run->random * 1664525u + 1013904223u;
    return (run->random >> 8) % bound;
}

static bool offer(struct run *run, uint32_t type)
{
    struct bytes room = BYTES_LIT("42");
    if (!sampler_pass(&run->sampler, room, map_hash(room.data, room.len), type, RATE, run->now))
        return false;
    run->passed[type]++;
    run->seconds[(run->now - run->start) / 1000]++;
    return true;
}

/* 15 of 20 are chat, 4 enter, 1 poll. */
static uint32_t mixed(struct run *run)
{
    uint32_t dice = random_below(run, 20);
    return dice < 15 ? CHAT : dice < 19 ? ENTER : POLL;
}

static void pass__all_within_the_rate(void **state)
{
    (void)state;
    struct run run;
    run_start(&run, 1000);
    for (int i = 0; i < 20 * 10; i++, run.now += 50)
        assert_true(offer(&run, mixed(&run)));
    run.now += 5000;
    for (int second = 0; second < 5; second++, run.now += 1000) {
        for (int i = 0; i < 10; i++)
            assert_true(offer(&run, mixed(&run))); /* all at once */
    }
    sampler_fini(&run.sampler);
}

static void pass__the_rate_of_a_steady_flood_each_second(void **state)
{
    (void)state;
    static const uint32_t floods[] = {25, 40, 200, 1000, 10000};
    static const uint64_t clocks[] = {0, 12345, (UINT64_C(1) << 32) * 100 - 5000};
    for (int f = 0; f < 5; f++) {
        for (int c = 0; c < 3; c++) {
            struct run run;
            run_start(&run, clocks[c]);
            for (uint64_t i = 0; i < floods[f] * UINT64_C(30); i++) {
                run.now = run.start + i * 1000 / floods[f];
                offer(&run, mixed(&run));
            }
            for (int second = 0; second < 30; second++)
                assert_in_range(run.seconds[second], second ? RATE - 2 : 1, RATE + 2);
            sampler_fini(&run.sampler);
        }
    }
}

/* Any second, not only whole ones, and however they come. */
static void pass__no_second_has_more(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 20; seed++) {
        struct run run;
        uint64_t times[4096];
        uint32_t count = 0;
        run_start(&run, seed * 777);
        run.random = seed;
        while (run.now - run.start < 30000) {
            uint32_t burst = random_below(&run, 3) == 0 ? random_below(&run, 200) : 1;
            for (uint32_t i = 0; i < burst; i++) {
                if (offer(&run, mixed(&run)))
                    times[count++] = run.now;
            }
            run.now += random_below(&run, seed * 10);
        }
        for (uint32_t i = RATE + 2; i < count; i++)
            assert_true(times[i] - times[i - RATE - 2] > 1000);
        sampler_fini(&run.sampler);
    }
}

static void pass__the_mix_of_types_is_kept(void **state)
{
    (void)state;
    struct run run;
    run_start(&run, 5);
    uint32_t offered[64] = {0};
    for (int i = 0; i < 200 * 60; i++, run.now += 5) {
        uint32_t type = mixed(&run);
        offered[type]++;
        offer(&run, type);
    }
    for (uint32_t type = CHAT; type < CHAT + TYPES; type++) {
        uint32_t fair = offered[type] / 10;
        assert_in_range(run.passed[type], fair - fair / 10 - 3, fair + fair / 10 + 3);
    }
    sampler_fini(&run.sampler);
}

/* Types that come in step with what passes: one saved-up share for all of them would always pick the same. */
static void pass__the_mix_is_kept_when_types_come_in_turns(void **state)
{
    (void)state;
    struct run run;
    run_start(&run, 5);
    for (int i = 0; i < 200 * 60; i++, run.now += 5)
        offer(&run, i % 10 < 7 ? CHAT : i % 10 < 9 ? ENTER : POLL);
    assert_in_range(run.passed[CHAT], 820, 870);
    assert_in_range(run.passed[ENTER], 230, 250);
    assert_in_range(run.passed[POLL], 115, 125);
    sampler_fini(&run.sampler);
}

static void pass__all_again_soon_after_a_flood(void **state)
{
    (void)state;
    struct run run;
    run_start(&run, 5);
    for (int i = 0; i < 200 * 5; i++, run.now += 5)
        offer(&run, CHAT);
    run.now += 300;
    for (int i = 0; i < 10; i++, run.now += 100)
        (void)offer(&run, CHAT); /* the second of the flood is over with these */
    for (int i = 0; i < 50; i++, run.now += 100)
        assert_true(offer(&run, CHAT));
    sampler_fini(&run.sampler);
}

static void rooms__have_shares_of_their_own_and_are_forgotten(void **state)
{
    (void)state;
    struct sampler sampler;
    char name[16];
    sampler_init(&sampler);
    for (unsigned i = 0; i < 100; i++) {
        int len = snprintf(name, sizeof(name), "room%u", i);
        uint32_t hash = map_hash(name, (size_t)len);
        unsigned passed = 0;
        for (int k = 0; k < 1000; k++)
            passed += sampler_pass(&sampler, bytes_of(name, (size_t)len), hash, CHAT, RATE, 5000);
        assert_in_range(passed, 10, RATE + 2);
    }
    assert_int_equal(sampler.rooms.count, 100);
    sampler_expire(&sampler, 5900, 1000);
    assert_int_equal(sampler.rooms.count, 100);
    sampler_expire(&sampler, 6200, 60);
    assert_int_equal(sampler.rooms.count, 40);
    sampler_expire(&sampler, 6200, 60);
    assert_int_equal(sampler.rooms.count, 0);
    sampler_fini(&sampler);
}

int run_sample_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass__all_within_the_rate),
        cmocka_unit_test(pass__the_rate_of_a_steady_flood_each_second),
        cmocka_unit_test(pass__no_second_has_more),
        cmocka_unit_test(pass__the_mix_of_types_is_kept),
        cmocka_unit_test(pass__the_mix_is_kept_when_types_come_in_turns),
        cmocka_unit_test(pass__all_again_soon_after_a_flood),
        cmocka_unit_test(rooms__have_shares_of_their_own_and_are_forgotten),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
