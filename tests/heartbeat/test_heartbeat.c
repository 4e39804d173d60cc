#include "heartbeat/test_heartbeat.h"
#include "heartbeat/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SEEDS = 40, NEVER = UINT32_MAX };

#define NATIVE HALLEY_HEARTBEAT_NATIVE
#define CLIENT HALLEY_HEARTBEAT_CLIENT
#define SERVER HALLEY_HEARTBEAT_SERVER

/* Interval and timeout: the shipped ones, each of them larger, and the ends of what conf allows. */
static const uint32_t times[][2] = {{25000, 60000},  {60000, 20000},   {1000, 1000},
                                    {600000, 30000}, {600000, 600000}, {1000, 600000}};
static const uint32_t clocks[] = {0, UINT32_MAX - 40000, UINT32_MAX - 5 * HOUR_MS};

enum { TIMES = sizeof(times) / sizeof(*times), CLOCKS = sizeof(clocks) / sizeof(*clocks) };

/* Calls play(peer) for all times, clocks and some seeds. */
static void for_each(enum halley_heartbeat_style style, void (*play)(struct peer *peer))
{
    for (unsigned i = 0; i < TIMES * CLOCKS * SEEDS; i++) {
        const uint32_t *pair = times[i % TIMES];
        struct peer peer = {
            .answers_after_ms = NEVER,
            .dies_at_ms = UINT64_MAX,
            .clock_start = clocks[i / TIMES % CLOCKS],
            .seed = i + 1,
            .policy = {.style = style, .interval_ms = pair[0], .timeout_ms = pair[1]},
        };
        play(&peer);
    }
}

static uint32_t tenth_of(const struct peer *peer)
{
    return peer->policy.interval_ms / 10;
}

/* The lowest bit of the first ping's time is a flag, so death may come a millisecond late. */
static void assert_ended_at(const struct peer *peer, uint64_t promised)
{
    assert_in_range(peer->ended_ms, promised, promised + 1);
}

/* Native: silent for so long before it is asked, at most. */
static uint32_t patience_of(const struct peer *peer)
{
    return peer->policy.interval_ms + HALLEY_HEARTBEAT_GRACE_MS;
}

/* A peer that falls silent at some odd time, having answered and sent until then. */
static void die_some_time(struct peer *peer)
{
    peer->dies_at_ms = 10 + (peer->seed * 7919 * 1009) % (3 * peer->policy.interval_ms);
    peer->answers_after_ms = 1 + (uint32_t)(peer->seed % 3) * 300;
    peer->sends_every_ms = peer->seed % 2 ? 1 + (uint32_t)(peer->seed * 37 % 40000) : 0;
}

static void play_silent_native(struct peer *peer)
{
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    assert_int_equal(peer->pings, 1);
    assert_in_range(peer->last_ping_ms, patience_of(peer) - tenth_of(peer), patience_of(peer));
    assert_ended_at(peer, peer->last_ping_ms + peer->policy.timeout_ms);
}

static void native__a_silent_peer_is_asked_once_and_dead_a_timeout_later(void **state)
{
    (void)state;
    for_each(NATIVE, play_silent_native);
}

static void play_dying_native(struct peer *peer)
{
    die_some_time(peer);
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    assert_true(peer->first_asked_ms - peer->heard_ms <= patience_of(peer));
    assert_true(peer->first_asked_ms - peer->heard_ms >= patience_of(peer) - tenth_of(peer));
    assert_ended_at(peer, peer->first_asked_ms + peer->policy.timeout_ms);
}

static void native__a_dying_peer_is_asked_in_time_and_dead_a_timeout_later(void **state)
{
    (void)state;
    for_each(NATIVE, play_dying_native);
}

static void play_answering_native(struct peer *peer)
{
    const uint32_t delays[] = {20, peer->policy.timeout_ms / 3, peer->policy.timeout_ms - 1};
    peer->answers_after_ms = delays[peer->seed % 5 % 3]; /* 5: not in step with the times */
    peer_play(peer, 10 * HOUR_MS);
    assert_false(peer->dead);
    assert_true(peer->longest_silence_ms <= patience_of(peer));
    assert_true(peer->shortest_silence_ms >= patience_of(peer) - tenth_of(peer));
    uint64_t cycle = patience_of(peer) + peer->answers_after_ms;
    assert_in_range(peer->pings, 10 * HOUR_MS / cycle, 10 * HOUR_MS / (cycle - tenth_of(peer)) + 1);
}

static void native__who_answers_lives_for_hours_and_is_asked_no_more_than_needed(void **state)
{
    (void)state;
    for_each(NATIVE, play_answering_native);
}

static void play_chatty_native(struct peer *peer)
{
    peer->sends_every_ms = peer->policy.interval_ms;
    if (peer->seed % 3 > 0)
        peer->sends_every_ms = 1 + (uint32_t)(peer->seed * 7919 % peer->policy.interval_ms);
    if (peer->sends_every_ms < 200)
        peer->sends_every_ms += 200;
    peer_play(peer, 10 * HOUR_MS);
    assert_false(peer->dead);
    assert_int_equal(peer->pings, 0);
    assert_true(peer->looks <= 10 * HOUR_MS / (patience_of(peer) / 20));
}

static void native__who_sends_each_interval_is_never_asked(void **state)
{
    (void)state;
    for_each(NATIVE, play_chatty_native);
}

static void play_dying_client(struct peer *peer)
{
    die_some_time(peer);
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    assert_int_equal(peer->pings, 0);
    assert_int_equal(peer->ended_ms,
                     peer->heard_ms + peer->policy.interval_ms + peer->policy.timeout_ms);
}

static void client__is_never_asked_and_dead_after_interval_and_timeout(void **state)
{
    (void)state;
    for_each(CLIENT, play_dying_client);
}

