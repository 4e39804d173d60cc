/* queue.c: what viewers send to queues goes into a Redis stream, and only Redis' yes is an ack.
 *
 * The script decides (scripts/redis/queue.lua): added, a repeat of the same key, the key with other content, or full. An
 * answer that never comes is `unavailable`: the message may stand in the stream then, and the viewer's retry with the
 * same key finds out.
 */
#include "base/clock.h"
#include "base/log.h"
#include "broker/scripts.h"
#include "node/internal.h"
#include "protocol/queued.h"

#include <stdio.h>

enum { KEY_TEXT_MAX = CONF_ADDRESS_MAX + ROOM_NAME_MAX + USER_NAME_MAX + ROOM_NAME_MAX + 32 };

static void on_appended(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    struct kept kept = kept_read(result, value);
    metric_add(kept.verdict == KEPT_ADDED    ? &node->metrics.queued
               : kept.verdict == KEPT_REPEAT ? &node->metrics.queue_repeats
               : kept.verdict == KEPT_OTHER  ? &node->metrics.queue_duplicates
               : kept.verdict == KEPT_FULL   ? &node->metrics.queue_full
                                             : &node->metrics.queue_failed,
               1);
    if (kept.verdict == KEPT_FULL)
        log_limited(LOG_LEVEL_WARN,
                    "a queue is full: its sends are refused until a consumer deletes entries",
                    LOG_UINT("queue.max_length", node->conf->queue.max_length));
    dispatch_settle(node, (struct publish *)(uintptr_t)token, kept.result, kept.id);
}

void queue_append(struct node *node, const struct command *command, struct publish *publish)
{
    enum { ARGS = 9 };
    const struct conf *conf = node->conf;
    struct queued queued = queued_unpack(command_payload(command));
    struct bytes from = command_user(command);
    const struct conf_type *type = &conf->types[conf_type_find(conf, queued.type)];
    const char *prefix = broker_prefix(node->broker);
    char name[ROOM_NAME_MAX + 1];
    char stream[KEY_TEXT_MAX];
    char dedupe[KEY_TEXT_MAX];
    char numbers[3][24];
    snprintf(name, sizeof(name), "%.*s", type->queue[0] ? ROOM_NAME_MAX : (int)queued.type.len,
             type->queue[0] ? type->queue : queued.type.data);
    snprintf(stream, sizeof(stream), "%s:queue:{%s}", prefix, name);
    snprintf(dedupe, sizeof(dedupe), "%s:dedupe:{%s}:%zu:%.*s:%.*s", prefix, name, from.len,
             (int)from.len, from.data, (int)queued.key.len, queued.key.data);
    snprintf(numbers[0], sizeof(numbers[0]), "%u", conf->queue.max_length);
    snprintf(numbers[1], sizeof(numbers[1]), "%u", conf->queue.dedupe_ms);
    snprintf(numbers[2], sizeof(numbers[2]), "%llu", (unsigned long long)clock_unix_ms());
    const struct bytes keys[] = {bytes_str(stream), bytes_str(dedupe)};
    const struct bytes args[ARGS] = {bytes_str(numbers[0]),
                                     bytes_str(numbers[1]),
                                     command_room(command),
                                     queued.type,
                                     from,
                                     queued.data,
                                     queued.key,
                                     bytes_str(conf->server.node),
                                     bytes_str(numbers[2])};
    int error = broker_eval(node->broker, &script_queue, keys, queued.key.len > 0 ? 2 : 1, args,
                            ARGS, on_appended, node, (uint64_t)(uintptr_t)publish);
    if (error) {
        metric_add(&node->metrics.queue_failed, 1);
        dispatch_settle(node, publish, error, (struct bytes){0});
    }
}
