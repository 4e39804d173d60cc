/* Viewers that come back, on a real worker. */
#include "worker/seat.h"
#include "worker/test_worker.h"

#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

enum { E = 36 * 36 /* an epoch */, F /* and a later one */, OLDER = E - 1 };

/* Nothing ends by itself, however long the machine is busy with others. */
static int set_up(void **state)
{
    static const char *const overrides[] = {"history.wait=10s", "history.replay=30s", NULL};
    *state = seat_open(overrides);
    return 0;
}

static int set_up_short(void **state)
{
    static const char *const overrides[] = {"history.wait=300ms", "history.replay=2s", NULL};
    *state = seat_open(overrides);
    return 0;
}

static int set_up_small(void **state)
{
    static const char *const overrides[] = {"history.wait=1s", "history.replay=5s",
                                            "history.replay_bytes=1m", NULL};
    *state = seat_open(overrides);
    return 0;
}

static int set_up_small_logs(void **state)
{
    static const char *const overrides[] = {"limits.log_bytes=1m", "lane.normal.bytes=8m", NULL};
    *state = seat_open(overrides);
    return 0;
}

static int tear_down(void **state)
{
    seat_close(*state);
    return 0;
}

static void pass_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* So many viewers wait for what they missed. */
static void until_waiting(const struct seat *seat, uint64_t count)
{
    const struct worker_metrics *metrics = worker_metrics(seat->worker);
    for (int i = 0; i < 500 && metric_get(&metrics->resumes) != count; i++)
        pass_ms(10);
    assert_int_equal(metric_get(&metrics->resumes), count);
}

/* A viewer that is in the room, so that the worker holds it. */
static struct guest *first_in(struct seat *seat, const char *room, uint64_t epoch, uint64_t n)
{
    struct guest *guest = guest_open(seat);
    guest_join(guest, room, 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live(seat, room, epoch, n);
    guest_expect(guest, "joined");
    return guest;
}

static struct guest *next_in(struct seat *seat, const char *room)
{
    struct guest *guest = guest_open(seat);
    guest_join(guest, room, 0, 0);
    guest_expect(guest, "joined");
    return guest;
}

/* Both lanes have numbers: the high one stands at 3, the normal one at 5. */
static struct guest *first_in_both(struct seat *seat)
{
    const struct history_point points[LANE_COUNT] = {[LANE_HIGH] = {E, 3}, [LANE_NORMAL] = {E, 5}};
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live_at(seat, "r", points);
    guest_expect(guest, "joined");
    return guest;
}

static void answer_high(struct seat *seat)
{
    seat->lane = LANE_HIGH;
    seat_history(seat, "r", E, 1, 3, 0);
    seat->lane = LANE_NORMAL;
}

static void joined__tells_where_the_lane_stands(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live(seat, "r", E, 5);
    assert_non_null(strstr(guest_hear(guest), "\"after\":[\"n.100.5\"]"));
    seat_deliver(seat, "r", E, 6);
    assert_non_null(strstr(guest_hear(guest), "\"id\":\"n.100.6\""));
    guest_close(guest);
}

static void replay__then_live_without_gap_or_repeat(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_deliver(seat, "r", E, 6); /* live while history is read */
    seat_deliver(seat, "r", E, 7);
    guest_expect(other, "6 7");
    seat_history(seat, "r", E, 1, 6, 0);
    guest_expect(guest, "joined 3 4 5 6 7");
    seat_deliver(seat, "r", E, 8);
    guest_expect(guest, "8");
    guest_expect(other, "8");
    assert_int_equal(metric_get(&worker_metrics(seat->worker)->resumed_history), 1);
    guest_close(guest);
    guest_close(other);
}

static void own_log__suffices_where_it_reaches_back(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *more[8]; /* the logs of smaller rooms go when everybody has everything */
    for (int i = 0; i < 8; i++) {
        more[i] = guest_open(seat);
        guest_join(more[i], "r", 0, 0);
        guest_expect(more[i], "joined");
    }
    for (uint64_t n = 6; n <= 9; n++)
        seat_deliver(seat, "r", E, n);
    guest_expect(other, "6 7 8 9");
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 7);
    guest_expect(guest, "joined 8 9");
    seat_deliver(seat, "r", E, 10);
    guest_expect(guest, "10");
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    for (int i = 0; i < 8; i++)
        guest_close(more[i]);
    guest_close(guest);
    guest_close(other);
}

