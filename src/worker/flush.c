#include "worker/internal.h"
#include "worker/resume.h"
#include "ws/frame.h"

#include <errno.h>
#include <sys/socket.h>

/* One write under construction: what is the viewer's own first, then ranges of the logs. */
struct write_plan {
    struct halley_plan lanes;
    struct write_cuts cuts; /* what it consists of */
};

/* Beside a segment of the high lane so much of the others may ride along (an urgent write is no place for a backlog). */
enum { URGENT_EXTRA_BYTES = 1024 };

/* What a write is for: everything, what must not wait, or one room's messages. */
struct reach {
    bool urgent;
    struct member *only; /* NULL: all of the viewer's rooms */
};

static bool put_on_dirty(struct worker *worker, struct viewer *viewer)
{
    if (viewer->blocked || viewer->state == VIEWER_DEAD)
        return false;
    list_remove(&viewer->link);
    list_append(&worker->dirty, &viewer->link);
    return true;
}

void flush_mark(struct worker *worker, struct viewer *viewer)
{
    if (put_on_dirty(worker, viewer))
        viewer->whole = true;
}

void flush_mark_member(struct worker *worker, struct member *member)
{
    struct viewer *viewer = member->viewer;
    if (viewer->marked == member || !put_on_dirty(worker, viewer))
        return;
    if (viewer->marked)
        viewer->whole = true;
    viewer->marked = member;
}

static void unmark(struct viewer *viewer)
{
    viewer->marked = NULL;
    viewer->whole = false;
}

static void set_blocked(struct worker *worker, struct viewer *viewer, bool blocked)
{
    if (viewer->blocked == blocked)
        return;
    viewer->blocked = blocked;
    list_remove(&viewer->link);
    unmark(viewer);
    narrow_blocked(worker, viewer, blocked);
    if (blocked) {
        list_append(&worker->blocked, &viewer->link);
        metric_add(&worker->metrics.viewers_blocked, 1);
    } else {
        metric_sub(&worker->metrics.viewers_blocked, 1);
    }
}

static void add_run(struct halley_plan *lanes, struct bytes run)
{
    if (run.len > 0)
        lanes->iov[lanes->iov_count++] = (struct iovec){(char *)(uintptr_t)run.data, run.len};
}

static struct bytes unsent(const struct buf *buf, size_t sent)
{
    return buf->len > sent ? bytes_of(buf->data + sent, buf->len - sent) : (struct bytes){0};
}

static void add_own(struct write_plan *plan, const struct extras *extras)
{
    plan->cuts = (struct write_cuts){.plan = &plan->lanes};
    if (!extras)
        return;
    struct bytes rest = unsent(&extras->rest, extras->rest_sent);
    add_run(&plan->lanes, rest);
    plan->cuts.rest = rest.len;
    plan->cuts.queue = unsent(&extras->queue, extras->queue_sent);
    add_run(&plan->lanes, plan->cuts.queue);
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
    struct terms *terms = terms_of(worker, viewer);
    if (terms)
        terms->skipped += count;
    metric_add(&worker->metrics.drops[DROP_SKIPPED][lane], count);
    struct notice notice = {
        .kind = NOTICE_SKIPPED, .room = room, .lane = (enum lane)lane, .count = count};
    struct buf frame = {0};
    viewer_adapter(viewer)->append_notice(&frame, &notice);
    bool kept = !frame.failed && outbox_append(worker, viewer, buf_view(&frame), 1, true);
    buf_fini(&frame);
    return kept || viewer->state == VIEWER_OPEN ? GATHER_AGAIN : GATHER_CLOSED;
}

/* May this lane be left out of an urgent write? Its own sweep takes it. */
static bool can_wait(const struct halley_lanes *lanes, int lane, int encoding, uint32_t cursor)
{
    const struct halley_framelog *log = lanes->log[lane];
    return lane != HALLEY_LANE_HIGH &&
           (halley_lanes_lost(lanes, lane, cursor) || !log ||
            halley_framelog_pending(log, encoding, cursor) > URGENT_EXTRA_BYTES);
}

static enum gather gather_lane(struct worker *worker, struct viewer *viewer,
                               struct write_plan *plan, const struct activity *activity, int lane,
                               uint32_t *cursor, bool urgent)
{
    const struct halley_lanes *lanes = &activity->lanes;
    const struct room *room = activity->room;
    int encoding = (int)viewer_adapter(viewer)->encoding;
    if (*cursor == lanes->next[lane])
        return GATHER_ALL;
    if (viewer->passive && lane != HALLEY_LANE_HIGH) {
        *cursor = lanes->next[lane];
        return GATHER_ALL;
    }
    if (urgent && can_wait(lanes, lane, encoding, *cursor))
        return GATHER_ALL;
    if (halley_lanes_lost(lanes, lane, *cursor))
        return fell_behind(worker, viewer, lanes, lane, cursor,
                           room ? bytes_of(room->name, room->name_len) : (struct bytes){0});
    return halley_plan_add(&plan->lanes, lanes, lane, encoding, cursor) ? GATHER_ALL : GATHER_FULL;
}

