#include "worker/internal.h"

#include "base/clock.h"

enum {
    FEW_ROOMS = 4,        /* a viewer in no more is looked at whole in each sweep */
    SMALL_ROOM = 64,      /* members of larger rooms are served where the sweep stands */
    BYTES_A_VIEWER = 4096 /* of a slice, on average: a backlog may not make it long */
};

/* What may be done before the loop turns. */
struct budget {
    uint32_t viewers;
    uint64_t bytes_end; /* of metrics.bytes_out */
};

static struct activity *activity_of(struct sweep *sweep)
{
    return sweep->urgent ? CONTAINER_OF(sweep, struct activity, urgent)
                         : CONTAINER_OF(sweep, struct activity, rest);
}

static uint32_t circle(const struct worker *worker, const struct activity *activity)
{
    return activity->room ? activity->room->count : worker->slot_cap;
}

static void note(uint32_t numbers[HALLEY_LANES], const struct activity *activity)
{
    memcpy(numbers, activity->lanes.next, sizeof(activity->lanes.next));
}

void sweep_init(struct activity *activity)
{
    activity->urgent.urgent = true;
    list_init(&activity->urgent.link);
    list_init(&activity->rest.link);
    list_init(&activity->timer);
    note(activity->urgent.swept, activity);
    note(activity->rest.swept, activity);
}

/* A busy room's walk is set back again and again before it ends: laps tell how far everybody is served. */
static void begin_lap(struct worker *worker, struct sweep *sweep)
{
    uint32_t all = circle(worker, activity_of(sweep));
    sweep->lap = all ? all : 1;
    note(sweep->lapped, activity_of(sweep));
}

static void begin_sweep(struct worker *worker, struct sweep *sweep)
{
    uint32_t count = circle(worker, activity_of(sweep));
    if (count == 0) {
        note(sweep->swept, activity_of(sweep));
        return;
    }
    if (sweep->left == 0) {
        sweep->at = (sweep->at + 61) % count; /* nobody is always last */
        begin_lap(worker, sweep);
    }
    sweep->left = count;
    note(sweep->started, activity_of(sweep));
    if (list_empty(&sweep->link))
        list_append(sweep->urgent ? &worker->urgent : &worker->sweeping, &sweep->link);
}

void sweep_grew(struct activity *activity, uint32_t more)
{
    struct sweep *both[] = {&activity->urgent, &activity->rest};
    for (int i = 0; i < 2; i++) {
        if (both[i]->left == 0)
            continue;
        both[i]->left += more;
        both[i]->lap += more;
    }
}

bool sweep_is_walking(const struct activity *activity)
{
    return activity->urgent.left > 0 || activity->rest.left > 0;
}

void sweep_stop(struct worker *worker, struct activity *activity)
{
    list_remove(&activity->urgent.link);
    list_remove(&activity->rest.link);
    list_remove(&activity->timer);
    list_remove(&activity->link);
    activity->urgent.left = activity->rest.left = 0;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (worker->choking[lane] && activity_of(worker->choking[lane]) == activity)
            worker->choking[lane] = NULL;
    }
}

void sweep_schedule(struct worker *worker, struct activity *activity)
{
    const unsigned high = 1u << HALLEY_LANE_HIGH;
    int next;
    unsigned due = halley_lanes_due(&activity->lanes, worker->policies, worker->now_ms, &next);
    if (due & high) {
        halley_lanes_flush_begin(&activity->lanes, high, worker->now_ms);
        begin_sweep(worker, &activity->urgent);
    }
    if (due & ~high) { /* what else is pending rides along */
        halley_lanes_flush_begin(&activity->lanes, ~high, worker->now_ms);
        begin_sweep(worker, &activity->rest);
        next = -1;
    }
    if (next < 0) {
        if (due)
            list_remove(&activity->timer);
        return;
    }
    uint32_t at = worker->now_ms + (uint32_t)next;
    if (!list_empty(&activity->timer) && (int32_t)(activity->due_ms - at) <= 0)
        return;
    activity->due_ms = at;
    wheel_add(&worker->gather, &activity->timer, at);
}

/* The sweep that serves a lane. */
static struct sweep *sweep_of(struct activity *activity, int lane)
{
    return lane == HALLEY_LANE_HIGH ? &activity->urgent : &activity->rest;
}

/* Bytes of a lane that not everybody who takes bytes has been offered yet. */
static size_t unswept(struct activity *activity, int lane)
{
    const struct halley_lanes *lanes = &activity->lanes;
    const struct halley_framelog *log = lanes->log[lane];
    uint32_t swept = sweep_of(activity, lane)->swept[lane];
    size_t most = 0;
    if (!log)
        return 0;
    uint32_t from = halley_lanes_lost(lanes, lane, swept) ? halley_framelog_tail(log) : swept;
    for (int e = 0; e < ENCODING_COUNT; e++) {
        size_t bytes = halley_framelog_pending(log, e, from);
        most = bytes > most ? bytes : most;
    }
    return most;
}

void sweep_choke(struct worker *worker, struct activity *activity, int lane)
{
    struct sweep *sweep = sweep_of(activity, lane);
    if (circle(worker, activity) == 0 ||
        unswept(activity, lane) <= worker->policies[lane].bounds.bytes / 2)
        return;
    halley_lanes_flush_begin(&activity->lanes, 1u << lane, worker->now_ms);
    begin_sweep(worker, sweep);
    if (!worker->choking[lane])
        worker->choked_ms[lane] = worker->now_ms;
    worker->choking[lane] = sweep;
}

