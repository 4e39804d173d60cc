#include "worker/tickets.h"

#include "base/log.h"
#include "ws/origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static const uint16_t statuses[] = {
#define X(name, status, label) [name] = status,
    HANDSHAKE_RESULTS(X)
#undef X
};

static const char *status_text(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 426:
        return "Upgrade Required";
    case 431:
        return "Request Header Fields Too Large";
    default:
        return "Service Unavailable";
    }
}

/* Queues a whole HTTP answer and closes behind it. A HEAD gets the head alone (RFC 9110 §9.3.2). */
static void answer_http(struct worker *worker, struct viewer *viewer, enum handshake_result result,
                        struct bytes body, bool head_only)
{
    struct buf *out = reply_begin(worker, viewer);
    int status = statuses[result];
    buf_printf(out, "HTTP/1.1 %d %s\r\n", status, status_text(status));
    if (status == 426)
        BUF_LIT(out, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (status == 401)
        BUF_LIT(out, "WWW-Authenticate: Bearer\r\n"); /* RFC 9110 §11.6.1 */
    if (status == 405)
        BUF_LIT(out, "Allow: GET\r\n");
    if (status == 503)
        buf_printf(out, "Retry-After: %u\r\n", 1 + worker_random(worker) % 5);
    buf_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n%sCache-Control: no-store\r\n\r\n",
               result == HANDSHAKE_HEALTH ? "text/plain" : "application/json", body.len,
               status == 426 ? "Connection: Upgrade, close\r\n" : "Connection: close\r\n");
    if (!head_only)
        buf_bytes(out, body);
    metric_add(&worker->metrics.handshakes[result], 1);
    viewer_finish(worker, viewer, CLOSE_REFUSED);
    reply_end(worker, viewer);
}

void welcome_refuse(struct worker *worker, struct viewer *viewer, enum handshake_result result,
                    const char *code, const char *message)
{
    struct buf body = {0};
    BUF_LIT(&body, "{\"error\":");
    json_quote(&body, bytes_str(code));
    BUF_LIT(&body, ",\"message\":");
    json_quote(&body, bytes_str(message));
    BUF_LIT(&body, "}");
    answer_http(worker, viewer, result, buf_view(&body), false);
    buf_fini(&body);
}

void welcome_refuse_draining(struct worker *worker, struct viewer *viewer)
{
    welcome_refuse(worker, viewer, HANDSHAKE_DRAINING, "unavailable",
                   "this node stops; come back to another one");
}

static void keep_text(struct bytes raw, char *out, size_t cap)
{
    ssize_t len = query_decode(raw, out, cap - 1);
    if (len < 0)
        len = snprintf(out, cap, "?");
    out[len] = '\0';
}

static void keep_room(struct wishes *wishes, struct bytes raw)
{
    char room[ROOM_NAME_MAX];
    ssize_t len = query_decode(raw, room, sizeof(room));
    if (len < 0 || !name_is_room(bytes_of(room, (size_t)len))) {
        wishes->wrong = "room: 1 to 64 bytes of A-Z a-z 0-9 _ . : - are allowed";
        return;
    }
    buf_byte(&wishes->rooms, (char)len);
    buf_append(&wishes->rooms, room, (size_t)len);
}

static void keep_user(struct wishes *wishes, struct bytes raw)
{
    ssize_t len = query_decode(raw, wishes->user, USER_NAME_MAX);
    if (len < 0 || !name_is_user(bytes_of(wishes->user, (size_t)len))) {
        wishes->wrong = "user: 1 to 64 printable ASCII bytes but \" and \\ are allowed";
        len = 0;
    }
    wishes->user[len] = '\0';
}

static void keep_session(struct wishes *wishes, struct bytes raw)
{
    ssize_t len = query_decode(raw, wishes->session, ROOM_NAME_MAX);
    if (len < 0 || !name_is_room(bytes_of(wishes->session, (size_t)len))) {
        wishes->wrong = "session: 1 to 64 bytes of A-Z a-z 0-9 _ . : - are allowed";
        len = 0;
    }
    wishes->session[len] = '\0';
}

