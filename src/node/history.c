#include "node/history.h"

#include "base/log.h"
#include "node/internal.h"

#include <stdlib.h>

enum { TICK_WAIT_MS = 20 };

static struct history_room *room_find(const struct history *history, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *at = map_chain(&history->rooms, hash); at; at = at->next) {
        struct history_room *room = CONTAINER_OF(at, struct history_room, node);
        if (at->hash == hash && bytes_equal(bytes_of(room->name, room->name_len), name))
            return room;
    }
    return NULL;
}

static struct history_room *room_create(struct node *node, struct bytes name)
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
    const struct history_room *room = room_find(&node->history, name);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        points[lane] = room ? room->lanes[lane].last : (struct history_point){0};
}

/* In the lane's own order: what came after the last message passed on may be missing. */
static void tell_gap(struct node *node, struct history_room *room, enum lane lane)
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
    metric_add(&node->metrics.gaps, 1);
    dispatch_deliver(node, gap);
    message_unref(gap);
}

static struct message **kept_messages(const struct history_wait *wait, size_t *count)
{
    *count = wait->messages.len / sizeof(struct message *);
    return (struct message **)(void *)wait->messages.data;
}

/* Takes the wait off its lane and gives what gathered to the caller. */
static void wait_end(struct node *node, struct history_wait *wait)
{
    size_t count;
    (void)kept_messages(wait, &count);
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
    struct message **messages = kept_messages(wait, &count);
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

static void pass(struct node *node, struct history_room *room, struct message *message,
                 bool may_wait);

/* The wait is over, with or without what was missed: what gathered follows. */
static void release(struct node *node, struct history_wait *wait)
{
    size_t count;
    struct message **messages = kept_messages(wait, &count);
    for (size_t i = 0; i < count; i++)
        pass(node, wait->room, messages[i], false);
    wait_free(wait);
}

/* The gap is told: what gathered goes on from its first number. */
static void skip_hole(const struct history_wait *wait)
{
    size_t count;
    struct message **messages = kept_messages(wait, &count);
    struct history_point *last = &wait->room->lanes[wait->lane].last;
    for (size_t i = 0; i < count; i++) {
        struct history_point at = messages[i]->point;
        if (at.epoch == 0 || (at.epoch == last->epoch && at.n <= last->n))
            continue;
        *last = (struct history_point){at.epoch, at.n - 1};
        return;
    }
}

static void give_up(struct node *node, struct history_wait *wait, const char *why)
{
    log_limited(LOG_LEVEL_WARN, "a hole in a room's messages stays: its viewers are told of a gap",
                LOG_BYTES("room", room_name(wait->room)), LOG_STR("lane", lane_name(wait->lane)),
                LOG_STR("why", why));
    metric_add(&node->metrics.history_holes_left, 1);
    wait_end(node, wait);
    tell_gap(node, wait->room, wait->lane);
    skip_hole(wait);
    release(node, wait);
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

/* A message in its turn. may_wait: a hole before it is filled from history first. */
static void pass(struct node *node, struct history_room *room, struct message *message,
                 bool may_wait)
{
    struct history_lane *lane = &room->lanes[message->lane];
    struct history_point at = message->point;
    if (at.epoch == 0) {
        dispatch_deliver(node, message);
        return;
    }
    bool same = lane->last.epoch == at.epoch;
    if (same && at.n <= lane->last.n) {
        metric_add(&node->metrics.history_repeats_dropped, 1);
        return;
    }
    if (same && at.n > lane->last.n + 1 && may_wait) {
        struct history_wait *wait = wait_start(node, room, message->lane, false);
        if (wait) {
            keep(node, wait, message);
            if (lane->wait == wait)
                wait_ask(node, wait);
            return;
        }
    }
    if (lane->last.epoch != 0 && (!same || at.n > lane->last.n + 1))
        tell_gap(node, room, message->lane);
    lane->last = at;
    dispatch_deliver(node, message);
}

void history_take(struct node *node, struct message *message, bool numbers_only)
{
    struct history_room *room = room_find(&node->history, message->room);
    if (!room && message->point.epoch != 0) {
        room = room_create(node, message->room);
        for (int lane = 0; room && lane < LANE_COUNT; lane++)
            room->lanes[lane].last = (struct history_point){message->point.epoch, 0};
    }
    if (!room) {
        if (!numbers_only)
            dispatch_deliver(node, message);
    } else if (numbers_only) {
        if (message->point.epoch != 0)
            room->lanes[message->lane].last = message->point;
    } else if (room->lanes[message->lane].wait) {
        keep(node, room->lanes[message->lane].wait, message);
    } else {
        pass(node, room, message, true);
    }
}

unsigned history_cut(struct node *node, struct bytes name, unsigned lanes)
{
    struct history_room *room = room_find(&node->history, name);
    for (int i = 0; room && i < LANE_COUNT; i++) {
        struct history_lane *lane = &room->lanes[i];
        if (!(lanes & 1u << i) || lane->last.epoch == 0)
            continue;
        if (!lane->wait && !wait_start(node, room, (enum lane)i, true))
            continue;
        lane->wait->cut = true;
        if (!lane->wait->read)
            wait_ask(node, lane->wait);
        lanes &= ~(1u << i);
    }
    return lanes;
}

void history_forget(struct node *node, struct bytes name)
{
    struct history_room *room = room_find(&node->history, name);
    if (!room)
        return;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct history_wait *wait = room->lanes[lane].wait;
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

static struct history_read *read_create(struct node *node, struct bytes name, enum lane lane)
{
    if (node->history.read_count >= node->conf->history.reads)
        return NULL;
    struct history_read *read = calloc(1, sizeof(*read) + name.len);
    if (!read)
        return NULL;
    read->node = node;
    read->lane = lane;
    read->name_len = (uint8_t)name.len;
    memcpy(read->name, name.data, name.len);
    list_init(&read->link);
    list_append(&node->history.reads, &read->link);
    node->history.read_count++;
    return read;
}

static void read_free(struct history_read *read)
{
    list_remove(&read->link);
    read->node->history.read_count--;
    if (read->wait)
        read->wait->read = NULL;
    free(read);
}

/* Without an answer at once it is asked again by the timer, until history.wait is over. */
static void wait_ask(struct node *node, struct history_wait *wait)
{
    struct history_read *read = read_create(node, room_name(wait->room), wait->lane);
    if (!read)
        return;
    read->wait = wait;
    wait->read = read;
    metric_add(&node->metrics.history_reads_fill, 1);
    if (history_read_start(read, wait->room->lanes[wait->lane].last) != 0)
        read_free(read);
}

/* Passes on what was read behind the last message that was. */
static void pass_found(struct node *node, struct history_room *room, enum lane lane,
                       const struct history_found *found)
{
    struct history_point *last = &room->lanes[lane].last;
    for (uint32_t i = 0; i < found->count; i++) {
        uint64_t n = found->first + i;
        if (n <= last->n)
            continue;
        struct message *message =
            dispatch_judge(node, MESSAGE_ROOM, room_name(room), found->messages[i]);
        last->n = n;
        if (!message)
            continue;
        message->lane = lane;
        message->point = *last;
        metric_add(&node->metrics.history_filled, 1);
        dispatch_deliver(node, message);
        message_unref(message);
    }
    if (found->last.n > last->n)
        last->n = found->last.n;
}

static void fill(struct node *node, struct history_wait *wait, const struct history_found *found)
{
    struct history_room *room = wait->room;
    struct history_point *last = &room->lanes[wait->lane].last;
    bool whole = found->last.epoch == last->epoch;
    if (whole && found->last.n > last->n)
        whole = found->count > 0 && found->first <= last->n + 1;
    else if (whole && wait->cut && found->last.n == 0)
        whole = false; /* a lane without history: messages without number may be missing */
    wait_end(node, wait);
    if (!whole)
        tell_gap(node, room, wait->lane);
    metric_add(whole ? &node->metrics.history_holes_filled : &node->metrics.history_holes_left, 1);
    if (found->last.epoch != last->epoch)
        *last = (struct history_point){found->last.epoch, 0};
    if (found->last.epoch != 0)
        pass_found(node, room, wait->lane, found);
    release(node, wait);
}

/* ---- reads for viewers */

static uint32_t lane_hash(struct bytes name, enum lane lane)
{
    return map_hash(name.data, name.len) + (uint32_t)lane;
}

static struct history_read *read_find(const struct history *history, struct bytes name,
                                      enum lane lane)
{
    uint32_t hash = lane_hash(name, lane);
    for (struct map_node *at = map_chain(&history->reads_by_lane, hash); at; at = at->next) {
        struct history_read *read = CONTAINER_OF(at, struct history_read, by_lane);
        if (at->hash == hash && read->lane == lane &&
            bytes_equal(bytes_of(read->name, read->name_len), name))
            return read;
    }
    return NULL;
}

static struct history_batch *batch_create(struct history_read *read,
                                          const struct history_found *found)
{
    struct history_batch *batch =
        calloc(1, sizeof(*batch) + found->count * sizeof(struct message *));
    if (!batch)
        return NULL;
    atomic_init(&batch->refs, 1);
    batch->error = found->error;
    batch->last = found->last;
    batch->first = found->first;
    batch->count = found->count;
    for (uint32_t i = 0; i < found->count; i++) {
        struct message *message = dispatch_judge(
            read->node, MESSAGE_ROOM, bytes_of(read->name, read->name_len), found->messages[i]);
        if (message) {
            message->lane = read->lane;
            message->point = (struct history_point){found->last.epoch, found->first + i};
        }
        batch->messages[i] = message;
    }
    return batch;
}

static void tell_askers(struct history_read *read, const struct history_found *found)
{
    struct node *node = read->node;
    struct history_batch *batch = node->phase == PHASE_ENDING ? NULL : batch_create(read, found);
    for (uint32_t i = 0; batch && i < node->worker_count; i++) {
        if (!(read->askers & 1ull << i))
            continue;
        struct command *command = command_create(
            COMMAND_HISTORY, bytes_of(read->name, read->name_len), (struct bytes){0});
        if (!command)
            continue; /* its viewers are told after history.wait */
        command->lane = read->lane;
        atomic_fetch_add_explicit(&batch->refs, 1, memory_order_relaxed);
        command->object = batch;
        worker_post(node->workers[i], command);
    }
    history_batch_unref(batch);
}

void history_ask(struct node *node, const struct command *command)
{
    struct bytes name = command_room(command);
    struct history_read *read = read_find(&node->history, name, command->lane);
    if (read) {
        read->askers |= 1ull << command->worker;
        return;
    }
    struct history_found failed = {.error = BROKER_ERR_FULL};
    read = read_create(node, name, command->lane);
    if (!read)
        return; /* the worker gives up after history.wait */
    read->askers = 1ull << command->worker;
    if (map_add(&node->history.reads_by_lane, &read->by_lane, lane_hash(name, command->lane)) !=
        0) {
        tell_askers(read, &failed);
        read_free(read);
        return;
    }
    metric_add(&node->metrics.history_reads_resume, 1);
    failed.error = history_read_start(read, (struct history_point){0});
    if (failed.error)
        history_found(read, &failed);
}

void history_found(struct history_read *read, const struct history_found *found)
{
    struct node *node = read->node;
    struct history_wait *wait = read->wait;
    if (read->askers != 0) {
        map_remove(&node->history.reads_by_lane, &read->by_lane);
        tell_askers(read, found);
    }
    read_free(read);
    if (wait && found->error == 0)
        fill(node, wait, found);
}

/* ---- where rooms stand */

void history_hold(struct node *node, struct bytes name)
{
    struct history_stand *stand = calloc(1, sizeof(*stand) + name.len);
    if (!stand) {
        dispatch_stands(node, name);
        return;
    }
    stand->node = node;
    stand->since_ms = uv_now(&node->loop);
    stand->name_len = (uint8_t)name.len;
    memcpy(stand->name, name.data, name.len);
    list_init(&stand->link);
    list_append(&node->history.stands, &stand->link);
    history_start_timer(node);
    history_read_stand(stand);
}

void history_stood(struct history_stand *stand, const struct history_point *points)
{
    struct node *node = stand->node;
    struct bytes name = bytes_of(stand->name, stand->name_len);
    struct history_room *room = room_find(&node->history, name);
    /* Not known is more than nothing there: the first message then counts as the next one, whatever its number. */
    if (!room && (!points || points[LANE_HIGH].epoch != 0))
        room = room_create(node, name);
    for (int lane = 0; room && points && lane < LANE_COUNT; lane++) {
        /* What came by since the read is newer; epochs are times. */
        struct history_point *last = &room->lanes[lane].last;
        if (last->epoch < points[lane].epoch ||
            (last->epoch == points[lane].epoch && last->n < points[lane].n))
            *last = points[lane];
    }
    list_remove(&stand->link);
    if (node->phase != PHASE_ENDING)
        dispatch_stands(node, name);
    free(stand);
}

/* The first message then counts as the next one, as if the read had failed. */
static void begin_room(void *ctx, struct map_node *at)
{
    struct node *node = ctx;
    const struct held *held = CONTAINER_OF(at, struct held, node);
    struct bytes name = bytes_of(held->name, held->name_len);
    if (held->holders != 0 && !room_find(&node->history, name))
        (void)room_create(node, name);
}

void history_begin(struct node *node)
{
    map_each(&node->rooms, begin_room, node);
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
    list_splice(&later, &history->stands);
    while ((link = list_shift(&later))) {
        struct history_stand *stand = CONTAINER_OF(link, struct history_stand, link);
        list_append(&history->stands, link);
        if (now - stand->since_ms >= node->conf->history.wait_ms)
            history_stood(stand, NULL);
        else
            history_read_stand(stand);
    }
    if (list_empty(&history->waits) && list_empty(&history->stands))
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
    for (uint32_t i = 0; history->rooms.buckets && i <= history->rooms.mask; i++) {
        while (history->rooms.buckets[i])
            history_forget(node, room_name(CONTAINER_OF(history->rooms.buckets[i],
                                                        struct history_room, node)));
    }
    map_fini(&history->rooms);
    map_fini(&history->reads_by_lane);
}
