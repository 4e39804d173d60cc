#include "broker/redis_pending.h"

#include <stdlib.h>

enum { PENDING_CAP_MIN = 64, PENDING_CAP_KEPT = 4096 };

static int grow(struct redis_pending *pending)
{
    uint32_t cap = pending->cap ? pending->cap * 2 : PENDING_CAP_MIN;
    struct redis_pending_entry *entries = calloc(cap, sizeof(*entries));
    if (!entries)
        return -1;
    for (uint32_t i = 0; i < pending->count; i++)
        entries[i] = pending->entries[(pending->head + i) & (pending->cap - 1)];
    free(pending->entries);
    pending->entries = entries;
    pending->cap = cap;
    pending->head = 0;
    return 0;
}

int redis_pending_push(struct redis_pending *pending, const struct redis_pending_entry *entry)
{
    if (pending->count == pending->cap && grow(pending) != 0)
        return -1;
    uint32_t at = (pending->head + pending->count) & (pending->cap - 1);
    pending->entries[at] = *entry;
    pending->count++;
    return 0;
}

bool redis_pending_shift(struct redis_pending *pending, struct redis_pending_entry *entry)
{
    if (pending->count == 0)
        return false;
    *entry = pending->entries[pending->head];
    pending->head = (pending->head + 1) & (pending->cap - 1);
    pending->count--;
    if (pending->count == 0 && pending->cap > PENDING_CAP_KEPT)
        redis_pending_fini(pending);
    return true;
}

uint64_t redis_pending_age_ms(const struct redis_pending *pending, uint64_t now_ms)
{
    if (pending->count == 0)
        return 0;
    uint64_t since = pending->entries[pending->head].since_ms;
    return now_ms > since ? now_ms - since : 0;
}

void redis_pending_fini(struct redis_pending *pending)
{
    free(pending->entries);
    *pending = (struct redis_pending){0};
}
