/* peer.h: a peer and the gateway's look at it, played over hours in no time.
 *
 * The clock of the play counts 64 bits from 0; the heartbeat sees it from `clock_start` on, modulo
 * 2^32.
 */
#pragma once

#include "halley/heartbeat.h"

#include <stdbool.h>
#include <stdint.h>

enum { HOUR_MS = 3600000 };

struct peer {
    /* What it does. */
    uint32_t sends_every_ms;   /* 0: never by itself */
    uint32_t answers_after_ms; /* to a ping; UINT32_MAX: never */
    uint64_t dies_at_ms;       /* nothing comes from it any more; UINT64_MAX: it lives on */
    uint32_t looks_late_ms;    /* the timer wheel: looks come up to so much later than asked for */
    uint32_t clock_start;
    uint64_t seed;
    struct halley_heartbeat_policy policy;

    /* What came of it. */
    bool dead;
    uint64_t ended_ms;       /* found dead, or the end of the play */
    uint64_t heard_ms;       /* last byte */
    uint64_t first_asked_ms; /* first ping since the last byte, or 0 */
    uint64_t last_ping_ms;
    uint64_t pings;
    uint64_t looks;
    uint64_t shortest_ms; /* between two pings, or the start and the first */
    uint64_t longest_ms;
    uint64_t longest_silence_ms; /* from the last byte to the first ping after it */
    uint64_t shortest_silence_ms;
};

/* Plays until the peer is found dead or `end_ms` is reached. */
void peer_play(struct peer *peer, uint64_t end_ms);
