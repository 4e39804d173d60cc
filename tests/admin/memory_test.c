#include "site.h"

#include <stdatomic.h>

/* How many of the next allocations fail, in whatever thread. wrap.txt names these functions. */
static _Atomic int failing_callocs;
static _Atomic int failing_reallocs;

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool take_failure(_Atomic int *failing)
{
    int left = atomic_load(failing);
    return left > 0 && atomic_compare_exchange_strong(failing, &left, left - 1);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return take_failure(&failing_callocs) ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return take_failure(&failing_reallocs) ? NULL : __real_realloc(old, size);
}

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

static void request__without_memory_closes_its_connection_only(void **state)
{
    struct site *site = *state;
    struct client client;
    client_open(site, &client);
    client_send(&client, ask_health);
    atomic_store(&failing_callocs, 1);
    site_until(site, &client, 1, all_ended);
    assert_int_equal(atomic_load(&failing_callocs), 0);
    assert_int_equal(client.in.len, 0);
    assert_int_equal(atomic_load(&site->admin->open), 0);
    client_close(&client);
    assert_status(site_ask(site, ask_health), 200);
}

static void body__without_memory_is_503(void **state)
{
    struct site *site = *state;
    struct client client;
    client_open(site, &client);
    client_post(&client, 5000, 5000);
    atomic_store(&failing_reallocs, 1);
    site_until(site, &client, 1, all_ended);
    assert_int_equal(atomic_load(&failing_reallocs), 0);
    assert_status(client.in.data, 503);
    assert_int_equal(site->calls, 0);
    client_close(&client);
}

static void answer__without_memory_closes_its_connection_only(void **state)
{
    struct site *site = *state;
    struct client client;
    client_open(site, &client);
    client_send(&client, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
    atomic_store(&failing_reallocs, 1);
    site_until(site, &client, 1, all_ended);
    assert_int_equal(atomic_load(&failing_reallocs), 0);
    assert_int_equal(client.in.len, 0);
    client_close(&client);
    assert_status(site_get(site, "GET", "/nothing", ""), 404);
}

static void create__without_memory_is_an_error(void **state)
{
    struct site *site = *state;
    struct admin *second = NULL;
    atomic_store(&failing_callocs, 1);
    int rc = admin_create(&second, &site->loop, site->conf, site->admin->ops, site);
    assert_int_equal(rc, UV_ENOMEM);
    assert_null(second);
}

#define SITE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int run_memory_tests(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(request__without_memory_closes_its_connection_only),
        SITE_TEST(body__without_memory_is_503),
        SITE_TEST(answer__without_memory_closes_its_connection_only),
        SITE_TEST(create__without_memory_is_an_error),
    };
    return cmocka_run_group_tests_name("admin memory", tests, NULL, NULL);
}
