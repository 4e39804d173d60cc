/* redis_wire.h: Redis' protocol (RESP2): commands out, replies in.
 *
 * Replies are parsed by hiredis' reader with object functions of our own, which lay a reply flat into two reused
 * buffers, one of values and one of their texts: no allocation per reply. An array's items get their places, side by
 * side, when its length is known. Pure: no socket, no clock.
 *
 * Path:      redis_conn -> [wire] -> redis.
 * Threads:   plain values; the owner's thread.
 * Ownership: owns the reader, values and text; a reply borrows them until the next wire_next().
 * Limits:    max_bytes of replies that are not yet complete; WIRE_VALUES_MAX values per reply; hiredis nests no deeper
 *            than seven arrays.
 */
#pragma once

#include "base/bytes.h"
#include "broker/broker_value.h"

struct redisReader;

enum { WIRE_VALUES_MAX = 65536 };

struct wire {
    struct redisReader *reader;
    struct buf text;
    struct broker_value *values; /* the reply's; [0] is its outermost */
    uint32_t count;
    uint32_t cap;
    const struct broker_value *reply; /* after wire_next() returned 1 */
    size_t max_bytes;
    const char *why; /* what the last error was */
};

enum {
    WIRE_ERR_PROTOCOL = -5311, /* not RESP2, or a reply of too many values; wire->why says what */
    WIRE_ERR_TOO_LONG = -5312  /* an unfinished reply is longer than max_bytes */
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
enum wire_event wire_event(const struct broker_value *reply, struct bytes *channel,
                           struct bytes *payload);

/* Is it the answer to PING, in either of its forms (+PONG; ["pong", ""] while subscribed)? */
bool wire_is_pong(const struct broker_value *reply);
