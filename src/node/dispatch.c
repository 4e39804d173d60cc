#include "node/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "node/presence.h"

#include <stdlib.h>

enum { LINGER_LOOKS = 10 /* then the counts are lost: a worker had no memory to tell them */ };

struct held *dispatch_find(const struct node *node, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *at = map_chain(&node->rooms, hash); at; at = at->next) {
        struct held *held = CONTAINER_OF(at, struct held, node);
        if (at->hash == hash && bytes_equal(bytes_of(held->name, held->name_len), name))
            return held;
    }
    return NULL;
}

static void held_destroy(struct node *node, struct held *held)
{
    presence_forget(node, held);
    map_remove(&node->rooms, &held->node);
    metric_set(&node->metrics.rooms, node->rooms.count);
    free(held);
}

static struct held *held_create(struct node *node, struct bytes name)
{
    if (node->rooms.count >= node->conf->limits.rooms) {
        log_limited(LOG_LEVEL_WARN, "room refused: limits.rooms is reached",
                    LOG_BYTES("room", name), LOG_UINT("limits.rooms", node->conf->limits.rooms));
        return NULL;
    }
    struct held *held = calloc(1, offsetof(struct held, name) + name.len);
    if (!held)
        return NULL;
    memcpy(held->name, name.data, name.len);
    held->name_len = (uint8_t)name.len;
    held->turn = ++node->turns;
    if (map_add(&node->rooms, &held->node, map_hash(name.data, name.len)) != 0) {
        free(held);
        return NULL;
    }
    if (broker_subscribe(node->broker, name) != 0) {
        held_destroy(node, held);
        return NULL;
    }
    metric_set(&node->metrics.rooms, node->rooms.count);
    presence_begin(node, held);
    return held;
}

static void tell_room(struct node *node, uint32_t worker, enum command_kind kind, struct bytes room)
{
    struct history_point points[LANE_COUNT];
    struct bytes payload = {0};
    if (kind == COMMAND_ROOM_LIVE && node->conf->history_types > 0) {
        history_points(node, room, points);
        payload = bytes_of((const char *)points, sizeof(points));
    }
    struct command *command = command_create(kind, room, payload);
    if (command) {
        const struct held *held = dispatch_find(node, room);
        command->online = held ? presence_online(held) : UINT32_MAX;
        worker_post(node->workers[worker], command);
    } else {
        log_error("out of memory: joins of a room stay unanswered", LOG_BYTES("room", room));
    }
}

/* Its subscription stands. Viewers are told that they are in when its numbers are known too. */
static void begin_standing(struct node *node, struct held *held)
{
    bool again =
        held->reading; /* then the answer on its way is of an earlier turn: it is asked again */
    held->reading = true;
    if (node->conf->history_types == 0)
        dispatch_stands(node, bytes_of(held->name, held->name_len));
    else if (!again)
        history_hold(node, held);
}

void dispatch_stands(struct node *node, struct bytes room)
{
    struct held *held = dispatch_find(node, room);
    if (!held || !held->reading)
        return;
    held->reading = false;
    for (uint32_t i = 0; i < node->worker_count; i++) {
        if (held->holders & 1ull << i)
            tell_room(node, i, COMMAND_ROOM_LIVE, room);
    }
}

void dispatch_hold(struct node *node, const struct command *command)
{
    struct bytes name = command_room(command);
    struct held *held = dispatch_find(node, name);
    if (!held)
        held = held_create(node, name);
    if (!held) {
        tell_room(node, command->worker, COMMAND_ROOM_REFUSED, name);
        return;
    }
    bool first = held->holders == 0;
    held->holders |= 1ull << command->worker;
    if (held->live && first)
        begin_standing(node, held);
    else if (held->live && !held->reading)
        tell_room(node, command->worker, COMMAND_ROOM_LIVE, name);
}

void dispatch_release(struct node *node, const struct command *command)
{
    struct held *held = dispatch_find(node, command_room(command));
    if (!held)
        return; /* it was refused */
    held->holders &= ~(1ull << command->worker);
    if (held->holders != 0)
        return;
    history_forget(node, command_room(command));
    held->turn = ++node->turns;
    held->checking = 0;
    struct lingering *lingering = malloc(sizeof(*lingering));
    if (!lingering) {
        log_error("no memory to release a room: it stays subscribed",
                  LOG_BYTES("room", command_room(command)));
        return;
    }
    *lingering = (struct lingering){
        .held = held, .turn = held->turn, .at_ms = (uint32_t)uv_now(&node->loop)};
    list_init(&lingering->link);
    list_append(&node->lingering, &lingering->link); /* one linger for all keeps them in order */
}

