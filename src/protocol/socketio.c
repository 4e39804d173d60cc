/* Socket.IO over Engine.IO 3 and 4 (engine.io-protocol v3 and v4, socket.io-protocol v4 and v5), text packets only. */
#include "protocol/adapter.h"

#include "protocol/answer.h"
#include "protocol/request.h"
#include "ws/frame.h"

enum {
    NAMESPACE_MAX = 128,
    PING_DATA_MAX = 125,
    CLOSE_PROTOCOL_CODE = 1002 /* RFC 6455 §7.4.1 */
};

/* What stands behind the Engine.IO `4`: <type>[<attachments>-][<namespace>,][<id>][<JSON>] */
struct packet {
    char type;
    struct bytes namespace_; /* with its slash, without a query; empty for "/" */
    struct intent_ref id;
    struct bytes payload;
};

static struct bytes skip(struct bytes text, size_t n)
{
    return bytes_of(text.data + n, text.len - n);
}

static size_t count_digits(struct bytes text)
{
    size_t n = 0;
    while (n < text.len && text.data[n] >= '0' && text.data[n] <= '9')
        n++;
    return n;
}

/* A namespace is echoed outside of any JSON, so only what needs no escape passes. */
static bool namespace_is_echoable(struct bytes name)
{
    if (name.len == 0 || name.len > NAMESPACE_MAX || name.data[0] != '/')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        if (c < 0x21 || c > 0x7e || c == '"' || c == '\\' || c == ',')
            return false;
    }
    return true;
}

/* Reads `/name?query,` (the comma is missing when nothing follows) and gives the rest. */
static bool read_namespace(struct bytes *text, struct bytes *name)
{
    const char *comma = memchr(text->data, ',', text->len);
    size_t len = comma ? (size_t)(comma - text->data) : text->len;
    struct bytes found = bytes_of(text->data, len);
    *text = skip(*text, comma ? len + 1 : len);
    const char *query = memchr(found.data, '?', found.len);
    if (query)
        found.len = (size_t)(query - found.data);
    if (!namespace_is_echoable(found))
        return false;
    if (found.len > 1)
        *name = found;
    return true;
}

static bool read_id(struct bytes *text, struct intent_ref *id)
{
    size_t digits = count_digits(*text);
    if (digits == 0)
        return true;
    /* The same range as a native ref; json_uint53() does not mind leading zeros, nor do clients. */
    struct json_span number = {JSON_NUMBER, bytes_of(text->data, digits)};
    id->present = json_uint53(number, &id->value);
    *text = skip(*text, digits);
    return id->present;
}

/* Returns NULL, or why text is no packet. text.len > 0. */
static const char *read_packet(struct bytes text, struct packet *packet)
{
    *packet = (struct packet){.type = text.data[0]};
    text = skip(text, 1);
    if (packet->type < '0' || packet->type > '6')
        return "unknown Socket.IO packet type; 0 to 6 are known";
    if (packet->type == '5' || packet->type == '6') {
        size_t digits = count_digits(text);
        if (digits == 0 || digits == text.len || text.data[digits] != '-')
            return "a binary packet must give its number of attachments, as in 451-[...]";
        text = skip(text, digits + 1);
    }
    if (text.len > 0 && text.data[0] == '/' && !read_namespace(&text, &packet->namespace_))
        return "a namespace may have at most 128 printable ASCII characters, no \" and no \\";
    if (!read_id(&text, &packet->id))
        return "an acknowledgement id must be 0 to 9007199254740991";
    packet->payload = text;
    return NULL;
}

static bool op_of_event(struct bytes name, const struct adapter_limits *limits, enum intent_op *op)
{
    struct bytes join = limits->join_event.len > 0 ? limits->join_event : BYTES_LIT("join");
    struct bytes leave = limits->leave_event.len > 0 ? limits->leave_event : BYTES_LIT("leave");
    if (bytes_equal(name, join))
        *op = INTENT_JOIN;
    else if (bytes_equal(name, leave))
        *op = INTENT_LEAVE;
    else if (bytes_is(name, "send"))
        *op = INTENT_SEND;
    else if (bytes_is(name, "pace"))
        *op = INTENT_PACE;
    else if (bytes_is(name, "refresh"))
        *op = INTENT_REFRESH;
    else
        return false;
    return true;
}

