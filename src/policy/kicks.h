/* kicks.h: users that were kicked while tickets waited for an answer, so that it was not known yet whose those are.
 *
 * Questions about tickets are numbered in the order in which they are asked. A kick concerns all that were asked before it, and is
 * forgotten when the last of them is settled: in the order of the numbers, at the latest when their time limit has passed.
 *
 * Path:      query (kick) -> [kicks] -> tickets.
 * Threads:   the owner's thread.
 * Ownership: owns copies of the names.
 * Limits:    auth.kicks, given with each call; past it the oldest are forgotten, and tickets that they may concern can't be judged.
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "base/map.h"

#include <stdint.h>

struct kicks {
    struct map users;
    struct link order; /* by number */
    uint64_t lost;     /* kicks up to this number may be forgotten too early */
};

enum kicks_verdict { KICKS_NONE, KICKS_KICKED, KICKS_UNKNOWN };

void kicks_init(struct kicks *kicks);

/* The user (1 to 64 bytes) was kicked when `number` questions had been asked, not fewer than at the last call. Returns how many had to be
 * forgotten for that: more than one when the bound was lowered; this one too where memory is out. */
uint32_t kicks_add(struct kicks *kicks, struct bytes user, uint64_t number, uint32_t bound);

/* A ticket about which question `number` was asked turned out to be the user's. */
enum kicks_verdict kicks_judge(const struct kicks *kicks, struct bytes user, uint64_t number);

/* Questions below `number` are settled. */
void kicks_settle(struct kicks *kicks, uint64_t number);

void kicks_fini(struct kicks *kicks);
