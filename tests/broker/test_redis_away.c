/* The Redis backend when Redis dies, hangs, refuses, or is none. */
#include "harness.h"

#include "base/clock.h"
#include "lib/free_port.h"
#include "protocol/message.h"
#include "suites.h"

#include <stdlib.h>

enum {
    EVERY_LANE = 1 << LANE_HIGH | 1 << LANE_NORMAL | 1 << LANE_LOW,
    HIGH_LANE = 1 << LANE_HIGH,
    MANY_ROOMS = 2000
};

struct fixture {
    struct redis_server server;
    struct harness h;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    redis_stop(&f->server);
    free(f);
    return 0;
}

static void connect_with(struct fixture *f, const char *user)
{
    char url[128];
    snprintf(url, sizeof(url), "redis://%s127.0.0.1:%d", user, f->server.port);
    harness_init(&f->h, url);
}

static uint64_t wanted;

static bool has_subscribed(struct harness *h)
{
    return h->subscribed >= wanted;
}

static bool has_published(struct harness *h)
{
    return h->published >= wanted;
}

static void subscribe_many(struct fixture *f, int count)
{
    char name[32];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "r%d", i);
        assert_int_equal(broker_subscribe(f->h.broker, bytes_str(name)), 0);
    }
    wanted = f->h.subscribed + (uint64_t)count;
}

static int calls_of(struct redis_server *server, const char *command)
{
    char key[64];
    snprintf(key, sizeof(key), "cmdstat_%s:calls=", command);
    const char *at = strstr(redis_ask(server, "INFO commandstats"), key);
    return at ? atoi(at + strlen(key)) : 0;
}

static void killed_and_started_again__every_room_comes_back_with_a_gap(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    harness_open(h);
    harness_until(h, is_ready);
    subscribe_many(f, MANY_ROOMS);
    harness_until(h, has_subscribed);
    events_clear(h);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("r0"), BYTES_LIT("x"), i),
                         0);

    redis_stop(&f->server);
    harness_until(h, is_away);
    wanted = 5;
    harness_until(h, has_published);
    assert_int_equal(h->events[event_find(h, ON_PUBLISHED, NULL, 0)].result, BROKER_ERR_AWAY);
    assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("r0"), BYTES_LIT("x"), 9),
                     BROKER_ERR_AWAY);
    /* Wishes of the time without Redis. */
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("late")), 0);
    broker_unsubscribe(h->broker, BYTES_LIT("r1"));
    events_clear(h);

    redis_start(&f->server, f->server.port, "");
    harness_until(h, is_ready);
    assert_int_equal(h->subscribed, MANY_ROOMS);
    int ready = event_find(h, ON_READY, NULL, 0);
    for (int i = 0; i < MANY_ROOMS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "r%d", i);
        int gap = event_find(h, ON_GAP, name, 0);
        int subscribed = event_find(h, ON_SUBSCRIBED, name, 0);
        if (i == 1) {
            assert_int_equal(gap, -1);
            assert_int_equal(subscribed, -1);
            continue;
        }
        assert_true(gap >= 0 && gap < subscribed && subscribed < ready);
        assert_int_equal(h->events[gap].value, EVERY_LANE);
        assert_int_equal(event_find(h, ON_GAP, name, 1), -1);
    }
    assert_true(event_find(h, ON_GAP, "", 0) >= 0);
    assert_int_equal(event_find(h, ON_GAP, "late", 0), -1);
    assert_true(event_find(h, ON_SUBSCRIBED, "late", 0) >= 0);
    /* 2,003 channels on one connection and 2,000 on the other, at most 512 in a command. */
    int calls = calls_of(&f->server, "subscribe");
    assert_in_range(calls, 8, 12);
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_int_equal(stats.reconnects, 3);
    harness_close(h);
}

/* Kills the one client whose CLIENT LIST line says so. */
static void kill_client(struct redis_server *server, const char *with)
{
    char id[32] = "";
    const char *at = strstr(redis_ask(server, "CLIENT LIST TYPE pubsub"), with);
    assert_non_null(at);
    while (strncmp(at, "id=", 3) != 0)
        at--;
    snprintf(id, sizeof(id), "%.*s", (int)strcspn(at + 3, " "), at + 3);
    assert_string_equal(redis_ask(server, "CLIENT KILL ID %s", id), "1");
}

