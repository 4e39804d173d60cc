#include "lanes/model.h"

#include "base/clock.h"
#include "lanes/test_lanes.h"

#include <stdlib.h>
#include <string.h>

/* One plain word says which of many random steps went wrong. */
#define HOLDS(model, condition)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("%s (line %d), seed %llu, step %llu", #condition, __LINE__,                   \
                     (unsigned long long)(model)->seed, (unsigned long long)(model)->step);        \
    } while (0)

static char *pool(void)
{
    static char bytes[MODEL_POOL + MODEL_FRAME_MAX];
    static uint64_t state;
    if (state == 0) {
        state = 0x5eed;
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (char)random_next(&state);
    }
    return bytes;
}

const char *model_bytes(uint32_t number, int encoding)
{
    uint32_t mixed = (number * 2u + (uint32_t)encoding) * 2654435761u;
    return pool() + (mixed >> 7) % MODEL_POOL;
}

struct model *model_create(uint64_t seed, uint32_t first_number, uint32_t bytes, uint32_t ttl_ms)
{
    struct model *model = calloc(1, sizeof(*model));
    assert_non_null(model);
    model->log = halley_framelog_create(first_number);
    assert_non_null(model->log);
    model->bounds = (struct halley_framelog_bounds){.bytes = bytes, .ttl_ms = ttl_ms};
    model->tail = model->head = first_number;
    model->seed = seed;
    model->random = seed * 0x9e3779b97f4a7c15u + 1;
    return model;
}

void model_destroy(struct model *model)
{
    halley_framelog_destroy(model->log);
    free(model);
}

uint32_t model_random(struct model *model, uint32_t end)
{
    return (uint32_t)(random_next(&model->random) >> 32) % end;
}

static struct model_frame *frame_at(struct model *model, uint32_t number)
{
    return &model->frames[number % MODEL_FRAMES];
}

/* Bytes of the frames [from, to). */
static size_t bytes_between(struct model *model, int encoding, uint32_t from, uint32_t to)
{
    size_t sum = 0;
    for (uint32_t n = from; n != to; n++)
        sum += frame_at(model, n)->len[encoding];
    return sum;
}

/* Would this much more pass the bounds? What a frame costs beside its bytes counts as well. */
static bool too_much(struct model *model, uint32_t bytes, uint32_t len0, uint32_t len1)
{
    uint64_t entries = (uint64_t)(model->head - model->tail) + (len0 != UINT32_MAX ? 1 : 0);
    uint32_t more[HALLEY_ENCODINGS] = {len0, len1};
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        uint32_t len = more[e] == UINT32_MAX ? 0 : more[e];
        if (bytes_between(model, e, model->tail, model->head) + len > bytes)
            return true;
    }
    return entries * HALLEY_FRAMELOG_ENTRY_BYTES > bytes;
}

static bool oldest_is_old(struct model *model)
{
    return model->tail != model->head &&
           model->now_ms - frame_at(model, model->tail)->time_ms > model->bounds.ttl_ms;
}

static int append_to_log(struct model *model, uint32_t len0, uint32_t len1)
{
    struct halley_frame frames[HALLEY_ENCODINGS] = {
        {.data = len0 ? model_bytes(model->head, 0) : NULL, .len = len0},
        {.data = len1 ? model_bytes(model->head, 1) : NULL, .len = len1},
    };
    return halley_framelog_append(model->log, &model->bounds, model->now_ms, 7, frames);
}

int model_append(struct model *model, uint32_t len0, uint32_t len1)
{
    int error = append_to_log(model, len0, len1);
    if (len0 > model->bounds.bytes || len1 > model->bounds.bytes) {
        HOLDS(model, error == HALLEY_FRAMELOG_ERR_TOO_LARGE);
        return error;
    }
    while (model->tail != model->head &&
           (oldest_is_old(model) || too_much(model, model->bounds.bytes, len0, len1)))
        model->tail++;
    HOLDS(model, error == HALLEY_FRAMELOG_OK || error == HALLEY_FRAMELOG_ERR_NO_MEMORY);
    if (error)
        return error;
    *frame_at(model, model->head) =
        (struct model_frame){.time_ms = model->now_ms, .len = {len0, len1}};
    model->head++;
    HOLDS(model, model->head - model->tail <= MODEL_FRAMES);
    return HALLEY_FRAMELOG_OK;
}

