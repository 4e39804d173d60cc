#include "base/clock.h"
#include "site.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* message_bytes of the tests' conf and what is allowed around it. */
enum { BODY_MAX = 65536 + 4096, CROWD = 200 };

static void many__are_answered_out_of_order(void **state)
{
    (void)state;
    struct site *site = site_open("", CROWD, 10);
    static struct client clients[CROWD];
    site->hold = true;
    for (size_t i = 0; i < CROWD; i++) {
        char request[128];
        client_open(site, &clients[i]);
        snprintf(request, sizeof(request),
                 "GET /v1/rooms/r%zu HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", i);
        client_send(&clients[i], request);
    }
    site_until(site, clients, CROWD, all_held);
    for (size_t i = CROWD; i-- > 0;) {
        struct admin_request *request = site->held[i];
        admin_answer(request, 200, "text/plain", bytes_str(request->target), 0);
    }
    site_until(site, clients, CROWD, all_ended);
    for (size_t i = 0; i < CROWD; i++) {
        char body[64];
        snprintf(body, sizeof(body), "\r\n\r\n/v1/rooms/r%zu", i);
        assert_status(clients[i].in.data, 200);
        assert_string_equal(strstr(clients[i].in.data, "\r\n\r\n"), body);
        client_close(&clients[i]);
    }
    assert_int_equal(admin_refused(site->admin), 0);
    site_close(site);
}

static bool second_ended(const struct site *site, const struct client *clients, size_t count)
{
    (void)site;
    (void)count;
    return clients[1].ended;
}

static void too_many_requests__are_503(void **state)
{
    (void)state;
    struct site *site = site_open("", 1, 10);
    struct client clients[2];
    site->hold = true;
    client_open(site, &clients[0]);
    client_send(&clients[0], ask_health);
    site_until(site, clients, 1, all_held);
    client_open(site, &clients[1]);
    client_post(&clients[1], 5000, 5000);
    site_until(site, clients, 2, second_ended);
    assert_status(clients[1].in.data, 503);
    assert_contains(clients[1].in.data, "Retry-After: 1\r\n");
    assert_contains(clients[1].in.data, "{\"error\":\"unavailable\"");
    assert_int_equal(admin_refused(site->admin), 1);
    admin_answer(site->held[0], 200, "text/plain", bytes_str("late"), 0);
    site_until(site, clients, 2, all_ended);
    assert_status(clients[0].in.data, 200);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site->hold = false;
    assert_status(site_ask(site, ask_health), 200);
    site_close(site);
}

static bool all_open(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    return atomic_load(&site->admin->connections) == count;
}

static void too_many_connections__are_503(void **state)
{
    (void)state;
    enum { REQUESTS = 1, ALLOWED = REQUESTS + ADMIN_CONNECTIONS_SPARE };
    struct site *site = site_open("", REQUESTS, 10);
    static struct client clients[ALLOWED + 1];
    for (size_t i = 0; i < ALLOWED; i++)
        client_open(site, &clients[i]);
    site_until(site, clients, ALLOWED, all_open);
    assert_int_equal(admin_refused(site->admin), 0);
    client_open(site, &clients[ALLOWED]);
    site_until(site, &clients[ALLOWED], 1, all_ended);
    assert_status(clients[ALLOWED].in.data, 503);
    assert_int_equal(admin_refused(site->admin), 1);
    for (size_t i = 0; i <= ALLOWED; i++) {
        assert_int_equal(clients[i].ended, i == ALLOWED);
        client_close(&clients[i]);
    }
    site_close(site);
}

static void body__of_the_limit_is_taken_and_one_more_is_413(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client clients[2];
    client_open(site, &clients[0]);
    client_open(site, &clients[1]);
    client_post(&clients[0], BODY_MAX, BODY_MAX);
    client_post(&clients[1], BODY_MAX + 1, BODY_MAX + 1);
    site_until(site, clients, 2, all_ended);
    assert_status(clients[0].in.data, 200);
    assert_int_equal(site->body.len, BODY_MAX);
    assert_status(clients[1].in.data, 413);
    assert_contains(clients[1].in.data, "{\"error\":\"too-large\"");
    assert_int_equal(site->calls, 1);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(site);
}

static void body__announced_far_beyond_is_413_at_once(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    client_open(site, &client);
    client_post(&client, 1000000000, 0);
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 413);
    client_close(&client);

    /* curl asks so before a long body. */
    client_open(site, &client);
    client_send(&client, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
                         "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n");
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 413);
    client_close(&client);
    site_close(site);
}

static void post_chunked(struct client *client, size_t len)
{
    client_send(client, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                        "Transfer-Encoding: chunked\r\n\r\n");
    buf_printf(&client->out, "%zx\r\n", len);
    for (size_t i = 0; i < len; i++)
        buf_byte(&client->out, 'x');
    client_send(client, "\r\n0\r\n\r\n");
}

