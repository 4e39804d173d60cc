/* viewer.h: one connection of the load: handshake, join, then counting what comes.
 *
 * Threads:   one client per process; every call on its loop.
 * Ownership: the client owns its viewers; a viewer owns its socket and what it holds of a frame.
 * Limits:    a response head of 8 KB.
 */
#pragma once

#include "bench/bench.h"
#include "bench/frames.h"
#include "bench/inner.h"

enum bench_viewer_state {
    BENCH_VIEWER_NEW,
    BENCH_VIEWER_CONNECTING,
    BENCH_VIEWER_HANDSHAKE,
    BENCH_VIEWER_GREETING,
    BENCH_VIEWER_JOINING,
    BENCH_VIEWER_LIVE,
    BENCH_VIEWER_CLOSED
};

struct bench_viewer {
    int fd;
    uint32_t index;
    uint32_t room;    /* the first one */
    uint32_t unready; /* joins that are not confirmed yet */
    uint8_t state;
    uint8_t group;
    struct frame_reader reader;
    struct buf inner;           /* the beginning of a packet inside the frames */
    struct order *orders;       /* of its rooms, then of their high lanes */
    struct order_counts counts; /* without those */
    uint64_t skipped;           /* messages that this viewer was told it missed */
    bool told;
};

struct client {
    const struct bench_options *options;
    const struct target *target;
    const struct inner *inner; /* NULL: messages are frames */
    struct bench_shared *shared;
    struct shard *shard;
    struct bench_viewer *viewers;
    struct order *orders; /* of all viewers */
    uint32_t rooms_each;  /* rooms of each viewer */
    uint32_t count;
    uint32_t opened;
    uint32_t pending; /* neither ready nor failed */
    int epoll;
    uint32_t wave;
    uint64_t start_ns; /* of the schedule, once it is known */
    bool numbered;     /* this run publishes: numbers begin at 0 */
    size_t stamp_hint;
    uint64_t random;
    struct buf scratch;
    struct buf text;
    char *input;
    /* Of the read at hand. */
    uint64_t now_ns;
    uint32_t measured_in_read;
};

enum { CLIENT_INPUT = 65536 };

/* Begins to connect; a failure is counted and told in the shard. */
void bench_viewer_open(struct client *client, struct bench_viewer *viewer);

/* Acts on what epoll reports. */
void bench_viewer_event(struct client *client, struct bench_viewer *viewer, uint32_t events);

/* Stops or goes on reading. */
void bench_viewer_pause(struct client *client, struct bench_viewer *viewer, bool pause);

/* Hangs up without a word, to come back. */
void bench_viewer_drop(struct bench_viewer *viewer);

/* The run is over: counts what is missing at the end into the shard, says goodbye and closes. */
void bench_viewer_finish(struct client *client, struct bench_viewer *viewer);

/* Appends text with {room} (the viewer's first), {index} and {user} replaced. */
void template_expand(struct client *client, const struct bench_viewer *viewer, const char *text,
                     struct buf *out);
