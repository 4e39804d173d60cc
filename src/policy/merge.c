#include "policy/merge.h"

#include "json/json.h"

#include <stdlib.h>

enum { DATA_DEPTH = JSON_DEPTH_MAX }; /* the message was checked as a whole before */

static int read_field(struct json_span value, uint64_t max, uint64_t *amount)
{
    uint64_t number = 1;
    if (value.kind != JSON_ABSENT && !json_uint53(value, &number))
        return MERGE_ERR_DATA;
    if (number > max)
        return MERGE_ERR_VALUE;
    *amount = number;
    return 0;
}

int merge_read_amount(struct bytes data, const char *field, uint64_t max, uint64_t *amount)
{
    struct json_field fields[1] = {{.name = field}};
    if (data.len > 0 && json_object(data, DATA_DEPTH, fields, 1) != JSON_OK)
        return MERGE_ERR_DATA;
    return read_field(fields[0].value, max, amount);
}

int merge_read_sum(struct bytes data, const char *field, struct merge_sum *sum)
{
    enum { FIELD, DELTA, TOTAL, COUNT };
    struct json_field fields[COUNT] = {
        [FIELD] = {.name = field}, [DELTA] = {.name = "delta"}, [TOTAL] = {.name = "total"}};
    struct merge_sum read = {0};
    if (data.len > 0 && json_object(data, DATA_DEPTH, fields, COUNT) != JSON_OK)
        return MERGE_ERR_DATA;
    struct json_span amount = fields[fields[DELTA].value.kind != JSON_ABSENT ? DELTA : FIELD].value;
    int error = read_field(amount, MERGE_VALUE_MAX, &read.delta);
    if (error)
        return error;
    read.has_total = fields[TOTAL].value.kind != JSON_ABSENT;
    if (read.has_total && !json_uint53(fields[TOTAL].value, &read.total))
        return MERGE_ERR_DATA;
    *sum = read;
    return 0;
}

void merge_add(struct merge_sum *sum, const struct merge_sum *more)
{
    sum->delta =
        more->delta > MERGE_VALUE_MAX - sum->delta ? MERGE_VALUE_MAX : sum->delta + more->delta;
    if (more->has_total && (!sum->has_total || more->total > sum->total))
        sum->total = more->total;
    sum->has_total |= more->has_total;
}

void merge_append(struct buf *out, const struct merge_sum *sum)
{
    BUF_LIT(out, "{\"delta\":");
    buf_uint(out, sum->delta);
    if (sum->has_total) {
        BUF_LIT(out, ",\"total\":");
        buf_uint(out, sum->total);
    }
    BUF_LIT(out, "}");
}

static uint32_t tick_of(uint64_t ms)
{
    return (uint32_t)(ms / MERGE_TICK_MS); /* divided before it is cut, so that it wraps smoothly */
}

void merger_init(struct merger *merger, size_t entry_size, uint64_t now_ms)
{
    merger->entries = (struct map){0};
    merger->entry_size = entry_size;
    wheel_init(&merger->wheel, tick_of(now_ms));
    list_init(&merger->ended);
}

/* No name holds a NUL, so the two are told apart. */
static uint32_t hash_of(struct bytes room, struct bytes type)
{
    char key[ROOM_NAME_MAX + 1 + TYPE_NAME_MAX];
    memcpy(key, room.len ? room.data : "", room.len);
    key[room.len] = '\0';
    memcpy(key + room.len + 1, type.data, type.len);
    return map_hash(key, room.len + 1 + type.len);
}

struct merge_entry *merger_find(const struct merger *merger, struct bytes room, struct bytes type)
{
    uint32_t hash = hash_of(room, type);
    for (struct map_node *at = map_chain(&merger->entries, hash); at; at = at->next) {
        struct merge_entry *entry = CONTAINER_OF(at, struct merge_entry, node);
        if (at->hash == hash && bytes_equal(merge_room(entry), room) &&
            bytes_equal(merge_type(entry), type))
            return entry;
    }
    return NULL;
}

struct merge_entry *merger_open(struct merger *merger, struct bytes room, struct bytes type,
                                uint32_t most, uint64_t now_ms, uint32_t window_ms)
{
    if (merger->entries.count >= most)
        return NULL;
    struct merge_entry *entry = calloc(1, merger->entry_size);
    if (!entry)
        return NULL;
    entry->room_len = (uint8_t)room.len;
    entry->type_len = (uint8_t)type.len;
    memcpy(entry->room, room.len ? room.data : "", room.len);
    memcpy(entry->type, type.data, type.len);
    list_init(&entry->due);
    if (map_add(&merger->entries, &entry->node, hash_of(room, type)) != 0) {
        free(entry);
        return NULL;
    }
    merger_reopen(merger, entry, now_ms, window_ms);
    return entry;
}

/* A window ends at the first tick that is not before its time. The wheel gives longer ones back early. */
static void set_due(struct merger *merger, struct merge_entry *entry)
{
    wheel_add(&merger->wheel, &entry->due, tick_of(entry->due_ms + MERGE_TICK_MS - 1));
}

void merger_reopen(struct merger *merger, struct merge_entry *entry, uint64_t now_ms,
                   uint32_t window_ms)
{
    wheel_advance(&merger->wheel, tick_of(now_ms), &merger->ended);
    entry->due_ms = now_ms + window_ms;
    set_due(merger, entry);
}

struct merge_entry *merger_next(struct merger *merger, uint64_t now_ms)
{
    struct link *link;
    wheel_advance(&merger->wheel, tick_of(now_ms), &merger->ended);
    while ((link = list_shift(&merger->ended))) {
        struct merge_entry *entry = CONTAINER_OF(link, struct merge_entry, due);
        if (entry->due_ms <= now_ms)
            return entry;
        set_due(merger, entry);
    }
    return NULL;
}

void merger_close(struct merger *merger, struct merge_entry *entry)
{
    list_remove(&entry->due);
    map_remove(&merger->entries, &entry->node);
    free(entry);
}

/* map_each() may not change the map: entries are gathered first. */
static void gather(void *ctx, struct map_node *node)
{
    struct merger *merger = ctx;
    struct merge_entry *entry = CONTAINER_OF(node, struct merge_entry, node);
    list_remove(&entry->due);
    list_append(&merger->ended, &entry->due);
    entry->due_ms = 0;
}

void merger_end_all(struct merger *merger)
{
    map_each(&merger->entries, gather, merger);
}

void merger_fini(struct merger *merger, void (*dropped)(void *ctx, struct merge_entry *entry),
                 void *ctx)
{
    struct link *link;
    merger_end_all(merger);
    while ((link = list_shift(&merger->ended))) {
        struct merge_entry *entry = CONTAINER_OF(link, struct merge_entry, due);
        if (dropped)
            dropped(ctx, entry);
        merger_close(merger, entry);
    }
    map_fini(&merger->entries);
}
