#include "worker/resume.h"
#include "worker/tickets.h"

#include "base/clock.h"
#include "base/log.h"
#include "policy/rates.h"
#include "protocol/queued.h"

#include <stdlib.h>

static void answer_error(struct worker *worker, struct viewer *viewer, struct intent_ref ref,
                         enum error_code code, const char *text, uint32_t retry_after_ms)
{
    struct reply reply = {.kind = REPLY_ERROR,
                          .ref = ref,
                          .error_code = code,
                          .text = text,
                          .retry_after_ms = retry_after_ms};
    reply_send(worker, viewer, &reply);
}

static void answer_ack_id(struct worker *worker, struct viewer *viewer, struct intent_ref ref,
                          struct bytes id)
{
    struct reply reply = {.kind = REPLY_ACK, .ref = ref, .id = id};
    if (ref.present)
        reply_send(worker, viewer, &reply);
}

static void answer_ack(struct worker *worker, struct viewer *viewer, struct intent_ref ref)
{
    answer_ack_id(worker, viewer, ref, (struct bytes){0});
}

/* Why an intent is not carried out. */
struct refusal {
    enum error_code code;
    const char *text; /* static */
    uint32_t retry_after_ms;
};

/* Which errors count as abuse, and how much of it a minute brings: what no working client sends weighs most, what even a good one meets
 * now and then (a race with a leave, a busy thumb) less, what is the gateway's own fault nothing. */
static bool is_abuse(struct worker *worker, struct viewer *viewer, enum error_code code)
{
    const struct conf *conf = worker->conf;
    struct terms *terms = terms_of(worker, viewer);
    if (!terms)
        return false;
    switch (code) {
    case ERROR_BAD_MESSAGE:
    case ERROR_BAD_NAME:
    case ERROR_TOO_LARGE:
    case ERROR_UNKNOWN_TYPE:
        return bucket_take(&terms->bad_rate, worker->now_ms, conf->limits.bad_messages, 60000,
                           conf->limits.bad_messages) > 0;
    case ERROR_NOT_IN_ROOM:
    case ERROR_FORBIDDEN:
    case ERROR_RATE_LIMITED:
    case ERROR_TOO_MANY_ROOMS:
        return bucket_take(&terms->refused_rate, worker->now_ms, conf->limits.refused_messages,
                           60000, conf->limits.refused_messages) > 0;
    default:
        return false;
    }
}

/* Counts a refused message of the viewer's; too many close it. */
static void count_abuse(struct worker *worker, struct viewer *viewer, enum error_code code)
{
    if (is_abuse(worker, viewer, code))
        viewer_close(worker, viewer, CLOSE_POLICY);
}

static void refuse(struct worker *worker, struct viewer *viewer, struct intent_ref ref,
                   const struct refusal *refusal)
{
    answer_error(worker, viewer, ref, refusal->code, refusal->text, refusal->retry_after_ms);
    count_abuse(worker, viewer, refusal->code);
}

/* Whether the viewer may join; else *refusal says why not. */
static bool judge_join(struct worker *worker, struct viewer *viewer, struct bytes room,
                       struct refusal *refusal)
{
    const struct conf *conf = worker->conf;
    if (!grant_allows_room(viewer_terms(viewer)->grant, room)) {
        *refusal = (struct refusal){ERROR_FORBIDDEN, "the ticket does not allow this room", 0};
        return false;
    }
    bool held = viewer->member_count >= conf->limits.rooms_per_viewer;
    if (held) {
        struct room *known = room_find(worker, room, map_hash(room.data, room.len));
        held = !known || !room_member(viewer, known);
    }
    if (held) {
        *refusal = (struct refusal){ERROR_TOO_MANY_ROOMS,
                                    "leave a room first (limits.rooms_per_viewer)", 0};
        return false;
    }
    uint32_t wait = bucket_take(&viewer->join_rate, worker->now_ms, conf->limits.join_rate, 1000,
                                conf->limits.join_burst);
    if (wait > 0) {
        metric_add(&worker->metrics.rate_limited_joins, 1);
        *refusal = (struct refusal){ERROR_RATE_LIMITED,
                                    "too many joins a second (limits.join_rate)", wait};
        return false;
    }
    return true;
}