/* An event's argument: the native object less op and ref, or a room's bare name. */
static void parse_argument(struct json_span argument, int depth, enum intent_op op,
                           struct intent *intent)
{
    struct json_field fields[FIELD_COUNT_SOCKETIO] = {0};
    request_fields_init(fields, FIELD_COUNT_SOCKETIO);
    if (argument.kind == JSON_STRING && (op == INTENT_JOIN || op == INTENT_LEAVE)) {
        fields[FIELD_ROOM].value = argument;
    } else if (json_object(argument.raw, depth, fields, FIELD_COUNT_SOCKETIO) != JSON_OK) {
        intent_refuse(intent, ERROR_BAD_MESSAGE,
                      "the event's argument must be an object, as in {\"room\":\"42\"}");
        return;
    }
    request_to_intent(intent, op, fields);
}

static void parse_event(const struct packet *packet, const struct adapter_limits *limits,
                        struct intent *intent)
{
    enum { NAME, ARGUMENT, COUNT };
    struct json_span list[COUNT] = {0};
    size_t count = COUNT;
    int err = json_array(packet->payload, limits->json_depth, list, &count);
    if (err && err != JSON_ERR_COUNT) { /* further arguments are ignored */
        intent_refuse_json(intent, err, "an event must be one JSON array");
        return;
    }
    if (list[NAME].kind != JSON_STRING) {
        intent_refuse_unreadable(intent, "an event must have its name first, as in [\"join\",{}]");
        return;
    }
    char scratch[64];
    struct bytes name = {0};
    enum intent_op op;
    if (!json_text(list[NAME], scratch, sizeof(scratch), &name) ||
        !op_of_event(name, limits, &op)) {
        intent_refuse(intent, ERROR_BAD_MESSAGE,
                      "unknown event; known are those to join and to leave, send, pace, refresh");
        return;
    }
    parse_argument(list[ARGUMENT], limits->json_depth, op, intent);
}

/* `40{"token":"…"}`: both names of a ticket will do. */
static void parse_connect(const struct packet *packet, const struct adapter_limits *limits,
                          struct intent *intent)
{
    intent->op = INTENT_CONNECT;
    if (packet->payload.len == 0)
        return;
    enum { TOKEN, TICKET, COUNT };
    struct json_field fields[COUNT] = {
        [TOKEN] = {.name = "token"}, [TICKET] = {.name = "ticket_id"}};
    int err = json_object(packet->payload, limits->json_depth, fields, COUNT);
    if (err) {
        intent_refuse_json(intent, err, "the payload of a CONNECT must be one JSON object");
        return;
    }
    struct json_span ticket = fields[TOKEN].value;
    if (ticket.kind != JSON_STRING)
        ticket = fields[TICKET].value;
    if (ticket.kind == JSON_STRING) /* one that can't be read is none: a CONNECT must be answered */
        (void)request_read_ticket(intent, ticket);
}

/* A packet on another namespace. A CONNECT is refused in Socket.IO's own words, what is emitted there all the same
 * finds no callback to answer. */
static void parse_foreign(const struct packet *packet, struct intent *intent)
{
    if (packet->type == '1' || packet->type == '3')
        return;
    intent_refuse(intent, ERROR_BAD_MESSAGE, "only the namespace / is served");
    if (packet->type == '0')
        intent->namespace_ = packet->namespace_;
}

/* What stands behind the Engine.IO `4`. connects: a CONNECT on "/" means something (Engine.IO 4). */
static void parse_packet(struct bytes text, const struct adapter_limits *limits, bool connects,
                         struct intent *intent)
{
    if (text.len == 0) {
        intent_refuse_unreadable(intent, "a Socket.IO packet must have a type, as in 42[...]");
        return;
    }
    struct packet packet;
    const char *wrong = read_packet(text, &packet);
    if (wrong) {
        intent_refuse_unreadable(intent, wrong);
        return;
    }
    if (packet.namespace_.len > 0) {
        parse_foreign(&packet, intent);
        return;
    }
    switch (packet.type) {
    case '0':
        if (connects)
            parse_connect(&packet, limits, intent);
        break;
    case '1':
        intent->op = INTENT_DISCONNECT;
        break;
    case '2':
        intent->ref = packet.id;
        parse_event(&packet, limits, intent);
        break;
    case '3': /* an acknowledgement of what we never asked to acknowledge */
        break;
    case '5':
        intent->ref = packet.id;
        intent_refuse(intent, ERROR_BAD_MESSAGE, "binary events are not supported; send JSON");
        break;
    case '6': /* its id is ours, not one of the viewer's callbacks */
        intent_refuse(intent, ERROR_BAD_MESSAGE, "binary events are not supported; send JSON");
        break;
    default:
        intent_refuse_unreadable(intent, "a viewer may not send Socket.IO packets of type 4");
    }
}

