#include "worker/internal.h"

#include "base/log.h"
#include "worker/resume.h"

#include <stdlib.h>

enum { SETTLED_MEMBERS = 8 };

struct room *room_find(const struct worker *worker, struct bytes name, uint32_t hash)
{
    for (struct map_node *node = map_chain(&worker->rooms, hash); node; node = node->next) {
        struct room *room = CONTAINER_OF(node, struct room, node);
        if (node->hash == hash && bytes_equal(bytes_of(room->name, room->name_len), name))
            return room;
    }
    return NULL;
}

struct member *room_member(const struct viewer *viewer, const struct room *room)
{
    struct member *member = viewer->members;
    while (member && member->room != room)
        member = member->next;
    return member;
}

/* The name begins where the last member ends, not where the padded struct does. */
static size_t room_bytes(struct bytes name)
{
    return offsetof(struct room, name) + name.len;
}

static struct room *room_create(struct worker *worker, struct bytes name, uint32_t hash)
{
    struct room *room = calloc(1, room_bytes(name));
    if (!room)
        return NULL;
    memcpy(room->name, name.data, name.len);
    room->name_len = (uint8_t)name.len;
    halley_lanes_rest_init(&room->rest, worker->now_ms);
    room->online = ONLINE_UNKNOWN;
    struct command *hold = command_create(COMMAND_HOLD, name, (struct bytes){0});
    if (!hold || map_add(&worker->rooms, &room->node, hash) != 0) {
        free(hold);
        free(room);
        return NULL;
    }
    worker_tell_node(worker, hold);
    metric_add(&worker->metrics.rooms, 1);
    metric_add(&worker->metrics.memory_rooms, room_bytes(name));
    return room;
}

static void count_logs(struct worker *worker, size_t before, size_t after)
{
    worker->log_bytes += after - before; /* modulo 2^64: may shrink too */
    metric_set(&worker->metrics.memory_logs, worker->log_bytes);
}

struct activity *room_activity(struct worker *worker, struct room *room)
{
    if (room->activity)
        return room->activity;
    struct activity *activity = calloc(1, sizeof(*activity));
    if (!activity)
        return NULL;
    activity->room = room;
    halley_lanes_init(&activity->lanes, &room->rest);
    sweep_init(activity);
    list_init(&activity->link);
    list_append(&worker->active, &activity->link);
    metric_add(&worker->metrics.memory_rooms, sizeof(*activity));
    room->activity = activity;
    return activity;
}

/* Takes the activity off its room; what was on its way is gone. */
static struct activity *end_activity(struct worker *worker, struct room *room)
{
    struct activity *activity = room->activity;
    room->rest = halley_lanes_rest(&activity->lanes);
    room->activity = NULL;
    sweep_stop(worker, activity);
    count_logs(worker, halley_lanes_memory(&activity->lanes), 0);
    halley_lanes_fini(&activity->lanes);
    metric_sub(&worker->metrics.memory_rooms, sizeof(*activity));
    return activity;
}

/* Asked of small rooms only: in large ones somebody always lags, and their logs end by themselves. */
static bool everybody_has_everything(const struct room *room)
{
    if (room->count > SETTLED_MEMBERS)
        return false;
    for (uint32_t i = 0; i < room->count; i++) {
        if (memcmp(room_at(room, i)->cursor, room->activity->lanes.next,
                   sizeof(room->activity->lanes.next)) != 0)
            return false;
    }
    return true;
}

void room_settle(struct worker *worker, struct activity *activity)
{
    struct room *room = activity->room;
    if (!room || activity->lanes.pending || sweep_is_walking(activity) ||
        !list_empty(&activity->timer))
        return;
    bool empty = true;
    for (int lane = 0; lane < HALLEY_LANES; lane++)
        empty &= !activity->lanes.log[lane];
    if (empty || everybody_has_everything(room))
        free(end_activity(worker, room));
}

static uint64_t list_bytes(const struct room *room)
{
    return (uint64_t)room->cap * sizeof(struct member *);
}

/* The last member left. A sweep of this turn may still look at the room and its activity. */
static void room_destroy(struct worker *worker, struct room *room)
{
    struct bytes name = bytes_of(room->name, room->name_len);
    struct command *release = command_create(COMMAND_RELEASE, name, (struct bytes){0});
    if (release)
        worker_tell_node(worker, release);
    else
        log_error("no memory to release a room: it stays subscribed", LOG_BYTES("room", name));
    tide_end(worker, room);
    map_remove(&worker->rooms, &room->node);
    if (room->activity) {
        struct activity *activity = end_activity(worker, room);
        list_append(&worker->ended, &activity->link);
    }
    metric_sub(&worker->metrics.rooms, 1);
    metric_sub(&worker->metrics.memory_rooms, room_bytes(name) + list_bytes(room));
    if (room->cap)
        free(room->members.list);
    room->cap = 0;
    room->node.next = worker->dead_rooms;
    worker->dead_rooms = &room->node;
}

