#include "halley/networks.h"

#include "base/list.h"
#include "base/map.h"
#include "base/minmax.h"

#include <stdlib.h>

enum {
    LEVELS_MAX = 32,      /* 1.35^27 is 3600: a second to an hour */
    HOLDS = 3,            /* idle times that must be survived before a level holds */
    BLAME_MAX = 2,        /* losses: the level is a ceiling */
    MISSING_SLOTS = 8191, /* sessions that are missed; a prime, as their hashes may all be odd */
    DOUBTS_FREE = 3,      /* losses within DOUBTS_MS that others' survival outweighs, and … */
    DOUBTS_VIEWERS = 100, /* … one more for so many viewers, and … */
    DOUBTS_MISSED =
        3, /* … for so many that were missed: of phones that go away few are back in time, of forgotten ones nearly all */
    DOUBTS_MS = 600000,
    EARLY_BELIEVED = 3, /* so many in a row, with no survival in between */
    RETRY_SAFES =
        24, /* safe intervals from a scout's loss to the next try of the level: 10 minutes as shipped */
    RESTS_MAX = 3,       /* that rest doubles so often while scouts vanish one after the other */
    PATIENCE_LEVELS = 4, /* a scout that is never idle gives way after so many of its intervals */
    KEPT_MS = 86400000
};

struct halley_network {
    struct map_node node;
    struct link idle; /* on networks->idle while nobody is in it */
    uint64_t prefix;
    struct halley_pulse *scout; /* NULL: nobody */
    uint32_t viewers;
    uint32_t give_up_ms; /* scout: another one may take its place */
    uint32_t wait_ms;    /* waits: no scout until then */
    /* When an idle time of the level below the one that holds was last survived, and of that one itself. */
    uint32_t survived_ms[2];
    uint32_t doubts_ms; /* since when doubts are counted */
    uint32_t left_ms;   /* when the last viewer left */
    uint16_t doubts;
    uint16_t missed; /* since then, and not heard again on the same connection */
    uint8_t hint;
    uint8_t held;    /* level */
    uint8_t ceiling; /* level that is too long; LEVELS_MAX: none known */
    uint8_t tries;   /* of held + 1, survived */
    uint8_t blame;   /* of held + 1 */
    uint8_t
        early; /* followers that were back before they were missed, since the level was survived */
    uint8_t vanished; /* scouts that did not come back, since a level held */
    bool waits;
    bool survived[2];
};

/* A viewer that was asked and has not answered; a newer one of the same slot displaces it. */
struct missing {
    uint64_t prefix;
    uint32_t session; /* 0: free */
    uint32_t told_ms;
    uint32_t due_ms; /* when its sign of life was due */
    uint32_t until_ms;
    uint8_t hint;
    bool scout;
};

struct halley_networks {
    struct map map;
    struct link idle; /* the longest forsaken first */
    struct missing missing[MISSING_SLOTS];
};

static bool is_past(uint32_t time_ms, uint32_t now_ms)
{
    return (int32_t)(now_ms - time_ms) >= 0;
}

static uint32_t level_ms(const struct halley_networks_policy *policy, int level)
{
    uint64_t ms = policy->safe_ms;
    for (int i = 0; i < level && ms <= policy->max_ms; i++)
        ms = ms * 27 / 20;
    return ms > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)ms;
}

static uint32_t retry_ms(const struct halley_networks_policy *policy)
{
    return RETRY_SAFES * policy->safe_ms;
}

static uint32_t tried_ms(const struct halley_network *network,
                         const struct halley_networks_policy *policy)
{
    return level_ms(policy, network->held + 1);
}

/* Is there a level above the one that holds which may be tried? */
static bool may_climb(const struct halley_network *network,
                      const struct halley_networks_policy *policy)
{
    return network->held + 1 < network->ceiling && tried_ms(network, policy) <= policy->max_ms;
}

static uint32_t network_hash(uint64_t prefix, enum halley_hint hint)
{
    uint64_t key[2] = {prefix, hint};
    return map_hash(key, sizeof(key));
}

