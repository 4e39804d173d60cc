/* history_ask.c: reads of history for viewers that come back: one per room and lane for all workers that ask. */
#include "node/internal.h"

#include <stdlib.h>

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
    batch->asked_ms = read->asked_ms;
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
    history_wanted(node, name, command->lane);
    if (read) {
        read->askers |= 1ull << command->worker;
        return;
    }
    struct history_found failed = {.error = BROKER_ERR_FULL};
    read = history_read_create(node, name, command->lane);
    if (!read)
        return; /* the worker gives up after history.wait */
    read->askers = 1ull << command->worker;
    if (map_add(&node->history.reads_by_lane, &read->by_lane, lane_hash(name, command->lane)) !=
        0) {
        tell_askers(read, &failed);
        history_read_free(read);
        return;
    }
    metric_add(&node->metrics.history_reads_resume, 1);
    failed.error = history_read_start(read, (struct history_point){0});
    if (failed.error)
        history_found(read, &failed);
}

void history_answer(struct history_read *read, const struct history_found *found)
{
    map_remove(&read->node->history.reads_by_lane, &read->by_lane);
    tell_askers(read, found);
}
