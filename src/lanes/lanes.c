#include "halley/lanes.h"

#include <string.h>

/* Far enough in the past that any interval (at most minutes) has passed. */
static const uint32_t LONG_AGO_MS = 3600000;

void halley_lanes_rest_init(struct halley_lanes_rest *rest, uint32_t now_ms)
{
    memset(rest, 0, sizeof(*rest));
    for (int lane = 0; lane < HALLEY_LANES; lane++)
        rest->flushed_ms[lane] = now_ms - LONG_AGO_MS;
}

void halley_lanes_init(struct halley_lanes *lanes, const struct halley_lanes_rest *rest)
{
    memset(lanes, 0, sizeof(*lanes));
    memcpy(lanes->next, rest->next, sizeof(rest->next));
    memcpy(lanes->flushed_ms, rest->flushed_ms, sizeof(rest->flushed_ms));
}

struct halley_lanes_rest halley_lanes_rest(const struct halley_lanes *lanes)
{
    struct halley_lanes_rest rest;
    memcpy(rest.next, lanes->next, sizeof(rest.next));
    memcpy(rest.flushed_ms, lanes->flushed_ms, sizeof(rest.flushed_ms));
    return rest;
}

void halley_lanes_fini(struct halley_lanes *lanes)
{
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        halley_framelog_destroy(lanes->log[lane]);
        lanes->log[lane] = NULL;
    }
}

int halley_lanes_append(struct halley_lanes *lanes, const struct halley_lane_policy *policy,
                        int lane, uint32_t now_ms, uint16_t type,
                        const struct halley_frame frames[HALLEY_ENCODINGS])
{
    if (!lanes->log[lane]) {
        lanes->log[lane] = halley_framelog_create(lanes->next[lane]);
        if (!lanes->log[lane])
            return HALLEY_FRAMELOG_ERR_NO_MEMORY;
    }
    int error = halley_framelog_append(lanes->log[lane], &policy->bounds, now_ms, type, frames);
    if (error)
        return error;
    lanes->next[lane] = halley_framelog_head(lanes->log[lane]);
    lanes->pending |= (uint8_t)(1u << lane);
    return HALLEY_FRAMELOG_OK;
}

unsigned halley_lanes_due(const struct halley_lanes *lanes,
                          const struct halley_lane_policy policies[HALLEY_LANES], uint32_t now_ms,
                          int *next_ms)
{
    unsigned due = 0;
    *next_ms = -1;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (!(lanes->pending & (1u << lane)))
            continue;
        uint32_t passed = now_ms - lanes->flushed_ms[lane];
        if (passed >= policies[lane].interval_ms) {
            due |= 1u << lane;
            continue;
        }
        int left = (int)(policies[lane].interval_ms - passed);
        if (*next_ms < 0 || left < *next_ms)
            *next_ms = left;
    }
    return due;
}

unsigned halley_lanes_flush_begin(struct halley_lanes *lanes, unsigned which, uint32_t now_ms)
{
    unsigned began = lanes->pending & which;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (began & (1u << lane))
            lanes->flushed_ms[lane] = now_ms;
    }
    lanes->pending &= (uint8_t)~began;
    return began;
}

bool halley_lanes_expire(struct halley_lanes *lanes,
                         const struct halley_lane_policy policies[HALLEY_LANES], uint32_t now_ms)
{
    bool left = false;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        struct halley_framelog *log = lanes->log[lane];
        if (!log)
            continue;
        halley_framelog_expire(log, &policies[lane].bounds, now_ms);
        if (halley_framelog_tail(log) == halley_framelog_head(log)) {
            halley_framelog_destroy(log);
            lanes->log[lane] = NULL;
        } else {
            left = true;
        }
    }
    return left;
}

size_t halley_lanes_memory(const struct halley_lanes *lanes)
{
    size_t sum = 0;
    for (int lane = 0; lane < HALLEY_LANES; lane++)
        sum += lanes->log[lane] ? halley_framelog_memory(lanes->log[lane]) : 0;
    return sum;
}