static void body__chunked_beyond_the_limit_is_413(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client clients[2];
    client_open(site, &clients[0]);
    client_open(site, &clients[1]);
    post_chunked(&clients[0], BODY_MAX);
    post_chunked(&clients[1], BODY_MAX + 1);
    site_until(site, clients, 2, all_ended);
    assert_status(clients[0].in.data, 200);
    assert_status(clients[1].in.data, 413);
    assert_int_equal(site->calls, 1);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(site);
}

static void body__without_end_is_cut(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    size_t sent = 0;
    client_open(site, &client);
    client_send(&client, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n");
    while (!client.ended) {
        assert_true(sent < 64u << 20);
        if (client.out.len == 0) {
            buf_printf(&client.out, "10000\r\n%065536d\r\n", 0);
            sent += 65536;
        }
        site_turn(site, &client, 1, 20);
    }
    assert_true(sent > BODY_MAX);
    assert_int_equal(site->calls, 0);
    client_close(&client);
    site_close(site);
}

static void slow_client__is_served_byte_by_byte(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    client_open(site, &client);
    for (size_t i = 0; i < ask_health_len; i++) {
        assert_int_equal(send(client.fd, &ask_health[i], 1, 0), 1);
        site_turn(site, &client, 1, 1);
    }
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 200);
    client_close(&client);
    site_close(site);
}

static void half_a_head__is_closed_after_the_time_limit(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 1);
    struct client clients[2];
    uint64_t start = clock_ms();
    client_open(site, &clients[0]);
    client_send(&clients[0], "GET /healthz HTTP/1.1\r\nHos");
    client_open(site, &clients[1]);
    client_post(&clients[1], 100, 50);
    site_until(site, clients, 2, all_ended);
    assert_true(clock_ms() - start >= 900);
    assert_int_equal(site->calls, 0);
    site_until(site, NULL, 0, all_gone);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(site);
}

/* What the node takes its time for is not the client's fault. */
static void suspended_request__outlives_the_time_limit(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 1);
    struct client clients[2];
    site->hold = true;
    client_open(site, &clients[0]);
    client_send(&clients[0], ask_health);
    site_until(site, clients, 1, all_held);
    client_open(site, &clients[1]);
    site_until(site, clients, 2, second_ended); /* idle for the time limit */
    assert_false(clients[0].ended);
    admin_answer(site->held[0], 200, "text/plain", bytes_str("late"), 0);
    site_until(site, clients, 2, all_ended);
    assert_status(clients[0].in.data, 200);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(site);
}

static void long_head__is_refused(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    client_open(site, &client);
    buf_printf(&client.out, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %060000d\r\n\r\n", 0);
    site_until(site, &client, 1, all_ended);
    assert_int_equal(site->calls, 0);
    client_close(&client);
    assert_status(site_ask(site, ask_health), 200);
    site_close(site);
}

static void garbage__costs_its_sender_only(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    static const char *const garbage[] = {
        "\x01\x02\x03\xff\r\n\r\n",
        "GET\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1x\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        site_ask(site, garbage[i]);
        assert_int_equal(site->calls, i);
        assert_status(site_ask(site, ask_health), 200);
    }
    site_close(site);
}

static bool second_held(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    (void)count;
    return site->held_count == 2;
}

static void client_gone_while_suspended__is_forgotten(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client clients[2];
    site->hold = true;
    client_open(site, &clients[0]);
    client_send(&clients[0], ask_health);
    site_until(site, clients, 1, all_held);
    client_open(site, &clients[1]);
    client_post(&clients[1], 4, 4);
    site_until(site, clients, 2, second_held);
    struct linger reset = {.l_onoff = 1};
    setsockopt(clients[1].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    client_close(&clients[0]);
    client_close(&clients[1]);
    admin_answer(site->held[0], 200, "text/plain", bytes_str("nobody"), 0);
    admin_answer(site->held[1], 200, "text/plain", bytes_str("nobody"), 0);
    site_until(site, NULL, 0, all_gone);
    site->hold = false;
    assert_status(site_ask(site, ask_health), 200);
    site_close(site);
}

static void client_that_shut_its_side__is_answered(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    client_open(site, &client);
    assert_int_equal(send(client.fd, ask_health, ask_health_len, 0), ask_health_len);
    shutdown(client.fd, SHUT_WR);
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 200);
    client_close(&client);
    site_close(site);
}

static void connection__serves_requests_one_after_the_other(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    client_open(site, &client);
    client_send(&client,
                "GET /v1/rooms/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                "POST /v1/rooms/2/messages HTTP/1.1\r\nHost: localhost\r\n"
                "Content-Length: 2\r\n\r\n{}"
                "GET /v1/rooms/3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    site_until(site, &client, 1, all_ended);
    assert_int_equal(site->calls, 3);
    const char *first = strstr(client.in.data, "\r\n\r\nroom 1");
    const char *second = strstr(client.in.data, "\r\n\r\npublish room=2 bytes=2");
    const char *third = strstr(client.in.data, "\r\n\r\nroom 3");
    assert_true(first && second && third && first < second && second < third);
    client_close(&client);
    site_close(site);
}

static void long_answer__arrives_whole(void **state)
{
    (void)state;
    enum { LONG = 4 << 20 };
    struct site *site = site_open("", 8, 10);
    struct client client;
    char *body = malloc(LONG);
    assert_non_null(body);
    memset(body, 'y', LONG);
    site->hold = true;
    client_open(site, &client);
    client_send(&client, ask_health);
    site_until(site, &client, 1, all_held);
    admin_answer(site->held[0], 200, "text/plain", bytes_of(body, LONG), 0);
    memset(body, 'n', LONG); /* it was copied */
    site_until(site, &client, 1, all_ended);
    const char *got = strstr(client.in.data, "\r\n\r\n") + 4;
    assert_int_equal(client.in.len - (size_t)(got - client.in.data), LONG);
    assert_null(memchr(got, 'n', LONG));
    free(body);
    client_close(&client);
    site_close(site);
}

static void create__a_taken_port_is_an_error(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct conf *conf = calloc(1, sizeof(*conf));
    struct admin *second = NULL;
    assert_non_null(conf);
    snprintf(conf->admin.listen, sizeof(conf->admin.listen), "%s", admin_address(site->admin));
    assert_int_equal(admin_create(&second, &site->loop, conf, site->admin->ops, site),
                     UV_EADDRINUSE);
    assert_null(second);
    free(conf);
    site_close(site);
}

static void create__bad_addresses_are_errors(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "7314",    ":7314",         "127.0.0.1", "[::1]",
        "[::1:80",    "::1:80x", "1.2.3.4:65536", "1.2.3.4:x", "example:80",
        "127.0.0.1:", "[]:80",   "[1.2.3.4]:80",  "1.2.3.4:-1"};
    struct site *site = site_open("", 8, 10);
    struct conf *conf = calloc(1, sizeof(*conf));
    struct admin *second = NULL;
    assert_non_null(conf);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(conf->admin.listen, sizeof(conf->admin.listen), "%s", bad[i]);
        int rc = admin_create(&second, &site->loop, conf, site->admin->ops, site);
        if (rc != UV_EINVAL)
            fail_msg("%s: %d", bad[i], rc);
    }
    assert_null(second);
    free(conf);
    site_close(site);
}

