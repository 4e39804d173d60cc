#include "base/clock.h"
#include "protocol/history_id.h"
#include "worker/place.h"

#include <stdlib.h>

static struct resume *resume_of(const struct member *member)
{
    struct extras *extras = member->viewer->extras;
    struct resume *resume = extras ? extras->resumes : NULL;
    while (resume && resume->member != member)
        resume = resume->next;
    return resume;
}

static void resume_free(struct worker *worker, struct resume *resume)
{
    struct viewer *viewer = resume->viewer;
    struct resume **at = &viewer->extras->resumes;
    while (*at != resume)
        at = &(*at)->next;
    *at = resume->next;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        list_remove(&resume->lanes[lane].link);
    list_remove(&resume->link);
    metric_sub(&worker->metrics.resumes, 1);
    metric_sub(&worker->metrics.memory_queues, sizeof(*resume));
    free(resume);
    extras_settle(worker, viewer);
}

bool resume_drop(struct worker *worker, struct member *member)
{
    struct resume *resume = resume_of(member);
    bool arriving = resume && resume->fresh && !resume->joined;
    if (resume)
        resume_free(worker, resume);
    return arriving;
}

static struct resume *resume_create(struct worker *worker, struct member *member,
                                    const struct intent *intent, bool fresh)
{
    struct extras *extras = extras_of(worker, member->viewer);
    struct resume *resume = extras ? calloc(1, sizeof(*resume)) : NULL;
    if (!resume) {
        extras_settle(worker, member->viewer);
        return NULL;
    }
    resume->viewer = member->viewer;
    resume->member = member;
    resume->ref = intent->ref;
    resume->fresh = fresh;
    memcpy(resume->after, intent->after, sizeof(resume->after));
    list_init(&resume->link);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        resume->lanes[lane].resume = resume;
        list_init(&resume->lanes[lane].link);
    }
    resume->next = extras->resumes;
    extras->resumes = resume;
    metric_add(&worker->metrics.resumes, 1);
    metric_add(&worker->metrics.memory_queues, sizeof(*resume));
    return resume;
}

void resume_tell_stand(const struct worker *worker, const struct room *room, struct reply *joined)
{
    struct tide *tide = tide_of(worker, room);
    joined->has_after = worker->conf->history_types > 0;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        joined->after[lane] = tide ? tide->lanes[lane].last : (struct history_point){0};
        if (tide)
            tide->lanes[lane].gap_told = false; /* not to this one, who goes on behind the notice */
    }
}

static bool is_waiting(const struct resume *resume)
{
    bool waits = !resume->begun;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        waits |=
            resume->lanes[lane].state == RESUME_ASKED || resume->lanes[lane].state == RESUME_AHEAD;
    return waits;
}

static bool is_replaying(const struct resume *resume)
{
    bool replays = false;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        replays |= resume->lanes[lane].state == RESUME_REPLAY;
    return replays;
}

/* What is told to a viewer whose lanes are all placed; made before anything is sent, which may close the viewer. */
struct arrival {
    struct viewer *viewer;
    struct reply joined;
    struct notice gaps[LANE_COUNT];
    char ids[LANE_COUNT][HISTORY_ID_MAX + 1];
    int gap_count;
    char room[ROOM_NAME_MAX];
};

static void add_gap(struct arrival *told, enum lane lane, struct history_point after)
{
    struct notice *gap = &told->gaps[told->gap_count];
    *gap = (struct notice){.kind = NOTICE_GAP, .room = told->joined.room, .lane = lane};
    if (after.epoch != 0)
        gap->after = history_id_format(lane, after, told->ids[told->gap_count]);
    told->gap_count++;
}

