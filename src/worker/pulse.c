#include "worker/internal.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BACK_MS = 60000,         /* a session that comes back later than that was away by itself */
    SHORT_IDLE_MS = 900,     /* no interval is shorter */
    NETWORKS_PER_TICK = 256, /* idle ones that are looked at, to be forgotten */
    GHOST_LOOKS = 32         /* connections of a user that has many */
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

/* An older connection of the same session in the same network, still open here: a reset told its peer of the loss before anybody here
 * missed it. NULL: there is none, it is a guest's and not the scout's, or nothing was learned that its loss could disprove. */
static struct halley_pulse *find_ghost(const struct worker *worker, const struct viewer *viewer)
{
    const struct halley_pulse *pulse = &viewer->pulse;
    struct halley_pulse *scout = halley_pulse_ghost(pulse);
    if (scout || pulse->session == 0 || !viewer->user ||
        halley_pulse_held_ms(pulse, &worker->networks_policy) <= worker->networks_policy.safe_ms)
        return scout;
    uint32_t hash = map_hash(viewer->user, strlen(viewer->user)) | 1;
    struct map_node *node = map_chain(&worker->users, hash);
    for (int looks = 0; node && looks < GHOST_LOOKS; looks++, node = node->next) {
        struct viewer *other = CONTAINER_OF(node, struct viewer, user_node);
        if (node->hash == hash && other != viewer && other->pulse.network == pulse->network &&
            other->pulse.session == pulse->session)
            return &other->pulse;
    }
    return NULL;
}

void pulse_begin(struct worker *worker, struct viewer *viewer, struct bytes session,
                 enum halley_hint hint, bool brief)
{
    struct halley_pulse *pulse = &viewer->pulse;
    const struct halley_networks_policy *policy = &worker->networks_policy;
    const struct adapter *adapter = viewer_adapter(viewer);
    pulse->fixed = adapter != &adapter_native;
    pulse->brief = brief;
    pulse->session = hash_session(worker, viewer, session);
    if (adapter && policy->max_ms > policy->safe_ms) {
        count_loss(worker, halley_pulse_start(worker->networks, pulse, policy, prefix_of(viewer),
                                              hint, worker->now_ms));
        struct halley_pulse *ghost = find_ghost(worker, viewer);
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
    if (viewer->pulse.fixed && viewer->beat.asked_ms != 0) /* the ping found its way */
        idle = most(idle, halley_pulse_silent_ms(&viewer->pulse));
    if (idle >= SHORT_IDLE_MS || viewer->pulse.missed)
        halley_pulse_heard(worker->networks, &viewer->pulse, &worker->networks_policy, idle,
                           worker->now_ms);
}

void pulse_pinged(struct worker *worker, struct viewer *viewer)
{
    if (viewer->pulse.fixed)
        halley_pulse_pinged(&viewer->pulse, idle_ms(worker, viewer));
    else
        halley_pulse_asked(worker->networks, &viewer->pulse, &worker->networks_policy,
                           idle_ms(worker, viewer), worker->now_ms);
}

/* Of Engine.IO 3, whose clients ping. Returns ms until its sign of life is overdue; 0: it is. */
static uint32_t watch_client(struct worker *worker, struct viewer *viewer, uint32_t grace_ms)
{
    uint32_t told = halley_pulse_told_ms(&viewer->pulse);
    uint32_t passed = worker->now_ms - viewer->beat.heard_ms;
    if (passed < told + grace_ms)
        return told + grace_ms - passed;
    /* What was written later than the answer to its last bytes made that no idle time. */
    if ((int32_t)(viewer->written_ms - viewer->beat.heard_ms) <= (int32_t)(told / 20))
        halley_pulse_asked(worker->networks, &viewer->pulse, &worker->networks_policy,
                           idle_ms(worker, viewer), worker->now_ms);
    return 0;
}

/* Of Engine.IO 4, whose clients answer. */
static uint32_t watch_server(struct worker *worker, struct viewer *viewer, uint32_t grace_ms)
{
    if (viewer->beat.asked_ms == 0)
        return 0;
    int32_t passed = (int32_t)(worker->now_ms - viewer->beat.asked_ms); /* it may be 1 ms ahead */
    if (passed < (int32_t)grace_ms)
        return (uint32_t)((int32_t)grace_ms - passed);
    halley_pulse_unanswered(worker->networks, &viewer->pulse, &worker->networks_policy,
                            (uint32_t)passed, worker->now_ms);
    return 0;
}

uint32_t pulse_watch(struct worker *worker, struct viewer *viewer,
                     const struct halley_heartbeat_policy *beat)
{
    const struct halley_pulse *pulse = &viewer->pulse;
    uint32_t grace_ms = least(HALLEY_HEARTBEAT_GRACE_MS, beat->timeout_ms / 2);
    uint32_t next = 0;
    if (!pulse->network || pulse->missed ||
        halley_pulse_told_ms(pulse) <= worker->networks_policy.safe_ms)
        return UINT32_MAX; /* nothing was learned that its loss could disprove */
    if (beat->style == HALLEY_HEARTBEAT_CLIENT)
        next = watch_client(worker, viewer, grace_ms);
    else if (beat->style == HALLEY_HEARTBEAT_SERVER)
        next = watch_server(worker, viewer, grace_ms);
    return next > 0 ? next : UINT32_MAX;
}

void pulse_cut(struct worker *worker, struct viewer *viewer)
{
    if (viewer->pulse.fixed && viewer->beat.asked_ms != 0)
        halley_pulse_unanswered(worker->networks, &viewer->pulse, &worker->networks_policy, 0,
                                worker->now_ms);
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
