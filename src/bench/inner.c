#include "bench/inner.h"

const struct inner *inner_of(const char *name)
{
    static const struct inner *const all[] = {&inner_mqtt, &inner_nats};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

static const char *read_packets(const struct inner *inner, struct bytes data, inner_sink *sink,
                                void *ctx, size_t *used)
{
    *used = 0;
    while (*used < data.len) {
        struct inner_event event = {0};
        size_t size = 0;
        const char *wrong =
            inner->next(bytes_of(data.data + *used, data.len - *used), &size, &event);
        if (wrong)
            return wrong;
        if (!size)
            break;
        event.wire = size;
        *used += size;
        if (event.kind != INNER_OTHER)
            sink(ctx, &event);
    }
    if (data.len - *used > INNER_PACKET_MAX)
        return "the server sent a packet above 4 MB";
    return NULL;
}

const char *inner_feed(const struct inner *inner, struct buf *held, struct bytes data,
                       inner_sink *sink, void *ctx)
{
    bool waiting = held->len > 0;
    if (waiting) {
        buf_bytes(held, data);
        data = buf_view(held);
    }
    size_t used = 0;
    if (!held->failed) {
        const char *wrong = read_packets(inner, data, sink, ctx, &used);
        if (wrong)
            return wrong;
        if (waiting)
            buf_consume(held, used);
        else
            buf_append(held, data.data + used, data.len - used);
    }
    return held->failed ? "out of memory in the load generator" : NULL;
}