/* Gives the list another capacity; 1 or 0: no list, the one member stands in its place. */
static int members_resize(struct worker *worker, struct room *room, uint32_t cap)
{
    struct member **list = NULL;
    if (cap > 1) {
        list = realloc(room->cap ? room->members.list : NULL, cap * sizeof(struct member *));
        if (!list)
            return UV_ENOMEM;
        if (!room->cap)
            list[0] = room->members.one;
    }
    metric_sub(&worker->metrics.memory_rooms, list_bytes(room));
    if (list) {
        room->members.list = list;
        room->cap = cap;
    } else if (room->cap) {
        list = room->members.list;
        room->members.one = list[0];
        room->cap = 0;
        free(list);
    }
    metric_add(&worker->metrics.memory_rooms, list_bytes(room));
    return 0;
}

/* Room for one more. */
static int members_grow(struct worker *worker, struct room *room)
{
    uint32_t cap = room->cap;
    if (room->count < most(cap, 1))
        return 0;
    return members_resize(worker, room, cap < 8 ? most(cap, 1) + 2 : cap + cap / 2);
}

static void members_set(struct room *room, uint32_t index, struct member *member)
{
    if (room->cap)
        room->members.list[index] = member;
    else
        room->members.one = member;
    member->index = index;
}

static void member_start(struct member *member)
{
    for (int lane = 0; lane < HALLEY_LANES; lane++)
        member->cursor[lane] = room_next(member->room)[lane];
}

static struct intent_ref waiting_ref(const struct member *member)
{
    return (struct intent_ref){.present = member->waiting.ref_present,
                               .value = (uint64_t)member->waiting.ref_high << 32 |
                                        member->waiting.ref_low};
}

static void set_waiting_ref(struct member *member, struct intent_ref ref)
{
    member->waiting.ref_present = ref.present;
    member->waiting.ref_high = (uint32_t)(ref.value >> 32);
    member->waiting.ref_low = (uint32_t)ref.value;
}

/* Nobody is told that it is in before the subscription stands: of joins of one viewer that wait, the last one is answered then. */
static enum join_result join_again(struct worker *worker, struct member *member,
                                   struct intent_ref ref)
{
    if (member->room->live)
        return JOIN_HELD;
    struct reply reply = {
        .kind = REPLY_ERROR,
        .ref = waiting_ref(member),
        .error_code = ERROR_UNAVAILABLE,
        .text = "the broker is not ready; a later join of this room took this one's place",
        .retry_after_ms = 1000};
    if (!ref.present)
        return JOIN_WAITS;
    set_waiting_ref(member, ref);
    if (reply.ref.present)
        reply_send(worker, member->viewer, &reply);
    return JOIN_WAITS;
}

enum join_result room_join(struct worker *worker, struct viewer *viewer, struct bytes name,
                           struct intent_ref ref)
{
    require_own_thread(worker);
    uint32_t hash = map_hash(name.data, name.len);
    struct room *room = room_find(worker, name, hash);
    struct member *held = room ? room_member(viewer, room) : NULL;
    if (held)
        return join_again(worker, held, ref);
    struct member *member = calloc(1, sizeof(*member));
    if (!member)
        return JOIN_NO_MEMORY;
    if (!room)
        room = room_create(worker, name, hash);
    if (!room || members_grow(worker, room) != 0) {
        free(member);
        if (room && room->count == 0)
            room_destroy(worker, room);
        return JOIN_NO_MEMORY;
    }
    member->viewer = viewer;
    member->room = room;
    member->next = viewer->members;
    viewer->members = member;
    viewer->member_count++;
    counts_touch(worker, room);
    members_set(room, room->count++, member);
    room->encoded[viewer_adapter(viewer)->encoding]++;
    if (room->activity)
        sweep_grew(room->activity, 1);
    metric_add(&worker->metrics.memberships, 1);
    if (room->live) {
        member_start(member);
        return JOIN_LIVE;
    }
    set_waiting_ref(member, ref);
    return JOIN_WAITS;
}

struct intent_ref room_unanswered(const struct member *member)
{
    return member->room->live ? resume_unanswered(member) : waiting_ref(member);
}

