/* totals.h: running totals of merged types, for a broker that can't keep them.
 *
 * Path:      dispatch -> [totals].
 * Threads:   the owner's thread.
 * Ownership: owns its entries.
 * Limits:    given with each call (limits.merges); past it whichever rested longest is forgotten.
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "base/map.h"

#include <stdint.h>

struct totals {
    struct map entries;
    struct link order; /* who rested longest comes first */
};

void totals_init(struct totals *totals);

/* Adds to the total of the room and type and returns it; it stays at 2^53 - 1 once it is there. Without memory for it, returns delta. */
uint64_t totals_add(struct totals *totals, struct bytes room, struct bytes type, uint64_t delta,
                    uint64_t now_ms, uint32_t most);

/* Forgets what has rested for ttl_ms. */
void totals_expire(struct totals *totals, uint64_t now_ms, uint32_t ttl_ms);

void totals_fini(struct totals *totals);