/* Its linger has passed. What its workers counted comes a moment after the last of them let go; were the room freed before, whoever is back by
 * then would be missing in the new one, since to the worker nothing has changed. */
static void give_up(struct node *node, struct lingering *lingering)
{
    struct held *held = lingering->held;
    if (held->holders != 0 || held->turn != lingering->turn) {
        free(lingering); /* somebody came back, and may have left again */
        return;
    }
    if (held->local != 0 && ++lingering->looks < LINGER_LOOKS) {
        lingering->at_ms = (uint32_t)uv_now(&node->loop);
        list_append(&node->lingering, &lingering->link);
        return;
    }
    broker_unsubscribe(node->broker, bytes_of(held->name, held->name_len));
    held_destroy(node, held);
    free(lingering);
}

void dispatch_expire(struct node *node)
{
    uint32_t now = (uint32_t)uv_now(&node->loop);
    const struct link *last = node->lingering.prev; /* behind it stand those that are put back */
    bool more = !list_empty(&node->lingering);
    while (more) {
        struct lingering *first = CONTAINER_OF(node->lingering.next, struct lingering, link);
        if (now - first->at_ms < node->conf->broker.linger_ms)
            return;
        more = &first->link != last;
        list_remove(&first->link);
        give_up(node, first);
    }
}

/* Hands one message to the workers whose bits are set; the caller keeps its reference. */
static void deliver(struct node *node, uint64_t workers, struct message *message)
{
    for (uint32_t i = 0; i < node->worker_count; i++) {
        if (!(workers & 1ull << i))
            continue;
        if (worker_deliver(node->workers[i], message)) {
            node->woken |= 1ull << i;
            metric_add(&node->metrics.dispatched, 1);
        } else { /* this one counter of the worker's block is written by the main thread alone */
            metric_add(&worker_metrics(node->workers[i])->drops[DROP_MAILBOX][message->lane], 1);
        }
    }
}

static uint64_t all_workers(const struct node *node)
{
    return node->worker_count == 64 ? UINT64_MAX : (1ull << node->worker_count) - 1;
}

static struct bytes shown_room(struct bytes room)
{
    return room.len > 0 ? room : BYTES_LIT("(all)");
}

void dispatch_to_all(struct node *node, struct message *message)
{
    deliver(node, all_workers(node), message);
}

void dispatch_bad(struct node *node, const char *why, struct bytes name, struct bytes payload)
{
    metric_add(&node->metrics.payload_bad, 1);
    log_limited(
        LOG_LEVEL_WARN, "payload dropped: malformed", LOG_BYTES("room", shown_room(name)),
        LOG_STR("why", why),
        LOG_BYTES("payload", bytes_of(payload.data, payload.len < 128 ? payload.len : 128)));
}

struct log_field dispatch_whose(enum message_kind kind, struct bytes name)
{
    return kind == MESSAGE_USER ? LOG_BYTES("user", name) : LOG_BYTES("room", shown_room(name));
}

struct message *dispatch_judge(struct node *node, enum message_kind kind, struct bytes name,
                               struct bytes payload)
{
    struct message_scratch scratch;
    struct message_parts parts;
    if (payload.len > node->conf->broker.message_bytes) {
        metric_add(&node->metrics.payload_too_large, 1);
        log_limited(LOG_LEVEL_WARN, "payload dropped: longer than broker.message_bytes",
                    dispatch_whose(kind, name), LOG_UINT("bytes", payload.len),
                    LOG_UINT("allowed", node->conf->broker.message_bytes));
        return NULL;
    }
    int error = envelope_parse(payload, (int)node->conf->limits.json_depth, &scratch, &parts);
    if (error != ENVELOPE_OK) {
        dispatch_bad(node, envelope_error(error), name, payload);
        return NULL;
    }
    uint16_t index = conf_type_find(node->conf, parts.type);
    const struct conf_type *type = &node->conf->types[index];
    if (parts.data.len > type->max_bytes) {
        metric_add(&node->metrics.payload_too_large, 1);
        log_limited(LOG_LEVEL_WARN, "payload dropped: data longer than the type's max_bytes",
                    dispatch_whose(kind, name), LOG_BYTES("type", parts.type),
                    LOG_UINT("bytes", parts.data.len), LOG_UINT("allowed", type->max_bytes));
        return NULL;
    }
    struct message *message = kind == MESSAGE_USER ? message_create_for(name, &parts)
                                                   : message_create(kind, name, &parts);
    if (!message) {
        log_limited(LOG_LEVEL_ERROR, "payload dropped: out of memory", dispatch_whose(kind, name));
        return NULL;
    }
    message->lane = type->lane;
    message->type_index = index;
    enum lane lane;
    struct history_point point;
    if (kind == MESSAGE_ROOM && node->conf->history_types > 0 && type->merge_kind == MERGE_NONE &&
        history_id_parse(message->id, &lane, &point) && lane == type->lane && point.n > 0)
        message->point = point;
    metric_add(&node->metrics.by_lane[type->lane], 1);
    frames_judge(node, kind, name, parts.type, payload);
    return message;
}

