#include "bench/order.h"

void order_init(struct order *order, bool from_zero)
{
    *order = (struct order){.attached = from_zero, .recent = UINT64_MAX};
}

static void advance(struct order *order, uint64_t number, struct order_counts *counts)
{
    uint64_t missing = number - order->next;
    counts->lost += missing;
    uint64_t shift = missing + 1;
    order->recent = shift < ORDER_WINDOW ? order->recent << shift | 1 : 1;
    order->next = number + 1;
}

bool order_take(struct order *order, uint64_t number, struct order_counts *counts)
{
    if (!order->attached) {
        order->attached = true;
        order->next = number;
    }
    if (number >= order->next) {
        advance(order, number, counts);
        return true;
    }
    uint64_t back = order->next - 1 - number;
    if (back >= ORDER_WINDOW) {
        counts->out_of_order++;
        return true;
    }
    uint64_t bit = UINT64_C(1) << back;
    if (order->recent & bit) {
        counts->duplicates++;
        return false;
    }
    order->recent |= bit;
    counts->out_of_order++;
    counts->lost--;
    return true;
}

void order_finish(const struct order *order, uint64_t total, struct order_counts *counts)
{
    if (order->attached && total > order->next)
        counts->lost += total - order->next;
}
