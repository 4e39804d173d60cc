/* Where a held room stands, asked without memory: its viewers are told that they are in, and what comes then has its numbers. */
#include "node/site.h"
#include "node/test_node.h"

#include "lib/alloc.h"

#include <stdio.h>

/* No other allocation of a second hold has the size that this makes of a stand. */
#define ROOM "a-room-whose-name-is-as-long-as-no-others-name-is"

static int tear_down(void **state)
{
    alloc_fail_at(0);
    return site_tear_down(state);
}

/* Holds the room again, so that it is subscribed already. */
static void hold_without_memory(struct site *site)
{
    site_hold(site, ROOM);
    site_release(site, ROOM);
    alloc_fail_sized(sizeof(struct history_stand) + sizeof(ROOM) - 1, 1);
    site_begin_hold(site, ROOM);
    assert_false(alloc_disarm());
    site_end_hold(site);
}

static void stand__without_memory_is_settled_by_the_first_message(void **state)
{
    struct site *site = *state;
    site_publish_all(site, ROOM, "abc");
    hold_without_memory(site);
    assert_int_equal(site->stands[LANE_NORMAL].epoch, 0);
    assert_int_equal(site->node->history.rooms.count, 1);
    site_publish_all(site, ROOM, "d");
    site_expect(site, "d#4");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
    site_publish(site, ROOM, "e", true);
    site_publish_all(site, ROOM, "f");
    site_expect(site, "e#5 f#6");
    site_release(site, ROOM);
    site_hold(site, ROOM);
    assert_int_equal(site->stands[LANE_NORMAL].n, 6);
}

static void stand__without_memory_in_a_room_without_history_is_settled_too(void **state)
{
    struct site *site = *state;
    hold_without_memory(site);
    site_forge(site, ROOM, "plain", NULL);
    site_publish_all(site, ROOM, "ab");
    site_expect(site, "plain a#1 b#2");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
}

/* Everything that is allocated to ask fails once, whatever that is. The room is subscribed already, so that it is asked at once. */
static void stand__survives_each_failed_allocation(void **state)
{
    struct site *site = *state;
    bool all_worked = false;
    unsigned unknown = 0;
    uint64_t stands_at = 3;
    site_publish_all(site, ROOM, "abc");
    site_hold(site, ROOM);
    for (unsigned n = 2; !all_worked; n++) { /* the first one is the test's command */
        char expected[32];
        assert_in_range(n, 2, 40);
        site_release(site, ROOM);
        alloc_fail_at(n);
        site_begin_hold(site, ROOM);
        all_worked = alloc_disarm();
        site_end_hold(site);
        bool known = site->stands[LANE_NORMAL].epoch != 0;
        assert_true(known || !all_worked);
        unknown += !known;
        if (known)
            assert_int_equal(site->stands[LANE_NORMAL].n, stands_at);
        site_publish_all(site, ROOM, "x");
        snprintf(expected, sizeof(expected), "x#%d", (int)++stands_at);
        site_expect(site, expected);
    }
    assert_in_range(unknown, 1, 40);
}

int run_stand_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, site_set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(stand__without_memory_is_settled_by_the_first_message),
        CASE(stand__without_memory_in_a_room_without_history_is_settled_too),
        CASE(stand__survives_each_failed_allocation),
    };
#undef CASE
    return cmocka_run_group_tests_name("stand", tests, NULL, NULL);
}
