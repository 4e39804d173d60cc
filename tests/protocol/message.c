#include "protocol/message.h"
#include "base/map.h"
#include "protocol/history_id.h"
#include "protocol/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { DEPTH = 8 };

static int parse(const char *text, struct message_parts *parts)
{
    static struct message_scratch scratch;
    return envelope_parse(bytes_str(text), DEPTH, &scratch, parts);
}

static void envelope__gives_its_parts(void **state)
{
    (void)state;
    struct message_parts parts;
    assert_int_equal(
        parse(" {\"type\":\"chat\",\"data\": {\"x\":0.1, \"y\":1e2} ,\"from\":\"alice\","
              "\"id\":\"n.x7k2.7\",\"more\":[1]} ",
              &parts),
        ENVELOPE_OK);
    expect_bytes(parts.type, "chat");
    expect_bytes(parts.data, "{\"x\":0.1, \"y\":1e2}");
    expect_bytes(parts.from, "alice");
    expect_bytes(parts.id, "n.x7k2.7");
}

static void envelope__only_type_is_required(void **state)
{
    (void)state;
    struct message_parts parts;
    assert_int_equal(parse("{\"type\":\"like\"}", &parts), ENVELOPE_OK);
    expect_bytes(parts.type, "like");
    assert_int_equal(parts.data.len + parts.from.len + parts.id.len, 0);
    assert_int_equal(parse("{\"type\":\"like\",\"from\":null,\"id\":null,\"data\":null}", &parts),
                     ENVELOPE_OK);
    assert_int_equal(parts.from.len + parts.id.len, 0);
    expect_bytes(parts.data, "null");
}

static void envelope__names_may_be_escaped(void **state)
{
    (void)state;
    struct message_parts parts;
    assert_int_equal(
        parse("{\"type\":\"ch\\u0061t\",\"from\":\"a\\/b\",\"id\":\"\\u006e.1\"}", &parts),
        ENVELOPE_OK);
    expect_bytes(parts.type, "chat");
    expect_bytes(parts.from, "a/b");
    expect_bytes(parts.id, "n.1");
}

static void envelope__says_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int error;
    } cases[] = {
        {"", ENVELOPE_ERR_JSON},
        {"hello", ENVELOPE_ERR_JSON},
        {"[\"type\"]", ENVELOPE_ERR_JSON},
        {"{\"type\":\"chat\"", ENVELOPE_ERR_JSON},
        {"{\"type\":\"chat\",\"data\":\"\xff\"}", ENVELOPE_ERR_JSON},
        {"{\"type\":\"chat\",\"data\":[[[[[[[[]]]]]]]]}", ENVELOPE_ERR_JSON},
        {"{}", ENVELOPE_ERR_TYPE},
        {"{\"type\":null}", ENVELOPE_ERR_TYPE},
        {"{\"type\":7}", ENVELOPE_ERR_TYPE},
        {"{\"type\":\"\"}", ENVELOPE_ERR_TYPE},
        {"{\"type\":\"Chat\"}", ENVELOPE_ERR_TYPE},
        {"{\"type\":\"connect\"}", ENVELOPE_ERR_TYPE},
        {"{\"type\":\"a\\u0000\"}", ENVELOPE_ERR_TYPE},
        {"{\"type\":\"chat\",\"from\":7}", ENVELOPE_ERR_FROM},
        {"{\"type\":\"chat\",\"from\":\"\"}", ENVELOPE_ERR_FROM},
        {"{\"type\":\"chat\",\"from\":\"a\\\"b\"}", ENVELOPE_ERR_FROM},
        {"{\"type\":\"chat\",\"from\":\"\xe2\x98\x83\"}", ENVELOPE_ERR_FROM},
        {"{\"type\":\"chat\",\"id\":{}}", ENVELOPE_ERR_ID},
        {"{\"type\":\"chat\",\"id\":\"\\n\"}", ENVELOPE_ERR_ID},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct message_parts parts = {.type = BYTES_LIT("untouched")};
        int err = parse(cases[i].text, &parts);
        if (err != cases[i].error)
            fail_msg("%s: got %d, expected %d", cases[i].text, err, cases[i].error);
        expect_bytes(parts.type, "untouched");
        assert_true(strlen(envelope_error(err)) > 10);
    }
}

static void envelope__comes_back_as_it_was_appended(void **state)
{
    (void)state;
    struct message_parts parts = {BYTES_LIT("chat"), BYTES_LIT("al ice"), BYTES_LIT("n.x.1"),
                                  BYTES_LIT("{\"n\":18446744073709551615}")};
    struct buf out = {0};
    envelope_append(&out, &parts);
    expect_bytes(buf_view(&out), "{\"type\":\"chat\",\"data\":{\"n\":18446744073709551615},"
                                 "\"from\":\"al ice\",\"id\":\"n.x.1\"}");
    struct message_scratch scratch;
    struct message_parts back;
    assert_int_equal(envelope_parse(buf_view(&out), DEPTH, &scratch, &back), ENVELOPE_OK);
    assert_true(bytes_equal(back.data, parts.data) && bytes_equal(back.from, parts.from));
    buf_fini(&out);
    envelope_append(&out, &(struct message_parts){.type = BYTES_LIT("like")});
    expect_bytes(buf_view(&out), "{\"type\":\"like\"}");
    buf_fini(&out);
}