bool halley_lanes_lost(const struct halley_lanes *lanes, int lane, uint32_t cursor)
{
    const struct halley_framelog *log = lanes->log[lane];
    if (!log)
        return cursor != lanes->next[lane];
    return (int32_t)(cursor - halley_framelog_tail(log)) < 0;
}

uint32_t halley_lanes_catch_up(const struct halley_lanes *lanes,
                               const struct halley_lane_policy *policy, int lane, int encoding,
                               uint32_t now_ms, uint32_t *cursor)
{
    if (!halley_lanes_lost(lanes, lane, *cursor))
        return 0;
    const struct halley_framelog *log = lanes->log[lane];
    uint32_t resume =
        log ? halley_framelog_resume(log, &policy->bounds, encoding, now_ms) : lanes->next[lane];
    uint32_t skipped = resume - *cursor;
    *cursor = resume;
    return skipped;
}

bool halley_plan_add(struct halley_plan *plan, const struct halley_lanes *lanes, int lane,
                     int encoding, uint32_t *cursor)
{
    const struct halley_framelog *log = lanes->log[lane];
    if (!log || *cursor == lanes->next[lane])
        return true;
    if (plan->segment_count == HALLEY_PLAN_SEGMENTS)
        return false;
    int runs = halley_framelog_range(log, encoding, *cursor, &plan->iov[plan->iov_count]);
    if (runs == 0) { /* nothing in this encoding: frames from before it was kept */
        *cursor = lanes->next[lane];
        return true;
    }
    size_t bytes = halley_framelog_pending(log, encoding, *cursor);
    plan->segments[plan->segment_count++] =
        (struct halley_segment){.log = log, .cursor = cursor, .encoding = encoding, .bytes = bytes};
    plan->iov_count += runs;
    plan->bytes += bytes;
    return true;
}

/* The bytes of the one frame that begins `offset` bytes behind the segment's cursor. */
static size_t frame_at(const struct halley_segment *segment, size_t offset)
{
    struct iovec runs[2];
    size_t into;
    uint32_t number =
        halley_framelog_locate(segment->log, segment->encoding, *segment->cursor, offset, &into);
    size_t bytes = 0;
    int count = halley_framelog_frame(segment->log, segment->encoding, number, into, runs);
    for (int i = 0; i < count; i++)
        bytes += runs[i].iov_len;
    return bytes;
}

size_t halley_plan_cut(const struct halley_plan *plan, size_t from, size_t most, size_t room)
{
    size_t taken = 0;
    size_t begin = 0; /* of the segment in hand */
    for (int i = 0; i < plan->segment_count && begin < most; i++) {
        const struct halley_segment *segment = &plan->segments[i];
        size_t offset = from + taken - begin;
        begin += segment->bytes;
        if (from + taken >= begin)
            continue;
        if (begin <= from + room) {
            taken = begin - from;
            continue;
        }
        size_t into;
        (void)halley_framelog_locate(segment->log, segment->encoding, *segment->cursor,
                                     offset + room - taken, &into);
        if (into < room - taken)
            taken = room - into;
        return taken > 0 ? taken : frame_at(segment, offset);
    }
    return taken;
}

uint32_t halley_plan_settle(struct halley_plan *plan, size_t sent, struct iovec rest[2],
                            int *rest_count)
{
    uint32_t frames = 0;
    *rest_count = 0;
    for (int i = 0; i < plan->segment_count && sent > 0; i++) {
        struct halley_segment *segment = &plan->segments[i];
        if (sent >= segment->bytes) {
            uint32_t head = halley_framelog_head(segment->log);
            frames += head - *segment->cursor;
            *segment->cursor = head;
            sent -= segment->bytes;
            continue;
        }
        size_t into;
        uint32_t number =
            halley_framelog_locate(segment->log, segment->encoding, *segment->cursor, sent, &into);
        frames += number - *segment->cursor;
        *segment->cursor = number;
        if (into > 0) {
            *rest_count =
                halley_framelog_frame(segment->log, segment->encoding, number, into, rest);
            (*segment->cursor)++;
            frames++;
        }
        break;
    }
    return frames;
}