/* Whether limits.room_rate lets the message into its room; counted when not. Types with history are told by number: a hole would be
 * taken for a loss. */
static bool pass_room_rate(struct node *node, const struct conf_type *type,
                           const struct message *message)
{
    uint32_t rate = node->conf->limits.room_rate;
    if (rate == 0 || type->lane == LANE_HIGH || type->history || message->room.len == 0 ||
        sampler_pass(&node->sampler, message->room, message->room_hash, type->name_hash, rate,
                     uv_now(&node->loop)))
        return true;
    sampled_count(&node->metrics.sampled, type->name, type->lane);
    return false;
}

/* While some lane waits for what it missed, each room is asked whether it is one of its own. */
static void pass_on(struct node *node, const struct held *held, uint64_t workers,
                    struct message *message)
{
    if (held && (message->point.epoch != 0 || !list_empty(&node->history.waits)))
        history_take(node, message, held->reading);
    else
        deliver(node, workers, message);
}

static void on_message(void *ctx, enum broker_channel channel, struct bytes room,
                       struct bytes payload)
{
    struct node *node = ctx;
    uint64_t workers = all_workers(node);
    const struct held *held = NULL;
    if (channel == BROKER_USERS) {
        users_on_message(node, payload);
        return;
    }
    if (channel == BROKER_NODE) {
        users_on_order(node, payload);
        return;
    }
    if (channel != BROKER_ALL) {
        held = dispatch_find(node, room);
        workers = held ? held->holders : 0;
    }
    if (workers == 0) {
        metric_add(&node->metrics.payload_no_room, 1);
        return;
    }
    struct message *message =
        dispatch_judge(node, channel == BROKER_ALL ? MESSAGE_ALL : MESSAGE_ROOM, room, payload);
    if (!message)
        return;
    const struct conf_type *type = &node->conf->types[message->type_index];
    if (type->merge_kind != MERGE_NONE)
        merge_down_put(node, type, message);
    else if ((held && message->point.epoch != 0) || pass_room_rate(node, type, message))
        pass_on(node, held, workers, message);
    message_unref(message);
}

void dispatch_deliver(struct node *node, struct message *message)
{
    const struct held *held = message->room.len ? dispatch_find(node, message->room) : NULL;
    if (held || message->room.len == 0)
        deliver(node, held ? held->holders : all_workers(node), message);
}

static void on_subscribed(void *ctx, struct bytes room)
{
    struct node *node = ctx;
    struct held *held = dispatch_find(node, room);
    if (!held || held->live)
        return;
    held->live = true;
    begin_standing(node, held);
}

static void on_ready(void *ctx, bool ready)
{
    struct node *node = ctx;
    if (ready == node->broker_ready)
        return;
    node->broker_ready = ready;
    metric_set(&node->metrics.broker_ready, ready);
    if (ready)
        log_info("broker ready", LOG_UINT("rooms", node->rooms.count));
    else
        log_warn("broker away: viewers stay connected, publishes are refused until it is back");
    if (ready)
        presence_on_ready(node);
}

