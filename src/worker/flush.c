#include "worker/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <sys/socket.h>

/* One write under construction: what is the viewer's own first, then ranges of the logs. */
struct write_plan {
    struct halley_plan lanes;
    size_t own; /* bytes of rest and queue */
};

void flush_mark(struct worker *worker, struct viewer *viewer)
{
    if (viewer->blocked || viewer->state == VIEWER_DEAD)
        return;
    list_remove(&viewer->link);
    list_append(&worker->dirty, &viewer->link);
}

static void set_blocked(struct worker *worker, struct viewer *viewer, bool blocked)
{
    if (viewer->blocked == blocked)
        return;
    viewer->blocked = blocked;
    list_remove(&viewer->link);
    if (blocked) {
        list_append(&worker->blocked, &viewer->link);
        metric_add(&worker->metrics.viewers_blocked, 1);
    } else {
        metric_sub(&worker->metrics.viewers_blocked, 1);
    }
}

static void add_own(struct write_plan *plan, const struct extras *extras)
{
    plan->own = 0;
    if (!extras)
        return;
    size_t rest = extras->rest.len - extras->rest_sent;
    if (rest > 0)
        plan->lanes.iov[plan->lanes.iov_count++] =
            (struct iovec){extras->rest.data + extras->rest_sent, rest};
    size_t queue = extras->queue.len - extras->queue_sent;
    if (queue > 0)
        plan->lanes.iov[plan->lanes.iov_count++] =
            (struct iovec){extras->queue.data + extras->queue_sent, queue};
    plan->own = rest + queue;
}

enum gather { GATHER_ALL, GATHER_FULL, GATHER_AGAIN, GATHER_CLOSED };

/* A cursor behind the tail: told once, or cut off, as the lane says. */
static enum gather fell_behind(struct worker *worker, struct viewer *viewer,
                               const struct halley_lanes *lanes, int lane, uint32_t *cursor,
                               struct bytes room)
{
    if (worker->policies[lane].disconnect) {
        viewer_close(worker, viewer, CLOSE_TOO_SLOW);
        return GATHER_CLOSED;
    }
    int encoding = (int)viewer_adapter(viewer)->encoding;
    uint32_t count = halley_lanes_catch_up(lanes, &worker->policies[lane], lane, encoding,
                                           worker->now_ms, cursor);
    viewer->skipped += count;
    metric_add(&worker->metrics.drops[DROP_SKIPPED][lane], count);
    struct notice notice = {
        .kind = NOTICE_SKIPPED, .room = room, .lane = (enum lane)lane, .count = count};
    struct buf frame = {0};
    viewer_adapter(viewer)->append_notice(&frame, &notice);
    bool kept = !frame.failed && outbox_append(worker, viewer, buf_view(&frame), 1, true);
    buf_fini(&frame);
    return kept || viewer->state == VIEWER_OPEN ? GATHER_AGAIN : GATHER_CLOSED;
}

static enum gather gather_lane(struct worker *worker, struct viewer *viewer,
                               struct write_plan *plan, const struct halley_lanes *lanes, int lane,
                               uint32_t *cursor, struct bytes room)
{
    if (*cursor == lanes->next[lane])
        return GATHER_ALL;
    if (viewer->passive && lane != HALLEY_LANE_HIGH) {
        *cursor = lanes->next[lane];
        return GATHER_ALL;
    }
    if (halley_lanes_lost(lanes, lane, *cursor))
        return fell_behind(worker, viewer, lanes, lane, cursor, room);
    return halley_plan_add(&plan->lanes, lanes, lane, (int)viewer_adapter(viewer)->encoding, cursor)
               ? GATHER_ALL
               : GATHER_FULL;
}

/* High over all rooms, then normal over all, then low. */
static enum gather gather(struct worker *worker, struct viewer *viewer, struct write_plan *plan)
{
    halley_plan_init(&plan->lanes);
    add_own(plan, viewer->extras);
    if (viewer->state != VIEWER_OPEN || !viewer_adapter(viewer))
        return GATHER_ALL;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        enum gather got = gather_lane(worker, viewer, plan, &worker->all, lane,
                                      &viewer->all_cursor[lane], (struct bytes){0});
        if (got != GATHER_ALL)
            return got;
        for (struct member *member = viewer->members; member; member = member->next) {
            struct room *room = member->room;
            if (!room->live)
                continue;
            got = gather_lane(worker, viewer, plan, &room->lanes, lane, &member->cursor[lane],
                              bytes_of(room->name, room->name_len));
            if (got != GATHER_ALL)
                return got;
        }
    }
    return GATHER_ALL;
}