/* Under tickets the user is theirs, and what the query says of it is not even looked at. */
static void read_query(struct bytes query, bool open, struct wishes *wishes)
{
    struct bytes name;
    struct bytes raw;
    while (query_next(&query, &name, &raw)) {
        if (bytes_is(name, "room"))
            keep_room(wishes, raw);
        else if (bytes_is(name, "user") && open)
            keep_user(wishes, raw);
        else if (bytes_is(name, "session"))
            keep_session(wishes, raw);
        else if (bytes_is(name, "ticket_id"))
            wishes->ticket = raw;
        else if (bytes_is(name, "EIO"))
            keep_text(raw, wishes->eio, sizeof(wishes->eio));
        else if (bytes_is(name, "transport"))
            keep_text(raw, wishes->transport, sizeof(wishes->transport));
        else if (bytes_is(name, "net"))
            wishes->hint = bytes_is(raw, "wifi")   ? HALLEY_HINT_WIFI
                           : bytes_is(raw, "cell") ? HALLEY_HINT_CELL
                                                   : HALLEY_HINT_NONE;
        else if (bytes_is(name, "scene"))
            wishes->foreground = bytes_is(raw, "foreground");
        else if (bytes_is(name, "refuse"))
            wishes->refuse_close = bytes_is(raw, "close");
    }
}

static void read_wishes(const struct worker *worker, const struct head *head, struct wishes *wishes)
{
    read_query(head->query, worker->conf->auth.mode == AUTH_OPEN, wishes);
    wishes->encoded = wishes->ticket.len > 0;
    if (!wishes->encoded)
        wishes->ticket = head->bearer;
    if (head->key.len == sizeof(wishes->key)) /* else the handshake is refused for it */
        memcpy(wishes->key, head->key.data, head->key.len);
    wishes->subprotocol = head->subprotocol_v1;
}

void welcome_opening(const struct worker *worker, const struct viewer *viewer,
                     struct opening *opening, char *connection, char *user)
{
    viewer_connection_id(worker, viewer, connection);
    *opening = (struct opening){.connection = bytes_str(connection),
                                .user = viewer_user(worker, viewer, user),
                                .node = bytes_str(worker->conf->server.node),
                                .interval_ms = halley_pulse_told_ms(&viewer->pulse),
                                .timeout_ms = worker->conf->heartbeat.timeout_ms,
                                .max_payload = worker->conf->limits.message_bytes};
}

static void append_switching(struct buf *out, const struct wishes *wishes)
{
    char accept[WS_ACCEPT_LEN];
    head_accept(bytes_of(wishes->key, sizeof(wishes->key)), accept);
    BUF_LIT(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                 "Upgrade\r\nSec-WebSocket-Accept: ");
    buf_append(out, accept, sizeof(accept));
    if (wishes->subprotocol)
        BUF_LIT(out, "\r\nSec-WebSocket-Protocol: halley.v1.json");
    BUF_LIT(out, "\r\n\r\n");
}

/* Everything that the node refuses now but may grant later. */
static bool is_full(const struct worker *worker)
{
    return atomic_load_explicit(worker->setup.connections, memory_order_relaxed) >
           atomic_load_explicit(worker->setup.connections_limit, memory_order_relaxed);
}

/* Refusals that a viewer is told in the words of its protocol. `error` and `message` go over HTTP, `reason` into goodbye and close
 * frames, `word` to Socket.IO clients, whose apps compare it. */
struct refusal {
    enum handshake_result result;
    const char *error;
    const char *message;
    const char *word;
};

static const struct refusal
    refused_origin = {HANDSHAKE_ORIGIN, "forbidden",
                      "pages of this origin may not connect (auth.origins)", "origin-forbidden"},
    refused_ticket = {HANDSHAKE_TICKET, "ticket-invalid",
                      "a valid ticket is needed: ticket_id in the query, or Authorization: Bearer",
                      "ticket-invalid"},
    refused_room = {HANDSHAKE_FORBIDDEN, "forbidden",
                    "the ticket does not allow a room of the query", "room-forbidden"},
    refused_kicked = {HANDSHAKE_FORBIDDEN, "forbidden",
                      "this user was kicked while the ticket was checked", "kicked"},
    refused_for_now = {HANDSHAKE_TICKETS_AWAY, "unavailable",
                       "tickets can't be checked now; come back", "unavailable"};

