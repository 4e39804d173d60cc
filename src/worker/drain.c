/* drain.c: sending viewers away, at a pace that the other nodes can follow.
 *
 * All workers together close `rate` viewers a second, evenly: each looks every FAREWELL_MS how many the time that has passed allows,
 * and takes its share from one counter of the node (setup.farewells). So the rate holds however the viewers are spread over workers,
 * and what a stalled loop missed is made up for.
 *
 * Before a viewer is closed it gets what the logs have for it, and the answers to what it sent: one whose sends are still on their
 * way through the broker is passed over until the next round.
 */
#include "worker/internal.h"

#include "base/clock.h"

enum {
    FAREWELL_MS = 10,
    LOOKS_PER_TURN = 16384, /* slots */
    HURRY_PER_TURN = 1000,
    RETRY_LEAST_MS = 500
};

static bool slot_is_free(const struct viewer *value)
{
    return (uintptr_t)value & 1;
}

static uint64_t viewers_upgraded(const struct worker *worker)
{
    const struct worker_metrics *metrics = &worker->metrics;
    return metric_get(&metrics->viewers_native) + metric_get(&metrics->viewers_engineio3) +
           metric_get(&metrics->viewers_engineio4) + metric_get(&metrics->viewers_echo);
}

static void tell(struct worker *worker, enum command_kind kind, uint64_t id)
{
    struct command *command = command_create(kind, (struct bytes){0}, (struct bytes){0});
    if (!command)
        return; /* drain.timeout ends it */
    command->id = id;
    worker_tell_node(worker, command);
}

/* Takes the right to send one viewer away now. */
static bool take_turn(struct worker *worker)
{
    const struct drain_order *order = &worker->farewell.order;
    uint64_t now = clock_ms();
    uint64_t passed = now > order->since_ms ? now - order->since_ms : 0;
    uint64_t allowed = order->base + passed * order->rate / 1000;
    uint64_t seen = atomic_load_explicit(worker->setup.farewells, memory_order_relaxed);
    while (seen < allowed) {
        if (atomic_compare_exchange_weak_explicit(worker->setup.farewells, &seen, seen + 1,
                                                  memory_order_relaxed, memory_order_relaxed))
            return true;
    }
    return false;
}

static void give_turn_back(struct worker *worker)
{
    atomic_fetch_sub_explicit(worker->setup.farewells, 1, memory_order_relaxed);
}

/* Each viewer with the same chance, and in the end as many as are wanted (selection sampling: Knuth, TAOCP 3.4.2, algorithm S). Who
 * waits for an answer stays, as the walk does not come by again. */
static bool is_chosen(struct worker *worker, const struct viewer *viewer)
{
    struct farewell *farewell = &worker->farewell;
    if (farewell->unseen == 0 || farewell->wanted == 0)
        return false;
    bool chosen =
        viewer->unanswered == 0 && worker_random(worker) % farewell->unseen < farewell->wanted;
    farewell->unseen--;
    farewell->wanted -= chosen;
    return chosen;
}

static bool is_due(struct worker *worker, const struct viewer *viewer)
{
    if (viewer->state != VIEWER_OPEN && viewer->state != VIEWER_WAITING)
        return false;
    if (worker->farewell.shed)
        return is_chosen(worker, viewer);
    return worker->farewell.hurry || viewer->unanswered == 0;
}

/* The next one to go, or NULL: there is none, or not among so many looks. */
static struct viewer *next_viewer(struct worker *worker, uint32_t *looks)
{
    struct farewell *farewell = &worker->farewell;
    for (; *looks > 0; --*looks) {
        if (farewell->at >= worker->slot_cap) {
            if (farewell->shed || worker->slot_cap == 0)
                return NULL;
            farewell->at = 0;
        }
        struct viewer *viewer = worker->slots[farewell->at++];
        if (!slot_is_free(viewer) && is_due(worker, viewer))
            return viewer;
    }
    return NULL;
}

