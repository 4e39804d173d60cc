/* Redis' protocol: replies at every split, bounds, commands, names, pending publishes. */
#include "harness.h"

#include "broker/redis_names.h"
#include "broker/redis_pending.h"
#include "broker/redis_wire.h"
#include "suites.h"

#include <stdlib.h>

static const char session[] = "+PONG\r\n"
                              "*3\r\n$9\r\nsubscribe\r\n$18\r\nhalley:room:{room}\r\n:1\r\n"
                              "*3\r\n$7\r\nmessage\r\n$18\r\nhalley:room:{room}\r\n$5\r\nhello\r\n"
                              "*3\r\n$7\r\nmessage\r\n$10\r\nhalley:all\r\n$0\r\n\r\n"
                              "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
                              "-ERR no\r\n"
                              ":42\r\n"
                              "*3\r\n$11\r\nunsubscribe\r\n$18\r\nhalley:room:{room}\r\n:0\r\n"
                              "$-1\r\n";

static void feed(struct wire *wire, const char *data, size_t len, struct buf *seen)
{
    assert_int_equal(wire_feed(wire, data, len), 0);
    while (wire_next(wire) == 1) {
        struct bytes channel;
        struct bytes payload;
        const struct broker_value *reply = wire->reply;
        enum wire_event event = wire_event(reply, &channel, &payload);
        if (wire_is_pong(reply))
            BUF_LIT(seen, "pong;");
        else if (event == WIRE_EVENT_MESSAGE)
            buf_printf(seen, "message %.*s %.*s;", (int)channel.len, channel.data, (int)payload.len,
                       payload.data);
        else if (event != WIRE_EVENT_OTHER)
            buf_printf(seen, "%s %.*s;", event == WIRE_EVENT_SUBSCRIBED ? "sub" : "unsub",
                       (int)channel.len, channel.data);
        else if (reply->kind == BROKER_INTEGER)
            buf_printf(seen, "integer %d;", (int)reply->integer);
        else if (reply->kind == BROKER_ERROR)
            buf_printf(seen, "error %.*s;", (int)reply->text.len, reply->text.data);
        else
            buf_printf(seen, "type %d;", (int)reply->kind);
    }
}

static void replies_at_every_split__read_the_same(void **state)
{
    (void)state;
    for (size_t split = 0; split <= sizeof(session) - 1; split++) {
        struct wire wire;
        struct buf seen = {0};
        assert_int_equal(wire_init(&wire, 1 << 20), 0);
        feed(&wire, session, split, &seen);
        feed(&wire, session + split, sizeof(session) - 1 - split, &seen);
        buf_byte(&seen, '\0');
        assert_string_equal(seen.data,
                            "pong;sub halley:room:{room};message halley:room:{room} hello;"
                            "message halley:all ;pong;error ERR no;integer 42;"
                            "unsub halley:room:{room};type 0;");
        buf_fini(&seen);
        wire_fini(&wire);
    }
}

static void expect_error(const char *bytes, int expected)
{
    struct wire wire;
    assert_int_equal(wire_init(&wire, 1 << 20), 0);
    assert_int_equal(wire_feed(&wire, bytes, strlen(bytes)), 0);
    int result;
    while ((result = wire_next(&wire)) == 1)
        ;
    assert_int_equal(result, expected);
    if (result < 0)
        assert_true(strlen(wire.why) > 0);
    wire_fini(&wire);
}

static void replies_that_make_no_sense__are_protocol_errors(void **state)
{
    (void)state;
    expect_error("HTTP/1.1 400 Bad Request\r\n", WIRE_ERR_PROTOCOL);
    expect_error("*2147483647\r\n", WIRE_ERR_PROTOCOL);
    expect_error("*2\r\n*65535\r\n", WIRE_ERR_PROTOCOL);
    expect_error("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", WIRE_ERR_PROTOCOL);
    expect_error("$99999999999999999999\r\n", WIRE_ERR_PROTOCOL);
    expect_error("+OK\r\n*0\r\n*4\r\n$1\r\na\r\n$-1\r\n:5\r\n+x\r\n", 0);
}

