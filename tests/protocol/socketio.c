#include "protocol/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

static struct intent parse3(const char *text)
{
    return parse_text(&adapter_engineio3, text);
}

static struct intent parse4(const char *text)
{
    return parse_text(&adapter_engineio4, text);
}

static void emit__join_takes_a_name_or_an_object(void **state)
{
    (void)state;
    struct intent intent = parse4("420[\"join\",\"room-1\"]");
    assert_int_equal(intent.op, INTENT_JOIN);
    expect_bytes(intent.room, "room-1");
    assert_true(intent.ref.present);
    assert_int_equal(intent.ref.value, 0);
    intent =
        parse3("42[\"join\",{\"room\":\"42\",\"after\":[\"n.x.1\"],\"op\":\"send\",\"ref\":-1}]");
    assert_int_equal(intent.op, INTENT_JOIN);
    expect_bytes(intent.room, "42");
    assert_true(intent.has_after);
    assert_false(intent.ref.present);
    intent = parse3("4217[\"leave\",\"4\\u0032\",{},1,2,3,4,5]");
    assert_int_equal(intent.op, INTENT_LEAVE);
    assert_true(bytes_is(bytes_of(intent.room_text, intent.room.len), "42"));
    assert_int_equal(intent.ref.value, 17);
    intent = parse4("42/,[\"join\",\"42\"]");
    assert_int_equal(intent.op, INTENT_JOIN);
}

static void emit__send_pace_refresh(void **state)
{
    (void)state;
    struct intent intent =
        parse4("427[\"send\",{\"room\":\"42\",\"type\":\"chat\",\"data\":[0.1],\"key\":\"k\"}]");
    assert_int_equal(intent.op, INTENT_SEND);
    expect_bytes(intent.type, "chat");
    expect_bytes(intent.data.raw, "[0.1]");
    expect_bytes(intent.key, "k");
    assert_int_equal(intent.ref.value, 7);
    intent = parse4("42[\"pace\",{\"mode\":\"passive\"}]");
    assert_int_equal(intent.op, INTENT_PACE);
    assert_true(intent.passive);
    intent = parse4("42[\"refresh\",{\"ticket\":\"t\"}]");
    assert_int_equal(intent.op, INTENT_REFRESH);
    expect_bytes(intent.ticket, "t");
}

static void emit__what_is_wrong_is_told_to_the_callback(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "423[\"message\",\"hi\"]", "423[\"ping\",{}]",     "423[\"join\"]",    "423[\"join\",42]",
        "423[\"join\",[]]",        "423[\"send\",\"42\"]", "423[\"pace\",{}]", "423[\"join\",{}]",
        "423[\"send\",null,{}]",   "423[\"\\ud800\",{}]",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse4(bad[i]);
        expect_refused(&intent, ERROR_BAD_MESSAGE);
        assert_int_equal(intent.ref.value, 3);
    }
    struct intent intent = parse3("423[\"join\",\"a b\"]");
    expect_refused(&intent, ERROR_BAD_NAME);
    assert_int_equal(intent.ref.value, 3);
}

static void emit__events_can_be_renamed(void **state)
{
    (void)state;
    struct adapter_limits limits = test_limits;
    limits.join_event = BYTES_LIT("enterRoom");
    limits.leave_event = BYTES_LIT("exitRoom");
    struct intent intent;
    adapter_engineio3.parse(BYTES_LIT("42[\"enterRoom\",\"7\"]"), &limits, &intent);
    assert_int_equal(intent.op, INTENT_JOIN);
    adapter_engineio3.parse(BYTES_LIT("42[\"exitRoom\",\"7\"]"), &limits, &intent);
    assert_int_equal(intent.op, INTENT_LEAVE);
    adapter_engineio3.parse(BYTES_LIT("42[\"join\",\"7\"]"), &limits, &intent);
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    limits.join_event = (struct bytes){0};
    adapter_engineio3.parse(BYTES_LIT("42[\"join\",\"7\"]"), &limits, &intent);
    assert_int_equal(intent.op, INTENT_JOIN);
}

