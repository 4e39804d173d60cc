/* order.h: did one viewer get every message of its room, once, in order?
 *
 * The publisher numbers the messages of a room 0, 1, 2 …; a viewer's numbers are checked as they
 * come. The numbers just behind the newest are remembered one by one, so that a late message (out
 * of order) is told from a repeated one (duplicate).
 *
 * Threads:   plain values.
 * Limits:    looks ORDER_WINDOW numbers back; what comes later than that counts as out of order and
 *            stays lost.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ORDER_WINDOW = 64 };

struct order_counts {
    uint64_t lost;
    uint64_t duplicates;
    uint64_t out_of_order;
};

struct order {
    uint64_t next;   /* the number that is due */
    uint64_t recent; /* bit i: number next - 1 - i has come */
    bool attached;   /* false: the first number that comes is taken as the start */
};

/* from_zero: the viewer was there before message 0, so what is missing at the front is lost too. */
void order_init(struct order *order, bool from_zero);

/* Takes the number of a message that came. Returns true when it is new, false for a duplicate. */
bool order_take(struct order *order, uint64_t number, struct order_counts *counts);

/* Nothing comes any more and `total` messages were published: counts what is missing at the end. */
void order_finish(const struct order *order, uint64_t total, struct order_counts *counts);
