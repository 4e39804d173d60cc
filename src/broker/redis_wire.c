#include "broker/redis_wire.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <uv.h>

/* The reader's buffer, our text and values are given back after a reply that was longer than this. */
enum { WIRE_KEEP_BYTES = 128 * 1024, WIRE_VALUES_FIRST = 8 };

/* hiredis wants an object per value, which it hands back as that of the parent; ours is the value's place, plus one
 * because NULL means failure. */
static void *object_of(uint32_t place)
{
    return (void *)((uintptr_t)place +
                    1); // NOLINT(performance-no-int-to-ptr): a number in a pointer's clothes
}

/* Makes room for so many values in a row; returns the place of the first, or UINT32_MAX. */
static uint32_t add_values(struct wire *wire, uint32_t more)
{
    if (more > WIRE_VALUES_MAX - wire->count) {
        wire->why = "a reply has more values than any command of ours is answered with";
        return UINT32_MAX;
    }
    uint32_t cap = wire->cap ? wire->cap : WIRE_VALUES_FIRST;
    while (cap < wire->count + more)
        cap *= 2;
    if (cap > wire->cap) {
        struct broker_value *values = realloc(wire->values, cap * sizeof(*values));
        if (!values) {
            wire->text.failed = true;
            return UINT32_MAX;
        }
        wire->values = values;
        wire->cap = cap;
    }
    uint32_t first = wire->count;
    wire->count += more;
    return first;
}

/* The place of a task's value, or UINT32_MAX. */
static uint32_t place_of(const redisReadTask *task)
{
    struct wire *wire = task->privdata;
    if (task->parent) {
        uint32_t parent = (uint32_t)((uintptr_t)task->parent->obj - 1);
        return (uint32_t)wire->values[parent].integer + (uint32_t)task->idx;
    }
    buf_clear(&wire->text);
    wire->count = 0;
    return add_values(wire, 1);
}

static enum broker_value_kind text_kind(int type)
{
    if (type == REDIS_REPLY_ERROR)
        return BROKER_ERROR;
    return type == REDIS_REPLY_STATUS ? BROKER_STATUS : BROKER_TEXT;
}

static void *on_string(const redisReadTask *task, char *text, size_t len)
{
    struct wire *wire = task->privdata;
    uint32_t place = place_of(task);
    if (place == UINT32_MAX)
        return NULL;
    /* Texts and values move while they grow, so places are kept as numbers until the reply is complete. */
    wire->values[place] = (struct broker_value){
        .kind = text_kind(task->type), .text.len = len, .integer = (int64_t)wire->text.len};
    buf_append(&wire->text, text, len);
    return wire->text.failed ? NULL : object_of(place);
}

static void *on_array(const redisReadTask *task, int elements)
{
    struct wire *wire = task->privdata;
    uint32_t place = place_of(task);
    uint32_t first = place == UINT32_MAX ? place : add_values(wire, (uint32_t)elements);
    if (first == UINT32_MAX)
        return NULL;
    wire->values[place] =
        (struct broker_value){.kind = BROKER_ARRAY, .count = (uint32_t)elements, .integer = first};
    return object_of(place);
}

static void *on_integer(const redisReadTask *task, long long number)
{
    struct wire *wire = task->privdata;
    uint32_t place = place_of(task);
    if (place == UINT32_MAX)
        return NULL;
    wire->values[place] = (struct broker_value){.kind = BROKER_INTEGER, .integer = number};
    return object_of(place);
}

static void *on_nil(const redisReadTask *task)
{
    struct wire *wire = task->privdata;
    uint32_t place = place_of(task);
    if (place == UINT32_MAX)
        return NULL;
    wire->values[place] = (struct broker_value){.kind = BROKER_NIL};
    return object_of(place);
}

static void on_free(void *object)
{
    (void)object;
}

static redisReplyObjectFunctions object_functions = {
    .createString = on_string,
    .createArray = on_array,
    .createInteger = on_integer,
    .createNil = on_nil,
    .freeObject = on_free,
};

int wire_init(struct wire *wire, size_t max_bytes)
{
    *wire = (struct wire){.max_bytes = max_bytes, .why = ""};
    wire->reader = redisReaderCreateWithFunctions(&object_functions);
    if (!wire->reader)
        return UV_ENOMEM;
    wire->reader->privdata = wire;
    wire->reader->maxbuf = WIRE_KEEP_BYTES;
    return 0;
}