static struct halley_network *find(const struct halley_networks *networks, uint64_t prefix,
                                   enum halley_hint hint)
{
    uint32_t hash = network_hash(prefix, hint);
    for (struct map_node *node = map_chain(&networks->map, hash); node; node = node->next) {
        struct halley_network *network = CONTAINER_OF(node, struct halley_network, node);
        if (network->prefix == prefix && network->hint == hint)
            return network;
    }
    return NULL;
}

static void forget(struct halley_networks *networks, struct halley_network *network)
{
    list_remove(&network->idle);
    map_remove(&networks->map, &network->node);
    free(network);
}

static void start_anew(struct halley_network *network)
{
    network->held = 0;
    network->tries = 0;
    network->blame = 0;
    network->vanished = 0;
    network->survived[0] = network->survived[1] = false;
    network->doubts = 0;
    network->missed = 0;
    network->early = 0;
    network->scout = NULL;
}

static struct halley_network *add(struct halley_networks *networks, uint64_t prefix,
                                  enum halley_hint hint, uint32_t entries)
{
    if (networks->map.count >= entries && !list_empty(&networks->idle))
        forget(networks, CONTAINER_OF(networks->idle.next, struct halley_network, idle));
    if (networks->map.count >= entries)
        return NULL;
    struct halley_network *network = calloc(1, sizeof(*network));
    if (!network)
        return NULL;
    network->prefix = prefix;
    network->hint = (uint8_t)hint;
    network->ceiling = LEVELS_MAX;
    list_init(&network->idle);
    if (map_add(&networks->map, &network->node, network_hash(prefix, hint)) != 0) {
        free(network);
        return NULL;
    }
    return network;
}

struct halley_networks *halley_networks_create(void)
{
    struct halley_networks *networks = calloc(1, sizeof(*networks));
    if (networks)
        list_init(&networks->idle);
    return networks;
}

void halley_networks_destroy(struct halley_networks *networks)
{
    if (!networks)
        return;
    while (!list_empty(&networks->idle))
        forget(networks, CONTAINER_OF(networks->idle.next, struct halley_network, idle));
    map_fini(&networks->map);
    free(networks);
}

uint32_t halley_networks_count(const struct halley_networks *networks)
{
    return networks->map.count;
}

size_t halley_networks_memory(const struct halley_networks *networks)
{
    size_t buckets =
        networks->map.buckets ? (networks->map.mask + 1) * sizeof(struct map_node *) : 0;
    return sizeof(*networks) + networks->map.count * sizeof(struct halley_network) + buckets;
}

static void restart_one(void *ctx, struct map_node *node)
{
    struct halley_network *network = CONTAINER_OF(node, struct halley_network, node);
    (void)ctx;
    start_anew(network);
    network->ceiling = LEVELS_MAX;
    network->waits = false;
}

void halley_networks_restart(struct halley_networks *networks)
{
    map_each(&networks->map, restart_one, NULL);
}

void halley_networks_expire(struct halley_networks *networks, uint32_t now_ms, uint32_t most)
{
    while (most-- > 0 && !list_empty(&networks->idle)) {
        struct halley_network *oldest =
            CONTAINER_OF(networks->idle.next, struct halley_network, idle);
        if (now_ms - oldest->left_ms < KEPT_MS)
            return;
        forget(networks, oldest);
    }
}

static struct missing *slot_of(struct halley_networks *networks, uint32_t session)
{
    return &networks->missing[session % MISSING_SLOTS];
}

/* The record of a session that is being missed in this network; NULL: it is not. */
static struct missing *find_missing(struct halley_networks *networks,
                                    const struct halley_network *network, uint32_t session)
{
    struct missing *missing = slot_of(networks, session);
    return session != 0 && missing->session == session && missing->prefix == network->prefix &&
                   missing->hint == network->hint
               ? missing
               : NULL;
}

/* Nobody tries the next level for a while, and then it is tried from the start. */
static void rest(struct halley_network *network, uint32_t wait_ms, uint32_t now_ms)
{
    network->tries = 0;
    network->waits = true;
    network->wait_ms = now_ms + wait_ms;
}

