/* memory.c: the embedded broker: what is published comes back by the next loop turn.
 *
 * For one node without Redis. It keeps the same promises as the Redis backend (order within a channel, high first,
 * bounds, pauses, callbacks from the loop only), so that the rest can't tell them apart.
 */
#include "base/clock.h"
#include "base/list.h"
#include "base/map.h"
#include "broker/broker_backend.h"

#include <stdlib.h>

enum { TURN_MESSAGES = 256 /* delivered per loop turn, so that others get theirs */ };

enum memory_queue { QUEUE_HIGH, QUEUE_NORMAL, QUEUES };

struct memory_room {
    struct map_node node;
    struct link fresh; /* on memory_broker.fresh until on_subscribed was called */
    uint8_t len;
    char name[];
};

struct memory_message {
    struct link link;
    enum broker_channel channel;
    uint64_t token;
    uint64_t since_ms;
    size_t room_len;
    size_t payload_len;
    char text[]; /* room, payload */
};

struct memory_broker {
    struct broker base;
    uv_idle_t turn; /* active while there is something to do */
    struct map rooms;
    struct link fresh;
    struct link queues[QUEUES];
    bool paused[QUEUES];
    bool ready;
    uint32_t pending;
    size_t pending_bytes;
    struct broker_stats stats;
};

static void on_turn(uv_idle_t *turn);

static struct memory_broker *memory_of(struct broker *broker)
{
    return CONTAINER_OF(broker, struct memory_broker, base);
}

static void schedule(struct memory_broker *memory)
{
    if (!memory->base.closing)
        uv_idle_start(&memory->turn, on_turn);
}

static struct bytes name_of(const struct memory_room *room)
{
    return bytes_of(room->name, room->len);
}

static struct memory_room *find(const struct memory_broker *memory, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *node = map_chain(&memory->rooms, hash); node; node = node->next) {
        struct memory_room *room = CONTAINER_OF(node, struct memory_room, node);
        if (node->hash == hash && bytes_equal(name_of(room), name))
            return room;
    }
    return NULL;
}

static int memory_subscribe(struct broker *broker, struct bytes name)
{
    struct memory_broker *memory = memory_of(broker);
    if (name.len == 0 || name.len > ROOM_NAME_MAX)
        return UV_EINVAL;
    if (find(memory, name))
        return 0;
    struct memory_room *room = malloc(sizeof(struct memory_room) + name.len);
    if (!room)
        return UV_ENOMEM;
    *room = (struct memory_room){.len = (uint8_t)name.len};
    memcpy(room->name, name.data, name.len);
    if (map_add(&memory->rooms, &room->node, map_hash(name.data, name.len)) != 0) {
        free(room);
        return UV_ENOMEM;
    }
    list_append(&memory->fresh, &room->fresh);
    schedule(memory);
    return 0;
}

static void memory_unsubscribe(struct broker *broker, struct bytes name)
{
    struct memory_broker *memory = memory_of(broker);
    struct memory_room *room = find(memory, name);
    if (!room)
        return;
    list_remove(&room->fresh);
    map_remove(&memory->rooms, &room->node);
    free(room);
}

static struct memory_message *message_create_from(enum broker_channel channel, struct bytes room,
                                                  struct bytes payload, uint64_t token)
{
    struct memory_message *message = malloc(sizeof(*message) + room.len + payload.len);
    if (!message)
        return NULL;
    *message = (struct memory_message){
        .channel = channel,
        .token = token,
        .since_ms = clock_ms(),
        .room_len = channel >= BROKER_ALL ? 0 : room.len,
        .payload_len = payload.len,
    };
    if (message->room_len > 0)
        memcpy(message->text, room.data, message->room_len);
    if (payload.len > 0)
        memcpy(message->text + message->room_len, payload.data, payload.len);
    return message;
}

static int memory_publish(struct broker *broker, enum broker_channel channel, struct bytes room,
                          struct bytes payload, uint64_t token)
{
    struct memory_broker *memory = memory_of(broker);
    const struct broker_limits *limits = &broker->limits;
    int result = memory->ready && !broker->closing ? 0 : BROKER_ERR_AWAY;
    if (result == 0 && (memory->pending >= limits->pending ||
                        memory->pending_bytes + payload.len > limits->output_bytes))
        result = BROKER_ERR_FULL;
    struct memory_message *message =
        result == 0 ? message_create_from(channel, room, payload, token) : NULL;
    if (!message) {
        memory->stats.publish_failed++;
        return result ? result : BROKER_ERR_FULL;
    }
    memory->pending++;
    memory->pending_bytes += payload.len;
    list_append(&memory->queues[channel == BROKER_HIGH ? QUEUE_HIGH : QUEUE_NORMAL],
                &message->link);
    schedule(memory);
    return 0;
}

static void finish(struct memory_broker *memory, struct memory_message *message, int result)
{
    memory->pending--;
    memory->pending_bytes -= message->payload_len;
    if (result == 0)
        memory->stats.published++;
    else
        memory->stats.publish_failed++;
    memory->base.events.on_published(memory->base.ctx, message->token, result);
    free(message);
}

