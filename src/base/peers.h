/* peers.h: what one network address has open and asks for: the limits of admission per address.
 *
 * An IPv4 address counts by itself, an IPv6 one by its /64: a household or phone has one, with 2^64 addresses in it. An entry
 * exists while the address has counted connections or its bucket is not full again; a refused connection of a known address
 * allocates nothing. One table per worker, without locks: server.accept = ip-hash leads an address to always the same worker.
 *
 * Path:      listener -> [peers] -> viewer.
 * Threads:   the owner's thread.
 * Ownership: owns its entries; a viewer borrows its entry until peers_leave().
 * Limits:    `entries`; past it further addresses are let in uncounted, and the caller counts that.
 */
#pragma once

#include "base/bucket.h"
#include "base/map.h"

#include <stdbool.h>
#include <sys/socket.h>

struct peer {
    struct map_node node;
    uint64_t network;
    struct peer *next_idle;
    uint32_t connections : 31;
    uint32_t queued : 1; /* on the queue of those that may be forgotten */
    struct bucket rate;
};

_Static_assert(sizeof(struct peer) <= 40,
               "one address's byte budget: a viewer may have one to itself");

struct peers {
    struct map map;
    struct peer *oldest_idle;
    struct peer *newest_idle;
};

struct peer_limits {
    uint32_t connections; /* 0: no bound, nothing is counted */
    uint32_t rate;        /* a second; 0: no bound */
    uint32_t burst;
    uint32_t entries;
};

enum peer_verdict {
    PEER_OK,
    PEER_UNCOUNTED, /* let in: the table is full, or memory is out */
    PEER_TOO_MANY,  /* connections */
    PEER_TOO_FAST   /* rate */
};

/* The key of an address: IPv4 (mapped into IPv6 too) as ::ffff:a.b.c.d's lower half, IPv6 as its upper half. They can't meet:
 * 0000:0000:… to 0000:ffff:… is not given to anybody (RFC 4291 §2.4) but ::1, whose upper half is 0. Other families: 0. */
uint64_t peer_network(const struct sockaddr_storage *address);

/* Judges a new connection. *peer is what it is counted in, to be given to peers_leave(), or NULL. */
enum peer_verdict peers_admit(struct peers *peers, const struct peer_limits *limits,
                              uint64_t network, uint32_t now_ms, struct peer **peer);

/* The connection is over. NULL is fine. */
void peers_leave(struct peers *peers, struct peer *peer);

/* Looks at up to `most` entries that were left without connections, and frees those whose bucket is full again. */
void peers_expire(struct peers *peers, uint32_t now_ms, uint32_t most);

static inline size_t peers_memory(const struct peers *peers)
{
    return peers->map.count * sizeof(struct peer) +
           (peers->map.buckets ? (peers->map.mask + 1) * sizeof(struct map_node *) : 0);
}

/* Frees all entries; nobody may borrow one any more. */
void peers_fini(struct peers *peers);
