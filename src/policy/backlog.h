/* backlog.h: history in process, for a node without Redis: what scripts/redis/publish.lua does there.
 *
 * One list of all messages in order of age serves both time and memory; a room keeps its numbers for a day after its last message.
 *
 * Path:      publish -> [backlog] -> broker; resume -> [backlog] -> worker.
 * Threads:   plain values; the owner's thread. Times are passed in.
 * Ownership: owns copies of everything; spans that are given out hold until the next call.
 * Limits:    struct backlog_bounds; past them the oldest messages, then the oldest keys, then the longest silent rooms go.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "protocol/history_id.h"

struct backlog_bounds {
    uint32_t length; /* messages per room and lane */
    uint32_t ttl_ms;
    uint32_t dedupe_ms;
    uint32_t rooms;
    uint64_t bytes; /* of everything */
};

struct backlog {
    struct map rooms;
    struct map keys;
    struct link by_age; /* messages */
    struct link keys_by_age;
    struct link silent; /* rooms, the longest silent one first */
    uint64_t bytes;
    uint64_t newest_epoch;
};

struct backlog_post {
    struct bytes room;
    enum lane lane;
    struct bytes message; /* an envelope without id (message.h) */
    struct bytes key;     /* empty: none; unique over whose key it is */
    uint64_t now_ms;      /* monotonic */
    uint64_t unix_us;     /* makes epochs */
};

enum backlog_result { BACKLOG_ADDED, BACKLOG_REPEAT, BACKLOG_OTHER, BACKLOG_NO_MEMORY };

struct backlog_answer {
    enum backlog_result result;
    struct history_point point; /* ADDED, REPEAT */
    enum lane lane;             /* of the point */
    struct bytes message;       /* ADDED: as it is to be published, with its id */
};

void backlog_init(struct backlog *backlog);
void backlog_fini(struct backlog *backlog);

struct backlog_answer backlog_post(struct backlog *backlog, const struct backlog_bounds *bounds,
                                   const struct backlog_post *post);

/* Takes the newest post back: it could not be published. Only right after it was ADDED. */
void backlog_undo(struct backlog *backlog, const struct backlog_post *post);

/* Drops what is too old or too much. To be called every second or so. */
void backlog_expire(struct backlog *backlog, const struct backlog_bounds *bounds, uint64_t now_ms);

/* Where the lanes of a room stand; false: nothing is known of it. */
bool backlog_stand(const struct backlog *backlog, struct bytes room,
                   struct history_point points[LANE_COUNT]);

/* The newest messages of a lane, as many as `bytes` hold, in order. Returns their number; *first is that of the first one's n. */
uint32_t backlog_read(const struct backlog *backlog, struct bytes room, enum lane lane,
                      uint64_t bytes, struct bytes *out, uint32_t cap, uint64_t *first);
