/* redis_wire.h: Redis' protocol (RESP2): commands out, replies in.
 *
 * Replies are parsed by hiredis' reader with object functions of our own, which lay a reply flat into one reused
 * buffer: no allocation per reply. What pub/sub needs is a value, or an array of at most WIRE_ITEMS_MAX values;
 * anything deeper or longer is a protocol error. Pure: no socket, no clock.
 *
 * Path:      redis_conn -> [wire] -> redis.
 * Threads:   plain values; the owner's thread.
 * Ownership: owns the reader and the text; a reply borrows the text until the next wire_next().
 * Limits:    max_bytes of replies that are not yet complete; WIRE_ITEMS_MAX.
 */
#pragma once

#include "base/bytes.h"

struct redisReader;

enum { WIRE_ITEMS_MAX = 4 };

enum wire_type { WIRE_STATUS, WIRE_ERROR, WIRE_STRING, WIRE_INTEGER, WIRE_NIL, WIRE_ARRAY };

struct wire_item {
    enum wire_type type;
    struct bytes text; /* of a status, an error or a string */
    int64_t number;    /* of an integer; how many items of an array */
};

struct wire_reply {
    struct wire_item top;
    struct wire_item items[WIRE_ITEMS_MAX]; /* top.number of them when top is an array */
};

struct wire {
    struct redisReader *reader;
    struct buf text;
    struct wire_reply reply;
    size_t max_bytes;
    const char *why; /* what the last error was */
};

enum {
    WIRE_ERR_PROTOCOL =
        -5311, /* not RESP2, or more than pub/sub ever answers; wire->why says what */
    WIRE_ERR_TOO_LONG = -5312 /* an unfinished reply is longer than max_bytes */
};

/* Returns 0 or UV_ENOMEM. */
int wire_init(struct wire *wire, size_t max_bytes);
void wire_fini(struct wire *wire); /* a zeroed one is fine */

/* Takes bytes from Redis (copied). Returns 0, UV_ENOMEM or WIRE_ERR_TOO_LONG. Call wire_next() until it returns 0
 * before the next feed, or bytes gather up to max_bytes. */
int wire_feed(struct wire *wire, const char *data, size_t len);

/* Returns 1 with the next reply in wire->reply, 0 when more bytes are needed, UV_ENOMEM or WIRE_ERR_PROTOCOL. After
 * an error only wire_fini() is of use. */
int wire_next(struct wire *wire);

/* Appends a command as an array of bulk strings. */
void wire_command_start(struct buf *out, size_t args);
void wire_command_arg(struct buf *out, struct bytes arg);

/* What a reply on a subscriber's connection says. */
enum wire_event {
    WIRE_EVENT_OTHER,
    WIRE_EVENT_MESSAGE,
    WIRE_EVENT_SUBSCRIBED,
    WIRE_EVENT_UNSUBSCRIBED
};

/* *channel and *payload (of a message) borrow the reply. */
enum wire_event wire_event(const struct wire_reply *reply, struct bytes *channel,
                           struct bytes *payload);

/* Is it the answer to PING, in either of its forms (+PONG; ["pong", ""] while subscribed)? */
bool wire_is_pong(const struct wire_reply *reply);
