/* Commands and scripts on the Redis backend, against a real redis-server. */
#include "harness.h"

#include "broker/scripts.h"
#include "suites.h"

#include <stdlib.h>

/* The harness, a server, and what commands were answered with: "<token> <result> <value>;". */
struct fixture {
    struct redis_server server;
    struct harness h;
    struct buf seen;
    uint64_t answers;
    uint64_t ask_again; /* how often on_answer asks once more */
};

static uint64_t wanted;
static struct fixture *current;

static bool has_answers(struct harness *h)
{
    (void)h;
    return current->answers >= wanted;
}

static void until_answers(struct fixture *f, uint64_t count)
{
    wanted = count;
    harness_until(&f->h, has_answers);
}

static void print(const struct broker_value *value, struct buf *out)
{
    if (value->kind == BROKER_INTEGER)
        buf_printf(out, "%d", (int)value->integer);
    else if (value->kind == BROKER_NIL)
        BUF_LIT(out, "nil");
    else if (value->kind != BROKER_ARRAY)
        buf_bytes(out, value->text);
    else
        BUF_LIT(out, "[");
    for (uint32_t i = 0; i < value->count; i++) {
        if (i > 0)
            BUF_LIT(out, " ");
        print(&value->items[i], out);
    }
    if (value->kind == BROKER_ARRAY)
        BUF_LIT(out, "]");
}

static int call(struct fixture *f, const char *words, uint64_t token);

static void on_answer(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct fixture *f = owner;
    assert_non_null(value);
    f->answers++;
    buf_printf(&f->seen, "%d %d ", (int)token, result);
    print(value, &f->seen);
    BUF_LIT(&f->seen, ";");
    if (f->ask_again > 0) {
        f->ask_again--;
        assert_int_equal(call(f, "PING", token + 1), result);
    }
}

/* A command of words, split at blanks. */
static int call(struct fixture *f, const char *words, uint64_t token)
{
    struct bytes args[8];
    uint32_t count = 0;
    while (*words) {
        size_t len = strcspn(words, " ");
        args[count++] = bytes_of(words, len);
        words += len + (words[len] == ' ');
    }
    return broker_call(f->h.broker, args, count, on_answer, f, token);
}

static void expect_seen(struct fixture *f, const char *text)
{
    buf_byte(&f->seen, '\0');
    assert_string_equal(f->seen.data, text);
    buf_clear(&f->seen);
}

static int setup(void **state)
{
    char url[64];
    struct fixture *f = calloc(1, sizeof(struct fixture));
    assert_non_null(f);
    *state = current = f;
    redis_start(&f->server, 0, "");
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", f->server.port);
    harness_init(&f->h, url);
    harness_open(&f->h);
    harness_until(&f->h, is_ready);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->h.conf)
        harness_close(&f->h);
    redis_stop(&f->server);
    buf_fini(&f->seen);
    free(f);
    return 0;
}

static void command__is_answered_with_its_nested_value(void **state)
{
    struct fixture *f = *state;
    assert_true(broker_has_commands(f->h.broker));
    assert_string_equal(broker_prefix(f->h.broker), "halley");
    assert_int_equal(call(f, "XADD s 1-1 a b c d", 1), 0);
    assert_int_equal(call(f, "XADD s 1-2 e f", 2), 0);
    assert_int_equal(call(f, "XRANGE s - +", 3), 0);
    assert_int_equal(call(f, "GET nothing", 4), 0);
    assert_int_equal(f->answers, 0);
    until_answers(f, 4);
    expect_seen(f, "1 0 1-1;2 0 1-2;3 0 [[1-1 [a b c d]] [1-2 [e f]]];4 0 nil;");
    struct broker_stats stats;
    broker_get_stats(f->h.broker, &stats);
    assert_int_equal(stats.calls, 4);
    assert_int_equal(stats.call_failed, 0);
    assert_int_equal(stats.published, 0);
    assert_int_equal(stats.pending, 0);
}

static void refused_command__gives_redis_error_and_the_connection_lives(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call(f, "SET k v", 1), 0);
    assert_int_equal(call(f, "XLEN k", 2), 0);
    assert_int_equal(call(f, "GET k", 3), 0);
    until_answers(f, 3);
    expect_seen(f, "1 0 OK;2 -5303 WRONGTYPE Operation against a key holding the wrong kind of "
                   "value;3 0 v;");
    struct broker_stats stats;
    broker_get_stats(f->h.broker, &stats);
    assert_int_equal(stats.reconnects, 0);
    assert_int_equal(stats.call_failed, 1);
}

static bool all_answered(struct harness *h)
{
    return current->answers >= 1000 && h->published >= 1000;
}

