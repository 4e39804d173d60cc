#include "policy/narrow.h"

#include "base/minmax.h"

enum { RISEN_US = 10000 };

/* The round trip of what is sent now. The smoothed one lags behind, most of all when a flood begins: so, once it has risen at all, what
 * arrived lately tells how long it takes for what is held (memory is twice the data). */
static uint64_t round_trip_us(const struct narrow_path *path)
{
    uint64_t drain_us = path->rate ? (uint64_t)path->held / 2 * 1000000 / path->rate : 0;
    bool waits = path->base_us > 0 && path->rtt_us > 2 * (uint64_t)path->base_us + RISEN_US;
    return waits && drain_us > path->rtt_us ? drain_us : path->rtt_us;
}

uint32_t narrow_size(const struct narrow_path *path)
{
    uint64_t target_us = (uint64_t)path->base_us + path->base_us / 4;
    if (target_us < path->delay_us)
        target_us = path->delay_us;
    if (path->delay_us == 0)
        return 0;
    uint64_t rtt_us = round_trip_us(path);
    if (rtt_us == 0 || (path->size == 0 && rtt_us <= target_us))
        return path->size;
    /* A buffer that is the bound is full half of the time and has a third of it free the other: it counts as full. */
    uint64_t full = path->held >= path->size / 2 ? most(path->held, path->size) : path->held;
    uint64_t bytes = full * target_us / rtt_us;
    if (bytes >= NARROW_MOST_BYTES)
        return 0;
    return most((uint32_t)bytes, NARROW_LEAST_BYTES);
}
