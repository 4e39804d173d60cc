#include "policy/sample.h"

#include "base/minmax.h"

#include <stdlib.h>

enum {
    ONE = 1 << 16, /* of a share: fixed point */
    LATELY_SLOTS = 3
};

struct slot {
    uint32_t arrived;
    uint32_t passed;
};

struct share {
    uint32_t type;
    uint32_t
        saved; /* up to 2 * ONE: what it could not have because of the bound comes first later */
};

struct sampled {
    struct map_node node;
    struct link order;
    uint32_t now; /* slot number, modulo 2^32 */
    uint8_t room_len;
    uint8_t share_count;
    struct slot slots[SAMPLE_SLOTS];
    struct share shares[SAMPLE_TYPES];
    char room[];
};

void sampler_init(struct sampler *sampler)
{
    sampler->rooms = (struct map){0};
    list_init(&sampler->order);
}

static struct sampled *find(const struct sampler *sampler, struct bytes room, uint32_t hash)
{
    for (struct map_node *at = map_chain(&sampler->rooms, hash); at; at = at->next) {
        struct sampled *sampled = CONTAINER_OF(at, struct sampled, node);
        if (at->hash == hash && bytes_equal(bytes_of(sampled->room, sampled->room_len), room))
            return sampled;
    }
    return NULL;
}

static struct sampled *add(struct sampler *sampler, struct bytes room, uint32_t hash)
{
    struct sampled *sampled = calloc(1, sizeof(*sampled) + room.len);
    if (!sampled)
        return NULL;
    sampled->room_len = (uint8_t)room.len;
    memcpy(sampled->room, room.data, room.len);
    list_init(&sampled->order);
    if (map_add(&sampler->rooms, &sampled->node, hash) != 0) {
        free(sampled);
        return NULL;
    }
    list_append(&sampler->order, &sampled->order);
    return sampled;
}

/* Empties the slots that time has passed over. */
static void advance(struct sampled *sampled, uint64_t now_ms)
{
    uint32_t now = (uint32_t)(now_ms / SAMPLE_SLOT_MS);
    uint32_t steps = least(now - sampled->now, SAMPLE_SLOTS);
    for (uint32_t i = 0; i < steps; i++)
        sampled->slots[(now - i) % SAMPLE_SLOTS] = (struct slot){0};
    sampled->now = now;
}

/* What came in the newest slots, as messages a second. The newest one is not over yet. */
static uint32_t demand_over(const struct sampled *sampled, uint32_t slots, uint64_t now_ms)
{
    uint32_t arrived = 0;
    uint32_t ms = (slots - 1) * SAMPLE_SLOT_MS + (uint32_t)(now_ms % SAMPLE_SLOT_MS) + 1;
    for (uint32_t i = 0; i < slots; i++)
        arrived += sampled->slots[(sampled->now - i) % SAMPLE_SLOTS].arrived;
    return (uint32_t)((uint64_t)arrived * 1000 / ms);
}

static uint32_t passed_lately(const struct sampled *sampled)
{
    uint32_t passed = 0;
    for (int i = 0; i < SAMPLE_SLOTS; i++)
        passed += sampled->slots[i].passed;
    return passed;
}

static struct share *share_of(struct sampled *sampled, uint32_t type)
{
    for (uint8_t i = 0; i < sampled->share_count; i++) {
        if (sampled->shares[i].type == type)
            return &sampled->shares[i];
    }
    if (sampled->share_count == SAMPLE_TYPES)
        return &sampled->shares[SAMPLE_TYPES - 1];
    struct share *share = &sampled->shares[sampled->share_count++];
    *share = (struct share){.type = type, .saved = ONE / 2};
    return share;
}

bool sampler_pass(struct sampler *sampler, struct bytes room, uint32_t room_hash, uint32_t type,
                  uint32_t rate, uint64_t now_ms)
{
    struct sampled *sampled = find(sampler, room, room_hash);
    if (!sampled)
        sampled = add(sampler, room, room_hash);
    if (!sampled)
        return true;
    advance(sampled, now_ms);
    struct slot *slot = &sampled->slots[sampled->now % SAMPLE_SLOTS];
    slot->arrived++;
    /* A burst within what a second may have passes whole; after a flood the share rises as soon as less comes. */
    uint32_t demand = least(demand_over(sampled, SAMPLE_SLOTS, now_ms),
                            demand_over(sampled, LATELY_SLOTS, now_ms));
    uint32_t part = demand <= rate ? ONE : (uint32_t)((uint64_t)rate * ONE / demand);
    struct share *share = share_of(sampled, type);
    share->saved = least(share->saved + part, 2 * ONE);
    if (share->saved < ONE || passed_lately(sampled) >= rate + rate / 10)
        return false;
    share->saved -= ONE;
    slot->passed++;
    return true;
}

void sampler_expire(struct sampler *sampler, uint64_t now_ms, uint32_t count)
{
    for (count = least(count, sampler->rooms.count); count > 0; count--) {
        struct link *link = list_shift(&sampler->order);
        struct sampled *sampled = CONTAINER_OF(link, struct sampled, order);
        uint32_t now = (uint32_t)(now_ms / SAMPLE_SLOT_MS);
        if (now - sampled->now > SAMPLE_SLOTS) {
            map_remove(&sampler->rooms, &sampled->node);
            free(sampled);
        } else {
            list_append(&sampler->order, link);
        }
    }
}

void sampler_fini(struct sampler *sampler)
{
    struct link *link;
    while ((link = list_shift(&sampler->order)))
        free(CONTAINER_OF(link, struct sampled, order));
    map_fini(&sampler->rooms);
}
