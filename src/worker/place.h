/* place.h: where in one lane a viewer that comes back goes on.
 *
 * Looks into the room's own log, into what of history is on its way already, and at what history was last read to have. Then it sets
 * the member's cursor and the lane's state, and has history read where that alone can tell. It tells the viewer nothing, closes nobody
 * and frees nothing: what the lanes together mean is resume.c's.
 *
 * Path:      resume (a join, history that was read, a time that is over) -> [place] -> cursors, COMMAND_ASK_HISTORY.
 * Threads:   the worker's own.
 * Ownership: nothing of its own; a lane stands on its tide's waiting list or on a replay's readers until place_end().
 * Limits:    history.replay, history.replay_bytes.
 */
#pragma once

#include "worker/resume.h"

enum placed {
    PLACED,
    PLACED_OLD /* history must be read */,
    PLACED_AHEAD,
    PLACED_LOST,
    PLACED_LATER /* nothing is lost, but this worker can't tell yet where it goes on */
};

/* batch: what was read of history for it just now, or NULL. Returns false where the viewer can't go on yet, but nothing is lost. */
bool place_lane(struct worker *worker, struct resume *resume, struct tide *tide, int lane,
                const struct history_batch *batch);
/* history.wait is over. PLACED: nothing is to be waited for, or it is a gap; PLACED_OLD: history is to be read (place_ask); PLACED_LATER:
 * it can't be told. */
enum placed place_overdue(struct worker *worker, struct resume *resume, struct tide *tide,
                          int lane);
/* Has history read for the lane, unless it is being read. */
void place_ask(struct worker *worker, struct tide *tide, int lane);
/* What history has, so that nobody asks for the rest for a while: nothing of the lane's epoch where it is of another one, unless it was
 * read before that epoch began. */
void place_keep_answer(struct tide_lane *of, const struct history_batch *batch);
/* Was it read (asked_ms, by the clock) after the viewer came, so that it has what the viewer has, or lost it? */
bool place_is_news(uint64_t asked_ms, const struct resume *resume);
/* Leaves the list that it is on: of those who wait, or of a replay's readers. */
void place_end(struct resume_lane *lane, enum resume_state state);