static void play_pinging_client(struct peer *peer)
{
    peer->sends_every_ms = peer->policy.interval_ms + peer->policy.timeout_ms - 1;
    peer_play(peer, 10 * HOUR_MS);
    assert_false(peer->dead);
    assert_true(peer->looks <= 2 + 2 * (10 * HOUR_MS / peer->policy.timeout_ms));
}

static void client__who_pings_just_in_time_lives_for_hours(void **state)
{
    (void)state;
    for_each(CLIENT, play_pinging_client);
}

static void check_ping_distances(const struct peer *peer)
{
    assert_true(peer->pings > 0);
    assert_true(peer->longest_ms <= peer->policy.interval_ms);
    assert_true(peer->shortest_ms >= peer->policy.interval_ms - tenth_of(peer));
}

static void play_silent_server(struct peer *peer)
{
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    check_ping_distances(peer);
    assert_in_range(peer->first_asked_ms, peer->policy.interval_ms - tenth_of(peer),
                    peer->policy.interval_ms);
    assert_ended_at(peer, peer->first_asked_ms + peer->policy.timeout_ms);
}

static void server__a_silent_peer_is_asked_each_interval_and_dead_a_timeout_later(void **state)
{
    (void)state;
    for_each(SERVER, play_silent_server);
}

static void play_dying_server(struct peer *peer)
{
    die_some_time(peer);
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    check_ping_distances(peer);
    assert_true(peer->first_asked_ms - peer->heard_ms <= peer->policy.interval_ms);
    assert_ended_at(peer, peer->first_asked_ms + peer->policy.timeout_ms);
}

static void server__a_dying_peer_is_dead_a_timeout_after_the_first_ping(void **state)
{
    (void)state;
    for_each(SERVER, play_dying_server);
}

static void play_living_server(struct peer *peer)
{
    peer->answers_after_ms = peer->policy.timeout_ms < 1000 ? 20 : 700;
    peer->sends_every_ms = peer->seed % 2 ? 250 : 0;
    peer_play(peer, 10 * HOUR_MS);
    assert_false(peer->dead);
    check_ping_distances(peer);
    assert_true(peer->pings >= 10 * HOUR_MS / peer->policy.interval_ms);
    assert_true(peer->looks <= 4 * peer->pings + 4);
}

static void server__pings_each_interval_for_hours_however_much_the_peer_sends(void **state)
{
    (void)state;
    for_each(SERVER, play_living_server);
}

/* A look that comes late may find death late, never early, and late by no more than itself. */
static void play_late_looks(struct peer *peer)
{
    peer->looks_late_ms = 300;
    die_some_time(peer);
    peer_play(peer, 2 * HOUR_MS);
    assert_true(peer->dead);
    uint64_t promised = peer->policy.style == CLIENT
                            ? peer->heard_ms + peer->policy.interval_ms + peer->policy.timeout_ms
                            : peer->first_asked_ms + peer->policy.timeout_ms;
    assert_in_range(peer->ended_ms, promised, promised + peer->looks_late_ms + 1);
}

static void all__late_looks_never_kill_early(void **state)
{
    (void)state;
    for_each(NATIVE, play_late_looks);
    for_each(CLIENT, play_late_looks);
    for_each(SERVER, play_late_looks);
}

static void check__never_asks_for_a_look_at_once(void **state)
{
    (void)state;
    for (unsigned style = 0; style < 3; style++) {
        struct halley_heartbeat_policy policy = {
            .style = (enum halley_heartbeat_style)style, .interval_ms = 1000, .timeout_ms = 1000};
        for (uint32_t now = 0; now < 10000; now++) {
            struct halley_heartbeat beat;
            halley_heartbeat_init(&beat, 0);
            for (int i = 0; i < 3; i++)
                assert_true(halley_heartbeat_check(&beat, &policy, now, now).next_ms >= 1);
        }
    }
}

static void check__spreads_peers_that_came_at_the_same_time(void **state)
{
    (void)state;
    const struct halley_heartbeat_policy policy = {
        .style = SERVER, .interval_ms = 20000, .timeout_ms = 10000};
    unsigned early = 0;
    for (uint32_t random = 0; random < 20000; random++) {
        struct halley_heartbeat beat;
        halley_heartbeat_init(&beat, 0);
        uint32_t next = halley_heartbeat_check(&beat, &policy, 0, random * 2654435761u).next_ms;
        assert_in_range(next, 18000, 20000);
        early += next < 19000;
    }
    assert_in_range(early, 9000, 11000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native__a_silent_peer_is_asked_once_and_dead_a_timeout_later),
        cmocka_unit_test(native__a_dying_peer_is_asked_in_time_and_dead_a_timeout_later),
        cmocka_unit_test(native__who_answers_lives_for_hours_and_is_asked_no_more_than_needed),
        cmocka_unit_test(native__who_sends_each_interval_is_never_asked),
        cmocka_unit_test(client__is_never_asked_and_dead_after_interval_and_timeout),
        cmocka_unit_test(client__who_pings_just_in_time_lives_for_hours),
        cmocka_unit_test(server__a_silent_peer_is_asked_each_interval_and_dead_a_timeout_later),
        cmocka_unit_test(server__a_dying_peer_is_dead_a_timeout_after_the_first_ping),
        cmocka_unit_test(server__pings_each_interval_for_hours_however_much_the_peer_sends),
        cmocka_unit_test(all__late_looks_never_kill_early),
        cmocka_unit_test(check__never_asks_for_a_look_at_once),
        cmocka_unit_test(check__spreads_peers_that_came_at_the_same_time),
    };
    int failed = cmocka_run_group_tests_name("heartbeat", tests, NULL, NULL);
    return failed + run_networks_tests();
}