static void viewers_that_come_at_once__share_one_read(void **state)
{
    enum { MANY = 50 };
    struct seat *seat = *state;
    struct guest *guests[MANY];
    struct guest *other = first_in(seat, "r", E, 5);
    for (int i = 0; i < MANY; i++) {
        guests[i] = guest_open(seat);
        guest_join(guests[i], "r", E, 1 + (uint64_t)i % 4);
    }
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    for (int i = 0; i < MANY; i++) {
        guest_expect(guests[i], (const char *const[]){"joined 2 3 4 5", "joined 3 4 5",
                                                      "joined 4 5", "joined 5"}[i % 4]);
        guest_close(guests[i]);
    }
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    guest_close(other);
}

static void join_in_a_room_held__heals(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    guest_join(guest, "r", E, 3);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    guest_expect(guest, "joined 4 5");
    seat_deliver(seat, "r", E, 6);
    guest_expect(guest, "6");
    guest_close(guest);
}

static void too_far_back__is_a_gap_and_read_once(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 20);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 10, 20, 0);
    guest_expect(guest, "gap joined");
    seat_deliver(seat, "r", E, 21);
    guest_expect(guest, "21");
    guest_join(guest, "r", E, 3);
    guest_expect(guest, "gap joined");
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    guest_close(guest);
    guest_close(other);
}

static void older_epoch__is_a_gap_without_a_read(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    guest_join(guest, "r", OLDER, 2);
    guest_expect(guest, "gap joined");
    seat_deliver(seat, "r", F, 1); /* now the room's epoch ends */
    guest_expect(guest, "gap 1");
    guest_join(guest, "r", E, 5);
    guest_expect(guest, "gap joined");
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    guest_close(guest);
}

static void later_epoch__is_waited_for(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", F, 1); /* a faster node told it */
    seat_deliver(seat, "r", F, 1);
    seat_deliver(seat, "r", F, 2);
    guest_expect(guest, "joined 2");
    guest_expect(other, "gap 1 2");
    guest_close(guest);
    guest_close(other);
}

static void more_than_the_worker_has__waits_for_it(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 6);
    seat_deliver(seat, "r", E, 6);
    seat_deliver(seat, "r", E, 7);
    guest_expect(guest, "joined 7");
    guest_expect(other, "6 7");
    guest_close(guest);
    guest_close(other);
}

static void made_up_numbers__are_a_gap_after_the_wait_and_one_read(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    struct guest *second = next_in(seat, "r");
    uint64_t since = clock_ms();
    guest_join(guest, "r", E, 999999);
    guest_join(second, "r", E, 888888);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    assert_in_range(clock_ms() - since, 300, 4000);
    seat_history(seat, "r", E, 1, 5, 0);
    guest_expect(guest, "gap joined");
    guest_expect(second, "gap joined");
    seat_deliver(seat, "r", E, 6);
    guest_expect(guest, "6");
    guest_expect(second, "6");
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    guest_close(guest);
    guest_close(second);
}

static void worker_that_is_late__loses_nobodys_place(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 7);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 7, 0);
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    for (uint64_t n = 6; n <= 8; n++)
        seat_deliver(seat, "r", E, n);
    guest_expect(other, "6 7 8");
    guest_join(guest, "r", E, 8);
    guest_expect(guest, "joined");
    guest_close(guest);
    guest_close(other);
}