/* Browsers can't read a refused handshake: on their wish it is a WebSocket that is closed at once, with 4000 + the status. */
static void refuse_by_close(struct worker *worker, struct viewer *viewer,
                            const struct wishes *wishes, enum handshake_result result,
                            const char *reason)
{
    struct notice goodbye = {.kind = NOTICE_GOODBYE, .reason = reason};
    if (statuses[result] != 403) /* who is not wanted is not told when to come back */
        goodbye.retry_after_ms = 1000 + worker_random(worker) % 4000;
    struct buf *out = reply_begin(worker, viewer);
    append_switching(out, wishes);
    adapter_native.append_notice(out, &goodbye);
    ws_frame_close(out, (uint16_t)(4000 + statuses[result]), reason);
    metric_add(&worker->metrics.handshakes[result], 1);
    viewer_finish(worker, viewer, CLOSE_REFUSED);
    reply_end(worker, viewer);
}

/* In the reply in hand: what stands in place of a `40`, and the close frame. */
static void refuse_connect(struct worker *worker, struct viewer *viewer,
                           const struct refusal *refusal)
{
    viewer_adapter(viewer)->append_connect_refused(&worker->reply, refusal->word);
    ws_frame_close(&worker->reply, (uint16_t)(4000 + statuses[refusal->result]), refusal->word);
    viewer_finish(worker, viewer, CLOSE_REFUSED);
}

void welcome_refuse_connect(struct worker *worker, struct viewer *viewer)
{
    refuse_connect(worker, viewer, viewer->extras->refused);
}

/* Socket.IO clients are told after the upgrade, in place of the `40` (Engine.IO 3) or in answer to theirs. */
static void refuse_by_connect(struct worker *worker, struct viewer *viewer,
                              const struct wishes *wishes, const struct refusal *refusal)
{
    char connection[CONNECTION_ID_LEN + 1];
    char user[USER_NAME_MAX + 1];
    struct opening opening;
    bool later = wishes->adapter->connect_expected;
    struct extras *extras = later ? extras_of(worker, viewer) : NULL;
    if (later && !extras) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
        return;
    }
    viewer_set_adapter(viewer, wishes->adapter);
    pulse_begin(worker, viewer, (struct bytes){0}, HALLEY_HINT_NONE, false);
    struct buf *out = reply_begin(worker, viewer);
    append_switching(out, wishes);
    metric_add(&worker->metrics.handshakes[refusal->result], 1);
    welcome_opening(worker, viewer, &opening, connection, user);
    if (later) {
        extras->refused = refusal;
        viewer_set_state(worker, viewer, VIEWER_WAITING);
        wishes->adapter->append_opening(out, &opening);
        viewer_set_timer(worker, viewer, worker->conf->limits.head_timeout_ms);
    } else {
        wishes->adapter->append_open(out, &opening);
        refuse_connect(worker, viewer, refusal);
    }
    reply_end(worker, viewer);
}

/* What may pass is refused over HTTP, so that Socket.IO clients come back by themselves. */
static void refuse_upgraded(struct worker *worker, struct viewer *viewer,
                            const struct wishes *wishes, const struct refusal *refusal)
{
    if (wishes->adapter && wishes->adapter != &adapter_native && statuses[refusal->result] != 503)
        refuse_by_connect(worker, viewer, wishes, refusal);
    else if (wishes->adapter == &adapter_native && wishes->refuse_close)
        refuse_by_close(worker, viewer, wishes, refusal->result, refusal->error);
    else
        welcome_refuse(worker, viewer, refusal->result, refusal->error, refusal->message);
}

/* What a viewer is told of its ticket; the reason itself is for the operator. */
static const struct refusal *ticket_refusal(enum auth_result result)
{
    switch (result) {
    case AUTH_ROOM:
        return &refused_room;
    case AUTH_KICKED:
        return &refused_kicked;
    case AUTH_AWAY:
    case AUTH_FULL:
    case AUTH_NO_MEMORY:
        return &refused_for_now;
    default:
        return &refused_ticket;
    }
}

void welcome_refuse_ticket(struct worker *worker, struct viewer *viewer,
                           const struct wishes *wishes, enum auth_result result)
{
    refuse_upgraded(worker, viewer, wishes, ticket_refusal(result));
}

void welcome_refuse_ticket_connect(struct worker *worker, struct viewer *viewer,
                                   enum auth_result result)
{
    refuse_connect(worker, viewer, ticket_refusal(result));
}

