#include "base/peers.h"

#include "base/list.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static uint64_t of_ipv4(const void *address)
{
    uint32_t number;
    memcpy(&number, address, sizeof(number));
    return 0xffff00000000u | ntohl(number);
}

uint64_t peer_network(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return of_ipv4(&((const struct sockaddr_in *)address)->sin_addr);
    if (address->ss_family != AF_INET6)
        return 0;
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(in6))
        return of_ipv4(&in6->s6_addr[12]);
    uint64_t upper = 0;
    for (int i = 0; i < 8; i++)
        upper = upper << 8 | in6->s6_addr[i];
    return upper;
}

static struct peer *find(const struct peers *peers, uint64_t network, uint32_t hash)
{
    for (struct map_node *node = map_chain(&peers->map, hash); node; node = node->next) {
        struct peer *peer = CONTAINER_OF(node, struct peer, node);
        if (peer->network == network)
            return peer;
    }
    return NULL;
}

static void queue_idle(struct peers *peers, struct peer *peer)
{
    if (peer->queued)
        return;
    peer->queued = 1;
    peer->next_idle = NULL;
    if (peers->newest_idle)
        peers->newest_idle->next_idle = peer;
    else
        peers->oldest_idle = peer;
    peers->newest_idle = peer;
}

static struct peer *add(struct peers *peers, uint64_t network, uint32_t hash, uint32_t entries)
{
    struct peer *peer = peers->map.count < entries ? calloc(1, sizeof(*peer)) : NULL;
    if (!peer)
        return NULL;
    peer->network = network;
    if (map_add(&peers->map, &peer->node, hash) != 0) {
        free(peer);
        return NULL;
    }
    return peer;
}

enum peer_verdict peers_admit(struct peers *peers, const struct peer_limits *limits,
                              uint64_t network, uint32_t now_ms, struct peer **peer)
{
    *peer = NULL;
    if (limits->connections == 0 && limits->rate == 0)
        return PEER_OK;
    uint32_t hash = map_hash(&network, sizeof(network));
    struct peer *found = find(peers, network, hash);
    if (found && limits->connections > 0 && found->connections >= limits->connections)
        return PEER_TOO_MANY;
    if (!found && !(found = add(peers, network, hash, limits->entries)))
        return PEER_UNCOUNTED;
    bool pass = limits->rate == 0 ||
                bucket_take(&found->rate, now_ms, limits->rate, 1000, limits->burst) == 0;
    if (pass && limits->connections > 0) {
        found->connections = (found->connections + 1) & INT32_MAX;
        *peer = found;
    }
    if (found->connections == 0)
        queue_idle(peers, found);
    return pass ? PEER_OK : PEER_TOO_FAST;
}

void peers_leave(struct peers *peers, struct peer *peer)
{
    if (!peer)
        return;
    peer->connections = (peer->connections - 1) & INT32_MAX;
    if (peer->connections == 0)
        queue_idle(peers, peer);
}

void peers_expire(struct peers *peers, uint32_t now_ms, uint32_t most)
{
    struct peer *last = peers->newest_idle;
    for (bool more = last; more && most > 0; most--) {
        struct peer *peer = peers->oldest_idle;
        more = peer != last; /* those that are put back wait for the next look */
        peers->oldest_idle = peer->next_idle;
        if (!peers->oldest_idle)
            peers->newest_idle = NULL;
        peer->queued = 0;
        if (peer->connections > 0)
            continue;
        if (!bucket_is_full(&peer->rate, now_ms)) {
            queue_idle(peers, peer);
            continue;
        }
        map_remove(&peers->map, &peer->node);
        free(peer);
    }
}

void peers_fini(struct peers *peers)
{
    for (uint32_t i = 0; peers->map.buckets && i <= peers->map.mask; i++) {
        struct map_node *node = peers->map.buckets[i];
        while (node) {
            struct map_node *next = node->next;
            free(CONTAINER_OF(node, struct peer, node));
            node = next;
        }
    }
    map_fini(&peers->map);
    *peers = (struct peers){0};
}