static void deliver(struct memory_broker *memory, struct memory_message *message)
{
    struct bytes room = bytes_of(message->text, message->room_len);
    if (message->channel >= BROKER_ALL || find(memory, room)) {
        memory->stats.received++;
        memory->stats.received_bytes += message->payload_len;
        memory->base.events.on_message(
            memory->base.ctx, message->channel, room,
            bytes_of(message->text + message->room_len, message->payload_len));
    }
    finish(memory, message, 0);
}

/* The next queue that has messages and may be read, the high one first; -1: none. */
static int next_queue(struct memory_broker *memory)
{
    for (int queue = 0; queue < QUEUES; queue++) {
        if (list_empty(&memory->queues[queue]) || memory->paused[queue])
            continue;
        if (memory->base.events.may_read(memory->base.ctx, queue == QUEUE_HIGH))
            return queue;
        memory->paused[queue] = true;
    }
    return -1;
}

static void announce(struct memory_broker *memory)
{
    struct link *at;
    if (!memory->ready) {
        memory->ready = true;
        memory->base.events.on_ready(memory->base.ctx, true);
    }
    while (!memory->base.closing && (at = list_shift(&memory->fresh))) {
        struct memory_room *room = CONTAINER_OF(at, struct memory_room, fresh);
        /* A copy: the callback may unsubscribe, which frees the room. */
        char name[ROOM_NAME_MAX];
        size_t len = room->len;
        memcpy(name, room->name, len);
        memory->base.events.on_subscribed(memory->base.ctx, bytes_of(name, len));
    }
}

static void on_turn(uv_idle_t *turn)
{
    struct memory_broker *memory = CONTAINER_OF(turn, struct memory_broker, turn);
    for (int i = 0; i < TURN_MESSAGES; i++) {
        /* Each time: a callback may subscribe to a room that has messages waiting here. */
        if (!memory->base.closing)
            announce(memory);
        if (memory->base.closing)
            return;
        int queue = next_queue(memory);
        if (queue < 0) {
            uv_idle_stop(turn);
            return;
        }
        struct link *at = list_shift(&memory->queues[queue]);
        deliver(memory, CONTAINER_OF(at, struct memory_message, link));
    }
}

static void memory_resume(struct broker *broker)
{
    struct memory_broker *memory = memory_of(broker);
    for (int queue = 0; queue < QUEUES; queue++)
        memory->paused[queue] = false;
    schedule(memory);
}

static void memory_set_limits(struct broker *broker)
{
    (void)broker; /* They are read where they are used. */
}

static void memory_get_stats(const struct broker *broker, struct broker_stats *stats)
{
    const struct memory_broker *memory = (const struct memory_broker *)(const void *)broker;
    uint64_t now = clock_ms();
    *stats = memory->stats;
    stats->ready = memory->ready;
    stats->subscriptions = memory->rooms.count;
    stats->pending = memory->pending;
    for (int queue = 0; queue < QUEUES; queue++) {
        const struct link *head = &memory->queues[queue];
        if (list_empty(head))
            continue;
        uint64_t age = now - CONTAINER_OF(head->next, struct memory_message, link)->since_ms;
        stats->lag_ms = age > stats->lag_ms ? age : stats->lag_ms;
    }
}

static void gather(void *list, struct map_node *node)
{
    struct memory_room *room = CONTAINER_OF(node, struct memory_room, node);
    list_remove(&room->fresh);
    list_append(list, &room->fresh);
}

static void on_turn_closed(uv_handle_t *handle)
{
    struct memory_broker *memory = CONTAINER_OF(handle, struct memory_broker, turn);
    void (*on_closed)(void *) = memory->base.on_closed;
    void *ctx = memory->base.ctx;
    struct link *at;
    for (int queue = 0; queue < QUEUES; queue++) {
        while ((at = list_shift(&memory->queues[queue])))
            finish(memory, CONTAINER_OF(at, struct memory_message, link), BROKER_ERR_AWAY);
    }
    map_each(&memory->rooms, gather, &memory->fresh);
    while ((at = list_shift(&memory->fresh)))
        free(CONTAINER_OF(at, struct memory_room, fresh));
    map_fini(&memory->rooms);
    free(memory);
    on_closed(ctx);
}

static void memory_close(struct broker *broker)
{
    struct memory_broker *memory = memory_of(broker);
    memory->ready = false;
    uv_close((uv_handle_t *)&memory->turn, on_turn_closed);
}

static const struct broker_backend backend = {
    .close = memory_close,
    .subscribe = memory_subscribe,
    .unsubscribe = memory_unsubscribe,
    .publish = memory_publish,
    .resume = memory_resume,
    .set_limits = memory_set_limits,
    .get_stats = memory_get_stats,
};

struct broker *memory_broker_create(uv_loop_t *loop)
{
    struct memory_broker *memory = calloc(1, sizeof(struct memory_broker));
    if (!memory)
        return NULL;
    memory->base.backend = &backend;
    list_init(&memory->fresh);
    for (int queue = 0; queue < QUEUES; queue++)
        list_init(&memory->queues[queue]);
    (void)uv_idle_init(loop, &memory->turn); /* Always 0. */
    uv_idle_start(&memory->turn, on_turn);   /* To say that it is ready. */
    return &memory->base;
}
