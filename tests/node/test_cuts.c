/* Cuts from Redis, and Redis that begins anew: what the node reads then, what it tells, against a real Redis. */
#include "node/site.h"
#include "node/test_node.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static uint64_t late_lanes(const struct site *site)
{
    return metric_get(&site->node->metrics.history_late_lanes);
}

static uint64_t checks(const struct site *site)
{
    return metric_get(&site->node->metrics.history_checks);
}

static void cut_from_redis__is_filled(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_publish_all(site, "r", "b");
    site_expect(site, "b#2");
    site_publish_all(site, "r", "c");
    site_expect(site, "c#3");
}

/* The room stands at a, and missed b and c in a cut after which history could not be read in time. */
static void cut_without_history(struct site *site)
{
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    site_let_read(site, false);
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_publish(site, "r", "b", true);
    site_publish(site, "r", "c", true);
    site_expect(site, "(gap)#1");
    site->node->conf->history.wait_ms = 10000; /* what is read from here on is had */
}

static bool all_late(const struct site *site)
{
    return late_lanes(site) == LANE_COUNT;
}

static bool none_late(const struct site *site)
{
    return late_lanes(site) == 0;
}

static uint64_t reads_wanted;

static bool has_read(const struct site *site)
{
    return site_reads(site) >= reads_wanted;
}

static bool reads_nothing(const struct site *site)
{
    return site->node->history.read_count == 0;
}

/* The lanes that are late are not read by themselves any more. */
static void hold_late_reads(const struct site *site)
{
    enum { HOUR_MS = 3600000 };
    struct history *history = &site->node->history;
    for (struct link *link = history->lates.next; link != &history->lates; link = link->next)
        CONTAINER_OF(link, struct history_late, link)->pause_ms = HOUR_MS;
}

static void cut_that_history_could_not_fill__is_filled_once_it_can(void **state)
{
    struct site *site = *state;
    uint64_t since = clock_ms();
    cut_without_history(site);
    site_until(site, all_late);
    uint64_t gaps = metric_get(&site->node->metrics.gaps);
    reads_wanted = site_reads(site) + 2 * LANE_COUNT;
    site_until(site, has_read);
    assert_true(clock_ms() - since >= 300 + 500 + 1000 - 100); /* with pauses that grow */
    site_forge(site, "r", "plain", NULL);
    site_expect(site, "plain"); /* nothing waits for those reads */
    site_let_read(site, true);
    site_expect(site, "b#2 c#3"); /* nobody published, or asked */
    site_until(site, none_late);
    uint64_t before = site_reads(site);
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
    assert_int_equal(site_reads(site), before);
    assert_int_equal(metric_get(&site->node->metrics.gaps), gaps); /* it was told already */
}

static void cut_that_history_could_not_fill__is_filled_when_a_viewer_comes_back(void **state)
{
    struct site *site = *state;
    cut_without_history(site);
    site_until(site, all_late);
    hold_late_reads(site);
    site_for(site, 150); /* so soon after a read nobody's wish begins another */
    site_until(site, reads_nothing);
    site_let_read(site, true);
    uint64_t before = site_reads(site);
    site_ask_history(site, 0, "r");
    site_expect(site, "b#2 c#3");
    assert_int_equal(site_reads(site), before + 1);
}

static void cut_that_history_could_not_fill__is_filled_by_the_next_message(void **state)
{
    struct site *site = *state;
    cut_without_history(site);
    site_until(site, all_late);
    hold_late_reads(site);
    site_until(site, reads_nothing);
    site_let_read(site, true);
    uint64_t before = site_reads(site);
    site_publish_all(site, "r", "d");
    site_expect(site, "b#2 c#3 d#4");
    assert_int_equal(site_reads(site), before + 1);
    assert_int_equal(late_lanes(site), LANE_COUNT - 1);
}

