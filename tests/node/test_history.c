/* Rooms' numbers on the node, against a real Redis. */
#include "node/site.h"
#include "node/test_node.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static int set_up_narrow(void **state)
{
    static const char *const overrides[] = {"history.wait=5s", "history.waiting=16", NULL};
    *state = site_open(overrides);
    return 0;
}

/* ---- holes */

static void numbered_messages__pass_as_they_come(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    site_publish_all(site, "r", "ab");
    site_forge(site, "r", "plain", NULL);
    site_publish_all(site, "r", "c");
    site_expect(site, "a#1 b#2 plain c#3");
    assert_int_equal(site_reads(site), 0);
}

static void hole__is_filled_in_order_with_one_read(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_publish(site, "r", "b", true);
    site_publish(site, "r", "c", true);
    site_publish_all(site, "r", "d");
    site_forge(site, "r", "plain", NULL);
    site_publish_all(site, "r", "e");
    site_expect(site, "a#1 b#2 c#3 d#4 plain e#5");
    assert_int_equal(site_reads(site), 1);
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
    assert_int_equal(metric_get(&site->node->metrics.history_holes_filled), 1);
}

static void hole_before_the_first_message__is_filled(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish(site, "r", "a", true);
    site_publish_all(site, "r", "b");
    site_expect(site, "a#1 b#2");
}

static void hole_larger_than_history__is_a_gap_before_what_is_left(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    for (int i = 0; i < 30; i++)
        site_publish(site, "r", "x", true);
    site_publish_all(site, "r", "b");
    site_expect(site, "a#1 gap#1 x#13 x#14 x#15 x#16 x#17 x#18 x#19 x#20 x#21 x#22 x#23 x#24 x#25 "
                      "x#26 x#27 x#28 x#29 x#30 x#31 b#32");
    assert_int_equal(metric_get(&site->node->metrics.history_holes_left), 1);
}

static void hole_that_history_forgot__is_a_gap_and_what_came_stays(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_publish(site, "r", "b", true);
    site_publish_all(site, "r", "c");
    assert_string_equal(redis_ask(&site->redis, "DEL halley:history:{r}:normal"), "1");
    site_publish_all(site, "r", "d");
    site_forge(site, "r", "end", NULL);
    site_expect(site, "a#1 gap#1 c#3 d#4 end");
}

static bool waited_out(const struct site *site)
{
    return site->words >= 2;
}

static void history_out_of_reach__is_a_gap_after_the_wait_and_ids_go_on(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    site_let_read(site, false);
    site_publish(site, "r", "b", true);
    uint64_t since = clock_ms();
    site_publish_all(site, "r", "c");
    site_until(site, waited_out);
    assert_in_range(clock_ms() - since, 290, 4000);
    site_publish_all(site, "r", "d");
    site_expect(site, "gap#1 c#3 d#4");
    assert_in_range(site_reads(site), 1, 4); /* with pauses, not in a spin */
}

static bool waits_no_more(const struct site *site)
{
    return site->words >= 17;
}

static void waiting__is_bounded(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_let_read(site, false);
    site_publish(site, "r", "lost", true);
    uint64_t since = clock_ms();
    for (int i = 0; i < 17; i++)
        site_publish(site, "r", "x", false);
    site_until(site, waits_no_more);
    assert_in_range(clock_ms() - since, 0, 4000); /* not for history.wait */
    assert_int_equal(site->node->history.waiting, 0);
    site_expect(site, "a#1 gap#1 x#3 x#4 x#5 x#6 x#7 x#8 x#9 x#10 x#11 x#12 x#13 x#14 x#15 x#16 "
                      "x#17 x#18 x#19");
}

static void room_let_go_while_it_waits__is_forgotten(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_let_read(site, false);
    site_publish(site, "r", "b", true);
    site_publish_all(site, "r", "c");
    site_expect(site, "a#1");
    while (site->node->history.waiting == 0)
        site_turn(site);
    site_release(site, "r");
    assert_int_equal(site->node->history.waiting, 0);
    assert_int_equal(site->node->history.rooms.count, 0);
    site_let_read(site, true);
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].n, 3);
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
}

/* ---- where rooms stand */

static void held_room__goes_on_behind_where_it_stood(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].n, 3);
    assert_int_not_equal(site->stands[LANE_NORMAL].epoch, 0);
    site_publish(site, "r", "d", true);
    site_publish_all(site, "r", "e");
    site_expect(site, "d#4 e#5");
}

/* Holds the room. The node has sent what asks where it stands, Redis has answered, and the node has not read that yet: Redis is halted for
 * the turn that sends the question. */
