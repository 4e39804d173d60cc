/* queued.h: a viewer's message on its way from its worker to a queue, packed into one run of bytes.
 *
 *     type 0 key 0 data          (names hold no NUL: names.h)
 *
 * Path:      intent -> [queued] -> command -> node (queue).
 * Threads:   plain values.
 * Ownership: borrows.
 */
#pragma once

#include "base/bytes.h"

struct queued {
    struct bytes type;
    struct bytes key;  /* empty: none */
    struct bytes data; /* raw JSON; empty: none */
};

void queued_pack(const struct queued *queued, struct buf *out);

/* Takes apart what queued_pack() made. */
struct queued queued_unpack(struct bytes packed);
