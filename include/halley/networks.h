/* networks.h: how long a connection may be idle in each network before something in between forgets it.
 *
 * A network is an address prefix (IPv4 /24, IPv6 /64) with what the viewer says of its link (wifi, cell). Its interval climbs by
 * levels, each 1.35 times the last. One viewer at a time, the scout, tries the next level; the others are told nine tenths of the level that
 * holds, less a jitter:
 *
 *      safe ---- x1.35 ---- held ---- x1.35 ---- tried by the scout | ceiling: lost twice, not tried again
 *                      others: 0.855 to 0.9 of held
 *
 * A level holds when an idle time of that length was survived three times. A connection counts as lost only if its session comes back from
 * the same network in time: a phone that went away is no NAT that forgot. Where a scout does not come back the level only rests, at
 * first for 24 safe intervals, and twice as long (at most eight times) for each further one in turn; a ceiling is made of returns alone.
 * What is lost below the level that holds is believed unless somebody of the network survived as long since, and then the network falls back to
 * the safe interval at once. Of such doubtful losses too many are believed: more than 3, one for each hundred viewers and one for each
 * three that were missed, in ten minutes (of forgotten connections nearly all come back in time, of phones that went away few). One that is
 * back before it is missed, because a reset told it, comes too soon for others to have survived: three such in a row are believed.
 *
 * Path:      timer wheel, pings, handshakes -> [networks] -> interval in welcome and pong.
 * Threads:   none inside; one owner's thread.
 * Ownership: owns the networks; a pulse (embedded in the viewer) borrows its own until halley_pulse_end().
 * Limits:    `entries`; past it a further network is not learned about. One without viewers is forgotten after a day, or
 *            before, where room is needed. Sessions that are missed have 8,191 slots; where two share one the newer counts.
 *            Times are milliseconds of a monotonic clock modulo 2^32, intervals up to an hour.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct halley_networks;
struct halley_network;

enum halley_hint { HALLEY_HINT_NONE, HALLEY_HINT_WIFI, HALLEY_HINT_CELL };

struct halley_networks_policy {
    uint32_t safe_ms;  /* where every network starts; nothing is told below it but … */
    uint32_t brief_ms; /* … this, to who asked for it; no more than safe_ms counts */
    uint32_t max_ms;   /* nothing is told above it; not more than safe_ms: nothing is learned */
    uint32_t back_ms;  /* a session whose ping is missing must be back so soon to count as lost */
    uint32_t entries;
};

/* A viewer's part; zero: in no network, and told the safe interval. */
struct halley_pulse {
    struct halley_network *network;
    uint32_t session; /* hash of user and session; 0: it has none, and can't be a scout */
    uint16_t told_ds; /* the interval that it goes by, in tenths of a second */
    uint8_t silent;   /* so many 200ths of that nothing had gone through before its last ping */
    bool fixed : 1;   /* it can't be told another one: never a scout */
    bool brief : 1;   /* it asked for short intervals: teaches nothing, follows nobody */
    bool missed : 1;  /* it was asked, and has not answered yet */
};

enum halley_loss {
    HALLEY_LOSS_NONE,
    HALLEY_LOSS_SCOUT,   /* the level that it tried is too long */
    HALLEY_LOSS_FELL,    /* the network fell back to the safe interval */
    HALLEY_LOSS_DOUBTED, /* others survived as long since: not believed */
    HALLEY_LOSS_LATE     /* it was told its interval before the network fell back, or rose */
};

/* Returns NULL when memory is out. */
struct halley_networks *halley_networks_create(void);
/* No pulse may be in a network any more. NULL is fine. */
void halley_networks_destroy(struct halley_networks *networks);
uint32_t halley_networks_count(const struct halley_networks *networks);
size_t halley_networks_memory(const struct halley_networks *networks);
/* Another safe interval makes other levels: all networks start anew. */
void halley_networks_restart(struct halley_networks *networks);
/* Forgets networks that nobody was in for a day; looks at up to `most` of them. */
void halley_networks_expire(struct halley_networks *networks, uint32_t now_ms, uint32_t most);

/* A viewer came. The pulse's session, `fixed` and `brief` are set; prefix: the network part of its address. A network is made only for one that
 * may be a scout. Returns what its coming back says of its last connection. */
enum halley_loss halley_pulse_start(struct halley_networks *networks, struct halley_pulse *pulse,
                                    const struct halley_networks_policy *policy, uint64_t prefix,
                                    enum halley_hint hint, uint32_t now_ms);

/* The scout of the pulse's network, when it is an older connection of the same session; else NULL. */
struct halley_pulse *halley_pulse_ghost(const struct halley_pulse *pulse);
/* Its session is back on a new connection from the same network. idle_ms: how long nothing went through the old one, either way: as long as it was
 * told, and its sign of life met a reset. Not the scout's only: whoever is the caller's to find. */
enum halley_loss halley_pulse_replaced(struct halley_pulse *ghost,
                                       const struct halley_networks_policy *policy,
                                       uint32_t idle_ms, uint32_t now_ms);

/* Bytes came, after nothing had gone through for idle_ms, either way. */
void halley_pulse_heard(struct halley_networks *networks, struct halley_pulse *pulse,
                        const struct halley_networks_policy *policy, uint32_t idle_ms,
                        uint32_t now_ms);

/* The interval that the viewer is to go by from the start, in milliseconds; kept in told_ds. random: any 32 bits, for the jitter, which
 * only shortens. */
uint32_t halley_pulse_settle(struct halley_pulse *pulse,
                             const struct halley_networks_policy *policy, uint32_t random);

/* The same, for one that has shown that it lives: it may become the scout, unless it is fixed. */
uint32_t halley_pulse_next(struct halley_pulse *pulse, const struct halley_networks_policy *policy,
                           uint32_t now_ms, uint32_t random);

/* Its sign of life is overdue, and it was sent a ping. */
void halley_pulse_asked(struct halley_networks *networks, struct halley_pulse *pulse,
                        const struct halley_networks_policy *policy, uint32_t idle_ms,
                        uint32_t now_ms);

/* A ping goes to it that it gets each interval (Engine.IO 4), the first since it was heard, after an idle time of idle_ms. */
void halley_pulse_pinged(struct halley_pulse *pulse, uint32_t idle_ms);

/* That idle time: it is survived when bytes come after the ping. */
static inline uint32_t halley_pulse_silent_ms(const struct halley_pulse *pulse)
{
    return (uint32_t)pulse->told_ds * pulse->silent / 2;
}

/* Nothing came for since_ms after that ping: as halley_pulse_asked(), if there was an idle time before it. */
void halley_pulse_unanswered(struct halley_networks *networks, struct halley_pulse *pulse,
                             const struct halley_networks_policy *policy, uint32_t since_ms,
                             uint32_t now_ms);

/* The connection is over, which says nothing of the level while its session is not back. Fine on a pulse that never started or has ended. */
void halley_pulse_end(struct halley_networks *networks, struct halley_pulse *pulse,
                      const struct halley_networks_policy *policy, uint32_t now_ms);

static inline uint32_t halley_pulse_told_ms(const struct halley_pulse *pulse)
{
    return pulse->told_ds * 100u;
}

/* For operators and tests: the level that holds in the pulse's network, in milliseconds; 0: in none. */
uint32_t halley_pulse_held_ms(const struct halley_pulse *pulse,
                              const struct halley_networks_policy *policy);