static void print_value(const struct broker_value *value, struct buf *out)
{
    if (value->kind == BROKER_INTEGER)
        buf_printf(out, "%d ", (int)value->integer);
    else if (value->kind == BROKER_NIL)
        BUF_LIT(out, "nil ");
    else if (value->kind != BROKER_ARRAY)
        buf_printf(out, "%.*s ", (int)value->text.len, value->text.data);
    else
        BUF_LIT(out, "[ ");
    for (uint32_t i = 0; i < value->count; i++)
        print_value(&value->items[i], out);
    if (value->kind == BROKER_ARRAY)
        BUF_LIT(out, "] ");
}

static void nested_reply__is_whole_at_every_split(void **state)
{
    (void)state;
    static const char text[] = "*4\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nk\r\n$0\r\n\r\n:-7\r\n"
                               "*3\r\n*0\r\n$-1\r\n*-1\r\n-ERR x\r\n:1\r\n";
    for (size_t split = 0; split < sizeof(text); split++) {
        struct wire wire;
        struct buf seen = {0};
        assert_int_equal(wire_init(&wire, 1 << 20), 0);
        assert_int_equal(wire_feed(&wire, text, split), 0);
        while (wire_next(&wire) == 1)
            print_value(wire.reply, &seen);
        assert_int_equal(wire_feed(&wire, text + split, sizeof(text) - 1 - split), 0);
        while (wire_next(&wire) == 1)
            print_value(wire.reply, &seen);
        buf_byte(&seen, '\0');
        assert_string_equal(seen.data, "[ [ 1-0 [ k  ] ] -7 [ [ ] nil nil ] ERR x ] 1 ");
        buf_fini(&seen);
        wire_fini(&wire);
    }
}

static void long_reply__is_read_and_its_memory_given_back(void **state)
{
    (void)state;
    struct wire wire;
    struct buf text = {0};
    assert_int_equal(wire_init(&wire, 1 << 20), 0);
    buf_printf(&text, "*%d\r\n", WIRE_VALUES_MAX - 1);
    for (int i = 1; i < WIRE_VALUES_MAX; i++)
        buf_printf(&text, ":%d\r\n", i);
    assert_int_equal(wire_feed(&wire, text.data, text.len), 0);
    assert_int_equal(wire_next(&wire), 1);
    assert_int_equal(wire.reply->count, WIRE_VALUES_MAX - 1);
    assert_int_equal(wire.reply->items[WIRE_VALUES_MAX - 2].integer, WIRE_VALUES_MAX - 1);
    assert_int_equal(wire_next(&wire), 0);
    assert_int_equal(wire.cap, 0);
    buf_fini(&text);
    wire_fini(&wire);
}

static void unfinished_reply_past_the_bound__is_an_error(void **state)
{
    (void)state;
    struct wire wire;
    char data[600] = "$100000\r\n";
    assert_int_equal(wire_init(&wire, 1000), 0);
    assert_int_equal(wire_feed(&wire, data, sizeof(data)), 0);
    assert_int_equal(wire_next(&wire), 0);
    assert_int_equal(wire_feed(&wire, data, 400), 0);
    assert_int_equal(wire_feed(&wire, data, 2), WIRE_ERR_TOO_LONG);
    wire_fini(&wire);
}

static void command__is_an_array_of_bulk_strings(void **state)
{
    (void)state;
    struct buf out = {0};
    wire_command_start(&out, 2);
    wire_command_arg(&out, BYTES_LIT("ECHO"));
    wire_command_arg(&out, BYTES_LIT("a\r\n\0b"));
    assert_true(bytes_equal(buf_view(&out), BYTES_LIT("*2\r\n$4\r\nECHO\r\n$5\r\na\r\n\0b\r\n")));
    buf_fini(&out);
}

