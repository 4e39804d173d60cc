/* redis.c: the Redis backend: three connections, the rooms' subscriptions and what is asked between them.
 *
 * `high` and `normal` subscribe, `publish` pipelines PUBLISH and all other commands. The normal connection never reads before the high one
 * is drained, so that priority begins at Redis. Everything that is to be sent is gathered in one loop turn.
 */
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "broker/broker_backend.h"
#include "broker/redis_conn.h"
#include "broker/redis_publisher.h"
#include "broker/redis_rooms.h"

#include <stdlib.h>

/* Connections: the lines of redis_rooms.h, and the one that publishes. */
enum { CONN_PUBLISH = REDIS_LINES, CONNS };

enum {
    HIGH_READ_SLICE = 1 << 20,    /* of the high connection before the normal one gets its turn */
    BATCH_OUTPUT_BYTES = 1 << 16, /* unsent bytes past which no further batch is appended */
    BATCH_WAITING = 4 * REDIS_BATCH_MAX /* unconfirmed channels past which it waits too */
};

struct redis_broker {
    struct broker base;
    struct broker_url url;
    struct redis_conn conns[CONNS];
    struct redis_rooms rooms;
    struct redis_publisher publisher;
    struct redis_handles handles;
    uv_idle_t turn; /* runs once in the next loop turn, when something is to be done */
    bool ready;
    bool resuming;
    uint64_t received;
    uint64_t received_bytes;
};

static void on_turn(uv_idle_t *turn);

static struct redis_broker *redis_of(struct broker *broker)
{
    return CONTAINER_OF(broker, struct redis_broker, base);
}

static struct redis_broker *broker_of(const struct redis_conn *conn)
{
    return redis_of(conn->broker);
}

static int index_of(const struct redis_conn *conn)
{
    return (int)(conn - broker_of(conn)->conns);
}

static void schedule(struct redis_broker *redis)
{
    /* An idle handle: it makes the loop go round at once, wherever in the turn this is called. */
    if (!redis->base.closing)
        uv_idle_start(&redis->turn, on_turn);
}

/* The only place where readiness changes. */
static void check_ready(struct redis_broker *redis)
{
    bool ready = redis->conns[CONN_PUBLISH].state == REDIS_CONN_LIVE;
    if (ready)
        redis_conn_settled(&redis->conns[CONN_PUBLISH]);
    for (int line = 0; line < REDIS_LINES; line++) {
        if (redis_rooms_settled(&redis->rooms, (enum redis_line)line))
            redis_conn_settled(&redis->conns[line]);
        else
            ready = false;
    }
    if (ready == redis->ready || redis->base.closing)
        return;
    redis->ready = ready;
    if (ready)
        log_limited(LOG_LEVEL_INFO, "redis is ready", LOG_STR("host", redis->url.host),
                    LOG_UINT("port", redis->url.port), LOG_UINT("rooms", redis->rooms.wanted));
    redis->base.events.on_ready(redis->base.ctx, ready);
}

static void on_up(struct redis_conn *conn)
{
    struct redis_broker *redis = broker_of(conn);
    int index = index_of(conn);
    if (index == CONN_PUBLISH)
        redis_publisher_up(&redis->publisher);
    else
        redis_rooms_up(&redis->rooms, (enum redis_line)index);
    schedule(redis);
    check_ready(redis);
}

static void on_down(struct redis_conn *conn)
{
    struct redis_broker *redis = broker_of(conn);
    int index = index_of(conn);
    if (index != CONN_PUBLISH)
        redis_rooms_down(&redis->rooms, (enum redis_line)index);
    check_ready(redis);
    if (index == CONN_PUBLISH && !redis->base.closing)
        redis_publisher_lost(&redis->publisher);
}

static void on_drained(struct redis_conn *conn)
{
    if (index_of(conn) != CONN_PUBLISH)
        schedule(broker_of(conn));
}

static void before_read(struct redis_conn *conn)
{
    if (index_of(conn) == REDIS_LINE_NORMAL)
        redis_conn_read(&broker_of(conn)->conns[REDIS_LINE_HIGH], HIGH_READ_SLICE);
}

static bool may_read(struct redis_conn *conn)
{
    struct redis_broker *redis = broker_of(conn);
    int index = index_of(conn);
    return index == CONN_PUBLISH ||
           redis->base.events.may_read(redis->base.ctx, index == REDIS_LINE_HIGH);
}

static void take_message(struct redis_broker *redis, enum redis_line line, struct bytes channel,
                         struct bytes payload)
{
    enum broker_channel kind;
    struct bytes room;
    redis->received++;
    redis->received_bytes += payload.len;
    /* A room that was just given up: its last messages have nobody to go to. */
    if (!redis_rooms_deliver(&redis->rooms, line, channel, &kind, &room) || redis->base.closing)
        return;
    redis->base.events.on_message(redis->base.ctx, kind, room, payload);
}

