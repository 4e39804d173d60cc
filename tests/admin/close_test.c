#include "base/clock.h"
#include "site.h"

#include <sys/socket.h>
#include <unistd.h>

static void close__waits_for_what_the_node_has(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client clients[2];
    site->hold = true;
    for (size_t i = 0; i < 2; i++) {
        client_open(site, &clients[i]);
        client_send(&clients[i], ask_health);
    }
    site_until(site, clients, 2, all_held);
    site_begin_close(site);
    site_turn(site, clients, 2, 20);
    assert_false(site->closed);
    admin_answer(site->held[1], 200, "text/plain", bytes_str("second"), 0);
    admin_answer(site->held[0], 200, "text/plain", bytes_str("first"), 0);
    site_until(site, clients, 2, is_closed);
    site_until(site, clients, 2, all_ended);
    assert_contains(clients[0].in.data, "\r\n\r\nfirst");
    assert_contains(clients[1].in.data, "\r\n\r\nsecond");
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(site);
}

static bool is_waited(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    (void)count;
    return site->admin->waited;
}

static void close__waits_for_the_node_however_long(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client client;
    site->hold = true;
    client_open(site, &client);
    client_send(&client, ask_health);
    site_until(site, &client, 1, all_held);
    site_begin_close(site);
    site_until(site, &client, 1, is_waited);
    assert_false(uv_is_closing((uv_handle_t *)&site->admin->async));
    admin_answer(site->held[0], 200, "text/plain", bytes_str("too late to be read"), 0);
    site_until(site, &client, 1, is_closed);
    client_close(&client);
    site_close(site);
}

static bool queue_filled(const struct site *site, size_t count)
{
    size_t found = 0;
    pthread_mutex_lock(&site->admin->mutex);
    for (struct link *link = site->admin->queue.next; link != &site->admin->queue;
         link = link->next)
        found++;
    pthread_mutex_unlock(&site->admin->mutex);
    return found == count;
}

static void close__answers_503_to_what_is_queued(void **state)
{
    (void)state;
    enum { QUEUED = 20 };
    struct site *site = site_open("", QUEUED, 10);
    struct client clients[QUEUED];
    for (size_t i = 0; i < QUEUED; i++) {
        client_open(site, &clients[i]);
        assert_int_equal(send(clients[i].fd, ask_health, ask_health_len, 0), ask_health_len);
    }
    /* Only the listener's part of the loop may run until all are queued, so the connections are
     * taken by hand. */
    uv_poll_t *poll = &site->admin->poll;
    poll->poll_cb(poll, 0, UV_READABLE);
    uint64_t deadline = clock_ms() + 10000;
    while (!queue_filled(site, QUEUED)) {
        assert_true(clock_ms() < deadline);
        usleep(1000); /* nothing tells of the last one: the loop is woken by the first only */
    }
    site_begin_close(site);
    site_until(site, clients, QUEUED, is_closed);
    site_until(site, clients, QUEUED, all_ended);
    for (size_t i = 0; i < QUEUED; i++) {
        assert_status(clients[i].in.data, 503);
        assert_contains(clients[i].in.data, "Connection: close\r\n");
        client_close(&clients[i]);
    }
    assert_int_equal(site->calls, 0);
    site_close(site);
}

static void close__does_not_wait_for_half_requests_and_idle_clients(void **state)
{
    (void)state;
    struct site *site = site_open("", 8, 10);
    struct client clients[3];
    for (size_t i = 0; i < 3; i++)
        client_open(site, &clients[i]);
    client_post(&clients[0], 100, 50);
    client_send(&clients[1], "GET /heal");
    client_send(&clients[2], "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (clients[2].in.len == 0 || atomic_load(&site->admin->open) == 0)
        site_turn(site, clients, 3, 20);
    uint64_t start = clock_ms();
    site_begin_close(site);
    site_until(site, clients, 3, is_closed);
    assert_true(clock_ms() - start < 5000);
    site_until(site, clients, 3, all_ended);
    for (size_t i = 0; i < 3; i++)
        client_close(&clients[i]);
    site_close(site);
}

static void close__under_load_leaves_nothing(void **state)
{
    (void)state;
    for (size_t round = 0; round < 20; round++) {
        enum { CLIENTS = 24 };
        struct site *site = site_open("", CLIENTS, 10);
        struct client clients[CLIENTS];
        for (size_t i = 0; i < CLIENTS; i++) {
            client_open(site, &clients[i]);
            client_send(&clients[i], ask_health);
        }
        for (size_t turn = 0; turn < round; turn++)
            site_turn(site, clients, CLIENTS, 0);
        site_begin_close(site);
        site_until(site, clients, CLIENTS, is_closed);
        site_until(site, clients, CLIENTS, all_ended);
        for (size_t i = 0; i < CLIENTS; i++)
            client_close(&clients[i]);
        site_close(site);
    }
}

static void close__of_none_does_nothing(void **state)
{
    (void)state;
    admin_close(NULL, NULL);
}

int run_close_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close__waits_for_what_the_node_has),
        cmocka_unit_test(close__waits_for_the_node_however_long),
        cmocka_unit_test(close__answers_503_to_what_is_queued),
        cmocka_unit_test(close__does_not_wait_for_half_requests_and_idle_clients),
        cmocka_unit_test(close__under_load_leaves_nothing),
        cmocka_unit_test(close__of_none_does_nothing),
    };
    return cmocka_run_group_tests_name("admin close", tests, NULL, NULL);
}
