/* heartbeat.h: who must be pinged, who is dead, and when to look again.
 *
 * Only bytes from the peer prove that it lives; what was written to it proves nothing. Jitter only ever shortens an interval, so what was
 * promised to the peer holds.
 *
 * Path:      timer wheel -> [heartbeat] -> ping, close, or look again later.
 * Threads:   none inside.
 * Limits:    times are milliseconds of a monotonic clock modulo 2^32; intervals up to an hour.
 */
#pragma once

#include <stdint.h>

enum halley_heartbeat_style {
    HALLEY_HEARTBEAT_NATIVE, /* the client pings; the gateway pings whom it has not heard for interval + 5 s; dead: no byte for timeout after an
                                unanswered ping */
    HALLEY_HEARTBEAT_CLIENT, /* Engine.IO 3: the client pings; dead: no byte for interval + timeout (engine.io-protocol v3) */
    HALLEY_HEARTBEAT_SERVER /* Engine.IO 4: the gateway pings each interval; dead: no byte for timeout after a ping (v4) */
};

enum { HALLEY_HEARTBEAT_GRACE_MS = 5000 };

struct halley_heartbeat_policy {
    enum halley_heartbeat_style style;
    uint32_t interval_ms;
    uint32_t timeout_ms;
};

struct halley_heartbeat {
    uint32_t heard_ms;  /* last byte from the peer, or the start */
    uint32_t pinged_ms; /* last ping sent, or the start */
    uint32_t
        asked_ms; /* first ping since the last byte, its lowest bit set; 0: none is unanswered */
};

enum halley_heartbeat_action {
    HALLEY_HEARTBEAT_WAIT,
    HALLEY_HEARTBEAT_PING,
    HALLEY_HEARTBEAT_DEAD
};

struct halley_heartbeat_verdict {
    enum halley_heartbeat_action action;
    uint32_t next_ms; /* look again after so many milliseconds, at least 1 */
};

void halley_heartbeat_init(struct halley_heartbeat *beat, uint32_t now_ms);

/* Bytes came from the peer. */
static inline void halley_heartbeat_heard(struct halley_heartbeat *beat, uint32_t now_ms)
{
    beat->heard_ms = now_ms;
    beat->asked_ms = 0;
}

/* What is to be done now. PING: send one; it is noted as sent. random: any 32 bits, for the jitter of up to a tenth of the interval
 * (native: and at most half of the grace, so that a client that pings each interval is never asked). */
struct halley_heartbeat_verdict halley_heartbeat_check(struct halley_heartbeat *beat,
                                                       const struct halley_heartbeat_policy *policy,
                                                       uint32_t now_ms, uint32_t random);
