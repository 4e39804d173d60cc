#include "heartbeat/crowd.h"
#include "heartbeat/test_heartbeat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* One thread: the thread sanitizer has nothing to find here, and takes six times as long. */
#ifdef __SANITIZE_THREAD__
enum { SEEDS = 4 };
#else
enum { SEEDS = 20 };
#endif
enum { MINUTE_MS = 60000, HOUR = 60 * MINUTE_MS };

static const struct halley_networks_policy policy = {
    .safe_ms = CROWD_SAFE_MS, .max_ms = 600000, .back_ms = CROWD_TIMEOUT_MS + 60000, .entries = 16};

static struct crowd crowd_of(uint32_t forgets_ms, unsigned seed)
{
    return (struct crowd){.viewers = 1000,
                          .forgets_ms = forgets_ms,
                          .away_per_hour = 5,
                          .seed = seed + 1,
                          .prefix = 0xffff0a000000 + seed,
                          .clock_start = seed % 2 ? 0 : UINT32_MAX - 30 * MINUTE_MS,
                          .policy = policy};
}

static void assert_settled(const struct crowd *crowd, uint32_t forgets_ms)
{
    assert_in_range(crowd->shortest_ms, forgets_ms * 60ull / 100, forgets_ms * 95ull / 100);
    assert_in_range(crowd->longest_ms, forgets_ms * 60ull / 100, forgets_ms * 95ull / 100);
}

/* Six hours with 1,000 viewers behind one NAT, of whom 5 % an hour go away by themselves. */
static void settles(uint32_t forgets_ms, uint32_t sent_reset)
{
    uint32_t most_lost = 0;
    uint64_t longest = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct crowd crowd = crowd_of(forgets_ms, seed);
        crowd.sent_reset = sent_reset;
        crowd.lost_after_ms = 3 * HOUR;
        crowd_play(&crowd, 6ull * HOUR);
        assert_settled(&crowd, forgets_ms);
        assert_in_range(crowd.lost, 1, 3);
        assert_int_equal(crowd.lost_late, 0);
        assert_int_equal(crowd.fell, 0);
        assert_true(crowd.away > 200);
        most_lost = crowd.lost > most_lost ? crowd.lost : most_lost;
        longest = crowd.last_lost_ms > longest ? crowd.last_lost_ms : longest;
        if (seed == 0)
            print_message("# forgets after %u s: told %u to %u s", forgets_ms / 1000,
                          crowd.shortest_ms / 1000, crowd.longest_ms / 1000);
    }
    print_message(", %u lost at most, learned within %u min\n", most_lost,
                  (unsigned)(longest / MINUTE_MS));
}

static void nat__of_45_seconds_is_learned(void **state)
{
    (void)state;
    settles(45000, 0);
    settles(45000, 1);
}

static void nat__of_90_seconds_is_learned(void **state)
{
    (void)state;
    settles(90000, 0);
    settles(90000, 1);
}

static void nat__of_180_seconds_is_learned(void **state)
{
    (void)state;
    settles(180000, 0);
    settles(180000, 1);
}

static void nat__of_300_seconds_is_learned(void **state)
{
    (void)state;
    settles(300000, 0);
    settles(300000, 1);
}

static void no_nat__climbs_to_max_and_loses_nobody(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct crowd crowd = crowd_of(UINT32_MAX, seed);
        crowd.policy.max_ms = 300000;
        crowd_play(&crowd, 4ull * HOUR);
        assert_int_equal(crowd.lost, 0);
        assert_int_equal(crowd.fell, 0);
        assert_in_range(crowd.shortest_ms, 200000, 300000);
        assert_in_range(crowd.longest_ms, 200000, 300000);
    }
}

