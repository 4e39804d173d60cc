/* users.c: all connections of one user on this worker: for messages to him, and for operators' questions.
 *
 * A message to a user goes through each viewer's private queue, before anything of a room. Of that queue messages of a
 * lane that may drop take half; the rest is for answers, whose overflow closes the viewer.
 */
#include "worker/internal.h"

#include "base/log.h"

static void add_found(struct worker *worker, const struct viewer *viewer)
{
    const struct found found = {.slot = viewer->slot, .id = viewer->id};
    buf_append(&worker->found, &found, sizeof(found));
}

const struct found *users_find(struct worker *worker, struct bytes user, size_t *count)
{
    uint32_t hash = map_hash(user.data, user.len) | 1;
    char name[USER_NAME_MAX + 1];
    buf_clear(&worker->found);
    for (struct map_node *node = map_chain(&worker->users, hash); node; node = node->next) {
        const struct viewer *viewer = CONTAINER_OF(node, struct viewer, user_node);
        if (node->hash == hash && bytes_equal(viewer_user(worker, viewer, name), user))
            add_found(worker, viewer);
    }
    *count = worker->found.failed ? 0 : worker->found.len / sizeof(struct found);
    return (const struct found *)(const void *)worker->found.data;
}

static void tell_node(struct worker *worker, const struct viewer *viewer, enum command_kind kind,
                      struct bytes connection)
{
    struct command *command = command_create_for(kind, bytes_str(viewer_session(viewer)),
                                                 connection, bytes_str(viewer->user));
    if (!command) {
        log_limited(LOG_LEVEL_ERROR, "out of memory: the node counts a user's connections wrong",
                    LOG_STR("user", viewer->user));
        return;
    }
    command->slot = viewer->slot;
    command->id = viewer->id;
    worker_tell_node(worker, command);
}

void users_enlist(struct worker *worker, struct viewer *viewer)
{
    char connection[CONNECTION_ID_LEN + 1];
    if (!viewer->has_session && worker->conf->limits.user_connections == 0)
        return;
    viewer_connection_id(worker, viewer, connection);
    viewer->listed = true;
    tell_node(worker, viewer, COMMAND_OPENED, bytes_str(connection));
}

void users_delist(struct worker *worker, struct viewer *viewer)
{
    if (!viewer->listed)
        return;
    viewer->listed = false;
    tell_node(worker, viewer, COMMAND_CLOSED, (struct bytes){0});
}

static void queue_frame(struct worker *worker, struct viewer *viewer, enum lane lane,
                        struct bytes frame)
{
    bool disconnect = worker->policies[lane].disconnect;
    size_t bound = worker->conf->limits.private_bytes / (disconnect ? 1 : 2);
    if (outbox_pending(viewer) + frame.len > bound) {
        metric_add(&worker->metrics.drops[DROP_PRIVATE][lane], 1);
        struct terms *terms = terms_of(worker, viewer);
        if (terms)
            terms->skipped++;
        if (disconnect)
            viewer_close(worker, viewer, CLOSE_TOO_SLOW);
        return;
    }
    if (!outbox_append(worker, viewer, frame, 1, true))
        return;
    metric_add(&worker->metrics.delivered, 1);
    flush_mark(worker, viewer);
}

void user_deliver(struct worker *worker, const struct message *message)
{
    require_own_thread(worker);
    bool encoded[ENCODING_COUNT] = {false};
    size_t count;
    const struct found *found = users_find(worker, message->user, &count);
    for (size_t i = 0; i < count; i++) {
        struct viewer *viewer = viewer_find(worker, found[i].slot, found[i].id);
        if (!viewer || viewer->state != VIEWER_OPEN ||
            (viewer->passive && message->lane != LANE_HIGH))
            continue;
        const struct adapter *adapter = viewer_adapter(viewer);
        struct buf *scratch = &worker->scratch[adapter->encoding];
        if (!encoded[adapter->encoding]) {
            buf_clear(scratch);
            adapter->append_message(scratch, message);
            encoded[adapter->encoding] = true;
        }
        if (scratch->failed)
            metric_add(&worker->metrics.drops[DROP_NO_MEMORY][message->lane], 1);
        else
            queue_frame(worker, viewer, message->lane, buf_view(scratch));
    }
}
