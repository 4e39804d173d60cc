/* history.h: numbers of the rooms that this node holds: repeats are dropped, holes are filled from history, in order.
 *
 *      FLOWS ── a hole in the numbers, or a cut from Redis ──▶ WAITS: messages of the lane gather, history is read once
 *        ▲                                                        │
 *        └── what was read, or a gap after history.wait, then what gathered ◀──┘
 *
 * A number is believed where it is the next one, or where history, read after the message came, has it. Whoever may publish could make
 * one up, and a large one would have all that follow taken for repeats: such a message goes on without its number, and moves nothing.
 * While history can't be read a number is believed up to history.length further on.
 *
 * A lane that gave up on a cut is late: it flows, and history is read with growing pauses, by half of history.reads at most, until what it
 * missed is passed on, whether or not anything is published.
 *
 * A room has a struct here only once a message with a number is known of. Where no worker holds the room it is forgotten, and its
 * numbers are read again before the next viewer is told that it is in.
 *
 * Path:      broker -> dispatch -> [history] -> dispatch -> workers; workers' questions -> [history] -> Redis -> workers.
 * Threads:   the main thread.
 * Ownership: owns its rooms, and references to what waits.
 * Limits:    history.wait, history.waiting, history.reads, history.length and history.read_bytes a read; limits.rooms, and as many checks.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "worker/worker.h"

#include <uv.h>

struct node;
struct held;
struct history_read;

/* A lane that waits for what it missed. */
struct history_wait {
    struct link link; /* on history.waits, in order of time */
    struct history_room *room;
    enum lane lane;
    bool cut;    /* after a cut from Redis messages without number may be missing too */
    bool wanted; /* by a viewer that comes back into a lane whose stand is not known */
    uint64_t since_ms;
    struct history_read *read; /* under way; NULL: yet to be asked */
    size_t before;             /* messages that came before it was asked */
    struct buf messages;       /* struct message *, in the order in which they came */
};

/* A lane that missed a cut from Redis and is told of a gap: history is read until that succeeds. */
struct history_late {
    struct link link; /* on history.lates */
    struct history_room *room;
    enum lane lane;
    uint32_t pause_ms; /* after the last read */
    uint64_t asked_ms;
    struct history_read *read; /* under way */
    struct history_point after;
};

struct history_lane {
    struct history_point last; /* passed on; epoch 0: nothing was yet, of any epoch */
    uint64_t read_n; /* up to here, in last.epoch, what comes was had from history: a repeat */
    struct history_wait *wait; /* NULL: it flows */
    struct history_late *late; /* NULL: it is not behind */
    uint64_t ask_at_ms;        /* history is not asked before */
    uint64_t blind_until_ms;   /* unsure: until then nothing waits for a read */
    bool unsure; /* messages behind `last` were passed on, or not, and without number */
};

struct history_room {
    struct map_node node;
    struct history_lane lanes[LANE_COUNT];
    uint8_t name_len;
    char name[];
};

/* A room whose numbers are being asked for: before its viewers are told that they are in, or after a cut. */
struct history_stand {
    struct link link; /* on history.stands, or history.checks, until it is asked */
    struct node *node;
    uint64_t since_ms;
    uint64_t at_ms;    /* a check: it is not asked before */
    uint32_t pause_ms; /* … and after that not for so long */
    uint32_t turn;     /* the room's when it was asked */
    bool check;        /* after a cut */
    uint8_t name_len;
    char name[];
};

/* What halley -t counts for each room (conf/memory.c), with names and malloc's own. */
_Static_assert(sizeof(struct history_room) + sizeof(struct history_stand) +
                       2 * (ROOM_NAME_MAX + 16) + 16 <=
                   448,
               "HISTORY_ROOM_BYTES");
_Static_assert(sizeof(struct history_stand) + ROOM_NAME_MAX + 16 +
                       LANE_COUNT *
                           (sizeof(struct history_wait) + sizeof(struct history_late) + 32) <=
                   688,
               "HISTORY_CUT_BYTES");

/* One read of a room's lane. */
struct history_read {
    struct link link;
    struct map_node by_lane; /* those for viewers, by room and lane */
    struct node *node;
    struct history_wait *wait; /* NULL: for viewers or a late lane, or its room is gone */
    struct history_late *late;
    uint64_t askers; /* workers that wait for it */
    uint64_t asked_ms;
    enum lane lane;
    uint8_t name_len;
    char name[];
};

struct history {
    struct map rooms;
    struct link waits;
    struct link stands;
    struct link lates;
    uint32_t late_count;
    struct link checks;
    uint32_t check_count; /* those on the list, and … */
    uint32_t checks_sent; /* … those that are not answered yet */
    struct link reads;
    struct map reads_by_lane;
    uint32_t read_count;
    uint32_t waiting; /* messages, of all lanes */
    uv_timer_t timer; /* while something waits */
};

/* What a read found. */
struct history_found {
    int error;                 /* 0 or BROKER_ERR_… */
    struct history_point last; /* epoch 0: nothing is known */
    uint64_t first;
    uint32_t count;
    const struct bytes *messages; /* payloads */
};