/* Phones that go away every hour or half hour, one in ten of them back in time to look as if a NAT had forgotten it: nothing of that may last. */
static void no_nat__is_found_though_many_go_away(void **state)
{
    (void)state;
    static const uint32_t away_per_hour[] = {60, 120};
    for (unsigned i = 0; i < SEEDS; i++) {
        struct crowd crowd = crowd_of(UINT32_MAX, i / 2);
        crowd.away_per_hour = away_per_hour[i % 2];
        crowd.policy.max_ms = 300000;
        crowd_play(&crowd, 12ull * HOUR);
        assert_int_equal(crowd.lost, 0);
        assert_int_equal(crowd.fell, 0);
        assert_in_range(crowd.away, 5000, 16000);
        assert_true(crowd.doubted > 400);
        assert_in_range(crowd.shortest_ms, 230000, 250000);
        assert_in_range(crowd.longest_ms, 230000, 250000);
    }
}

/* … and a NAT is learned as well as with few. */
static void nat__is_learned_though_many_go_away(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct crowd crowd = crowd_of(180000, seed);
        crowd.away_per_hour = 120;
        crowd.lost_after_ms = 3 * HOUR;
        crowd_play(&crowd, 6ull * HOUR);
        assert_settled(&crowd, 180000);
        assert_in_range(crowd.lost, 1, 3);
        assert_int_equal(crowd.lost_late, 0);
        assert_int_equal(crowd.fell, 0);
    }
}

/* A room that never falls silent keeps the NAT's memory fresh: nothing is learned, and nothing lost. */
static void busy_room__teaches_nothing(void **state)
{
    (void)state;
    struct crowd crowd = crowd_of(45000, 1);
    crowd.talk_every_ms = 10000;
    crowd_play(&crowd, 2ull * HOUR);
    assert_int_equal(crowd.lost, 0);
    /* Nobody is told more than the scout's first try. */
    assert_in_range(crowd.longest_ms, CROWD_SAFE_MS, CROWD_SAFE_MS * 135 / 100);
}

/* Everybody is cut off at once and comes back: no NAT forgot anything, but that is how it looks. The interval falls back, and climbs again. */
static void outage__is_recovered_from(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 5; seed++) {
        struct crowd crowd = crowd_of(180000, seed);
        crowd.outage_at_ms = 4ull * HOUR + seed * 1234;
        crowd_play(&crowd, 8ull * HOUR);
        assert_settled(&crowd, 180000);
        assert_in_range(crowd.fell, 0, 1);
        assert_in_range(crowd.lost, 1, 6);
    }
}

/* The NAT begins to forget sooner than it did: the network falls back at once, and learns anew. */
static void nat__that_forgets_sooner_is_learned_anew(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 8; seed++) {
        struct crowd crowd = crowd_of(300000, seed);
        crowd.sent_reset = seed % 2;
        crowd.away_per_hour = seed < 4 ? 5 : 0;
        crowd.forgets_less_at_ms = 4ull * HOUR;
        crowd.forgets_then_ms = 90000;
        crowd.lost_after_ms = 8 * HOUR;
        crowd_play(&crowd, 9ull * HOUR);
        assert_settled(&crowd, 90000);
        assert_in_range(crowd.fell, 1, 3);
        assert_in_range(crowd.lost, 900, 1300); /* each once, by what it had been told before */
        assert_int_equal(crowd.lost_late, 0);
    }
}

static struct halley_pulse pulse_in(struct halley_networks *networks, uint64_t prefix,
                                    uint32_t session, uint32_t now_ms)
{
    struct halley_pulse pulse = {.session = session};
    (void)halley_pulse_start(networks, &pulse, &policy, prefix, HALLEY_HINT_NONE, now_ms);
    return pulse;
}

static void viewer__without_session_is_never_a_scout(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse with = pulse_in(networks, 1, 77, 0);
    struct halley_pulse without = pulse_in(networks, 1, 0, 0);
    assert_int_equal(halley_pulse_next(&without, &policy, 0, 5), CROWD_SAFE_MS);
    assert_int_equal(halley_pulse_next(&with, &policy, 0, 5), 33700);
    assert_int_equal(halley_pulse_next(&without, &policy, 0, 5), CROWD_SAFE_MS);
    halley_pulse_end(networks, &with, &policy, 0);
    halley_pulse_end(networks, &without, &policy, 0);
    struct halley_pulse alone = pulse_in(networks, 2, 0, 0);
    assert_null(alone.network);
    halley_networks_destroy(networks);
}