void dispatch_gap(struct node *node, struct bytes room, unsigned lanes, bool no_join)
{
    const struct held *held = room.len ? dispatch_find(node, room) : NULL;
    uint64_t workers = room.len ? (held ? held->holders : 0) : all_workers(node);
    for (int lane = 0; lane < LANE_COUNT && workers != 0; lane++) {
        if (!(lanes & 1u << lane))
            continue;
        struct message_parts none = {0};
        struct message *gap = message_create(MESSAGE_GAP, room, &none);
        if (!gap)
            continue;
        gap->lane = (enum lane)lane;
        gap->no_join = no_join;
        metric_add(&node->metrics.gaps, 1);
        deliver(node, workers, gap);
        message_unref(gap);
    }
}

static void on_gap(void *ctx, struct bytes room, unsigned lanes)
{
    struct node *node = ctx;
    struct held *held = room.len ? dispatch_find(node, room) : NULL;
    bool kept = held && node->conf->history_types > 0;
    if (kept)
        lanes = history_cut(node, held, lanes);
    dispatch_gap(node, room, lanes, !kept);
}

/* Tells the worker what became of a viewer's send. */
static void answer_publish(struct node *node, const struct publish *publish, int result,
                           uint32_t retry_after_ms, struct bytes id)
{
    if (node->phase == PHASE_ENDING || (!publish->ref.present && result == BROKER_OK))
        return;
    struct command *answer = command_create(COMMAND_PUBLISHED, id, (struct bytes){0});
    if (!answer)
        return;
    answer->slot = publish->slot;
    answer->id = publish->id;
    answer->ref = publish->ref;
    answer->result = result;
    answer->retry_after_ms = retry_after_ms;
    worker_post(node->workers[publish->worker], answer);
}

void dispatch_settle(struct node *node, struct publish *publish, int result, struct bytes id)
{
    if (result != BROKER_OK)
        metric_add(&node->metrics.publish_refused, 1);
    if (publish->merged)
        merge_up_settled(node, publish->merged, result);
    else if (publish->request)
        api_published(publish->request, result, id, &publish->size);
    else
        answer_publish(node, publish, result, 0, id);
    free(publish);
}

static void on_published(void *ctx, uint64_t token, int result)
{
    struct publish *publish = (struct publish *)(uintptr_t)token;
    if (publish) /* else an order to a node */
        dispatch_settle(ctx, publish, result, bytes_of(publish->message_id, publish->id_len));
}

static void on_pause_over(uv_timer_t *timer);

/* The high lane never drops: while a worker's ring for it is nearly full the broker is not read. */
static bool may_read(void *ctx, bool high)
{
    struct node *node = ctx;
    (void)high; /* types of the high lane may come on either channel */
    for (uint32_t i = 0; i < node->worker_count; i++) {
        if (worker_room_left(node->workers[i], LANE_HIGH) < RING_SLACK) {
            if (!uv_is_active((uv_handle_t *)&node->pause))
                uv_timer_start(&node->pause, on_pause_over, PAUSE_MS, PAUSE_MS);
            return false;
        }
    }
    return true;
}

static void on_pause_over(uv_timer_t *timer)
{
    struct node *node = timer->data;
    for (uint32_t i = 0; i < node->worker_count; i++) {
        if (worker_room_left(node->workers[i], LANE_HIGH) < RING_SLACK)
            return;
    }
    uv_timer_stop(timer);
    broker_resume(node->broker);
}

const struct broker_events node_broker_events = {.on_message = on_message,
                                                 .on_subscribed = on_subscribed,
                                                 .on_ready = on_ready,
                                                 .on_gap = on_gap,
                                                 .on_published = on_published,
                                                 .may_read = may_read};

static enum broker_channel channel_of(struct bytes room, enum lane lane)
{
    if (room.len == 0)
        return BROKER_ALL;
    return lane == LANE_HIGH ? BROKER_HIGH : BROKER_ROOM;
}

static int start_publish(struct node *node, struct publish *publish, struct bytes room,
                         enum lane lane, struct bytes payload)
{
    return broker_publish(node->broker, channel_of(room, lane), room, payload,
                          (uint64_t)(uintptr_t)publish);
}

/* What holds for the whole node, whichever worker the viewers are on. The user first: one who floods shall not use up the room's tokens.
 * Returns 0 or PUBLISH_ERR_…_RATE with the time to wait. */
