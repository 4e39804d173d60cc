/* resume.h: numbers of rooms with history, and viewers that come back.
 *
 * A tide is what a worker knows of the numbers in a room: where each lane stands, and from which frame of its log on nothing is
 * missing. A viewer that joins with `after` goes on from the frame log where that reaches back far enough; else from a replay: history
 * read once for all who come back at about the same time, encoded once, with a cursor per viewer. What is live waits meanwhile.
 *
 *      replay:   first ........ cursor ........ last
 *      log:                            tail .......... last + 1 ........ head
 *
 *      join with after ─▶ ASKED (history is read) ──┬─▶ joined ─▶ REPLAY ─▶ live
 *                         AHEAD (has more than we) ─┤     └─ gap before it, where history does not reach back
 *                                                   └─▶ unavailable: can't be told now, and nothing is lost
 *
 * resume.c answers joins that wait, when all their lanes have a place; place.c (place.h) finds the place of one lane; replay.c encodes
 * what was read; tide.c keeps the numbers.
 *
 * Path:      node (COMMAND_ROOM_LIVE, COMMAND_HISTORY), room -> [resume] -> flush.
 * Threads:   the worker's own.
 * Ownership: owns tides, resumes and replays; a resume hangs on its viewer's extras and borrows the member.
 * Limits:    history.wait, history.replay, history.replay_bytes.
 */
#pragma once

#include "worker/internal.h"

enum resume_state {
    RESUME_LIVE,   /* nothing to wait for */
    RESUME_ASKED,  /* on the tide's waiting list */
    RESUME_AHEAD,  /* there too: the viewer has messages that this worker has not got yet */
    RESUME_REPLAY, /* on the replay's readers */
    RESUME_GAP     /* to be told, before `joined` */
};

/* One lane of a viewer that comes back. */
struct resume_lane {
    struct link link;
    struct resume *resume;
    struct replay *replay;
    uint32_t cursor;
    enum resume_state state;
    bool left_out; /* the viewer was passive: it takes no place in this lane */
};

/* A viewer on its way back into one room. */
struct resume {
    struct resume *next; /* of the same viewer */
    struct link link;    /* on worker->resumes until `joined` is told */
    struct viewer *viewer;
    struct member *member;
    struct intent_ref ref;
    uint32_t since_ms;
    uint64_t came_ms; /* by the clock */
    bool fresh;       /* it was not in the room before */
    bool begun;       /* the room is live */
    bool joined;      /* told */
    bool doubted;     /* it stayed AHEAD for history.wait, and history is read to see why */
    struct history_point after[LANE_COUNT];
    struct resume_lane lanes[LANE_COUNT];
};

/* What of history is on its way to viewers that came back. */
struct replay {
    struct link link; /* on worker->replays */
    struct halley_lanes lanes;
    enum lane lane;
    uint64_t epoch;
    uint64_t first;
    uint64_t last;
    uint32_t made_ms;
    size_t bytes;
    struct link readers;     /* resume_lane */
    struct tide_lane *owner; /* whose newest one it is, or NULL */
};

struct tide_lane {
    struct history_point last;
    uint64_t epoch_ms; /* by the clock: since when it is known, or since when it is unknown */
    uint64_t since_n;  /* frames from number `since` on hold since_n + 1 and all that follow */
    struct history_point kept; /* the last one that history had at kept_ms */
    uint64_t kept_n;           /* and the first of the lane's epoch; 0: not read */
    uint64_t kept_ms;          /* by the clock */
    uint32_t since;
    bool gap_told; /* the hole before the next number */
    bool unknown;  /* last is not of the time before the first message: it could not be read */
    bool asking;
    uint32_t asked_ms;
    struct link waiting; /* resume_lane */
    struct replay *replay;
};

struct tide {
    struct map_node node;
    struct room *room;
    struct tide_lane lanes[LANE_COUNT];
};

/* tide.c */
struct tide *tide_of(const struct worker *worker,
                     const struct room *room); /* NULL: no numbers are known */
struct tide *tide_make(struct worker *worker,
                       struct room *room); /* it, or a new one; NULL: no memory */
/* The room is live from here on; points: as of COMMAND_ROOM_LIVE. */
void tide_start(struct worker *worker, struct room *room, struct bytes points);
void tide_end(struct worker *worker, struct room *room);
/* Was it appended already? */
bool tide_is_repeat(const struct worker *worker, const struct room *room,
                    const struct message *message);
/* The notice that must stand before it, or NULL. The caller lets go of it. */
struct message *tide_gap(const struct worker *worker, const struct room *room,
                         const struct message *message);
/* A message of the room stands in its log under this number. */
void tide_appended(struct worker *worker, struct room *room, const struct message *message,
                   uint32_t number);

/* replay.c */
/* Of what was read, as far as this worker's log stands. NULL: there is nothing, history.replay_bytes are reached, or memory is out. */
struct replay *resume_make_replay(struct worker *worker, struct tide_lane *tide, enum lane lane,
                                  const struct history_batch *batch);
void resume_free_replay(struct worker *worker, struct replay *replay);
/* What the next ones read who come back; those who still read the older one go on with it. */
void resume_set_replay(struct worker *worker, struct tide_lane *tide, struct replay *replay);

/* resume.c */
/* Fills in where the lanes of the room stand. */
void resume_tell_stand(const struct worker *worker, const struct room *room, struct reply *joined);
/* The viewer joined with `after`; it is answered at once or later. fresh: it was not in before. Returns false when memory is out:
 * what it waited for before stands. */
bool resume_join(struct worker *worker, struct member *member, const struct intent *intent,
                 bool fresh);
/* The viewer joins once more, without `after`, while it waits: true when this ref is answered in place of the earlier one's. */
bool resume_join_again(struct worker *worker, struct member *member, const struct intent_ref *ref);
/* The ref of a join with `after` that waits for history. */
struct intent_ref resume_unanswered(const struct member *member);
/* The room came to life: true when this member is answered by its resume. ref: of the last join that waited for that; NULL: forgotten for want
 * of memory. */
bool resume_live(struct worker *worker, struct member *member, const struct intent_ref *ref);
/* It leaves. Returns true when it had not been told yet that it is in. */
bool resume_drop(struct worker *worker, struct member *member);
void resume_on_history(struct worker *worker, const struct command *command);
void resume_turn(struct worker *worker); /* whom the last messages brought up */
void resume_tick(struct worker *worker);
void resume_fini(struct worker *worker); /* all viewers are gone */

/* Before a lane of the member is gathered: may it be, and what of a replay goes before it? */
enum resume_gather { RESUME_BLOCKED, RESUME_FULL, RESUME_GO };
enum resume_gather resume_gather(struct worker *worker, struct member *member, int lane,
                                 struct halley_plan *plan);