void room_leave(struct worker *worker, struct member *member)
{
    struct viewer *viewer = member->viewer;
    struct room *room = member->room;
    if (!resume_drop(worker, member) && room->live)
        events_leave(worker, viewer, bytes_of(room->name, room->name_len));
    struct member **at = &viewer->members;
    while (*at != member)
        at = &(*at)->next;
    *at = member->next;
    viewer->member_count--;
    counts_touch(worker, room);
    struct member *last = room_at(room, --room->count);
    if (last != member) {
        members_set(room, member->index, last);
        if (room->activity && sweep_is_walking(room->activity))
            flush_mark_member(worker, last); /* it may have moved behind the sweep */
    }
    if (viewer->marked == member) {
        viewer->marked = NULL;
        viewer->whole = true;
    }
    room->encoded[viewer_adapter(viewer)->encoding]--;
    metric_sub(&worker->metrics.memberships, 1);
    free(member);
    if (room->count == 0)
        room_destroy(worker, room);
    else if (room->count == 1 || (room->cap > 64 && room->count < room->cap / 4))
        (void)members_resize(worker, room, room->count == 1 ? 1 : room->cap / 2);
}

void room_leave_all(struct worker *worker, struct viewer *viewer)
{
    while (viewer->members)
        room_leave(worker, viewer->members);
}

/* Its subscription stands: everybody who waited is in. The walk goes backwards, so that a viewer that is closed by its own answer
 * does not disturb it. */
void room_live(struct worker *worker, struct bytes name, uint32_t online, struct bytes points)
{
    struct room *room = room_find(worker, name, map_hash(name.data, name.len));
    if (!room || room->live)
        return;
    room->live = true;
    counts_begin(worker, room);
    room->online = online;
    tide_start(worker, room, points);
    struct intent_ref *refs = calloc(room->count, sizeof(*refs));
    for (uint32_t i = 0; i < room->count; i++) {
        if (refs)
            refs[i] = waiting_ref(room_at(room, i));
        member_start(room_at(room, i));
    }
    for (uint32_t i = room->count; i-- > 0;) {
        if (i >= room->count)
            continue;
        if (resume_live(worker, room_at(room, i), refs ? &refs[i] : NULL))
            continue;
        struct reply reply = {.kind = REPLY_JOINED, .room = name};
        counts_fill_joined(room, &reply);
        resume_tell_stand(worker, room, &reply);
        if (refs)
            reply.ref = refs[i];
        events_join(worker, room_at(room, i)->viewer, name);
        reply_send(worker, room_at(room, i)->viewer, &reply);
    }
    free(refs);
}

void room_refused(struct worker *worker, struct bytes name)
{
    struct room *room = room_find(worker, name, map_hash(name.data, name.len));
    if (!room || room->live)
        return;
    for (uint32_t left = room->count; left > 0; left--) {
        struct member *member = room_at(room, left - 1);
        struct viewer *viewer = member->viewer;
        struct reply reply = {.kind = REPLY_ERROR,
                              .ref = waiting_ref(member),
                              .room = name,
                              .error_code = ERROR_UNAVAILABLE,
                              .text = "this node holds as many rooms as limits.rooms allows",
                              .retry_after_ms = 1000 + worker_random(worker) % 4000};
        room_leave(worker, member); /* the last one takes the room with it */
        reply_send(worker, viewer, &reply);
    }
}

/* limits.log_bytes is reached: the longest logs are cut down, low before normal, high last, until an eighth is free. A round that frees
 * nothing (no memory for smaller rings) is the last one. */
static void trim_lane(struct worker *worker, int lane, uint64_t goal)
{
    uint64_t freed = 1;
    while (worker->log_bytes > goal && freed > 0) {
        size_t longest = 0;
        for (struct link *at = worker->active.next; at != &worker->active; at = at->next) {
            const struct halley_framelog *log =
                CONTAINER_OF(at, struct activity, link)->lanes.log[lane];
            size_t size = log ? halley_framelog_memory(log) : 0;
            longest = size > longest ? size : longest;
        }
        if (longest < 4096)
            return;
        uint64_t start = worker->log_bytes;
        for (struct link *at = worker->active.next;
             at != &worker->active && worker->log_bytes > goal; at = at->next) {
            struct halley_framelog *log = CONTAINER_OF(at, struct activity, link)->lanes.log[lane];
            size_t before = log ? halley_framelog_memory(log) : 0;
            if (before <= longest / 2)
                continue;
            uint32_t dropped = halley_framelog_trim(log, (uint32_t)(before / 8));
            metric_add(&worker->metrics.drops[DROP_LOG_BYTES][lane], dropped);
            count_logs(worker, before, halley_framelog_memory(log));
        }
        freed = start - worker->log_bytes;
    }
}

