#include "worker/internal.h"

#include "base/sendbuf.h"
#include "policy/narrow.h"

enum {
    LOOKS_PER_TICK =
        500, /* about a millisecond: with more viewers waiting each is looked at less often */
    NARROWED_TICKS =
        5, /* between two looks at a narrowed viewer; at others each tick, since a congestion window doubles in no time */
    /* What arrived tells a rate after so long, is noted anew, and says nothing any more. */
    RATE_LEAST_MS = 200,
    RATE_RENEW_MS = 600,
    RATE_MOST_MS = 1100
};

static void set_narrowed(struct worker *worker, struct viewer *viewer, bool narrowed)
{
    if (viewer->narrowed == narrowed)
        return;
    viewer->narrowed = narrowed;
    if (narrowed)
        metric_add(&worker->metrics.viewers_narrowed, 1);
    else
        metric_sub(&worker->metrics.viewers_narrowed, 1);
}

static bool is_turn(const struct worker *worker, const struct viewer *viewer, uint32_t ticks)
{
    return (viewer->slot + worker->now_tick) % ticks == 0;
}

/* Bytes/s that arrived since an earlier look; 0: not known. */
static uint32_t arrival_rate(struct worker *worker, struct viewer *viewer, uint32_t acked)
{
    struct terms *terms = terms_of(worker, viewer);
    if (!terms)
        return 0;
    uint32_t since_ms = terms->acked_ms ? terms->acked_ms : viewer->opened_ms;
    uint32_t passed = worker->now_ms - since_ms;
    uint32_t arrived = acked - terms->acked;
    if (passed >= RATE_RENEW_MS) {
        terms->acked = acked;
        terms->acked_ms = most(worker->now_ms, 1);
    }
    if (passed < RATE_LEAST_MS || passed > RATE_MOST_MS)
        return 0;
    return (uint32_t)((uint64_t)arrived * 1000 / passed);
}

static void look(struct worker *worker, struct viewer *viewer, uint32_t every)
{
    struct sendbuf buffer;
    if (!sendbuf_read(viewer->fd, &buffer))
        return;
    uint32_t least_ms = buffer.min_rtt_us / 1000 + 1;
    if (buffer.min_rtt_us > 0 && (viewer->base_ms == 0 || least_ms < viewer->base_ms))
        viewer->base_ms = (uint16_t)least(least_ms, UINT16_MAX);
    struct narrow_path path = {.held = buffer.held,
                               .rtt_us = buffer.rtt_us,
                               .base_us = viewer->base_ms * 1000u,
                               .rate = arrival_rate(worker, viewer, buffer.acked),
                               .delay_us = worker->conf->tcp.send_delay_ms * 1000,
                               .size = viewer->narrowed ? sendbuf_size(viewer->fd) : 0};
    /* A step shows after a round trip: before that there is no other. */
    uint32_t looks = buffer.rtt_us / 1000 / TICK_MS / every + 1;
    if (viewer->narrowed && !is_turn(worker, viewer, looks * every))
        return;
    uint32_t size = narrow_size(&path);
    if (size == path.size)
        return;
    sendbuf_set(viewer->fd, size, NARROW_MOST_BYTES);
    set_narrowed(worker, viewer, size > 0);
}

void narrow_tick(struct worker *worker)
{
    const struct conf *conf = worker->conf;
    if (conf->tcp.sndbuf > 0 ||
        (conf->tcp.send_delay_ms == 0 && metric_get(&worker->metrics.viewers_narrowed) == 0))
        return;
    uint64_t waiting = metric_get(&worker->metrics.viewers_blocked);
    uint32_t times = 1 + (uint32_t)(waiting / LOOKS_PER_TICK);
    for (struct link *at = worker->blocked.next; at != &worker->blocked; at = at->next) {
        struct viewer *viewer = CONTAINER_OF(at, struct viewer, link);
        uint32_t every = viewer->narrowed ? most(NARROWED_TICKS, times) : times;
        if (is_turn(worker, viewer, every))
            look(worker, viewer, every);
    }
}

void narrow_rest(struct worker *worker, struct viewer *viewer)
{
    if (!viewer->narrowed || viewer->blocked)
        return;
    sendbuf_set(viewer->fd, 0, NARROW_MOST_BYTES);
    set_narrowed(worker, viewer, false);
}

void narrow_end(struct worker *worker, struct viewer *viewer)
{
    set_narrowed(worker, viewer, false);
}
