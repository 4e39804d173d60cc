/* bench.h: what the parts of halley-bench share.
 *
 *     main ─▶ options ─▶ run ─┬▶ client (one process each) ─▶ viewer ─▶ frames, stamp, order, latency
 *                             ├▶ publish   (open loop, in the first process)
 *                             ├▶ measure   (/proc of the server)
 *                             └▶ report    (text, JSON)
 *     main ─▶ floor           the bare loop that everything is compared with
 *     main ─▶ follow          viewers that resume while nodes die ─▶ follower ─▶ frames
 *
 * Threads:   none; processes that share one anonymous mapping (struct bench_shared). Each process
 *            writes its own shard; the first one reads the atomics while they run and the rest
 *            after they have ended.
 */
#pragma once

#include "bench/latency.h"
#include "bench/order.h"
#include "bench/stamp.h"
#include "bench/tickets.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    EXIT_BROKEN =
        1, /* measured, but messages were lost, repeated or out of order, or viewers were closed */
    EXIT_USE = 64,
    EXIT_UNREACHABLE = 69,
    EXIT_INTERNAL = 70
};

enum {
    BENCH_HEADERS_MAX = 16,
    BENCH_PROCESSES_MAX = 64,
    BENCH_ROOM_NAME = 96,
    BENCH_WAVES_MAX = 8
};

/* Instead of a wave's number: all drop and nobody comes back. */
#define BENCH_WAVE_NONE UINT32_MAX

struct bench_options {
    const char *url;
    const char *as;
    const char *hello;
    const char *welcome;
    const char *join;
    const char *ready;
    const char *subprotocol;
    const char *room;
    const char *publish;
    const char *publish_text;
    const char *publish_hello;
    const char *prefix;
    const char *type;
    const char *lane;
    const char *source;
    const char *json;
    const char *ticket_file;
    const char *label;
    const char *headers[BENCH_HEADERS_MAX];
    size_t header_count;
    double viewers;
    double processes;
    double rooms;
    double rooms_per_viewer;
    double room_digits;
    double high_every;
    double sources;
    double user_length;
    double connect_rate;
    double connect_timeout;
    double rate;
    double size;
    double frame_bytes;
    double seconds;
    double warmup;
    double batch_ms;
    double settle;
    double drain;
    double leave_wait;
    double p99_limit; /* ms */
    double waves;
    double stall;
    double stall_after;
    double stall_seconds;
    double stall_rcvbuf;
    double pid;
    bool quiet;
    struct ticket_list tickets; /* of ticket_file */
};

/* Fills *out from argv, with defaults and the preset's texts. Returns 0, or EXIT_USE after saying
 * on stderr what is wrong and what is allowed; -1 after --help. */
int options_parse(int argc, char **argv, struct bench_options *out);

/* Room k of a run: NAME when there is one room, NAME.k otherwise. */
void options_room(const struct bench_options *options, uint32_t room, char *out, size_t cap);

static inline uint32_t options_rooms_per_viewer(const struct bench_options *options)
{
    return options->rooms_per_viewer < 1 ? 1 : (uint32_t)options->rooms_per_viewer;
}

/* Distance between the rooms of a viewer. It is as large as can be, so that messages one after the
 * other go to different viewers. */
static inline uint32_t options_room_stride(const struct bench_options *options)
{
    return (uint32_t)options->rooms / options_rooms_per_viewer(options);
}

/* A viewer's k-th room, k from 0 to --rooms-per-viewer less 1. */
static inline uint32_t options_viewer_room(const struct bench_options *options, uint32_t viewer,
                                           uint32_t k)
{
    return (uint32_t)((viewer + (uint64_t)k * options_room_stride(options)) %
                      (uint64_t)options->rooms);
}

/* What is counted apart: messages of the high lane (--high-every), and all others by the two groups
 * of viewers, of which each viewer belongs to one. */
enum group { GROUP_READING, GROUP_STALLING, GROUP_HIGH, GROUPS };

/* Reading or stalling. Spreads the stalling viewers evenly over the numbers. */
enum group options_group(const struct bench_options *options, uint32_t viewer);

struct target {
    char user[128];
    char password[128];
    char host[256]; /* without brackets */
    char authority[300];
    char path[1024]; /* with the query; "/" when the URL has none */
    struct sockaddr_storage address;
    socklen_t address_len;
};

/* Takes scheme://[user:password@]host[:port][/path] apart and resolves it. Returns 0, or -1 after
 * saying why. */
int target_parse(const char *text, const char *scheme, const char *port, struct target *out);

struct tally {
    struct order_counts order;
    uint64_t messages; /* new ones, warm-up too */
    uint64_t measured; /* new ones of the measured part */
    uint64_t reads;    /* socket reads that brought measured messages */
    uint64_t bytes;    /* on the wire, of measured messages */
    uint64_t wrong_room;
    uint64_t stale; /* stamped before this run began */
    uint64_t skip_notices;
    uint64_t skipped; /* messages that the skip notices speak of */
    uint64_t gap_notices;
    uint64_t told;      /* viewers with a skip notice */
    uint64_t accounted; /* viewers that lost as many as they were told */
    uint64_t current;   /* viewers whose newest message is the last one published */
    struct latency latency;
};