static void send_away(struct worker *worker, struct viewer *viewer)
{
    struct notice goodbye = {.kind = NOTICE_GOODBYE, .reason = "drain"};
    goodbye.retry_after_ms =
        RETRY_LEAST_MS + worker_random(worker) % most(worker->farewell.order.spread_ms, 1);
    if (viewer->state == VIEWER_OPEN) {
        flush_viewer(worker, viewer, false);
        if (viewer->state != VIEWER_OPEN)
            return;
        reply_notice(worker, viewer, &goodbye);
    }
    viewer_close(worker, viewer, CLOSE_DRAIN);
}

static void send_some_away(struct worker *worker)
{
    struct farewell *farewell = &worker->farewell;
    uint32_t looks = least(worker->slot_cap, LOOKS_PER_TURN);
    uint32_t hurried = 0;
    while (farewell->hurry ? hurried++ < HURRY_PER_TURN : take_turn(worker)) {
        struct viewer *viewer = next_viewer(worker, &looks);
        if (!viewer) {
            if (!farewell->hurry)
                give_turn_back(worker);
            return;
        }
        send_away(worker, viewer);
    }
}

/* Nobody is left to be sent away. Who shakes hands after a hand-over was accepted by this process alone, and is waited for. */
static bool is_through(const struct worker *worker)
{
    const struct farewell *farewell = &worker->farewell;
    if (farewell->shed)
        return farewell->wanted == 0 || farewell->at >= worker->slot_cap;
    return viewers_upgraded(worker) == 0 && (!worker->handed_over || farewell->hurry ||
                                             metric_get(&worker->metrics.handshaking) == 0);
}

void drain_on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    struct farewell *farewell = &worker->farewell;
    worker->now_ms = (uint32_t)uv_now(&worker->loop);
    if (farewell->last) {
        if (worker->viewer_count > 0 || worker->parting_count > 0)
            return;
        uv_timer_stop(timer);
        merge_post_all(worker);
        tell(worker, COMMAND_STOPPED, 0);
        return;
    }
    send_some_away(worker);
    if (farewell->told || !is_through(worker))
        return;
    farewell->told = true;
    tell(worker, COMMAND_DRAINED, farewell->order.serial);
    if (farewell->shed) {
        farewell->active = false;
        uv_timer_stop(timer);
    }
}

static void begin(struct worker *worker, const struct drain_order *order)
{
    struct farewell *farewell = &worker->farewell;
    *farewell =
        (struct farewell){.active = true, .shed = order->step == DRAIN_SHED, .order = *order};
    if (farewell->shed) {
        farewell->unseen = (uint32_t)viewers_upgraded(worker);
        farewell->wanted =
            (uint32_t)(((uint64_t)farewell->unseen * order->share + 500000) / 1000000);
    }
    uv_timer_start(&worker->farewell_timer, drain_on_timer, 0, FAREWELL_MS);
}

/* What waits for accept or has not asked yet is told, then nothing but last bytes is left. */
static void last_words(struct worker *worker)
{
    worker->draining = worker->refusing = true;
    listeners_finish(worker);
    for (uint32_t i = 0; i < worker->slot_cap; i++) {
        struct viewer *viewer = worker->slots[i];
        if (slot_is_free(viewer) || viewer->state >= VIEWER_CLOSING)
            continue;
        if (viewer->state < VIEWER_WAITING)
            welcome_refuse_draining(worker, viewer);
        else
            send_away(worker, viewer);
    }
    worker->farewell.last = true;
    uv_timer_start(&worker->farewell_timer, drain_on_timer, 0, FAREWELL_MS);
}

void drain_obey(struct worker *worker, const struct drain_order *order)
{
    switch (order->step) {
    case DRAIN_NOTICE:
        worker->draining = true;
        break;
    case DRAIN_REFUSE:
        worker->draining = worker->refusing = true;
        break;
    case DRAIN_HAND_OVER:
        worker->draining = worker->refusing = false;
        worker->handed_over = true;
        listeners_stop(worker);
        break;
    case DRAIN_FAREWELL:
    case DRAIN_SHED:
        begin(worker, order);
        break;
    case DRAIN_HURRY:
        worker->farewell.hurry = true;
        break;
    case DRAIN_LAST:
        last_words(worker);
        break;
    }
}