static int on_subscriber_reply(struct redis_conn *conn, const struct broker_value *reply)
{
    struct redis_broker *redis = broker_of(conn);
    enum redis_line line = (enum redis_line)index_of(conn);
    struct bytes channel;
    struct bytes payload;
    enum wire_event event = wire_event(reply, &channel, &payload);
    if (event == WIRE_EVENT_MESSAGE) {
        take_message(redis, line, channel, payload);
        return 0;
    }
    if (event == WIRE_EVENT_OTHER)
        return UV_EPROTO;
    redis_conn_answered(conn);
    int result =
        redis_rooms_confirmed(&redis->rooms, line, channel, event == WIRE_EVENT_SUBSCRIBED);
    schedule(redis);
    check_ready(redis);
    return result;
}

static int on_publisher_reply(struct redis_conn *conn, const struct broker_value *reply)
{
    struct redis_broker *redis = broker_of(conn);
    int result = redis_publisher_reply(&redis->publisher, reply);
    /* Scripts that Redis did not know any more were asked once more. */
    if (redis_conn_unsent(conn) > 0)
        schedule(redis);
    return result;
}

static int take_reply(struct redis_conn *conn, const struct broker_value *reply)
{
    return index_of(conn) == CONN_PUBLISH ? on_publisher_reply(conn, reply)
                                          : on_subscriber_reply(conn, reply);
}

static const struct redis_conn_events conn_events = {
    .on_up = on_up,
    .on_down = on_down,
    .on_reply = take_reply,
    .on_drained = on_drained,
    .before_read = before_read,
    .may_read = may_read,
};

static void on_room_subscribed(void *ctx, struct bytes room)
{
    struct redis_broker *redis = ctx;
    if (!redis->base.closing)
        redis->base.events.on_subscribed(redis->base.ctx, room);
}

static void on_room_gap(void *ctx, struct bytes room, unsigned lanes)
{
    struct redis_broker *redis = ctx;
    if (!redis->base.closing)
        redis->base.events.on_gap(redis->base.ctx, room, lanes);
}

static const struct redis_rooms_events rooms_events = {
    .on_subscribed = on_room_subscribed,
    .on_gap = on_room_gap,
};

/* Appends the commands that the rooms wait for, as far as output and unconfirmed commands allow. */
static void send_batches(struct redis_broker *redis, int line)
{
    struct redis_conn *conn = &redis->conns[line];
    while (conn->state == REDIS_CONN_LIVE && redis_conn_unsent(conn) < BATCH_OUTPUT_BYTES &&
           conn->waiting < BATCH_WAITING) {
        uint32_t count = redis_rooms_batch(&redis->rooms, (enum redis_line)line, &conn->out);
        if (count == 0)
            break;
        redis_conn_expect(conn, count);
        if (conn->out.failed)
            redis_conn_fail(conn, "out of memory for its commands", BYTES_LIT(""));
    }
}

static void on_turn(uv_idle_t *turn)
{
    struct redis_broker *redis = CONTAINER_OF(turn, struct redis_broker, turn);
    uv_idle_stop(turn);
    redis_rooms_announce(&redis->rooms);
    for (int i = 0; i < CONNS && redis->resuming; i++)
        redis_conn_resume(&redis->conns[i]);
    redis->resuming = false;
    for (int line = 0; line < REDIS_LINES; line++)
        send_batches(redis, line);
    for (int i = 0; i < CONNS; i++) {
        struct redis_conn *conn = &redis->conns[i];
        if (redis_conn_unsent(conn) > 0)
            redis_conn_flush(conn);
    }
}

static int redis_subscribe(struct broker *broker, struct bytes room)
{
    struct redis_broker *redis = redis_of(broker);
    int result = redis_rooms_want(&redis->rooms, room);
    if (result == 0)
        schedule(redis);
    return result;
}

static void redis_unsubscribe(struct broker *broker, struct bytes room)
{
    struct redis_broker *redis = redis_of(broker);
    redis_rooms_unwant(&redis->rooms, room);
    schedule(redis);
}

static int redis_publish(struct broker *broker, enum broker_channel channel, struct bytes room,
                         struct bytes payload, uint64_t token)
{
    struct redis_broker *redis = redis_of(broker);
    char text[REDIS_CHANNEL_MAX];
    if (!redis->ready || broker->closing) {
        redis->publisher.publish_failed++;
        return BROKER_ERR_AWAY;
    }
    struct bytes name = redis_names_channel(&redis->rooms.names, channel, room, text);
    int result = redis_publisher_publish(&redis->publisher, name, payload, token);
    if (result == 0)
        schedule(redis);
    return result;
}