static void high_connection_lost__gives_gaps_of_the_high_lane(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    harness_open(h);
    harness_until(h, is_ready);
    subscribe_many(f, 3);
    harness_until(h, has_subscribed);
    events_clear(h);
    kill_client(&f->server, " sub=3 ");
    harness_until(h, is_away);
    harness_until(h, is_ready);
    assert_int_equal(h->subscribed, 3);
    for (int i = 0; i < 3; i++) {
        int gap = event_find(h, ON_GAP, NULL, i);
        assert_int_equal(h->events[gap].value, HIGH_LANE);
        assert_true(h->events[gap].room[0] == 'r');
    }
    assert_int_equal(event_find(h, ON_GAP, NULL, 3), -1);
    events_clear(h);
    kill_client(&f->server, " sub=6 ");
    harness_until(h, is_away);
    harness_until(h, is_ready);
    assert_int_equal(h->events[event_find(h, ON_GAP, "", 0)].value, EVERY_LANE);
    assert_int_equal(h->events[event_find(h, ON_GAP, "r0", 0)].value, EVERY_LANE);
    assert_int_equal(event_find(h, ON_GAP, NULL, 4), -1);
    harness_close(h);
}

static void connection_that_lasted__comes_back_after_the_shortest_backoff(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint64_t best = UINT64_MAX;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    h->conf->broker.silence_ms = 200;
    h->conf->broker.reply_timeout_ms = 5000;
    harness_open(h);
    harness_until(h, is_ready);
    for (int i = 0; i < 7; i++) {
        harness_for(h, 120);
        kill_client(&f->server, " sub=3 ");
        harness_until(h, is_away);
        uint64_t start = clock_ms();
        harness_until(h, is_ready);
        uint64_t took = clock_ms() - start;
        if (i >= 4 && took < best)
            best = took;
    }
    /* Had it gone on doubling, the fifth would take 400 ms at least, and each one after it twice as long. */
    assert_true(best < 400);
    harness_close(h);
}

static void stopped_redis__is_away_after_silence_and_reply_timeout(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    h->conf->broker.silence_ms = 200;
    h->conf->broker.reply_timeout_ms = 1000;
    harness_open(h);
    harness_until(h, is_ready);
    /* PINGs are answered, on connections with and without subscriptions: nothing happens. */
    for (int i = 0; i < 50 && calls_of(&f->server, "ping") <= 6; i++)
        harness_for(h, 100);
    assert_true(calls_of(&f->server, "ping") > 6);
    assert_true(h->ready);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    wanted = 1;
    harness_until(h, has_subscribed);
    harness_for(h, 500);
    assert_true(h->ready);

    uint64_t start = clock_ms();
    redis_halt(&f->server);
    harness_until(h, is_away);
    uint64_t took = clock_ms() - start;
    assert_in_range(took, 900, 6000);
    events_clear(h);
    /* Until every connection has noticed. */
    harness_for(h, 1500);
    redis_resume(&f->server);
    harness_until(h, is_ready);
    assert_true(event_find(h, ON_GAP, "a", 0) >= 0);
    harness_close(h);
}

static void unanswered_publish__fails_after_reply_timeout(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    h->conf->broker.reply_timeout_ms = 200;
    harness_open(h);
    harness_until(h, is_ready);
    redis_halt(&f->server);
    assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), 7), 0);
    wanted = 1;
    harness_until(h, has_published);
    const struct event *event = &h->events[event_find(h, ON_PUBLISHED, NULL, 0)];
    assert_int_equal(event->value, 7);
    assert_int_equal(event->result, BROKER_ERR_AWAY);
    assert_false(h->ready);
    redis_resume(&f->server);
    harness_close(h);
}

static void held_reading__is_no_silence_of_redis(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    h->conf->broker.silence_ms = 100;
    h->conf->broker.reply_timeout_ms = 300;
    harness_open(h);
    harness_until(h, is_ready);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    wanted = 1;
    harness_until(h, has_subscribed);
    h->hold[0] = h->hold[1] = true;
    redis_ask(&f->server, "PUBLISH halley:room:{a} x");
    redis_ask(&f->server, "PUBLISH halley:high:{a} x");
    harness_for(h, 900);
    assert_true(h->ready);
    h->hold[0] = h->hold[1] = false;
    broker_resume(h->broker);
    harness_for(h, 400);
    assert_true(h->ready);
    assert_int_equal(h->messages, 2);
    harness_close(h);
}

/* A server of the test's own, on the broker's loop. */
struct fake {
    uv_tcp_t listener;
    const char *answer; /* sent to whoever connects; NULL: closes at once; "": stays silent */
    int accepted;
    uv_tcp_t clients[64];
    uv_write_t writes[64];
};