static void packet__what_cannot_be_read_is_counted(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0",
        "0{}",
        "7",
        "x",
        "{\"op\":\"ping\"}",
        "4",
        "47",
        "4x",
        "42",
        "423",
        "42{}",
        "42[",
        "42[]",
        "42[1]",
        "42[\"join\"",
        "42[{}]",
        "42[\"join\",\"a\"]x",
        "44",
        "45",
        "451",
        "45-[\"a\"]",
        "4x1-[]",
        "42[\"send\",[[[[[[[[]]]]]]]]]",
        "46[]",
        "42\"a\"",
        "42-1[\"join\",\"a\"]",
        "429007199254740992[\"join\",\"a\"]",
        "4299999999999999999999[\"join\",\"a\"]",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse4(bad[i]);
        expect_unreadable(&intent);
        assert_int_equal(intent.fatal_close, 0);
        intent = parse3(bad[i]);
        expect_unreadable(&intent);
    }
}

static void packet__binary_events_are_refused_and_acks_ignored(void **state)
{
    (void)state;
    struct intent intent = parse4("451-[\"message\",{\"b\":{\"_placeholder\":true,\"num\":0}}]");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    assert_false(intent.ref.present);
    intent = parse3("452-12[\"message\",{}]");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    assert_int_equal(intent.ref.value, 12);
    intent = parse4("461-5[{}]");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    assert_false(intent.ref.present);
    intent = parse3("431[\"yes\",42]");
    assert_int_equal(intent.op, INTENT_NONE);
}

static void packet__other_namespaces_are_refused(void **state)
{
    (void)state;
    struct intent intent = parse3("40/nope?ticket_id=T-0001,");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    expect_bytes(intent.namespace_, "/nope");
    intent = parse3("40/nope?ticket_id=T-0001");
    expect_bytes(intent.namespace_, "/nope");
    intent = parse4("40/nope,{\"token\":\"t\"}");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    expect_bytes(intent.namespace_, "/nope");
    intent = parse4("42/nope,3[\"join\",\"42\"]");
    expect_refused(&intent, ERROR_BAD_MESSAGE);
    assert_int_equal(intent.namespace_.len, 0);
    assert_false(intent.ref.present);
    assert_int_equal(parse3("41/custom").op, INTENT_NONE);
    assert_int_equal(parse3("43/custom,1[]").op, INTENT_NONE);
}

static void packet__a_namespace_that_cannot_be_echoed_is_unreadable(void **state)
{
    (void)state;
    static const char *const bad[] = {"40/a\"b,", "40/a\\b,", "40/a b,",
                                      "40/\x7f,", "40/\x01,", "40/\xe2\x98\x83,"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse4(bad[i]);
        expect_unreadable(&intent);
        assert_int_equal(intent.namespace_.len, 0);
    }
    char text[200] = "40/";
    memset(text + 3, 'n', 127);
    struct intent intent = parse4(text);
    assert_int_equal(intent.namespace_.len, 128);
    text[3 + 127] = 'n';
    intent = parse4(text);
    expect_unreadable(&intent);
}

static void engine3__client_pings(void **state)
{
    (void)state;
    struct intent intent = parse3("2");
    assert_int_equal(intent.op, INTENT_ENGINE_PING);
    assert_int_equal(intent.engine_data.len, 0);
    intent = parse3("2probe");
    assert_int_equal(intent.op, INTENT_ENGINE_PING);
    expect_bytes(intent.engine_data, "probe");
    char text[128] = "2";
    memset(text + 1, 'p', 125);
    intent = parse3(text);
    assert_int_equal(intent.op, INTENT_ENGINE_PING);
    assert_int_equal(intent.engine_data.len, 125);
    text[126] = 'p';
    intent = parse3(text);
    expect_unreadable(&intent);
}

static void engine3__ignores_what_means_nothing(void **state)
{
    (void)state;
    static const char *const ignored[] = {"3",   "3probe",   "40", "40{\"token\":\"t\"}",
                                          "40/", "40/?x=1,", "5",  "6"};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        assert_int_equal(parse3(ignored[i]).op, INTENT_NONE);
    assert_int_equal(parse3("41").op, INTENT_DISCONNECT);
    assert_int_equal(parse3("1").op, INTENT_DISCONNECT);
}