static void create__listens_on_ipv6_and_localhost(void **state)
{
    (void)state;
    static const char *const listens[] = {"[::1]:0", "localhost:0", "[::]:0"};
    static const char *const bound[] = {"[::1]:", "127.0.0.1:", "[::]:"};
    struct site *site = site_open("", 8, 10);
    struct conf *conf = calloc(1, sizeof(*conf));
    assert_non_null(conf);
    for (size_t i = 0; i < 3; i++) {
        struct admin *second = NULL;
        snprintf(conf->admin.listen, sizeof(conf->admin.listen), "%s", listens[i]);
        assert_int_equal(admin_create(&second, &site->loop, conf, site->admin->ops, site), 0);
        assert_memory_equal(admin_address(second), bound[i], strlen(bound[i]));
        assert_true(atoi(admin_address(second) + strlen(bound[i])) > 0);
        admin_close(second, NULL);
    }
    free(conf);
    site_close(site);
}

/* A listener that cannot accept must neither spin nor stay deaf when files are there again. */
static void file_limit__does_not_spin_and_recovers(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    struct rlimit before, none;
    client_open(site, &client);
    client_send(&client, ask_health);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    size_t turns = 0;
    uint64_t end = clock_ms() + 500;
    for (uint64_t now = clock_ms(); now < end; now = clock_ms(), turns++)
        site_turn(site, &client, 1, (int)(end - now));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(site->calls, 0);
    assert_in_range(turns, 1, 100);
    site_until(site, &client, 1, all_ended);
    assert_status(client.in.data, 200);
    client_close(&client);
    site_close(site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many__are_answered_out_of_order),
        cmocka_unit_test(too_many_requests__are_503),
        cmocka_unit_test(too_many_connections__are_503),
        cmocka_unit_test(body__of_the_limit_is_taken_and_one_more_is_413),
        cmocka_unit_test(body__announced_far_beyond_is_413_at_once),
        cmocka_unit_test(body__chunked_beyond_the_limit_is_413),
        cmocka_unit_test(body__without_end_is_cut),
        cmocka_unit_test(slow_client__is_served_byte_by_byte),
        cmocka_unit_test(half_a_head__is_closed_after_the_time_limit),
        cmocka_unit_test(suspended_request__outlives_the_time_limit),
        cmocka_unit_test(long_head__is_refused),
        cmocka_unit_test(garbage__costs_its_sender_only),
        cmocka_unit_test(client_gone_while_suspended__is_forgotten),
        cmocka_unit_test(client_that_shut_its_side__is_answered),
        cmocka_unit_test(connection__serves_requests_one_after_the_other),
        cmocka_unit_test(long_answer__arrives_whole),
        cmocka_unit_test(create__a_taken_port_is_an_error),
        cmocka_unit_test(create__bad_addresses_are_errors),
        cmocka_unit_test(create__listens_on_ipv6_and_localhost),
        cmocka_unit_test(file_limit__does_not_spin_and_recovers),
    };
    int failed = run_guard_tests() + run_routes_tests() + run_close_tests() + run_memory_tests();
    return failed + cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
