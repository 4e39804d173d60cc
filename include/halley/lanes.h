/* lanes.h: the lanes of one room (or of the messages to all): a frame log each, when to flush, and what one write takes.
 *
 *      high    |========|--->        flushed first, at once
 *      normal  |==============|->    gathers for its interval while the room is busy
 *      low     |====|-->
 *
 * Adaptive flush: a lane that was quiet flushes at once; after a flush further messages gather until the lane's
 * interval has passed. So latency at rest is not paid for throughput under load.
 *
 * Path:      frame log -> [lanes] -> flush (one send per viewer).
 * Threads:   none inside; one owner's thread.
 * Ownership: owns the logs, which exist only while they hold something.
 * Limits:    per lane bytes, ttl; HALLEY_PLAN_SEGMENTS ranges per write.
 */
#pragma once

#include "halley/framelog.h"

enum { HALLEY_LANES = 3, HALLEY_LANE_HIGH = 0, HALLEY_LANE_NORMAL = 1, HALLEY_LANE_LOW = 2 };

struct halley_lane_policy {
    struct halley_framelog_bounds bounds;
    uint32_t interval_ms;
    bool disconnect; /* a viewer that falls behind is cut off instead of skipping */
};

struct halley_lanes {
    struct halley_framelog *log[HALLEY_LANES]; /* NULL while empty */
    uint32_t next[HALLEY_LANES];               /* number of the next frame */
    uint32_t flushed_ms[HALLEY_LANES];         /* when the lane was last flushed */
    uint8_t pending; /* bits of lanes with frames since their last flush */
};

/* What remains of lanes whose logs are empty: cursors stay valid, and the next flush knows of the last one. */
struct halley_lanes_rest {
    uint32_t next[HALLEY_LANES];
    uint32_t flushed_ms[HALLEY_LANES];
};

/* Lanes that were never flushed: the first message flushes at once. */
void halley_lanes_rest_init(struct halley_lanes_rest *rest, uint32_t now_ms);

/* Lanes without frames that go on where `rest` says. */
void halley_lanes_init(struct halley_lanes *lanes, const struct halley_lanes_rest *rest);
/* Drops all frames. */
void halley_lanes_fini(struct halley_lanes *lanes);
struct halley_lanes_rest halley_lanes_rest(const struct halley_lanes *lanes);

/* Appends a frame to a lane. Returns HALLEY_FRAMELOG_OK or its errors. */
int halley_lanes_append(struct halley_lanes *lanes, const struct halley_lane_policy *policy,
                        int lane, uint32_t now_ms, uint16_t type,
                        const struct halley_frame frames[HALLEY_ENCODINGS]);

/* The bits (1 << lane) of the pending lanes that must be flushed now. In *next_ms: the milliseconds until another one must, at least 1;
 * -1: none is pending beside them. */
unsigned halley_lanes_due(const struct halley_lanes *lanes,
                          const struct halley_lane_policy policies[HALLEY_LANES], uint32_t now_ms,
                          int *next_ms);

/* A flush of these lanes begins: those of them that are pending no longer are. Returns their bits. */
unsigned halley_lanes_flush_begin(struct halley_lanes *lanes, unsigned which, uint32_t now_ms);

/* Drops old frames, frees empty logs. Returns true while any log is left. */
bool halley_lanes_expire(struct halley_lanes *lanes,
                         const struct halley_lane_policy policies[HALLEY_LANES], uint32_t now_ms);

/* Heap of all logs. */
size_t halley_lanes_memory(const struct halley_lanes *lanes);

/* Puts a cursor that fell behind the tail to where the viewer goes on. Returns how many frames it skips: 0 when it had not fallen behind. */
uint32_t halley_lanes_catch_up(const struct halley_lanes *lanes,
                               const struct halley_lane_policy *policy, int lane, int encoding,
                               uint32_t now_ms, uint32_t *cursor);

/* Has this cursor fallen behind the tail? */
bool halley_lanes_lost(const struct halley_lanes *lanes, int lane, uint32_t cursor);

/* One write: ranges of several logs in the order in which they leave. */
enum { HALLEY_PLAN_SEGMENTS = 24, HALLEY_PLAN_IOV = 2 * HALLEY_PLAN_SEGMENTS + 2 };

struct halley_segment {
    const struct halley_framelog *log;
    uint32_t *cursor;
    int encoding;
    size_t bytes;
};

struct halley_plan {
    struct iovec iov
        [HALLEY_PLAN_IOV]; /* the caller may put up to two runs of its own first, and sets iov_count */
    int iov_count;
    int segment_count;
    size_t bytes; /* of the segments */
    struct halley_segment segments[HALLEY_PLAN_SEGMENTS];
};

static inline void halley_plan_init(struct halley_plan *plan)
{
    plan->iov_count = 0;
    plan->segment_count = 0;
    plan->bytes = 0;
}

/* Adds what lies between the cursor (not behind the tail) and the head of a lane. Returns false when the plan is full: write, settle, go on. */
bool halley_plan_add(struct halley_plan *plan, const struct halley_lanes *lanes, int lane,
                     int encoding, uint32_t *cursor);

/* How many bytes of the segments to give to the kernel as one TCP segment, from byte `from` on (a frame's beginning) of the first `most` bytes: as
 * many whole frames as fit `room` bytes; one that does not fit at all is taken whole. */
size_t halley_plan_cut(const struct halley_plan *plan, size_t from, size_t most, size_t room);

/* The kernel took `sent` bytes of the segments (what the caller put first is already deducted): moves the cursors. A frame that was cut counts
 * as sent: the runs of its rest are put in rest[2] and their number is returned in *rest_count; copy them before anything changes the
 * logs. Returns how many frames were passed, the cut one included. */
uint32_t halley_plan_settle(struct halley_plan *plan, size_t sent, struct iovec rest[2],
                            int *rest_count);