static void engine4__heartbeat_is_the_servers(void **state)
{
    (void)state;
    assert_int_equal(parse4("3").op, INTENT_ENGINE_PONG);
    struct intent intent = parse4("2");
    assert_int_equal(intent.op, INTENT_BAD);
    assert_int_equal(intent.fatal_close, 1002);
    assert_int_equal(parse4("2probe").fatal_close, 1002);
    assert_int_equal(parse4("5").op, INTENT_NONE);
    assert_int_equal(parse4("6").op, INTENT_NONE);
    assert_int_equal(parse4("41").op, INTENT_DISCONNECT);
    assert_int_equal(parse4("1").op, INTENT_DISCONNECT);
}

static void engine4__connect_may_carry_a_ticket(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *ticket;
    } cases[] = {
        {"40", ""},
        {"40{}", ""},
        {"40/,{\"token\":\"t1\"}", "t1"},
        {"40{\"token\":\"t1\"}", "t1"},
        {"40{\"ticket_id\":\"t2\"}", "t2"},
        {"40{\"ticket_id\":\"t2\",\"token\":\"t1\"}", "t1"},
        {"40{\"ticket_id\":\"t2\",\"token\":null}", "t2"},
        {"40{\"token\":7}", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct intent intent = parse4(cases[i].text);
        assert_int_equal(intent.op, INTENT_CONNECT);
        expect_bytes(intent.ticket, cases[i].ticket);
    }
    static const char *const bad[] = {"40[]", "40null", "40\"t\"", "40{", "40{\"token\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct intent intent = parse4(bad[i]);
        expect_unreadable(&intent);
    }
}

/* The client waits for an answer to its CONNECT, whatever the ticket is written like. */
static void engine4__connect_with_escapes_in_its_ticket(void **state)
{
    (void)state;
    char text[2 * JWT_BYTES_MAX + 32];
    char ticket[JWT_BYTES_MAX + 2];
    static const size_t lengths[] = {1, 64, 65, 256, JWT_BYTES_MAX, JWT_BYTES_MAX + 1};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t at = (size_t)snprintf(text, sizeof(text), "40{\"token\":\"");
        for (size_t n = 0; n < lengths[i]; n++) {
            memcpy(text + at, "\\/", 2);
            at += 2;
            ticket[n] = '/';
        }
        ticket[lengths[i] <= JWT_BYTES_MAX ? lengths[i] : 0] = '\0';
        snprintf(text + at, sizeof(text) - at, "\"}");
        struct intent intent = parse4(text);
        assert_int_equal(intent.op, INTENT_CONNECT);
        expect_bytes(bytes_of(intent.ticket_text, intent.ticket.len), ticket);
    }
    struct intent intent = parse4("40{\"token\":\"\\ud800\"}");
    assert_int_equal(intent.op, INTENT_CONNECT);
    assert_int_equal(intent.ticket.len, 0);
}

static void opening__is_as_recorded(void **state)
{
    (void)state;
    struct buf out = {0};
    struct opening opening = {.connection = BYTES_LIT("PXSP7c8qv1LwAAUpAAAH"),
                              .user = BYTES_LIT("alice"),
                              .interval_ms = 1000,
                              .timeout_ms = 2000,
                              .max_payload = 1000000};
    adapter_engineio3.append_opening(&out, &opening);
    expect_frames(&out,
                  "0{\"sid\":\"PXSP7c8qv1LwAAUpAAAH\",\"upgrades\":[],\"pingInterval\":1000,"
                  "\"pingTimeout\":2000}",
                  "40", NULL);
    adapter_engineio4.append_opening(&out, &opening);
    expect_frames(&out,
                  "0{\"sid\":\"PXSP7c8qv1LwAAUpAAAH\",\"upgrades\":[],\"pingInterval\":1000,"
                  "\"pingTimeout\":2000,\"maxPayload\":1000000}",
                  NULL);
    adapter_engineio4.append_connected(&out, &opening);
    expect_frames(&out, "40{\"sid\":\"PXSP7c8qv1LwAAUpAAAH\"}", NULL);
}