static void on_connection(uv_stream_t *listener, int status)
{
    struct fake *fake = listener->data;
    assert_int_equal(status, 0);
    assert_true(fake->accepted < 64);
    uv_tcp_t *client = &fake->clients[fake->accepted];
    uv_tcp_init(listener->loop, client);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)client), 0);
    if (!fake->answer) {
        uv_close((uv_handle_t *)client, NULL);
    } else if (*fake->answer) {
        uv_buf_t text =
            uv_buf_init((char *)(uintptr_t)fake->answer, (unsigned)strlen(fake->answer));
        uv_write(&fake->writes[fake->accepted], (uv_stream_t *)client, &text, 1, NULL);
    }
    fake->accepted++;
}

static int fake_listen(struct fake *fake, uv_loop_t *loop, const char *answer)
{
    struct sockaddr_in address;
    int len = sizeof(address);
    *fake = (struct fake){.answer = answer};
    uv_tcp_init(loop, &fake->listener);
    fake->listener.data = fake;
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(&fake->listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&fake->listener, 64, on_connection), 0);
    uv_tcp_getsockname(&fake->listener, (struct sockaddr *)&address, &len);
    return ntohs(address.sin_port);
}

static void fake_close(struct fake *fake)
{
    uv_close((uv_handle_t *)&fake->listener, NULL);
    for (int i = 0; i < fake->accepted; i++) {
        if (!uv_is_closing((uv_handle_t *)&fake->clients[i]))
            uv_close((uv_handle_t *)&fake->clients[i], NULL);
    }
}

static struct fake fake;
static int calls_wanted;

static bool was_called(struct harness *h)
{
    (void)h;
    return fake.accepted >= calls_wanted;
}

/* Runs a broker against a fake server until it has been called so often, and then for a while more, within which it is not called again
 * where quiet_ms > 0; returns how long the calls took, in milliseconds. */
static uint64_t time_of_calls(const char *answer, uint32_t reply_timeout_ms, int calls,
                              uint64_t quiet_ms)
{
    static struct harness h;
    uint64_t start = clock_ms();
    harness_init(&h, "memory:");
    snprintf(h.conf->broker.url, sizeof(h.conf->broker.url), "redis://127.0.0.1:%d",
             fake_listen(&fake, &h.loop, answer));
    h.conf->broker.reply_timeout_ms = reply_timeout_ms;
    harness_open(&h);
    assert_int_equal(broker_subscribe(h.broker, BYTES_LIT("a")), 0);
    calls_wanted = calls;
    harness_until(&h, was_called);
    uint64_t took = clock_ms() - start;
    if (quiet_ms > 0) {
        harness_for(&h, quiet_ms);
        assert_int_equal(fake.accepted, calls);
    }
    assert_int_equal(h.count, 0);
    assert_int_equal(broker_publish(h.broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), 1),
                     BROKER_ERR_AWAY);
    fake_close(&fake);
    harness_close(&h);
    return took;
}

/* Steps of 50, 100, 200, 400 ms, each taken half to whole, lie between the fifth call of a connection and its first. */
enum { CONNS = 3, FIFTH = 5, BACKOFFS_MS = 25 + 50 + 100 + 200 };

static void server_that_accepts_and_never_answers__is_away(void **state)
{
    (void)state;
    assert_true(time_of_calls("", 100, CONNS * FIFTH, 0) >= BACKOFFS_MS + (FIFTH - 1) * 100);
    /* Within the time limit there is one attempt for each connection. */
    (void)time_of_calls("", 5000, CONNS, 700);
}

static void server_that_hangs_up__is_called_with_growing_backoff(void **state)
{
    (void)state;
    assert_true(time_of_calls(NULL, 3000, CONNS * FIFTH, 0) >= BACKOFFS_MS);
}

static void server_that_refuses_or_is_no_redis__is_away(void **state)
{
    (void)state;
    assert_true(time_of_calls("-LOADING Redis is loading the dataset in memory\r\n", 3000,
                              CONNS * FIFTH, 0) >= BACKOFFS_MS);
    assert_true(time_of_calls("HTTP/1.1 400 Bad Request\r\n\r\n", 3000, CONNS * FIFTH, 0) >=
                BACKOFFS_MS);
    assert_true(time_of_calls("+OK\r\n", 3000, CONNS * FIFTH, 0) >= BACKOFFS_MS);
    /* It greets, then confirms what nobody asked for. */
    assert_true(time_of_calls("+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", 3000,
                              CONNS * FIFTH, 0) >= BACKOFFS_MS);
}