/* The scout's connection was lost, for it is back: what happens twice to a level makes it the ceiling. */
static void blame(struct halley_network *network, const struct halley_networks_policy *policy,
                  uint32_t now_ms)
{
    rest(network, retry_ms(policy), now_ms);
    if (++network->blame < BLAME_MAX)
        return;
    network->blame = 0;
    network->ceiling = (uint8_t)(network->held + 1);
}

/* An idle time that counts as one of this level: nine tenths of the shortest that a viewer of it is told, since Engine.IO 4 is pinged up
 * to a tenth early; more than the longest of the level below. */
static uint32_t counts_ms(const struct halley_networks_policy *policy, int level)
{
    return level_ms(policy, level) / 4 * 3;
}

/* Somebody of the network survived as long an idle time since. */
static bool was_survived(const struct halley_network *network,
                         const struct halley_networks_policy *policy, const struct missing *missing)
{
    int which = missing->told_ms >= counts_ms(policy, network->held);
    return network->survived[which] && (int32_t)(network->survived_ms[which] - missing->due_ms) > 0;
}

/* Then it is the phone that went away, as long as that does not happen too often (one of several NATs behind the same prefix may be the one
 * that forgets). */
static bool may_doubt(struct halley_network *network, uint32_t now_ms)
{
    if (network->doubts == 0 || now_ms - network->doubts_ms > DOUBTS_MS) {
        network->doubts = 0;
        network->missed = 0;
        network->doubts_ms = now_ms;
    }
    return ++network->doubts <=
           DOUBTS_FREE + network->viewers / DOUBTS_VIEWERS + network->missed / DOUBTS_MISSED;
}

/* early: it is back so soon that others had no time to survive. */
static enum halley_loss lose_follower(struct halley_network *network,
                                      const struct halley_networks_policy *policy,
                                      const struct missing *missing, bool early, uint32_t now_ms)
{
    if (network->held == 0 || missing->told_ms > level_ms(policy, network->held))
        return HALLEY_LOSS_LATE;
    if (was_survived(network, policy, missing) ? may_doubt(network, now_ms)
                                               : early && ++network->early < EARLY_BELIEVED)
        return HALLEY_LOSS_DOUBTED;
    start_anew(network);
    return HALLEY_LOSS_FELL;
}

enum halley_loss halley_pulse_start(struct halley_networks *networks, struct halley_pulse *pulse,
                                    const struct halley_networks_policy *policy, uint64_t prefix,
                                    enum halley_hint hint, uint32_t now_ms)
{
    pulse->missed = false;
    pulse->network = NULL;
    if (policy->max_ms <= policy->safe_ms || pulse->brief)
        return HALLEY_LOSS_NONE;
    struct halley_network *network = find(networks, prefix, hint);
    if (!network && pulse->session != 0 && !pulse->fixed)
        network = add(networks, prefix, hint, policy->entries);
    if (!network)
        return HALLEY_LOSS_NONE;
    pulse->network = network;
    network->viewers++;
    list_remove(&network->idle);
    struct missing *missing = find_missing(networks, network, pulse->session);
    if (!missing)
        return HALLEY_LOSS_NONE;
    missing->session = 0;
    if (is_past(missing->until_ms, now_ms))
        return HALLEY_LOSS_NONE;
    if (!missing->scout)
        return lose_follower(network, policy, missing, false, now_ms);
    if (network->scout && network->scout->session == pulse->session) {
        network->scout->missed = false;
        network->scout = NULL;
    }
    if (missing->told_ms / 100 != tried_ms(network, policy) / 100)
        return HALLEY_LOSS_LATE; /* the network rose or fell since: another level is tried */
    blame(network, policy, now_ms);
    return HALLEY_LOSS_SCOUT;
}

struct halley_pulse *halley_pulse_ghost(const struct halley_pulse *pulse)
{
    struct halley_pulse *scout = pulse->network ? pulse->network->scout : NULL;
    return scout && scout != pulse && pulse->session != 0 && scout->session == pulse->session
               ? scout
               : NULL;
}