static void expect_message(struct message *message, const char *expected)
{
    struct buf out = {0};
    adapter_engineio3.append_message(&out, message);
    adapter_engineio4.append_message(&out, message);
    expect_frames(&out, expected, expected, NULL);
    message_unref(message);
}

static void message__is_an_event_with_one_argument(void **state)
{
    (void)state;
    expect_message(make_message(MESSAGE_ROOM, "42", "chat", "alice", "n.1", "{\"t\":0.10}"),
                   "42[\"chat\",{\"room\":\"42\",\"id\":\"n.1\",\"from\":\"alice\","
                   "\"data\":{\"t\":0.10}}]");
    expect_message(make_message(MESSAGE_ROOM, "42", "like", NULL, NULL, NULL),
                   "42[\"like\",{\"room\":\"42\"}]");
    expect_message(make_message(MESSAGE_ALL, "42", "system", NULL, NULL, "[]"),
                   "42[\"system\",{\"data\":[]}]");
    expect_message(make_message(MESSAGE_ALL, NULL, "system", "bob", NULL, NULL),
                   "42[\"system\",{\"from\":\"bob\"}]");
    expect_message(make_message(MESSAGE_ALL, NULL, "system", NULL, NULL, NULL),
                   "42[\"system\",{}]");
    struct message *gap = make_message(MESSAGE_GAP, "42", NULL, NULL, NULL, NULL);
    gap->lane = LANE_HIGH;
    expect_message(gap, "42[\"halley\",{\"op\":\"gap\",\"room\":\"42\",\"lane\":\"high\"}]");
    struct message *online = make_message(MESSAGE_ONLINE, "42", NULL, NULL, NULL, NULL);
    online->online = 7;
    expect_message(online, "42[\"halley\",{\"op\":\"online\",\"room\":\"42\",\"online\":7}]");
}

static void expect_reply(struct reply reply, const char *expected)
{
    struct buf out = {0};
    adapter_engineio3.append_reply(&out, &reply);
    expect_frames(&out, expected, NULL);
    adapter_engineio4.append_reply(&out, &reply);
    expect_frames(&out, expected, NULL);
}

static void reply__with_a_callback_is_an_acknowledgement(void **state)
{
    (void)state;
    struct intent_ref ref = {true, 13};
    struct reply joined = {REPLY_JOINED, .ref = ref, .room = BYTES_LIT("42")};
    expect_reply(joined, "4313[{\"ok\":true,\"room\":\"42\"}]");
    joined.online_known = true;
    joined.online = 5;
    expect_reply(joined, "4313[{\"ok\":true,\"room\":\"42\",\"online\":5}]");
    expect_reply((struct reply){REPLY_ACK, .ref = {true, 0}}, "430[{\"ok\":true}]");
    expect_reply((struct reply){REPLY_ERROR, .ref = ref, .error_code = ERROR_RATE_LIMITED,
                                .text = "too many", .retry_after_ms = 500},
                 "4313[{\"ok\":false,\"code\":\"rate-limited\",\"message\":\"too many\","
                 "\"retry_after_ms\":500}]");
}

static void reply__without_a_callback_is_an_event_or_nothing(void **state)
{
    (void)state;
    expect_reply((struct reply){REPLY_JOINED, .room = BYTES_LIT("42")},
                 "42[\"halley\",{\"op\":\"joined\",\"room\":\"42\"}]");
    expect_reply((struct reply){REPLY_ERROR, .error_code = ERROR_BAD_NAME, .text = "x"},
                 "42[\"halley\",{\"op\":\"error\",\"code\":\"bad-name\",\"message\":\"x\"}]");
    expect_reply((struct reply){.kind = REPLY_ACK}, NULL);
    expect_reply((struct reply){REPLY_PONG, .time_ms = 1}, NULL);
}