/* wants: room, ref and what of its messages the viewer has. */
static void join(struct worker *worker, struct viewer *viewer, const struct intent *wants)
{
    struct bytes name = wants->room;
    struct reply joined = {.kind = REPLY_JOINED, .ref = wants->ref, .room = name};
    enum join_result result = room_join(worker, viewer, name, wants->ref);
    struct room *room =
        result == JOIN_NO_MEMORY ? NULL : room_find(worker, name, map_hash(name.data, name.len));
    if (room && wants->has_after && worker->conf->history_types > 0) {
        if (!resume_join(worker, room_member(viewer, room), wants, result != JOIN_HELD)) {
            if (result != JOIN_HELD)
                room_leave(worker, room_member(viewer, room));
            room = NULL;
        }
    } else if (result == JOIN_HELD &&
               resume_join_again(worker, room_member(viewer, room), &wants->ref)) {
        return;
    } else if (room &&
               result != JOIN_WAITS) { /* else it is answered when its subscription stands */
        counts_fill_joined(room, &joined);
        resume_tell_stand(worker, room, &joined);
        if (result == JOIN_LIVE)
            events_join(worker, viewer, name);
        reply_send(worker, viewer, &joined);
    }
    if (!room)
        answer_error(worker, viewer, wants->ref, ERROR_UNAVAILABLE, "the node is out of memory",
                     1000);
}

/* A room of the query. What is refused does not count as abuse: a request head is bounded as it is. */
void intents_join_query(struct worker *worker, struct viewer *viewer, struct bytes room)
{
    struct refusal refusal;
    struct intent wants;
    memset(&wants, 0, offsetof(struct intent, room_text));
    wants.room = room;
    if (judge_join(worker, viewer, room, &refusal))
        join(worker, viewer, &wants);
    else
        answer_error(worker, viewer, wants.ref, refusal.code, refusal.text, refusal.retry_after_ms);
}

static void leave(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    struct room *room =
        room_find(worker, intent->room, map_hash(intent->room.data, intent->room.len));
    struct member *member = room ? room_member(viewer, room) : NULL;
    if (!member) {
        refuse(worker, viewer, intent->ref,
               &(struct refusal){ERROR_NOT_IN_ROOM, "join the room before leaving it", 0});
        return;
    }
    struct intent_ref waits = room_unanswered(member);
    if (waits.present)
        answer_error(worker, viewer, waits, ERROR_NOT_IN_ROOM,
                     "a leave of this room came before the join was through", 0);
    room_leave(worker, member);
    answer_ack(worker, viewer, intent->ref);
}

/* Buckets of the viewer's appear with the first send of a type that has a rate. */
static uint32_t take_type_rate(struct worker *worker, struct viewer *viewer,
                               const struct conf_type *type)
{
    struct terms *terms = type->rate > 0 ? terms_of(worker, viewer) : viewer->terms;
    if (!terms)
        return type->rate > 0 ? 1000 : 0; /* no memory to count with */
    size_t before = rates_bytes(terms->rates);
    uint32_t wait = rates_take(&terms->rates, worker->conf, type, worker->now_ms);
    worker->terms_bytes += rates_bytes(terms->rates) - before; /* modulo 2^64: may shrink too */
    return wait;
}

/* A queue takes every message, so its types are merged only on the way down. */
static bool is_merged(const struct conf_type *type)
{
    return type->merge_kind != MERGE_NONE && type->route != ROUTE_QUEUE;
}

/* What a send of a type that adds up counts. Returns NULL, or why it counts nothing. */
static const char *read_amount(struct send *send)
{
    const struct conf_type *type = send->type;
    if (!is_merged(type) || type->merge_kind != MERGE_SUM)
        return NULL;
    int error = merge_read_amount(send->intent->data.raw, conf_type_field(type), type->max_value,
                                  &send->amount);
    if (error == MERGE_ERR_VALUE)
        return "the field that is added up is larger than the type's max_value";
    return error
               ? "data must be an object, and its field that is added up an integer from 0, or be "
                 "left out"
               : NULL;
}

/* Whether the viewer may send it; else *refusal says why not. From what the viewer can do nothing about, over what it may not, to what it
 * may not just now: a token is taken only of what is fine otherwise. */