static void commands_and_publishes__keep_their_order(void **state)
{
    struct fixture *f = *state;
    char words[64];
    assert_int_equal(call(f, "SET n 0", 0), 0);
    for (uint64_t i = 1; i < 1000; i++) {
        assert_int_equal(
            broker_publish(f->h.broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), i), 0);
        snprintf(words, sizeof(words), "INCR n");
        assert_int_equal(call(f, words, i), 0);
    }
    assert_int_equal(broker_publish(f->h.broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), 1000),
                     0);
    harness_until(&f->h, all_answered);
    struct buf expected = {0};
    BUF_LIT(&expected, "0 0 OK;");
    for (int i = 1; i < 1000; i++)
        buf_printf(&expected, "%d 0 %d;", i, i);
    buf_byte(&expected, '\0');
    expect_seen(f, expected.data);
    buf_fini(&expected);
    int64_t token = 0;
    for (size_t i = 0; i < f->h.count; i++) {
        if (f->h.events[i].kind == ON_PUBLISHED)
            assert_int_equal(f->h.events[i].value, ++token);
    }
}

/* Runs queue.lua with a stream of at most `most` entries. */
static int queue(struct fixture *f, const char *key, const char *data, const char *most,
                 uint64_t token)
{
    char name[64];
    snprintf(name, sizeof(name), "halley:dedupe:{q}:1:a:%s", key);
    const struct bytes keys[] = {BYTES_LIT("halley:queue:{q}"), bytes_str(name)};
    const struct bytes args[] = {bytes_str(most),   BYTES_LIT("60000"), BYTES_LIT("42"),
                                 BYTES_LIT("gift"), BYTES_LIT("a"),     bytes_str(data),
                                 bytes_str(key),    BYTES_LIT("n1"),    BYTES_LIT("1700000000000")};
    return broker_eval(f->h.broker, &script_queue, keys, *key ? 2 : 1, args, 9, on_answer, f,
                       token);
}

static void script_redis_does_not_know__runs_all_the_same(void **state)
{
    struct fixture *f = *state;
    for (int round = 0; round < 2; round++) {
        /* All of these are on their way before the first answer, which is NOSCRIPT in the second round. */
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(queue(f, "", "{}", "1000", i), 0);
        until_answers(f, 100);
        struct broker_stats stats;
        broker_get_stats(f->h.broker, &stats);
        assert_int_equal(stats.call_failed, 0);
        assert_int_equal(stats.pending, 0);
        assert_string_equal(redis_ask(&f->server, "XLEN halley:queue:{q}"), round ? "200" : "100");
        f->answers = 0;
        assert_string_equal(redis_ask(&f->server, "SCRIPT FLUSH"), "OK");
    }
}

/* Runs publish.lua for room a. */
static int publish_numbered(struct fixture *f, const char *message, uint64_t token)
{
    const struct bytes keys[] = {BYTES_LIT("halley:seq:{a}"), BYTES_LIT("halley:history:{a}:low")};
    const struct bytes args[] = {BYTES_LIT("low"),   BYTES_LIT("halley:room:{a}"),
                                 bytes_str(message), BYTES_LIT("100"),
                                 BYTES_LIT("60000"), BYTES_LIT("60000")};
    return broker_eval(f->h.broker, &script_publish, keys, 2, args, 6, on_answer, f, token);
}

static bool four_came(struct harness *h)
{
    return h->messages >= 4;
}

static bool is_numbered(const struct harness *h, int n)
{
    int at = event_find(h, ON_MESSAGE, "a", n);
    return strncmp(h->events[at].payload, "{\"id\":\"l.", 9) == 0;
}

static void new_connection__runs_scripts_in_order_with_publishes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(broker_subscribe(f->h.broker, BYTES_LIT("a")), 0);
    for (int round = 0; round < 2; round++) {
        harness_until(&f->h, is_ready);
        events_clear(&f->h);
        f->answers = 0;
        assert_int_equal(publish_numbered(f, "{\"type\":\"x\"}", 1), 0);
        assert_int_equal(
            broker_publish(f->h.broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("x"), 2), 0);
        assert_int_equal(publish_numbered(f, "{\"type\":\"y\"}", 3), 0);
        assert_int_equal(
            broker_publish(f->h.broker, BROKER_ROOM, BYTES_LIT("a"), BYTES_LIT("y"), 4), 0);
        harness_until(&f->h, four_came);
        for (int i = 0; i < 4; i++)
            assert_int_equal(is_numbered(&f->h, i), i % 2 == 0);
        until_answers(f, 2);
        /* It forgets all scripts; what is asked next must not be overtaken. */
        redis_stop(&f->server);
        harness_until(&f->h, is_away);
        redis_start(&f->server, f->server.port, "");
    }
}

static void refused_script__goes_with_its_text_again(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(redis_ask(&f->server, "ACL SETUSER default -eval"), "OK");
    assert_int_equal(publish_numbered(f, "{\"type\":\"x\"}", 1), 0);
    until_answers(f, 1);
    assert_string_equal(redis_ask(&f->server, "ACL SETUSER default +eval -evalsha"), "OK");
    assert_int_equal(publish_numbered(f, "{\"type\":\"x\"}", 2), 0);
    until_answers(f, 2);
    struct broker_stats stats;
    broker_get_stats(f->h.broker, &stats);
    assert_int_equal(stats.calls, 1);
    assert_string_equal(redis_ask(&f->server, "HGET halley:seq:{a} low"), "1");
}

