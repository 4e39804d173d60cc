/* history_late.c: lanes that are behind since history could not be read after a cut from Redis: it is read again and again, with growing
 * pauses, so that a room where nothing is published gets what it missed. Meanwhile messages go on; none waits for these reads. */
#include "node/internal.h"

#include <stdlib.h>

enum {
    PAUSE_FIRST_MS = 500,
    PAUSE_MOST_MS = 30000,
    WANTED_PAUSE_MS = 100, /* so often at most it is read because viewers want it */
    LOOKS = 256            /* at each turn of the timer */
};

static void count(struct node *node, uint32_t lates)
{
    node->history.late_count = lates;
    metric_set(&node->metrics.history_late_lanes, lates);
}

static struct history_lane *lane_of(const struct history_late *late)
{
    return &late->room->lanes[late->lane];
}

void history_late_begin(struct node *node, struct history_room *room, enum lane lane)
{
    struct history_late *late = room->lanes[lane].late;
    if (late)
        return;
    late = calloc(1, sizeof(*late));
    if (!late)
        return; /* the next message tells that others are missing */
    late->room = room;
    late->lane = lane;
    late->asked_ms = uv_now(&node->loop);
    late->pause_ms = PAUSE_FIRST_MS;
    list_init(&late->link);
    list_append(&node->history.lates, &late->link);
    room->lanes[lane].late = late;
    count(node, node->history.late_count + 1);
    history_start_timer(node);
}

void history_late_drop_read(struct history_late *late)
{
    if (late->read)
        late->read->late = NULL;
    late->read = NULL;
}

void history_late_end(struct node *node, struct history_lane *lane)
{
    struct history_late *late = lane->late;
    if (!late)
        return;
    history_late_drop_read(late);
    list_remove(&late->link);
    lane->late = NULL;
    count(node, node->history.late_count - 1);
    free(late);
}

static void ask(struct node *node, struct history_late *late)
{
    const struct history_room *room = late->room;
    struct history_read *read =
        history_read_create(node, bytes_of(room->name, room->name_len), late->lane);
    if (!read)
        return;
    read->late = late;
    late->read = read;
    late->after = lane_of(late)->last;
    late->asked_ms = uv_now(&node->loop);
    metric_add(&node->metrics.history_reads_fill, 1);
    if (history_read_start(read, late->after) != 0)
        history_read_free(read);
}

/* Where it waits, the read of that tells as much. */
static bool may_ask(const struct node *node, const struct history_late *late, uint32_t pause_ms)
{
    return !late->read && !lane_of(late)->wait && uv_now(&node->loop) - late->asked_ms >= pause_ms;
}

void history_late_wanted(struct node *node, struct history_late *late)
{
    if (may_ask(node, late, WANTED_PAUSE_MS))
        ask(node, late);
}

void history_late_found(struct node *node, struct history_late *late,
                        const struct history_found *found)
{
    const struct history_lane *lane = lane_of(late);
    bool moved = lane->last.epoch != late->after.epoch || lane->last.n != late->after.n;
    if (lane->wait)
        return;
    if (moved) /* by messages that came meanwhile: this says nothing of what is behind those */
        late->pause_ms = PAUSE_FIRST_MS;
    else
        history_fill(node, late->room, late->lane, found);
}

void history_lates_tick(struct node *node)
{
    struct history *history = &node->history;
    const struct link *last = history->lates.prev;
    bool more = !list_empty(&history->lates);
    /* Half of the reads is left for those that somebody waits for. */
    for (int i = 0; more && i < LOOKS && history->read_count <= node->conf->history.reads / 2;
         i++) {
        struct history_late *late = CONTAINER_OF(history->lates.next, struct history_late, link);
        more = &late->link != last;
        list_remove(&late->link);
        list_append(&history->lates, &late->link);
        if (!may_ask(node, late, late->pause_ms))
            continue;
        late->pause_ms = late->pause_ms < PAUSE_MOST_MS / 2 ? late->pause_ms * 2 : PAUSE_MOST_MS;
        ask(node, late);
    }
}