static bool judge_send(struct worker *worker, struct send *send, struct refusal *refusal)
{
    struct viewer *viewer = send->viewer;
    const struct intent *intent = send->intent;
    const struct conf_type *type = send->type;
    *refusal = (struct refusal){0};
    if (type->route == ROUTE_NONE) {
        bool unknown = type == &worker->conf->types[0];
        refusal->code = unknown ? ERROR_UNKNOWN_TYPE : ERROR_FORBIDDEN;
        refusal->text = unknown ? "no such message type" : "viewers may not send this type";
        return false;
    }
    if (!grant_allows_type(viewer_terms(viewer)->grant, intent->type)) {
        refusal->code = ERROR_FORBIDDEN;
        refusal->text = "the ticket does not allow sending this type";
        return false;
    }
    if (intent->key.len > 0 && type->route != ROUTE_QUEUE && !type->history) {
        refusal->code = ERROR_BAD_MESSAGE;
        refusal->text = "key works only for queue routes and types with history";
        return false;
    }
    if (intent->data.kind != JSON_ABSENT && intent->data.raw.len > type->max_bytes) {
        refusal->code = ERROR_TOO_LARGE;
        refusal->text = "data is longer than the type's max_bytes";
        return false;
    }
    refusal->text = read_amount(send);
    if (refusal->text) {
        refusal->code = ERROR_BAD_MESSAGE;
        return false;
    }
    struct room *room =
        room_find(worker, intent->room, map_hash(intent->room.data, intent->room.len));
    const struct member *member = room && room->live ? room_member(viewer, room) : NULL;
    if (!member) {
        refusal->code = ERROR_NOT_IN_ROOM;
        refusal->text = "join the room before sending to it";
        return false;
    }
    refusal->retry_after_ms = take_type_rate(worker, viewer, type);
    if (refusal->retry_after_ms > 0) {
        metric_add(&worker->metrics.rate_limited_type, 1);
        refusal->code = ERROR_RATE_LIMITED;
        refusal->text = "too many messages of this type a second (rate of the type)";
        return false;
    }
    return true;
}

/* What the node gets: the envelope as it is published, or what its queue wants to know. */
static void append_payload(const struct send *send, struct bytes from, struct buf *out)
{
    const struct intent *intent = send->intent;
    if (send->type->route == ROUTE_QUEUE) {
        struct queued queued = {.type = intent->type, .key = intent->key, .data = intent->data.raw};
        queued_pack(&queued, out);
        return;
    }
    struct message_parts parts = {.type = intent->type, .from = from, .data = intent->data.raw};
    if (!send->type->history) {
        envelope_append(out, &parts);
        return;
    }
    struct buf envelope = {0};
    envelope_append(&envelope, &parts);
    struct queued kept = {.type = intent->type, .key = intent->key, .data = buf_view(&envelope)};
    queued_pack(&kept, out);
    out->failed |= envelope.failed;
    buf_fini(&envelope);
}

/* Hands a message to the main thread. Returns false when a bound is reached or memory is out. */
static bool post_publish(struct worker *worker, const struct send *send)
{
    char user[USER_NAME_MAX + 1];
    struct bytes from = viewer_user(worker, send->viewer, user);
    struct buf payload = {0};
    append_payload(send, from, &payload);
    struct command *command =
        payload.failed || mailbox_count(worker->setup.node_mailbox) > worker->conf->limits.mailbox
            ? NULL
            : command_create_for(COMMAND_PUBLISH, send->intent->room, buf_view(&payload), from);
    buf_fini(&payload);
    if (!command)
        return false;
    command->slot = send->viewer->slot;
    command->id = send->viewer->id;
    command->ref = send->intent->ref;
    command->lane = send->type->lane;
    command->queued = send->type->route == ROUTE_QUEUE;
    command->kept = send->type->route == ROUTE_BROADCAST && send->type->history;
    worker_tell_node(worker, command);
    return true;
}

static void send_message(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    struct refusal refusal;
    struct send send = {.viewer = viewer,
                        .intent = intent,
                        .type = &worker->conf->types[conf_type_find(worker->conf, intent->type)]};
    if (!judge_send(worker, &send, &refusal)) {
        refuse(worker, viewer, intent->ref, &refusal);
        return;
    }
    if (!(is_merged(send.type) ? merge_send(worker, &send) : post_publish(worker, &send)))
        answer_error(worker, viewer, intent->ref, ERROR_UNAVAILABLE, "the node is overloaded",
                     1000);
    else if (intent->ref.present && viewer->unanswered < VIEWER_UNANSWERED_MAX)
        viewer->unanswered++;
}