/* Plays one scout that is asked and goes unheard. Returns false where nobody may be a scout yet. */
static bool scout_vanishes(struct halley_networks *networks, uint32_t session, uint32_t now_ms)
{
    struct halley_pulse scout = pulse_in(networks, 1, session, now_ms);
    uint32_t told = halley_pulse_next(&scout, &policy, now_ms, 0);
    bool scouted = told == 33700;
    if (scouted) {
        halley_pulse_asked(networks, &scout, &policy, told + 5000, now_ms + told + 5000);
        assert_true(scout.missed);
    }
    halley_pulse_end(networks, &scout, &policy, now_ms + told + 65000);
    return scouted;
}

static void scouts__that_never_come_back_make_no_ceiling(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    /* A day of them, one a minute wherever one may try: the level rests ever longer, up to eight times ten minutes. */
    unsigned vanished = 0;
    uint32_t now_ms = 0;
    uint32_t last_ms = 0;
    uint32_t longest_ms = 0;
    for (; now_ms < 24u * HOUR; now_ms += MINUTE_MS) {
        if (!scout_vanishes(networks, 1000 + now_ms / MINUTE_MS, now_ms))
            continue;
        vanished++;
        longest_ms = now_ms - last_ms > longest_ms ? now_ms - last_ms : longest_ms;
        last_ms = now_ms;
    }
    assert_in_range(vanished, 17, 21);
    assert_in_range(longest_ms, 80 * MINUTE_MS, 84 * MINUTE_MS);
    /* After all that one stays, and the level holds. */
    now_ms += 84 * MINUTE_MS;
    struct halley_pulse scout = pulse_in(networks, 1, 77, now_ms);
    assert_int_equal(halley_pulse_next(&scout, &policy, now_ms, 0), 33700);
    for (int i = 0; i < 3; i++)
        halley_pulse_heard(networks, &scout, &policy, 33700, now_ms += 34000);
    assert_int_equal(halley_pulse_held_ms(&scout, &policy), 33750);
    halley_pulse_end(networks, &scout, &policy, now_ms);
    halley_networks_destroy(networks);
}

static void viewer__that_is_fixed_follows_only(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse scout = pulse_in(networks, 1, 77, 0);
    struct halley_pulse fixed = {.session = 78, .fixed = true};
    (void)halley_pulse_start(networks, &fixed, &policy, 1, HALLEY_HINT_NONE, 0);
    assert_int_equal(halley_pulse_next(&fixed, &policy, 0, 5), CROWD_SAFE_MS);
    (void)halley_pulse_next(&scout, &policy, 0, 0);
    for (int i = 0; i < 3; i++)
        halley_pulse_heard(networks, &scout, &policy, 33700, 40000u * (uint32_t)(i + 1));
    assert_int_equal(halley_pulse_held_ms(&fixed, &policy), 33750);
    for (uint32_t random = 0; random < 5000; random++)
        assert_in_range(halley_pulse_next(&fixed, &policy, 130000, random), 28800, 30375);
    halley_pulse_end(networks, &scout, &policy, 0);
    halley_pulse_end(networks, &fixed, &policy, 0);
    halley_networks_destroy(networks);
}

/* A network where the first level holds; returns who made it hold, and still is its scout. */
static struct halley_pulse teach(struct halley_networks *networks)
{
    struct halley_pulse scout = pulse_in(networks, 1, 77, 0);
    (void)halley_pulse_next(&scout, &policy, 0, 0);
    for (uint32_t i = 1; i <= 3; i++)
        halley_pulse_heard(networks, &scout, &policy, 33700, 34000 * i);
    assert_int_equal(halley_pulse_held_ms(&scout, &policy), 33750);
    return scout;
}

/* Opens a connection that the gateway pings, of the session that may have been lost. */
static struct halley_pulse pinged_in(struct halley_networks *networks, uint32_t session,
                                     uint32_t now_ms, enum halley_loss expected)
{
    struct halley_pulse pulse = {.session = session, .fixed = true};
    assert_int_equal(halley_pulse_start(networks, &pulse, &policy, 1, HALLEY_HINT_NONE, now_ms),
                     expected);
    (void)halley_pulse_settle(&pulse, &policy, 0);
    return pulse;
}

