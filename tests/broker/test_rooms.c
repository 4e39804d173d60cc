/* Subscriptions: what is sent when, and which callbacks an answer gives. */
#include "harness.h"

#include "broker/redis_rooms.h"
#include "broker/redis_wire.h"
#include "protocol/message.h"
#include "suites.h"

#include <stdlib.h>

enum {
    EVERY_LANE = 1 << LANE_HIGH | 1 << LANE_NORMAL | 1 << LANE_LOW,
    HIGH_LANE = 1 << LANE_HIGH,
    LINES = 2,
    FIXED = 3 /* channels that every node listens to */
};

/* The rooms, and what they called as text. */
struct fixture {
    struct redis_rooms rooms;
    struct buf seen;
    struct buf out;
    const char *unwant_on_gap;
};

static void on_subscribed(void *ctx, struct bytes room)
{
    struct fixture *f = ctx;
    buf_printf(&f->seen, "subscribed %.*s;", (int)room.len, room.data);
}

static void on_gap(void *ctx, struct bytes room, unsigned lanes)
{
    struct fixture *f = ctx;
    buf_printf(&f->seen, "gap %.*s %u;", (int)room.len, room.data, lanes);
    if (f->unwant_on_gap)
        redis_rooms_unwant(&f->rooms, bytes_str(f->unwant_on_gap));
}

static int setup(void **state)
{
    static const struct redis_rooms_events events = {on_subscribed, on_gap};
    struct fixture *f = calloc(1, sizeof(struct fixture));
    assert_non_null(f);
    assert_int_equal(redis_rooms_init(&f->rooms, "halley", "n1", &events, f), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    redis_rooms_fini(&f->rooms);
    buf_fini(&f->seen);
    buf_fini(&f->out);
    free(f);
    return 0;
}

static void expect_seen(struct fixture *f, const char *text)
{
    buf_byte(&f->seen, '\0');
    assert_string_equal(f->seen.data, text);
    buf_clear(&f->seen);
}

/* Sends one batch; returns its number of channels and checks how the command begins. */
static uint32_t batch(struct fixture *f, enum redis_line line, const char *verb)
{
    buf_clear(&f->out);
    uint32_t count = redis_rooms_batch(&f->rooms, line, &f->out);
    if (count > 0) {
        char head[64];
        int len =
            snprintf(head, sizeof(head), "*%u\r\n$%zu\r\n%s\r\n", count + 1, strlen(verb), verb);
        assert_true(f->out.len > (size_t)len);
        assert_memory_equal(f->out.data, head, (size_t)len);
    }
    return count;
}

static int confirm(struct fixture *f, enum redis_line line, const char *room, bool subscribed)
{
    char text[REDIS_CHANNEL_MAX];
    enum broker_channel channel = line == REDIS_LINE_HIGH ? BROKER_HIGH : BROKER_ROOM;
    if (*room == '\0')
        channel = BROKER_ALL;
    return redis_rooms_confirmed(
        &f->rooms, line, redis_names_channel(&f->rooms.names, channel, bytes_str(room), text),
        subscribed);
}

/* Every node's own channels. */
static void confirm_fixed(struct fixture *f)
{
    static const char *const channels[] = {"halley:all", "halley:users", "halley:node:n1"};
    for (size_t i = 0; i < sizeof(channels) / sizeof(channels[0]); i++)
        assert_int_equal(
            redis_rooms_confirmed(&f->rooms, REDIS_LINE_NORMAL, bytes_str(channels[i]), true), 0);
}

static bool deliver(struct fixture *f, enum redis_line line, const char *channel)
{
    enum broker_channel kind;
    struct bytes room;
    return redis_rooms_deliver(&f->rooms, line, bytes_str(channel), &kind, &room);
}

/* Both lines up, halley:all and one room confirmed. */
static void hold(struct fixture *f, const char *room)
{
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(redis_rooms_want(&f->rooms, bytes_str(room)), 0);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    confirm_fixed(f);
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, room, true), 0);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, room, true), 0);
    buf_clear(&f->seen);
}

