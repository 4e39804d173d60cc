#include "policy/kicks.h"

#include <stdlib.h>

struct kick {
    struct map_node node;
    struct link order;
    uint64_t number;
    uint8_t len;
    char user[];
};

void kicks_init(struct kicks *kicks)
{
    *kicks = (struct kicks){.lost = 0};
    list_init(&kicks->order);
}

static struct kick *find(const struct kicks *kicks, struct bytes user, uint32_t hash)
{
    for (struct map_node *at = map_chain(&kicks->users, hash); at; at = at->next) {
        struct kick *kick = CONTAINER_OF(at, struct kick, node);
        if (at->hash == hash && bytes_equal(bytes_of(kick->user, kick->len), user))
            return kick;
    }
    return NULL;
}

static struct kick *oldest(const struct kicks *kicks)
{
    return list_empty(&kicks->order) ? NULL : CONTAINER_OF(kicks->order.next, struct kick, order);
}

static void forget(struct kicks *kicks, struct kick *kick)
{
    list_remove(&kick->order);
    map_remove(&kicks->users, &kick->node);
    free(kick);
}

static struct kick *add(struct kicks *kicks, struct bytes user, uint32_t hash)
{
    struct kick *kick = calloc(1, sizeof(*kick) + user.len);
    if (!kick)
        return NULL;
    list_init(&kick->order);
    kick->len = (uint8_t)user.len;
    memcpy(kick->user, user.data, user.len);
    if (map_add(&kicks->users, &kick->node, hash) == 0)
        return kick;
    free(kick);
    return NULL;
}

uint32_t kicks_add(struct kicks *kicks, struct bytes user, uint64_t number, uint32_t bound)
{
    uint32_t hash = map_hash(user.data, user.len);
    struct kick *kick = find(kicks, user, hash);
    uint32_t lost = 0;
    while (!kick && kicks->users.count > 0 && kicks->users.count >= bound) {
        kicks->lost = oldest(kicks)->number;
        forget(kicks, oldest(kicks));
        lost++;
    }
    if (!kick)
        kick = add(kicks, user, hash);
    if (!kick) {
        kicks->lost = number;
        return lost + 1;
    }
    kick->number = number;
    list_remove(&kick->order);
    list_append(&kicks->order, &kick->order);
    return lost;
}

enum kicks_verdict kicks_judge(const struct kicks *kicks, struct bytes user, uint64_t number)
{
    const struct kick *kick = find(kicks, user, map_hash(user.data, user.len));
    if (kick && number <= kick->number)
        return KICKS_KICKED;
    return number <= kicks->lost ? KICKS_UNKNOWN : KICKS_NONE;
}

void kicks_settle(struct kicks *kicks, uint64_t number)
{
    while (oldest(kicks) && oldest(kicks)->number < number)
        forget(kicks, oldest(kicks));
}

void kicks_fini(struct kicks *kicks)
{
    while (oldest(kicks))
        forget(kicks, oldest(kicks));
    map_fini(&kicks->users);
}