/* Takes `sent` bytes off the viewer's own runs; returns what is left of `sent` for the lanes. */
static size_t settle_own(struct worker *worker, struct viewer *viewer, size_t sent)
{
    struct extras *extras = viewer->extras;
    if (!extras)
        return sent;
    size_t rest = extras->rest.len - extras->rest_sent;
    size_t taken = sent < rest ? sent : rest;
    extras->rest_sent += taken;
    sent -= taken;
    if (extras->rest_sent == extras->rest.len) {
        extras->rest_sent = 0;
        buf_fini(&extras->rest);
    }
    size_t queue = extras->queue.len - extras->queue_sent;
    taken = sent < queue ? sent : queue;
    extras->queue_sent += taken;
    sent -= taken;
    if (extras->queue_sent == extras->queue.len) {
        metric_add(&worker->metrics.write_frames, extras->queue_frames);
        extras->queue_frames = 0;
        extras->queue_sent = 0;
        extras->pong_len = 0;
        buf_fini(&extras->queue);
    }
    extras_settle(worker, viewer);
    return sent;
}

static bool keep_rest(struct worker *worker, struct viewer *viewer, const struct iovec *runs,
                      int count)
{
    if (count == 0)
        return true;
    struct extras *extras = extras_of(worker, viewer);
    if (!extras)
        return false;
    for (int i = 0; i < count; i++)
        buf_append(&extras->rest, runs[i].iov_base, runs[i].iov_len);
    extras_settle(worker, viewer);
    return !extras->rest.failed;
}

/* Everything is written: what a closing or paused viewer was waiting for. */
static void on_drained(struct worker *worker, struct viewer *viewer)
{
    if (viewer->state == VIEWER_CLOSING) {
        if (viewer->hang_up) {
            viewer_destroy(worker, viewer);
        } else if (!viewer->shut) {
            viewer->shut = true;
            (void)shutdown(viewer->fd, SHUT_WR);
        }
        if (viewer->state == VIEWER_DEAD)
            return;
    }
    if (viewer->paused) {
        viewer->paused = false;
        if (viewer->codec)
            codec_restart_clock(viewer->codec, worker->now_ms);
        viewer_rearm(worker, viewer);
    }
}

/* Writes once. Returns true when there may be more to write at once. */
static bool write_once(struct worker *worker, struct viewer *viewer, struct write_plan *plan,
                       bool full)
{
    size_t wanted = plan->own + plan->lanes.bytes;
    if (plan->lanes.iov_count == 0) {
        on_drained(worker, viewer);
        return false;
    }
    ssize_t sent = write_runs(worker, viewer, plan->lanes.iov, plan->lanes.iov_count, wanted);
    if (sent < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
            set_blocked(worker, viewer, true);
        else if (errno == EINTR)
            return true;
        else if (viewer->state == VIEWER_CLOSING)
            viewer_destroy(worker, viewer);
        else
            viewer_close(worker, viewer, CLOSE_WRITE_ERROR);
        return false;
    }
    viewer->written_ms = worker->now_ms;
    metric_add(&worker->metrics.writes, 1);
    metric_add(&worker->metrics.bytes_out, (uint64_t)sent);
    size_t for_lanes = plan->own > 0 ? settle_own(worker, viewer, (size_t)sent) : (size_t)sent;
    struct iovec rest[2];
    int rest_count;
    uint32_t frames = halley_plan_settle(&plan->lanes, for_lanes, rest, &rest_count);
    metric_add(&worker->metrics.delivered, frames);
    metric_add(&worker->metrics.write_frames, frames);
    if (!keep_rest(worker, viewer, rest, rest_count)) {
        viewer_abort(worker, viewer, CLOSE_INTERNAL);
        return false;
    }
    if ((size_t)sent < wanted) {
        metric_add(&worker->metrics.writes_partial, 1);
        set_blocked(worker, viewer, true);
        return false;
    }
    if (!full && (viewer->state == VIEWER_CLOSING || viewer->paused))
        on_drained(worker, viewer);
    return full;
}

void flush_viewer(struct worker *worker, struct viewer *viewer)
{
    struct write_plan plan;
    bool more = true;
    /* A viewer in so many rooms that one plan can't hold them is written in several; each pass moves cursors. */
    while (more && !viewer->blocked && viewer->state != VIEWER_DEAD) {
        enum gather got = gather(worker, viewer, &plan);
        if (got == GATHER_AGAIN)
            continue;
        if (got == GATHER_CLOSED)
            continue; /* its close frame is written by the next pass */
        more = write_once(worker, viewer, &plan, got == GATHER_FULL);
    }
}

void flush_writable(struct worker *worker, struct viewer *viewer)
{
    set_blocked(worker, viewer, false);
    flush_mark(worker, viewer);
}

static struct halley_lanes *lanes_of(struct worker *worker, struct sweep *sweep)
{
    return sweep == &worker->all_sweep ? &worker->all
                                       : &CONTAINER_OF(sweep, struct room, sweep)->lanes;
}

