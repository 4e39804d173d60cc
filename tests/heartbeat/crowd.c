#include "heartbeat/crowd.h"

#include "base/clock.h"
#include "base/minmax.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIP_MS = 80,
    GRACE_MS = 5000, /* the gateway asks so long after a missing ping */
    AWAY_MEAN_MS = 600000,
    SLOT_MS = 1000, /* of the calendar */
    SLOTS = 4096,
    LOOK_SLOTS = 4,
    OUTAGE_MS = 20000
};

/* A connection as the gateway has it. */
struct link_side {
    struct halley_pulse pulse;
    bool open;
    bool asked;
    uint64_t heard_ms;
    uint64_t written_ms;
};

enum phone_state { PHONE_LIVES, PHONE_WAITS, PHONE_AWAY };

struct phone {
    struct link_side now; /* the gateway's side, alive for a while when the phone has gone */
    enum phone_state state;
    bool forgotten;       /* the NAT has no entry for its connection */
    uint32_t interval_ms; /* as it was told */
    uint64_t packet_ms;   /* last packet either way, that the NAT saw */
    uint64_t act_ms;      /* next ping, end of its patience, or its return */
    struct phone *next;   /* in the calendar's slot */
};

struct play {
    struct crowd *crowd;
    struct halley_networks *networks;
    struct phone *phones;
    struct phone *slots[SLOTS];
    uint64_t random;
    uint64_t now_ms;
    uint32_t held_ms;
};

static uint32_t draw(struct play *play, uint32_t below)
{
    return (uint32_t)((random_next(&play->random) >> 33) % below);
}

/* The gateway's clock. */
static uint32_t clock_of(const struct play *play)
{
    return (uint32_t)(play->crowd->clock_start + play->now_ms);
}

static void put(struct play *play, struct phone *phone, uint64_t at_ms)
{
    uint64_t next_slot = (play->now_ms / SLOT_MS + 1) * SLOT_MS; /* this one is being taken */
    phone->act_ms = at_ms > next_slot ? at_ms : next_slot;
    struct phone **slot = &play->slots[phone->act_ms / SLOT_MS % SLOTS];
    phone->next = *slot;
    *slot = phone;
}

static uint32_t idle_of(const struct play *play, const struct link_side *side)
{
    uint64_t last = side->heard_ms > side->written_ms ? side->heard_ms : side->written_ms;
    return (uint32_t)(play->now_ms - last);
}

static void note(struct play *play, enum halley_loss loss)
{
    play->crowd->scouts_lost += loss == HALLEY_LOSS_SCOUT;
    play->crowd->fell += loss == HALLEY_LOSS_FELL;
    play->crowd->doubted += loss == HALLEY_LOSS_DOUBTED;
}

/* What the gateway's timer does for one connection: ask, then bury. */
static void look(struct play *play, struct link_side *side)
{
    if (!side->open)
        return;
    uint64_t due = side->heard_ms + halley_pulse_told_ms(&side->pulse) + GRACE_MS;
    if (!side->asked && play->now_ms >= due) {
        side->asked = true;
        halley_pulse_asked(play->networks, &side->pulse, &play->crowd->policy, idle_of(play, side),
                           clock_of(play));
        side->written_ms = play->now_ms;
    }
    if (side->asked && play->now_ms >= due + CROWD_TIMEOUT_MS) {
        halley_pulse_end(play->networks, &side->pulse, &play->crowd->policy, clock_of(play));
        side->open = false;
    }
}

static uint32_t forgets_ms(const struct play *play)
{
    const struct crowd *crowd = play->crowd;
    bool less = crowd->forgets_less_at_ms && play->now_ms >= crowd->forgets_less_at_ms;
    return less ? crowd->forgets_then_ms : crowd->forgets_ms;
}

static void connect_phone(struct play *play, struct phone *phone, uint32_t session)
{
    struct link_side fresh = {.open = true, .heard_ms = play->now_ms, .written_ms = play->now_ms};
    fresh.pulse.session = session;
    note(play, halley_pulse_start(play->networks, &fresh.pulse, &play->crowd->policy,
                                  play->crowd->prefix, HALLEY_HINT_CELL, clock_of(play)));
    struct halley_pulse *ghost = &phone->now.pulse;
    if (phone->now.open && ghost->network == fresh.pulse.network)
        note(play, halley_pulse_replaced(ghost, &play->crowd->policy, idle_of(play, &phone->now),
                                         clock_of(play)));
    halley_pulse_end(play->networks, &phone->now.pulse, &play->crowd->policy,
                     clock_of(play)); /* replaced */
    phone->now = fresh;
    phone->state = PHONE_LIVES;
    phone->forgotten = false;
    phone->packet_ms = play->now_ms;
    phone->interval_ms =
        halley_pulse_settle(&phone->now.pulse, &play->crowd->policy, draw(play, INT32_MAX));
    put(play, phone, play->now_ms + phone->interval_ms);
}

static bool goes_away(struct play *play, const struct phone *phone)
{
    /* Per interval: away_per_hour / 100 * interval / hour. */
    uint64_t chance = (uint64_t)play->crowd->away_per_hour * phone->interval_ms;
    return draw(play, 360000000) < chance;
}