static void unreachable_port__is_called_again_until_redis_is_there(void **state)
{
    struct fixture *f = *state;
    f->server.port = free_port();
    connect_with(f, "");
    harness_open(&f->h);
    assert_int_equal(broker_subscribe(f->h.broker, BYTES_LIT("a")), 0);
    harness_for(&f->h, 300);
    assert_int_equal(f->h.count, 0);
    redis_start(&f->server, f->server.port, "");
    harness_until(&f->h, is_ready);
    assert_int_equal(f->h.subscribed, 1);
    assert_int_equal(event_find(&f->h, ON_GAP, NULL, 0), -1);
    harness_close(&f->h);
}

static void password__is_given_and_a_wrong_one_leaves_redis_away(void **state)
{
    struct fixture *f = *state;
    static const char *const good[] = {":secret@", "default:secret@"};
    static const char *const bad[] = {"", ":wrong@", "nobody:secret@"};
    redis_start(&f->server, 0, "secret");
    for (int i = 0; i < 2; i++) {
        connect_with(f, good[i]);
        harness_open(&f->h);
        harness_until(&f->h, is_ready);
        harness_close(&f->h);
    }
    for (int i = 0; i < 3; i++) {
        connect_with(f, bad[i]);
        harness_open(&f->h);
        harness_for(&f->h, 300);
        assert_int_equal(f->h.count, 0);
        harness_close(&f->h);
    }
}

static void user_without_rights__publishes_are_refused_or_redis_is_away(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    redis_ask(&f->server, "ACL SETUSER reader on >p &halley:* +@all -publish");
    redis_ask(&f->server, "ACL SETUSER writer on >p &other:* +@all");
    connect_with(f, "reader:p@");
    harness_open(h);
    harness_until(h, is_ready);
    assert_int_equal(broker_publish(h->broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), 3), 0);
    wanted = 1;
    harness_until(h, has_published);
    assert_int_equal(h->events[event_find(h, ON_PUBLISHED, NULL, 0)].result, BROKER_ERR_REFUSED);
    assert_true(h->ready);
    harness_close(h);

    connect_with(f, "writer:p@");
    harness_open(h);
    harness_for(h, 600);
    assert_int_equal(h->count, 0);
    /* The backoff grows although Redis greets each time. */
    assert_in_range(calls_of(&f->server, "auth"), 5, 12);
    harness_close(h);
}

static void reply_past_the_bound__reconnects_with_a_gap(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    redis_start(&f->server, 0, "");
    connect_with(f, "");
    harness_open(h);
    harness_until(h, is_ready);
    assert_int_equal(broker_subscribe(h->broker, BYTES_LIT("a")), 0);
    wanted = 1;
    harness_until(h, has_subscribed);
    events_clear(h);
    assert_string_equal(redis_ask(&f->server,
                                  "EVAL \"return redis.call('publish','halley:room:{a}',"
                                  "string.rep('x',18*1024*1024))\" 0"),
                        "1");
    harness_until(h, is_away);
    harness_until(h, is_ready);
    assert_int_equal(h->messages, 0);
    assert_int_equal(h->events[event_find(h, ON_GAP, "a", 0)].value, EVERY_LANE);
    struct broker_stats stats;
    broker_get_stats(h->broker, &stats);
    assert_int_equal(stats.protocol_errors, 1);
    harness_close(h);
}

int test_redis_away(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(killed_and_started_again__every_room_comes_back_with_a_gap),
        CASE(high_connection_lost__gives_gaps_of_the_high_lane),
        CASE(connection_that_lasted__comes_back_after_the_shortest_backoff),
        CASE(stopped_redis__is_away_after_silence_and_reply_timeout),
        CASE(unanswered_publish__fails_after_reply_timeout),
        CASE(held_reading__is_no_silence_of_redis),
        CASE(server_that_accepts_and_never_answers__is_away),
        CASE(server_that_hangs_up__is_called_with_growing_backoff),
        CASE(server_that_refuses_or_is_no_redis__is_away),
        CASE(unreachable_port__is_called_again_until_redis_is_there),
        CASE(password__is_given_and_a_wrong_one_leaves_redis_away),
        CASE(user_without_rights__publishes_are_refused_or_redis_is_away),
        CASE(reply_past_the_bound__reconnects_with_a_gap),
    };
#undef CASE
    return cmocka_run_group_tests_name("broker redis away", tests, NULL, NULL);
}
