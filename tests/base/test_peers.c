#include "base/peers.h"
#include "base/test_base.h"
#include "lib/alloc.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct peer_limits strict = {.connections = 3, .rate = 10, .burst = 5, .entries = 100};

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(AF_INET, text, &in4->sin_addr) == 1)
        address.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        address.ss_family = AF_INET6;
    else
        fail_msg("no address: %s", text);
    return address;
}

static uint64_t network_of(const char *text)
{
    struct sockaddr_storage address = address_of(text);
    return peer_network(&address);
}

static void network__ipv4_counts_alone_and_ipv6_by_its_64(void **state)
{
    (void)state;
    assert_true(network_of("192.0.2.1") != network_of("192.0.2.2"));
    assert_true(network_of("192.0.2.1") == network_of("::ffff:192.0.2.1"));
    assert_true(network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_true(network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1"));
    assert_true(network_of("::1") != network_of("0.0.0.1"));
    assert_true(network_of("::1") != network_of("127.0.0.1"));
}

static void peers__connections_are_bounded_and_given_back(void **state)
{
    (void)state;
    struct peer_limits limits = strict;
    limits.rate = 0;
    struct peers peers = {0};
    struct peer *held[3];
    struct peer *more;
    for (int i = 0; i < 3; i++)
        assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &held[i]), PEER_OK);
    assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &more), PEER_TOO_MANY);
    assert_null(more);
    assert_int_equal(peers_admit(&peers, &limits, 2, 1000, &more), PEER_OK);
    peers_leave(&peers, more);
    peers_leave(&peers, held[1]);
    assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &held[1]), PEER_OK);
    assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &more), PEER_TOO_MANY);
    peers_leave(&peers, NULL);
    for (int i = 0; i < 3; i++)
        peers_leave(&peers, held[i]);
    peers_expire(&peers, 1000, 100);
    assert_int_equal(peers.map.count, 0);
    peers_fini(&peers);
}

static void peers__rate_is_bounded_and_a_refusal_is_not_counted(void **state)
{
    (void)state;
    struct peer_limits limits = strict;
    limits.connections = 100;
    struct peers peers = {0};
    struct peer *held[6];
    for (int i = 0; i < 5; i++)
        assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &held[i]), PEER_OK);
    assert_int_equal(peers_admit(&peers, &limits, 1, 1000, &held[5]), PEER_TOO_FAST);
    assert_null(held[5]);
    assert_int_equal(held[0]->connections, 5);
    assert_int_equal(peers_admit(&peers, &limits, 1, 1100, &held[5]), PEER_OK);
    for (int i = 0; i < 6; i++)
        peers_leave(&peers, held[i]);
    peers_fini(&peers);
}

static void peers__entries_vanish_when_nothing_would_be_forgotten(void **state)
{
    (void)state;
    struct peers peers = {0};
    struct peer *peer;
    for (int i = 0; i < 6; i++)
        (void)peers_admit(&peers, &(struct peer_limits){0, 10, 5, 100}, 1, 1000, &peer);
    assert_null(peer); /* nothing to give back without a bound of connections */
    peers_expire(&peers, 1001, 100);
    assert_int_equal(peers.map.count, 1); /* its debt is remembered */
    peers_expire(&peers, 1600, 100);
    assert_int_equal(peers.map.count, 0);
    assert_int_equal(peers_admit(&peers, &strict, 1, 2000, &peer), PEER_OK);
    peers_expire(&peers, 9000, 100);
    assert_int_equal(peers.map.count, 1); /* it is connected */
    peers_leave(&peers, peer);
    assert_int_equal(peers_admit(&peers, &strict, 1, 9000, &peer), PEER_OK);
    peers_expire(&peers, 19000, 100);
    assert_int_equal(peers.map.count, 1); /* it left and came back before the look */
    peers_leave(&peers, peer);
    peers_expire(&peers, 19000, 100);
    assert_int_equal(peers.map.count, 0);
    peers_fini(&peers);
}

