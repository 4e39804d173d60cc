/* publish.c: messages of types with history get a number, are kept and published, in one step.
 *
 * In Redis by scripts/redis/publish.lua; with `memory:` in process. An answer of Redis that never comes is `unavailable`: the message
 * may be published then, and a retry with the same key finds out.
 */
#include "base/clock.h"
#include "broker/scripts.h"
#include "node/internal.h"
#include "protocol/queued.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    OWNED_KEY_MAX = 2 * ROOM_NAME_MAX + 32, /* a key and whose it is */
    NAME_MAX_BYTES = CONF_ADDRESS_MAX + ROOM_NAME_MAX + OWNED_KEY_MAX + 32
};

struct backlog_bounds history_bounds(const struct node *node)
{
    const struct conf *conf = node->conf;
    return (struct backlog_bounds){.length = conf->history.length,
                                   .ttl_ms = conf->history.ttl_ms,
                                   .dedupe_ms = conf->history.dedupe_ms,
                                   .rooms = conf->limits.rooms,
                                   .bytes = conf->history.memory};
}

static int in_process(struct node *node, struct publish *publish, const struct numbered *numbered)
{
    struct backlog_bounds bounds = history_bounds(node);
    struct backlog_post post = {.room = numbered->room,
                                .lane = numbered->lane,
                                .message = numbered->message,
                                .key = numbered->key,
                                .now_ms = uv_now(&node->loop),
                                .unix_us = clock_unix_ms() * 1000};
    struct backlog_answer answer = backlog_post(&node->backlog, &bounds, &post);
    char text[HISTORY_ID_MAX + 1];
    if (answer.result == BACKLOG_NO_MEMORY)
        return BROKER_ERR_FULL;
    if (answer.result == BACKLOG_OTHER) {
        metric_add(&node->metrics.history_duplicates, 1);
        dispatch_settle(node, publish, PUBLISH_ERR_DUPLICATE, (struct bytes){0});
        return 0;
    }
    struct bytes id = history_id_format(answer.lane, answer.point, text);
    if (answer.result == BACKLOG_REPEAT) {
        metric_add(&node->metrics.history_repeats, 1);
        dispatch_settle(node, publish, BROKER_OK, id);
        return 0;
    }
    publish->id_len = (uint8_t)id.len;
    memcpy(publish->message_id, id.data, id.len);
    int error =
        broker_publish(node->broker, numbered->lane == LANE_HIGH ? BROKER_HIGH : BROKER_ROOM,
                       numbered->room, answer.message, (uint64_t)(uintptr_t)publish);
    if (error)
        backlog_undo(&node->backlog, &post);
    else
        metric_add(&node->metrics.history_added, 1);
    return error;
}

static void on_done(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    struct kept kept = kept_read(result, value);
    metric_add(kept.verdict == KEPT_ADDED    ? &node->metrics.history_added
               : kept.verdict == KEPT_REPEAT ? &node->metrics.history_repeats
               : kept.verdict == KEPT_OTHER  ? &node->metrics.history_duplicates
                                             : &node->metrics.history_failed,
               1);
    dispatch_settle(node, (struct publish *)(uintptr_t)token, kept.result, kept.id);
}

static int in_redis(struct node *node, struct publish *publish, const struct numbered *numbered)
{
    const struct conf *conf = node->conf;
    const char *prefix = broker_prefix(node->broker);
    const char *lane = lane_name(numbered->lane);
    const char *channel = numbered->lane == LANE_HIGH ? "high" : "room";
    struct bytes room = numbered->room;
    char names[4][NAME_MAX_BYTES];
    char numbers[3][16];
    snprintf(names[0], NAME_MAX_BYTES, "%s:seq:{%.*s}", prefix, (int)room.len, room.data);
    snprintf(names[1], NAME_MAX_BYTES, "%s:history:{%.*s}:%s", prefix, (int)room.len, room.data,
             lane);
    snprintf(names[2], NAME_MAX_BYTES, "%s:dedupe:{%.*s}:%.*s", prefix, (int)room.len, room.data,
             (int)numbered->key.len, numbered->key.data);
    snprintf(names[3], NAME_MAX_BYTES, "%s:%s:{%.*s}", prefix, channel, (int)room.len, room.data);
    snprintf(numbers[0], sizeof(numbers[0]), "%u", conf->history.length);
    snprintf(numbers[1], sizeof(numbers[1]), "%u", conf->history.ttl_ms);
    snprintf(numbers[2], sizeof(numbers[2]), "%u", conf->history.dedupe_ms);
    const struct bytes keys[] = {bytes_str(names[0]), bytes_str(names[1]), bytes_str(names[2])};
    const struct bytes args[] = {bytes_str(lane),       bytes_str(names[3]),
                                 numbered->message,     bytes_str(numbers[0]),
                                 bytes_str(numbers[1]), bytes_str(numbers[2])};
    return broker_eval(node->broker, &script_publish, keys, numbered->key.len > 0 ? 3 : 2, args, 6,
                       on_done, node, (uint64_t)(uintptr_t)publish);
}

int history_publish(struct node *node, struct publish *publish, const struct numbered *numbered)
{
    int error = !node->broker_ready                 ? BROKER_ERR_AWAY
                : broker_has_commands(node->broker) ? in_redis(node, publish, numbered)
                                                    : in_process(node, publish, numbered);
    if (error)
        metric_add(&node->metrics.history_failed, 1);
    return error;
}

void history_publish_viewer(struct node *node, const struct command *command,
                            struct publish *publish)
{
    struct queued queued = queued_unpack(command_payload(command));
    struct bytes user = command_user(command);
    char owned[OWNED_KEY_MAX];
    struct numbered numbered = {command_room(command), command->lane, queued.data, {0}};
    if (queued.key.len > 0) {
        int len = snprintf(owned, sizeof(owned), "viewer:%zu:%.*s:%.*s", user.len, (int)user.len,
                           user.data, (int)queued.key.len, queued.key.data);
        numbered.key = bytes_of(owned, (size_t)len);
    }
    metric_add(&node->metrics.published_viewer, 1);
    int error = history_publish(node, publish, &numbered);
    if (error)
        dispatch_settle(node, publish, error, (struct bytes){0});
}

int history_publish_http(struct node *node, struct admin_request *request,
                         const struct numbered *numbered)
{
    char owned[OWNED_KEY_MAX];
    struct numbered own = *numbered;
    struct publish *publish = calloc(1, sizeof(*publish));
    if (!publish)
        return BROKER_ERR_FULL;
    publish->request = request;
    if (own.key.len > 0) {
        int len = snprintf(owned, sizeof(owned), "http:%.*s", (int)own.key.len, own.key.data);
        own.key = bytes_of(owned, (size_t)len);
    }
    publish->size = frames_measure(node, MESSAGE_ROOM, own.room, own.message);
    metric_add(&node->metrics.published_http, 1);
    int error = history_publish(node, publish, &own);
    if (error) {
        metric_add(&node->metrics.publish_refused, 1);
        free(publish);
    }
    return error;
}
