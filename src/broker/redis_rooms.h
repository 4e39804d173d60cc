/* redis_rooms.h: which rooms are wanted, and how far Redis has confirmed them on each subscriber connection.
 *
 * A room is on two connections (redis_line). What every node listens to (halley:all, halley:users, its own channel) are
 * nameless rooms that are always wanted and only on the normal one. On a line a room goes
 *
 *     NONE -> SUBSCRIBING -> SUBSCRIBED -> UNSUBSCRIBING -> NONE
 *
 * with at most one command unanswered, so a confirmation always belongs to the newest one; what was wished meanwhile
 * is looked at when the answer is there. A line that goes down puts its rooms back to NONE.
 *
 * Path:      redis -> [rooms] -> commands to send, on_subscribed, on_gap.
 * Threads:   plain values; the broker's thread. Pure: no socket, no clock.
 * Ownership: owns the rooms: about 100 bytes for a name of ten (budget: 120), bucket included.
 * Limits:    limits.rooms, held by the caller; REDIS_BATCH_MAX channels per command.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "broker/redis_names.h"

enum { REDIS_BATCH_MAX = 512 };

/* The connections that subscribe, in the order of their urgency. */
enum redis_line { REDIS_LINE_HIGH, REDIS_LINE_NORMAL, REDIS_LINES };

struct redis_rooms_events {
    void (*on_subscribed)(void *ctx, struct bytes room);
    void (*on_gap)(void *ctx, struct bytes room, unsigned lanes);
};

struct redis_room;

enum { REDIS_FIXED = BROKER_CHANNELS - BROKER_ALL };

struct redis_rooms {
    struct map map;
    struct redis_room *fixed[REDIS_FIXED]; /* by channel, from BROKER_ALL on */
    struct link subscribe[REDIS_LINES];    /* wanted, and not even asked for */
    struct link unsubscribe[REDIS_LINES];  /* held, and no longer wanted */
    struct link announce;                  /* wanted again while it was still held on both lines */
    uint32_t
        resync[REDIS_LINES]; /* rooms that were wanted while the line was down, not yet confirmed */
    bool up[REDIS_LINES];
    uint32_t wanted; /* rooms with a name */
    struct redis_names names;
    struct redis_rooms_events events;
    void *ctx;
};

/* Returns 0 or UV_ENOMEM. */
int redis_rooms_init(struct redis_rooms *rooms, const char *prefix, const char *node,
                     const struct redis_rooms_events *events, void *ctx);
void redis_rooms_fini(struct redis_rooms *rooms);

/* Wishes; both are idempotent and call nothing. want returns 0, UV_ENOMEM, or UV_EINVAL for a name of another length
 * than 1 to ROOM_NAME_MAX. */
int redis_rooms_want(struct redis_rooms *rooms, struct bytes name);
void redis_rooms_unwant(struct redis_rooms *rooms, struct bytes name);

/* Calls on_subscribed for the rooms that were given up and wanted again before anything was sent. */
void redis_rooms_announce(struct redis_rooms *rooms);

/* A line can be used from now on, or was lost with all its subscriptions. */
void redis_rooms_up(struct redis_rooms *rooms, enum redis_line line);
void redis_rooms_down(struct redis_rooms *rooms, enum redis_line line);

/* Appends the next SUBSCRIBE or UNSUBSCRIBE and returns for how many channels: 0, nothing is left to send. When out
 * has failed the line must be given up. */
uint32_t redis_rooms_batch(struct redis_rooms *rooms, enum redis_line line, struct buf *out);

/* Redis confirmed a command for one channel. Calls on_gap and on_subscribed. Returns 0, or UV_EPROTO when nobody had
 * asked for that. */
int redis_rooms_confirmed(struct redis_rooms *rooms, enum redis_line line, struct bytes channel,
                          bool subscribed);

/* May a message of this channel be delivered? Calls on_gap first where one is due. Fills *kind and *room. */
bool redis_rooms_deliver(struct redis_rooms *rooms, enum redis_line line, struct bytes channel,
                         enum broker_channel *kind, struct bytes *room);

/* Is everything that was wanted while the line was away confirmed? */
bool redis_rooms_settled(const struct redis_rooms *rooms, enum redis_line line);
