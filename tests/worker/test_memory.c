/* Joins with `after` for which there is no memory, on a real worker: the viewer is told, and nobody else notices. */
#include "worker/seat.h"
#include "worker/test_worker.h"

#include "lib/alloc.h"
#include "worker/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { E = 36 * 36 /* an epoch */ };

static int set_up(void **state)
{
    static const char *const overrides[] = {"history.replay=5s", NULL};
    *state = seat_open(overrides);
    return 0;
}

static int tear_down(void **state)
{
    alloc_fail_at(0);
    seat_close(*state);
    return 0;
}

/* A viewer of a room whose lane stands at 5. */
static struct guest *first_in(struct seat *seat)
{
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live(seat, "r", E, 5);
    guest_expect(guest, "joined");
    return guest;
}

static void expect_out_of_memory(struct guest *guest, const char *ref)
{
    const char *answer = guest_hear(guest);
    assert_non_null(strstr(answer, "\"op\":\"error\""));
    assert_non_null(strstr(answer, ref));
    assert_non_null(strstr(answer, "\"code\":\"unavailable\""));
    assert_non_null(strstr(answer, "out of memory"));
    assert_non_null(strstr(answer, "\"retry_after_ms\":1000"));
    assert_false(alloc_disarm());
}

static uint64_t members(const struct seat *seat)
{
    return metric_get(&worker_metrics(seat->worker)->memberships);
}

static uint64_t resumes(const struct seat *seat)
{
    return metric_get(&worker_metrics(seat->worker)->resumes);
}

/* Comes back behind 2, and gets what it missed and what is live. */
static void comes_back(struct seat *seat, struct guest *guest, struct guest *other)
{
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    guest_expect(guest, "joined 3 4 5");
    seat_deliver(seat, "r", E, 6);
    guest_expect(guest, "6");
    guest_expect(other, "6");
    assert_int_equal(members(seat), 2);
}

static void viewer_that_comes_back__is_not_in_without_memory(struct seat *seat, size_t bytes)
{
    struct guest *other = first_in(seat);
    struct guest *guest = guest_open(seat);
    uint64_t queues = metric_get(&worker_metrics(seat->worker)->memory_queues);
    alloc_fail_sized(bytes, 1);
    guest_join(guest, "r", E, 2);
    expect_out_of_memory(guest, "\"ref\":1");
    assert_int_equal(members(seat), 1);
    assert_int_equal(resumes(seat), 0);
    assert_int_equal(metric_get(&worker_metrics(seat->worker)->memory_queues), queues);
    assert_int_equal(seat_count(seat, COMMAND_ASK_HISTORY), 0);
    comes_back(seat, guest, other);
    guest_close(guest);
    guest_close(other);
}

static void viewer_without_memory_for_its_resume__is_told_and_may_come_again(void **state)
{
    viewer_that_comes_back__is_not_in_without_memory(*state, sizeof(struct resume));
}

static void viewer_without_memory_for_its_extras__is_told_and_may_come_again(void **state)
{
    viewer_that_comes_back__is_not_in_without_memory(*state, sizeof(struct extras));
}

static void viewer_in_the_room__stays_in_without_memory_to_heal(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", 0, 0);
    guest_expect(guest, "joined");
    alloc_fail_sized(sizeof(struct resume), 1);
    guest_join(guest, "r", E, 2);
    expect_out_of_memory(guest, "\"ref\":1");
    assert_int_equal(members(seat), 2);
    assert_int_equal(resumes(seat), 0);
    seat_deliver(seat, "r", E, 6);
    guest_expect(guest, "6");
    guest_expect(other, "6");
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 6, 0);
    guest_expect(guest, "joined 3 4 5 6");
    guest_close(guest);
    guest_close(other);
}

static void join_that_waits__is_answered_though_a_later_one_had_no_memory(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat);
    struct guest *guest = guest_open(seat);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    alloc_fail_sized(sizeof(struct resume), 1);
    guest_say(guest, "{\"op\":\"join\",\"room\":\"r\",\"ref\":2,\"after\":[\"n.100.4\"]}");
    expect_out_of_memory(guest, "\"ref\":2");
    assert_int_equal(resumes(seat), 1);
    seat_history(seat, "r", E, 1, 5, 0);
    assert_non_null(strstr(guest_hear(guest), "\"ref\":1"));
    guest_expect(guest, "3 4 5");
    seat_deliver(seat, "r", E, 6);
    guest_expect(guest, "6");
    guest_expect(other, "6");
    guest_close(guest);
    guest_close(other);
}

static void room_that_waits__is_given_up_without_memory_and_may_be_asked_for_again(void **state)
{
    struct seat *seat = *state;
    struct guest *guest = guest_open(seat);
    alloc_fail_sized(sizeof(struct resume), 1);
    guest_join(guest, "r", E, 2);
    expect_out_of_memory(guest, "\"ref\":1");
    free(seat_command(seat, COMMAND_RELEASE));
    assert_int_equal(members(seat), 0);
    guest_join(guest, "r", E, 2);
    free(seat_command(seat, COMMAND_HOLD));
    seat_live(seat, "r", E, 5);
    free(seat_command(seat, COMMAND_ASK_HISTORY));
    seat_history(seat, "r", E, 1, 5, 0);
    guest_expect(guest, "joined 3 4 5");
    guest_close(guest);
}

/* Everything that the worker allocates for it fails once, whatever that is. */
static void join_with_after__survives_each_failed_allocation(void **state)
{
    struct seat *seat = *state;
    struct guest *other = first_in(seat);
    unsigned told = 0;
    bool all_worked = false;
    char number[16];
    for (unsigned n = 1; !all_worked; n++) {
        struct guest *guest = guest_open(seat);
        assert_in_range(n, 1, 40);
        alloc_fail_at(n);
        guest_join(guest, "r", E, 4 + n);
        bool in = strstr(guest_hear(guest), "\"op\":\"joined\"") != NULL;
        all_worked = alloc_disarm();
        assert_true(in || !all_worked);
        if (!in) {
            told++;
            guest_join(guest, "r", E, 4 + n);
            guest_expect(guest, "joined");
        }
        assert_int_equal(members(seat), 2);
        seat_deliver(seat, "r", E, 5 + n);
        snprintf(number, sizeof(number), "%u", 5 + n);
        guest_expect(guest, number);
        guest_expect(other, number);
        guest_say(guest, "{\"op\":\"leave\",\"room\":\"r\",\"ref\":2}");
        guest_expect(guest, "ack");
        guest_close(guest);
    }
    assert_in_range(told, 1, 40);
    guest_close(other);
}

int run_memory_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(viewer_without_memory_for_its_resume__is_told_and_may_come_again),
        CASE(viewer_without_memory_for_its_extras__is_told_and_may_come_again),
        CASE(viewer_in_the_room__stays_in_without_memory_to_heal),
        CASE(join_that_waits__is_answered_though_a_later_one_had_no_memory),
        CASE(room_that_waits__is_given_up_without_memory_and_may_be_asked_for_again),
        CASE(join_with_after__survives_each_failed_allocation),
    };
#undef CASE
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
