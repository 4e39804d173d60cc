#include "site.h"

#include <stdio.h>

static int setup(void **state)
{
    *state = site_open("", 16, 10);
    return 0;
}

static int teardown(void **state)
{
    site_close(*state);
    return 0;
}

static void paths__lead_to_their_ops(void **state)
{
    struct site *site = *state;
    static const struct {
        const char *method;
        const char *path;
        const char *said;
    } cases[] = {
        {"GET", "/healthz", "health"},
        {"GET", "/readyz", "ready"},
        {"GET", "/readyz?verbose=1", "ready"},
        {"GET", "/metrics", "metrics"},
        {"GET", "/v1/config", "config"},
        {"GET", "/v1/rooms", "rooms limit=100 after= sort=name"},
        {"GET", "/v1/rooms?", "rooms limit=100 after= sort=name"},
        {"GET", "/v1/rooms?limit=1000&sort=viewers", "rooms limit=1000 after= sort=viewers"},
        {"GET", "/v1/rooms?after=a%3Ab&limit=1&x", "rooms limit=1 after=a:b sort=name"},
        {"GET", "/v1/rooms?&&sort=name&after=", "rooms limit=100 after= sort=name"},
        {"GET", "/v1/rooms/live:42", "room live:42"},
        {"GET", "/v1/rooms/%34%32", "room 42"},
        {"GET", "/v1/rooms/messages", "room messages"},
        {"GET", "/v1/users/bob/connections", "connections bob"},
        {"GET", "/v1/users/a%2Fb%20c+d/connections", "connections a/b c+d"},
        {"DELETE", "/v1/users/bob/connections", "kick bob"},
        {"POST", "/v1/drain", "drain bytes=0"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *answer = site_get(site, cases[i].method, cases[i].path, "");
        assert_status(answer, 200);
        assert_string_equal(strstr(answer, "\r\n\r\n") + 4, cases[i].said);
        assert_string_equal(site->said, cases[i].said);
    }
}

static void unknown_paths__are_404(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {"/",
                                        "/v1",
                                        "/v2/rooms",
                                        "/v1/rooms/",
                                        "/v1/rooms//messages",
                                        "/v1/rooms/42/",
                                        "/v1/rooms/42/messages/",
                                        "/v1/rooms/42/users",
                                        "/v1/users/bob",
                                        "/healthz/",
                                        "/healthz%00",
                                        "//healthz",
                                        "/metrics/../v1/config",
                                        "*",
                                        "http://127.0.0.1/healthz"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const char *answer = site_get(site, "GET", paths[i], "");
        assert_status(answer, 404);
        assert_contains(answer, "{\"error\":\"not-found\",\"message\":\"");
        assert_contains(answer, "Content-Type: application/json\r\n");
    }
    assert_int_equal(site->calls, 0);
}

static void wrong_methods__are_405_with_allow(void **state)
{
    struct site *site = *state;
    static const struct {
        const char *method;
        const char *path;
        const char *allow;
    } cases[] = {
        {"POST", "/healthz", "Allow: GET, HEAD\r\n"},
        {"GET", "/v1/messages", "Allow: POST\r\n"},
        {"PUT", "/v1/rooms/42/messages", "Allow: POST\r\n"},
        {"OPTIONS", "/v1/rooms", "Allow: GET, HEAD\r\n"},
        {"POST", "/v1/users/bob/connections", "Allow: GET, HEAD, DELETE\r\n"},
        {"BREW", "/v1/rooms/bad%20name", "Allow: GET, HEAD\r\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *answer =
            site_get(site, cases[i].method, cases[i].path, "Content-Length: 0\r\n");
        assert_status(answer, 405);
        assert_contains(answer, cases[i].allow);
        assert_contains(answer, "{\"error\":\"method-not-allowed\"");
    }
    assert_int_equal(site->calls, 0);
}

static void bad_names__are_400(void **state)
{
    struct site *site = *state;
    static const char room65[] =
        "/v1/rooms/aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggg";
    static const char *const paths[] = {room65,
                                        "/v1/rooms/a%20b",
                                        "/v1/rooms/42%00",
                                        "/v1/rooms/%",
                                        "/v1/rooms/%4",
                                        "/v1/rooms/%zz",
                                        "/v1/rooms/4+2",
                                        "/v1/rooms/a%2Fb",
                                        "/v1/users/a%22/connections",
                                        "/v1/users/%C3%A9/connections",
                                        "/v1/users/%00/connections"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const char *answer = site_get(site, "GET", paths[i], "");
        assert_status(answer, 400);
        assert_contains(answer, "{\"error\":\"bad-name\",\"message\":\"");
    }
    assert_int_equal(site->calls, 0);
}

static void bad_parameters__are_400(void **state)
{
    struct site *site = *state;
    static const char *const queries[] = {"limit=0",   "limit=1001", "limit=",
                                          "limit=-1",  "limit=1e2",  "limit=99999999999999999999",
                                          "sort=size", "sort",       "after=a%20b",
                                          "after=%4",  "%zz=1",      "sort=viewers&after=a"};
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "/v1/rooms?%s", queries[i]);
        const char *answer = site_get(site, "GET", path, "");
        assert_status(answer, 400);
        assert_contains(answer, "{\"error\":\"bad-message\",\"message\":\"");
    }
    assert_int_equal(site->calls, 0);
}