/* Its sign of life was due, and met a reset: nobody was asked yet. */
static enum halley_loss replaced_follower(struct halley_pulse *ghost,
                                          const struct halley_networks_policy *policy,
                                          uint32_t idle_ms, uint32_t now_ms)
{
    uint32_t told = halley_pulse_told_ms(ghost);
    if (ghost->missed || told <= policy->safe_ms || idle_ms < told / 20 * 19)
        return HALLEY_LOSS_NONE;
    ghost->missed = true; /* it counts once */
    if (ghost->network->missed < UINT16_MAX)
        ghost->network->missed++;
    const struct missing missing = {.told_ms = told, .due_ms = now_ms - idle_ms + told};
    return lose_follower(ghost->network, policy, &missing, true, now_ms);
}

enum halley_loss halley_pulse_replaced(struct halley_pulse *ghost,
                                       const struct halley_networks_policy *policy,
                                       uint32_t idle_ms, uint32_t now_ms)
{
    struct halley_network *network = ghost->network;
    if (!network)
        return HALLEY_LOSS_NONE;
    if (network->scout != ghost)
        return replaced_follower(ghost, policy, idle_ms, now_ms);
    network->scout = NULL;
    if (idle_ms < tried_ms(network, policy) / 20 * 19)
        return HALLEY_LOSS_NONE; /* it was early: whatever made it come back was not the level */
    blame(network, policy, now_ms);
    return HALLEY_LOSS_SCOUT;
}

void halley_pulse_heard(struct halley_networks *networks, struct halley_pulse *pulse,
                        const struct halley_networks_policy *policy, uint32_t idle_ms,
                        uint32_t now_ms)
{
    struct halley_network *network = pulse->network;
    if (!network)
        return;
    if (pulse->missed) {
        pulse->missed = false;
        struct missing *missing = find_missing(networks, network, pulse->session);
        if (missing)
            missing->session = 0;
        if (network->missed > 0)
            network->missed--;
        if (network->scout == pulse)
            network->waits = false;
    }
    if (network->scout == pulse && idle_ms >= tried_ms(network, policy) / 20 * 19) {
        network->give_up_ms = now_ms + PATIENCE_LEVELS * tried_ms(network, policy);
        if (++network->tries >= HOLDS) {
            network->held++;
            network->tries = 0;
            network->blame = 0;
            network->vanished = 0;
            network->survived[0] = network->survived[1];
            network->survived_ms[0] = network->survived_ms[1];
        }
    }
    for (int which = 0; which < 2; which++) {
        if (idle_ms < counts_ms(policy, network->held - 1 + which))
            break;
        network->survived[which] = true;
        network->survived_ms[which] = now_ms;
        if (which == 1)
            network->early = 0;
    }
}

static bool becomes_scout(struct halley_pulse *pulse, const struct halley_networks_policy *policy,
                          uint32_t now_ms)
{
    struct halley_network *network = pulse->network;
    if (!may_climb(network, policy)) {
        if (network->scout == pulse)
            network->scout = NULL;
        return false;
    }
    if (network->scout == pulse)
        return true;
    if (pulse->session == 0 || pulse->fixed ||
        (network->waits && !is_past(network->wait_ms, now_ms)) ||
        (network->scout && !is_past(network->give_up_ms, now_ms)))
        return false;
    network->waits = false;
    network->scout = pulse;
    network->give_up_ms = now_ms + PATIENCE_LEVELS * tried_ms(network, policy);
    return true;
}

static uint32_t tell(struct halley_pulse *pulse, uint32_t ms)
{
    pulse->told_ds = (uint16_t)(ms / 100);
    return halley_pulse_told_ms(pulse);
}

uint32_t halley_pulse_settle(struct halley_pulse *pulse,
                             const struct halley_networks_policy *policy, uint32_t random)
{
    uint32_t told = policy->safe_ms;
    if (pulse->brief)
        return tell(pulse, least(policy->brief_ms, policy->safe_ms));
    if (pulse->network && pulse->network->held > 0) {
        told = level_ms(policy, pulse->network->held) / 10 * 9;
        told -= random % (told / 20 + 1);
        told = most(least(told, policy->max_ms), policy->safe_ms);
    }
    return tell(pulse, told);
}

