/* history_read.c: reads of history: one script in Redis, or what is kept in process. */
#include "base/log.h"
#include "broker/scripts.h"
#include "node/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME_MAX_BYTES = CONF_ADDRESS_MAX + ROOM_NAME_MAX + 32 };

struct history_read *history_read_create(struct node *node, struct bytes name, enum lane lane)
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

void history_read_free(struct history_read *read)
{
    list_remove(&read->link);
    read->node->history.read_count--;
    if (read->wait)
        read->wait->read = NULL;
    if (read->late)
        read->late->read = NULL;
    free(read);
}

static struct bytes read_room(const struct history_read *read)
{
    return bytes_of(read->name, read->name_len);
}

static uint64_t number_of(struct bytes text)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len && i < 16 && text.data[i] >= '0' && text.data[i] <= '9'; i++)
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    return value;
}

/* {epoch, n, first, message, …} */
static void on_read(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    enum { HEAD = 3 };
    struct history_read *read = (struct history_read *)(uintptr_t)token;
    struct history_found found = {.error = result};
    struct bytes *messages = NULL;
    (void)owner;
    if (result == BROKER_OK && (value->kind != BROKER_ARRAY || value->count < HEAD))
        found.error = BROKER_ERR_REFUSED;
    if (found.error == 0) {
        found.last.epoch = history_epoch_read(value->items[0].text);
        found.last.n = number_of(value->items[1].text);
        found.first = number_of(value->items[2].text);
        found.count = value->count - HEAD;
        messages = calloc(found.count + 1, sizeof(*messages));
        if (!messages)
            found = (struct history_found){.error = BROKER_ERR_FULL};
    }
    for (uint32_t i = 0; i < found.count; i++)
        messages[i] = value->items[HEAD + i].text;
    found.messages = messages;
    history_found(read, &found);
    free(messages);
}

static int read_redis(struct history_read *read, struct history_point after)
{
    struct node *node = read->node;
    const char *prefix = broker_prefix(node->broker);
    const char *lane = lane_name(read->lane);
    char seq[NAME_MAX_BYTES];
    char history[NAME_MAX_BYTES];
    char epoch[EPOCH_TEXT_MAX + 1];
    char numbers[3][24];
    snprintf(seq, sizeof(seq), "%s:seq:{%.*s}", prefix, read->name_len, read->name);
    snprintf(history, sizeof(history), "%s:history:{%.*s}:%s", prefix, read->name_len, read->name,
             lane);
    snprintf(numbers[0], sizeof(numbers[0]), "%llu", (unsigned long long)after.n);
    snprintf(numbers[1], sizeof(numbers[1]), "%u", node->conf->history.length);
    snprintf(numbers[2], sizeof(numbers[2]), "%u", node->conf->history.read_bytes);
    const struct bytes keys[] = {bytes_str(seq), bytes_str(history)};
    const struct bytes args[] = {bytes_str(lane), history_epoch_write(after.epoch, epoch),
                                 bytes_str(numbers[0]), bytes_str(numbers[1]),
                                 bytes_str(numbers[2])};
    return broker_eval(node->broker, &script_history, keys, 2, args, 5, on_read, node,
                       (uint64_t)(uintptr_t)read);
}

static int read_process(struct history_read *read)
{
    struct node *node = read->node;
    const struct conf *conf = node->conf;
    struct history_point points[LANE_COUNT];
    struct bytes *messages = calloc(conf->history.length, sizeof(*messages));
    if (!messages)
        return BROKER_ERR_FULL;
    struct history_found found = {.messages = messages};
    (void)backlog_stand(&node->backlog, read_room(read), points);
    found.last = points[read->lane];
    found.count =
        backlog_read(&node->backlog, read_room(read), read->lane, conf->history.read_bytes,
                     messages, conf->history.length, &found.first);
    history_found(read, &found);
    free(messages);
    return 0;
}

int history_read_start(struct history_read *read, struct history_point after)
{
    read->asked_ms = uv_now(&read->node->loop);
    return broker_has_commands(read->node->broker) ? read_redis(read, after) : read_process(read);
}

static void on_stand(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct history_stand *stand = (struct history_stand *)(uintptr_t)token;
    struct history_point points[LANE_COUNT] = {{0}};
    struct node *node = owner;
    bool good = result == BROKER_OK && value->kind == BROKER_ARRAY && value->count == 4;
    if (!good && !stand->check && result == BROKER_ERR_AWAY && node->phase != PHASE_ENDING) {
        list_append(&node->history.stands, &stand->link); /* asked again by the timer */
        history_start_timer(node);
        return;
    }
    if (!good) {
        history_stood(stand, NULL);
        return;
    }
    uint64_t epoch = history_epoch_read(value->items[0].text);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (epoch != 0)
            points[lane] = (struct history_point){epoch, number_of(value->items[1 + lane].text)};
    }
    history_stood(stand, points);
}

void history_read_stand(struct history_stand *stand)
{
    struct node *node = stand->node;
    struct bytes room = bytes_of(stand->name, stand->name_len);
    struct history_point points[LANE_COUNT];
    char seq[NAME_MAX_BYTES];
    if (!broker_has_commands(node->broker)) {
        (void)backlog_stand(&node->backlog, room, points);
        history_stood(stand, points);
        return;
    }
    snprintf(seq, sizeof(seq), "%s:seq:{%.*s}", broker_prefix(node->broker), (int)room.len,
             room.data);
    const struct bytes args[] = {BYTES_LIT("HMGET"), bytes_str(seq),      BYTES_LIT("epoch"),
                                 BYTES_LIT("high"),  BYTES_LIT("normal"), BYTES_LIT("low")};
    if (broker_call(node->broker, args, 6, on_stand, node, (uint64_t)(uintptr_t)stand) == 0)
        list_remove(&stand->link);
}