/* The conf has types with history, and had none before: nobody has counted in the rooms that are held. */
void history_begin(struct node *node);
void history_init(struct node *node);
void history_close(struct node *node); /* its timer */
void history_start_timer(struct node *node);
void history_fini(struct node *node);

/* A room was subscribed or is held again: dispatch_stands() follows, at once or later. */
void history_hold(struct node *node, const struct held *held);
/* No worker holds it any more. */
void history_forget(struct node *node, struct bytes room);
/* Where the lanes of a room stand: the last messages passed on; epoch 0: there are none, and with n 1 that could not be read. */
void history_points(const struct node *node, struct bytes room,
                    struct history_point points[LANE_COUNT]);
/* A message of a room on its way to the workers. numbers_only: the room's viewers are not told yet that they are in. */
void history_take(struct node *node, struct message *message, bool numbers_only);
/* After a cut from Redis. Returns the lanes that are to be told of a gap; the others are looked after. */
unsigned history_cut(struct node *node, struct held *held, unsigned lanes);
/* A viewer wants to go on in a lane: where that stands is not known (its read failed), or it is late, it is read now. */
void history_wanted(struct node *node, struct bytes room, enum lane lane);
/* A worker's viewers want the newest messages: COMMAND_HISTORY follows. */
void history_ask(struct node *node, const struct command *command);

/* NULL: nothing is known of it. */
struct history_room *history_room_find(const struct history *history, struct bytes name);
/* NULL: memory is out. Only for rooms that some worker holds: who lets go of it frees it. */
struct history_room *history_room_create(struct node *node, struct bytes name);

/* A read without a wait: what it found behind the lane's last message goes out. */
void history_fill(struct node *node, struct history_room *room, enum lane lane,
                  const struct history_found *found);

/* The lane waits for what a cut may have taken. false: memory is out. */
bool history_cut_lane(struct node *node, struct history_room *room, enum lane lane);

/* history_check.c */
/* Of a room nothing is known, and there was a cut. The lanes' viewers are told of a gap in time, or get what they missed. false: memory is out, or
 * limits.rooms checks are under way. */
bool history_check(struct node *node, struct held *held, unsigned lanes);
void history_checked(struct history_stand *check, const struct history_point *points);
void history_checks_tick(struct node *node);

/* history_late.c */
void history_late_begin(struct node *node, struct history_room *room, enum lane lane);
/* There was another cut: what is being read is too old. */
void history_late_drop_read(struct history_late *late);
void history_late_end(struct node *node, struct history_lane *lane);
void history_late_wanted(struct node *node, struct history_late *late);
void history_late_found(struct node *node, struct history_late *late,
                        const struct history_found *found);
void history_lates_tick(struct node *node);

/* history_stand.c: those that are yet to be asked are asked again. */
void history_stands_tick(struct node *node, uint64_t now);

/* history_lane.c; length: history.length, how far a number may be from where the lane stands without history's word */
enum history_number {
    NUMBER_NEXT,
    NUMBER_REPEAT,
    NUMBER_DOUBTFUL /* behind a hole, of another epoch, or made up */
};
enum history_number history_judge(const struct history_lane *lane, struct history_point at,
                                  uint32_t length);
/* A doubtful one: may it well be true? Only where history can't be read. */
bool history_is_plausible(const struct history_lane *lane, struct history_point at,
                          uint32_t length);
void history_set_last(struct history_lane *lane, struct history_point last);
/* A room's first number is of all lanes' epoch. */
void history_advance(struct history_lane lanes[LANE_COUNT], enum lane lane,
                     struct history_point at);
/* point: as read before the room's viewers are in; NULL: it could not be. What came by meanwhile moves the lane on, as far as it is
 * plausible, and is no hole. */
void history_stand_on(struct history_lane *lane, const struct history_point *point,
                      uint32_t length);
/* What waits, in order. */
struct message **history_kept(const struct history_wait *wait, size_t *count);
/* Whether history, read after the message came, has its number. */
bool history_is_confirmed(const struct history_found *found, struct history_point at);
/* Sets the lane to the point behind which what was read goes on. Returns whether nothing before that is missing. */
bool history_settle(struct history_lane *lane, const struct history_wait *wait,
                    const struct history_found *found);

/* history_ask.c */
/* Tells the workers that asked. */
void history_answer(struct history_read *read, const struct history_found *found);

/* history_read.c */
/* NULL: history.reads are under way, or memory is out. */
struct history_read *history_read_create(struct node *node, struct bytes room, enum lane lane);
void history_read_free(struct history_read *read);
/* Reads what came after `after` (epoch 0: all that is kept). Returns 0 and history_found() follows, at once or later; or BROKER_ERR_…. */
int history_read_start(struct history_read *read, struct history_point after);
void history_read_stand(
    struct history_stand *stand); /* history_stood() follows, or it is left on history.stands */
void history_found(struct history_read *read, const struct history_found *found);
/* points: of each lane; epoch 0: there is none yet. NULL: they could not be read. */
void history_stood(struct history_stand *stand, const struct history_point *points);