static void message__copies_everything(void **state)
{
    (void)state;
    char text[] = "42chatalicen.1{}";
    struct message_parts parts = {bytes_of(text + 2, 4), bytes_of(text + 6, 5),
                                  bytes_of(text + 11, 3), bytes_of(text + 14, 2)};
    struct message *message = message_create(MESSAGE_ROOM, bytes_of(text, 2), &parts);
    assert_non_null(message);
    memset(text, '#', sizeof(text));
    expect_bytes(message->room, "42");
    expect_bytes(message->type, "chat");
    expect_bytes(message->from, "alice");
    expect_bytes(message->id, "n.1");
    expect_bytes(message->data, "{}");
    assert_int_equal(message->kind, MESSAGE_ROOM);
    assert_int_equal(message->room_hash, map_hash("42", 2));
    message_unref(message);
}

static void message__lives_until_the_last_reference(void **state)
{
    (void)state;
    struct message *message = make_message(MESSAGE_ALL, NULL, "chat", NULL, NULL, NULL);
    assert_ptr_equal(message_ref(message), message);
    message_unref(message);
    expect_bytes(message->type, "chat");
    assert_int_equal(message->room.len + message->from.len + message->id.len + message->data.len,
                     0);
    message_unref(message);
    message_unref(NULL);
}

static void message__is_refused_where_memory_is_out(void **state)
{
    (void)state;
    struct message_parts parts = {.type = BYTES_LIT("chat")};
    fail_allocation(0);
    assert_null(message_create(MESSAGE_ROOM, BYTES_LIT("42"), &parts));
    fail_allocation(-1);
    parts.data = bytes_of("x", SIZE_MAX - 8);
    assert_null(message_create(MESSAGE_ROOM, BYTES_LIT("42"), &parts));
}

static void names__are_those_of_the_contract(void **state)
{
    (void)state;
    assert_string_equal(lane_name(LANE_HIGH), "high");
    assert_string_equal(lane_name(LANE_NORMAL), "normal");
    assert_string_equal(lane_name(LANE_LOW), "low");
    static const char *const codes[ERROR_CODE_COUNT] = {
        "bad-message",  "bad-name",     "too-large",      "not-in-room", "forbidden",
        "unknown-type", "rate-limited", "too-many-rooms", "unavailable", "duplicate"};
    for (int i = 0; i < ERROR_CODE_COUNT; i++)
        assert_string_equal(error_code_name((enum error_code)i), codes[i]);
}

static void history_id__reads_what_it_writes(void **state)
{
    (void)state;
    static const char *const ids[] = {"h.x7k2.90", "n.1.0", "l.zzzzzzzzzzzz.9007199254740991"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        enum lane lane;
        struct history_point point;
        char text[HISTORY_ID_MAX + 1];
        assert_true(history_id_parse(bytes_str(ids[i]), &lane, &point));
        assert_int_equal(lane, i);
        expect_bytes(history_id_format(lane, point, text), ids[i]);
    }
}

static void history_id__refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "n",
                                        "n.x7k2",
                                        "n.x7k2.",
                                        "x.x7k2.1",
                                        "n..1",
                                        "n.0x.1",
                                        "n.X7K2.1",
                                        "n.x7k2.01",
                                        "n.x7k2.a",
                                        "n.x7k2.1.2",
                                        "1700000000-0",
                                        "n x7k2.1",
                                        "n.zzzzzzzzzzzzz.1",
                                        "n.x7k2.9007199254740992",
                                        "n.x7k2.-1"};
    enum lane lane = LANE_LOW;
    struct history_point point = {7, 7};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_false(history_id_parse(bytes_str(texts[i]), &lane, &point));
    assert_int_equal(point.n, 7);
    assert_int_equal(lane, LANE_LOW);
}

int run_message_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(envelope__gives_its_parts),
        cmocka_unit_test(envelope__only_type_is_required),
        cmocka_unit_test(envelope__names_may_be_escaped),
        cmocka_unit_test(envelope__says_what_is_wrong),
        cmocka_unit_test(envelope__comes_back_as_it_was_appended),
        cmocka_unit_test(message__copies_everything),
        cmocka_unit_test(message__lives_until_the_last_reference),
        cmocka_unit_test(message__is_refused_where_memory_is_out),
        cmocka_unit_test(names__are_those_of_the_contract),
        cmocka_unit_test(history_id__reads_what_it_writes),
        cmocka_unit_test(history_id__refuses_what_is_none),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
