/* The Redis backend against a real redis-server that answers. */
#include "harness.h"

#include "broker/redis_dial.h"
#include "lib/free_port.h"
#include "suites.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct redis_server server;

static int start(void **state)
{
    (void)state;
    redis_start(&server, 0, "");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_stop(&server);
    return 0;
}

static int setup(void **state)
{
    static struct harness h;
    char url[64];
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", server.port);
    harness_init(&h, url);
    harness_open(&h);
    *state = &h;
    return 0;
}

static int teardown(void **state)
{
    harness_close(*state);
    return 0;
}

static bool one_subscribed(struct harness *h)
{
    return h->subscribed == 1;
}

static uint64_t wanted;

static bool has_messages(struct harness *h)
{
    return h->messages >= wanted;
}

static bool has_published(struct harness *h)
{
    return h->published >= wanted;
}

static void until_messages(struct harness *h, uint64_t count)
{
    wanted = count;
    harness_until(h, has_messages);
}

static void until_published(struct harness *h, uint64_t count)
{
    wanted = count;
    harness_until(h, has_published);
}

static void subscribe(struct harness *h, const char *room)
{
    uint64_t before = h->subscribed;
    assert_int_equal(broker_subscribe(h->broker, bytes_str(room)), 0);
    assert_int_equal(h->subscribed, before);
    h->subscribed = 0;
    harness_until(h, one_subscribed);
}

static void published_elsewhere__arrives_on_every_channel(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "42");
    events_clear(h);
    assert_string_equal(redis_ask(&server, "PUBLISH halley:room:{42} one"), "1");
    until_messages(h, 1);
    assert_string_equal(redis_ask(&server, "PUBLISH halley:high:{42} two"), "1");
    until_messages(h, 2);
    assert_string_equal(redis_ask(&server, "PUBLISH halley:all three"), "1");
    until_messages(h, 3);
    assert_int_equal(h->events[0].channel, BROKER_ROOM);
    assert_string_equal(h->events[0].room, "42");
    assert_string_equal(h->events[0].payload, "one");
    assert_int_equal(h->events[1].channel, BROKER_HIGH);
    assert_string_equal(h->events[1].room, "42");
    assert_string_equal(h->events[1].payload, "two");
    assert_int_equal(h->events[2].channel, BROKER_ALL);
    assert_string_equal(h->events[2].room, "");
    assert_string_equal(h->events[2].payload, "three");
}

static void own_publishes__are_confirmed_and_arrive_in_order(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "a");
    events_clear(h);
    char payload[32];
    for (uint64_t i = 0; i < 5000; i++) {
        snprintf(payload, sizeof(payload), "%d", (int)i);
        assert_int_equal(broker_publish(h->broker, i % 2 ? BROKER_ROOM : BROKER_HIGH,
                                        BYTES_LIT("a"), bytes_str(payload), i),
                         0);
    }
    assert_int_equal(h->count, 0);
    until_messages(h, 5000);
    until_published(h, 5000);
    int last[2] = {-1, -1};
    int64_t token = -1;
    for (size_t i = 0; i < h->count; i++) {
        const struct event *event = &h->events[i];
        if (event->kind == ON_PUBLISHED) {
            assert_int_equal(event->value, ++token);
            assert_int_equal(event->result, 0);
        } else {
            int *newest = &last[event->channel == BROKER_HIGH];
            assert_true(atoi(event->payload) > *newest);
            *newest = atoi(event->payload);
        }
    }
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_int_equal(stats.published, 5000);
    assert_int_equal(stats.received, 5000);
    assert_int_equal(stats.pending, 0);
    assert_int_equal(stats.subscriptions, 1);
    assert_int_equal(stats.reconnects, 0);
    assert_int_equal(stats.protocol_errors, 0);
}

static bool nobody_listens(struct harness *h)
{
    (void)h;
    return strcmp(redis_ask(&server, "PUBLISH halley:room:{gone} x"), "0") == 0 &&
           strcmp(redis_ask(&server, "PUBLISH halley:high:{gone} x"), "0") == 0;
}