uint32_t halley_pulse_next(struct halley_pulse *pulse, const struct halley_networks_policy *policy,
                           uint32_t now_ms, uint32_t random)
{
    if (pulse->network && !pulse->fixed && becomes_scout(pulse, policy, now_ms))
        return tell(pulse, tried_ms(pulse->network, policy));
    return halley_pulse_settle(pulse, policy, random);
}

void halley_pulse_asked(struct halley_networks *networks, struct halley_pulse *pulse,
                        const struct halley_networks_policy *policy, uint32_t idle_ms,
                        uint32_t now_ms)
{
    struct halley_network *network = pulse->network;
    uint32_t told = halley_pulse_told_ms(pulse);
    /* What went to it meanwhile has reached it or not, but was no idle time. */
    if (!network || pulse->session == 0 || pulse->missed || idle_ms < told / 20 * 19)
        return;
    pulse->missed = true;
    if (network->missed < UINT16_MAX)
        network->missed++;
    if (network->scout == pulse || told > policy->safe_ms) /* else its loss disproves nothing */
        *slot_of(networks, pulse->session) = (struct missing){.prefix = network->prefix,
                                                              .session = pulse->session,
                                                              .told_ms = told,
                                                              .due_ms = now_ms - idle_ms + told,
                                                              .until_ms = now_ms + policy->back_ms,
                                                              .hint = network->hint,
                                                              .scout = network->scout == pulse};
    if (network->scout == pulse) { /* nobody follows it before it is known what became of it */
        network->waits = true;
        network->wait_ms = now_ms + policy->back_ms;
        network->give_up_ms = now_ms + policy->back_ms;
    }
}

void halley_pulse_pinged(struct halley_pulse *pulse, uint32_t idle_ms)
{
    uint64_t told_ms = most(1, halley_pulse_told_ms(pulse));
    pulse->silent = (uint8_t)least((uint32_t)(idle_ms * 200ull / told_ms), UINT8_MAX);
}

void halley_pulse_unanswered(struct halley_networks *networks, struct halley_pulse *pulse,
                             const struct halley_networks_policy *policy, uint32_t since_ms,
                             uint32_t now_ms)
{
    uint32_t told = halley_pulse_told_ms(pulse);
    /* Its pings come up to a tenth early, and the last answer took its way. */
    if (halley_pulse_silent_ms(pulse) >= told / 20 * 17)
        halley_pulse_asked(networks, pulse, policy, told + since_ms, now_ms);
}

void halley_pulse_end(struct halley_networks *networks, struct halley_pulse *pulse,
                      const struct halley_networks_policy *policy, uint32_t now_ms)
{
    struct halley_network *network = pulse->network;
    if (!network)
        return;
    if (network->scout == pulse) {
        network->scout = NULL;
        /* It may still come back; else it went away by itself, or cannot be told from one that did. */
        if (pulse->missed) {
            const struct missing *missing = find_missing(networks, network, pulse->session);
            uint32_t left_ms = missing && !is_past(missing->until_ms, now_ms)
                                   ? missing->until_ms - now_ms
                                   : 0; /* it is late, or a newer one has its slot */
            uint32_t wait_ms = retry_ms(policy) << least(network->vanished, RESTS_MAX);
            rest(network, most(left_ms, wait_ms), now_ms);
            if (network->vanished < RESTS_MAX)
                network->vanished++;
        }
    }
    pulse->network = NULL;
    pulse->missed = false;
    if (--network->viewers > 0)
        return;
    network->left_ms = now_ms;
    list_append(&networks->idle, &network->idle);
}

uint32_t halley_pulse_held_ms(const struct halley_pulse *pulse,
                              const struct halley_networks_policy *policy)
{
    return pulse->network ? level_ms(policy, pulse->network->held) : 0;
}
