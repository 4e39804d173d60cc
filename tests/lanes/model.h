/* model.h: the plainest frame log: an array of frames, every answer found by walking it.
 *
 * A step is done to the real log and to the model; model_check() then compares all that can be
 * asked. A frame's bytes are a slice of one random pool, chosen by number and encoding, so nothing
 * is kept.
 */
#pragma once

#include "halley/framelog.h"

enum { MODEL_FRAMES = 1 << 14, MODEL_POOL = 1 << 20, MODEL_FRAME_MAX = 1 << 18 };

struct model_frame {
    uint32_t time_ms;
    uint32_t len[HALLEY_ENCODINGS];
};

struct model {
    struct halley_framelog *log;
    struct halley_framelog_bounds bounds;
    uint32_t now_ms;
    uint32_t tail;
    uint32_t head;
    uint64_t random;
    uint64_t seed; /* named by a failure */
    uint64_t step;
    struct model_frame frames[MODEL_FRAMES]; /* frame n at n % MODEL_FRAMES */
};

/* Makes an empty pair. Both are freed by model_destroy(). */
struct model *model_create(uint64_t seed, uint32_t first_number, uint32_t bytes, uint32_t ttl_ms);
void model_destroy(struct model *model);

/* A number below `end`. */
uint32_t model_random(struct model *model, uint32_t end);

/* Appends to both. Returns what the log returned; only NO_MEMORY is left to the caller to judge. */
int model_append(struct model *model, uint32_t len0, uint32_t len1);
void model_expire(struct model *model);
void model_trim(struct model *model, uint32_t bytes);

/* Compares everything, at random places where there are many. */
void model_check(struct model *model);

/* The bytes of a frame in an encoding. */
const char *model_bytes(uint32_t number, int encoding);
