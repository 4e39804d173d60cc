#include "node/history.h"

#include "base/log.h"
#include "node/internal.h"

#include <stdlib.h>

enum {
    TICK_WAIT_MS = 20,
    RETRY_MS = 100, /* after a read that failed */
    DOUBT_PAUSE_MS =
        200 /* after a read that found a number made up: so often at most that lane is read for it */
};

struct history_room *history_room_find(const struct history *history, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *at = map_chain(&history->rooms, hash); at; at = at->next) {
        struct history_room *room = CONTAINER_OF(at, struct history_room, node);
        if (at->hash == hash && bytes_equal(bytes_of(room->name, room->name_len), name))
            return room;
    }
    return NULL;
}

struct history_room *history_room_create(struct node *node, struct bytes name)
{
    struct history_room *room = calloc(1, sizeof(*room) + name.len);
    if (!room)
        return NULL;
    memcpy(room->name, name.data, name.len);
    room->name_len = (uint8_t)name.len;
    if (map_add(&node->history.rooms, &room->node, map_hash(name.data, name.len)) != 0) {
        free(room);
        return NULL;
    }
    metric_set(&node->metrics.history_rooms, node->history.rooms.count);
    return room;
}

static struct bytes room_name(const struct history_room *room)
{
    return bytes_of(room->name, room->name_len);
}

void history_points(const struct node *node, struct bytes name,
                    struct history_point points[LANE_COUNT])
{
    const struct history_room *room = history_room_find(&node->history, name);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        points[lane] = room ? room->lanes[lane].last : (struct history_point){0};
        if (room && points[lane].epoch == 0)
            points[lane].n = room->lanes[lane].unsure;
    }
}

/* In the lane's own order: what came after the last message passed on may be missing. no_join: as with dispatch_gap(). to: after which number
 * the lane goes on, where the next message does not say so. */
static void tell_gap_to(struct node *node, struct history_room *room, enum lane lane, bool no_join,
                        struct history_point to)
{
    char text[HISTORY_ID_MAX + 1];
    struct history_point last = room->lanes[lane].last;
    struct message_parts parts = {0};
    if (last.n > 0)
        parts.id = history_id_format(lane, last, text);
    struct message *gap = message_create(MESSAGE_GAP, room_name(room), &parts);
    if (!gap)
        return;
    gap->lane = lane;
    gap->no_join = no_join;
    gap->point = to;
    metric_add(&node->metrics.gaps, 1);
    dispatch_deliver(node, gap);
    message_unref(gap);
}

static void tell_gap(struct node *node, struct history_room *room, enum lane lane, bool no_join)
{
    tell_gap_to(node, room, lane, no_join, (struct history_point){0});
}

/* Takes the wait off its lane and gives what gathered to the caller. */
static void wait_end(struct node *node, struct history_wait *wait)
{
    size_t count;
    (void)history_kept(wait, &count);
    node->history.waiting -= (uint32_t)count;
    metric_set(&node->metrics.history_waiting, node->history.waiting);
    wait->room->lanes[wait->lane].wait = NULL;
    list_remove(&wait->link);
    if (wait->read)
        wait->read->wait = NULL;
}

static void wait_free(struct history_wait *wait)
{
    size_t count;
    struct message **messages = history_kept(wait, &count);
    for (size_t i = 0; i < count; i++)
        message_unref(messages[i]);
    buf_fini(&wait->messages);
    free(wait);
}

static void wait_ask(struct node *node, struct history_wait *wait);

static struct history_wait *wait_start(struct node *node, struct history_room *room, enum lane lane,
                                       bool cut)
{
    struct history_wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return NULL;
    *wait = (struct history_wait){
        .room = room, .lane = lane, .cut = cut, .since_ms = uv_now(&node->loop)};
    list_init(&wait->link);
    list_append(&node->history.waits, &wait->link);
    room->lanes[lane].wait = wait;
    history_start_timer(node);
    return wait;
}

static void keep(struct node *node, struct history_wait *wait, struct message *message);
static void pass(struct node *node, struct history_room *room, struct message *message,
                 bool may_wait);

