/* event.h: what a viewer did, on its way from its worker to the stream of events.
 *
 * Path:      worker (events) -> [event] -> command -> node (events) -> Redis.
 * Threads:   plain values.
 * Ownership: borrows.
 */
#pragma once

#include "base/bytes.h"

enum event_kind { EVENT_CONNECT, EVENT_JOIN, EVENT_LEAVE, EVENT_CLOSE };
enum { EVENT_KINDS = 4 };

/* "connect", "join", "leave", "close". */
const char *event_name(enum event_kind kind);

struct event {
    enum event_kind kind; /* not packed */
    struct bytes connection;
    struct bytes peer;
    struct bytes protocol;
    struct bytes session; /* empty: none */
    struct bytes reason;  /* CLOSE: label of the close reason */
    uint16_t code;        /* CLOSE */
};

/* Texts hold no NUL. */
void event_pack(const struct event *event, struct buf *out);
struct event event_unpack(enum event_kind kind, struct bytes packed);