static void trim_logs(struct worker *worker)
{
    uint64_t goal = worker->conf->limits.log_bytes / 8 * 7;
    for (int lane = HALLEY_LANES - 1; lane >= 0; lane--)
        trim_lane(worker, lane, goal);
    log_limited(LOG_LEVEL_WARN, "frame logs trimmed", LOG_STR("key", "limits.log_bytes"),
                LOG_UINT("limit", worker->conf->limits.log_bytes),
                LOG_UINT("now", worker->log_bytes));
}

/* Encodes once per encoding that has readers, appends once. */
static void append(struct worker *worker, struct halley_lanes *lanes,
                   const uint32_t encoded[ENCODING_COUNT], const struct message *message)
{
    struct halley_frame frames[HALLEY_ENCODINGS] = {{0}};
    for (int e = 0; e < ENCODING_COUNT; e++) {
        struct buf *scratch = &worker->scratch[e];
        buf_clear(scratch);
        if (encoded[e] == 0)
            continue;
        adapter_of_encoding((enum encoding)e)->append_message(scratch, message);
        if (scratch->failed) {
            metric_add(&worker->metrics.drops[DROP_NO_MEMORY][message->lane], 1);
            return;
        }
        frames[e] = (struct halley_frame){scratch->data, scratch->len};
    }
    size_t before = halley_lanes_memory(lanes);
    int error = halley_lanes_append(lanes, &worker->policies[message->lane], (int)message->lane,
                                    worker->now_ms, message->type_index, frames);
    count_logs(worker, before, halley_lanes_memory(lanes));
    if (error)
        metric_add(&worker->metrics.drops[error == HALLEY_FRAMELOG_ERR_TOO_LARGE
                                              ? DROP_TOO_LARGE
                                              : DROP_NO_MEMORY][message->lane],
                   1);
    else
        metric_add(&worker->metrics.appended, 1);
}

/* The room of a message. Commands overtake messages, but not those that were posted after a look: a room whose first numbered message
 * is here was told to live before it. */
static struct room *room_of(struct worker *worker, const struct message *message)
{
    struct room *room = room_find(worker, message->room, message->room_hash);
    if (!room || room->live || message->point.epoch == 0)
        return room && room->live ? room : NULL;
    worker_take_commands(worker);
    room = room_find(worker, message->room, message->room_hash);
    return room && room->live ? room : NULL;
}

/* A message was appended. It may be gone already when this returns. */
static void spread(struct worker *worker, struct activity *activity, const struct message *message)
{
    if (worker->log_bytes > worker->conf->limits.log_bytes)
        trim_logs(worker);
    sweep_schedule(worker, activity);
    sweep_choke(worker, activity, (int)message->lane);
}

void room_deliver(struct worker *worker, const struct message *message)
{
    require_own_thread(worker);
    if (message->room.len == 0) {
        append(worker, &worker->all.lanes, worker->open_encoded, message);
        spread(worker, &worker->all, message);
        return;
    }
    struct room *room = room_of(worker, message);
    if (!room || tide_is_repeat(worker, room, message))
        return; /* its last viewer left while the message was on its way, or nobody was let in yet */
    if (message->kind == MESSAGE_ONLINE && !counts_take_online(room, message))
        return;
    struct activity *activity = room_activity(worker, room);
    if (!activity) {
        metric_add(&worker->metrics.drops[DROP_NO_MEMORY][message->lane], 1);
        return;
    }
    if (!room->cap)
        __builtin_prefetch(room->members.one);
    struct message *gap = tide_gap(worker, room, message);
    if (gap)
        append(worker, &activity->lanes, room->encoded, gap);
    message_unref(gap);
    uint32_t number = activity->lanes.next[message->lane];
    append(worker, &activity->lanes, room->encoded, message);
    if (worker->tides.count + worker->conf->history_types > 0 &&
        activity->lanes.next[message->lane] != number)
        tide_appended(worker, room, message, number);
    spread(worker, activity, message);
}

void rooms_expire(struct worker *worker)
{
    size_t before = halley_lanes_memory(&worker->all.lanes);
    halley_lanes_expire(&worker->all.lanes, worker->policies, worker->now_ms);
    count_logs(worker, before, halley_lanes_memory(&worker->all.lanes));
    struct link *next;
    for (struct link *at = worker->active.next; at != &worker->active; at = next) {
        next = at->next;
        struct activity *activity = CONTAINER_OF(at, struct activity, link);
        before = halley_lanes_memory(&activity->lanes);
        halley_lanes_expire(&activity->lanes, worker->policies, worker->now_ms);
        count_logs(worker, before, halley_lanes_memory(&activity->lanes));
        room_settle(worker, activity);
    }
}