/* History does not have its number, or could not be read: nobody may go by it. */
static void pass_unnumbered(struct node *node, struct message *message, bool was_read)
{
    metric_add(&node->metrics.history_misnumbered, 1);
    log_limited(LOG_LEVEL_WARN, "a message goes on without its id",
                LOG_BYTES("room", message->room), LOG_BYTES("type", message->type),
                LOG_BYTES("id", message->id),
                LOG_STR("why", was_read ? "history has no message with it"
                                        : "history could not be read within history.wait"),
                LOG_STR("advice", was_read ? "publish types with history by "
                                             "scripts/redis/publish.lua, and all else without id"
                                           : "see that Redis answers in time"));
    message->point = (struct history_point){0};
    message->id = (struct bytes){0};
    dispatch_deliver(node, message);
}

static void guess(struct node *node, struct history_room *room, struct message *message)
{
    struct history_lane *lane = &room->lanes[message->lane];
    if (!lane->unsure)
        tell_gap(node, room, message->lane, false);
    if (history_is_plausible(lane, message->point, node->conf->history.length)) {
        history_advance(room->lanes, message->lane, message->point);
        dispatch_deliver(node, message);
    } else {
        lane->unsure = true;
        pass_unnumbered(node, message, false);
    }
}

/* Returns false where history can't be asked. */
static bool wait_for(struct node *node, struct history_room *room, struct message *message)
{
    struct history_lane *lane = &room->lanes[message->lane];
    if (lane->unsure && uv_now(&node->loop) < lane->blind_until_ms)
        return false;
    struct history_wait *wait = wait_start(node, room, message->lane, false);
    if (!wait)
        return false;
    keep(node, wait, message);
    if (lane->wait == wait)
        wait_ask(node, wait);
    return true;
}

/* A message in its turn. may_wait: history is asked where its number is doubtful. */
static void pass(struct node *node, struct history_room *room, struct message *message,
                 bool may_wait)
{
    struct history_point at = message->point;
    if (at.epoch == 0) {
        dispatch_deliver(node, message);
        return;
    }
    switch (history_judge(&room->lanes[message->lane], at, node->conf->history.length)) {
    case NUMBER_NEXT:
        history_advance(room->lanes, message->lane, at);
        dispatch_deliver(node, message);
        break;
    case NUMBER_REPEAT:
        metric_add(&node->metrics.history_repeats_dropped, 1);
        break;
    case NUMBER_DOUBTFUL:
        if (!may_wait || !wait_for(node, room, message))
            guess(node, room, message);
        break;
    }
}

/* ---- the end of a wait */

/* The gap is told: what gathered goes on from its first number, where that may be true. */
static void skip_hole(const struct node *node, const struct history_wait *wait)
{
    size_t count;
    struct message **messages = history_kept(wait, &count);
    struct history_lane *lane = &wait->room->lanes[wait->lane];
    uint32_t length = node->conf->history.length;
    for (size_t i = 0; i < count; i++) {
        struct history_point at = messages[i]->point;
        if (at.epoch == 0 || history_judge(lane, at, length) != NUMBER_DOUBTFUL)
            continue;
        if (history_is_plausible(lane, at, length))
            history_set_last(lane, (struct history_point){at.epoch, at.n - 1});
        else
            lane->unsure = true;
        return;
    }
}

static void give_up(struct node *node, struct history_wait *wait, const char *why)
{
    size_t count;
    struct history_room *room = wait->room;
    struct history_lane *lane = &room->lanes[wait->lane];
    struct message **messages = history_kept(wait, &count);
    log_limited(LOG_LEVEL_WARN, "a hole in a room's messages stays: its viewers are told of a gap",
                LOG_BYTES("room", room_name(room)), LOG_STR("lane", lane_name(wait->lane)),
                LOG_STR("why", why));
    metric_add(&node->metrics.history_holes_left, 1);
    wait_end(node, wait);
    if (wait->cut) /* perhaps nothing comes that would show what is missing */
        history_late_begin(node, room, wait->lane);
    /* Where nothing came behind what is missing, workers know of no more than their viewers have, and it is passed on once it is read. */
    if (!lane->unsure || wait->cut)
        tell_gap(node, room, wait->lane, lane->late && !lane->unsure && count == 0);
    skip_hole(node, wait);
    for (size_t i = 0; i < count; i++)
        pass(node, room, messages[i], false);
    if (lane->unsure) /* until then messages go on without id, but at once */
        lane->blind_until_ms = uv_now(&node->loop) + node->conf->history.wait_ms;
    wait_free(wait);
}