static void lanes_that_are_late__show(void **state)
{
    struct site *site = *state;
    cut_without_history(site);
    site_until(site, all_late);
    site_let_read(site, true);
    site_expect(site, "b#2 c#3");
    site_until(site, none_late);
}

static void room_let_go_while_it_is_behind__is_forgotten(void **state)
{
    struct site *site = *state;
    cut_without_history(site);
    site_until(site, all_late);
    site_release(site, "r");
    assert_int_equal(late_lanes(site), 0);
    site_let_read(site, true);
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].n, 3);
    site_for(site, 700);
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
}

static void first_messages_in_a_cut__are_filled_in(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_publish(site, "r", "a", true);
    site_publish(site, "r", "b", true);
    site_expect(site, "a#1 b#2");
    site_publish_all(site, "r", "c");
    site_expect(site, "c#3");
}

static void first_messages_in_a_cut__are_filled_in_once_counters_can_be_read(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_publish(site, "r", "a", true);
    site_expect(site, "(gap)");
    site->node->conf->history.wait_ms = 10000; /* what is read from here on is had */
    site_publish(site, "r", "b", true);
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node +hmget"), "OK");
    site_expect(site, "a#1 b#2");
}

static bool one_checked(const struct site *site)
{
    return checks(site) == 1;
}

static bool none_checked(const struct site *site)
{
    return checks(site) == 0;
}

static void rooms_that_are_checked__show(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_hold(site, "s");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "(gap) (gap)");
    assert_int_equal(checks(site), 2);
    site_release(site, "s");
    site_until(site, one_checked);
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node +hmget"), "OK");
    site_until(site, none_checked);
    assert_int_equal(site->node->history.checks_sent, 0);
}

static int set_up_small(void **state)
{
    static const char *const overrides[] = {"limits.rooms=2", "history.wait=10s", NULL};
    *state = site_open(overrides);
    return 0;
}

static void checks__are_bounded(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_hold(site, "s");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    site->node->history.check_count = 1; /* as of a room that was let go a moment ago */
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "gap"); /* of the second one, at once; of the first one after history.wait */
    assert_int_equal(checks(site), 2);
}

static void cut_where_nothing_has_a_number__is_a_gap(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "(gap)");
    assert_int_equal(site->node->history.rooms.count, 0);
    assert_int_equal(site_reads(site), 0);
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
}

static void cut_where_only_other_lanes_have_numbers__is_a_gap_that_needs_no_join(void **state)
{
    struct site *site = *state;
    assert_string_equal(redis_ask(&site->redis, "HSET halley:seq:{r} epoch abc high 3"), "2");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_HIGH].n, 3);
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "(gap)");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
}

/* What gathered goes on behind the hole, which nobody fills for them then. */
static void cut_that_history_could_not_fill_before_messages_came__needs_joins(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    site_let_read(site, false);
    site_publish(site, "r", "b", true);
    site_publish_all(site, "r", "c");
    while (site->node->history.waiting == 0)
        site_turn(site);
    node_broker_events.on_gap(site->node, BYTES_LIT("r"), 1u << LANE_NORMAL);
    site_expect(site, "gap#1 c#3");
}

static void cut_where_the_stand_is_not_known__needs_joins(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    node_broker_events.on_gap(site->node, BYTES_LIT("r"), 1u << LANE_NORMAL);
    site_expect(site, "gap");
}

/* The room stands at a, and b was lost in a cut; its counter is all that is left of it. */
static void cut_that_history_forgot(struct site *site)
{
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    site_publish(site, "r", "b", true);
    assert_string_equal(redis_ask(&site->redis, "DEL halley:history:{r}:normal"), "1");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "gap#1");
}

static void cut_that_history_forgot__is_settled_when_a_viewer_comes_back(void **state)
{
    struct site *site = *state;
    cut_that_history_forgot(site);
    site_ask_history(site, 0, "r"); /* for one that has b, of another node */
    site_expect(site, "gap#1>2");
    uint64_t before = site_reads(site);
    site_publish_all(site, "r", "c");
    site_expect(site, "c#3");
    assert_int_equal(site_reads(site), before);
    assert_int_equal(site_misnumbered(site), 0);
}