static void names__are_made_and_taken_apart(void **state)
{
    (void)state;
    struct redis_names names;
    char text[REDIS_CHANNEL_MAX];
    enum broker_channel channel;
    struct bytes room;
    redis_names_init(&names, "halley", "n1");
    struct bytes name = redis_names_channel(&names, BROKER_ROOM, BYTES_LIT("42"), text);
    assert_true(bytes_is(name, "halley:room:{42}"));
    assert_true(redis_names_parse(&names, name, &channel, &room));
    assert_int_equal(channel, BROKER_ROOM);
    assert_true(bytes_is(room, "42"));
    name = redis_names_channel(&names, BROKER_HIGH, BYTES_LIT("a:b"), text);
    assert_true(bytes_is(name, "halley:high:{a:b}"));
    assert_true(redis_names_parse(&names, name, &channel, &room));
    assert_int_equal(channel, BROKER_HIGH);
    name = redis_names_channel(&names, BROKER_ALL, BYTES_LIT(""), text);
    assert_true(bytes_is(name, "halley:all"));
    assert_true(redis_names_parse(&names, name, &channel, &room));
    assert_int_equal(channel, BROKER_ALL);
    assert_int_equal(room.len, 0);
    name = redis_names_channel(&names, BROKER_USERS, BYTES_LIT(""), text);
    assert_true(bytes_is(name, "halley:users"));
    assert_true(redis_names_parse(&names, name, &channel, &room));
    assert_int_equal(channel, BROKER_USERS);
    name = redis_names_channel(&names, BROKER_NODE, BYTES_LIT("n1"), text);
    assert_true(bytes_is(name, "halley:node:n1"));
    assert_true(redis_names_parse(&names, name, &channel, &room));
    assert_int_equal(channel, BROKER_NODE);
    assert_int_equal(room.len, 0);
    static const char *const strangers[] = {"",
                                            "halley:node:n2",
                                            "halley:node:",
                                            "halley:room:{}",
                                            "halley:room:{a",
                                            "halley:rooms",
                                            "halley:all2",
                                            "other:room:{a}",
                                            "halley:room:{"};
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++)
        assert_false(redis_names_parse(&names, bytes_str(strangers[i]), &channel, &room));
}

static void longest_names__fit(void **state)
{
    (void)state;
    struct redis_names names;
    char prefix[CONF_ADDRESS_MAX];
    char node[ROOM_NAME_MAX + 1] = "";
    char room[ROOM_NAME_MAX];
    char text[REDIS_CHANNEL_MAX];
    enum broker_channel channel;
    struct bytes parsed;
    memset(prefix, 'p', sizeof(prefix) - 1);
    prefix[sizeof(prefix) - 1] = '\0';
    memset(room, 'r', sizeof(room));
    memset(node, 'n', ROOM_NAME_MAX);
    redis_names_init(&names, prefix, node);
    struct bytes name =
        redis_names_channel(&names, BROKER_HIGH, bytes_of(room, sizeof(room)), text);
    assert_int_equal(name.len, 63 + 7 + 64 + 1);
    assert_true(redis_names_parse(&names, name, &channel, &parsed));
    assert_true(bytes_equal(parsed, bytes_of(room, sizeof(room))));
    name = redis_names_channel(&names, BROKER_NODE, bytes_str(node), text);
    assert_int_equal(name.len, 63 + 6 + 64);
    assert_true(redis_names_parse(&names, name, &channel, &parsed));
    assert_int_equal(channel, BROKER_NODE);
}

static void pending__keeps_order_over_wraps_and_growth(void **state)
{
    (void)state;
    struct redis_pending pending = {0};
    uint64_t in = 0;
    uint64_t out = 0;
    struct redis_pending_entry entry = {0};
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 37; i++) {
            entry = (struct redis_pending_entry){.token = in, .since_ms = 1000 + in};
            assert_int_equal(redis_pending_push(&pending, &entry), 0);
            in++;
        }
        for (int i = 0; i < 30; i++) {
            assert_true(redis_pending_shift(&pending, &entry));
            assert_int_equal(entry.token, out++);
        }
    }
    assert_int_equal(pending.count, 1400);
    assert_int_equal(redis_pending_age_ms(&pending, 1000 + out + 7), 7);
    while (redis_pending_shift(&pending, &entry))
        assert_int_equal(entry.token, out++);
    assert_int_equal(in, out);
    assert_int_equal(redis_pending_age_ms(&pending, 5), 0);
    redis_pending_fini(&pending);
}

int test_wire(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_at_every_split__read_the_same),
        cmocka_unit_test(replies_that_make_no_sense__are_protocol_errors),
        cmocka_unit_test(nested_reply__is_whole_at_every_split),
        cmocka_unit_test(long_reply__is_read_and_its_memory_given_back),
        cmocka_unit_test(unfinished_reply_past_the_bound__is_an_error),
        cmocka_unit_test(command__is_an_array_of_bulk_strings),
        cmocka_unit_test(names__are_made_and_taken_apart),
        cmocka_unit_test(longest_names__fit),
        cmocka_unit_test(pending__keeps_order_over_wraps_and_growth),
    };
    return cmocka_run_group_tests_name("broker wire", tests, NULL, NULL);
}
