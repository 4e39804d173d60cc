#include "protocol/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct intent parse(const char *text)
{
    return parse_text(&adapter_native, text);
}

static void parse__join(void **state)
{
    (void)state;
    struct intent intent = parse(" {\"op\":\"join\",\"room\":\"42\",\"ref\":1} ");
    assert_int_equal(intent.op, INTENT_JOIN);
    expect_bytes(intent.room, "42");
    assert_true(intent.ref.present);
    assert_int_equal(intent.ref.value, 1);
    assert_false(intent.has_after);
    intent = parse("{\"op\":\"join\",\"room\":\"a\",\"after\":[\"h.x.9\",\"n.x.1\"]}");
    assert_int_equal(intent.op, INTENT_JOIN);
    assert_true(intent.has_after);
    assert_false(intent.ref.present);
    intent = parse("{\"op\":\"join\",\"room\":\"a\",\"after\":[]}");
    assert_int_equal(intent.op, INTENT_JOIN);
}

static void parse__send(void **state)
{
    (void)state;
    struct intent intent =
        parse("{\"op\":\"send\",\"room\":\"42\",\"type\":\"chat\","
              "\"data\":{\"a\": 1e2},\"key\":\"c0:ffee\",\"ref\":9007199254740991}");
    assert_int_equal(intent.op, INTENT_SEND);
    expect_bytes(intent.room, "42");
    expect_bytes(intent.type, "chat");
    assert_int_equal(intent.data.kind, JSON_OBJECT);
    expect_bytes(intent.data.raw, "{\"a\": 1e2}");
    expect_bytes(intent.key, "c0:ffee");
    assert_true(intent.ref.value == 9007199254740991u);
    intent = parse("{\"op\":\"send\",\"room\":\"42\",\"type\":\"chat\"}");
    assert_int_equal(intent.op, INTENT_SEND);
    assert_int_equal(intent.data.kind, JSON_ABSENT);
    assert_int_equal(intent.key.len, 0);
}

static void parse__the_other_ops(void **state)
{
    (void)state;
    struct intent intent = parse("{\"op\":\"leave\",\"room\":\"42\",\"unknown\":[]}");
    assert_int_equal(intent.op, INTENT_LEAVE);
    expect_bytes(intent.room, "42");
    intent = parse("{\"op\":\"pace\",\"mode\":\"passive\"}");
    assert_int_equal(intent.op, INTENT_PACE);
    assert_true(intent.passive);
    intent = parse("{\"op\":\"pace\",\"mode\":\"active\"}");
    assert_int_equal(intent.op, INTENT_PACE);
    assert_false(intent.passive);
    intent = parse("{\"op\":\"refresh\",\"ticket\":\"abc\"}");
    assert_int_equal(intent.op, INTENT_REFRESH);
    expect_bytes(intent.ticket, "abc");
    intent = parse("{\"op\":\"ping\",\"ref\":0}");
    assert_int_equal(intent.op, INTENT_PING);
    assert_true(intent.ref.present);
}

static void parse__unescapes_names(void **state)
{
    (void)state;
    struct intent intent = parse("{\"\\u006fp\":\"s\\u0065nd\",\"room\":\"\\u0034\\u0032\","
                                 "\"type\":\"ch\\u0061t\",\"key\":\"\\u006b\"}");
    assert_int_equal(intent.op, INTENT_SEND);
    assert_true(bytes_is(bytes_of(intent.room_text, intent.room.len), "42"));
    assert_true(bytes_is(bytes_of(intent.type_text, intent.type.len), "chat"));
    assert_true(bytes_is(bytes_of(intent.key_text, intent.key.len), "k"));
    intent = parse("{\"op\":\"refresh\",\"ticket\":\"a\\/b\"}");
    assert_true(bytes_is(bytes_of(intent.ticket_text, intent.ticket.len), "a/b"));
}

static void parse__what_cannot_be_read_is_counted(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "hello",
                                      "[]",
                                      "{\"op\":\"ping\"",
                                      "{\"op\":\"ping\"}}",
                                      "{\"op\":\"ping\",\"x\":[[[[[[[[]]]]]]]]}",
                                      "{\"op\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse(bad[i]);
        expect_unreadable(&intent);
        assert_false(intent.ref.present);
        assert_int_equal(intent.fatal_close, 0);
    }
    struct intent intent = parse("{\"op\":\"ping\",\"x\":[[[[[[[]]]]]]]}");
    assert_int_equal(intent.op, INTENT_PING);
}