static void prepare(struct worker *worker, const struct resume *resume, struct arrival *told)
{
    const struct room *room = resume->member->room;
    memcpy(told->room, room->name, room->name_len);
    told->gap_count = 0;
    told->viewer = resume->viewer;
    told->joined = (struct reply){
        .kind = REPLY_JOINED, .ref = resume->ref, .room = bytes_of(told->room, room->name_len)};
    counts_fill_joined(room, &told->joined);
    resume_tell_stand(worker, room, &told->joined);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        bool gap = resume->lanes[lane].state == RESUME_GAP;
        if (gap)
            add_gap(told, (enum lane)lane, resume->after[lane]);
        if (gap || resume->lanes[lane].left_out) /* from where `joined` says that the lane stands */
            resume->member->cursor[lane] = room_next(room)[lane];
        else
            told->joined.after[lane] = resume->after[lane];
    }
}

/* All lanes are placed: tells the viewer, and lets it have what it missed. */
static void resume_answer(struct worker *worker, struct resume *resume)
{
    struct arrival told;
    prepare(worker, resume, &told);
    if (resume->fresh)
        events_join(worker, resume->viewer, told.joined.room);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (resume->lanes[lane].state == RESUME_GAP)
            resume->lanes[lane].state = RESUME_LIVE;
    }
    resume->joined = true;
    list_remove(&resume->link);
    if (!is_replaying(resume))
        resume_free(worker, resume);
    for (int i = 0; i < told.gap_count && told.viewer->state == VIEWER_OPEN; i++)
        reply_notice(worker, told.viewer, &told.gaps[i]);
    if (told.viewer->state == VIEWER_OPEN)
        reply_send(worker, told.viewer, &told.joined);
    if (told.viewer->state == VIEWER_OPEN)
        flush_mark(worker, told.viewer);
}

/* History can't be read now: the viewer may come again with the same `after`. */
static void resume_fail(struct worker *worker, struct resume *resume)
{
    struct viewer *viewer = resume->viewer;
    struct member *member = resume->member;
    bool fresh = resume->fresh;
    char name[ROOM_NAME_MAX];
    memcpy(name, member->room->name, member->room->name_len);
    struct reply reply = {.kind = REPLY_ERROR,
                          .ref = resume->ref,
                          .room = bytes_of(name, member->room->name_len),
                          .error_code = ERROR_UNAVAILABLE,
                          .text =
                              "what was missed can't be read now; join again with the same after",
                          .retry_after_ms = 500 + worker_random(worker) % 1000};
    metric_add(&worker->metrics.resume_failed, 1);
    if (fresh) {
        room_leave(worker, member);
    } else {
        resume_free(worker, resume);
        flush_mark(worker, viewer);
    }
    reply_send(worker, viewer, &reply);
}

static void resume_begin(struct worker *worker, struct resume *resume)
{
    struct room *room = resume->member->room;
    struct tide *tide = tide_of(worker, room);
    resume->begun = true;
    resume->since_ms = worker->now_ms;
    resume->came_ms = clock_ms();
    list_append(&worker->resumes, &resume->link);
    bool has = false;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        has |= resume->after[lane].epoch != 0;
    if (!tide &&
        has) /* this worker knows of no numbers: there are none, or they could not be read */
        tide = tide_make(worker, room);
    bool can = tide || !has;
    for (int lane = 0; tide && can && lane < LANE_COUNT; lane++)
        can = place_lane(worker, resume, tide, lane, NULL);
    if (!can)
        resume_fail(worker, resume);
    else if (!is_waiting(resume))
        resume_answer(worker, resume);
}

static void tell_overtaken(struct worker *worker, const struct resume *held)
{
    if (held->begun && !held->joined && held->ref.present)
        reply_send(worker, held->viewer,
                   &(struct reply){.kind = REPLY_ERROR,
                                   .ref = held->ref,
                                   .error_code = ERROR_UNAVAILABLE,
                                   .text = "a later join of this room took this one's place",
                                   .retry_after_ms = 1000});
}