static void read_from_before_a_hole_in_the_log__loses_nobodys_place(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_deliver(seat, "r", E, 9); /* the node has given up on 6 to 8 */
    guest_expect(other, "gap 9");
    seat_history(seat, "r", E, 1, 6, 0);
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 9, 0);
    guest_expect(guest, "joined 3 4 5 6 7 8 9");
    guest_close(guest);
    guest_close(other);
}

static void lane_with_a_gap__goes_on_from_where_joined_says(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in_both(seat);
    struct guest *other = next_in(seat, "r");
    /* The normal lane's place is lost at once, the high lane's is waited for. */
    guest_say(guest,
              "{\"op\":\"join\",\"room\":\"r\",\"ref\":1,\"after\":[\"h.100.1\",\"n.zz.2\"]}");
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_deliver(seat, "r", E, 6);
    seat_deliver(seat, "r", E, 7);
    guest_expect(other, "6 7");
    answer_high(seat);
    guest_expect(guest, "gap");
    assert_non_null(strstr(guest_hear(guest), "\"after\":[\"h.100.1\",\"n.100.7\"]"));
    guest_expect(guest, "2 3");
    seat_deliver(seat, "r", E, 8);
    guest_expect(guest, "8");
    guest_close(guest);
    guest_close(other);
}

static void room_whose_stand_could_not_be_read__loses_nobodys_place(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", 0, 0);
    struct guest *guest = guest_open(seat);
    struct guest *current = guest_open(seat);
    guest_join(guest, "r", E, 3);
    guest_join(current, "r", E, 4);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 4, 0);
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    guest_expect(current, "joined");
    seat_deliver(seat, "r", E, 4); /* what the node does now, after a gap */
    guest_expect(other, "4");
    guest_join(guest, "r", E, 3);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 4, 0);
    guest_expect(guest, "joined 4");
    guest_close(guest);
    guest_close(current);
    guest_close(other);
}

/* The node could not read where the room stands. */
static struct guest *first_in_unread_room(struct seat *seat)
{
    const struct history_point unread[LANE_COUNT] = {{0, 1}, {0, 1}, {0, 1}};
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live_at(seat, "r", unread);
    guest_expect(guest, "joined");
    return guest;
}

static void join_from_the_beginning(struct guest *guest)
{
    guest_say(guest, "{\"op\":\"join\",\"room\":\"r\",\"ref\":1,\"after\":[]}");
}

/* Every lane of the room is asked for; its normal one is the seat's. */
static void answer_that_others_are_empty(struct seat *seat)
{
    for (int i = 1; i < LANE_COUNT; i++) {
        seat->lane = i == 1 ? LANE_HIGH : LANE_LOW;
        seat_history(seat, "r", 0, 1, 0, 0);
    }
    seat->lane = LANE_NORMAL;
}

static void empty_list_in_an_unread_room__gets_what_is_there(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in_unread_room(seat);
    struct guest *guest = guest_open(seat);
    join_from_the_beginning(guest);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    answer_that_others_are_empty(seat);
    seat_history(seat, "r", E, 1, 3, 0);
    (void)seat_count(seat, COMMAND_ASK_HISTORY);
    seat_deliver(seat, "r", E, 3); /* the node knows by now where the lane stands */
    guest_expect(other, "3");
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 3, 0);
    guest_expect(guest, "joined 1 2 3");
    seat_deliver(seat, "r", E, 4);
    guest_expect(guest, "4");
    guest_close(guest);
    guest_close(other);
}

static void empty_list_in_an_unread_room__is_in_once_nothing_was_read(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in_unread_room(seat);
    struct guest *guest = guest_open(seat);
    join_from_the_beginning(guest);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    answer_that_others_are_empty(seat);
    seat_history(seat, "r", 0, 1, 0, 0);
    guest_expect(guest, "joined");
    (void)seat_count(seat, COMMAND_ASK_HISTORY);
    join_from_the_beginning(other); /* it is known now */
    guest_expect(other, "joined");
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    seat_deliver(seat, "r", E, 1);
    guest_expect(guest, "1");
    guest_expect(other, "1");
    guest_close(guest);
    guest_close(other);
}

