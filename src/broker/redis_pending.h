/* redis_pending.h: the publishes and commands that wait for Redis' answer, oldest first.
 *
 *     entries:  [ . . . head … head+count-1 . . . ]   (mod cap, a power of two)
 *
 * Threads:   plain values; the broker's thread.
 * Ownership: owns its ring, not what the entries point to.
 * Limits:    the caller's, checked by push; grows by doubling and is given back when it runs empty after a burst.
 */
#pragma once

#include "broker/broker.h"

struct redis_eval;

struct redis_pending_entry {
    uint64_t token;
    uint64_t since_ms;
    broker_reply on_reply; /* NULL: a publish */
    void *owner;
    struct redis_eval *eval; /* of a script: what is sent once more when Redis does not know it */
};

struct redis_pending {
    struct redis_pending_entry *entries;
    uint32_t cap;
    uint32_t head;
    uint32_t count;
};

/* Returns 0, or -1 when memory is out. */
int redis_pending_push(struct redis_pending *pending, const struct redis_pending_entry *entry);

/* Takes the oldest off; false when there is none. */
bool redis_pending_shift(struct redis_pending *pending, struct redis_pending_entry *entry);

/* Milliseconds since the oldest was pushed; 0 when there is none. */
uint64_t redis_pending_age_ms(const struct redis_pending *pending, uint64_t now_ms);

void redis_pending_fini(struct redis_pending *pending);
