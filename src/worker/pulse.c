#include "worker/internal.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BACK_MS = 60000,        /* a session that comes back later than that was away by itself */
    SHORT_IDLE_MS = 900,    /* no interval is shorter */
    NETWORKS_PER_TICK = 256 /* idle ones that are looked at, to be forgotten */
};

void pulse_take_conf(struct worker *worker, const struct conf *earlier)
{
    const struct conf *conf = worker->conf;
    /* A viewer that comes back must meet the worker that missed it. */
    bool learns = conf->heartbeat.adaptive && worker->setup.steady;
    if (earlier && earlier->heartbeat.interval_ms != conf->heartbeat.interval_ms)
        halley_networks_restart(worker->networks);
    worker->networks_policy =
        (struct halley_networks_policy){.safe_ms = conf->heartbeat.interval_ms,
                                        .brief_ms = conf->heartbeat.foreground_ms,
                                        .max_ms = learns ? conf->heartbeat.max_ms : 0,
                                        .back_ms = conf->heartbeat.timeout_ms + BACK_MS,
                                        .entries = conf->heartbeat.networks};
}

/* The network part of an address: /24 of IPv4, /64 of IPv6. */
static uint64_t prefix_of(const struct viewer *viewer)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (getpeername(viewer->fd, (struct sockaddr *)&address, &len) != 0)
        return 0;
    uint64_t network = peer_network(&address);
    return network >> 32 == 0xffff ? network & ~(uint64_t)0xff : network;
}

static uint32_t hash_session(const struct worker *worker, const struct viewer *viewer,
                             struct bytes session)
{
    char user[USER_NAME_MAX + 1];
    char text[USER_NAME_MAX + 1 + ROOM_NAME_MAX];
    if (session.len == 0)
        return 0;
    /* A guest is called after its connection, so its session is known by itself. */
    struct bytes name = viewer->user ? viewer_user(worker, viewer, user) : (struct bytes){0};
    if (name.len > 0)
        memcpy(text, name.data, name.len);
    text[name.len] = '"'; /* in no name */
    memcpy(text + name.len + 1, session.data, session.len);
    return map_hash(text, name.len + 1 + session.len) | 1;
}

/* How long nothing has gone either way. */
static uint32_t idle_ms(const struct worker *worker, const struct viewer *viewer)
{
    return least(worker->now_ms - viewer->beat.heard_ms, worker->now_ms - viewer->written_ms);
}

static void count_loss(struct worker *worker, enum halley_loss loss)
{
    if (loss == HALLEY_LOSS_SCOUT)
        metric_add(&worker->metrics.network_scouts, 1);
    else if (loss == HALLEY_LOSS_FELL)
        metric_add(&worker->metrics.network_falls, 1);
    else if (loss == HALLEY_LOSS_DOUBTED)
        metric_add(&worker->metrics.network_doubts, 1);
}

void pulse_begin(struct worker *worker, struct viewer *viewer, struct bytes session,
                 enum halley_hint hint, bool brief)
{
    struct halley_pulse *pulse = &viewer->pulse;
    const struct halley_networks_policy *policy = &worker->networks_policy;
    const struct adapter *adapter = viewer_adapter(viewer);
    pulse->fixed = adapter != &adapter_native;
    pulse->brief = brief && !pulse->fixed;
    pulse->session = hash_session(worker, viewer, session);
    if (adapter && policy->max_ms > policy->safe_ms) {
        count_loss(worker, halley_pulse_start(worker->networks, pulse, policy, prefix_of(viewer),
                                              hint, worker->now_ms));
        struct halley_pulse *ghost = halley_pulse_ghost(pulse);
        if (ghost)
            count_loss(worker, halley_pulse_replaced(
                                   ghost, policy,
                                   idle_ms(worker, CONTAINER_OF(ghost, struct viewer, pulse)),
                                   worker->now_ms));
    }
    (void)halley_pulse_settle(pulse, policy, worker_random(worker));
}

void pulse_end(struct worker *worker, struct viewer *viewer)
{
    halley_pulse_end(worker->networks, &viewer->pulse, &worker->networks_policy, worker->now_ms);
}

void pulse_heard(struct worker *worker, struct viewer *viewer)
{
    if (!viewer->pulse.network)
        return;
    uint32_t idle = idle_ms(worker, viewer);
    if (idle >= SHORT_IDLE_MS || viewer->pulse.missed)
        halley_pulse_heard(worker->networks, &viewer->pulse, &worker->networks_policy, idle,
                           worker->now_ms);
}

void pulse_asked(struct worker *worker, struct viewer *viewer)
{
    halley_pulse_asked(worker->networks, &viewer->pulse, &worker->networks_policy,
                       idle_ms(worker, viewer), worker->now_ms);
}

uint32_t pulse_next(struct worker *worker, struct viewer *viewer)
{
    uint32_t before = halley_pulse_told_ms(&viewer->pulse);
    if (viewer->pulse.fixed)
        return before;
    uint32_t told = halley_pulse_next(&viewer->pulse, &worker->networks_policy, worker->now_ms,
                                      worker_random(worker));
    if (told < before) /* the timer was set for the longer one */
        viewer_set_timer(worker, viewer, told);
    return told;
}

void pulse_tick(struct worker *worker)
{
    halley_networks_expire(worker->networks, worker->now_ms, NETWORKS_PER_TICK);
}
