/* The embedded broker. */
#include "harness.h"

#include "broker/scripts.h"
#include "suites.h"

static int setup(void **state)
{
    static struct harness h;
    harness_init(&h, "memory:");
    harness_open(&h);
    *state = &h;
    return 0;
}

static int teardown(void **state)
{
    harness_close(*state);
    return 0;
}

static void publish(struct harness *h, enum broker_channel channel, const char *room,
                    const char *payload, uint64_t token)
{
    assert_int_equal(broker_publish(h->broker, channel, bytes_str(room), bytes_str(payload), token),
                     0);
}

static void memory_broker__is_ready_from_the_loop_once(void **state)
{
    struct harness *h = *state;
    assert_int_equal(broker_publish(h->broker, BROKER_ALL, BYTES_LIT(""), BYTES_LIT("x"), 1),
                     BROKER_ERR_AWAY);
    harness_until(h, is_ready);
    harness_turns(h, 3);
    assert_int_equal(h->count, 1);
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_true(stats.ready);
    assert_int_equal(stats.publish_failed, 1);
}

static void publishes__come_back_in_order_to_subscribed_rooms_only(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    events_clear(h);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    publish(h, BROKER_ROOM, "a", "1", 1);
    publish(h, BROKER_ROOM, "b", "2", 2);
    publish(h, BROKER_ALL, "", "3", 3);
    publish(h, BROKER_HIGH, "a", "4", 4);
    assert_int_equal(h->count, 0);
    harness_turns(h, 3);
    static const struct {
        enum event_kind kind;
        const char *text;
        int value;
    } expected[] = {{ON_SUBSCRIBED, "", 0}, {ON_MESSAGE, "4", 1},  {ON_PUBLISHED, "", 4},
                    {ON_MESSAGE, "1", 1},   {ON_PUBLISHED, "", 1}, {ON_PUBLISHED, "", 2},
                    {ON_MESSAGE, "3", 1},   {ON_PUBLISHED, "", 3}};
    assert_int_equal(h->count, sizeof(expected) / sizeof(expected[0]));
    for (size_t i = 0; i < h->count; i++) {
        assert_int_equal(h->events[i].kind, expected[i].kind);
        assert_string_equal(h->events[i].payload, expected[i].text);
        assert_int_equal(h->events[i].value, expected[i].value);
        assert_int_equal(h->events[i].result, 0);
    }
    broker_unsubscribe(h->broker, BYTES_LIT("a"));
    broker_unsubscribe(h->broker, BYTES_LIT("a"));
    publish(h, BROKER_ROOM, "a", "5", 5);
    events_clear(h);
    harness_turns(h, 3);
    assert_int_equal(h->messages, 0);
    assert_int_equal(h->published, 1);
}

static void held_reading__waits_for_resume_and_high_goes_on(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    harness_turns(h, 2);
    events_clear(h);
    h->hold[0] = true;
    publish(h, BROKER_ROOM, "a", "normal", 1);
    publish(h, BROKER_HIGH, "a", "high", 2);
    harness_turns(h, 3);
    assert_int_equal(h->messages, 1);
    assert_string_equal(h->events[0].payload, "high");
    /* Nothing to do: the loop must not spin. */
    assert_false(uv_loop_alive(&h->loop));
    h->hold[0] = false;
    broker_resume(h->broker);
    assert_int_equal(h->messages, 1);
    harness_turns(h, 3);
    assert_int_equal(h->messages, 2);
}

static void reply_never(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    (void)owner;
    (void)token;
    (void)result;
    (void)value;
    fail_msg("a refused command was answered");
}

static void commands__are_refused(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    const struct bytes ping = BYTES_LIT("PING");
    assert_false(broker_has_commands(h->broker));
    assert_int_equal(broker_call(h->broker, &ping, 1, reply_never, h, 1), BROKER_ERR_REFUSED);
    assert_int_equal(broker_eval(h->broker, &script_queue, &ping, 1, &ping, 1, reply_never, h, 1),
                     BROKER_ERR_REFUSED);
    harness_turns(h, 3);
}

static void channels_of_every_node__come_back_without_a_room(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    events_clear(h);
    publish(h, BROKER_USERS, "", "1", 1);
    publish(h, BROKER_NODE, "n1", "2", 2);
    harness_turns(h, 3);
    assert_int_equal(h->messages, 2);
    assert_int_equal(h->events[0].channel, BROKER_USERS);
    assert_int_equal(h->events[2].channel, BROKER_NODE);
    assert_string_equal(h->events[2].room, "");
}

static void full_queue__refuses(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    h->conf->broker.pending = 3;
    h->conf->broker.output_bytes = 100;
    broker_set_conf(h->broker, h->conf);
    char big[101] = {0};
    assert_int_equal(broker_publish(h->broker, BROKER_ALL, BYTES_LIT(""), bytes_of(big, 101), 9),
                     BROKER_ERR_FULL);
    for (uint64_t i = 0; i < 3; i++)
        publish(h, BROKER_ALL, "", "x", i);
    assert_int_equal(broker_publish(h->broker, BROKER_ALL, BYTES_LIT(""), BYTES_LIT("x"), 9),
                     BROKER_ERR_FULL);
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_int_equal(stats.pending, 3);
    harness_turns(h, 3);
    publish(h, BROKER_ALL, "", "x", 4);
}

static void close__answers_what_waits(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    h->close_on_message = true;
    for (uint64_t i = 0; i < 3; i++)
        publish(h, BROKER_ROOM, "a", "x", i);
    harness_turns(h, 3);
    assert_true(h->closed);
    assert_int_equal(h->messages, 1);
    assert_int_equal(h->published, 3);
    assert_int_equal(h->events[h->count - 1].result, BROKER_ERR_AWAY);
}

int test_memory(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(memory_broker__is_ready_from_the_loop_once),
        CASE(publishes__come_back_in_order_to_subscribed_rooms_only),
        CASE(held_reading__waits_for_resume_and_high_goes_on),
        CASE(commands__are_refused),
        CASE(channels_of_every_node__come_back_without_a_room),
        CASE(full_queue__refuses),
        CASE(close__answers_what_waits),
    };
#undef CASE
    return cmocka_run_group_tests_name("broker memory", tests, NULL, NULL);
}