static void keep(struct node *node, struct history_wait *wait, struct message *message)
{
    if (node->history.waiting >= node->conf->history.waiting ||
        !buf_reserve(&wait->messages, sizeof(message))) {
        struct history_room *room = wait->room;
        give_up(node, wait, "history.waiting messages wait already");
        pass(node, room, message, false);
        return;
    }
    message_ref(message);
    buf_append(&wait->messages, &message, sizeof(message));
    node->history.waiting++;
    metric_set(&node->metrics.history_waiting, node->history.waiting);
}

/* In the order in which they came: to those that wait already, or on. */
static void take(struct node *node, struct history_room *room, struct message *message)
{
    if (room->lanes[message->lane].wait)
        keep(node, room->lanes[message->lane].wait, message);
    else
        pass(node, room, message, true);
}

void history_take(struct node *node, struct message *message, bool numbers_only)
{
    struct history_room *room = history_room_find(&node->history, message->room);
    if (!room && message->point.epoch != 0)
        room = history_room_create(node, message->room);
    if (!room) {
        if (!numbers_only)
            dispatch_deliver(node, message);
    } else if (numbers_only) {
        if (message->point.epoch != 0)
            history_advance(room->lanes, message->lane, message->point);
    } else {
        take(node, room, message);
    }
}

void history_wanted(struct node *node, struct bytes name, enum lane lane)
{
    struct history_room *room = history_room_find(&node->history, name);
    struct history_lane *at = room ? &room->lanes[lane] : NULL;
    if (at && at->late && !at->unsure)
        history_late_wanted(node, at->late);
    if (!at || !at->unsure || at->wait || uv_now(&node->loop) < at->blind_until_ms)
        return;
    struct history_wait *wait = wait_start(node, room, lane, false);
    if (!wait)
        return;
    wait->wanted = true;
    wait_ask(node, wait);
}

bool history_cut_lane(struct node *node, struct history_room *room, enum lane lane)
{
    struct history_lane *at = &room->lanes[lane];
    if (!at->wait && !wait_start(node, room, lane, true))
        return false;
    at->wait->cut = true;
    if (at->late)
        history_late_drop_read(at->late);
    if (at->wait->read) { /* sent while messages were still being missed */
        at->wait->read->wait = NULL;
        at->wait->read = NULL;
    }
    wait_ask(node, at->wait);
    return true;
}

unsigned history_cut(struct node *node, struct held *held, unsigned lanes)
{
    struct history_room *room =
        history_room_find(&node->history, bytes_of(held->name, held->name_len));
    if (held->holders == 0)
        return 0;
    if (held->reading) { /* nobody is told that he is in, and what is being read is too old */
        held->turn = ++node->turns;
        return 0;
    }
    if (!room && broker_has_commands(node->broker))
        return history_check(node, held, lanes) ? 0 : lanes;
    for (int i = 0; room && i < LANE_COUNT; i++) {
        const struct history_lane *lane = &room->lanes[i];
        bool known = lane->last.epoch != 0 || !lane->unsure;
        if (lanes & 1u << i && known && history_cut_lane(node, room, (enum lane)i))
            lanes &= ~(1u << i);
    }
    return lanes;
}

void history_forget(struct node *node, struct bytes name)
{
    struct history_room *room = history_room_find(&node->history, name);
    if (!room)
        return;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct history_wait *wait = room->lanes[lane].wait;
        history_late_end(node, &room->lanes[lane]);
        if (!wait)
            continue;
        wait_end(node, wait);
        wait_free(wait);
    }
    map_remove(&node->history.rooms, &room->node);
    metric_set(&node->metrics.history_rooms, node->history.rooms.count);
    free(room);
}

/* ---- reads that fill */