void wire_fini(struct wire *wire)
{
    if (wire->reader)
        redisReaderFree(wire->reader);
    buf_fini(&wire->text);
    free(wire->values);
    wire->values = NULL;
    wire->cap = wire->count = 0;
    wire->reply = NULL;
    wire->reader = NULL;
}

int wire_feed(struct wire *wire, const char *data, size_t len)
{
    redisReader *reader = wire->reader;
    size_t unread = reader->len - reader->pos;
    if (len > wire->max_bytes || unread > wire->max_bytes - len) {
        wire->why = "a reply is longer than any that is expected";
        return WIRE_ERR_TOO_LONG;
    }
    if (redisReaderFeed(reader, data, len) != REDIS_OK) {
        wire->why = "out of memory";
        return UV_ENOMEM;
    }
    return 0;
}

/* The reply is complete and moves no more: places become pointers. */
static void locate(struct wire *wire)
{
    for (uint32_t i = 0; i < wire->count; i++) {
        struct broker_value *value = &wire->values[i];
        if (value->kind == BROKER_INTEGER)
            continue;
        if (value->kind == BROKER_ARRAY)
            value->items = &wire->values[value->integer];
        else if (value->kind != BROKER_NIL)
            value->text.data = value->text.len ? wire->text.data + value->integer : "";
        value->integer = 0;
    }
    wire->reply = wire->values;
}

/* Between two replies: what a long one needed is given back. */
static void shrink(struct wire *wire)
{
    if (wire->text.cap > WIRE_KEEP_BYTES)
        buf_fini(&wire->text);
    if (wire->cap * sizeof(*wire->values) > WIRE_KEEP_BYTES) {
        free(wire->values);
        wire->values = NULL;
        wire->cap = wire->count = 0;
    }
}

int wire_next(struct wire *wire)
{
    void *object = NULL;
    wire->reply = NULL;
    if (!wire->reader->reply)
        shrink(wire);
    if (redisReaderGetReply(wire->reader, &object) != REDIS_OK) {
        if (wire->text.failed) {
            wire->why = "out of memory";
            return UV_ENOMEM;
        }
        if (*wire->why == '\0')
            wire->why = wire->reader->errstr;
        return WIRE_ERR_PROTOCOL;
    }
    if (!object)
        return 0;
    locate(wire);
    return 1;
}

void wire_command_start(struct buf *out, size_t args)
{
    buf_byte(out, '*');
    buf_uint(out, args);
    BUF_LIT(out, "\r\n");
}

void wire_command_arg(struct buf *out, struct bytes arg)
{
    buf_byte(out, '$');
    buf_uint(out, arg.len);
    BUF_LIT(out, "\r\n");
    buf_bytes(out, arg);
    BUF_LIT(out, "\r\n");
}

static bool is_text(const struct broker_value *value)
{
    return value->kind == BROKER_TEXT;
}

enum wire_event wire_event(const struct broker_value *reply, struct bytes *channel,
                           struct bytes *payload)
{
    const struct broker_value *items = reply->items;
    if (reply->kind != BROKER_ARRAY || reply->count != 3 || !is_text(&items[0]) ||
        !is_text(&items[1]))
        return WIRE_EVENT_OTHER;
    struct bytes kind = items[0].text;
    enum wire_event event = WIRE_EVENT_OTHER;
    if (bytes_equal(kind, BYTES_LIT("message")) && is_text(&items[2]))
        event = WIRE_EVENT_MESSAGE;
    else if (bytes_equal(kind, BYTES_LIT("subscribe")))
        event = WIRE_EVENT_SUBSCRIBED;
    else if (bytes_equal(kind, BYTES_LIT("unsubscribe")))
        event = WIRE_EVENT_UNSUBSCRIBED;
    *channel = items[1].text;
    *payload = items[2].text;
    return event;
}

bool wire_is_pong(const struct broker_value *reply)
{
    if (reply->kind == BROKER_STATUS)
        return bytes_equal(reply->text, BYTES_LIT("PONG"));
    return reply->kind == BROKER_ARRAY && reply->count >= 1 && is_text(&reply->items[0]) &&
           bytes_equal(reply->items[0].text, BYTES_LIT("pong"));
}
