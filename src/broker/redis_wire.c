#include "broker/redis_wire.h"

#include <hiredis/hiredis.h>
#include <uv.h>

/* The reader's buffer and our text are given back after a reply that was longer than this. */
enum { WIRE_KEEP_BYTES = 128 * 1024 };

/* hiredis wants an object per value and frees it by a call; ours live in the wire, so any pointer will do. */
static void *object_of(const redisReadTask *task)
{
    return task->privdata;
}

/* The slot that a value of the reply belongs to, or NULL: deeper than pub/sub ever answers. */
static struct wire_item *slot_of(const redisReadTask *task)
{
    struct wire *wire = task->privdata;
    if (!task->parent) {
        buf_clear(&wire->text);
        return &wire->reply.top;
    }
    if (task->parent->parent || task->idx >= WIRE_ITEMS_MAX) {
        wire->why = "a reply has more parts than any command of ours is answered with";
        return NULL;
    }
    return &wire->reply.items[task->idx];
}

static enum wire_type text_type(int type)
{
    if (type == REDIS_REPLY_ERROR)
        return WIRE_ERROR;
    return type == REDIS_REPLY_STATUS ? WIRE_STATUS : WIRE_STRING;
}

static void *on_string(const redisReadTask *task, char *text, size_t len)
{
    struct wire *wire = task->privdata;
    struct wire_item *item = slot_of(task);
    if (!item)
        return NULL;
    /* The text moves while it grows, so the place is kept as an offset until the reply is complete. */
    *item = (struct wire_item){.type = text_type(task->type), .text.len = len};
    item->number = (int64_t)wire->text.len;
    buf_append(&wire->text, text, len);
    return wire->text.failed ? NULL : object_of(task);
}

static void *on_array(const redisReadTask *task, int elements)
{
    struct wire *wire = task->privdata;
    struct wire_item *item = slot_of(task);
    if (!item)
        return NULL;
    if (task->parent || elements > WIRE_ITEMS_MAX) {
        wire->why = "a reply has more parts than any command of ours is answered with";
        return NULL;
    }
    *item = (struct wire_item){.type = WIRE_ARRAY, .number = elements};
    return object_of(task);
}

static void *on_integer(const redisReadTask *task, long long value)
{
    struct wire_item *item = slot_of(task);
    if (!item)
        return NULL;
    *item = (struct wire_item){.type = WIRE_INTEGER, .number = value};
    return object_of(task);
}

static void *on_nil(const redisReadTask *task)
{
    struct wire_item *item = slot_of(task);
    if (!item)
        return NULL;
    *item = (struct wire_item){.type = WIRE_NIL};
    return object_of(task);
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

static void locate(const struct wire *wire, struct wire_item *item)
{
    if (item->type > WIRE_STRING)
        return;
    item->text.data = item->text.len ? wire->text.data + item->number : "";
    item->number = 0;
}

int wire_next(struct wire *wire)
{
    void *object = NULL;
    if (wire->text.cap > WIRE_KEEP_BYTES && !wire->reader->reply)
        buf_fini(&wire->text);
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
    struct wire_reply *reply = &wire->reply;
    locate(wire, &reply->top);
    for (int64_t i = 0; reply->top.type == WIRE_ARRAY && i < reply->top.number; i++)
        locate(wire, &reply->items[i]);
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

static bool is_text(const struct wire_item *item)
{
    return item->type == WIRE_STRING;
}

enum wire_event wire_event(const struct wire_reply *reply, struct bytes *channel,
                           struct bytes *payload)
{
    const struct wire_item *items = reply->items;
    if (reply->top.type != WIRE_ARRAY || reply->top.number != 3 || !is_text(&items[0]) ||
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

bool wire_is_pong(const struct wire_reply *reply)
{
    if (reply->top.type == WIRE_STATUS)
        return bytes_equal(reply->top.text, BYTES_LIT("PONG"));
    return reply->top.type == WIRE_ARRAY && reply->top.number >= 1 && is_text(&reply->items[0]) &&
           bytes_equal(reply->items[0].text, BYTES_LIT("pong"));
}