static void parse__bad_messages_keep_their_ref(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"ref\":5}",
        "{\"ref\":5,\"op\":null}",
        "{\"ref\":5,\"op\":\"shout\"}",
        "{\"ref\":5,\"op\":\"a name much longer than \\u0061ny op\"}",
        "{\"ref\":5,\"op\":\"join\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\",\"type\":\"chat\",\"key\":\"\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\",\"type\":\"chat\",\"key\":\"a b\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\",\"type\":\"chat\",\"key\":7}",
        "{\"ref\":5,\"op\":\"join\",\"room\":\"42\",\"after\":\"n.x.1\"}",
        "{\"ref\":5,\"op\":\"join\",\"room\":\"42\",\"after\":[1]}",
        "{\"ref\":5,\"op\":\"join\",\"room\":\"42\",\"after\":"
        "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
        "{\"ref\":5,\"op\":\"pace\"}",
        "{\"ref\":5,\"op\":\"pace\",\"mode\":\"lazy\"}",
        "{\"ref\":5,\"op\":\"refresh\"}",
        "{\"ref\":5,\"op\":\"refresh\",\"ticket\":\"\"}",
        "{\"ref\":5,\"op\":\"refresh\",\"ticket\":7}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse(bad[i]);
        expect_refused(&intent, ERROR_BAD_MESSAGE);
        assert_true(intent.ref.present);
        assert_int_equal(intent.ref.value, 5);
    }
}

static void parse__a_bad_ref_is_not_echoed(void **state)
{
    (void)state;
    static const char *const bad[] = {"-1",  "1.5",  "1e3", "\"1\"",           "null",
                                      "[1]", "true", "{}",  "9007199254740992"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buf text = {0};
        buf_printf(&text, "{\"op\":\"ping\",\"ref\":%s}", bad[i]);
        buf_byte(&text, 0);
        struct intent intent = parse(text.data);
        expect_refused(&intent, ERROR_BAD_MESSAGE);
        assert_false(intent.ref.present);
        buf_fini(&text);
    }
}

static void parse__names_that_are_none_are_bad_names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"ref\":5,\"op\":\"join\",\"room\":\"\"}",
        "{\"ref\":5,\"op\":\"join\",\"room\":42}",
        "{\"ref\":5,\"op\":\"join\",\"room\":\"a b\"}",
        "{\"ref\":5,\"op\":\"join\",\"room\":\"a\\u0000\"}",
        "{\"ref\":5,\"op\":\"leave\",\"room\":"
        "\"12345678901234567890123456789012345678901234567890123456789012345\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"{x}\",\"type\":\"chat\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\",\"type\":\"Chat\"}",
        "{\"ref\":5,\"op\":\"send\",\"room\":\"42\",\"type\":\"halley\"}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse(bad[i]);
        expect_refused(&intent, ERROR_BAD_NAME);
        assert_true(intent.ref.present);
    }
}

static void opening__is_welcome(void **state)
{
    (void)state;
    struct buf out = {0};
    struct opening opening = {.connection = BYTES_LIT("c1"),
                              .user = BYTES_LIT("alice"),
                              .node = BYTES_LIT("n\"1"),
                              .interval_ms = 25000,
                              .timeout_ms = 60000,
                              .frame_bytes = 1396};
    adapter_native.append_opening(&out, &opening);
    expect_frames(
        &out,
        "{\"op\":\"welcome\",\"connection\":\"c1\",\"user\":\"alice\",\"node\":\"n\\\"1\","
        "\"heartbeat\":{\"interval_ms\":25000,\"timeout_ms\":60000},\"frame_bytes\":1396}",
        NULL);
    opening.frame_bytes = 0;
    adapter_native.append_opening(&out, &opening);
    expect_frames(
        &out,
        "{\"op\":\"welcome\",\"connection\":\"c1\",\"user\":\"alice\",\"node\":\"n\\\"1\","
        "\"heartbeat\":{\"interval_ms\":25000,\"timeout_ms\":60000}}",
        NULL);
}

static void expect_message(struct message *message, const char *expected)
{
    struct buf out = {0};
    adapter_native.append_message(&out, message);
    expect_frames(&out, expected, NULL);
    message_unref(message);
}

static void message__leaves_out_what_is_empty(void **state)
{
    (void)state;
    expect_message(make_message(MESSAGE_ROOM, "42", "chat", "alice", "n.1", "{\"t\":0.10}"),
                   "{\"type\":\"chat\",\"room\":\"42\",\"id\":\"n.1\",\"from\":\"alice\","
                   "\"data\":{\"t\":0.10}}");
    expect_message(make_message(MESSAGE_ROOM, "42", "like", NULL, NULL, NULL),
                   "{\"type\":\"like\",\"room\":\"42\"}");
    expect_message(make_message(MESSAGE_ROOM, "42", "like", NULL, NULL, "7"),
                   "{\"type\":\"like\",\"room\":\"42\",\"data\":7}");
    expect_message(make_message(MESSAGE_ALL, "42", "system", NULL, "h.1", "[]"),
                   "{\"type\":\"system\",\"id\":\"h.1\",\"data\":[]}");
}