static void begin_hold_unread(struct site *site, const char *room, const char *calls)
{
    enum { TRIES = 10000 };
    redis_halt(&site->redis);
    site_begin_hold(site, room);
    uv_run(&site->node->loop, UV_RUN_NOWAIT);
    redis_resume(&site->redis);
    for (int i = 0; i < TRIES; i++) {
        if (strstr(redis_ask(&site->redis, "INFO commandstats"), calls))
            return;
    }
    fail_msg("%s was not seen", calls);
}

static void room_let_go_before_its_stand_is_known__leaves_nothing(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    site_hold(site, "r");
    site_release(site, "r");
    begin_hold_unread(site, "r", "cmdstat_hmget:calls=2");
    site_release(site, "r");
    site_for(site, 50);
    assert_int_equal(site->node->history.rooms.count, 0);
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].n, 3);
}

static void room_held_again_before_its_stand_is_known__is_asked_for_again(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    site_hold(site, "r");
    site_release(site, "r");
    begin_hold_unread(site, "r", "cmdstat_hmget:calls=2");
    site_release(site, "r");
    site_publish(site, "r", "d", true); /* as if it had come while nobody held the room */
    site_begin_hold(site, "r");
    site_end_hold(site);
    assert_int_equal(site->stands[LANE_NORMAL].n, 4);
    site_publish_all(site, "r", "e");
    site_expect(site, "e#5");
}

static void cut_while_the_stand_is_read__is_asked_for_again(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    site_hold(site, "r");
    site_release(site, "r");
    begin_hold_unread(site, "r", "cmdstat_hmget:calls=2");
    site_publish(site, "r", "d", true);
    node_broker_events.on_gap(site->node, BYTES_LIT("r"), 1u << LANE_NORMAL);
    site_end_hold(site);
    assert_int_equal(site->stands[LANE_NORMAL].n, 4);
}

static void unknown_stand__is_settled_by_the_first_message(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    site_forge(site, "r", "forged", ".999999");
    site_expect(site, "forged"); /* and not what was before the room was held */
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node +hmget"), "OK");
}

static void unknown_stand_that_history_forgot__is_settled_when_a_viewer_comes_back(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    assert_string_equal(redis_ask(&site->redis, "DEL halley:history:{r}:normal"), "1");
    site_ask_history(site, 0, "r");
    site_expect(site, "gap>3");
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
}

static void unknown_stand__is_settled_when_a_viewer_comes_back(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node -hmget"), "OK");
    site_hold(site, "r");
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    assert_int_equal(site->stands[LANE_NORMAL].n, 1); /* not "there is none" */
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node +hmget"), "OK");
    site_ask_history(site, 0, "r");
    site_expect(site, "gap c#3");
    site_publish_all(site, "r", "d");
    site_expect(site, "d#4");
}

/* ---- reads for viewers */

static bool both_have(const struct site *site)
{
    return site->batches[0] && site->batches[1];
}

static void workers_that_ask_at_once__share_a_read(void **state)
{
    struct site *site = *state;
    site_publish_all(site, "r", "abc");
    site_hold(site, "r");
    for (int i = 0; i < 10; i++) {
        site_ask_history(site, 0, "r");
        site_ask_history(site, 1, "r");
    }
    site_until(site, both_have);
    assert_int_equal(metric_get(&site->node->metrics.history_reads_resume), 1);
    assert_ptr_equal(site->batches[0], site->batches[1]);
    assert_int_equal(site->batches[0]->error, 0);
    assert_int_equal(site->batches[0]->first, 1);
    assert_int_equal(site->batches[0]->count, 3);
    assert_int_equal(site->batches[0]->last.n, 3);
}

int run_history_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, site_set_up, site_tear_down)
#define IMPATIENT(name) cmocka_unit_test_setup_teardown(name, site_set_up_impatient, site_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(numbered_messages__pass_as_they_come),
        CASE(hole__is_filled_in_order_with_one_read),
        CASE(hole_before_the_first_message__is_filled),
        CASE(hole_larger_than_history__is_a_gap_before_what_is_left),
        CASE(hole_that_history_forgot__is_a_gap_and_what_came_stays),
        IMPATIENT(history_out_of_reach__is_a_gap_after_the_wait_and_ids_go_on),
        cmocka_unit_test_setup_teardown(waiting__is_bounded, set_up_narrow, site_tear_down),
        CASE(room_let_go_while_it_waits__is_forgotten),
        CASE(held_room__goes_on_behind_where_it_stood),
        CASE(room_let_go_before_its_stand_is_known__leaves_nothing),
        CASE(room_held_again_before_its_stand_is_known__is_asked_for_again),
        CASE(cut_while_the_stand_is_read__is_asked_for_again),
        CASE(unknown_stand__is_settled_by_the_first_message),
        CASE(unknown_stand__is_settled_when_a_viewer_comes_back),
        CASE(unknown_stand_that_history_forgot__is_settled_when_a_viewer_comes_back),
        CASE(workers_that_ask_at_once__share_a_read),
    };
#undef IMPATIENT
#undef CASE
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