static void unsubscribed_room__is_left_at_redis(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "gone");
    broker_unsubscribe(h->broker, BYTES_LIT("gone"));
    events_clear(h);
    harness_until(h, nobody_listens);
    assert_int_equal(h->messages, 0);
    /* And taken up again. */
    subscribe(h, "gone");
    assert_string_equal(redis_ask(&server, "PUBLISH halley:room:{gone} x"), "1");
    until_messages(h, 1);
}

/* Sends publishes in one go and waits for Redis' answers, while the broker's loop stands still. */
static void flood(const char *commands, size_t len, int replies)
{
    char chunk[65536];
    while (len > 0) {
        ssize_t n = send(server.control, commands, len, 0);
        assert_true(n > 0);
        commands += n;
        len -= (size_t)n;
    }
    while (replies > 0) {
        ssize_t n = recv(server.control, chunk, sizeof(chunk), 0);
        assert_true(n > 0);
        for (ssize_t i = 0; i < n; i++)
            replies -= chunk[i] == '\n';
    }
}

static void high_message__overtakes_what_waits_on_the_normal_connection(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "a");
    /* Lets epoll forget who was ready last: then the normal connection is the first one that it reports. */
    harness_turns(h, 5);
    struct buf commands = {0};
    for (int i = 0; i < 20000; i++)
        buf_printf(&commands, "PUBLISH halley:room:{a} %0200d\r\n", i);
    buf_text(&commands, "PUBLISH halley:high:{a} urgent\r\n");
    flood(commands.data, commands.len, 20001);
    buf_fini(&commands);
    events_clear(h);
    until_messages(h, 20001);
    assert_int_equal(h->events[0].channel, BROKER_HIGH);
    for (int i = 1; i <= 20000; i++)
        assert_int_equal(strtol(h->events[i].payload, NULL, 10), 0);
}

static void held_reading__keeps_messages_until_resume(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "a");
    events_clear(h);
    h->hold[0] = true;
    for (int i = 0; i < 100; i++)
        redis_ask(&server, "PUBLISH halley:room:{a} %d", i);
    redis_ask(&server, "PUBLISH halley:high:{a} h");
    until_messages(h, 1);
    harness_for(h, 50);
    assert_int_equal(h->messages, 1);
    assert_int_equal(h->events[0].channel, BROKER_HIGH);
    h->hold[0] = false;
    broker_resume(h->broker);
    assert_int_equal(h->messages, 1);
    until_messages(h, 101);
    for (int i = 0; i < 100; i++)
        assert_int_equal(atoi(h->events[i + 1].payload), i);
}

static void past_broker_pending_or_output_bytes__publishes_are_refused(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    h->conf->broker.pending = 10;
    h->conf->broker.output_bytes = 64 * 1024;
    broker_set_conf(h->broker, h->conf);
    events_clear(h);
    for (uint64_t i = 0; i < 15; i++)
        assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), i),
                         i < 10 ? 0 : BROKER_ERR_FULL);
    until_published(h, 10);
    static char big[40000];
    memset(big, 'x', sizeof(big));
    assert_int_equal(broker_publish(h->broker, BROKER_ALL, BYTES_LIT(""), bytes_of(big, 40000), 1),
                     0);
    assert_int_equal(broker_publish(h->broker, BROKER_ALL, BYTES_LIT(""), bytes_of(big, 40000), 2),
                     BROKER_ERR_FULL);
    until_published(h, 11);
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_int_equal(stats.published, 11);
    assert_int_equal(stats.publish_failed, 6);
}

/* A dial on its own. */
struct call {
    struct redis_dial dial;
    struct redis_handles handles;
    struct broker_url url;
    struct redis_socket *socket;
    int error;
    bool done;
};

static void on_dialed(void *ctx, struct redis_socket *socket, const char *reason, int error)
{
    struct call *call = ctx;
    assert_true(socket || reason);
    call->socket = socket;
    call->error = error;
    call->done = true;
}

static void call_start(struct call *call, uv_loop_t *loop, const char *host, int port,
                       uint32_t limit_ms)
{
    *call = (struct call){.url.port = (uint16_t)port};
    snprintf(call->url.host, sizeof(call->url.host), "%s", host);
    call->dial.loop = loop;
    call->dial.handles = &call->handles;
    call->dial.url = &call->url;
    call->dial.on_done = on_dialed;
    call->dial.ctx = call;
    redis_dial_init(&call->dial);
    redis_dial_start(&call->dial, limit_ms);
}