static int take_rates(struct node *node, const struct command *command, uint32_t *wait)
{
    const struct conf *conf = node->conf;
    uint32_t now = (uint32_t)uv_now(&node->loop);
    struct limiter_policy user = {conf->limits.user_rate, conf->limits.user_burst,
                                  conf->limits.rate_entries};
    struct limiter_policy room = {conf->limits.room_send_rate, conf->limits.room_send_burst,
                                  conf->limits.rate_entries};
    *wait = limiter_take(&node->user_rates, &user, command_user(command), now);
    if (*wait > 0)
        return PUBLISH_ERR_USER_RATE;
    *wait = limiter_take(&node->room_rates, &room, command_room(command), now);
    return *wait > 0 ? PUBLISH_ERR_ROOM_RATE : 0;
}

void dispatch_expire_rates(struct node *node)
{
    enum { LOOKS = 4096 };
    uint32_t now = (uint32_t)uv_now(&node->loop);
    limiter_expire(&node->user_rates, now, LOOKS);
    limiter_expire(&node->room_rates, now, LOOKS);
    sampler_expire(&node->sampler, uv_now(&node->loop), LOOKS);
    metric_set(&node->metrics.rate_entries,
               node->user_rates.entries.count + node->room_rates.entries.count);
}

void dispatch_publish(struct node *node, const struct command *command)
{
    struct publish from = {
        .worker = command->worker, .slot = command->slot, .id = command->id, .ref = command->ref};
    uint32_t wait;
    int error = take_rates(node, command, &wait);
    if (error) {
        answer_publish(node, &from, error, wait, (struct bytes){0});
        return;
    }
    struct publish *publish = malloc(sizeof(*publish));
    if (!publish)
        return; /* the viewer's ref stays unanswered: there is no memory to tell it */
    *publish = from;
    if (command->queued) {
        queue_append(node, command, publish);
        return;
    }
    if (command->kept) {
        history_publish_viewer(node, command, publish);
        return;
    }
    metric_add(&node->metrics.published_viewer, 1);
    error = start_publish(node, publish, command_room(command), command->lane,
                          command_payload(command));
    if (error)
        dispatch_settle(node, publish, error, (struct bytes){0});
}

int dispatch_publish_merged(struct node *node, struct up *up, struct bytes room, enum lane lane,
                            struct bytes payload)
{
    struct publish *publish = calloc(1, sizeof(*publish));
    if (!publish)
        return BROKER_ERR_FULL;
    publish->merged = up;
    int error = start_publish(node, publish, room, lane, payload);
    if (error)
        free(publish);
    return error;
}

/* name: of the room or, on BROKER_USERS, of the user. */
static int publish_http(struct node *node, struct admin_request *request,
                        enum broker_channel channel, struct bytes name, struct bytes payload)
{
    bool to_user = channel == BROKER_USERS;
    struct bytes room = to_user ? (struct bytes){0} : name;
    struct publish *publish = calloc(1, sizeof(*publish));
    if (!publish)
        return BROKER_ERR_FULL;
    publish->request = request;
    publish->size = frames_measure(node,
                                   to_user        ? MESSAGE_USER
                                   : room.len > 0 ? MESSAGE_ROOM
                                                  : MESSAGE_ALL,
                                   name, payload);
    metric_add(&node->metrics.published_http, 1);
    int error = broker_publish(node->broker, channel, room, payload, (uint64_t)(uintptr_t)publish);
    if (error) {
        metric_add(&node->metrics.publish_refused, 1);
        free(publish);
    }
    return error;
}

int dispatch_publish_http(struct node *node, struct admin_request *request, struct bytes room,
                          enum lane lane, struct bytes payload)
{
    return publish_http(node, request, channel_of(room, lane), room, payload);
}

void dispatch_tell(struct node *node, struct bytes name, struct bytes payload)
{
    (void)broker_publish(node->broker, BROKER_NODE, name, payload, 0);
}

int dispatch_publish_user(struct node *node, struct admin_request *request, struct bytes user,
                          struct bytes payload)
{
    return publish_http(node, request, BROKER_USERS, user, payload);
}

void dispatch_free_rooms(struct node *node)
{
    struct link *link;
    while ((link = list_shift(&node->lingering)))
        free(CONTAINER_OF(link, struct lingering, link));
    for (uint32_t i = 0; node->rooms.buckets && i <= node->rooms.mask; i++) {
        struct map_node *at = node->rooms.buckets[i];
        while (at) {
            struct map_node *next = at->next;
            free(CONTAINER_OF(at, struct held, node));
            at = next;
        }
    }
    map_fini(&node->rooms);
}
