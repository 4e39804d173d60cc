/* limiter.h: token buckets by name, for users and rooms of the whole node.
 *
 * A name has an entry only while it owes: it appears at the first message and goes when its bucket is full again, so the table holds who
 * sent within the last burst / rate seconds.
 *
 * Path:      dispatch -> [limiter] -> broker.
 * Threads:   the owner's thread.
 * Ownership: owns copies of the names.
 * Limits:    limits.rate_entries, given with each call; past it unknown names are refused.
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "base/map.h"

#include <stdint.h>

struct limiter {
    struct map entries;
    struct link order; /* who was looked at longest ago comes first */
};

struct limiter_policy {
    uint32_t rate;    /* tokens a second; 0: no limit */
    uint32_t burst;   /* tokens of a full bucket */
    uint32_t entries; /* the table's bound */
};

void limiter_init(struct limiter *limiter);

/* Takes one token of the name (1 to 64 bytes). Returns 0, or the milliseconds until one will be there, also when the table is full or
 * memory is out. */
uint32_t limiter_take(struct limiter *limiter, const struct limiter_policy *policy,
                      struct bytes name, uint32_t now_ms);

/* Looks at the next `count` entries and forgets those whose bucket is full. To be called every second or so. */
void limiter_expire(struct limiter *limiter, uint32_t now_ms, uint32_t count);

void limiter_fini(struct limiter *limiter);
