/* map.h: an intrusive chained hash table for names (rooms, users).
 *
 * A table of pointers and one 16-byte handle in each object: the objects exist once per viewer or per idle room and
 * have byte budgets that uthash's 56-byte handle does not fit (docs/design/2026-11-gateway.md). Hashes are seeded
 * once per process with random bytes, so nobody outside can choose names that collide.
 *
 * Threads:   one owner's thread.
 * Ownership: owns the bucket array; borrows the objects.
 * Limits:    doubles past one object per bucket, halves below an eighth; when memory is out it stays as it is.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map_node {
    struct map_node *next;
    uint32_t hash;
};

struct map {
    struct map_node **buckets;
    uint32_t mask;
    uint32_t count;
};

/* Draws the process's seed. Call once, before any map_hash(). */
void map_seed(void);

/* Returns the seeded hash of len bytes (SipHash-like mixing is not needed: the seed is secret and 64 bits wide). */
uint32_t map_hash(const void *key, size_t len);

/* Adds a node whose hash is set by the call. Returns 0, or -1 when there was no memory for the first buckets. */
int map_add(struct map *map, struct map_node *node, uint32_t hash);

/* Removes a node that is in the map. */
void map_remove(struct map *map, struct map_node *node);

/* First node of the chain for a hash; go on with ->next and compare ->hash and the key. */
static inline struct map_node *map_chain(const struct map *map, uint32_t hash)
{
    return map->buckets ? map->buckets[hash & map->mask] : NULL;
}

/* Calls visit(ctx, node) for every node; visit may not change the map. */
void map_each(const struct map *map, void (*visit)(void *ctx, struct map_node *node), void *ctx);

void map_fini(struct map *map);