void intents_published(struct worker *worker, const struct command *command)
{
    struct viewer *viewer = viewer_find(worker, command->slot, command->id);
    if (!viewer || viewer->state != VIEWER_OPEN)
        return;
    if (command->ref.present && viewer->unanswered > 0)
        viewer->unanswered--;
    switch (command->result) {
    case 0:
        answer_ack_id(worker, viewer, command->ref, command_room(command));
        break;
    case PUBLISH_ERR_DUPLICATE:
        answer_error(worker, viewer, command->ref, ERROR_DUPLICATE,
                     "this key was sent before with other content", 0);
        break;
    case PUBLISH_ERR_QUEUE_FULL:
        answer_error(worker, viewer, command->ref, ERROR_UNAVAILABLE,
                     "the queue is full (queue.max_length); it was not sent",
                     1000 + worker_random(worker) % 4000);
        break;
    case PUBLISH_ERR_USER_RATE:
        metric_add(&worker->metrics.rate_limited_user, 1);
        refuse(worker, viewer, command->ref,
               &(struct refusal){ERROR_RATE_LIMITED,
                                 "too many messages of this user a second (limits.user_rate)",
                                 command->retry_after_ms});
        break;
    case PUBLISH_ERR_ROOM_RATE: /* others' doing perhaps: no abuse */
        metric_add(&worker->metrics.rate_limited_room, 1);
        answer_error(worker, viewer, command->ref, ERROR_RATE_LIMITED,
                     "too many messages into this room a second (limits.room_send_rate)",
                     command->retry_after_ms);
        break;
    default:
        answer_error(worker, viewer, command->ref, ERROR_UNAVAILABLE,
                     "the message broker is away; the message may not have been sent",
                     500 + worker_random(worker) % 1000);
    }
}

static void pace(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    if (viewer->passive && !intent->passive) {
        viewer->passive = false; /* what passed meanwhile is not made up for */
        for (int lane = HALLEY_LANE_NORMAL; lane < HALLEY_LANES; lane++) {
            viewer->all_cursor[lane] = worker->all.lanes.next[lane];
            for (struct member *member = viewer->members; member; member = member->next) {
                if (member->room->live)
                    member->cursor[lane] = room_next(member->room)[lane];
            }
        }
    }
    viewer->passive = intent->passive;
    answer_ack(worker, viewer, intent->ref);
}

static void pong(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    struct reply reply = {.kind = REPLY_PONG,
                          .ref = intent->ref,
                          .time_ms = clock_unix_ms(),
                          .interval_ms = pulse_next(worker, viewer),
                          .online_rooms = counts_print(worker, viewer)};
    metric_add(&worker->metrics.pings_in, 1);
    if (segment_changed(worker, viewer))
        reply.frame_bytes = segment_frame_bytes(viewer);
    reply_send(worker, viewer, &reply);
}

/* Socket.IO 3+: CONNECT came. Query rooms take effect now. */
void intents_connected(struct worker *worker, struct viewer *viewer)
{
    char connection[CONNECTION_ID_LEN + 1];
    char user[USER_NAME_MAX + 1];
    struct opening opening;
    welcome_opening(worker, viewer, &opening, connection, user);
    viewer_adapter(viewer)->append_connected(&worker->reply, &opening);
    viewer_set_state(worker, viewer, VIEWER_OPEN);
    if (viewer_opened(worker, viewer) != 0) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
        return;
    }
    struct buf rooms = {0};
    if (viewer->extras) {
        rooms = viewer->extras->rooms;
        viewer->extras->rooms = (struct buf){0};
        extras_settle(worker, viewer);
    }
    for (size_t at = 0; at < rooms.len; at += 1 + (size_t)rooms.data[at])
        intents_join_query(worker, viewer, bytes_of(rooms.data + at + 1, (size_t)rooms.data[at]));
    buf_fini(&rooms);
}

/* What could not be made sense of. */
static void refuse_bad(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    metric_add(&worker->metrics.bad_messages, 1);
    if (intent->namespace_.len > 0 && viewer_adapter(viewer)->append_namespace_refused)
        viewer_adapter(viewer)->append_namespace_refused(&worker->reply, intent->namespace_);
    else if (viewer->state == VIEWER_OPEN)
        answer_error(worker, viewer, intent->ref, intent->error_code, intent->error_text, 0);
    if (intent->fatal_close != 0)
        viewer_close(worker, viewer, CLOSE_PROTOCOL);
    else
        count_abuse(worker, viewer, intent->error_code);
}

