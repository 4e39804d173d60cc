/* history_lane.c: what a lane's numbers say: which message is the next one, and where a read of history puts the lane. Pure. */
#include "node/history.h"

enum history_number history_judge(const struct history_lane *lane, struct history_point at,
                                  uint32_t length)
{
    bool same = lane->last.epoch == at.epoch;
    bool begins = lane->last.epoch == 0 && !lane->unsure && at.n == 1;
    if (begins || (same && at.n == lane->last.n + 1))
        return NUMBER_NEXT;
    bool passed = same && at.n <= lane->last.n;
    bool far = passed && at.n > lane->read_n && lane->last.n - at.n >= length;
    return passed && !far ? NUMBER_REPEAT : NUMBER_DOUBTFUL;
}

bool history_is_plausible(const struct history_lane *lane, struct history_point at, uint32_t length)
{
    uint64_t from = lane->last.epoch == at.epoch ? lane->last.n : 0;
    return !lane->unsure && at.epoch >= lane->last.epoch && at.n > from && at.n - from <= length;
}

void history_set_last(struct history_lane *lane, struct history_point last)
{
    if (lane->last.epoch != last.epoch)
        lane->read_n = 0;
    lane->last = last;
    lane->unsure = false;
}

void history_advance(struct history_lane lanes[LANE_COUNT], enum lane lane, struct history_point at)
{
    for (int i = 0; i < LANE_COUNT; i++) {
        if (lanes[i].last.epoch == 0 && !lanes[i].unsure)
            lanes[i].last.epoch = at.epoch;
    }
    history_set_last(&lanes[lane], at);
}

void history_stand_on(struct history_lane *lane, const struct history_point *point, uint32_t length)
{
    struct history_point came = lane->last;
    *lane = (struct history_lane){.wait = lane->wait, .late = lane->late, .unsure = !point};
    if (!point)
        return;
    lane->last = *point;
    if ((point->epoch == 0 || came.epoch == point->epoch) &&
        history_is_plausible(lane, came, length))
        lane->last = came;
    lane->read_n = lane->last.n;
}

struct message **history_kept(const struct history_wait *wait, size_t *count)
{
    *count = wait->messages.len / sizeof(struct message *);
    return (struct message **)(void *)wait->messages.data;
}

bool history_is_confirmed(const struct history_found *found, struct history_point at)
{
    return at.epoch == 0 || (at.epoch == found->last.epoch && at.n <= found->last.n);
}

/* Of those that wait, the first one behind `after` that history has: its number, or 0. */
static uint64_t first_waiting(const struct history_wait *wait, const struct history_found *found,
                              uint64_t after)
{
    size_t count;
    struct message **messages = history_kept(wait, &count);
    for (size_t i = 0; i < count; i++) {
        struct history_point at = messages[i]->point;
        if (at.epoch != 0 && at.n > after && history_is_confirmed(found, at))
            return at.n;
    }
    return 0;
}

/* Are all numbers behind `after` read, or waiting? */
static bool is_whole(const struct history_wait *wait, const struct history_found *found,
                     uint64_t after)
{
    size_t count;
    struct message **messages = history_kept(wait, &count);
    uint64_t first = found->count > 0 ? found->first : found->last.n + 1;
    for (size_t i = 0; i < count && after + 1 < first; i++) {
        struct history_point at = messages[i]->point;
        after += at.n == after + 1 && at.epoch == found->last.epoch;
    }
    return after + 1 >= first;
}

bool history_settle(struct history_lane *lane, const struct history_wait *wait,
                    const struct history_found *found)
{
    bool same = lane->last.epoch == found->last.epoch;
    struct history_point from = {found->last.epoch, same ? lane->last.n : 0};
    bool more = found->last.n > from.n;
    uint64_t first = first_waiting(wait, found, from.n);
    bool whole = same || lane->last.epoch == 0;
    bool lost = more && first == 0 && (lane->unsure || found->count == 0);
    if (lane->unsure) /* its viewers were told when it came to that */
        whole = !wait->cut;
    else if (more)
        whole = whole && is_whole(wait, found, from.n);
    else if (wait->cut && found->last.n == 0)
        whole = false; /* a lane without history: messages without number may be missing */
    if (lane->unsure && first > 0)
        from.n = first - 1;
    history_set_last(lane, from);
    lane->unsure = lost; /* some of what was read may be on its way still: the next message tells */
    if (!lost)
        lane->read_n = from.n;
    return whole;
}
