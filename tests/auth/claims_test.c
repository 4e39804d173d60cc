#include "auth_test.h"

static enum auth_result read_text(const char *json, struct auth_claims *out)
{
    return auth_claims_read(bytes_str(json), out);
}

static void assert_names(const struct auth_claims *claims, const struct auth_names *names,
                         const char *expected)
{
    struct bytes list = auth_names_of(claims, names);
    struct bytes name;
    struct buf text = {0};
    while (auth_names_next(&list, &name)) {
        buf_bytes(&text, name);
        buf_byte(&text, ' ');
    }
    buf_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    buf_fini(&text);
}

static void claims__are_taken_and_others_ignored(void **state)
{
    (void)state;
    struct auth_claims claims;
    assert_int_equal(
        read_text("{\"iss\":{\"x\":[1]},\"sub\":\"al\\u0069ce\",\"exp\":1795000000.9,\"nbf\":12,"
                  "\"rooms\":[\"42\",\"team-*\",\"*\"],\"join\":[\"lobby\"],\"send\":[\"chat\"],"
                  "\"session\":\"s1\",\"aud\":null}",
                  &claims),
        AUTH_OK);
    assert_string_equal(claims.user, "alice");
    assert_string_equal(claims.session, "s1");
    assert_int_equal(claims.expires_s, 1795000000);
    assert_int_equal(claims.begins_s, 12);
    assert_names(&claims, &claims.rooms, "42 team-* * ");
    assert_names(&claims, &claims.join, "lobby ");
    assert_names(&claims, &claims.send, "chat ");
}

static void absent_lists__differ_from_empty_ones(void **state)
{
    (void)state;
    struct auth_claims claims;
    assert_int_equal(read_text("{\"sub\":\"a\"}", &claims), AUTH_OK);
    assert_false(claims.rooms.given || claims.send.given || claims.join.given);
    assert_int_equal(claims.expires_s, 0);
    assert_int_equal(read_text("{\"sub\":\"a\",\"rooms\":[],\"send\":[]}", &claims), AUTH_OK);
    assert_true(claims.rooms.given && claims.send.given);
    assert_int_equal(claims.rooms.len, 0);
}

static void claims__that_are_wrong_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{\"sub\":\"\"}",
        "{\"sub\":7}",
        "{\"sub\":null}",
        "{\"sub\":\"a\\\"b\"}",
        "{\"sub\":\"a\\u0000b\"}",
        "{\"sub\":\"\xc3\xa4\"}",
        "{\"sub\":\"a\",\"exp\":\"1795000000\"}",
        "{\"sub\":\"a\",\"exp\":-1}",
        "{\"sub\":\"a\",\"exp\":0}",
        "{\"sub\":\"a\",\"exp\":null}",
        "{\"sub\":\"a\",\"exp\":1e10}",
        "{\"sub\":\"a\",\"exp\":123456789012}",
        "{\"sub\":\"a\",\"nbf\":true}",
        "{\"sub\":\"a\",\"session\":\"a b\"}",
        "{\"sub\":\"a\",\"session\":null}",
        "{\"sub\":\"a\",\"rooms\":\"42\"}",
        "{\"sub\":\"a\",\"rooms\":[42]}",
        "{\"sub\":\"a\",\"rooms\":[\"a*b\"]}",
        "{\"sub\":\"a\",\"rooms\":[\"a b\"]}",
        "{\"sub\":\"a\",\"rooms\":[\"\"]}",
        "{\"sub\":\"a\",\"rooms\":[\"**\"]}",
        "{\"sub\":\"a\",\"join\":[\"team-*\"]}",
        "{\"sub\":\"a\",\"send\":[\"connect\"]}",
        "{\"sub\":\"a\",\"send\":[\"Chat\"]}",
    };
    struct auth_claims claims;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (read_text(bad[i], &claims) != AUTH_CLAIMS)
            fail_msg("%s was taken", bad[i]);
    }
    assert_int_equal(read_text("[]", &claims), AUTH_MALFORMED);
    assert_int_equal(read_text("", &claims), AUTH_MALFORMED);
    assert_int_equal(read_text("{\"sub\":\"a\"} x", &claims), AUTH_MALFORMED);
}

static void claims__are_bounded(void **state)
{
    (void)state;
    struct auth_claims claims;
    struct buf json = {0};
    for (int count = AUTH_LIST_MAX; count <= AUTH_LIST_MAX + 1; count++) {
        buf_clear(&json);
        BUF_LIT(&json, "{\"sub\":\"a\",\"rooms\":[\"r\"");
        for (int i = 1; i < count; i++)
            BUF_LIT(&json, ",\"r\"");
        BUF_LIT(&json, "]}");
        assert_int_equal(auth_claims_read(buf_view(&json), &claims),
                         count <= AUTH_LIST_MAX ? AUTH_OK : AUTH_CLAIMS);
    }
    buf_clear(&json);
    BUF_LIT(&json, "{\"sub\":\"a\",\"rooms\":[\"" SECRET SECRET "\"");
    for (int i = 1; i < AUTH_LIST_MAX; i++)
        BUF_LIT(&json, ",\"" SECRET SECRET "\"");
    BUF_LIT(&json, "]}"); /* 64 names of 64 bytes and their lengths: more than AUTH_RIGHTS_MAX */
    assert_int_equal(auth_claims_read(buf_view(&json), &claims), AUTH_CLAIMS);
    buf_fini(&json);
}

static void results__have_labels_and_texts(void **state)
{
    (void)state;
    assert_string_equal(auth_result_label(AUTH_OK), "ok");
    for (int i = 0; i < AUTH_RESULT_COUNT; i++)
        assert_true(strlen(auth_result_text((enum auth_result)i)) > 4);
}

int run_claims_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(claims__are_taken_and_others_ignored),
        cmocka_unit_test(absent_lists__differ_from_empty_ones),
        cmocka_unit_test(claims__that_are_wrong_are_refused),
        cmocka_unit_test(claims__are_bounded),
        cmocka_unit_test(results__have_labels_and_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