static void call_end(struct call *call, uv_loop_t *loop)
{
    while (!call->done)
        uv_run(loop, UV_RUN_ONCE);
    redis_socket_close(call->socket);
    redis_dial_close(&call->dial);
    while (call->handles.open > 0)
        uv_run(loop, UV_RUN_ONCE);
}

static void name_with_several_addresses__is_tried_one_by_one(void **state)
{
    struct harness *h = *state;
    struct sockaddr_in closed;
    struct call call;
    call_start(&call, &h->loop, "localhost", server.port, 10000);
    /* The look-up's addresses come behind this one, where nobody listens. */
    assert_int_equal(uv_ip4_addr("127.0.0.1", free_port(), &closed), 0);
    memcpy(&call.dial.addresses[0], &closed, sizeof(closed));
    call.dial.count = 1;
    call_end(&call, &h->loop);
    assert_non_null(call.socket);
    assert_true(call.dial.next >= 2);
    harness_until(h, is_ready);
}

static void address_that_does_not_answer__is_given_up_in_time(void **state)
{
    struct harness *h = *state;
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    struct call call;
    int fillers[3];
    /* A listener whose queue is full: the kernel leaves further calls without an answer. */
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    for (int i = 0; i < 3; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof(address));
    }
    call_start(&call, &h->loop, "127.0.0.1", ntohs(address.sin_port), 200);
    call_end(&call, &h->loop);
    assert_null(call.socket);
    assert_int_equal(call.error, UV_ETIMEDOUT);
    for (int i = 0; i < 3; i++)
        close(fillers[i]);
    close(listener);
    harness_until(h, is_ready);
}

static void payload_of_any_bytes__arrives_whole(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "a");
    events_clear(h);
    static char big[1 << 20];
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)i;
    assert_int_equal(
        broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), bytes_of(big, sizeof(big)), 1), 0);
    assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT(""), 2), 0);
    until_messages(h, 2);
    int at = event_find(h, ON_MESSAGE, "a", 0);
    assert_int_equal(h->events[at].value, sizeof(big));
    assert_memory_equal(h->events[at].payload, big, 31);
    at = event_find(h, ON_MESSAGE, "a", 1);
    assert_int_equal(h->events[at].value, 0);
}

static void close_from_a_callback__ends_all_others(void **state)
{
    struct harness *h = *state;
    harness_until(h, is_ready);
    subscribe(h, "a");
    events_clear(h);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), i),
                         0);
    h->close_on_message = true;
    until_messages(h, 1);
    until_published(h, 10);
    assert_int_equal(h->messages, 1);
}

static void close_at_any_moment__frees_everything(void **state)
{
    struct harness *first = *state;
    static const char *const hosts[] = {"127.0.0.1", "localhost", "no-such-host.invalid"};
    for (int host = 0; host < 3; host++) {
        /* A look-up that nobody answers may take seconds: one of them is enough. */
        for (int turns = host == 2 ? 11 : 0; turns < 12; turns++) {
            struct harness h;
            char url[64];
            snprintf(url, sizeof(url), "redis://%s:%d", hosts[host], server.port);
            harness_init(&h, url);
            harness_open(&h);
            assert_int_equal(broker_subscribe(h.broker, BYTES_LIT("a")), 0);
            for (int i = 0; i < turns; i++)
                uv_run(&h.loop, host == 0 && i % 2 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
            harness_close(&h);
        }
    }
    harness_until(first, is_ready);
}

int test_redis(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(published_elsewhere__arrives_on_every_channel),
        CASE(own_publishes__are_confirmed_and_arrive_in_order),
        CASE(unsubscribed_room__is_left_at_redis),
        CASE(high_message__overtakes_what_waits_on_the_normal_connection),
        CASE(held_reading__keeps_messages_until_resume),
        CASE(past_broker_pending_or_output_bytes__publishes_are_refused),
        CASE(name_with_several_addresses__is_tried_one_by_one),
        CASE(address_that_does_not_answer__is_given_up_in_time),
        CASE(payload_of_any_bytes__arrives_whole),
        CASE(close_from_a_callback__ends_all_others),
        CASE(close_at_any_moment__frees_everything),
    };
#undef CASE
    return cmocka_run_group_tests_name("broker redis", tests, start, stop);
}