void model_expire(struct model *model)
{
    halley_framelog_expire(model->log, &model->bounds, model->now_ms);
    while (oldest_is_old(model))
        model->tail++;
}

void model_trim(struct model *model, uint32_t bytes)
{
    uint32_t dropped = halley_framelog_trim(model->log, bytes);
    uint32_t before = model->tail;
    while (model->tail != model->head && too_much(model, bytes, UINT32_MAX, UINT32_MAX))
        model->tail++;
    HOLDS(model, dropped == model->tail - before);
}

/* The runs hold exactly the bytes of [from, to) behind the first `into`. */
static void check_runs(struct model *model, int encoding, const struct iovec *iov, int count,
                       uint32_t from, uint32_t to, size_t into)
{
    int run = 0;
    size_t used = 0;
    for (uint32_t n = from; n != to; n++) {
        const char *expected = model_bytes(n, encoding) + into;
        size_t len = frame_at(model, n)->len[encoding] - into;
        into = 0;
        while (len > 0) {
            HOLDS(model, run < count);
            size_t left = iov[run].iov_len - used;
            size_t now = left < len ? left : len;
            HOLDS(model, now > 0);
            HOLDS(model, memcmp((char *)iov[run].iov_base + used, expected, now) == 0);
            expected += now;
            len -= now;
            used += now;
            if (used == iov[run].iov_len) {
                run++;
                used = 0;
            }
        }
    }
    HOLDS(model, run == count && used == 0);
}

static void check_range(struct model *model, int encoding, uint32_t from)
{
    struct iovec iov[2];
    int count = halley_framelog_range(model->log, encoding, from, iov);
    check_runs(model, encoding, iov, count, from, model->head, 0);
    HOLDS(model, halley_framelog_pending(model->log, encoding, from) ==
                     bytes_between(model, encoding, from, model->head));
}

/* A reader that took `bytes`: frame by frame it is where the log says. */
static void check_locate(struct model *model, int encoding, uint32_t from, size_t bytes)
{
    uint32_t number = from;
    size_t left = bytes;
    while (number != model->head && left >= frame_at(model, number)->len[encoding])
        left -= frame_at(model, number++)->len[encoding];
    size_t into = SIZE_MAX;
    HOLDS(model, halley_framelog_locate(model->log, encoding, from, bytes, &into) == number);
    HOLDS(model, into == left);
    if (number == model->head)
        return;
    struct iovec iov[2];
    int count = halley_framelog_frame(model->log, encoding, number, into, iov);
    check_runs(model, encoding, iov, count, number, number + 1, into);
}

static void check_resume(struct model *model, int encoding)
{
    uint32_t number = model->tail;
    size_t pending = bytes_between(model, encoding, number, model->head);
    for (; number != model->head; number++) {
        if (pending <= model->bounds.bytes / 2 &&
            model->now_ms - frame_at(model, number)->time_ms <= model->bounds.ttl_ms / 2)
            break;
        pending -= frame_at(model, number)->len[encoding];
    }
    HOLDS(model,
          halley_framelog_resume(model->log, &model->bounds, encoding, model->now_ms) == number);
}

void model_check(struct model *model)
{
    HOLDS(model, halley_framelog_check(model->log));
    HOLDS(model, halley_framelog_tail(model->log) == model->tail);
    HOLDS(model, halley_framelog_head(model->log) == model->head);
    uint32_t kept = model->head - model->tail;
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        check_range(model, e, model->tail);
        check_range(model, e, model->head);
        uint32_t from = model->tail + model_random(model, kept + 1);
        check_range(model, e, from);
        size_t pending = bytes_between(model, e, from, model->head);
        check_locate(model, e, from, 0);
        check_locate(model, e, from, pending);
        check_locate(model, e, from, model_random(model, (uint32_t)pending + 1));
        check_resume(model, e);
    }
    if (kept > 0) {
        uint32_t number = model->tail + model_random(model, kept);
        HOLDS(model, halley_framelog_age_ms(model->log, number, model->now_ms) ==
                         model->now_ms - frame_at(model, number)->time_ms);
    }
}
