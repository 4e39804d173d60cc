#include "protocol/event.h"

const char *event_name(enum event_kind kind)
{
    static const char *const names[EVENT_KINDS] = {"connect", "join", "leave", "close"};
    return names[kind];
}

void event_pack(const struct event *event, struct buf *out)
{
    const struct bytes texts[] = {event->connection, event->peer, event->protocol, event->session,
                                  event->reason};
    buf_append(out, &event->code, sizeof(event->code));
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        buf_bytes(out, texts[i]);
        buf_byte(out, '\0');
    }
}

static struct bytes take_text(struct bytes *rest)
{
    size_t len = strnlen(rest->data, rest->len);
    struct bytes text = bytes_of(rest->data, len);
    size_t taken = len < rest->len ? len + 1 : len;
    *rest = bytes_of(rest->data + taken, rest->len - taken);
    return text;
}

struct event event_unpack(enum event_kind kind, struct bytes packed)
{
    struct event event = {.kind = kind};
    if (packed.len < sizeof(event.code))
        return event;
    memcpy(&event.code, packed.data, sizeof(event.code));
    packed = bytes_of(packed.data + sizeof(event.code), packed.len - sizeof(event.code));
    event.connection = take_text(&packed);
    event.peer = take_text(&packed);
    event.protocol = take_text(&packed);
    event.session = take_text(&packed);
    event.reason = take_text(&packed);
    return event;
}
