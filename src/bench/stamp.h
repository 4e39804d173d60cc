/* stamp.h: what a measured message carries in its data, and when each message is due.
 *
 *     {"t":"0000001234567890123","n":"0000000042","r":"0000000","pad":"xxxx"}
 *
 * Messages of the high lane overtake others, so they count apart: their r is the room's index plus
 * the number of rooms.
 *
 * t is the monotonic time in ns at which the message SHOULD have been sent. A publisher that is
 * held up therefore makes the latency grow instead of hiding it (no coordinated omission). n counts
 * per room, r is the room's index. All have a fixed width, so that every message of a run has the
 * same size on the wire.
 *
 * Threads:   plain values.
 */
#pragma once

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STAMP_SIZE_MIN = 67 };

struct stamp {
    uint64_t time_ns;
    uint64_t number;
    uint32_t room;
};

/* Appends the data of one message, exactly `size` bytes (at least STAMP_SIZE_MIN). */
void stamp_write(struct buf *out, const struct stamp *stamp, size_t size);

/* Overwrites the numbers of a stamp that stamp_write() wrote at `text`. */
void stamp_patch(char *text, const struct stamp *stamp);

/* Finds the stamp inside a message, however it is wrapped. *hint is where the last one was found:
 * messages of one run look alike, so the search is mostly one comparison. Returns false when there
 * is none. */
bool stamp_find(struct bytes payload, size_t *hint, struct stamp *out);

/* When the messages of a run are due: `warmup` messages, a pause, `count` measured ones, at a
 * steady rate. */
struct schedule {
    uint64_t start_ns;
    double rate; /* messages a second, over all rooms */
    uint64_t warmup;
    uint64_t count;
    uint64_t pause_ns;
    uint64_t rooms;      /* at least 1; 0 counts as 1 */
    uint64_t high_every; /* of a room's messages one in so many goes to the high lane; 0: none */
};

uint64_t schedule_due_ns(const struct schedule *schedule, uint64_t message);

static inline uint64_t schedule_total(const struct schedule *schedule)
{
    return schedule->warmup + schedule->count;
}

/* Message m goes to room m % rooms and is number m / rooms there. Returns how many of the messages 0
 * … before - 1 go to a room. */
static inline uint64_t schedule_in_room(uint64_t before, uint64_t rooms, uint64_t room)
{
    return before > room ? (before - room - 1) / rooms + 1 : 0;
}

/* One lane of one room: what is numbered without holes, and must arrive in order. */
struct stream {
    uint32_t room;
    bool high;
};

/* Says to which stream a message goes; returns its number there. */
uint64_t schedule_stream(const struct schedule *schedule, uint64_t message, struct stream *out);

/* Returns how many of the messages 0 … before - 1 go to a stream. */
uint64_t schedule_in_stream(const struct schedule *schedule, uint64_t before, struct stream stream);
