/* wheel.h: a timer wheel of intrusive links: one for all viewers, one for all rooms, no timer per object.
 *
 * A link lies in slot (due & 255). Deadlines further away than 256 ticks come round earlier and are put back by their
 * owner, who knows the real time. Adding and removing are a few stores.
 *
 * Threads:   the owner's thread.
 * Ownership: borrows the links.
 */
#pragma once

#include "base/list.h"

#include <stdint.h>

enum { WHEEL_SLOTS = 256 };

struct wheel {
    struct link slots[WHEEL_SLOTS];
    uint64_t used[WHEEL_SLOTS / 64]; /* slots that may hold something */
    uint32_t now;                    /* last tick that was advanced to */
};

void wheel_init(struct wheel *wheel, uint32_t now);

/* Puts a link (on no list, or on this wheel already) at `due`, at least one tick ahead and at most 255. */
void wheel_add(struct wheel *wheel, struct link *link, uint32_t due);

/* Moves every link whose slot came by up to `now` onto the list `due`. */
void wheel_advance(struct wheel *wheel, uint32_t now, struct link *due);

/* Ticks from wheel->now to the next slot that may hold something: 1 to 256, or 0 when the wheel is empty. */
uint32_t wheel_next(const struct wheel *wheel);