static void message__of_any_length_is_one_frame(void **state)
{
    (void)state;
    static const size_t lengths[] = {90, 91, 92, 93, 94, 95, 96, 65500, 65501, 65502, 65503, 70000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char *data = malloc(lengths[i] + 1);
        assert_non_null(data);
        memset(data, '1', lengths[i]);
        data[lengths[i]] = 0;
        struct buf expected = {0};
        buf_printf(&expected, "{\"type\":\"chat\",\"room\":\"42\",\"data\":%s}", data);
        buf_byte(&expected, 0);
        expect_message(make_message(MESSAGE_ROOM, "42", "chat", NULL, NULL, data), expected.data);
        buf_fini(&expected);
        free(data);
    }
}

static void message__a_gap_is_a_notice(void **state)
{
    (void)state;
    struct message *gap = make_message(MESSAGE_GAP, "42", NULL, NULL, NULL, NULL);
    gap->lane = LANE_HIGH;
    expect_message(gap, "{\"op\":\"gap\",\"room\":\"42\",\"lane\":\"high\"}");
    gap = make_message(MESSAGE_GAP, NULL, NULL, NULL, NULL, NULL);
    gap->lane = LANE_LOW;
    gap->no_join = true;
    expect_message(gap, "{\"op\":\"gap\",\"lane\":\"low\",\"join\":false}");
}

static void message__an_online_count_is_a_notice(void **state)
{
    (void)state;
    struct message *online = make_message(MESSAGE_ONLINE, "42", NULL, NULL, NULL, NULL);
    online->online = 1240;
    expect_message(online, "{\"op\":\"online\",\"room\":\"42\",\"online\":1240}");
}

static void expect_reply(struct reply reply, const char *expected)
{
    struct buf out = {0};
    adapter_native.append_reply(&out, &reply);
    expect_frames(&out, expected, NULL);
}

static void reply__joined_and_ack(void **state)
{
    (void)state;
    struct intent_ref one = {true, 1};
    struct bytes room = BYTES_LIT("42");
    expect_reply(
        (struct reply){REPLY_JOINED, .ref = one, .room = room, .online_known = true, .online = 9},
        "{\"op\":\"joined\",\"room\":\"42\",\"ref\":1,\"online\":9}");
    expect_reply((struct reply){REPLY_JOINED, .room = room}, "{\"op\":\"joined\",\"room\":\"42\"}");
    expect_reply((struct reply){REPLY_ACK, .ref = {true, 0}}, "{\"op\":\"ack\",\"ref\":0}");
    expect_reply((struct reply){.kind = REPLY_ACK}, NULL);
}

static void reply__error(void **state)
{
    (void)state;
    expect_reply((struct reply){REPLY_ERROR, .ref = {true, 9007199254740991u},
                                .error_code = ERROR_RATE_LIMITED, .text = "too many",
                                .retry_after_ms = 500},
                 "{\"op\":\"error\",\"ref\":9007199254740991,\"code\":\"rate-limited\","
                 "\"message\":\"too many\",\"retry_after_ms\":500}");
    expect_reply((struct reply){REPLY_ERROR, .room = BYTES_LIT("a\"b"),
                                .error_code = ERROR_BAD_NAME, .text = "say \"what\""},
                 "{\"op\":\"error\",\"room\":\"a\\\"b\",\"code\":\"bad-name\","
                 "\"message\":\"say \\\"what\\\"\"}");
}

static void reply__pong(void **state)
{
    (void)state;
    struct reply reply = {REPLY_PONG, .ref = {true, 6}, .time_ms = 1700000000000};
    expect_reply(reply, "{\"op\":\"pong\",\"ref\":6,\"time_ms\":1700000000000}");
    reply.ref.present = false;
    reply.room = BYTES_LIT("42");
    reply.online_rooms = BYTES_LIT("\"42\":1240,\"43\":7");
    reply.interval_ms = 25000;
    expect_reply(reply,
                 "{\"op\":\"pong\",\"time_ms\":1700000000000,\"online\":{\"42\":1240,\"43\":7},"
                 "\"heartbeat\":{\"interval_ms\":25000}}");
    reply.frame_bytes = 1444;
    expect_reply(reply,
                 "{\"op\":\"pong\",\"time_ms\":1700000000000,\"online\":{\"42\":1240,\"43\":7},"
                 "\"heartbeat\":{\"interval_ms\":25000},\"frame_bytes\":1444}");
}

