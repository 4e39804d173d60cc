/* sample.h: which messages of a room pass when more come than its viewers can read.
 *
 * What passes is chosen once for the room, at once and without a queue, so nobody waits for it. The share that may pass is the rate
 * divided by what came in the last second (or lately, when that is less); each type saves its share up by error diffusion, so the mix of
 * types stays as it came. A count of what passed in the last second is the bound that no guess of the share can exceed.
 *
 *      slots:  |100 ms|100 ms| ... |now|     arrived and passed in each: ten whole ones and what there is of the newest
 *
 * Path:      dispatch -> [sample] -> workers.
 * Threads:   the owner's thread.
 * Ownership: owns the rooms; one has an entry only while messages come.
 * Limits:    one entry for each room that is subscribed (limits.rooms); SAMPLE_TYPES shares in each, further types have one together.
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "base/map.h"

#include <stdbool.h>
#include <stdint.h>

enum { SAMPLE_SLOTS = 11, SAMPLE_SLOT_MS = 100, SAMPLE_TYPES = 8 };

struct sampler {
    struct map rooms;
    struct link order; /* who was looked at longest ago comes first */
};

void sampler_init(struct sampler *sampler);

/* Whether a message of this type passes into the room. rate: messages a second, at least 1. Without memory for the room it does.
 * type: any number that tells types apart (conf_type.name_hash). */
bool sampler_pass(struct sampler *sampler, struct bytes room, uint32_t room_hash, uint32_t type,
                  uint32_t rate, uint64_t now_ms);

/* Looks at the next `count` rooms and forgets those into which nothing came for a second. To be called every second or so. */
void sampler_expire(struct sampler *sampler, uint64_t now_ms, uint32_t count);

void sampler_fini(struct sampler *sampler);
