/* publish.h: the publisher from within, for the ways of publishing (publish*.c).
 *
 * Threads:   the first process.
 * Ownership: bench.h creates and destroys it; a kind owns nothing.
 * Limits:    64 MB wait for a socket that takes nothing; what comes on top is counted as unsent.
 */
#pragma once

#include "base/bytes.h"
#include "bench/bench.h"
#include "bench/frames.h"

struct inner;

struct publisher_kind {
    const char *scheme;
    const char *port;
    const struct inner *inner;
    /* Returns NULL, or why this kind can't do what the options ask for; may be NULL. */
    const char *(*check)(const struct publisher *publisher);
    void (*open)(struct publisher *publisher); /* first bytes of a connection; may be NULL */
    /* NULL: the other side keeps time itself */
    void (*add)(struct publisher *publisher, const char *room, struct bytes data);
    /* Reads publisher->in, which a zero byte ends. Returns NULL, or why the connection is of no more
     * use. */
    const char *(*answers)(struct publisher *publisher);
};

struct publisher {
    const struct bench_options *options;
    const struct publisher_kind *kind; /* NULL: nobody publishes */
    struct target target;
    int fd;            /* -1 while the other side is away */
    uint64_t retry_ns; /* when to connect again */
    struct buf out;
    size_t written;          /* of out */
    struct schedule streams; /* only what deals messages out to rooms and lanes */
    bool high;               /* the message at hand goes to the high lane */
    struct buf in;
    struct buf data;
    struct buf body;
    struct publish_counts counts;
    /* --publish ws://…: */
    bool upgraded;    /* the handshake is done */
    struct buf later; /* frames that wait for it */
    struct frame_reader frames;
    uint64_t random;
};

extern const struct publisher_kind publisher_ws;
extern const struct publisher_kind publisher_nats;
extern const struct publisher_kind publisher_mqtt;

/* Counts a refusal; the first one is told. */
void publisher_refused(struct publisher *publisher, const char *text, size_t len);