static bool origin_is_allowed(const struct worker *worker, struct bytes origin)
{
    const struct conf_list *patterns = &worker->conf->auth.origins;
    bool allowed = patterns->count == 0 || origin.len == 0;
    for (uint32_t i = 0; i < patterns->count && !allowed; i++)
        allowed = origin_matches(bytes_str(patterns->items[i]), origin);
    return allowed;
}

/* Returns true when the viewer was refused. */
static bool refuse_origin(struct worker *worker, struct viewer *viewer, const struct head *head,
                          const struct wishes *wishes)
{
    if (origin_is_allowed(worker, head->origin))
        return false;
    log_limited(LOG_LEVEL_INFO, "page refused: its origin is not in auth.origins",
                LOG_BYTES("origin", head->origin));
    refuse_upgraded(worker, viewer, wishes, &refused_origin);
    return true;
}

/* Returns true when the viewer was refused. */
static bool refuse_if_full(struct worker *worker, struct viewer *viewer,
                           const struct wishes *wishes)
{
    enum handshake_result result = worker->refusing ? HANDSHAKE_DRAINING : HANDSHAKE_FULL;
    if (!worker->refusing && !is_full(worker))
        return false;
    if (wishes->adapter == &adapter_native && wishes->refuse_close)
        refuse_by_close(worker, viewer, wishes, result, worker->refusing ? "drain" : "full");
    else if (worker->refusing)
        welcome_refuse_draining(worker, viewer);
    else
        welcome_refuse(worker, viewer, result, "unavailable",
                       "this node is full (limits.connections)");
    return true;
}

static void enter_rooms(struct worker *worker, struct viewer *viewer, const struct wishes *wishes)
{
    if (viewer->state == VIEWER_WAITING) { /* they take effect at the CONNECT */
        if (wishes->rooms.len == 0)
            return;
        struct extras *extras = extras_of(worker, viewer);
        if (!extras) {
            viewer_close(worker, viewer, CLOSE_INTERNAL);
            return;
        }
        buf_bytes(&extras->rooms, buf_view(&wishes->rooms));
        extras_settle(worker, viewer);
        return;
    }
    struct bytes rooms = buf_view(&wishes->rooms);
    struct bytes room;
    while (auth_names_next(&rooms, &room))
        intents_join_query(worker, viewer, room);
}

/* The session that its network knows it by: a ticket's goes before the query's. Whose ticket is still to come has no name yet that would
 * keep it apart from others' sessions of the same text. */
static struct bytes pulse_session(const struct worker *worker, const struct viewer *viewer,
                                  const struct wishes *wishes)
{
    if (viewer->user)
        return bytes_str(viewer_session(viewer));
    return bytes_str(worker->conf->auth.mode == AUTH_OPEN ? wishes->session : "");
}

/* 101 and the opening frames; the caller ends the reply. */
static void open_up(struct worker *worker, struct viewer *viewer, const struct wishes *wishes)
{
    const struct adapter *adapter = wishes->adapter;
    viewer_set_adapter(viewer, adapter);
    viewer->echo = !adapter;
    pulse_begin(worker, viewer, pulse_session(worker, viewer, wishes), wishes->hint,
                wishes->foreground);
    segment_begin(worker, viewer);
    struct buf *out = reply_begin(worker, viewer);
    append_switching(out, wishes);
    viewer_set_state(worker, viewer,
                     adapter && adapter->connect_expected ? VIEWER_WAITING : VIEWER_OPEN);
    if (adapter) {
        char connection[CONNECTION_ID_LEN + 1];
        char user[USER_NAME_MAX + 1];
        struct opening opening;
        welcome_opening(worker, viewer, &opening, connection, user);
        opening.frame_bytes = adapter == &adapter_native ? segment_frame_bytes(viewer) : 0;
        adapter->append_opening(out, &opening);
    }
    halley_heartbeat_init(&viewer->beat, worker->now_ms);
    /* The first look, at no cost to a storm; a ticket may run out before it. */
    uint32_t first = halley_pulse_told_ms(&viewer->pulse) / 2;
    viewer_set_timer(worker, viewer, most(1, least(first, tickets_left_ms(worker, viewer))));
}