static void queue_script__adds_a_key_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(queue(f, "k1", "{}", "2", 1), 0);
    until_answers(f, 1);
    /* "1 0 [added <id>];" */
    buf_byte(&f->seen, '\0');
    char id[64] = "";
    assert_int_equal(sscanf(f->seen.data, "1 0 [added %63[0-9-]];", id), 1);
    buf_clear(&f->seen);
    assert_int_equal(queue(f, "k1", "{}", "2", 2), 0);
    assert_int_equal(queue(f, "k1", "{ }", "2", 3), 0);
    assert_int_equal(queue(f, "", "{}", "2", 4), 0);
    assert_int_equal(queue(f, "", "{}", "2", 5), 0);
    assert_int_equal(queue(f, "k1", "{}", "2", 6), 0);
    until_answers(f, 6);
    buf_byte(&f->seen, '\0');
    char second[64] = "";
    char expected[256];
    const char *added = strstr(f->seen.data, "4 0 [added ");
    assert_non_null(added);
    assert_int_equal(sscanf(added, "4 0 [added %63[0-9-]];", second), 1);
    snprintf(expected, sizeof(expected),
             "2 0 [repeat %s];3 0 [other];4 0 [added %s];5 0 [full];6 0 [repeat %s];", id, second,
             id);
    assert_string_equal(f->seen.data, expected);
    assert_string_equal(redis_ask(&f->server, "XLEN halley:queue:{q}"), "2");
}

static void bounds__refuse_at_once(void **state)
{
    struct fixture *f = *state;
    static char big[4096];
    memset(big, 'x', sizeof(big) - 1);
    f->h.conf->broker.pending = 3;
    broker_set_conf(f->h.broker, f->h.conf);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(call(f, "PING", i), 0);
    assert_int_equal(call(f, "PING", 9), BROKER_ERR_FULL);
    assert_int_equal(queue(f, "", "{}", "2", 9), BROKER_ERR_FULL);
    assert_int_equal(broker_publish(f->h.broker, BROKER_ALL, BYTES_LIT(""), BYTES_LIT("x"), 9),
                     BROKER_ERR_FULL);
    until_answers(f, 3);
    /* A script's arguments count until its answer, even when they are sent. */
    f->h.conf->broker.pending = 1000;
    f->h.conf->broker.output_bytes = 16 * 1024;
    broker_set_conf(f->h.broker, f->h.conf);
    redis_halt(&f->server);
    int accepted = 0;
    while (accepted < 100 && queue(f, "", big, "1000", 100) == 0) {
        accepted++;
        harness_turns(&f->h, 2);
    }
    redis_resume(&f->server);
    assert_in_range(accepted, 2, 3);
    until_answers(f, 3 + (uint64_t)accepted);
    assert_int_equal(queue(f, "", big, "1000", 101), 0);
    until_answers(f, 4 + (uint64_t)accepted);
}

static void lost_connection__answers_each_once(void **state)
{
    struct fixture *f = *state;
    redis_halt(&f->server);
    assert_int_equal(call(f, "PING", 1), 0);
    assert_int_equal(queue(f, "k", "{}", "9", 2), 0);
    harness_turns(&f->h, 3);
    assert_int_equal(call(f, "PING", 3), 0);
    f->ask_again = 1; /* from inside the first answer: refused at once with the same */
    redis_stop(&f->server);
    until_answers(f, 3);
    harness_until(&f->h, is_away);
    expect_seen(f, "1 -5301 nil;2 -5301 nil;3 -5301 nil;");
    assert_int_equal(call(f, "PING", 4), BROKER_ERR_AWAY);
    redis_start(&f->server, f->server.port, "");
    harness_until(&f->h, is_ready);
    assert_int_equal(call(f, "PING", 5), 0);
    until_answers(f, 4);
    expect_seen(f, "5 0 PONG;");
}

static void closing__answers_what_waits(void **state)
{
    struct fixture *f = *state;
    redis_halt(&f->server);
    assert_int_equal(call(f, "PING", 1), 0);
    assert_int_equal(queue(f, "", "{}", "9", 2), 0);
    f->ask_again = 2;
    harness_close(&f->h);
    f->h.conf = NULL;
    expect_seen(f, "1 -5301 nil;2 -5301 nil;");
}

int test_calls(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(command__is_answered_with_its_nested_value),
        CASE(refused_command__gives_redis_error_and_the_connection_lives),
        CASE(commands_and_publishes__keep_their_order),
        CASE(script_redis_does_not_know__runs_all_the_same),
        CASE(new_connection__runs_scripts_in_order_with_publishes),
        CASE(refused_script__goes_with_its_text_again),
        CASE(queue_script__adds_a_key_once),
        CASE(bounds__refuse_at_once),
        CASE(lost_connection__answers_each_once),
        CASE(closing__answers_what_waits),
    };
#undef CASE
    return cmocka_run_group_tests_name("broker calls", tests, NULL, NULL);
}