/* Engine.IO packets that both versions treat alike; text.len > 0. */
static void parse_engine(struct bytes text, const struct adapter_limits *limits, bool connects,
                         struct intent *intent)
{
    switch (text.data[0]) {
    case '1':
        intent->op = INTENT_DISCONNECT;
        break;
    case '4':
        parse_packet(skip(text, 1), limits, connects, intent);
        break;
    case '5': /* upgrade and noop mean nothing where the transport is a WebSocket from the start */
    case '6':
        break;
    default:
        intent_refuse_unreadable(intent, "unknown Engine.IO packet type; 1 to 6 are known");
    }
}

static void parse_engineio3(struct bytes text, const struct adapter_limits *limits,
                            struct intent *intent)
{
    intent_clear(intent);
    if (text.len == 0) {
        intent_refuse_unreadable(intent, "an Engine.IO packet must not be empty");
    } else if (text.data[0] == '2') {
        intent->op = INTENT_ENGINE_PING;
        intent->engine_data = skip(text, 1);
        if (intent->engine_data.len > PING_DATA_MAX)
            intent_refuse_unreadable(intent, "a ping may carry at most 125 bytes");
    } else if (text.data[0] != '3') { /* some clients of that time answer pings that nobody sent */
        parse_engine(text, limits, false, intent);
    }
}

static void parse_engineio4(struct bytes text, const struct adapter_limits *limits,
                            struct intent *intent)
{
    intent_clear(intent);
    if (text.len == 0) {
        intent_refuse_unreadable(intent, "an Engine.IO packet must not be empty");
    } else if (text.data[0] == '2') {
        intent_refuse_unreadable(intent, "in Engine.IO 4 the server pings, not the client");
        intent->fatal_close = CLOSE_PROTOCOL_CODE;
    } else if (text.data[0] == '3') {
        intent->op = INTENT_ENGINE_PONG;
    } else {
        parse_engine(text, limits, true, intent);
    }
}

/* The open packet; max_payload 0: Engine.IO 3 has no such member. */
static void append_open(struct buf *out, const struct opening *opening, uint64_t max_payload)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "0{\"sid\":");
    json_quote(out, opening->connection);
    BUF_LIT(out, ",\"upgrades\":[],\"pingInterval\":");
    buf_uint(out, opening->interval_ms);
    BUF_LIT(out, ",\"pingTimeout\":");
    buf_uint(out, opening->timeout_ms);
    if (max_payload > 0) {
        BUF_LIT(out, ",\"maxPayload\":");
        buf_uint(out, max_payload);
    }
    BUF_LIT(out, "}");
    answer_end_frame(out, mark);
}

static void append_open3(struct buf *out, const struct opening *opening)
{
    append_open(out, opening, 0);
}

static void append_opening3(struct buf *out, const struct opening *opening)
{
    append_open3(out, opening);
    ws_frame_append(out, WS_TEXT, BYTES_LIT("40"));
}

static void append_opening4(struct buf *out, const struct opening *opening)
{
    append_open(out, opening, opening->max_payload);
}

static void append_connected4(struct buf *out, const struct opening *opening)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "40{\"sid\":");
    json_quote(out, opening->connection);
    BUF_LIT(out, "}");
    answer_end_frame(out, mark);
}

static void append_notice(struct buf *out, const struct notice *notice)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "42[\"halley\",");
    answer_notice(out, notice);
    BUF_LIT(out, "]");
    answer_end_frame(out, mark);
}

