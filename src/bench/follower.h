/* follower.h: one viewer that comes back after every loss and resumes, as docs/protocol.md's recipe
 * for resume says. What must not happen (a hole, a repeat, a loss for good) is counted.
 *
 * Threads:   one loop, every call on it.
 * Ownership: struct follow owns the viewers; a viewer owns its socket and what it holds of a frame.
 * Limits:    FOLLOW_OPENING_MAX handshakes at once; FOLLOW_CODES_MAX kinds of closes and of errors
 *            are told apart.
 */
#pragma once

#include "bench/bench.h"
#include "bench/frames.h"
#include "protocol/history_id.h"

#include <netinet/in.h>

enum {
    FOLLOW_TARGETS_MAX = 16,
    FOLLOW_CODES_MAX = 12,
    FOLLOW_CODE_TEXT = 32,
    FOLLOW_OPENING_MAX = 128,
    FOLLOW_INPUT = 262144
};

enum follower_state { FOLLOWER_AWAY, FOLLOWER_CONNECTING, FOLLOWER_HANDSHAKE, FOLLOWER_OPEN };

struct follower {
    int fd;
    uint8_t state;
    uint8_t target;    /* of the last connection */
    bool known;        /* it was in the room before: have is what it goes on from */
    bool joined;       /* since it connected */
    bool healing;      /* a join is on its way: messages come again */
    bool slow;         /* stops reading again and again */
    bool stalled;      /* does so now */
    uint64_t due_ns;   /* AWAY: comes back then; while it opens: gives up then */
    uint64_t join_ns;  /* joins again then; 0: need not */
    uint64_t stall_ns; /* slow: stops or goes on reading then */
    uint64_t retry_ns; /* what a goodbye asked for; 0: none */
    struct history_point have[LANE_COUNT];
    struct history_point sent[LANE_COUNT]; /* with the last join */
    struct frame_reader reader;
};

struct follow_code {
    char text[FOLLOW_CODE_TEXT];
    uint64_t count;
};

struct follow_counts {
    uint64_t connects;
    uint64_t joins;
    uint64_t messages;
    uint64_t holes;
    uint64_t repeats;
    uint64_t lost; /* places that a join could not go on from: another epoch, or too far back */
    uint64_t skipped;
    uint64_t gaps;
    uint64_t gaps_in[LANE_COUNT];
    struct follow_code closes[FOLLOW_CODES_MAX];
    struct follow_code errors[FOLLOW_CODES_MAX];
    char wrong[160]; /* the first hole or repeat */
};

struct follow {
    struct target targets[FOLLOW_TARGETS_MAX];
    uint32_t target_count;
    const char *room;
    struct sockaddr_in source; /* of the first viewer; family 0: the system's choice */
    uint32_t sources;          /* viewers take so many addresses in turn */
    uint32_t count;
    double slow_share; /* of the viewers, 0 to 1 */
    uint64_t stall_ns;
    uint64_t report_ns;
    uint64_t end_ns; /* 0: a signal ends it */
    struct follower *viewers;
    struct follow_counts counts;
    uint32_t opening;
    bool away; /* all stay away */
    int epoll;
    uint64_t now_ns;
    uint64_t random;
    struct buf scratch;
    struct buf text;
    char *input;
};

/* Does what is due at follow->now_ns: connects, joins, stops or goes on reading. */
void follower_step(struct follow *follow, struct follower *viewer);

/* Acts on what epoll reports. */
void follower_event(struct follow *follow, struct follower *viewer);

/* Hangs up without a word, and comes back pause_ns later. */
void follower_drop(struct follow *follow, struct follower *viewer, uint64_t pause_ns);

/* The command `halley-bench follow`. Returns an exit code. */
int follow_main(int argc, char **argv);