static void ask_later(struct node *node, struct history_lane *lane, uint32_t in_ms)
{
    uint32_t most_ms = node->conf->history.wait_ms / 2; /* the wait is to have its read */
    lane->ask_at_ms = uv_now(&node->loop) + (in_ms < most_ms ? in_ms : most_ms);
}

/* Without an answer at once it is asked again by the timer, until history.wait is over. */
static void wait_ask(struct node *node, struct history_wait *wait)
{
    const struct history_lane *lane = &wait->room->lanes[wait->lane];
    if (uv_now(&node->loop) < lane->ask_at_ms)
        return;
    struct history_read *read = history_read_create(node, room_name(wait->room), wait->lane);
    if (!read)
        return;
    read->wait = wait;
    wait->read = read;
    (void)history_kept(wait, &wait->before);
    metric_add(&node->metrics.history_reads_fill, 1);
    if (history_read_start(read, lane->last) != 0)
        history_read_free(read);
}

static bool is_found(const struct history_found *found, uint64_t n)
{
    return n >= found->first && n < found->first + found->count;
}

/* Passes on what was read behind the last message that was, up to number n. Returns how many. */
static uint32_t pass_found(struct node *node, struct history_room *room, enum lane lane,
                           const struct history_found *found, uint64_t n)
{
    struct history_lane *at = &room->lanes[lane];
    uint64_t next = at->last.n < found->first ? found->first : at->last.n + 1;
    uint32_t passed = 0;
    for (; is_found(found, next) && next <= n; next++, passed++) {
        struct message *message = dispatch_judge(node, MESSAGE_ROOM, room_name(room),
                                                 found->messages[next - found->first]);
        at->last.n = at->read_n = next;
        if (!message)
            continue;
        message->lane = lane;
        message->point = at->last;
        dispatch_deliver(node, message);
        message_unref(message);
    }
    return passed;
}

static void pass_missed(struct node *node, struct history_room *room, enum lane lane,
                        const struct history_found *found, uint64_t n)
{
    metric_add(&node->metrics.history_filled, pass_found(node, room, lane, found, n));
}

/* A message that waited, and whose number history has: it, or rather what history has there. */
static void pass_confirmed(struct node *node, struct history_room *room, struct message *message,
                           const struct history_found *found)
{
    struct history_lane *lane = &room->lanes[message->lane];
    uint64_t n = message->point.n;
    pass_missed(node, room, message->lane, found, n - 1);
    if (n <= lane->last.n) {
        metric_add(&node->metrics.history_repeats_dropped, 1);
    } else if (is_found(found, n)) {
        (void)pass_found(node, room, message->lane, found, n);
    } else {
        lane->last.n = lane->read_n = n;
        dispatch_deliver(node, message);
    }
}

/* What was read and what gathered, in order. Of what came before the read it is known now what is true. */
static void release(struct node *node, struct history_wait *wait, const struct history_found *found)
{
    size_t count;
    struct history_room *room = wait->room;
    struct history_lane *lane = &room->lanes[wait->lane];
    struct message **messages = history_kept(wait, &count);
    for (size_t i = 0; i < count; i++) {
        struct history_point at = messages[i]->point;
        if (at.epoch == 0 || lane->wait) {
            take(node, room, messages[i]);
        } else if (history_is_confirmed(found, at)) {
            pass_confirmed(node, room, messages[i], found);
        } else if (i < wait->before) {
            pass_unnumbered(node, messages[i], true);
            ask_later(node, lane, DOUBT_PAUSE_MS);
        } else {
            pass_missed(node, room, wait->lane, found, found->last.n);
            take(node, room, messages[i]);
        }
    }
    if (!lane->wait)
        pass_missed(node, room, wait->lane, found, found->last.n);
}

/* A lane that stays unsure, and somebody wants to go on in it. Its viewers may have all or nothing of what was read; from its last message on
 * everybody knows. Where that is gone, and only its counter is left, the gap says it: perhaps nothing is published for long. */
