#include "base/wheel.h"

void wheel_init(struct wheel *wheel, uint32_t now)
{
    for (int i = 0; i < WHEEL_SLOTS; i++)
        list_init(&wheel->slots[i]);
    for (int i = 0; i < WHEEL_SLOTS / 64; i++)
        wheel->used[i] = 0;
    wheel->now = now;
}

void wheel_add(struct wheel *wheel, struct link *link, uint32_t due)
{
    int32_t ahead = (int32_t)(due - wheel->now);
    if (ahead < 1)
        due = wheel->now + 1;
    else if (ahead >= WHEEL_SLOTS)
        due = wheel->now + WHEEL_SLOTS - 1;
    uint32_t slot = due % WHEEL_SLOTS;
    list_remove(link);
    list_append(&wheel->slots[slot], link);
    wheel->used[slot / 64] |= 1ull << (slot % 64);
}

void wheel_advance(struct wheel *wheel, uint32_t now, struct link *due)
{
    if ((int32_t)(now - wheel->now) > WHEEL_SLOTS)
        wheel->now = now - WHEEL_SLOTS; /* every slot comes by once, however long the pause was */
    while ((int32_t)(now - wheel->now) > 0) {
        wheel->now++;
        uint32_t slot = wheel->now % WHEEL_SLOTS;
        uint64_t bit = 1ull << (slot % 64);
        if (!(wheel->used[slot / 64] & bit))
            continue;
        wheel->used[slot / 64] &= ~bit;
        list_splice(due, &wheel->slots[slot]);
    }
}

uint32_t wheel_next(const struct wheel *wheel)
{
    for (uint32_t ahead = 1; ahead <= WHEEL_SLOTS; ahead++) {
        uint32_t slot = (wheel->now + ahead) % WHEEL_SLOTS;
        uint64_t word = wheel->used[slot / 64] >> (slot % 64);
        if (word & 1)
            return ahead;
        if (word == 0) /* nothing in the rest of this word */
            ahead += 63 - slot % 64;
    }
    return 0;
}
