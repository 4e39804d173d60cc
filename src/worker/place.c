#include "worker/place.h"

#include "base/clock.h"

enum { SEEK_MAX = 1 << 15 /* marks are 16 bits of a count */ };

static int encoding_of(const struct member *member)
{
    return (int)viewer_adapter(member->viewer)->encoding;
}

void place_end(struct resume_lane *lane, enum resume_state state)
{
    list_remove(&lane->link);
    lane->replay = NULL;
    lane->state = state;
}

/* Finds the frame behind message `want` in the room's own log. */
static enum placed seek(const struct room *room, const struct tide_lane *tide, int lane,
                        int encoding, uint64_t want, uint32_t *number)
{
    const struct halley_framelog *log = room->activity ? room->activity->lanes.log[lane] : NULL;
    *number = room_next(room)[lane];
    if (want > tide->last.n)
        return PLACED_AHEAD;
    if (want == tide->last.n)
        return PLACED;
    if (!log || want < tide->since_n || tide->last.n - want >= SEEK_MAX)
        return PLACED_OLD;
    return halley_framelog_seek(log, encoding, (uint16_t)want, tide->since, number) &&
                   *number != room_next(room)[lane]
               ? PLACED
               : PLACED_OLD;
}

/* Lets the lane read the tide's replay, where that goes from `want` to what the log still has. */
static bool read_replay(struct resume_lane *to, const struct room *room, struct tide_lane *tide,
                        uint64_t want)
{
    struct replay *replay = tide->replay;
    struct member *member = to->resume->member;
    uint32_t number;
    if (!replay || replay->epoch != tide->last.epoch || want + 1 < replay->first ||
        want >= replay->last ||
        seek(room, tide, (int)replay->lane, encoding_of(member), replay->last, &number) != PLACED)
        return false;
    place_end(to, RESUME_REPLAY);
    list_append(&replay->readers, &to->link);
    to->replay = replay;
    to->cursor = (uint32_t)(want + 1 - replay->first);
    member->cursor[replay->lane] = number;
    return true;
}

/* Was history read a moment ago? Without this whoever has been away for long, or made it up, would have it read again. */
static bool is_read(const struct worker *worker, const struct tide_lane *tide)
{
    return tide->kept_n > 0 && clock_ms() - tide->kept_ms < worker->conf->history.replay_ms;
}

/* Where one lane goes on, as far as this worker can tell now. */
static enum placed find(struct worker *worker, struct resume *resume, const struct room *room,
                        struct tide_lane *tide, int lane)
{
    struct member *member = resume->member;
    struct history_point want = resume->after[lane];
    uint32_t number;
    if (want.epoch == 0)
        want = (struct history_point){tide->last.epoch, 0};
    if (tide->last.epoch == 0 && want.epoch == 0) /* all since the room began is asked for */
        return tide->unknown ? PLACED_AHEAD : PLACED;
    if (want.epoch != tide->last.epoch) /* an epoch is the time at which it began */
        return want.epoch > tide->last.epoch ? PLACED_AHEAD : PLACED_LOST;
    enum placed placed = seek(room, tide, lane, encoding_of(member), want.n, &number);
    if (placed == PLACED) {
        member->cursor[lane] = number;
        metric_add(&worker->metrics.resumed_log, want.n < tide->last.n);
    } else if (placed == PLACED_OLD && read_replay(&resume->lanes[lane], room, tide, want.n)) {
        metric_add(&worker->metrics.resumed_history, 1);
        return PLACED;
    } else if (placed == PLACED_OLD && is_read(worker, tide) && want.n + 1 < tide->kept_n) {
        return PLACED_LOST;
    }
    return placed;
}

static bool is_asking(const struct worker *worker, const struct tide_lane *tide)
{
    return tide->asking && worker->now_ms - tide->asked_ms < worker->conf->history.wait_ms;
}