static void note(uint32_t numbers[HALLEY_LANES], const struct halley_lanes *lanes)
{
    memcpy(numbers, lanes->next, sizeof(lanes->next));
}

/* A busy room's walk is set back again and again before it ends: laps tell how far everybody is served. */
static void begin_lap(struct worker *worker, struct sweep *sweep)
{
    uint32_t all = sweep == &worker->all_sweep ? worker->slot_cap
                                               : CONTAINER_OF(sweep, struct room, sweep)->count;
    sweep->lap = all ? all : 1;
    note(sweep->lapped, lanes_of(worker, sweep));
}

static void begin_sweep(struct worker *worker, struct halley_lanes *lanes, struct sweep *sweep,
                        uint32_t count)
{
    unsigned began = halley_lanes_flush_begin(lanes, worker->now_ms);
    if (count == 0) {
        note(sweep->swept, lanes);
        return;
    }
    if (sweep->left == 0) {
        sweep->at = (sweep->at + 61) % count; /* nobody is always last */
        begin_lap(worker, sweep);
    }
    sweep->left = count;
    note(sweep->started, lanes);
    if (began & 1u << HALLEY_LANE_HIGH) {
        list_remove(&sweep->link);
        list_append(&worker->urgent, &sweep->link);
    } else if (list_empty(&sweep->link)) {
        list_append(&worker->sweeping, &sweep->link);
    }
}

void flush_sweep_grew(struct sweep *sweep, uint32_t more)
{
    if (sweep->left == 0)
        return;
    sweep->left += more;
    sweep->lap += more;
}

void flush_schedule(struct worker *worker, struct halley_lanes *lanes, struct sweep *sweep,
                    uint32_t count, struct link *timer, uint32_t *due_ms)
{
    int due = halley_lanes_due_ms(lanes, worker->policies, worker->now_ms);
    if (due < 0)
        return;
    if (due == 0) {
        list_remove(timer);
        begin_sweep(worker, lanes, sweep, count);
        return;
    }
    uint32_t at = worker->now_ms + (uint32_t)due;
    if (!list_empty(timer) && (int32_t)(*due_ms - at) <= 0)
        return;
    *due_ms = at;
    wheel_add(&worker->gather, timer, at);
}

/* Bytes of a lane that not everybody who takes bytes has been offered yet. */
static size_t unswept(const struct halley_lanes *lanes, const struct sweep *sweep, int lane)
{
    const struct halley_framelog *log = lanes->log[lane];
    size_t most = 0;
    if (!log)
        return 0;
    uint32_t from = halley_lanes_lost(lanes, lane, sweep->swept[lane]) ? halley_framelog_tail(log)
                                                                       : sweep->swept[lane];
    for (int e = 0; e < ENCODING_COUNT; e++) {
        size_t bytes = halley_framelog_pending(log, e, from);
        most = bytes > most ? bytes : most;
    }
    return most;
}

void flush_choke(struct worker *worker, struct halley_lanes *lanes, struct sweep *sweep,
                 uint32_t count, int lane)
{
    if (count == 0 || unswept(lanes, sweep, lane) <= worker->policies[lane].bounds.bytes / 2)
        return;
    begin_sweep(worker, lanes, sweep, count);
    if (!worker->choking[lane])
        worker->choked_ms[lane] = worker->now_ms;
    worker->choking[lane] = sweep;
}

bool flush_is_choked(struct worker *worker, int lane)
{
    struct sweep *sweep = worker->choking[lane];
    if (!sweep)
        return false;
    if (sweep->left > 0 &&
        (lane == HALLEY_LANE_HIGH || worker->now_ms - worker->choked_ms[lane] <= CHOKE_MS) &&
        unswept(lanes_of(worker, sweep), sweep, lane) > worker->policies[lane].bounds.bytes / 2)
        return true;
    worker->choking[lane] = NULL;
    return false;
}

static void on_gather_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    worker->now_ms = (uint32_t)uv_now(&worker->loop);
    flush_on_gather(worker);
}

static void arm_gather_timer(struct worker *worker)
{
    uint32_t next = wheel_next(&worker->gather);
    if (next == 0)
        uv_timer_stop(&worker->gather_timer);
    else
        uv_timer_start(&worker->gather_timer, on_gather_timer, next, 0);
}

void flush_on_gather(struct worker *worker)
{
    struct link due;
    struct link *link;
    list_init(&due);
    wheel_advance(&worker->gather, worker->now_ms, &due);
    while ((link = list_shift(&due))) {
        if (link == &worker->all_timer) {
            flush_schedule(worker, &worker->all, &worker->all_sweep, worker->slot_cap, link,
                           &worker->all_due_ms);
            continue;
        }
        struct room *room = CONTAINER_OF(link, struct room, timer);
        flush_schedule(worker, &room->lanes, &room->sweep, room->count, link, &room->due_ms);
    }
}

