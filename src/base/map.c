#include "base/map.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { MAP_MIN_BUCKETS = 16 };

static uint64_t seed_a = 0x9e3779b97f4a7c15u;
static uint64_t seed_b = 0xd6e8feb86659fd93u;

void map_seed(void)
{
    uint64_t seeds[2];
    if (getrandom(seeds, sizeof(seeds), 0) != (ssize_t)sizeof(seeds))
        return;
    seed_a = seeds[0] | 1;
    seed_b = seeds[1] | 1;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint32_t map_hash(const void *key, size_t len)
{
    const char *at = key;
    uint64_t hash = seed_a ^ len;
    while (len >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = mix(hash ^ word, seed_b);
        at += 8;
        len -= 8;
    }
    uint64_t rest = 0;
    if (len > 0)
        memcpy(&rest, at, len);
    hash = mix(hash ^ rest, seed_b);
    hash = mix(hash, seed_a);
    return (uint32_t)(hash ^ (hash >> 32));
}

static int resize(struct map *map, uint32_t buckets)
{
    struct map_node **fresh = calloc(buckets, sizeof(struct map_node *));
    if (!fresh)
        return -1;
    uint32_t old = map->buckets ? map->mask + 1 : 0;
    for (uint32_t i = 0; i < old; i++) {
        struct map_node *node = map->buckets[i];
        while (node) {
            struct map_node *next = node->next;
            struct map_node **chain = &fresh[node->hash & (buckets - 1)];
            node->next = *chain;
            *chain = node;
            node = next;
        }
    }
    free(map->buckets);
    map->buckets = fresh;
    map->mask = buckets - 1;
    return 0;
}

int map_add(struct map *map, struct map_node *node, uint32_t hash)
{
    if (!map->buckets && resize(map, MAP_MIN_BUCKETS) != 0)
        return -1;
    if (map->count > map->mask)
        (void)resize(map, (map->mask + 1) * 2);
    struct map_node **chain = &map->buckets[hash & map->mask];
    node->hash = hash;
    node->next = *chain;
    *chain = node;
    map->count++;
    return 0;
}

void map_remove(struct map *map, struct map_node *node)
{
    struct map_node **at = &map->buckets[node->hash & map->mask];
    while (*at && *at != node)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = node->next;
    node->next = NULL;
    map->count--;
    if (map->mask + 1 > MAP_MIN_BUCKETS && map->count < (map->mask + 1) / 8)
        (void)resize(map, (map->mask + 1) / 2);
}

void map_each(const struct map *map, void (*visit)(void *ctx, struct map_node *node), void *ctx)
{
    if (!map->buckets)
        return;
    for (uint32_t i = 0; i <= map->mask; i++) {
        for (struct map_node *node = map->buckets[i]; node; node = node->next)
            visit(ctx, node);
    }
}

void map_fini(struct map *map)
{
    free(map->buckets);
    *map = (struct map){0};
}