static void try_join(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    struct refusal refusal;
    if (judge_join(worker, viewer, intent->room, &refusal))
        join(worker, viewer, intent);
    else
        refuse(worker, viewer, intent->ref, &refusal);
}

static void carry_out(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    switch (intent->op) {
    case INTENT_JOIN:
        try_join(worker, viewer, intent);
        break;
    case INTENT_LEAVE:
        leave(worker, viewer, intent);
        break;
    case INTENT_SEND:
        send_message(worker, viewer, intent);
        break;
    case INTENT_PACE:
        pace(worker, viewer, intent);
        break;
    case INTENT_REFRESH:
        tickets_refresh(worker, viewer, intent);
        break;
    case INTENT_PING:
        pong(worker, viewer, intent);
        break;
    case INTENT_BAD:
        refuse_bad(worker, viewer, intent);
        break;
    default:
        break;
    }
}

/* Engine.IO's own packets, and what may come before a Socket.IO CONNECT. Returns true when it was one of these. */
static bool carry_out_engine(struct worker *worker, struct viewer *viewer,
                             const struct intent *intent)
{
    switch (intent->op) {
    case INTENT_ENGINE_PING:
        metric_add(&worker->metrics.pings_in, 1);
        (void)segment_changed(worker, viewer);
        viewer_adapter(viewer)->append_engine_pong(&worker->reply, intent->engine_data);
        return true;
    case INTENT_ENGINE_PONG:
        metric_add(&worker->metrics.pings_in, 1);
        (void)segment_changed(worker, viewer);
        return true;
    case INTENT_CONNECT:
        if (viewer->state == VIEWER_WAITING)
            tickets_connect(worker, viewer, intent->ticket);
        return true;
    case INTENT_DISCONNECT:
        viewer_close(worker, viewer, CLOSE_CLIENT);
        return true;
    case INTENT_NONE:
        return true;
    case INTENT_BAD:
        return false;
    default:
        if (viewer->state != VIEWER_WAITING)
            return false;
        viewer_close(worker, viewer,
                     CLOSE_PROTOCOL); /* an event before CONNECT (socket.io-protocol v5) */
        return true;
    }
}

static int on_text(struct worker *worker, struct viewer *viewer, struct bytes text)
{
    const struct conf *conf = worker->conf;
    metric_add(&worker->metrics.messages_in, 1);
    uint32_t wait = bucket_take(&viewer->message_rate, worker->now_ms, conf->limits.viewer_rate,
                                1000, conf->limits.viewer_burst);
    if (wait > 0) { /* before any JSON is read; told only as long as the viewer takes its answers */
        metric_add(&worker->metrics.rate_limited_viewer, 1);
        if (viewer->state == VIEWER_OPEN &&
            worker->reply.len + outbox_pending(viewer) < conf->limits.private_bytes / 4)
            answer_error(worker, viewer, (struct intent_ref){0}, ERROR_RATE_LIMITED,
                         "too many messages a second (limits.viewer_rate)", wait);
        count_abuse(worker, viewer, ERROR_RATE_LIMITED);
        return viewer->state >= VIEWER_CLOSING ? -1 : 0;
    }
    struct intent intent;
    viewer_adapter(viewer)->parse(text, &worker->adapter_limits, &intent);
    if (!carry_out_engine(worker, viewer, &intent))
        carry_out(worker, viewer, &intent);
    return viewer->state >= VIEWER_CLOSING ? -1 : 0;
}

int intents_on_message(void *ctx, enum ws_opcode opcode, struct bytes payload)
{
    struct worker *worker = ctx;
    struct viewer *viewer = worker->in_hand;
    if (viewer->echo) {
        ws_frame_append(&worker->reply, opcode, payload);
        return 0;
    }
    if (opcode == WS_TEXT)
        return on_text(worker, viewer, payload);
    if (viewer_adapter(viewer)->binary_closes)
        return 1003;
    metric_add(&worker->metrics.bad_messages, 1);
    return 0; /* the attachment of a binary event that was refused already */
}