static struct viewer *sweep_next(struct worker *worker, struct sweep *sweep)
{
    if (sweep == &worker->all_sweep) {
        if (worker->slot_cap == 0)
            return NULL;
        if (sweep->at >= worker->slot_cap)
            sweep->at = 0;
        struct viewer *viewer = worker->slots[sweep->at++];
        return (uintptr_t)viewer & 1 ? NULL : viewer;
    }
    struct room *room = CONTAINER_OF(sweep, struct room, sweep);
    if (room->count == 0)
        return NULL;
    if (sweep->at >= room->count)
        sweep->at = 0; /* who stood at the end came forward, and is on the dirty list */
    if (sweep->at + 8 <
        room->count) { /* memberships and viewers lie scattered: have them fetched in time */
        __builtin_prefetch(room->members[sweep->at + 8]);
        __builtin_prefetch(room->members[sweep->at + 4]->viewer);
    }
    return room->members[sweep->at++]->viewer;
}

/* Serves viewers of one sweep. Returns what is left of the budget. */
static uint32_t sweep_one(struct worker *worker, struct sweep *sweep, uint32_t budget)
{
    while (budget > 0 && sweep->left > 0) {
        sweep->left--;
        budget--;
        struct viewer *viewer = sweep_next(worker, sweep);
        if (viewer && !viewer->blocked && viewer->state == VIEWER_OPEN)
            flush_viewer(worker, viewer);
        if (list_empty(&sweep->link))
            break; /* the room went away with its last member */
        if (--sweep->lap == 0) {
            memcpy(sweep->swept, sweep->lapped, sizeof(sweep->swept));
            begin_lap(worker, sweep);
        }
    }
    return budget;
}

/* Walks sweeps of one list until the budget is used up. A room so busy that its walk never ends may not keep the others waiting:
 * whose turn was cut short comes last. */
static uint32_t sweep_some(struct worker *worker, struct link *list, uint32_t budget)
{
    while (budget > 0 && !list_empty(list)) {
        struct sweep *sweep = CONTAINER_OF(list->next, struct sweep, link);
        budget = sweep_one(worker, sweep, budget);
        if (list_empty(&sweep->link))
            continue;
        list_remove(&sweep->link);
        if (sweep->left > 0)
            list_append(list, &sweep->link);
        else
            memcpy(sweep->swept, sweep->started, sizeof(sweep->swept));
    }
    return budget;
}

static uint32_t flush_dirty(struct worker *worker, uint32_t budget)
{
    while (budget > 0) {
        struct link *link = list_shift(&worker->dirty);
        if (!link)
            break;
        flush_viewer(worker, CONTAINER_OF(link, struct viewer, link));
        budget--;
    }
    return budget;
}

bool flush_turn(struct worker *worker)
{
    bool work = !list_empty(&worker->dirty) || !list_empty(&worker->urgent) ||
                !list_empty(&worker->sweeping);
    if (work) {
        uint64_t start = clock_ns();
        uint32_t slice = worker->conf->flush.slice;
        uint32_t share = 1 + slice / 8; /* what the later ones get when the earlier ones took all */
        uint32_t budget = sweep_some(worker, &worker->urgent, slice);
        budget = flush_dirty(worker, budget > share ? budget : share);
        sweep_some(worker, &worker->sweeping, budget > share ? budget : share);
        histogram_add(&worker->metrics.flush, (clock_ns() - start) / 1000);
    }
    arm_gather_timer(worker);
    return !list_empty(&worker->dirty) || !list_empty(&worker->urgent) ||
           !list_empty(&worker->sweeping);
}

/* Lanes that disconnect laggards: looked for among the blocked viewers, never at append. */
static bool is_cut_off(const struct worker *worker, const struct viewer *viewer)
{
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (!worker->policies[lane].disconnect || (viewer->passive && lane != HALLEY_LANE_HIGH))
            continue;
        if (halley_lanes_lost(&worker->all, lane, viewer->all_cursor[lane]))
            return true;
        for (const struct member *member = viewer->members; member; member = member->next) {
            if (member->room->live &&
                halley_lanes_lost(&member->room->lanes, lane, member->cursor[lane]))
                return true;
        }
    }
    return false;
}

void flush_check_blocked(struct worker *worker)
{
    struct link checked;
    struct link *link;
    list_init(&checked);
    list_splice(&checked, &worker->blocked);
    while ((link = list_shift(&checked))) {
        struct viewer *viewer = CONTAINER_OF(link, struct viewer, link);
        list_append(&worker->blocked, link);
        if (viewer->state == VIEWER_OPEN && viewer_adapter(viewer) && is_cut_off(worker, viewer))
            viewer_close(worker, viewer, CLOSE_TOO_SLOW);
    }
}