static void notice__tells_what_happened(void **state)
{
    (void)state;
    struct buf out = {0};
    adapter_native.append_notice(&out, &(struct notice){NOTICE_SKIPPED, .room = BYTES_LIT("42"),
                                                        .lane = LANE_NORMAL, .count = 120});
    adapter_native.append_notice(&out, &(struct notice){NOTICE_GAP, .lane = LANE_HIGH});
    adapter_native.append_notice(
        &out, &(struct notice){NOTICE_GOODBYE, .reason = "drain", .retry_after_ms = 1830});
    adapter_native.append_notice(&out, &(struct notice){NOTICE_GOODBYE, .reason = "kicked"});
    expect_frames(&out, "{\"op\":\"skipped\",\"room\":\"42\",\"lane\":\"normal\",\"count\":120}",
                  "{\"op\":\"gap\",\"lane\":\"high\"}",
                  "{\"op\":\"goodbye\",\"reason\":\"drain\",\"retry_after_ms\":1830}",
                  "{\"op\":\"goodbye\",\"reason\":\"kicked\"}", NULL);
}

static void ping__is_a_websocket_ping(void **state)
{
    (void)state;
    struct buf out = {0};
    adapter_native.append_ping(&out);
    assert_int_equal(out.len, 2);
    assert_memory_equal(out.data, "\x89\0", 2);
    buf_fini(&out);
}

static void table__says_what_native_is(void **state)
{
    (void)state;
    assert_ptr_equal(adapter_of_encoding(ENCODING_NATIVE), &adapter_native);
    assert_string_equal(adapter_native.name, "native");
    assert_int_equal(adapter_native.heartbeat, HEARTBEAT_NATIVE);
    assert_true(adapter_native.binary_closes);
    assert_false(adapter_native.connect_expected);
    assert_null(adapter_native.append_connected);
    assert_null(adapter_native.append_engine_pong);
    assert_null(adapter_native.append_namespace_refused);
    assert_null(adapter_native.append_kicked);
}

/* Appends behind one byte that was there before; every allocation in turn fails. */
static void append__takes_back_what_memory_does_not_hold(void **state)
{
    (void)state;
    char data[3000];
    memset(data, '1', sizeof(data));
    struct message_parts parts = {.type = BYTES_LIT("chat"), .data = bytes_of(data, sizeof(data))};
    struct message *message = message_create(MESSAGE_ROOM, BYTES_LIT("42"), &parts);
    struct opening opening = {.user = bytes_of(data, 1000)};
    struct reply reply = {REPLY_ERROR, .room = bytes_of(data, 1000)};
    struct notice notice = {NOTICE_GAP, .room = bytes_of(data, 1000)};
    for (int which = 0; which < 4; which++) {
        struct buf out = {0};
        int n = 0;
        do {
            buf_fini(&out);
            buf_byte(&out, 'x');
            fail_allocation(n++);
            if (which == 0)
                adapter_native.append_message(&out, message);
            else if (which == 1)
                adapter_native.append_opening(&out, &opening);
            else if (which == 2)
                adapter_native.append_reply(&out, &reply);
            else
                adapter_native.append_notice(&out, &notice);
            fail_allocation(-1);
            assert_true(out.failed ? out.len == 1 : out.len > 1000);
        } while (out.failed);
        assert_true(n > 1);
        buf_fini(&out);
    }
    message_unref(message);
}

int run_native_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__join),
        cmocka_unit_test(parse__send),
        cmocka_unit_test(parse__the_other_ops),
        cmocka_unit_test(parse__unescapes_names),
        cmocka_unit_test(parse__what_cannot_be_read_is_counted),
        cmocka_unit_test(parse__bad_messages_keep_their_ref),
        cmocka_unit_test(parse__a_bad_ref_is_not_echoed),
        cmocka_unit_test(parse__names_that_are_none_are_bad_names),
        cmocka_unit_test(opening__is_welcome),
        cmocka_unit_test(message__leaves_out_what_is_empty),
        cmocka_unit_test(message__of_any_length_is_one_frame),
        cmocka_unit_test(message__a_gap_is_a_notice),
        cmocka_unit_test(message__an_online_count_is_a_notice),
        cmocka_unit_test(reply__joined_and_ack),
        cmocka_unit_test(reply__error),
        cmocka_unit_test(reply__pong),
        cmocka_unit_test(notice__tells_what_happened),
        cmocka_unit_test(ping__is_a_websocket_ping),
        cmocka_unit_test(table__says_what_native_is),
        cmocka_unit_test(append__takes_back_what_memory_does_not_hold),
    };
    return cmocka_run_group_tests_name("native", tests, NULL, NULL);
}