static void append_message(struct buf *out, const struct message *message)
{
    struct notice notice;
    if (answer_is_notice(message, &notice)) {
        append_notice(out, &notice);
        return;
    }
    struct pieces pieces = {.count = 0};
    pieces_add(&pieces, BYTES_LIT("42[\""));
    pieces_add(&pieces, message->type);
    pieces_add(&pieces, BYTES_LIT("\",{"));
    size_t first = pieces.count;
    if (message->kind != MESSAGE_ALL)
        pieces_add_name(&pieces, BYTES_LIT(",\"room\":\""), message->room);
    pieces_add_name(&pieces, BYTES_LIT(",\"id\":\""), message->id);
    pieces_add_name(&pieces, BYTES_LIT(",\"from\":\""), message->from);
    if (message->data.len > 0) {
        pieces_add(&pieces, BYTES_LIT(",\"data\":"));
        pieces_add(&pieces, message->data);
    }
    if (pieces.count > first) { /* no comma before the first member */
        pieces.list[first] = skip(pieces.list[first], 1);
        pieces.len--;
    }
    pieces_add(&pieces, BYTES_LIT("}]"));
    pieces_append_frame(out, &pieces);
}

static void append_reply(struct buf *out, const struct reply *reply)
{
    if (!reply->ref.present && (reply->kind == REPLY_ACK || reply->kind == REPLY_PONG))
        return;
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    if (reply->ref.present) {
        BUF_LIT(out, "43");
        buf_uint(out, reply->ref.value);
        BUF_LIT(out, "[");
        answer_acknowledgement(out, reply);
    } else {
        BUF_LIT(out, "42[\"halley\",");
        answer_reply(out, reply);
    }
    BUF_LIT(out, "]");
    answer_end_frame(out, mark);
}

static void append_ping4(struct buf *out)
{
    ws_frame_append(out, WS_TEXT, BYTES_LIT("2"));
}

static void append_engine_pong3(struct buf *out, struct bytes data)
{
    size_t mark = ws_frame_begin(out, 1 + data.len);
    BUF_LIT(out, "3");
    buf_bytes(out, data);
    answer_end_frame(out, mark);
}

static void append_refused(struct buf *out, struct bytes namespace_, struct bytes reason)
{
    if (!namespace_is_echoable(namespace_))
        return;
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "44");
    buf_bytes(out, namespace_);
    BUF_LIT(out, ",");
    buf_bytes(out, reason);
    answer_end_frame(out, mark);
}

static void append_namespace_refused3(struct buf *out, struct bytes namespace_)
{
    append_refused(out, namespace_, BYTES_LIT("\"Invalid namespace\""));
}

static void append_namespace_refused4(struct buf *out, struct bytes namespace_)
{
    append_refused(out, namespace_, BYTES_LIT("{\"message\":\"Invalid namespace\"}"));
}

static void append_connect_refused3(struct buf *out, const char *reason)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "44");
    json_quote(out, bytes_str(reason));
    answer_end_frame(out, mark);
}

static void append_connect_refused4(struct buf *out, const char *reason)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "44{\"message\":");
    json_quote(out, bytes_str(reason));
    BUF_LIT(out, "}");
    answer_end_frame(out, mark);
}

static void append_kicked(struct buf *out)
{
    ws_frame_append(out, WS_TEXT, BYTES_LIT("41"));
}

const struct adapter adapter_engineio3 = {
    .name = "engineio3",
    .encoding = ENCODING_SOCKETIO,
    .heartbeat = HEARTBEAT_CLIENT,
    .parse = parse_engineio3,
    .append_opening = append_opening3,
    .append_message = append_message,
    .append_reply = append_reply,
    .append_notice = append_notice,
    .append_engine_pong = append_engine_pong3,
    .append_connect_refused = append_connect_refused3,
    .append_open = append_open3,
    .append_namespace_refused = append_namespace_refused3,
    .append_kicked = append_kicked,
};

const struct adapter adapter_engineio4 = {
    .name = "engineio4",
    .encoding = ENCODING_SOCKETIO,
    .heartbeat = HEARTBEAT_SERVER,
    .connect_expected = true,
    .parse = parse_engineio4,
    .append_opening = append_opening4,
    .append_connected = append_connected4,
    .append_message = append_message,
    .append_reply = append_reply,
    .append_notice = append_notice,
    .append_ping = append_ping4,
    .append_connect_refused = append_connect_refused4,
    .append_namespace_refused = append_namespace_refused4,
    .append_kicked = append_kicked,
};