static enum gather gather_member(struct worker *worker, struct viewer *viewer,
                                 struct write_plan *plan, struct member *member, int lane,
                                 bool urgent)
{
    struct room *room = member->room;
    if (!room->live)
        return GATHER_ALL;
    if (viewer->extras && viewer->extras->resumes) {
        enum resume_gather may = resume_gather(worker, member, lane, &plan->lanes);
        if (may != RESUME_GO)
            return may == RESUME_FULL ? GATHER_FULL : GATHER_ALL;
    }
    if (!room->activity && member->cursor[lane] == room->rest.next[lane])
        return GATHER_ALL;
    /* It was blocked until the room fell silent: it is told that it skipped. */
    struct activity *activity = room_activity(worker, room);
    if (!activity)
        return GATHER_ALL;
    return gather_lane(worker, viewer, plan, activity, lane, &member->cursor[lane], urgent);
}

/* High over all rooms, then normal over all, then low. */
static enum gather gather(struct worker *worker, struct viewer *viewer, struct write_plan *plan,
                          struct reach reach)
{
    halley_plan_init(&plan->lanes);
    add_own(plan, viewer->extras);
    if (viewer->state != VIEWER_OPEN || !viewer_adapter(viewer))
        return GATHER_ALL;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        enum gather got = gather_lane(worker, viewer, plan, &worker->all, lane,
                                      &viewer->all_cursor[lane], reach.urgent);
        struct member *member = reach.only ? reach.only : viewer->members;
        while (member && got == GATHER_ALL) {
            got = gather_member(worker, viewer, plan, member, lane, reach.urgent);
            member = reach.only || got != GATHER_ALL ? NULL : member->next;
        }
        if (lane == HALLEY_LANE_HIGH)
            plan->cuts.high = plan->lanes.bytes;
        if (got != GATHER_ALL)
            return got;
    }
    return GATHER_ALL;
}

/* The kernel took `taken` bytes of the queue: of a frame that it has half of the other half leaves the queue. Returns how many bytes that are. */
static size_t tear(struct extras *extras, struct bytes queue, size_t taken)
{
    size_t half = taken < queue.len ? ws_frames_end(queue, taken) - taken : 0;
    if (half == 0)
        return 0;
    buf_append(&extras->rest, queue.data + taken, half);
    if (!extras->rest.failed)
        return half;
    buf_fini(&extras->rest); /* then it stays there, and a frame may go in two */
    return 0;
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
    struct bytes queue = unsent(&extras->queue, extras->queue_sent);
    taken = sent < queue.len ? sent : queue.len;
    sent -= taken;
    extras->queue_sent += taken + tear(extras, queue, taken);
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
    bool kept = !extras->rest.failed;
    extras_settle(worker, viewer); /* where nothing was kept they are gone */
    return kept;
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
    size_t own = plan->cuts.rest + plan->cuts.queue.len;
    size_t wanted = own + plan->lanes.bytes;
    if (plan->lanes.iov_count == 0) {
        on_drained(worker, viewer);
        return false;
    }
    ssize_t sent =
        write_cut(worker, viewer, plan->lanes.iov, plan->lanes.iov_count, wanted, &plan->cuts);
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
    size_t for_lanes = own > 0 ? settle_own(worker, viewer, (size_t)sent) : (size_t)sent;
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

static void flush(struct worker *worker, struct viewer *viewer, struct reach reach)
{
    struct write_plan plan;
    bool more = true;
    /* A viewer in so many rooms that one plan can't hold them is written in several; each pass moves cursors. */
    while (more && !viewer->blocked && viewer->state != VIEWER_DEAD) {
        enum gather got = gather(worker, viewer, &plan, reach);
        if (got == GATHER_AGAIN)
            continue;
        if (got == GATHER_CLOSED) {
            reach.only = NULL; /* it left its rooms; its close frame is written by the next pass */
            continue;
        }
        more = write_once(worker, viewer, &plan, got == GATHER_FULL);
    }
}

void flush_viewer(struct worker *worker, struct viewer *viewer, bool urgent)
{
    flush(worker, viewer, (struct reach){.urgent = urgent});
}

void flush_marked(struct worker *worker, struct viewer *viewer)
{
    struct member *only = viewer->whole ? NULL : viewer->marked;
    struct room *room = only ? only->room : NULL;
    unmark(viewer);
    flush(worker, viewer, (struct reach){.only = only});
    if (room && room->activity) /* dead rooms stay until the end of the turn */
        room_settle(worker, room->activity);
}

void flush_writable(struct worker *worker, struct viewer *viewer)
{
    set_blocked(worker, viewer, false);
    flush_mark(worker, viewer);
}

/* Lanes that disconnect laggards: looked for among the blocked viewers, never at append. */
static bool is_cut_off(const struct worker *worker, const struct viewer *viewer)
{
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (!worker->policies[lane].disconnect || (viewer->passive && lane != HALLEY_LANE_HIGH))
            continue;
        if (halley_lanes_lost(&worker->all.lanes, lane, viewer->all_cursor[lane]))
            return true;
        for (const struct member *member = viewer->members; member; member = member->next) {
            const struct room *room = member->room;
            if (!room->live)
                continue;
            if (room->activity
                    ? halley_lanes_lost(&room->activity->lanes, lane, member->cursor[lane])
                    : member->cursor[lane] != room->rest.next[lane])
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
