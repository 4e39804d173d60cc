/* tide.c: where the numbers of rooms with history stand in this worker's logs. */
#include "base/clock.h"
#include "protocol/history_id.h"
#include "worker/resume.h"

#include <stdlib.h>

enum { FAR = 1 << 30 };

struct tide *tide_of(const struct worker *worker, const struct room *room)
{
    for (struct map_node *at = map_chain(&worker->tides, room->node.hash); at; at = at->next) {
        struct tide *tide = CONTAINER_OF(at, struct tide, node);
        if (tide->room == room)
            return tide;
    }
    return NULL;
}

struct tide *tide_make(struct worker *worker, struct room *room)
{
    struct tide *tide = tide_of(worker, room);
    if (tide)
        return tide;
    tide = calloc(1, sizeof(*tide));
    if (!tide || map_add(&worker->tides, &tide->node, room->node.hash) != 0) {
        free(tide);
        return NULL;
    }
    tide->room = room;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        list_init(&tide->lanes[lane].waiting);
    metric_add(&worker->metrics.memory_rooms, sizeof(*tide));
    return tide;
}

void tide_start(struct worker *worker, struct room *room, struct bytes points)
{
    struct history_point at[LANE_COUNT];
    if (points.len != sizeof(at) || tide_of(worker, room))
        return;
    memcpy(at, points.data, sizeof(at));
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (at[lane].epoch == 0 && at[lane].n == 0)
            continue;
        struct tide *tide = tide_make(worker, room);
        if (!tide)
            return;
        tide->lanes[lane].epoch_ms = clock_ms();
        tide->lanes[lane].unknown = at[lane].epoch == 0;
        if (tide->lanes[lane].unknown)
            continue;
        tide->lanes[lane].last = at[lane];
        tide->lanes[lane].since_n = at[lane].n;
        tide->lanes[lane].since = room_next(room)[lane];
    }
}

void tide_end(struct worker *worker, struct room *room)
{
    struct tide *tide = tide_of(worker, room);
    if (!tide)
        return;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        resume_set_replay(worker, &tide->lanes[lane], NULL);
    map_remove(&worker->tides, &tide->node);
    metric_sub(&worker->metrics.memory_rooms, sizeof(*tide));
    free(tide);
}

bool tide_is_repeat(const struct worker *worker, const struct room *room,
                    const struct message *message)
{
    const struct tide *tide = message->point.epoch != 0 ? tide_of(worker, room) : NULL;
    return tide && tide->lanes[message->lane].last.epoch == message->point.epoch &&
           message->point.n <= tide->lanes[message->lane].last.n;
}

struct message *tide_gap(const struct worker *worker, const struct room *room,
                         const struct message *message)
{
    char text[HISTORY_ID_MAX + 1];
    const struct tide *tide = message->point.epoch != 0 ? tide_of(worker, room) : NULL;
    const struct tide_lane *lane = tide ? &tide->lanes[message->lane] : NULL;
    if (!lane || lane->gap_told || message->kind == MESSAGE_GAP || lane->last.epoch == 0 ||
        (lane->last.epoch == message->point.epoch && message->point.n == lane->last.n + 1))
        return NULL;
    struct message_parts parts = {.id = history_id_format(message->lane, lane->last, text)};
    struct message *gap = message_create(MESSAGE_GAP, message->room, &parts);
    if (gap)
        gap->lane = message->lane;
    return gap;
}

/* Those who had more than this worker, and have not any longer. */
static void bring_up(struct worker *worker, struct tide_lane *of, int lane)
{
    struct link *next;
    for (struct link *at = of->waiting.next; at != &of->waiting; at = next) {
        struct resume_lane *ahead = CONTAINER_OF(at, struct resume_lane, link);
        struct resume *resume = ahead->resume;
        next = at->next;
        struct history_point want = resume->after[lane];
        if (ahead->state != RESUME_AHEAD || want.epoch > of->last.epoch ||
            (want.epoch == of->last.epoch && want.n > of->last.n))
            continue;
        list_remove(&resume->link);
        list_append(&worker->ripe, &resume->link);
    }
}

void tide_appended(struct worker *worker, struct room *room, const struct message *message,
                   uint32_t number)
{
    struct tide *tide = tide_of(worker, room);
    struct history_point at = message->point;
    if (!tide && at.epoch != 0)
        tide = tide_make(worker, room);
    if (!tide)
        return;
    struct tide_lane *of = &tide->lanes[message->lane];
    if (message->kind == MESSAGE_GAP && !message->no_join)
        of->gap_told = true;
    if (at.epoch != 0) {
        bool far = number - of->since > FAR; /* of numbers modulo 2^32 */
        bool gap = message->kind == MESSAGE_GAP;
        if (gap || at.epoch != of->last.epoch || at.n != of->last.n + 1 || far) {
            of->since = number + gap;
            of->since_n = at.n - !gap;
        }
        if (at.epoch != of->last.epoch) {
            of->kept_n = 0;
            of->epoch_ms = clock_ms();
        }
        of->last = at;
        of->unknown = false;
        of->gap_told = false;
    }
    halley_framelog_mark(room->activity->lanes.log[message->lane], (uint16_t)of->last.n);
    if (at.epoch != 0 && !list_empty(&of->waiting))
        bring_up(worker, of, message->lane);
}
