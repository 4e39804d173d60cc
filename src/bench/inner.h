/* inner.h: protocols with frames of their own inside WebSocket frames: MQTT 3.1.1 and NATS.
 *
 * A WebSocket frame may carry part of a packet or many packets (MQTT 3.1.1 §6), so what comes is
 * read as one stream. Over a plain connection the same bytes serve the publisher.
 *
 * Threads:   plain values.
 * Ownership: the caller owns the buffer of what a read cut off; events borrow until the sink
 *            returns.
 * Limits:    a packet of INNER_PACKET_MAX bytes. Client names and rooms have at most 255 bytes.
 */
#pragma once

#include "base/bytes.h"

#include <stdbool.h>

enum { INNER_PACKET_MAX = 4 << 20 };

enum inner_kind {
    INNER_OTHER,   /* nothing that matters here */
    INNER_JOINED,  /* the subscription stands */
    INNER_MESSAGE, /* data: what was published */
    INNER_PING,    /* wants inner->pong */
    INNER_REFUSED  /* data: what the server says */
};

struct inner_event {
    enum inner_kind kind;
    struct bytes data;
    size_t wire; /* bytes of the packet, without the WebSocket header around it */
};

struct inner_login {
    const char *client; /* "" lets the server choose */
    const char *user;   /* "": none */
    const char *password;
};

struct inner {
    const char *name; /* of --as, and the scheme of --publish */
    const char *subprotocol;
    struct bytes pong;
    void (*login)(struct buf *out, const struct inner_login *login);
    void (*subscribe)(struct buf *out, const char *room);
    void (*publish)(struct buf *out, const char *room, struct bytes data);
    /* Reads the packet at the beginning of data. Returns NULL with its length in *used (0: not all
     * there), or a sentence about what the server did wrong. */
    const char *(*next)(struct bytes data, size_t *used, struct inner_event *out);
};

extern const struct inner inner_mqtt;
extern const struct inner inner_nats;

/* Returns NULL when there is none of that name. */
const struct inner *inner_of(const char *name);

typedef void inner_sink(void *ctx, const struct inner_event *event);

/* Takes bytes of the stream and calls the sink for each packet that is complete; what was cut off
 * waits in *held. Returns NULL, or what is wrong; the stream is then of no more use. */
const char *inner_feed(const struct inner *inner, struct buf *held, struct bytes data,
                       inner_sink *sink, void *ctx);