static void settle(struct node *node, struct history_room *room, enum lane lane,
                   const struct history_found *found)
{
    struct history_point to = found->last;
    if (found->count > 0) {
        to.n--;
        tell_gap(node, room, lane, false);
    } else {
        tell_gap_to(node, room, lane, false, to);
    }
    history_set_last(&room->lanes[lane], to);
    room->lanes[lane].read_n = to.n;
}

static void fill(struct node *node, struct history_wait *wait, const struct history_found *found)
{
    struct history_room *room = wait->room;
    struct history_lane *lane = &room->lanes[wait->lane];
    wait_end(node, wait);
    history_late_end(node, lane);
    struct history_lane settled = *lane;
    bool whole = history_settle(&settled, wait, found);
    bool empty = found->last.n == 0 && lane->last.n == 0 && !lane->unsure;
    bool settles = settled.unsure && wait->wanted;
    if (!whole && !settles)
        tell_gap(node, room, wait->lane, empty);
    metric_add(whole ? &node->metrics.history_holes_filled : &node->metrics.history_holes_left, 1);
    *lane = settled;
    if (settles)
        settle(node, room, wait->lane, found);
    const struct history_found none = {.last = found->last};
    release(node, wait, lane->unsure ? &none : found); /* of what was read, viewers may have all */
    wait_free(wait);
}

void history_fill(struct node *node, struct history_room *room, enum lane lane,
                  const struct history_found *found)
{
    struct history_wait *wait = wait_start(node, room, lane, false);
    if (!wait)
        return;
    wait->wanted = true;
    fill(node, wait, found);
}

void history_found(struct history_read *read, const struct history_found *found)
{
    struct node *node = read->node;
    struct history_wait *wait = read->wait;
    struct history_late *late = read->late;
    if (read->askers != 0)
        history_answer(read, found);
    history_read_free(read);
    if (wait && found->error == 0)
        fill(node, wait, found);
    else if (wait)
        ask_later(node, &wait->room->lanes[wait->lane], RETRY_MS);
    else if (late && found->error == 0)
        history_late_found(node, late, found);
}

/* ---- time */

static void on_timer(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct history *history = &node->history;
    uint64_t now = uv_now(&node->loop);
    struct link later;
    struct link *link;
    list_init(&later);
    list_splice(&later, &history->waits);
    while ((link = list_shift(&later))) {
        struct history_wait *wait = CONTAINER_OF(link, struct history_wait, link);
        list_append(&history->waits, link);
        if (now - wait->since_ms >= node->conf->history.wait_ms)
            give_up(node, wait, "history could not be read within history.wait");
        else if (!wait->read)
            wait_ask(node, wait);
    }
    history_stands_tick(node, now);
    history_checks_tick(node);
    history_lates_tick(node);
    if (list_empty(&history->waits) && list_empty(&history->stands) &&
        list_empty(&history->lates) && list_empty(&history->checks))
        uv_timer_stop(timer);
}

void history_start_timer(struct node *node)
{
    if (node->phase != PHASE_ENDING && !uv_is_active((uv_handle_t *)&node->history.timer))
        uv_timer_start(&node->history.timer, on_timer, TICK_WAIT_MS, TICK_WAIT_MS);
}

void history_init(struct node *node)
{
    list_init(&node->history.waits);
    list_init(&node->history.stands);
    list_init(&node->history.lates);
    list_init(&node->history.checks);
    list_init(&node->history.reads);
    uv_timer_init(&node->loop, &node->history.timer);
    node->history.timer.data = node;
}

void history_close(struct node *node)
{
    uv_close((uv_handle_t *)&node->history.timer, NULL);
}

void history_fini(struct node *node)
{
    struct history *history = &node->history;
    struct link *link;
    while ((link = list_shift(&history->stands)))
        free(CONTAINER_OF(link, struct history_stand, link));
    while ((link = list_shift(&history->checks)))
        free(CONTAINER_OF(link, struct history_stand, link));
    for (uint32_t i = 0; history->rooms.buckets && i <= history->rooms.mask; i++) {
        while (history->rooms.buckets[i])
            history_forget(node, room_name(CONTAINER_OF(history->rooms.buckets[i],
                                                        struct history_room, node)));
    }
    map_fini(&history->rooms);
    map_fini(&history->reads_by_lane);
}
