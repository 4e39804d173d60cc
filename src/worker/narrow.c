#include "worker/internal.h"

#include "base/sendbuf.h"
#include "policy/narrow.h"

#include <stdlib.h>

enum {
    LOOKS_PER_TICK =
        500, /* about a millisecond: with more viewers waiting each is looked at less often */
    NARROWED_TICKS =
        5 /* between two looks at a narrowed viewer; at others each tick, since a congestion window doubles in no time */
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

static struct narrow_flow *flow_of(struct worker *worker, struct viewer *viewer, uint64_t busy_us)
{
    struct terms *terms = terms_of(worker, viewer);
    if (!terms || terms->flow)
        return terms ? terms->flow : NULL;
    terms->flow = malloc(sizeof(*terms->flow));
    if (!terms->flow)
        return NULL;
    worker->terms_bytes += sizeof(*terms->flow);
    narrow_flow_begin(terms->flow, busy_us, worker->now_ms);
    return terms->flow;
}

void narrow_blocked(struct worker *worker, struct viewer *viewer, bool blocked)
{
    struct narrow_flow *flow = viewer->terms ? viewer->terms->flow : NULL;
    if (flow && blocked)
        narrow_flow_wait(flow, worker->now_ms);
    else if (flow)
        narrow_flow_free(flow, worker->now_ms);
}

/* A size that the kernel cuts to net.core.wmem_max (worker->sndbuf_most, from then on) would hold the viewer for good: it gets its own
 * tuning instead. */
static void resize(struct worker *worker, struct viewer *viewer, uint32_t size)
{
    uint32_t got = sendbuf_set(viewer->fd, size, NARROW_MOST_BYTES);
    if (got > 0 && got < size) {
        worker->sndbuf_most = got;
        sendbuf_set(viewer->fd, 0, NARROW_MOST_BYTES);
        size = 0;
    }
    set_narrowed(worker, viewer, size > 0);
}

static void look(struct worker *worker, struct viewer *viewer, uint32_t every)
{
    struct sendbuf buffer;
    if (!sendbuf_read(viewer->fd, &buffer))
        return;
    struct narrow_flow *flow = flow_of(worker, viewer, buffer.busy_us);
    uint32_t least_ms = buffer.min_rtt_us / 1000 + 1;
    if (buffer.min_rtt_us > 0 && (viewer->base_ms == 0 || least_ms < viewer->base_ms))
        viewer->base_ms = (uint16_t)least(least_ms, UINT16_MAX);
    struct narrow_path path = {.held = buffer.held,
                               .rtt_us = buffer.rtt_us,
                               .base_us = viewer->base_ms * 1000u,
                               .rate =
                                   flow ? narrow_flow_rate(flow, buffer.acked, worker->now_ms) : 0,
                               .delay_us = worker->conf->tcp.send_delay_ms * 1000,
                               .size = viewer->narrowed ? sendbuf_size(viewer->fd) : 0,
                               .most = worker->sndbuf_most};
    /* A step shows after a round trip: before that there is no other. */
    uint32_t looks = buffer.rtt_us / 1000 / TICK_MS / every + 1;
    if (viewer->narrowed && !is_turn(worker, viewer, looks * every))
        return;
    uint32_t size = narrow_size(&path);
    if (size != path.size)
        resize(worker, viewer, size);
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
    resize(worker, viewer, 0);
}

void narrow_end(struct worker *worker, struct viewer *viewer)
{
    set_narrowed(worker, viewer, false);
}
