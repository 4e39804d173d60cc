/* replay.c: what of history is on its way to viewers that came back, encoded once for all of them. */
#include "worker/resume.h"

#include <stdlib.h>

void resume_free_replay(struct worker *worker, struct replay *replay)
{
    if (replay->owner)
        replay->owner->replay = NULL;
    list_remove(&replay->link);
    worker->replay_bytes -= replay->bytes;
    metric_set(&worker->metrics.memory_replays, worker->replay_bytes);
    halley_lanes_fini(&replay->lanes);
    free(replay);
}

/* Encodes what was read up to where this worker's log stands, for both encodings: others may want it soon. */
static bool replay_fill(struct worker *worker, struct replay *replay,
                        const struct history_batch *batch)
{
    const struct halley_lane_policy all = {.bounds = {.bytes = 1u << 30, .ttl_ms = UINT32_MAX / 2}};
    for (uint64_t n = replay->first; n <= replay->last; n++) {
        const struct message *message = batch->messages[n - batch->first];
        struct halley_frame frames[HALLEY_ENCODINGS] = {{0}};
        for (int e = 0; e < ENCODING_COUNT && message; e++) {
            struct buf *scratch = &worker->scratch[e];
            buf_clear(scratch);
            adapter_of_encoding((enum encoding)e)->append_message(scratch, message);
            if (scratch->failed)
                return false;
            frames[e] = (struct halley_frame){scratch->data, scratch->len};
        }
        if (halley_lanes_append(&replay->lanes, &all, (int)replay->lane, worker->now_ms, 0,
                                frames) != 0)
            return false;
    }
    return true;
}

struct replay *resume_make_replay(struct worker *worker, struct tide_lane *tide, enum lane lane,
                                  const struct history_batch *batch)
{
    struct halley_lanes_rest none;
    uint64_t end = batch->first + batch->count - 1;
    uint64_t last = tide->last.n < end ? tide->last.n : end;
    if (batch->count == 0 || last < batch->first ||
        worker->replay_bytes >= worker->conf->history.replay_bytes)
        return NULL;
    struct replay *replay = calloc(1, sizeof(*replay));
    if (!replay)
        return NULL;
    *replay = (struct replay){.lane = lane,
                              .epoch = batch->last.epoch,
                              .first = batch->first,
                              .last = last,
                              .made_ms = worker->now_ms};
    list_init(&replay->link);
    list_init(&replay->readers);
    halley_lanes_rest_init(&none, worker->now_ms);
    memset(none.next, 0, sizeof(none.next));
    halley_lanes_init(&replay->lanes, &none);
    list_append(&worker->replays, &replay->link);
    bool whole = replay_fill(worker, replay, batch);
    replay->bytes = sizeof(*replay) + halley_lanes_memory(&replay->lanes);
    worker->replay_bytes += replay->bytes;
    metric_set(&worker->metrics.memory_replays, worker->replay_bytes);
    if (whole)
        return replay;
    resume_free_replay(worker, replay);
    return NULL;
}

void resume_set_replay(struct worker *worker, struct tide_lane *tide, struct replay *replay)
{
    struct replay *older = tide->replay;
    if (older && list_empty(&older->readers))
        resume_free_replay(worker, older);
    else if (older)
        older->owner = NULL;
    tide->replay = replay;
    if (replay)
        replay->owner = tide;
}