static void room__is_announced_when_both_lines_confirmed(void **state)
{
    struct fixture *f = *state;
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(f->rooms.wanted, 1);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    confirm_fixed(f);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    expect_seen(f, "");
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, "a", true), 0);
    expect_seen(f, "subscribed a;");
    assert_true(deliver(f, REDIS_LINE_NORMAL, "halley:room:{a}"));
    assert_true(deliver(f, REDIS_LINE_HIGH, "halley:high:{a}"));
    assert_true(deliver(f, REDIS_LINE_NORMAL, "halley:all"));
    assert_false(deliver(f, REDIS_LINE_NORMAL, "halley:high:{a}"));
    assert_true(deliver(f, REDIS_LINE_NORMAL, "halley:users"));
    assert_true(deliver(f, REDIS_LINE_NORMAL, "halley:node:n1"));
    assert_false(deliver(f, REDIS_LINE_NORMAL, "halley:node:n2"));
    assert_false(deliver(f, REDIS_LINE_HIGH, "halley:users"));
    assert_false(deliver(f, REDIS_LINE_HIGH, "halley:all"));
    assert_false(deliver(f, REDIS_LINE_NORMAL, "halley:room:{b}"));
}

static void confirmation_nobody_asked_for__is_refused(void **state)
{
    struct fixture *f = *state;
    hold(f, "a");
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), UV_EPROTO);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", false), UV_EPROTO);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "b", true), UV_EPROTO);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "", true), UV_EPROTO);
    expect_seen(f, "");
}

static void wish_that_changes_while_asked__is_settled_after_the_answer(void **state)
{
    struct fixture *f = *state;
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    redis_rooms_unwant(&f->rooms, BYTES_LIT("a"));
    redis_rooms_unwant(&f->rooms, BYTES_LIT("a"));
    assert_int_equal(f->rooms.wanted, 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "UNSUBSCRIBE"), 0);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "UNSUBSCRIBE"), 1);
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 0);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", false), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    redis_rooms_unwant(&f->rooms, BYTES_LIT("a"));
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "UNSUBSCRIBE"), 1);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", false), 0);
    assert_int_equal(f->rooms.map.count, 0);
    expect_seen(f, "");
}

static void room_given_up_and_wanted_again_in_one_turn__is_announced_without_commands(void **state)
{
    struct fixture *f = *state;
    hold(f, "a");
    redis_rooms_unwant(&f->rooms, BYTES_LIT("a"));
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, ""), 0);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, ""), 0);
    redis_rooms_announce(&f->rooms);
    expect_seen(f, "subscribed a;");
    redis_rooms_announce(&f->rooms);
    expect_seen(f, "");
}

static void lost_normal_line__gives_a_gap_of_every_lane(void **state)
{
    struct fixture *f = *state;
    char expected[64];
    hold(f, "a");
    redis_rooms_down(&f->rooms, REDIS_LINE_NORMAL);
    assert_false(redis_rooms_settled(&f->rooms, REDIS_LINE_NORMAL));
    assert_true(redis_rooms_settled(&f->rooms, REDIS_LINE_HIGH));
    redis_rooms_up(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    confirm_fixed(f);
    assert_false(redis_rooms_settled(&f->rooms, REDIS_LINE_NORMAL));
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, "a", true), 0);
    assert_true(redis_rooms_settled(&f->rooms, REDIS_LINE_NORMAL));
    snprintf(expected, sizeof(expected), "gap  %d;gap a %d;subscribed a;", EVERY_LANE, EVERY_LANE);
    expect_seen(f, expected);
}

static void lost_high_line__gives_a_gap_of_the_high_lane(void **state)
{
    struct fixture *f = *state;
    char expected[64];
    hold(f, "a");
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    /* Lost once more before the answer: still one gap. */
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    snprintf(expected, sizeof(expected), "gap a %d;subscribed a;", HIGH_LANE);
    expect_seen(f, expected);
}

static void both_lines_lost__give_one_gap(void **state)
{
    struct fixture *f = *state;
    char expected[64];
    hold(f, "a");
    for (int line = 0; line < LINES; line++) {
        redis_rooms_down(&f->rooms, (enum redis_line)line);
        redis_rooms_up(&f->rooms, (enum redis_line)line);
    }
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, "a", true), 0);
    expect_seen(f, "");
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    snprintf(expected, sizeof(expected), "gap a %d;subscribed a;", EVERY_LANE);
    expect_seen(f, expected);
}

static void message_before_the_other_line_is_back__comes_after_its_gap(void **state)
{
    struct fixture *f = *state;
    char expected[64];
    hold(f, "a");
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_down(&f->rooms, REDIS_LINE_NORMAL);
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_false(deliver(f, REDIS_LINE_HIGH, "halley:high:{a}"));
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    expect_seen(f, "");
    assert_true(deliver(f, REDIS_LINE_HIGH, "halley:high:{a}"));
    snprintf(expected, sizeof(expected), "gap a %d;", HIGH_LANE);
    expect_seen(f, expected);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, "a", true), 0);
    snprintf(expected, sizeof(expected), "gap a %d;subscribed a;", EVERY_LANE);
    expect_seen(f, expected);
}