/* The high lane has an epoch, the normal one none that this worker knows of. */
static struct guest *first_in_unknown_lane(struct seat *seat)
{
    struct history_point points[LANE_COUNT] = {[LANE_HIGH] = {E, 0}};
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live_at(seat, "r", points);
    guest_expect(guest, "joined");
    return guest;
}

static void made_up_epochs__are_a_gap_after_the_wait_and_one_read(void **state)
{
    enum { MANY = 20 };
    struct seat *seat = *state;
    struct guest *guests[MANY];
    struct guest *first = first_in_unknown_lane(seat);
    for (uint64_t i = 0; i < MANY; i++) {
        guests[i] = guest_open(seat);
        guest_join(guests[i], "r", F + i, 3 + i);
    }
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    until_waiting(seat, MANY);
    seat_history(seat, "r", E, 1, 4, 0);
    for (int i = 0; i < MANY; i++) {
        guest_expect(guests[i], "gap joined");
        guest_close(guests[i]);
    }
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    guest_close(first);
}

static void history_of_another_epoch__is_not_read_again_and_again(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 20);
    pass_ms(20);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", F, 1, 4, 0); /* Redis was emptied, and no message came since */
    guest_expect(guest, "gap joined");
    for (uint64_t i = 0; i < 19; i++) {
        guest_join(guest, "r", E, i);
        guest_expect(guest, "gap joined");
    }
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    seat_deliver(seat, "r", F, 5);
    guest_expect(guest, "gap 5");
    guest_join(guest, "r", F, 2); /* of the new epoch it is */
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", F, 1, 5, 0);
    guest_expect(guest, "joined 3 4 5");
    guest_close(guest);
}

static void failed_read__is_told_and_the_viewer_stays_out(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history_failed(seat, "r");
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    seat_deliver(seat, "r", E, 6);
    guest_expect(other, "6");
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 6, 0);
    guest_expect(guest, "joined 3 4 5 6");
    guest_close(guest);
    guest_close(other);
}

static void history_that_does_not_answer__is_told_after_the_wait(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    uint64_t since = clock_ms();
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    assert_in_range(clock_ms() - since, 300, 4000);
    guest_close(guest);
    guest_close(other);
}

static void replays__are_bounded_and_given_back(void **state)
{
    struct seat *seat = *state;
    struct worker_metrics *metrics = worker_metrics(seat->worker);
    struct guest *a = first_in(seat, "a", E, 100);
    struct guest *b = first_in(seat, "b", E, 100);
    guest_join(a, "a", E, 99);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "a", E, 1, 100, 20000);
    guest_expect(a, "joined 100");
    uint64_t one = metric_get(&metrics->memory_replays);
    assert_in_range(one, 2 * 100 * 20000, 3 * 100 * 20000); /* in both encodings */
    guest_join(b, "b", E, 99);                              /* history is not read in vain */
    assert_non_null(strstr(guest_hear(b), "\"code\":\"unavailable\""));
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    assert_int_equal(metric_get(&metrics->memory_replays), one);
    for (int i = 0; i < 100 && metric_get(&metrics->memory_replays) > 0; i++)
        pass_ms(100);
    assert_int_equal(metric_get(&metrics->memory_replays), 0);
    guest_join(b, "b", E, 99);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "b", E, 1, 100, 20000);
    guest_expect(b, "joined 100");
    guest_close(a);
    guest_close(b);
}