bool resume_join(struct worker *worker, struct member *member, const struct intent *intent,
                 bool fresh)
{
    struct resume *held = resume_of(member);
    fresh |= held && !held->joined && held->fresh;
    struct resume *resume = resume_create(worker, member, intent, fresh);
    if (!resume)
        return false; /* an earlier one goes on */
    if (held) {
        tell_overtaken(worker, held);
        resume_free(worker, held);
    }
    if (member->room->live)
        resume_begin(worker, resume);
    return true;
}

bool resume_join_again(struct worker *worker, struct member *member, const struct intent_ref *ref)
{
    struct resume *resume = resume_of(member);
    if (!resume || !resume->begun || resume->joined)
        return false;
    tell_overtaken(worker, resume);
    resume->ref = *ref;
    return true;
}

struct intent_ref resume_unanswered(const struct member *member)
{
    const struct resume *resume = resume_of(member);
    return resume && !resume->joined ? resume->ref : (struct intent_ref){0};
}

bool resume_live(struct worker *worker, struct member *member, const struct intent_ref *ref)
{
    struct resume *resume = resume_of(member);
    if (!resume)
        return false;
    if (ref)
        resume->ref = *ref;
    resume_begin(worker, resume);
    return true;
}

/* ---- history is read */

void resume_on_history(struct worker *worker, const struct command *command)
{
    const struct history_batch *batch = command->object;
    struct bytes name = command_room(command);
    struct room *room = room_find(worker, name, map_hash(name.data, name.len));
    struct tide *tide = room ? tide_of(worker, room) : NULL;
    struct link waiting;
    struct link *link;
    if (!tide)
        return;
    struct tide_lane *of = &tide->lanes[command->lane];
    of->asking = false;
    bool usable = batch->error == 0 && batch->last.epoch == of->last.epoch;
    bool bounded = worker->replay_bytes >= worker->conf->history.replay_bytes;
    if (batch->error == 0)
        place_keep_answer(of, batch);
    if (usable && !bounded)
        resume_set_replay(worker, of, resume_make_replay(worker, of, command->lane, batch));
    list_init(&waiting);
    list_splice(&waiting, &of->waiting);
    while ((link = list_shift(&waiting))) {
        struct resume_lane *lane = CONTAINER_OF(link, struct resume_lane, link);
        struct resume *resume = lane->resume;
        bool begins = resume->after[command->lane].epoch == 0 && !of->unknown;
        if (lane->state == RESUME_AHEAD && !begins &&
            (!resume->doubted || !place_is_news(batch->asked_ms, resume))) {
            list_append(&of->waiting, &lane->link);
            continue;
        }
        if (batch->error != 0 || (usable && bounded) ||
            !place_lane(worker, resume, tide, command->lane, batch))
            resume_fail(worker, resume);
        else if (!is_waiting(resume))
            resume_answer(worker, resume);
        if (room_find(worker, name, map_hash(name.data, name.len)) != room)
            return; /* the last one left by its answer, and took the room along */
    }
}

/* ---- flush */

static void finish_lane(struct worker *worker, struct resume *resume, int lane)
{
    place_end(&resume->lanes[lane], RESUME_LIVE);
    if (resume->joined && !is_replaying(resume))
        resume_free(worker, resume);
}

enum resume_gather resume_gather(struct worker *worker, struct member *member, int lane,
                                 struct halley_plan *plan)
{
    struct resume *resume = resume_of(member);
    if (!resume)
        return RESUME_GO;
    struct resume_lane *at = &resume->lanes[lane];
    if (!resume->joined) /* until then a viewer lets pass what comes: nothing may leave too early */
        return RESUME_BLOCKED;
    if (at->state != RESUME_REPLAY)
        return RESUME_GO;
    const struct halley_lanes *lanes = &at->replay->lanes;
    if (at->cursor == lanes->next[lane] || (member->viewer->passive && lane != LANE_HIGH)) {
        finish_lane(worker, resume, lane);
        return RESUME_GO;
    }
    int encoding = (int)viewer_adapter(member->viewer)->encoding;
    return halley_plan_add(plan, lanes, lane, encoding, &at->cursor) ? RESUME_GO : RESUME_FULL;
}