static void viewer__that_is_pinged_is_lost_where_no_answer_comes(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse scout = teach(networks);
    struct halley_pulse lost = pinged_in(networks, 5, 110000, HALLEY_LOSS_NONE);
    struct halley_pulse other = pinged_in(networks, 6, 110000, HALLEY_LOSS_NONE);
    uint32_t told = halley_pulse_told_ms(&lost);
    assert_in_range(told, 30300, 30375);
    /* Messages went to it meanwhile: what became of it says nothing of idle times. */
    halley_pulse_pinged(&lost, told / 2);
    assert_in_range(halley_pulse_silent_ms(&lost), told / 2 - told / 200, told / 2);
    halley_pulse_unanswered(networks, &lost, &policy, 5000, 145000);
    assert_false(lost.missed);
    halley_pulse_pinged(&lost, told / 10 * 9);
    halley_pulse_unanswered(networks, &lost, &policy, 5000, 175000);
    assert_true(lost.missed);
    halley_pulse_end(networks, &lost, &policy, 230000);
    /* Another one answered such a ping later than the lost one should have: not believed. */
    halley_pulse_pinged(&other, told / 10 * 9);
    halley_pulse_heard(networks, &other, &policy, halley_pulse_silent_ms(&other), 171000);
    lost = pinged_in(networks, 5, 231000, HALLEY_LOSS_DOUBTED);
    halley_pulse_pinged(&lost, told / 10 * 9);
    halley_pulse_unanswered(networks, &lost, &policy, 5000, 266000);
    halley_pulse_end(networks, &lost, &policy, 321000);
    lost = pinged_in(networks, 5, 322000, HALLEY_LOSS_FELL);
    assert_int_equal(halley_pulse_told_ms(&lost), CROWD_SAFE_MS);
    halley_pulse_end(networks, &lost, &policy, 400000);
    halley_pulse_end(networks, &other, &policy, 400000);
    halley_pulse_end(networks, &scout, &policy, 400000);
    halley_networks_destroy(networks);
}

enum { SLOTS = 8191 }; /* so many on, a session has the same slot */

/* A scout that was asked in vain, whose record a newer one has displaced: the level rests all the same. */
static void scout__rests_though_its_record_was_displaced(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse teacher = teach(networks);
    struct halley_pulse follower = pulse_in(networks, 1, 900 + SLOTS, 110000);
    uint32_t told = halley_pulse_settle(&follower, &policy, 0);
    struct halley_pulse scout = pulse_in(networks, 2, 900, 110000);
    assert_int_equal(halley_pulse_next(&scout, &policy, 110000, 0), 33700);
    halley_pulse_asked(networks, &scout, &policy, 38700, 148700);
    halley_pulse_asked(networks, &follower, &policy, told + 5000, 148701);
    halley_pulse_end(networks, &scout, &policy, 208700);
    struct halley_pulse next = pulse_in(networks, 2, 901, 208700);
    assert_int_equal(halley_pulse_next(&next, &policy, 208700, 0), CROWD_SAFE_MS);
    assert_int_equal(halley_pulse_next(&next, &policy, 208700 + 24 * CROWD_SAFE_MS - 1, 0),
                     CROWD_SAFE_MS);
    assert_int_equal(halley_pulse_next(&next, &policy, 208700 + 24 * CROWD_SAFE_MS, 0), 33700);
    halley_pulse_end(networks, &next, &policy, 900000);
    halley_pulse_end(networks, &follower, &policy, 900000);
    halley_pulse_end(networks, &teacher, &policy, 900000);
    halley_networks_destroy(networks);
}

/* A scout that is closed later than its session could have been back: the level rests as after any other. */
static void scout__that_ends_late_rests_no_longer(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse scout = pulse_in(networks, 1, 900, 0);
    assert_int_equal(halley_pulse_next(&scout, &policy, 0, 0), 33700);
    halley_pulse_asked(networks, &scout, &policy, 38700, 38700);
    uint32_t end_ms = 38700 + policy.back_ms + 1000;
    halley_pulse_end(networks, &scout, &policy, end_ms);
    struct halley_pulse next = pulse_in(networks, 1, 901, end_ms);
    assert_int_equal(halley_pulse_next(&next, &policy, end_ms, 0), CROWD_SAFE_MS);
    assert_int_equal(halley_pulse_next(&next, &policy, end_ms + 24 * CROWD_SAFE_MS, 0), 33700);
    halley_pulse_end(networks, &next, &policy, 900000);
    halley_networks_destroy(networks);
}