static void viewers_that_go_while_they_wait__leave_nothing(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    for (int i = 0; i < 10; i++) {
        struct guest *guest = guest_open(seat);
        guest_join(guest, "r", E, i % 2 ? 2 : 999);
        guest_join(guest, "r", E, 1); /* takes the first one's place */
        assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
        guest_close(guest);
    }
    until_waiting(seat, 0);
    assert_true(seat_count(seat, COMMAND_ASK_HISTORY) >= 1);
    seat_history(seat, "r", E, 1, 5, 0);
    seat_deliver(seat, "r", E, 6);
    guest_expect(other, "6");
    guest_close(other);
}

static void replay_that_ends_before_joined__is_no_gap(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in_both(seat);
    struct guest *guest = guest_open(seat);
    guest_say(other,
              "{\"op\":\"join\",\"room\":\"r\",\"ref\":1,\"after\":[\"h.100.3\",\"n.100.3\"]}");
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    guest_expect(other, "joined 4 5");
    pass_ms(1800); /* of history.replay */
    guest_say(guest,
              "{\"op\":\"join\",\"room\":\"r\",\"ref\":1,\"after\":[\"h.100.1\",\"n.100.3\"]}");
    free(seat_command(seat, COMMAND_ASK_HISTORY)); /* of the high lane */
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\""));
    guest_close(guest);
    guest_close(other);
}

static void pace_that_changes_meanwhile__is_told_by_joined(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in_both(seat);
    struct guest *guest = guest_open(seat);
    guest_say(guest, "{\"op\":\"pace\",\"mode\":\"passive\"}");
    guest_say(guest,
              "{\"op\":\"join\",\"room\":\"r\",\"ref\":1,\"after\":[\"h.100.1\",\"n.100.3\"]}");
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    guest_say(guest, "{\"op\":\"pace\",\"mode\":\"active\",\"ref\":2}");
    guest_expect(guest, "ack");
    seat_deliver(seat, "r", E, 6);
    guest_expect(other, "6");
    answer_high(seat);
    assert_non_null(strstr(guest_hear(guest), "\"after\":[\"h.100.1\",\"n.100.6\"]"));
    guest_expect(guest, "2 3");
    seat_deliver(seat, "r", E, 7);
    guest_expect(guest, "7");
    guest_close(guest);
    guest_close(other);
}

static void plain_join_while_one_waits__takes_its_place(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat, "r", E, 5);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 3);
    guest_say(guest, "{\"op\":\"join\",\"room\":\"r\",\"ref\":2}");
    assert_non_null(strstr(guest_hear(guest), "\"code\":\"unavailable\"")); /* ref 1 */
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    assert_non_null(strstr(guest_hear(guest), "\"ref\":2"));
    guest_expect(guest, "4 5");
    guest_close(guest);
    guest_close(other);
}

static void hole_after_a_gap_and_a_join__is_told_again(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    seat_deliver(seat, "r", E, 7);
    guest_expect(guest, "gap 7");
    seat_gap(seat, "r", false);
    guest_expect(guest, "gap");
    guest_join(guest, "r", E, 7);
    guest_expect(guest, "joined");
    seat_deliver(seat, "r", E, 9);
    guest_expect(guest, "gap 9");
    guest_close(guest);
}

static void hole_after_a_gap_that_needs_no_join__is_told(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    seat_gap(seat, "r", true);
    guest_expect(guest, "gap");
    seat_deliver(seat, "r", E, 7);
    guest_expect(guest, "gap 7");
    guest_close(guest);
}

/* What the node does where a lane's counter is all that is left of what was missed. */
static void gap_to_a_number__brings_up_who_has_it(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    struct guest *ahead = guest_open(seat);
    guest_join(ahead, "r", E, 7);
    guest_say(ahead, "{\"op\":\"ping\"}");
    assert_non_null(strstr(guest_hear(ahead), "pong")); /* it waits */
    seat_gap_to(seat, "r", E, 7);
    guest_expect(guest, "gap");
    guest_expect(ahead, "joined");
    seat_gap_to(seat, "r", E, 7); /* news to nobody */
    seat_deliver(seat, "r", E, 8);
    guest_expect(guest, "8");
    guest_expect(ahead, "8");
    guest_join(guest, "r", E, 6);
    free(seat_command(seat, COMMAND_ASK_HISTORY)); /* the log does not hold 7 */
    seat_history(seat, "r", E, 8, 8, 0);
    guest_expect(guest, "gap joined");
    guest_join(guest, "r", E, 7);
    guest_expect(guest, "joined 8");
    guest_close(ahead);
    guest_close(guest);
}

