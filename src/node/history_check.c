/* history_check.c: rooms of which no number is known after a cut from Redis: are there any by now? Their counters are read, of some rooms at
 * a time, and only lanes that have some are read. Where there are none, messages without number may be missing: a gap is told. */
#include "node/internal.h"

#include <stdlib.h>

enum {
    RETRY_MS = 100, /* within history.wait; after that with pauses that grow */
    PAUSE_FIRST_MS = 500,
    PAUSE_MOST_MS = 30000,
    LOOKS = 256 /* at each turn of the timer */
};

static void count(struct node *node, uint32_t checks)
{
    node->history.check_count = checks;
    metric_set(&node->metrics.history_checks, checks);
}

static void end(struct history_stand *check)
{
    count(check->node, check->node->history.check_count - 1);
    free(check);
}

static bool is_wanted(const struct held *held)
{
    return held && held->holders != 0 && held->checking != 0;
}

static void ask_later(struct history_stand *check, struct held *held)
{
    struct node *node = check->node;
    uint64_t now = uv_now(&node->loop);
    if (now - check->since_ms < node->conf->history.wait_ms) {
        check->at_ms = now + RETRY_MS;
    } else {
        if (!held->gap_told)
            dispatch_gap(node, bytes_of(held->name, held->name_len), held->checking, true);
        held->gap_told = true;
        check->at_ms = now + check->pause_ms;
        check->pause_ms = check->pause_ms < PAUSE_MOST_MS / 2 ? check->pause_ms * 2 : PAUSE_MOST_MS;
    }
    list_append(&node->history.checks, &check->link);
    history_start_timer(node);
}

static void ask(struct history_stand *check, struct held *held)
{
    struct node *node = check->node;
    check->turn = held->turn;
    list_remove(&check->link);
    list_append(&node->history.checks, &check->link);
    history_read_stand(check);
    if (list_empty(&check->link)) { /* it was sent */
        node->history.checks_sent++;
    } else {
        list_remove(&check->link);
        ask_later(check, held);
    }
}

/* Half of what history.reads allows is left for those that somebody waits for. */
static void ask_some(struct node *node, int looks)
{
    struct history *history = &node->history;
    const struct link *last = history->checks.prev;
    bool more = !list_empty(&history->checks);
    while (more && looks-- > 0 && history->checks_sent <= node->conf->history.reads / 2) {
        struct link *link = history->checks.next;
        struct history_stand *check = CONTAINER_OF(link, struct history_stand, link);
        struct held *held = dispatch_find(node, bytes_of(check->name, check->name_len));
        more = link != last;
        list_remove(link);
        if (!is_wanted(held)) {
            end(check);
            continue;
        }
        list_append(&history->checks, link);
        if (uv_now(&node->loop) >= check->at_ms)
            ask(check, held);
    }
}

bool history_check(struct node *node, struct held *held, unsigned lanes)
{
    struct history_stand *check = NULL;
    if (held->checking) {
        held->turn = ++node->turns; /* what is being read is too old */
    } else {
        if (node->history.check_count >= node->conf->limits.rooms)
            return false; /* of rooms that were let go, and are looked at in their turn */
        check = calloc(1, sizeof(*check) + held->name_len);
        if (!check)
            return false;
        check->node = node;
        check->check = true;
        check->since_ms = check->at_ms = uv_now(&node->loop);
        check->pause_ms = PAUSE_FIRST_MS;
        check->name_len = held->name_len;
        memcpy(check->name, held->name, held->name_len);
        list_init(&check->link);
        list_append(&node->history.checks, &check->link);
        count(node, node->history.check_count + 1);
    }
    held->checking |= lanes & 7u;
    held->gap_told = false;
    history_start_timer(node);
    ask_some(node, 1);
    return true;
}

/* What came in the cut is read. Returns false where memory is out. */
static bool look_after(struct node *node, struct bytes name, enum lane lane,
                       struct history_point at)
{
    struct history_room *room = history_room_find(&node->history, name);
    if (!room)
        room = history_room_create(node, name);
    if (!room)
        return false;
    const struct history_lane *now = &room->lanes[lane];
    bool has = now->last.epoch == at.epoch && now->last.n >= at.n;
    return has || now->wait || history_cut_lane(node, room, lane);
}

/* The counters are read. Where there is none, no number shows what is missing, and nobody can fetch it. */
static void look_after_all(struct node *node, struct held *held,
                           const struct history_point points[LANE_COUNT])
{
    struct bytes name = bytes_of(held->name, held->name_len);
    unsigned none = 0;
    unsigned failed = 0;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        unsigned bit = 1u << lane;
        if (!(held->checking & bit))
            continue;
        if (points[lane].n == 0)
            none |= bit;
        else if (!look_after(node, name, (enum lane)lane, points[lane]))
            failed |= bit;
    }
    held->checking = 0;
    if (!held->gap_told)
        dispatch_gap(node, name, none, true);
    dispatch_gap(node, name, failed, false);
}

void history_checked(struct history_stand *check, const struct history_point *points)
{
    struct node *node = check->node;
    struct bytes name = bytes_of(check->name, check->name_len);
    struct held *held = node->phase == PHASE_ENDING ? NULL : dispatch_find(node, name);
    node->history.checks_sent--;
    if (!is_wanted(held)) {
        end(check);
    } else if (held->turn != check->turn) {
        ask(check, held);
    } else if (!points) {
        ask_later(check, held);
    } else {
        look_after_all(node, held, points);
        end(check);
    }
    if (node->phase != PHASE_ENDING)
        ask_some(node, 2);
}

void history_checks_tick(struct node *node)
{
    ask_some(node, LOOKS);
}
