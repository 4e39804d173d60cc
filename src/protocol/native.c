/* The native protocol (docs/protocol.md): JSON objects in text frames. */
#include "protocol/adapter.h"

#include "protocol/answer.h"
#include "protocol/request.h"
#include "ws/frame.h"

static bool op_of_name(struct bytes name, enum intent_op *op)
{
    static const struct {
        const char *name;
        enum intent_op op;
    } ops[] = {
        {"join", INTENT_JOIN}, {"leave", INTENT_LEAVE},     {"send", INTENT_SEND},
        {"pace", INTENT_PACE}, {"refresh", INTENT_REFRESH}, {"ping", INTENT_PING},
    };
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (bytes_is(name, ops[i].name)) {
            *op = ops[i].op;
            return true;
        }
    }
    return false;
}

static void parse(struct bytes text, const struct adapter_limits *limits, struct intent *intent)
{
    struct json_field fields[FIELD_COUNT_NATIVE];
    request_fields_init(fields, FIELD_COUNT_NATIVE);
    intent_clear(intent);
    int err = json_object(text, limits->json_depth, fields, FIELD_COUNT_NATIVE);
    if (err) {
        intent_refuse_json(intent, err, "not one JSON object");
        return;
    }
    if (fields[FIELD_REF].value.kind != JSON_ABSENT) {
        intent->ref.present = json_uint53(fields[FIELD_REF].value, &intent->ref.value);
        if (!intent->ref.present) {
            intent_refuse(intent, ERROR_BAD_MESSAGE,
                          "ref must be an integer 0 to 9007199254740991, or be left out");
            return;
        }
    }
    char scratch[16];
    struct bytes name = {0};
    enum intent_op op;
    if (!json_text(fields[FIELD_OP].value, scratch, sizeof(scratch), &name) ||
        !op_of_name(name, &op)) {
        intent_refuse(intent, ERROR_BAD_MESSAGE,
                      "op must be one of join, leave, send, pace, refresh, ping");
        return;
    }
    request_to_intent(intent, op, fields);
}

static void append_opening(struct buf *out, const struct opening *opening)
{
    size_t mark = ws_frame_begin(out, 2 * ANSWER_LIKELY_BYTES);
    BUF_LIT(out, "{\"op\":\"welcome\",\"connection\":");
    json_quote(out, opening->connection);
    BUF_LIT(out, ",\"user\":");
    json_quote(out, opening->user);
    BUF_LIT(out, ",\"node\":");
    json_quote(out, opening->node);
    BUF_LIT(out, ",\"heartbeat\":{\"interval_ms\":");
    buf_uint(out, opening->interval_ms);
    BUF_LIT(out, ",\"timeout_ms\":");
    buf_uint(out, opening->timeout_ms);
    BUF_LIT(out, "}");
    if (opening->frame_bytes > 0) {
        BUF_LIT(out, ",\"frame_bytes\":");
        buf_uint(out, opening->frame_bytes);
    }
    BUF_LIT(out, "}");
    answer_end_frame(out, mark);
}

static void append_notice(struct buf *out, const struct notice *notice)
{
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    answer_notice(out, notice);
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
    pieces_add(&pieces, BYTES_LIT("{\"type\":\""));
    pieces_add(&pieces, message->type);
    pieces_add(&pieces, BYTES_LIT("\""));
    if (message->kind != MESSAGE_ALL)
        pieces_add_name(&pieces, BYTES_LIT(",\"room\":\""), message->room);
    pieces_add_name(&pieces, BYTES_LIT(",\"id\":\""), message->id);
    pieces_add_name(&pieces, BYTES_LIT(",\"from\":\""), message->from);
    if (message->data.len > 0) {
        pieces_add(&pieces, BYTES_LIT(",\"data\":"));
        pieces_add(&pieces, message->data);
    }
    pieces_add(&pieces, BYTES_LIT("}"));
    pieces_append_frame(out, &pieces);
}

static void append_reply(struct buf *out, const struct reply *reply)
{
    if (reply->kind == REPLY_ACK && !reply->ref.present)
        return;
    size_t mark = ws_frame_begin(out, ANSWER_LIKELY_BYTES);
    answer_reply(out, reply);
    answer_end_frame(out, mark);
}

static void append_ping(struct buf *out)
{
    ws_frame_append(out, WS_PING, (struct bytes){0});
}

const struct adapter adapter_native = {
    .name = "native",
    .encoding = ENCODING_NATIVE,
    .heartbeat = HEARTBEAT_NATIVE,
    .binary_closes = true,
    .parse = parse,
    .append_opening = append_opening,
    .append_message = append_message,
    .append_reply = append_reply,
    .append_notice = append_notice,
    .append_ping = append_ping,
};

const struct adapter *adapter_of_encoding(enum encoding encoding)
{
    return encoding == ENCODING_NATIVE ? &adapter_native : &adapter_engineio4;
}
