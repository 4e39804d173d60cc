#include "policy/limiter.h"

#include "base/bucket.h"

#include <stdlib.h>

enum { FULL_WAIT_MS = 1000, LOOKS_WHEN_FULL = 64 };

struct entry {
    struct map_node node;
    struct link order;
    struct bucket bucket;
    uint8_t name_len;
    char name[];
};

void limiter_init(struct limiter *limiter)
{
    limiter->entries = (struct map){0};
    list_init(&limiter->order);
}

static struct entry *find(const struct limiter *limiter, struct bytes name, uint32_t hash)
{
    for (struct map_node *at = map_chain(&limiter->entries, hash); at; at = at->next) {
        struct entry *entry = CONTAINER_OF(at, struct entry, node);
        if (at->hash == hash && bytes_equal(bytes_of(entry->name, entry->name_len), name))
            return entry;
    }
    return NULL;
}

static struct entry *add(struct limiter *limiter, struct bytes name, uint32_t hash)
{
    struct entry *entry = malloc(sizeof(*entry) + name.len);
    if (!entry)
        return NULL;
    *entry = (struct entry){.name_len = (uint8_t)name.len};
    memcpy(entry->name, name.data, name.len);
    list_init(&entry->order);
    if (map_add(&limiter->entries, &entry->node, hash) != 0) {
        free(entry);
        return NULL;
    }
    list_append(&limiter->order, &entry->order);
    return entry;
}

uint32_t limiter_take(struct limiter *limiter, const struct limiter_policy *policy,
                      struct bytes name, uint32_t now_ms)
{
    if (policy->rate == 0)
        return 0;
    uint32_t hash = map_hash(name.data, name.len);
    struct entry *entry = find(limiter, name, hash);
    if (!entry) {
        if (limiter->entries.count >= policy->entries)
            limiter_expire(limiter, now_ms, LOOKS_WHEN_FULL);
        entry = limiter->entries.count < policy->entries ? add(limiter, name, hash) : NULL;
        if (!entry)
            return FULL_WAIT_MS;
    }
    return bucket_take(&entry->bucket, now_ms, policy->rate, 1000, policy->burst);
}

void limiter_expire(struct limiter *limiter, uint32_t now_ms, uint32_t count)
{
    if (count > limiter->entries.count)
        count = limiter->entries.count;
    for (; count > 0; count--) {
        struct link *link = list_shift(&limiter->order);
        struct entry *entry = CONTAINER_OF(link, struct entry, order);
        if (bucket_is_full(&entry->bucket, now_ms)) {
            map_remove(&limiter->entries, &entry->node);
            free(entry);
        } else {
            list_append(&limiter->order, link);
        }
    }
}

void limiter_fini(struct limiter *limiter)
{
    struct link *link;
    while ((link = list_shift(&limiter->order)))
        free(CONTAINER_OF(link, struct entry, order));
    map_fini(&limiter->entries);
}
