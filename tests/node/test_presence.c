/* Who is online, as the node knows it from a real Redis. */
#include "node/site.h"
#include "node/test_node.h"

#include "base/clock.h"
#include "lib/alloc.h"
#include "node/presence.h"

enum { DEAD_NODES = 8, FAILURES = 60 };

static bool answered;
static const struct held *room;

static void on_pong(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    (void)owner;
    (void)token;
    (void)result;
    (void)value;
    answered = true;
}

static bool is_answered(const struct site *site)
{
    (void)site;
    return answered;
}

static bool is_ready(const struct site *site)
{
    return site->node->broker_ready;
}

static bool is_read(const struct site *site)
{
    (void)site;
    return room->known;
}

/* Everything that was asked before is answered. */
static void settle(struct site *site)
{
    const struct bytes ping = BYTES_LIT("PING");
    answered = false;
    while (broker_call(site->node->broker, &ping, 1, on_pong, site, 0) != 0)
        alloc_fail_at(0);
    site_until(site, is_answered);
    alloc_fail_at(0);
    site_until(site, is_ready);
}

/* Nodes that are dead and one that is not. */
static void add_nodes(struct site *site)
{
    unsigned long long now = clock_unix_ms();
    for (int i = 0; i < DEAD_NODES; i++)
        redis_ask(&site->redis, "ZADD halley:nodes %llu \"dead-%d-%050d boot\"", now - 1000, i, i);
    redis_ask(&site->redis, "ZADD halley:nodes %llu \"there boot\"", now + 60000);
}

/* Their viewers in the room. Whoever reads takes those of dead nodes out. */
static void add_viewers(struct site *site)
{
    for (int i = 0; i < DEAD_NODES; i++)
        redis_ask(&site->redis, "HSET halley:online:{a} \"dead-%d-%050d boot\" 5", i, i);
    redis_ask(&site->redis, "HSET halley:online:{a} \"there boot\" 3");
}

/* One tick with a sign of life, in which the n-th allocation fails, and one that reads the room again. */
static uint32_t read_others(struct site *site, unsigned n)
{
    struct held *held = dispatch_find(site->node, BYTES_LIT("a"));
    room = held;
    alloc_fail_at(n);
    presence_tick(site->node);
    settle(site);
    add_viewers(site);
    presence_begin(site->node, held);
    presence_tick(site->node);
    site_until(site, is_read);
    return held->others;
}

static void presence__dead_nodes_stay_known_when_memory_is_out(void **state)
{
    (void)state;
    static const char *const overrides[] = {"presence.interval=1s", "presence.timeout=30s", NULL};
    struct site *site = site_open(overrides);
    assert_int_equal(presence_create(site->node), 0);
    site_hold(site, "a");
    add_nodes(site);
    read_others(site, 0); /* Redis gets to know the scripts */
    assert_int_equal(read_others(site, 0), 3);
    for (unsigned n = 1; n <= FAILURES; n++)
        assert_int_equal(read_others(site, n), 3);
    settle(site);
    presence_destroy(site->node);
    site_close(site);
}

int run_presence_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presence__dead_nodes_stay_known_when_memory_is_out),
    };
    return cmocka_run_group_tests_name("presence", tests, NULL, NULL);
}
