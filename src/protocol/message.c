#include "protocol/message.h"

#include "base/map.h"
#include "base/names.h"
#include "json/json.h"

#include <stdlib.h>

const char *lane_name(enum lane lane)
{
    static const char *const names[LANE_COUNT] = {"high", "normal", "low"};
    return names[lane];
}

/* Copies text to *at and steps over the copy. */
static struct bytes take_copy(char **at, struct bytes text)
{
    struct bytes copy = bytes_of(*at, text.len);
    if (text.len > 0)
        memcpy(*at, text.data, text.len);
    *at += text.len;
    return copy;
}

static struct message *create(enum message_kind kind, struct bytes room, struct bytes user,
                              const struct message_parts *parts)
{
    size_t size = sizeof(struct message);
    if (__builtin_add_overflow(size, room.len, &size) ||
        __builtin_add_overflow(size, user.len, &size) ||
        __builtin_add_overflow(size, parts->type.len, &size) ||
        __builtin_add_overflow(size, parts->from.len, &size) ||
        __builtin_add_overflow(size, parts->id.len, &size) ||
        __builtin_add_overflow(size, parts->data.len, &size))
        return NULL;
    struct message *message = malloc(size);
    if (!message)
        return NULL;
    atomic_init(&message->refs, 1);
    message->kind = kind;
    message->lane = LANE_NORMAL;
    message->type_index = 0;
    message->no_join = false;
    message->point = (struct history_point){0};
    char *at = message->bytes;
    message->room = take_copy(&at, room);
    message->room_hash = map_hash(message->room.data, room.len);
    message->user = take_copy(&at, user);
    message->type = take_copy(&at, parts->type);
    message->from = take_copy(&at, parts->from);
    message->id = take_copy(&at, parts->id);
    message->data = take_copy(&at, parts->data);
    return message;
}

struct message *message_create(enum message_kind kind, struct bytes room,
                               const struct message_parts *parts)
{
    return create(kind, room, (struct bytes){0}, parts);
}

struct message *message_create_for(struct bytes user, const struct message_parts *parts)
{
    return create(MESSAGE_USER, (struct bytes){0}, user, parts);
}

struct message *message_ref(struct message *message)
{
    atomic_fetch_add_explicit(&message->refs, 1, memory_order_relaxed);
    return message;
}

void message_unref(struct message *message)
{
    /* Release and acquire: whoever frees sees all reads of the others done. */
    if (message && atomic_fetch_sub_explicit(&message->refs, 1, memory_order_acq_rel) == 1)
        free(message);
}

/* An optional name: absent and null leave *out empty. */
static bool optional_name(struct json_span value, bool (*valid)(struct bytes name), char *scratch,
                          size_t cap, struct bytes *out)
{
    if (value.kind == JSON_ABSENT || value.kind == JSON_NULL)
        return true;
    return json_text(value, scratch, cap, out) && valid(*out);
}

int envelope_parse(struct bytes text, int max_depth, struct message_scratch *scratch,
                   struct message_parts *parts)
{
    enum { TYPE, DATA, FROM, ID, COUNT };
    struct json_field fields[COUNT] = {
        [TYPE] = {.name = "type"},
        [DATA] = {.name = "data"},
        [FROM] = {.name = "from"},
        [ID] = {.name = "id"},
    };
    if (json_object(text, max_depth, fields, COUNT) != JSON_OK)
        return ENVELOPE_ERR_JSON;
    struct message_parts found = {.data = fields[DATA].value.raw};
    if (!json_text(fields[TYPE].value, scratch->type, sizeof(scratch->type), &found.type) ||
        !name_is_type(found.type))
        return ENVELOPE_ERR_TYPE;
    if (!optional_name(fields[FROM].value, name_is_user, scratch->from, sizeof(scratch->from),
                       &found.from))
        return ENVELOPE_ERR_FROM;
    if (!optional_name(fields[ID].value, name_is_message_id, scratch->id, sizeof(scratch->id),
                       &found.id))
        return ENVELOPE_ERR_ID;
    *parts = found;
    return ENVELOPE_OK;
}

const char *envelope_error(int error)
{
    switch (error) {
    case ENVELOPE_OK:
        return "no error";
    case ENVELOPE_ERR_JSON:
        return "not one JSON object in UTF-8, or nested too deep";
    case ENVELOPE_ERR_TYPE:
        return "type is missing or no type name: a string of 1 to 32 of a-z 0-9 _ -, not a word "
               "that Socket.IO reserves";
    case ENVELOPE_ERR_FROM:
        return "from is no user name: a string of 1 to 64 printable ASCII characters but \" and \\";
    case ENVELOPE_ERR_ID:
        return "id is no message id: a string of 1 to 64 printable ASCII characters but \" and \\";
    default:
        return "unknown envelope error";
    }
}

void envelope_append(struct buf *out, const struct message_parts *parts)
{
    /* Names need no escapes (names.h). One reservation: the members' names take less than 64 bytes. */
    buf_reserve(out, 64 + parts->type.len + parts->data.len + parts->from.len + parts->id.len);
    BUF_LIT(out, "{\"type\":\"");
    buf_bytes(out, parts->type);
    BUF_LIT(out, "\"");
    if (parts->data.len > 0) {
        BUF_LIT(out, ",\"data\":");
        buf_bytes(out, parts->data);
    }
    if (parts->from.len > 0) {
        BUF_LIT(out, ",\"from\":\"");
        buf_bytes(out, parts->from);
        BUF_LIT(out, "\"");
    }
    if (parts->id.len > 0) {
        BUF_LIT(out, ",\"id\":\"");
        buf_bytes(out, parts->id);
        BUF_LIT(out, "\"");
    }
    BUF_LIT(out, "}");
}