static void room_never_confirmed__has_no_gap(void **state)
{
    struct fixture *f = *state;
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("a")), 0);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    assert_int_equal(batch(f, REDIS_LINE_NORMAL, "SUBSCRIBE"), FIXED + 1);
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    assert_int_equal(confirm(f, REDIS_LINE_NORMAL, "a", true), 0);
    expect_seen(f, "subscribed a;");
}

static void room_given_up_in_its_gap_callback__is_not_announced(void **state)
{
    struct fixture *f = *state;
    char expected[64];
    hold(f, "a");
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 1);
    f->unwant_on_gap = "a";
    assert_int_equal(confirm(f, REDIS_LINE_HIGH, "a", true), 0);
    snprintf(expected, sizeof(expected), "gap a %d;", HIGH_LANE);
    expect_seen(f, expected);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "UNSUBSCRIBE"), 1);
}

static void room_given_up_while_away__is_forgotten(void **state)
{
    struct fixture *f = *state;
    hold(f, "a");
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("b")), 0);
    redis_rooms_unwant(&f->rooms, BYTES_LIT("a"));
    redis_rooms_down(&f->rooms, REDIS_LINE_HIGH);
    assert_int_equal(f->rooms.map.count, 2);
    redis_rooms_down(&f->rooms, REDIS_LINE_NORMAL);
    assert_int_equal(f->rooms.map.count, 1);
    redis_rooms_unwant(&f->rooms, BYTES_LIT("b"));
    assert_int_equal(f->rooms.map.count, 0);
    assert_int_equal(f->rooms.resync[REDIS_LINE_HIGH], 0);
    assert_int_equal(f->rooms.resync[REDIS_LINE_NORMAL], FIXED);
}

static void many_rooms__are_sent_in_batches_of_512(void **state)
{
    struct fixture *f = *state;
    char name[32];
    for (int i = 0; i < 1300; i++) {
        snprintf(name, sizeof(name), "room-%d", i);
        assert_int_equal(redis_rooms_want(&f->rooms, bytes_str(name)), 0);
    }
    redis_rooms_up(&f->rooms, REDIS_LINE_HIGH);
    assert_false(redis_rooms_settled(&f->rooms, REDIS_LINE_HIGH));
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 512);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 512);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 276);
    assert_int_equal(batch(f, REDIS_LINE_HIGH, "SUBSCRIBE"), 0);
    for (int i = 0; i < 1300; i++) {
        snprintf(name, sizeof(name), "room-%d", i);
        assert_int_equal(confirm(f, REDIS_LINE_HIGH, name, true), 0);
    }
    assert_true(redis_rooms_settled(&f->rooms, REDIS_LINE_HIGH));
    /* A new room does not make a line that is up unsettled. */
    assert_int_equal(redis_rooms_want(&f->rooms, BYTES_LIT("late")), 0);
    assert_true(redis_rooms_settled(&f->rooms, REDIS_LINE_HIGH));
}

static void names_of_no_room__are_refused(void **state)
{
    struct fixture *f = *state;
    char name[ROOM_NAME_MAX + 1];
    memset(name, 'x', sizeof(name));
    assert_int_equal(redis_rooms_want(&f->rooms, bytes_of(name, 0)), UV_EINVAL);
    assert_int_equal(redis_rooms_want(&f->rooms, bytes_of(name, sizeof(name))), UV_EINVAL);
    assert_int_equal(redis_rooms_want(&f->rooms, bytes_of(name, ROOM_NAME_MAX)), 0);
    redis_rooms_unwant(&f->rooms, BYTES_LIT(""));
    redis_rooms_unwant(&f->rooms, BYTES_LIT("unknown"));
}

int test_rooms(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(room__is_announced_when_both_lines_confirmed),
        CASE(confirmation_nobody_asked_for__is_refused),
        CASE(wish_that_changes_while_asked__is_settled_after_the_answer),
        CASE(room_given_up_and_wanted_again_in_one_turn__is_announced_without_commands),
        CASE(lost_normal_line__gives_a_gap_of_every_lane),
        CASE(lost_high_line__gives_a_gap_of_the_high_lane),
        CASE(both_lines_lost__give_one_gap),
        CASE(message_before_the_other_line_is_back__comes_after_its_gap),
        CASE(room_never_confirmed__has_no_gap),
        CASE(room_given_up_in_its_gap_callback__is_not_announced),
        CASE(room_given_up_while_away__is_forgotten),
        CASE(many_rooms__are_sent_in_batches_of_512),
        CASE(names_of_no_room__are_refused),
    };
#undef CASE
    return cmocka_run_group_tests_name("broker rooms", tests, NULL, NULL);
}