void welcome_upgrade(struct worker *worker, struct viewer *viewer, const struct wishes *wishes)
{
    metric_add(&worker->metrics.handshakes[HANDSHAKE_OK], 1);
    open_up(worker, viewer, wishes);
    if ((viewer->state == VIEWER_OPEN ? viewer_opened(worker, viewer)
                                      : viewer_awaits_connect(worker, viewer)) != 0)
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    else
        enter_rooms(worker, viewer, wishes);
    reply_end(worker, viewer);
}

/* auth.mode = open, and echo: everybody, under whatever name. */
static void let_in(struct worker *worker, struct viewer *viewer, const struct wishes *wishes)
{
    if (wishes->adapter && !viewer_set_user(worker, viewer, wishes->user, wishes->session))
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    else
        welcome_upgrade(worker, viewer, wishes);
}

/* Which protocol a request is for; NULL: it was answered. */
static const struct adapter *socketio_adapter(struct worker *worker, struct viewer *viewer,
                                              const struct wishes *wishes)
{
    if (strcmp(wishes->transport, "websocket") != 0) {
        answer_http(worker, viewer, HANDSHAKE_MALFORMED,
                    BYTES_LIT("{\"code\":0,\"message\":\"Transport unknown\"}"), false);
        return NULL;
    }
    if (wishes->eio[0] == '\0' || strcmp(wishes->eio, "3") == 0)
        return &adapter_engineio3;
    if (strcmp(wishes->eio, "4") == 0)
        return &adapter_engineio4;
    answer_http(worker, viewer, HANDSHAKE_MALFORMED,
                BYTES_LIT("{\"code\":5,\"message\":\"Unsupported protocol version\"}"), false);
    return NULL;
}

static void refuse_upgrade(struct worker *worker, struct viewer *viewer, int status)
{
    if (status == 405)
        welcome_refuse(worker, viewer, HANDSHAKE_METHOD, "method-not-allowed",
                       "only GET is served here");
    else if (status == 426)
        welcome_refuse(
            worker, viewer, HANDSHAKE_NO_UPGRADE, "upgrade-required",
            "this is a WebSocket endpoint: ask for an upgrade with Sec-WebSocket-Version: 13");
    else
        welcome_refuse(worker, viewer, HANDSHAKE_MALFORMED, "bad-message",
                       "Sec-WebSocket-Key: one, base64 of 16 bytes, is needed");
}

static void welcome_websocket(struct worker *worker, struct viewer *viewer, const struct head *head,
                              struct wishes *wishes)
{
    bool socketio = bytes_is(head->path, "/socket.io/") || bytes_is(head->path, "/socket.io");
    bool native = bytes_is(head->path, "/ws");
    bool echo = worker->conf->server.echo && bytes_is(head->path, "/echo");
    if (!socketio && !native && !echo) {
        welcome_refuse(worker, viewer, HANDSHAKE_NOT_FOUND, "not-found",
                       "served here: /ws, /socket.io/, /healthz");
        return;
    }
    wishes->adapter = native ? &adapter_native : NULL;
    if (socketio && !(wishes->adapter = socketio_adapter(worker, viewer, wishes)))
        return;
    int status = head_upgrade_status(head);
    if (status != 0) {
        refuse_upgrade(worker, viewer, status);
    } else if (wishes->wrong) {
        welcome_refuse(worker, viewer, HANDSHAKE_MALFORMED, "bad-name", wishes->wrong);
    } else if (wishes->rooms.failed) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    } else if (!refuse_origin(worker, viewer, head, wishes) &&
               !refuse_if_full(worker, viewer, wishes)) {
        if (echo || worker->conf->auth.mode == AUTH_OPEN)
            let_in(worker, viewer, wishes);
        else
            tickets_handshake(worker, viewer, wishes);
    }
}

void welcome(struct worker *worker, struct viewer *viewer, const struct head *head)
{
    if (bytes_is(head->path, "/healthz")) {
        if (!bytes_is(head->method, "GET") && !bytes_is(head->method, "HEAD"))
            refuse_upgrade(worker, viewer, 405);
        else
            answer_http(worker, viewer, worker->draining ? HANDSHAKE_DRAINING : HANDSHAKE_HEALTH,
                        worker->draining ? BYTES_LIT("draining\n") : BYTES_LIT("ok\n"),
                        bytes_is(head->method, "HEAD"));
        return;
    }
    struct wishes wishes = {0};
    read_wishes(worker, head, &wishes);
    welcome_websocket(worker, viewer, head, &wishes);
    buf_fini(&wishes.rooms);
}