static void gap_to_a_number__is_where_a_lane_begins(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", 0, 0);
    seat_gap_to(seat, "r", E, 7);
    guest_expect(guest, "gap");
    struct guest *late = guest_open(seat);
    guest_join(late, "r", E, 7);
    guest_expect(late, "joined");
    seat_deliver(seat, "r", E, 8);
    guest_expect(guest, "8");
    guest_expect(late, "8");
    guest_close(late);
    guest_close(guest);
}

static void log_that_is_trimmed_at_once__has_no_place_for_a_number(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = first_in(seat, "r", E, 5);
    seat_deliver_large(seat, "r", E, 6, 700000); /* more than limits.log_bytes in both encodings */
    assert_non_null(strstr(guest_hear(guest), "\"op\":\"skipped\""));
    seat_deliver(seat, "r", E, 7);
    guest_expect(guest, "7");
    guest_close(guest);
}

int run_resume_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CASE_SHORT(name) cmocka_unit_test_setup_teardown(name, set_up_short, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(joined__tells_where_the_lane_stands),
        CASE(replay__then_live_without_gap_or_repeat),
        CASE(own_log__suffices_where_it_reaches_back),
        CASE(viewers_that_come_at_once__share_one_read),
        CASE(join_in_a_room_held__heals),
        CASE(too_far_back__is_a_gap_and_read_once),
        CASE(older_epoch__is_a_gap_without_a_read),
        CASE(later_epoch__is_waited_for),
        CASE(more_than_the_worker_has__waits_for_it),
        CASE_SHORT(made_up_numbers__are_a_gap_after_the_wait_and_one_read),
        CASE_SHORT(worker_that_is_late__loses_nobodys_place),
        CASE(read_from_before_a_hole_in_the_log__loses_nobodys_place),
        CASE(lane_with_a_gap__goes_on_from_where_joined_says),
        CASE_SHORT(room_whose_stand_could_not_be_read__loses_nobodys_place),
        CASE(empty_list_in_an_unread_room__gets_what_is_there),
        CASE(empty_list_in_an_unread_room__is_in_once_nothing_was_read),
        CASE_SHORT(made_up_epochs__are_a_gap_after_the_wait_and_one_read),
        CASE(history_of_another_epoch__is_not_read_again_and_again),
        CASE(failed_read__is_told_and_the_viewer_stays_out),
        CASE_SHORT(history_that_does_not_answer__is_told_after_the_wait),
        cmocka_unit_test_setup_teardown(replays__are_bounded_and_given_back, set_up_small,
                                        tear_down),
        CASE_SHORT(viewers_that_go_while_they_wait__leave_nothing),
        CASE_SHORT(replay_that_ends_before_joined__is_no_gap),
        CASE(pace_that_changes_meanwhile__is_told_by_joined),
        CASE(plain_join_while_one_waits__takes_its_place),
        CASE(hole_after_a_gap_and_a_join__is_told_again),
        CASE(hole_after_a_gap_that_needs_no_join__is_told),
        CASE(gap_to_a_number__brings_up_who_has_it),
        CASE(gap_to_a_number__is_where_a_lane_begins),
        cmocka_unit_test_setup_teardown(log_that_is_trimmed_at_once__has_no_place_for_a_number,
                                        set_up_small_logs, tear_down),
    };
#undef CASE_SHORT
#undef CASE
    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