static int redis_call(struct broker *broker, const struct bytes *args, uint32_t count,
                      broker_reply on_reply, void *owner, uint64_t token)
{
    struct redis_broker *redis = redis_of(broker);
    int result = redis_publisher_call(&redis->publisher, args, count, on_reply, owner, token);
    if (result == 0)
        schedule(redis);
    return result;
}

static int redis_eval(struct broker *broker, const struct broker_script *script,
                      const struct bytes *keys, uint32_t key_count, const struct bytes *args,
                      uint32_t arg_count, broker_reply on_reply, void *owner, uint64_t token)
{
    struct redis_broker *redis = redis_of(broker);
    int result = redis_publisher_eval(&redis->publisher, script, keys, key_count, args, arg_count,
                                      on_reply, owner, token);
    if (result == 0)
        schedule(redis);
    return result;
}

static void redis_resume(struct broker *broker)
{
    struct redis_broker *redis = redis_of(broker);
    redis->resuming = true;
    schedule(redis);
}

static void redis_set_limits(struct broker *broker)
{
    struct redis_broker *redis = redis_of(broker);
    for (int i = 0; i < CONNS; i++)
        redis_conn_set_limits(&redis->conns[i]);
}

static void redis_get_stats(const struct broker *broker, struct broker_stats *stats)
{
    const struct redis_broker *redis = (const struct redis_broker *)(const void *)broker;
    stats->ready = redis->ready;
    stats->received = redis->received;
    stats->received_bytes = redis->received_bytes;
    stats->published = redis->publisher.published;
    stats->publish_failed = redis->publisher.publish_failed;
    stats->calls = redis->publisher.calls;
    stats->call_failed = redis->publisher.call_failed;
    stats->subscriptions = redis->rooms.wanted;
    stats->pending = redis->publisher.pending.count;
    stats->lag_ms = redis_pending_age_ms(&redis->publisher.pending, clock_ms());
    for (int i = 0; i < CONNS; i++) {
        const struct redis_conn *conn = &redis->conns[i];
        stats->reconnects += conn->connects > 0 ? conn->connects - 1 : 0;
        stats->protocol_errors += conn->protocol_errors;
    }
}

static void on_all_closed(void *ctx)
{
    struct redis_broker *redis = ctx;
    void (*on_closed)(void *) = redis->base.on_closed;
    void *closed_ctx = redis->base.ctx;
    redis_publisher_lost(&redis->publisher);
    for (int i = 0; i < CONNS; i++)
        redis_conn_fini(&redis->conns[i]);
    redis_publisher_fini(&redis->publisher);
    redis_rooms_fini(&redis->rooms);
    free(redis);
    on_closed(closed_ctx);
}

static void on_turn_closed(uv_handle_t *handle)
{
    redis_handles_closed(&CONTAINER_OF(handle, struct redis_broker, turn)->handles);
}

static void redis_close(struct broker *broker)
{
    struct redis_broker *redis = redis_of(broker);
    redis->ready = false;
    redis->handles.on_none = on_all_closed;
    redis->handles.ctx = redis;
    for (int i = 0; i < CONNS; i++)
        redis_conn_close(&redis->conns[i]);
    uv_close((uv_handle_t *)&redis->turn, on_turn_closed);
}

static const struct broker_backend backend = {
    .close = redis_close,
    .subscribe = redis_subscribe,
    .unsubscribe = redis_unsubscribe,
    .publish = redis_publish,
    .call = redis_call,
    .eval = redis_eval,
    .resume = redis_resume,
    .set_limits = redis_set_limits,
    .get_stats = redis_get_stats,
};

static void open_conn(struct redis_broker *redis, uv_loop_t *loop, int index)
{
    static const char *const names[CONNS] = {
        [REDIS_LINE_HIGH] = "high", [REDIS_LINE_NORMAL] = "normal", [CONN_PUBLISH] = "publish"};
    struct redis_conn *conn = &redis->conns[index];
    conn->name = names[index];
    conn->broker = &redis->base;
    conn->url = &redis->url;
    conn->events = &conn_events;
    conn->dial.loop = loop;
    conn->dial.handles = &redis->handles;
    redis_conn_init(conn);
    redis_conn_start(conn);
}

struct broker *redis_broker_create(uv_loop_t *loop, const struct broker_url *url,
                                   const char *prefix, const char *node)
{
    struct redis_broker *redis = calloc(1, sizeof(struct redis_broker));
    if (!redis)
        return NULL;
    if (redis_rooms_init(&redis->rooms, prefix, node, &rooms_events, redis) != 0) {
        free(redis);
        return NULL;
    }
    redis->base.backend = &backend;
    redis->publisher =
        (struct redis_publisher){.broker = &redis->base, .conn = &redis->conns[CONN_PUBLISH]};
    redis->url = *url;
    (void)uv_idle_init(loop, &redis->turn); /* Always 0. */
    redis->handles.open++;
    for (int i = 0; i < CONNS; i++)
        open_conn(redis, loop, i);
    return &redis->base;
}