static void notice__is_the_event_halley(void **state)
{
    (void)state;
    struct buf out = {0};
    struct notice skipped = {NOTICE_SKIPPED, .room = BYTES_LIT("42"), .lane = LANE_LOW, .count = 3};
    adapter_engineio4.append_notice(&out, &skipped);
    adapter_engineio3.append_notice(&out, &(struct notice){NOTICE_GOODBYE, .reason = "drain"});
    expect_frames(
        &out, "42[\"halley\",{\"op\":\"skipped\",\"room\":\"42\",\"lane\":\"low\",\"count\":3}]",
        "42[\"halley\",{\"op\":\"goodbye\",\"reason\":\"drain\"}]", NULL);
}

static void packets__of_the_server(void **state)
{
    (void)state;
    struct buf out = {0};
    adapter_engineio3.append_engine_pong(&out, BYTES_LIT("probe"));
    adapter_engineio3.append_engine_pong(&out, (struct bytes){0});
    adapter_engineio4.append_ping(&out);
    adapter_engineio3.append_kicked(&out);
    adapter_engineio4.append_kicked(&out);
    expect_frames(&out, "3probe", "3", "2", "41", "41", NULL);
    adapter_engineio3.append_namespace_refused(&out, BYTES_LIT("/nope"));
    adapter_engineio4.append_namespace_refused(&out, BYTES_LIT("/nope"));
    adapter_engineio4.append_namespace_refused(&out, BYTES_LIT("/a\"b"));
    expect_frames(&out, "44/nope,\"Invalid namespace\"",
                  "44/nope,{\"message\":\"Invalid namespace\"}", NULL);
}

static void table__says_what_engineio_is(void **state)
{
    (void)state;
    assert_string_equal(adapter_engineio3.name, "engineio3");
    assert_string_equal(adapter_engineio4.name, "engineio4");
    assert_int_equal(adapter_of_encoding(ENCODING_SOCKETIO)->encoding, ENCODING_SOCKETIO);
    assert_int_equal(adapter_engineio3.heartbeat, HEARTBEAT_CLIENT);
    assert_int_equal(adapter_engineio4.heartbeat, HEARTBEAT_SERVER);
    assert_false(adapter_engineio3.binary_closes || adapter_engineio4.binary_closes);
    assert_false(adapter_engineio3.connect_expected);
    assert_true(adapter_engineio4.connect_expected);
    assert_null(adapter_engineio3.append_connected);
    assert_null(adapter_engineio3.append_ping);
    assert_null(adapter_engineio4.append_engine_pong);
}

int run_socketio_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emit__join_takes_a_name_or_an_object),
        cmocka_unit_test(emit__send_pace_refresh),
        cmocka_unit_test(emit__what_is_wrong_is_told_to_the_callback),
        cmocka_unit_test(emit__events_can_be_renamed),
        cmocka_unit_test(packet__what_cannot_be_read_is_counted),
        cmocka_unit_test(packet__binary_events_are_refused_and_acks_ignored),
        cmocka_unit_test(packet__other_namespaces_are_refused),
        cmocka_unit_test(packet__a_namespace_that_cannot_be_echoed_is_unreadable),
        cmocka_unit_test(engine3__client_pings),
        cmocka_unit_test(engine3__ignores_what_means_nothing),
        cmocka_unit_test(engine4__heartbeat_is_the_servers),
        cmocka_unit_test(engine4__connect_may_carry_a_ticket),
        cmocka_unit_test(engine4__connect_with_escapes_in_its_ticket),
        cmocka_unit_test(opening__is_as_recorded),
        cmocka_unit_test(message__is_an_event_with_one_argument),
        cmocka_unit_test(reply__with_a_callback_is_an_acknowledgement),
        cmocka_unit_test(reply__without_a_callback_is_an_event_or_nothing),
        cmocka_unit_test(notice__is_the_event_halley),
        cmocka_unit_test(packets__of_the_server),
        cmocka_unit_test(table__says_what_engineio_is),
    };
    return cmocka_run_group_tests_name("socketio", tests, NULL, NULL);
}