static void peers__expire_does_bounded_work(void **state)
{
    (void)state;
    struct peers peers = {0};
    struct peer *peer;
    struct peer_limits limits = {.rate = 1, .burst = 60, .entries = 1000};
    for (uint64_t network = 1; network <= 50; network++)
        assert_int_equal(peers_admit(&peers, &limits, network, 1000, &peer), PEER_OK);
    peers_expire(&peers, 1000, 1000); /* all are in debt: each is looked at once */
    assert_int_equal(peers.map.count, 50);
    peers_expire(&peers, 3000, 20);
    assert_int_equal(peers.map.count, 30);
    peers_expire(&peers, 3000, 1000);
    assert_int_equal(peers.map.count, 0);
    peers_expire(&peers, 3000, 1000);
    peers_fini(&peers);
}

static void peers__past_the_bound_others_are_let_in_uncounted(void **state)
{
    (void)state;
    struct peer_limits limits = strict;
    limits.entries = 2;
    struct peers peers = {0};
    struct peer *peer;
    for (uint64_t network = 1; network <= 2; network++)
        assert_int_equal(peers_admit(&peers, &limits, network, 1000, &peer), PEER_OK);
    assert_int_equal(peers_admit(&peers, &limits, 3, 1000, &peer), PEER_UNCOUNTED);
    assert_null(peer);
    assert_int_equal(peers_admit(&peers, &limits, 2, 1000, &peer), PEER_OK);
    peers_fini(&peers);
}

static void peers__without_limits_or_memory_nothing_is_kept(void **state)
{
    (void)state;
    struct peers peers = {0};
    struct peer *peer;
    assert_int_equal(peers_admit(&peers, &(struct peer_limits){.entries = 9}, 1, 1000, &peer),
                     PEER_OK);
    assert_int_equal(peers.map.count, 0);
    for (unsigned n = 1; n <= 2; n++) { /* the entry, the table */
        alloc_fail_at(n);
        assert_int_equal(peers_admit(&peers, &strict, 1, 1000, &peer), PEER_UNCOUNTED);
        assert_null(peer);
    }
    alloc_fail_at(0);
    assert_int_equal(peers_admit(&peers, &strict, 1, 1000, &peer), PEER_OK);
    assert_true(peers_memory(&peers) > 0);
    peers_fini(&peers);
}

enum { THREADS = 4, TRIES = 100000, SHARED_BURST = 12345 };

struct taker {
    pthread_t thread;
    _Atomic uint32_t *bucket;
    uint32_t taken;
};

static void *take_many(void *arg)
{
    struct taker *taker = arg;
    for (int i = 0; i < TRIES; i++)
        taker->taken += bucket_take_shared(taker->bucket, 5000, 1000, 1000, SHARED_BURST) == 0;
    return NULL;
}

static void bucket__shared_by_threads_gives_each_token_once(void **state)
{
    (void)state;
    _Atomic uint32_t bucket = 0;
    struct taker takers[THREADS] = {{0}};
    uint32_t taken = 0;
    for (int i = 0; i < THREADS; i++) {
        takers[i].bucket = &bucket;
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_many, &takers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        taken += takers[i].taken;
    }
    assert_int_equal(taken, SHARED_BURST);
}

static void bucket__is_full_when_its_debt_has_passed(void **state)
{
    (void)state;
    struct bucket bucket = {0};
    assert_true(bucket_is_full(&bucket, 77));
    assert_int_equal(bucket_take(&bucket, 1000, 1, 1000, 3), 0);
    assert_false(bucket_is_full(&bucket, 1999));
    assert_true(bucket_is_full(&bucket, 2000));
}

int run_peers_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network__ipv4_counts_alone_and_ipv6_by_its_64),
        cmocka_unit_test(peers__connections_are_bounded_and_given_back),
        cmocka_unit_test(peers__rate_is_bounded_and_a_refusal_is_not_counted),
        cmocka_unit_test(peers__entries_vanish_when_nothing_would_be_forgotten),
        cmocka_unit_test(peers__expire_does_bounded_work),
        cmocka_unit_test(peers__past_the_bound_others_are_let_in_uncounted),
        cmocka_unit_test(peers__without_limits_or_memory_nothing_is_kept),
        cmocka_unit_test(bucket__shared_by_threads_gives_each_token_once),
        cmocka_unit_test(bucket__is_full_when_its_debt_has_passed),
    };
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