/* ---- time */

void resume_turn(struct worker *worker)
{
    struct link *link;
    while ((link = list_shift(&worker->ripe))) {
        struct resume *resume = CONTAINER_OF(link, struct resume, link);
        struct tide *tide = tide_of(worker, resume->member->room);
        list_append(&worker->resumes, &resume->link);
        bool can = true;
        for (int lane = 0; tide && can && lane < LANE_COUNT; lane++) {
            if (resume->lanes[lane].state == RESUME_AHEAD)
                can = place_lane(worker, resume, tide, lane, NULL);
        }
        if (!can)
            resume_fail(worker, resume);
        else if (!is_waiting(resume))
            resume_answer(worker, resume);
    }
}

/* Its time is up: it is told how far it came, and goes on live. */
static void replay_end(struct worker *worker, struct replay *replay)
{
    struct link *link;
    /* The notice may close the last viewer of the room, whose tide would take the replay along. */
    if (replay->owner)
        replay->owner->replay = NULL;
    replay->owner = NULL;
    while ((link = list_shift(&replay->readers))) {
        struct resume_lane *lane = CONTAINER_OF(link, struct resume_lane, link);
        struct viewer *viewer = lane->resume->viewer;
        const struct room *room = lane->resume->member->room;
        char id[HISTORY_ID_MAX + 1];
        char name[ROOM_NAME_MAX];
        bool whole = lane->cursor == replay->lanes.next[replay->lane];
        struct history_point came = {replay->epoch, replay->first + lane->cursor - 1};
        memcpy(name, room->name, room->name_len);
        struct notice gap = {.kind = NOTICE_GAP,
                             .room = bytes_of(name, room->name_len),
                             .lane = replay->lane,
                             .after = history_id_format(replay->lane, came, id)};
        /* It waits for another lane still, and is to be told of neither. */
        if (!lane->resume->joined) {
            resume_fail(worker, lane->resume);
            continue;
        }
        finish_lane(worker, lane->resume, replay->lane);
        if (whole)
            continue;
        metric_add(&worker->metrics.resumed_gap, 1);
        reply_notice(worker, viewer, &gap);
    }
    resume_free_replay(worker, replay);
}

/* history.wait is over. */
static void resume_expire(struct worker *worker, struct resume *resume, struct tide *tide)
{
    bool can = tide != NULL;
    unsigned asks = 0;
    for (int lane = 0; can && lane < LANE_COUNT; lane++) {
        enum placed placed = place_overdue(worker, resume, tide, lane);
        can = placed != PLACED_LATER;
        asks |= (unsigned)(placed == PLACED_OLD) << lane;
    }
    if (!can) {
        resume_fail(worker, resume);
        return;
    }
    if (!asks) {
        resume_answer(worker, resume);
        return;
    }
    resume->doubted = true;
    resume->since_ms = worker->now_ms;
    list_remove(&resume->link);
    list_append(&worker->resumes, &resume->link);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (asks & 1u << lane)
            place_ask(worker, tide, lane);
    }
}

void resume_fini(struct worker *worker)
{
    while (!list_empty(&worker->replays))
        resume_free_replay(worker, CONTAINER_OF(worker->replays.next, struct replay, link));
    map_fini(&worker->tides);
}

void resume_tick(struct worker *worker)
{
    while (!list_empty(&worker->resumes)) {
        struct resume *first = CONTAINER_OF(worker->resumes.next, struct resume, link);
        if (worker->now_ms - first->since_ms < worker->conf->history.wait_ms)
            break;
        resume_expire(worker, first, tide_of(worker, first->member->room));
    }
    while (!list_empty(&worker->replays)) {
        struct replay *oldest = CONTAINER_OF(worker->replays.next, struct replay, link);
        if (worker->now_ms - oldest->made_ms < worker->conf->history.replay_ms)
            break;
        replay_end(worker, oldest);
    }
}