/* Who was told no more than the safe interval leaves no record: a crowd of them displaces nobody's. */
static void viewer__told_the_safe_interval_displaces_nobody(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse scout = pulse_in(networks, 1, 900, 0);
    struct halley_pulse crowd = pulse_in(networks, 1, 900 + SLOTS, 0);
    assert_int_equal(halley_pulse_next(&scout, &policy, 0, 0), 33700);
    assert_int_equal(halley_pulse_next(&crowd, &policy, 0, 0), CROWD_SAFE_MS);
    halley_pulse_asked(networks, &scout, &policy, 38700, 38700);
    halley_pulse_asked(networks, &crowd, &policy, CROWD_SAFE_MS + 14000, 39000);
    assert_true(crowd.missed);
    halley_pulse_end(networks, &scout, &policy, 98700);
    scout = (struct halley_pulse){.session = 900};
    assert_int_equal(halley_pulse_start(networks, &scout, &policy, 1, HALLEY_HINT_NONE, 99000),
                     HALLEY_LOSS_SCOUT);
    halley_pulse_end(networks, &scout, &policy, 99000);
    halley_pulse_end(networks, &crowd, &policy, 99000);
    halley_networks_destroy(networks);
}

/* A reset that meets a viewer of the safe interval disproves nothing that others survived. */
static void replaced__at_the_safe_interval_says_nothing(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse early = pulse_in(networks, 1, 900, 0);
    (void)halley_pulse_settle(&early, &policy, 0);
    struct halley_pulse scout = teach(networks);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(halley_pulse_replaced(&early, &policy, CROWD_SAFE_MS, 140000 + i),
                         HALLEY_LOSS_NONE);
    assert_false(early.missed);
    assert_int_equal(halley_pulse_held_ms(&scout, &policy), 33750);
    /* Nor does its silence. */
    halley_pulse_asked(networks, &early, &policy, CROWD_SAFE_MS + 5000, 150000);
    halley_pulse_end(networks, &early, &policy, 210000);
    early = pinged_in(networks, 900, 211000, HALLEY_LOSS_NONE);
    assert_int_equal(halley_pulse_held_ms(&scout, &policy), 33750);
    halley_pulse_end(networks, &early, &policy, 212000);
    halley_pulse_end(networks, &scout, &policy, 212000);
    halley_networks_destroy(networks);
}

/* A scout is back when its network has fallen, or risen: the level that is tried now is not the one that it lost. */
static void scout__that_is_back_late_blames_no_other_level(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse scout = teach(networks);
    for (uint32_t i = 0; i < 4; i++) { /* twice would make a ceiling */
        uint32_t now_ms = 2 * HOUR * (i + 1);
        struct halley_pulse other = pulse_in(networks, 1, 901, now_ms);
        uint32_t tried = halley_pulse_next(&scout, &policy, now_ms, 0);
        assert_int_equal(tried, 45500);
        halley_pulse_asked(networks, &scout, &policy, tried + 5000, now_ms + tried + 5000);
        halley_pulse_end(networks, &scout, &policy, now_ms + tried + 65000);
        halley_networks_restart(networks);
        scout = (struct halley_pulse){.session = 77};
        assert_int_equal(halley_pulse_start(networks, &scout, &policy, 1, HALLEY_HINT_NONE,
                                            now_ms + tried + 66000),
                         HALLEY_LOSS_LATE);
        for (uint32_t survived = 1; survived <= 3; survived++) {
            now_ms += 200000;
            assert_int_equal(halley_pulse_next(&scout, &policy, now_ms, 0), 33700);
            halley_pulse_heard(networks, &scout, &policy, 33700, now_ms);
        }
        assert_int_equal(halley_pulse_held_ms(&scout, &policy), 33750);
        halley_pulse_end(networks, &other, &policy, now_ms);
    }
    halley_pulse_end(networks, &scout, &policy, 9 * HOUR);
    halley_networks_destroy(networks);
}