static void head__has_the_length_and_no_body(void **state)
{
    struct site *site = *state;
    const char *answer = site_get(site, "HEAD", "/v1/rooms/42", "");
    assert_status(answer, 200);
    assert_contains(answer, "Content-Length: 7\r\n");
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    assert_string_equal(site->said, "room 42");
    assert_status(site_get(site, "HEAD", "/nothing", ""), 404);
}

static void publish__takes_the_raw_body(void **state)
{
    struct site *site = *state;
    const char *answer = site_get(site, "POST", "/v1/rooms/42/messages",
                                  "Content-Type: application/x-www-form-urlencoded\r\n"
                                  "Content-Length: 9\r\n\r\na=%41&b+\n");
    assert_status(answer, 200);
    assert_string_equal(site->said, "publish room=42 bytes=9");
    assert_memory_equal(site->body.data, "a=%41&b+\n", 9);
    assert_status(site_get(site, "POST", "/v1/messages", "Content-Length: 2\r\n\r\n{}"), 200);
    assert_string_equal(site->said, "publish room= bytes=2");
    assert_status(site_get(site, "POST", "/v1/users/a%2Fb/messages", "Content-Length: 2\r\n\r\n{}"),
                  200);
    assert_string_equal(site->said, "publish user=a/b bytes=2");
}

static void publish__takes_a_chunked_body(void **state)
{
    struct site *site = *state;
    const char *answer =
        site_get(site, "POST", "/v1/messages",
                 "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n");
    assert_status(answer, 200);
    assert_int_equal(site->body.len, 7);
    assert_memory_equal(site->body.data, "{\"a\":1}", 7);
}

static void publish__of_nothing_is_400(void **state)
{
    struct site *site = *state;
    const char *answer = site_get(site, "POST", "/v1/messages", "Content-Length: 0\r\n");
    assert_status(answer, 400);
    assert_contains(answer, "{\"error\":\"bad-message\",\"message\":\"The body is empty");
    assert_int_equal(site->calls, 0);
}

static void answers__are_not_cached_and_say_what_they_are(void **state)
{
    struct site *site = *state;
    const char *answer = site_get(site, "GET", "/metrics", "");
    assert_contains(answer, "Cache-Control: no-store\r\n");
    assert_contains(answer, "X-Content-Type-Options: nosniff\r\n");
    assert_contains(answer, "Content-Type: text/plain\r\n");
    assert_null(strstr(answer, "Retry-After"));
}

static void errors__are_escaped(void **state)
{
    struct site *site = *state;
    struct client client;
    site->hold = true;
    client_open(site, &client);
    client_send(&client, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    site_until(site, &client, 1, all_held);
    admin_answer_error(site->held[0], 503, "unavailable", "a \"quoted\" text", 7);
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 503);
    assert_contains(client.in.data, "Retry-After: 7\r\n");
    assert_contains(client.in.data,
                    "{\"error\":\"unavailable\",\"message\":\"a \\\"quoted\\\" text\"}");
    client_close(&client);
}

#define SITE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int run_routes_tests(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(paths__lead_to_their_ops),
        SITE_TEST(unknown_paths__are_404),
        SITE_TEST(wrong_methods__are_405_with_allow),
        SITE_TEST(bad_names__are_400),
        SITE_TEST(bad_parameters__are_400),
        SITE_TEST(head__has_the_length_and_no_body),
        SITE_TEST(publish__takes_the_raw_body),
        SITE_TEST(publish__takes_a_chunked_body),
        SITE_TEST(publish__of_nothing_is_400),
        SITE_TEST(answers__are_not_cached_and_say_what_they_are),
        SITE_TEST(errors__are_escaped),
    };
    return cmocka_run_group_tests_name("admin routes", tests, NULL, NULL);
}
