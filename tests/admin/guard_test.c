#include "site.h"

static void host__addresses_and_localhost_are_local(void **state)
{
    (void)state;
    static const char *const local[] = {"127.0.0.1",      "127.0.0.1:7314", "[::1]",
                                        "[::1]:7314",     "localhost",      "LocalHost:80",
                                        "10.1.2.3:65535", "localhost:"};
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
        if (!guard_host_is_local(local[i]))
            fail_msg("refused: %s", local[i]);
    }
}

static void host__names_and_tricks_are_not_local(void **state)
{
    (void)state;
    static const char *const foreign[] = {"evil.example",
                                          "localhost.evil.example",
                                          "127.0.0.1.evil.example",
                                          "127.0.0.1:80@evil",
                                          "[::1",
                                          "[::1].evil",
                                          "[localhost]",
                                          "::1",
                                          "",
                                          ":80",
                                          "2130706433",
                                          "127.1",
                                          "localhost:80x",
                                          "1111111111111111111111111111111111111111111111111111"};
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        if (guard_host_is_local(foreign[i]))
            fail_msg("accepted: %s", foreign[i]);
    }
}

static void token__only_the_whole_token_is_valid(void **state)
{
    (void)state;
    assert_true(guard_token_valid("Bearer secret", "secret"));
    assert_true(guard_token_valid("bearer  secret", "secret"));
    assert_false(guard_token_valid(NULL, "secret"));
    assert_false(guard_token_valid("", "secret"));
    assert_false(guard_token_valid("Bearer ", "secret"));
    assert_false(guard_token_valid("Bearer", "secret"));
    assert_false(guard_token_valid("Bearer secre", "secret"));
    assert_false(guard_token_valid("Bearer secrets", "secret"));
    assert_false(guard_token_valid("Bearer secretsecret", "secret"));
    assert_false(guard_token_valid("Bearer Secret", "secret"));
    assert_false(guard_token_valid("Basic secret", "secret"));
    assert_false(guard_token_valid("secret", "secret"));
}

static void token__none_set_is_never_valid(void **state)
{
    (void)state;
    assert_false(guard_token_valid("Bearer ", ""));
    assert_false(guard_token_valid("Bearer x", ""));
}

static void v1__without_the_token_is_401(void **state)
{
    (void)state;
    struct site *site = site_open("secret", 8, 10);
    static const char *const paths[] = {"/v1/config", "/v1/rooms", "/v1/rooms/42",
                                        "/v1/users/bob/connections"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const char *answer = site_get(site, "GET", paths[i], "");
        assert_status(answer, 401);
        assert_contains(answer, "WWW-Authenticate: Bearer");
        assert_contains(answer, "{\"error\":\"unauthorized\",\"message\":\"");
    }
    assert_status(site_get(site, "GET", "/v1/config", "Authorization: Bearer wrong\r\n"), 401);
    assert_status(site_get(site, "POST", "/v1/messages", "Content-Length: 0\r\n"), 401);
    assert_status(site_get(site, "DELETE", "/v1/users/bob/connections", ""), 401);
    assert_int_equal(site->calls, 0);
    assert_status(site_get(site, "GET", "/v1/config", "Authorization: Bearer secret\r\n"), 200);
    assert_int_equal(site->calls, 1);
    site_close(site);
}

static void health_and_metrics__need_no_token(void **state)
{
    (void)state;
    struct site *site = site_open("secret", 8, 10);
    assert_status(site_get(site, "GET", "/healthz", ""), 200);
    assert_status(site_get(site, "GET", "/readyz", ""), 200);
    assert_status(site_get(site, "GET", "/metrics", ""), 200);
    site_close(site);
}

static void reload__changes_the_token(void **state)
{
    (void)state;
    struct site *site = site_open("old", 8, 10);
    memcpy(site->conf->admin.token, "new", 4);
    admin_set_conf(site->admin, site->conf);
    assert_status(site_get(site, "GET", "/v1/config", "Authorization: Bearer old\r\n"), 401);
    assert_status(site_get(site, "GET", "/v1/config", "Authorization: Bearer new\r\n"), 200);
    site_close(site);
}

static void origin__needs_the_valid_token(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    const char *answer = site_get(site, "GET", "/v1/rooms", "Origin: http://evil.example\r\n");
    assert_status(answer, 403);
    assert_contains(answer, "{\"error\":\"forbidden\"");
    assert_status(site_get(site, "GET", "/metrics", "Origin: null\r\n"), 403);
    assert_int_equal(site->calls, 0);
    assert_status(site_get(site, "GET", "/healthz", "Origin: http://evil.example\r\n"), 200);
    site_close(site);

    site = site_open("secret", 8, 10);
    assert_status(site_get(site, "GET", "/v1/rooms", "Origin: http://dash.example\r\n"), 403);
    assert_status(site_get(site, "GET", "/v1/rooms",
                           "Origin: http://dash.example\r\nAuthorization: Bearer secret\r\n"),
                  200);
    site_close(site);
}

static void host__of_another_name_is_403_without_a_token(void **state)
{
    (void)state;
    static const char rooms[] =
        "GET /v1/rooms HTTP/1.1\r\nHost: evil.example:7314\r\nConnection: close\r\n\r\n";
    static const char health[] =
        "GET /healthz HTTP/1.1\r\nHost: node-1.example\r\nConnection: close\r\n\r\n";
    static const char metrics[] =
        "GET /metrics HTTP/1.1\r\nHost: node-1.example\r\nConnection: close\r\n\r\n";
    struct site *site = site_open("", 8, 10);
    assert_status(site_ask(site, rooms), 403);
    assert_status(site_ask(site, metrics), 403);
    assert_int_equal(site->calls, 0);
    assert_status(site_ask(site, health), 200);
    site_close(site);

    site = site_open("secret", 8, 10);
    assert_status(site_ask(site, rooms), 401);
    assert_status(site_ask(site, metrics), 200);
    site_close(site);
}

int run_guard_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host__addresses_and_localhost_are_local),
        cmocka_unit_test(host__names_and_tricks_are_not_local),
        cmocka_unit_test(token__only_the_whole_token_is_valid),
        cmocka_unit_test(token__none_set_is_never_valid),
        cmocka_unit_test(v1__without_the_token_is_401),
        cmocka_unit_test(health_and_metrics__need_no_token),
        cmocka_unit_test(reload__changes_the_token),
        cmocka_unit_test(origin__needs_the_valid_token),
        cmocka_unit_test(host__of_another_name_is_403_without_a_token),
    };
    return cmocka_run_group_tests_name("admin guard", tests, NULL, NULL);
}