static void networks__beyond_entries_are_told_the_safe_interval(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse pulses[17];
    for (uint32_t i = 0; i < 17; i++)
        pulses[i] = pulse_in(networks, i, 5, 0);
    assert_int_equal(halley_networks_count(networks), 16);
    assert_null(pulses[16].network);
    assert_int_equal(halley_pulse_next(&pulses[16], &policy, 0, 0), CROWD_SAFE_MS);
    /* One that nobody is in any more gives way. */
    halley_pulse_end(networks, &pulses[3], &policy, 10);
    pulses[16] = pulse_in(networks, 16, 5, 20);
    assert_non_null(pulses[16].network);
    for (uint32_t i = 0; i < 17; i++)
        halley_pulse_end(networks, &pulses[i], &policy, 30);
    assert_int_equal(halley_networks_count(networks), 16);
    halley_networks_expire(networks, 86400000, 100);
    assert_int_equal(halley_networks_count(networks), 16);
    halley_networks_expire(networks, 86400031, 100);
    assert_int_equal(halley_networks_count(networks), 0);
    halley_networks_destroy(networks);
}

static void networks__are_kept_apart_by_hint(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_pulse wifi = {.session = 1};
    struct halley_pulse cell = {.session = 2};
    (void)halley_pulse_start(networks, &wifi, &policy, 1, HALLEY_HINT_WIFI, 0);
    (void)halley_pulse_start(networks, &cell, &policy, 1, HALLEY_HINT_CELL, 0);
    assert_ptr_not_equal(wifi.network, cell.network);
    halley_pulse_end(networks, &wifi, &policy, 0);
    halley_pulse_end(networks, &cell, &policy, 0);
    halley_networks_destroy(networks);
}

static void max__not_above_safe_switches_off(void **state)
{
    (void)state;
    struct halley_networks *networks = halley_networks_create();
    struct halley_networks_policy off = policy;
    off.max_ms = off.safe_ms;
    struct halley_pulse pulse = {.session = 1};
    (void)halley_pulse_start(networks, &pulse, &off, 1, HALLEY_HINT_NONE, 0);
    assert_null(pulse.network);
    assert_int_equal(halley_pulse_next(&pulse, &off, 0, 7), CROWD_SAFE_MS);
    halley_networks_destroy(networks);
}

int run_networks_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nat__of_45_seconds_is_learned),
        cmocka_unit_test(nat__of_90_seconds_is_learned),
        cmocka_unit_test(nat__of_180_seconds_is_learned),
        cmocka_unit_test(nat__of_300_seconds_is_learned),
        cmocka_unit_test(no_nat__climbs_to_max_and_loses_nobody),
        cmocka_unit_test(no_nat__is_found_though_many_go_away),
        cmocka_unit_test(nat__is_learned_though_many_go_away),
        cmocka_unit_test(busy_room__teaches_nothing),
        cmocka_unit_test(outage__is_recovered_from),
        cmocka_unit_test(nat__that_forgets_sooner_is_learned_anew),
        cmocka_unit_test(viewer__without_session_is_never_a_scout),
        cmocka_unit_test(scouts__that_never_come_back_make_no_ceiling),
        cmocka_unit_test(viewer__that_is_fixed_follows_only),
        cmocka_unit_test(viewer__that_is_pinged_is_lost_where_no_answer_comes),
        cmocka_unit_test(scout__rests_though_its_record_was_displaced),
        cmocka_unit_test(scout__that_ends_late_rests_no_longer),
        cmocka_unit_test(viewer__told_the_safe_interval_displaces_nobody),
        cmocka_unit_test(replaced__at_the_safe_interval_says_nothing),
        cmocka_unit_test(scout__that_is_back_late_blames_no_other_level),
        cmocka_unit_test(networks__beyond_entries_are_told_the_safe_interval),
        cmocka_unit_test(networks__are_kept_apart_by_hint),
        cmocka_unit_test(max__not_above_safe_switches_off),
    };
    return cmocka_run_group_tests_name("networks", tests, NULL, NULL);
}