static bool is_out(const struct play *play)
{
    uint64_t at = play->crowd->outage_at_ms;
    return at && play->now_ms >= at && play->now_ms < at + OUTAGE_MS;
}

/* Its interval is over: it pings. */
static void ping(struct play *play, struct phone *phone)
{
    struct crowd *crowd = play->crowd;
    if (goes_away(play, phone)) {
        crowd->away++;
        phone->state = PHONE_AWAY;
        put(play, phone, play->now_ms + draw(play, 2 * AWAY_MEAN_MS));
        return;
    }
    if (!phone->forgotten && play->now_ms - phone->packet_ms > forgets_ms(play)) {
        phone->forgotten = true;
        crowd->lost++;
        crowd->last_lost_ms = play->now_ms;
        crowd->lost_late += crowd->lost_after_ms && play->now_ms >= crowd->lost_after_ms;
    }
    if (phone->forgotten || is_out(play)) {
        phone->state = PHONE_WAITS;
        put(play, phone,
            play->now_ms + (phone->forgotten && crowd->sent_reset
                                ? TRIP_MS + draw(play, 1000)
                                : CROWD_TIMEOUT_MS + draw(play, 5000)));
        return;
    }
    phone->packet_ms = play->now_ms;
    struct link_side *side = &phone->now;
    side->asked = false;
    halley_pulse_heard(play->networks, &side->pulse, &crowd->policy, idle_of(play, side),
                       clock_of(play));
    side->heard_ms = side->written_ms = play->now_ms;
    phone->interval_ms =
        halley_pulse_next(&side->pulse, &crowd->policy, clock_of(play), draw(play, INT32_MAX));
    put(play, phone, play->now_ms + phone->interval_ms);
    uint32_t held = halley_pulse_held_ms(&side->pulse, &crowd->policy);
    if (held != play->held_ms)
        crowd->settled_ms = play->now_ms;
    play->held_ms = held;
}

static void act(struct play *play, struct phone *phone)
{
    uint32_t session = (uint32_t)(phone - play->phones) + 1;
    if (phone->state == PHONE_LIVES)
        ping(play, phone);
    else
        connect_phone(play, phone, session);
}

/* The gateway writes to all: a packet that the NAT sees, and lets through where it still knows the connection. */
static void talk(struct play *play)
{
    for (uint32_t i = 0; i < play->crowd->viewers; i++) {
        struct phone *phone = &play->phones[i];
        if (phone->now.open)
            phone->now.written_ms = play->now_ms;
        if (!phone->forgotten && phone->state == PHONE_LIVES &&
            play->now_ms - phone->packet_ms <= forgets_ms(play))
            phone->packet_ms = play->now_ms;
    }
}

static void take_slot(struct play *play, uint64_t slot)
{
    struct phone *due = play->slots[slot % SLOTS];
    play->slots[slot % SLOTS] = NULL;
    while (due) {
        struct phone *phone = due;
        due = due->next;
        if (phone->act_ms / SLOT_MS > slot) { /* the calendar came round */
            put(play, phone, phone->act_ms);
            continue;
        }
        play->now_ms = phone->act_ms > play->now_ms ? phone->act_ms : play->now_ms;
        look(play, &phone->now);
        act(play, phone);
    }
}

static void look_at_all(struct play *play)
{
    for (uint32_t i = 0; i < play->crowd->viewers; i++)
        look(play, &play->phones[i].now);
}

static void sum_up(struct play *play)
{
    struct crowd *crowd = play->crowd;
    crowd->shortest_ms = UINT32_MAX;
    for (uint32_t i = 0; i < crowd->viewers; i++) {
        const struct phone *phone = &play->phones[i];
        if (phone->state != PHONE_LIVES)
            continue;
        crowd->shortest_ms = least(crowd->shortest_ms, phone->interval_ms);
        crowd->longest_ms = most(crowd->longest_ms, phone->interval_ms);
    }
}

void crowd_play(struct crowd *crowd, uint64_t end_ms)
{
    struct play play = {.crowd = crowd,
                        .networks = halley_networks_create(),
                        .phones = calloc(crowd->viewers, sizeof(struct phone)),
                        .random = crowd->seed * 2654435761u + 1};
    assert(play.networks && play.phones);
    for (uint32_t i = 0; i < crowd->viewers; i++) {
        play.phones[i].state = PHONE_AWAY;
        put(&play, &play.phones[i], 1 + draw(&play, 30000));
    }
    for (uint64_t slot = 0; slot * SLOT_MS < end_ms; slot++) {
        take_slot(&play, slot);
        play.now_ms = (slot + 1) * SLOT_MS;
        if (crowd->talk_every_ms && play.now_ms % crowd->talk_every_ms == 0)
            talk(&play);
        if (slot % LOOK_SLOTS == 0)
            look_at_all(&play);
    }
    sum_up(&play);
    for (uint32_t i = 0; i < crowd->viewers; i++)
        halley_pulse_end(play.networks, &play.phones[i].now.pulse, &crowd->policy, clock_of(&play));
    halley_networks_destroy(play.networks);
    free(play.phones);
}
