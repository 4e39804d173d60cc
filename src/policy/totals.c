#include "policy/totals.h"

#include "policy/merge.h"

#include <stdlib.h>

struct entry {
    struct map_node node;
    struct link order;
    uint64_t total;
    uint64_t added_ms;
    uint8_t room_len;
    uint8_t name_len;
    char name[]; /* room, type */
};

void totals_init(struct totals *totals)
{
    totals->entries = (struct map){0};
    list_init(&totals->order);
}

static void forget(struct totals *totals, struct entry *entry)
{
    list_remove(&entry->order);
    map_remove(&totals->entries, &entry->node);
    free(entry);
}

static struct entry *find(const struct totals *totals, struct bytes name, size_t room_len,
                          uint32_t hash)
{
    for (struct map_node *at = map_chain(&totals->entries, hash); at; at = at->next) {
        struct entry *entry = CONTAINER_OF(at, struct entry, node);
        if (at->hash == hash && entry->room_len == room_len &&
            bytes_equal(bytes_of(entry->name, entry->name_len), name))
            return entry;
    }
    return NULL;
}

static struct entry *add(struct totals *totals, struct bytes name, size_t room_len, uint32_t hash,
                         uint32_t most)
{
    if (totals->entries.count >= most)
        forget(totals, CONTAINER_OF(totals->order.next, struct entry, order));
    struct entry *entry = calloc(1, sizeof(*entry) + name.len);
    if (!entry)
        return NULL;
    entry->room_len = (uint8_t)room_len;
    entry->name_len = (uint8_t)name.len;
    memcpy(entry->name, name.data, name.len);
    list_init(&entry->order);
    if (map_add(&totals->entries, &entry->node, hash) != 0) {
        free(entry);
        return NULL;
    }
    return entry;
}

uint64_t totals_add(struct totals *totals, struct bytes room, struct bytes type, uint64_t delta,
                    uint64_t now_ms, uint32_t most)
{
    char text[ROOM_NAME_MAX + TYPE_NAME_MAX];
    memcpy(text, room.data, room.len);
    memcpy(text + room.len, type.data, type.len);
    struct bytes name = bytes_of(text, room.len + type.len);
    uint32_t hash = map_hash(name.data, name.len);
    struct entry *entry = find(totals, name, room.len, hash);
    if (!entry)
        entry = add(totals, name, room.len, hash, most);
    if (!entry)
        return delta;
    list_remove(&entry->order);
    list_append(&totals->order, &entry->order);
    entry->added_ms = now_ms;
    entry->total = delta > MERGE_VALUE_MAX - entry->total ? MERGE_VALUE_MAX : entry->total + delta;
    return entry->total;
}

void totals_expire(struct totals *totals, uint64_t now_ms, uint32_t ttl_ms)
{
    while (!list_empty(&totals->order)) {
        struct entry *entry = CONTAINER_OF(totals->order.next, struct entry, order);
        if (now_ms - entry->added_ms < ttl_ms)
            return;
        forget(totals, entry);
    }
}

void totals_fini(struct totals *totals)
{
    while (!list_empty(&totals->order))
        forget(totals, CONTAINER_OF(totals->order.next, struct entry, order));
    map_fini(&totals->entries);
}
