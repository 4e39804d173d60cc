/* history_stand.c: where a room's lanes stand is read before its viewers are told that they are in. */
#include "node/internal.h"

#include <stdlib.h>

/* Not known is more than nothing there. */
static void make_unsure(struct node *node, struct bytes name)
{
    struct history_room *room = history_room_create(node, name);
    for (int lane = 0; room && lane < LANE_COUNT; lane++)
        room->lanes[lane].unsure = true;
}

static void ask(struct history_stand *stand, const struct held *held)
{
    struct node *node = stand->node;
    stand->turn = held->turn;
    stand->since_ms = uv_now(&node->loop);
    list_append(&node->history.stands, &stand->link);
    history_start_timer(node);
    history_read_stand(stand);
}

void history_hold(struct node *node, const struct held *held)
{
    struct bytes name = bytes_of(held->name, held->name_len);
    struct history_stand *stand = calloc(1, sizeof(*stand) + name.len);
    if (!stand) {
        if (!history_room_find(&node->history, name))
            make_unsure(node, name);
        dispatch_stands(node, name);
        return;
    }
    stand->node = node;
    stand->name_len = (uint8_t)name.len;
    memcpy(stand->name, name.data, name.len);
    list_init(&stand->link);
    ask(stand, held);
}

static void stand_on(struct node *node, struct bytes name, const struct history_point *points)
{
    struct history_room *room = history_room_find(&node->history, name);
    if (!room && !points)
        make_unsure(node, name);
    else if (!room && points[LANE_HIGH].epoch != 0)
        room = history_room_create(node, name);
    for (int lane = 0; room && lane < LANE_COUNT; lane++)
        history_stand_on(&room->lanes[lane], points ? &points[lane] : NULL,
                         node->conf->history.length);
}

void history_stood(struct history_stand *stand, const struct history_point *points)
{
    struct node *node = stand->node;
    struct bytes name = bytes_of(stand->name, stand->name_len);
    const struct held *held = node->phase == PHASE_ENDING ? NULL : dispatch_find(node, name);
    if (stand->check) {
        history_checked(stand, points);
        return;
    }
    bool wanted = held && held->holders != 0 && held->reading;
    list_remove(&stand->link);
    /* What was published while nobody held it went by without a look at its number: an answer from before that is too old. */
    if (wanted && held->turn != stand->turn) {
        ask(stand, held);
        return;
    }
    if (wanted)
        stand_on(node, name, points);
    if (held)
        dispatch_stands(node, name);
    free(stand);
}

void history_stands_tick(struct node *node, uint64_t now)
{
    struct link later;
    struct link *link;
    list_init(&later);
    list_splice(&later, &node->history.stands);
    while ((link = list_shift(&later))) {
        struct history_stand *stand = CONTAINER_OF(link, struct history_stand, link);
        list_append(&node->history.stands, link);
        if (now - stand->since_ms >= node->conf->history.wait_ms)
            history_stood(stand, NULL);
        else
            history_read_stand(stand);
    }
}

/* As if the read had failed. */
static void begin_room(void *ctx, struct map_node *at)
{
    struct node *node = ctx;
    const struct held *held = CONTAINER_OF(at, struct held, node);
    struct bytes name = bytes_of(held->name, held->name_len);
    if (held->holders != 0 && !history_room_find(&node->history, name))
        make_unsure(node, name);
}

void history_begin(struct node *node)
{
    map_each(&node->rooms, begin_room, node);
}