static void cut_that_history_forgot__is_settled_by_the_next_message(void **state)
{
    struct site *site = *state;
    cut_that_history_forgot(site);
    site_publish_all(site, "r", "c");
    site_expect(site, "c#3");
}

static void late_lane_that_history_forgot__is_told_once(void **state)
{
    struct site *site = *state;
    cut_without_history(site);
    assert_string_equal(redis_ask(&site->redis, "DEL halley:history:{r}:normal"), "1");
    site_let_read(site, true);
    site_expect(site, "gap#1>3");
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
}

static void first_messages_in_a_cut_of_a_forged_room__are_filled_in(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_forge(site, "r", "forged", "zzzzzzzzzz.77");
    site_expect(site, "forged");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_publish(site, "r", "a", true);
    site_publish(site, "r", "b", true);
    site_expect(site, "a#1 b#2");
}

static void emptied_redis__is_a_gap_then_the_new_epoch(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "ab");
    assert_string_equal(redis_ask(&site->redis, "FLUSHALL"), "OK");
    site_publish_all(site, "r", "cd");
    site_expect(site, "a#1 b#2 gap#2 c#1 d#2");
    assert_string_equal(redis_ask(&site->redis, "FLUSHALL"), "OK");
    site_publish(site, "r", "e", true);
    site_publish_all(site, "r", "f");
    site_expect(site, "gap#2 e#1 f#2");
    assert_int_equal(site_misnumbered(site), 0);
}

static void redis_that_fell_back__begins_another_epoch(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "abcd");
    site_expect(site, "a#1 b#2 c#3 d#4");
    assert_string_equal(redis_ask(&site->redis, "HSET halley:seq:{r} normal 1"), "0");
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE pubsub");
    site_expect(site, "gap#4");
    site_publish_all(site, "r", "e");
    site_expect(site, "e#1");
}

int run_cut_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, site_set_up, site_tear_down)
#define IMPATIENT(name) cmocka_unit_test_setup_teardown(name, site_set_up_impatient, site_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(cut_from_redis__is_filled),
        IMPATIENT(cut_that_history_could_not_fill__is_filled_once_it_can),
        IMPATIENT(cut_that_history_could_not_fill__is_filled_when_a_viewer_comes_back),
        IMPATIENT(cut_that_history_could_not_fill__is_filled_by_the_next_message),
        IMPATIENT(room_let_go_while_it_is_behind__is_forgotten),
        IMPATIENT(lanes_that_are_late__show),
        IMPATIENT(rooms_that_are_checked__show),
        cmocka_unit_test_setup_teardown(checks__are_bounded, set_up_small, site_tear_down),
        CASE(first_messages_in_a_cut__are_filled_in),
        IMPATIENT(first_messages_in_a_cut__are_filled_in_once_counters_can_be_read),
        CASE(cut_where_nothing_has_a_number__is_a_gap),
        CASE(cut_where_only_other_lanes_have_numbers__is_a_gap_that_needs_no_join),
        IMPATIENT(cut_that_history_could_not_fill_before_messages_came__needs_joins),
        CASE(cut_where_the_stand_is_not_known__needs_joins),
        CASE(cut_that_history_forgot__is_settled_when_a_viewer_comes_back),
        CASE(cut_that_history_forgot__is_settled_by_the_next_message),
        IMPATIENT(late_lane_that_history_forgot__is_told_once),
        CASE(first_messages_in_a_cut_of_a_forged_room__are_filled_in),
        CASE(emptied_redis__is_a_gap_then_the_new_epoch),
        CASE(redis_that_fell_back__begins_another_epoch),
    };
#undef IMPATIENT
#undef CASE
    return cmocka_run_group_tests_name("cuts", tests, NULL, NULL);
}
