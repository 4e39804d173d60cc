#include "protocol/request.h"

#include "protocol/history_id.h"

void request_fields_init(struct json_field *fields, size_t count)
{
    static const char *const names[FIELD_COUNT_NATIVE] = {
        [FIELD_ROOM] = "room",     [FIELD_TYPE] = "type",   [FIELD_DATA] = "data",
        [FIELD_KEY] = "key",       [FIELD_AFTER] = "after", [FIELD_MODE] = "mode",
        [FIELD_TICKET] = "ticket", [FIELD_OP] = "op",       [FIELD_REF] = "ref",
    };
    for (size_t i = 0; i < count; i++)
        fields[i].name = names[i];
}

void intent_clear(struct intent *intent)
{
    memset(intent, 0, offsetof(struct intent, room_text));
}

void intent_refuse(struct intent *intent, enum error_code code, const char *text)
{
    intent->op = INTENT_BAD;
    intent->error_code = code;
    intent->error_text = text;
}

void intent_refuse_unreadable(struct intent *intent, const char *text)
{
    intent_refuse(intent, ERROR_BAD_MESSAGE, text);
    intent->unreadable = true;
}

void intent_refuse_json(struct intent *intent, int error, const char *syntax)
{
    if (error == JSON_ERR_DEPTH)
        intent_refuse_unreadable(intent, "JSON is nested too deep");
    else if (error == JSON_ERR_UTF8)
        intent_refuse_unreadable(intent, "text is not UTF-8");
    else
        intent_refuse_unreadable(intent, syntax);
}

static bool read_room(struct intent *intent, struct json_span value)
{
    if (value.kind == JSON_ABSENT) {
        intent_refuse(intent, ERROR_BAD_MESSAGE, "room is missing");
        return false;
    }
    if (json_text(value, intent->room_text, sizeof(intent->room_text), &intent->room) &&
        name_is_room(intent->room))
        return true;
    intent->room = (struct bytes){0};
    intent_refuse(intent, ERROR_BAD_NAME,
                  "room must be a string of 1 to 64 of A-Z a-z 0-9 _ . : -");
    return false;
}

static bool read_type(struct intent *intent, struct json_span value)
{
    if (value.kind == JSON_ABSENT) {
        intent_refuse(intent, ERROR_BAD_MESSAGE, "type is missing");
        return false;
    }
    if (json_text(value, intent->type_text, sizeof(intent->type_text), &intent->type) &&
        name_is_type(intent->type))
        return true;
    intent->type = (struct bytes){0};
    intent_refuse(intent, ERROR_BAD_NAME,
                  "type must be a string of 1 to 32 of a-z 0-9 _ - and no reserved word");
    return false;
}

static bool read_key(struct intent *intent, struct json_span value)
{
    if (value.kind == JSON_ABSENT)
        return true;
    if (json_text(value, intent->key_text, sizeof(intent->key_text), &intent->key) &&
        name_is_room(intent->key))
        return true;
    intent->key = (struct bytes){0};
    intent_refuse(intent, ERROR_BAD_MESSAGE,
                  "key must be a string of 1 to 64 of A-Z a-z 0-9 _ . : -, or be left out");
    return false;
}

static bool read_point(struct intent *intent, struct json_span value)
{
    char scratch[MESSAGE_ID_MAX];
    struct bytes id;
    enum lane lane;
    struct history_point point;
    if (!json_text(value, scratch, sizeof(scratch), &id) || !history_id_parse(id, &lane, &point))
        return false;
    intent->after[lane] = point;
    return true;
}

static bool read_after(struct intent *intent, struct json_span value)
{
    enum { AFTER_MAX = 8 };
    if (value.kind == JSON_ABSENT)
        return true;
    struct json_span ids[AFTER_MAX];
    size_t count = AFTER_MAX;
    bool good =
        value.kind == JSON_ARRAY && json_array(value.raw, JSON_DEPTH_MAX, ids, &count) == JSON_OK;
    for (size_t i = 0; good && i < count; i++)
        good = read_point(intent, ids[i]);
    intent->has_after = good;
    if (!good)
        intent_refuse(intent, ERROR_BAD_MESSAGE,
                      "after must be an array of at most 8 ids of messages, or be left out");
    return good;
}

static bool read_mode(struct intent *intent, struct json_span value)
{
    char text[8];
    struct bytes mode = {0};
    if (json_text(value, text, sizeof(text), &mode)) {
        intent->passive = bytes_is(mode, "passive");
        if (intent->passive || bytes_is(mode, "active"))
            return true;
    }
    intent_refuse(intent, ERROR_BAD_MESSAGE, "mode must be \"passive\" or \"active\"");
    return false;
}

bool request_read_ticket(struct intent *intent, struct json_span value)
{
    if (value.kind == JSON_ABSENT)
        return true;
    /* Tickets hold nothing that needs an escape, but some encoders make one all the same (PHP writes `\/`). */
    return json_text(value, intent->ticket_text, sizeof(intent->ticket_text), &intent->ticket);
}

static bool read_fields(struct intent *intent, enum intent_op op, const struct json_field *fields)
{
    switch (op) {
    case INTENT_JOIN:
        return read_room(intent, fields[FIELD_ROOM].value) &&
               read_after(intent, fields[FIELD_AFTER].value);
    case INTENT_LEAVE:
        return read_room(intent, fields[FIELD_ROOM].value);
    case INTENT_SEND:
        intent->data = fields[FIELD_DATA].value;
        return read_room(intent, fields[FIELD_ROOM].value) &&
               read_type(intent, fields[FIELD_TYPE].value) &&
               read_key(intent, fields[FIELD_KEY].value);
    case INTENT_PACE:
        return read_mode(intent, fields[FIELD_MODE].value);
    case INTENT_REFRESH:
        if (request_read_ticket(intent, fields[FIELD_TICKET].value) && intent->ticket.len > 0)
            return true;
        intent_refuse(intent, ERROR_BAD_MESSAGE, "ticket must be a string of 1 to 8192 bytes");
        return false;
    default: /* PING has no members */
        return true;
    }
}

void request_to_intent(struct intent *intent, enum intent_op op, const struct json_field *fields)
{
    if (read_fields(intent, op, fields))
        intent->op = op;
}
