/* events.c: tells the node what viewers do, for the stream of events, where the conf asks for it. */
#include "worker/internal.h"

#include "base/clock.h"
#include "protocol/event.h"

static void tell(struct worker *worker, const struct viewer *viewer, struct bytes room,
                 const struct event *event)
{
    char user[USER_NAME_MAX + 1];
    char connection[CONNECTION_ID_LEN + 1];
    char peer[64];
    struct event whole = *event;
    struct buf packed = {0};
    viewer_connection_id(worker, viewer, connection);
    viewer_peer(viewer, peer, sizeof(peer));
    whole.connection = bytes_str(connection);
    whole.peer = bytes_str(peer);
    whole.protocol = bytes_str(viewer_adapter(viewer)->name);
    whole.session = bytes_str(viewer_session(viewer));
    event_pack(&whole, &packed);
    struct command *command = NULL;
    if (!packed.failed && mailbox_count(worker->setup.node_mailbox) <= worker->conf->limits.mailbox)
        command = command_create_for(COMMAND_EVENT, room, buf_view(&packed),
                                     viewer_user(worker, viewer, user));
    buf_fini(&packed);
    if (!command) {
        metric_add(&worker->metrics.events_dropped, 1);
        return;
    }
    command->result = (int)event->kind;
    command->id = worker->now_ms - viewer->opened_ms;
    command->time_ms = clock_unix_ms();
    worker_tell_node(worker, command);
}

static bool is_wanted(const struct worker *worker, const struct viewer *viewer,
                      enum event_kind kind)
{
    return worker->conf->events.mask & 1u << kind && viewer->state == VIEWER_OPEN &&
           viewer_adapter(viewer);
}

void events_connect(struct worker *worker, const struct viewer *viewer)
{
    const struct event event = {.kind = EVENT_CONNECT};
    if (is_wanted(worker, viewer, event.kind))
        tell(worker, viewer, (struct bytes){0}, &event);
}

void events_join(struct worker *worker, const struct viewer *viewer, struct bytes room)
{
    const struct event event = {.kind = EVENT_JOIN};
    if (is_wanted(worker, viewer, event.kind))
        tell(worker, viewer, room, &event);
}

void events_leave(struct worker *worker, const struct viewer *viewer, struct bytes room)
{
    const struct event event = {.kind = EVENT_LEAVE};
    if (is_wanted(worker, viewer, event.kind))
        tell(worker, viewer, room, &event);
}

void events_close(struct worker *worker, const struct viewer *viewer, enum close_reason reason)
{
    const struct event event = {.kind = EVENT_CLOSE,
                                .reason = bytes_str(close_reason_label(reason)),
                                .code = close_reason_code(reason)};
    if (is_wanted(worker, viewer, event.kind))
        tell(worker, viewer, (struct bytes){0}, &event);
}