void place_ask(struct worker *worker, struct tide *tide, int lane)
{
    struct tide_lane *of = &tide->lanes[lane];
    if (is_asking(worker, of))
        return;
    if (worker->replay_bytes >= worker->conf->history.replay_bytes)
        return; /* what is read could not be kept; the next one asks, or history.wait ends it */
    struct command *command = command_create(
        COMMAND_ASK_HISTORY, bytes_of(tide->room->name, tide->room->name_len), (struct bytes){0});
    if (!command)
        return; /* history.wait ends it */
    of->asking = true;
    of->asked_ms = worker->now_ms;
    command->lane = (enum lane)lane;
    worker_tell_node(worker, command);
}

static void set_gap(struct worker *worker, struct resume_lane *lane)
{
    place_end(lane, RESUME_GAP);
    metric_add(&worker->metrics.resumed_gap, 1);
}

bool place_is_news(uint64_t asked_ms, const struct resume *resume)
{
    return asked_ms > resume->came_ms;
}

/* A viewer that has more than this worker, and history read in the meantime: either lost what it has, or this worker is late. Who has
 * nothing waits until the node has said where the lane stands. */
static enum placed judge_by_history(const struct tide_lane *of, struct history_point want)
{
    if (want.epoch == 0)
        return PLACED_LATER;
    if (of->kept.epoch != want.epoch || of->kept.n < want.n || want.n + 1 < of->kept_n)
        return PLACED_LOST;
    return of->last.epoch == 0 && of->kept.n == want.n ? PLACED : PLACED_LATER;
}

bool place_lane(struct worker *worker, struct resume *resume, struct tide *tide, int lane,
                const struct history_batch *batch)
{
    struct resume_lane *at = &resume->lanes[lane];
    struct tide_lane *of = &tide->lanes[lane];
    if (resume->viewer->passive && lane != LANE_HIGH) {
        place_end(at, RESUME_LIVE);
        at->left_out = true;
        return true;
    }
    enum placed placed = find(worker, resume, tide->room, of, lane);
    if (batch && placed == PLACED_AHEAD)
        placed = place_is_news(batch->asked_ms, resume) ? judge_by_history(of, resume->after[lane])
                                                        : PLACED_LATER;
    else if (batch && placed == PLACED_OLD)
        placed = PLACED_LATER; /* the log begins behind what was read */
    if (placed == PLACED && at->state != RESUME_REPLAY)
        place_end(at, RESUME_LIVE);
    else if (placed == PLACED_LOST)
        set_gap(worker, at);
    else if (placed == PLACED_OLD || placed == PLACED_AHEAD) {
        place_end(at, placed == PLACED_AHEAD ? RESUME_AHEAD : RESUME_ASKED);
        list_append(&of->waiting, &at->link);
        if (placed == PLACED_OLD || of->unknown)
            place_ask(worker, tide, lane);
    }
    return placed != PLACED_LATER;
}

enum placed place_overdue(struct worker *worker, struct resume *resume, struct tide *tide, int lane)
{
    struct resume_lane *at = &resume->lanes[lane];
    const struct tide_lane *of = &tide->lanes[lane];
    if (at->state != RESUME_AHEAD)
        return at->state == RESUME_ASKED ? PLACED_LATER : PLACED;
    if (of->kept_n == 0 || !place_is_news(of->kept_ms, resume))
        return resume->doubted ? PLACED_LATER : PLACED_OLD;
    enum placed placed = judge_by_history(of, resume->after[lane]);
    if (placed == PLACED)
        place_end(at, RESUME_LIVE);
    else if (placed == PLACED_LOST)
        set_gap(worker, at);
    return placed == PLACED_LATER ? PLACED_LATER : PLACED;
}

void place_keep_answer(struct tide_lane *of, const struct history_batch *batch)
{
    bool same = batch->last.epoch == of->last.epoch;
    if (batch->last.n == 0 && batch->asked_ms >= of->epoch_ms)
        of->unknown = false; /* there is none yet */
    if (!same && batch->asked_ms <= of->epoch_ms)
        return;
    if (batch->count > 0 && (same || of->last.epoch == 0))
        of->kept_n = batch->first;
    else
        of->kept_n = (same || of->last.epoch == 0 ? batch->last.n : of->last.n) + 1;
    of->kept = batch->last;
    of->kept_ms = batch->asked_ms;
}
