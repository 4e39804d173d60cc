/* crowd.h: viewers behind a NAT that forgets, and the gateway that learns about it, played over hours in no time.
 *
 * The clock of the play counts 64 bits from 0; the networks see it modulo 2^32.
 */
#pragma once

#include "halley/networks.h"

enum { CROWD_SAFE_MS = 25000, CROWD_TIMEOUT_MS = 60000 };

struct crowd {
    /* What is played. */
    uint32_t viewers;
    uint32_t forgets_ms; /* the NAT, after so long an idle time */
    uint32_t
        away_per_hour; /* of 100 viewers so many go away by themselves; most come back at some time */
    uint32_t sent_reset;    /* 1: who is forgotten gets a reset at its next packet; 0: silence */
    uint32_t talk_every_ms; /* the gateway writes to all so often; 0: never */
    uint64_t seed;
    uint64_t prefix;
    uint64_t clock_start;
    struct halley_networks_policy policy;

    /* Two things that may happen to everybody; 0: never. */
    uint64_t outage_at_ms; /* everybody is cut off for 20 s and comes back */
    uint64_t forgets_less_at_ms;
    uint32_t forgets_then_ms;

    /* What came of it. */
    uint32_t lost; /* connections that the NAT forgot */
    uint64_t last_lost_ms;
    uint32_t lost_after_ms; /* counted from here on in … */
    uint32_t lost_late;     /* … this */
    uint32_t scouts_lost;   /* as the networks saw it */
    uint32_t fell;
    uint32_t doubted;
    uint32_t away;
    uint32_t shortest_ms; /* told at the end, scouts apart */
    uint32_t longest_ms;
    uint64_t settled_ms; /* the level that holds changed last */
};

/* Plays until end_ms. */
void crowd_play(struct crowd *crowd, uint64_t end_ms);