bool sweep_is_choked(struct worker *worker, int lane)
{
    struct sweep *sweep = worker->choking[lane];
    if (!sweep)
        return false;
    if (sweep->left > 0 &&
        (lane == HALLEY_LANE_HIGH || worker->now_ms - worker->choked_ms[lane] <= CHOKE_MS) &&
        unswept(activity_of(sweep), lane) > worker->policies[lane].bounds.bytes / 2)
        return true;
    worker->choking[lane] = NULL;
    return false;
}

static void on_gather_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    worker->now_ms = (uint32_t)uv_now(&worker->loop);
    sweep_on_gather(worker);
}

static void arm_gather_timer(struct worker *worker)
{
    uint32_t next = wheel_next(&worker->gather);
    if (next == 0)
        uv_timer_stop(&worker->gather_timer);
    else
        uv_timer_start(&worker->gather_timer, on_gather_timer, next, 0);
}

void sweep_on_gather(struct worker *worker)
{
    struct link due;
    struct link *link;
    list_init(&due);
    wheel_advance(&worker->gather, worker->now_ms, &due);
    while ((link = list_shift(&due)))
        sweep_schedule(worker, CONTAINER_OF(link, struct activity, timer));
}

static struct member *next_member(struct room *room, struct sweep *sweep)
{
    if (sweep->at >= room->count)
        sweep->at = 0; /* who stood at the end came forward, and is on the dirty list */
    if (sweep->at + 8 <
        room->count) { /* memberships and viewers lie scattered: have them fetched in time */
        __builtin_prefetch(room_at(room, sweep->at + 8));
        __builtin_prefetch(room_at(room, sweep->at + 4)->viewer);
    }
    return room_at(room, sweep->at++);
}

static struct viewer *next_slot(struct worker *worker, struct sweep *sweep)
{
    if (worker->slot_cap == 0)
        return NULL;
    if (sweep->at >= worker->slot_cap)
        sweep->at = 0;
    struct viewer *viewer = worker->slots[sweep->at++];
    return (uintptr_t)viewer & 1 ? NULL : viewer;
}

/* Serves the next viewer, or marks it: who is in many rooms may have something in several of them in this turn, and looking through
 * all of them costs more than the write. */
static void serve_next(struct worker *worker, struct sweep *sweep)
{
    struct room *room = activity_of(sweep)->room;
    if (room && room->count == 0)
        return;
    struct member *member = room ? next_member(room, sweep) : NULL;
    struct viewer *viewer = member ? member->viewer : next_slot(worker, sweep);
    if (!viewer || viewer->blocked || viewer->state != VIEWER_OPEN)
        return;
    if (member && viewer->member_count > FEW_ROOMS && room->count <= SMALL_ROOM)
        flush_mark_member(worker, member);
    else
        flush_viewer(worker, viewer, sweep->urgent);
}

static bool is_spent(const struct worker *worker, const struct budget *budget)
{
    return budget->viewers == 0 || metric_get(&worker->metrics.bytes_out) >= budget->bytes_end;
}

/* What the later ones get when the earlier ones took all. */
static void grant(const struct worker *worker, struct budget *budget, uint32_t viewers)
{
    uint64_t bytes_end =
        metric_get(&worker->metrics.bytes_out) + (uint64_t)viewers * BYTES_A_VIEWER;
    budget->viewers = most(budget->viewers, viewers);
    if (budget->bytes_end < bytes_end)
        budget->bytes_end = bytes_end;
}

static void sweep_one(struct worker *worker, struct sweep *sweep, struct budget *budget)
{
    while (!is_spent(worker, budget) && sweep->left > 0) {
        sweep->left--;
        budget->viewers--;
        serve_next(worker, sweep);
        if (list_empty(&sweep->link))
            break; /* the room went away with its last member */
        if (--sweep->lap == 0) {
            memcpy(sweep->swept, sweep->lapped, sizeof(sweep->swept));
            begin_lap(worker, sweep);
        }
    }
}

/* Walks sweeps of one list until the budget is used up. A room so busy that its walk never ends may not keep the others waiting:
 * whose turn was cut short comes last. */
static void sweep_some(struct worker *worker, struct link *list, struct budget *budget)
{
    while (!is_spent(worker, budget) && !list_empty(list)) {
        struct sweep *sweep = CONTAINER_OF(list->next, struct sweep, link);
        sweep_one(worker, sweep, budget);
        if (list_empty(&sweep->link))
            continue;
        list_remove(&sweep->link);
        if (sweep->left > 0) {
            list_append(list, &sweep->link);
            continue;
        }
        memcpy(sweep->swept, sweep->started, sizeof(sweep->swept));
        room_settle(worker, activity_of(sweep));
    }
}

static void flush_dirty(struct worker *worker, struct budget *budget)
{
    while (!is_spent(worker, budget)) {
        struct link *link = list_shift(&worker->dirty);
        if (!link)
            break;
        flush_marked(worker, CONTAINER_OF(link, struct viewer, link));
        budget->viewers--;
    }
}

static bool is_work_left(const struct worker *worker)
{
    return !list_empty(&worker->dirty) || !list_empty(&worker->urgent) ||
           !list_empty(&worker->sweeping);
}

bool sweep_turn(struct worker *worker)
{
    if (is_work_left(worker)) {
        uint64_t start = clock_ns();
        uint32_t slice = worker->conf->flush.slice;
        uint32_t share = 1 + slice / 8;
        struct budget budget = {0};
        grant(worker, &budget, slice);
        sweep_some(worker, &worker->urgent, &budget);
        grant(worker, &budget, share);
        flush_dirty(worker, &budget);
        grant(worker, &budget, share);
        sweep_some(worker, &worker->sweeping, &budget);
        grant(worker, &budget, share);
        flush_dirty(worker, &budget); /* whom these marked */
        histogram_add(&worker->metrics.flush, (clock_ns() - start) / 1000);
    }
    arm_gather_timer(worker);
    return is_work_left(worker);
}
