/* grant.h: what a viewer may do, taken from its ticket. Viewers with the same rights share one.
 *
 * NULL stands for everything: auth.mode = open.
 *
 * Path:      claims -> [grant] -> join, send.
 * Threads:   one table per worker, the worker's thread; counts are not atomic.
 * Ownership: counted: grants_take / grants_release. The table borrows.
 * Limits:    those of the claims.
 */
#pragma once

#include "auth/claims.h"
#include "base/list.h"
#include "base/map.h"

struct grant {
    struct map_node node;
    uint32_t refs;
    uint16_t rooms_len;
    uint16_t send_len;
    bool any_room;
    bool any_type;
    char text[]; /* rooms (those to enter at connect too), types: as in struct auth_names */
};

struct grants {
    struct map map;
    uint64_t bytes; /* of all grants together */
};

/* The grant of these claims, shared with others that say the same; NULL when memory is out. */
struct grant *grants_take(struct grants *grants, const struct auth_claims *claims);
void grants_release(struct grants *grants, struct grant *grant); /* NULL is fine */
void grants_fini(struct grants *grants);                         /* when all are released */

bool grant_allows_room(const struct grant *grant, struct bytes room);
bool grant_allows_type(const struct grant *grant, struct bytes type);