struct shard {
    _Atomic uint32_t opened;
    _Atomic uint32_t ready;  /* of all waves together */
    _Atomic uint32_t failed; /* before they were ready */
    _Atomic uint32_t closed; /* afterwards, not by us */
    _Atomic uint64_t delivered[GROUPS];
    struct tally tallies[GROUPS];
    uint16_t close_code; /* of the first close frame */
    char failure[200];   /* what went wrong first; written before failed or closed is counted up */
};

enum bench_phase { PHASE_OPEN, PHASE_RUN, PHASE_STOP };

struct bench_shared {
    _Atomic uint32_t phase;
    _Atomic uint32_t wave;    /* counted up: all viewers drop and come back */
    struct schedule schedule; /* written before PHASE_RUN */
    uint64_t stall_from_ns;   /* 0: never */
    uint64_t stall_until_ns;
    struct shard shards[];
};

/* The viewers of process number `process`: opens them, reads until PHASE_STOP, leaves. */
void client_run(const struct bench_options *options, const struct target *target,
                struct bench_shared *shared, uint32_t process);

/* What the kernel says about a server, all of it counted up since its start. */
struct probe {
    uint64_t time_ns;
    uint64_t cpu_ns; /* of all threads that live */
    uint64_t user_ns;
    uint64_t system_ns;
    uint64_t ksoftirqd_ns; /* of the whole machine */
    uint64_t client_ns;    /* of this process and its children that live */
    uint64_t tcp_segments; /* sent, of the whole machine */
    uint64_t delivered;    /* by all viewers, warm-up too */
};

struct memory {
    uint64_t pss_bytes;  /* 0: not known */
    uint64_t slab_bytes; /* sockets and their buffers, of the whole machine; 0: not known */
};

/* pid 0 measures only what belongs to the machine. Children are the client's processes. */
void probe_take(uint32_t pid, const int *children, uint32_t child_count, struct probe *out);
void memory_take(uint32_t pid, struct memory *out);

struct publisher;

/* Connects. Returns NULL after saying why it can't. */
struct publisher *publisher_create(const struct bench_options *options);
void publisher_destroy(struct publisher *publisher);

/* A publisher that keeps time itself (the floor) is told the schedule. Returns true if so, and
 * false where publisher_add() must be called for each message when it is due. */
bool publisher_start(struct publisher *publisher, const struct schedule *schedule);
void publisher_add(struct publisher *publisher, uint64_t message, uint64_t due_ns);

/* Writes what the socket takes, reads answers. When the other side goes away, it says so and connects
 * again as soon as that is possible. */
void publisher_pump(struct publisher *publisher);

/* -1 while there is no connection. */
int publisher_fd(const struct publisher *publisher);
bool publisher_wants_write(const struct publisher *publisher);

struct publish_counts {
    uint64_t published; /* handed to the publisher */
    uint64_t confirmed;
    uint64_t refused;
    uint64_t unsent; /* dropped here: the other side was away, or took nothing for too long */
    uint64_t late_max_ns;
};

struct publish_counts publisher_counts(const struct publisher *publisher);

/* All viewers connect and join; from the second on they drop first. */
struct wave {
    struct probe from;
    struct probe to; /* --settle after the last join, so that nothing of the wave is left undone */
    struct memory memory;
    double seconds; /* until the last join */
};

struct bench_result {
    struct schedule schedule;
    struct tally tallies[GROUPS];
    uint64_t expected[GROUPS]; /* measured messages */
    uint64_t viewers[GROUPS];
    struct publish_counts publish;
    uint32_t closed;
    uint16_t close_code;
    char failure[200];
    double connect_seconds;
    double elapsed_seconds; /* between begin and end */
    struct probe opening;   /* before the first connection */
    struct probe opened;
    struct probe begin; /* before the first measured message */
    struct probe end;   /* after the last delivery */
    struct memory fresh;
    struct memory connected;
    struct memory peak;
    struct memory left;
    double left_seconds;
    struct wave waves[BENCH_WAVES_MAX];
    struct wave drop; /* with several waves: at the end all drop, as they did before each of them */
};

/* Runs a load. Returns 0 with *out filled, or an exit code after saying what went wrong. */
int bench_run(const struct bench_options *options, struct bench_result *out);

/* True when every reader got every message once and in order and nobody was closed. Viewers that
 * stall may lose what they are told about. */
bool result_clean(const struct bench_result *result);

void report_text(const struct bench_options *options, const struct bench_result *result);

/* Writes the result to options->json. Returns 0 or -1 after saying why. */
int report_json(const struct bench_options *options, const struct bench_result *result);

/* The command `halley-bench floor`. Returns an exit code. */
int floor_main(int argc, char **argv);
