#include "policy/narrow.h"

#include "base/minmax.h"

enum {
    RISEN_US = 10000,
    /* What arrived tells a rate after so long, is noted anew, and says nothing any more. */
    RATE_LEAST_MS = 200,
    RATE_RENEW_MS = 600,
    RATE_MOST_MS = 1100
};

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
    if (bytes < NARROW_LEAST_BYTES)
        bytes = NARROW_LEAST_BYTES;
    uint32_t limit = path->most > 0 ? path->most : NARROW_MOST_BYTES;
    return bytes >= limit ? 0 : (uint32_t)bytes;
}

void narrow_flow_begin(struct narrow_flow *flow, uint64_t busy_us, uint32_t now_ms)
{
    *flow = (struct narrow_flow){.counting = busy_us > 0 && busy_us <= RATE_MOST_MS * 1000};
    flow->since_ms = now_ms - (uint32_t)(busy_us / 1000);
}

void narrow_flow_free(struct narrow_flow *flow, uint32_t now_ms)
{
    flow->free_ms = now_ms;
}

void narrow_flow_wait(struct narrow_flow *flow, uint32_t now_ms)
{
    uint32_t pause = now_ms - flow->free_ms;
    flow->since_ms += pause;
    if (pause >= RATE_LEAST_MS)
        flow->counting = false;
}

uint32_t narrow_flow_rate(struct narrow_flow *flow, uint32_t acked, uint32_t now_ms)
{
    uint32_t passed = now_ms - flow->since_ms;
    uint32_t arrived = acked - flow->acked;
    bool known = flow->counting && passed >= RATE_LEAST_MS && passed <= RATE_MOST_MS;
    if (!flow->counting || passed >= RATE_RENEW_MS) {
        flow->acked = acked;
        flow->since_ms = now_ms;
        flow->counting = true;
    }
    return known ? (uint32_t)((uint64_t)arrived * 1000 / passed) : 0;
}
