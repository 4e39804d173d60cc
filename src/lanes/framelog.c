#include "halley/framelog.h"

#include <stdlib.h>
#include <string.h>

enum { MIN_RING_BYTES = 1024, MIN_ENTRIES = 16 };

struct entry {
    uint32_t time_ms;
    uint16_t type;
    uint16_t mark;
    uint32_t
        start[HALLEY_ENCODINGS]; /* offset of the frame's first byte in each ring, modulo 2^32 */
};

_Static_assert(sizeof(struct entry) == HALLEY_FRAMELOG_ENTRY_BYTES,
               "a bound promised in the header");

/* Bytes of one encoding: offsets run on modulo 2^32, the index is offset & (cap - 1). */
struct ring {
    char *data;
    uint32_t cap;  /* 0 or a power of two */
    uint32_t head; /* offset behind the newest byte */
};

struct halley_framelog {
    struct entry *entries;
    uint32_t entry_cap; /* 0 or a power of two */
    uint32_t head;
    uint32_t tail;
    struct ring rings[HALLEY_ENCODINGS];
};

struct halley_framelog *halley_framelog_create(uint32_t first_number)
{
    struct halley_framelog *log = calloc(1, sizeof(*log));
    if (log)
        log->head = log->tail = first_number;
    return log;
}

static void free_rings(struct halley_framelog *log)
{
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        free(log->rings[e].data);
        log->rings[e].data = NULL;
        log->rings[e].cap = 0;
    }
    free(log->entries);
    log->entries = NULL;
    log->entry_cap = 0;
}

void halley_framelog_destroy(struct halley_framelog *log)
{
    if (!log)
        return;
    free_rings(log);
    free(log);
}

static struct entry *entry_at(const struct halley_framelog *log, uint32_t number)
{
    return &log->entries[number & (log->entry_cap - 1)];
}

/* Offset of a frame's first byte; that of the head is where the next frame will begin. */
static uint32_t start_of(const struct halley_framelog *log, int encoding, uint32_t number)
{
    return number == log->head ? log->rings[encoding].head : entry_at(log, number)->start[encoding];
}

static uint32_t kept_bytes(const struct halley_framelog *log, int encoding)
{
    return log->rings[encoding].head - start_of(log, encoding, log->tail);
}

/* Do `count` frames cost more than this many bytes beside their own? */
static bool entries_pass(uint32_t count, uint32_t bytes)
{
    return (uint64_t)count * HALLEY_FRAMELOG_ENTRY_BYTES > bytes;
}

static void copy_in(struct ring *ring, uint32_t offset, const char *data, uint32_t len)
{
    uint32_t at = offset & (ring->cap - 1);
    uint32_t first = ring->cap - at < len ? ring->cap - at : len;
    memcpy(ring->data + at, data, first);
    memcpy(ring->data, data + first, len - first);
}

/* Gives a ring another capacity (a power of two that holds what is kept); offsets stay what they are. */
static int ring_resize(struct ring *ring, uint32_t kept, uint32_t cap)
{
    struct ring fresh = {.data = malloc(cap), .cap = cap, .head = ring->head};
    if (!fresh.data)
        return HALLEY_FRAMELOG_ERR_NO_MEMORY;
    uint32_t offset = ring->head - kept;
    while (kept > 0) {
        uint32_t at = offset & (ring->cap - 1);
        uint32_t run = ring->cap - at < kept ? ring->cap - at : kept;
        copy_in(&fresh, offset, ring->data + at, run);
        offset += run;
        kept -= run;
    }
    free(ring->data);
    *ring = fresh;
    return HALLEY_FRAMELOG_OK;
}

static uint32_t power_of_two(uint32_t least, uint32_t minimum)
{
    uint32_t value = minimum;
    while (value < least)
        value *= 2;
    return value;
}

static int entries_resize(struct halley_framelog *log, uint32_t cap)
{
    struct entry *fresh = malloc(cap * sizeof(*fresh));
    if (!fresh)
        return HALLEY_FRAMELOG_ERR_NO_MEMORY;
    for (uint32_t n = log->tail; n != log->head; n++)
        fresh[n & (cap - 1)] = *entry_at(log, n);
    free(log->entries);
    log->entries = fresh;
    log->entry_cap = cap;
    return HALLEY_FRAMELOG_OK;
}

/* Makes room for one entry and the frames' bytes; the bounds hold already. */
static int make_room(struct halley_framelog *log,
                     const struct halley_frame frames[HALLEY_ENCODINGS])
{
    if (log->head - log->tail == log->entry_cap) {
        int error = entries_resize(log, log->entry_cap ? log->entry_cap * 2 : MIN_ENTRIES);
        if (error)
            return error;
    }
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        struct ring *ring = &log->rings[e];
        uint32_t kept = kept_bytes(log, e);
        uint32_t need = kept + (uint32_t)frames[e].len;
        if (need <= ring->cap)
            continue;
        int error = ring_resize(ring, kept, power_of_two(need, MIN_RING_BYTES));
        if (error)
            return error;
    }
    return HALLEY_FRAMELOG_OK;
}

static bool oldest_must_go(const struct halley_framelog *log,
                           const struct halley_framelog_bounds *bounds, uint32_t now_ms,
                           const struct halley_frame *frames)
{
    if (log->tail == log->head)
        return false;
    if (now_ms - entry_at(log, log->tail)->time_ms > bounds->ttl_ms)
        return true;
    if (!frames)
        return false;
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        if (kept_bytes(log, e) + frames[e].len > bounds->bytes)
            return true;
    }
    return entries_pass(log->head - log->tail + 1, bounds->bytes);
}

int halley_framelog_append(struct halley_framelog *log, const struct halley_framelog_bounds *bounds,
                           uint32_t now_ms, uint16_t type,
                           const struct halley_frame frames[HALLEY_ENCODINGS])
{
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        if (frames[e].len > bounds->bytes)
            return HALLEY_FRAMELOG_ERR_TOO_LARGE;
    }
    while (oldest_must_go(log, bounds, now_ms, frames))
        log->tail++;
    int error = make_room(log, frames);
    if (error)
        return error;
    struct entry *entry = entry_at(log, log->head);
    entry->time_ms = now_ms;
    entry->type = type;
    entry->mark = 0;
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        struct ring *ring = &log->rings[e];
        entry->start[e] = ring->head;
        if (frames[e].len > 0)
            copy_in(ring, ring->head, frames[e].data, (uint32_t)frames[e].len);
        ring->head += (uint32_t)frames[e].len;
    }
    log->head++;
    return HALLEY_FRAMELOG_OK;
}

void halley_framelog_mark(struct halley_framelog *log, uint16_t mark)
{
    entry_at(log, log->head - 1)->mark = mark;
}

bool halley_framelog_seek(const struct halley_framelog *log, int encoding, uint16_t mark,
                          uint32_t since, uint32_t *number)
{
    uint32_t first = (int32_t)(since - log->tail) > 0 ? since : log->tail;
    uint32_t at = log->head;
    bool whole = true;
    while (at != first && (int16_t)(uint16_t)(entry_at(log, at - 1)->mark - mark) > 0) {
        at--;
        whole &= start_of(log, encoding, at + 1) != entry_at(log, at)->start[encoding];
    }
    *number = at;
    return at == log->head || (whole && entry_at(log, at)->mark == (uint16_t)(mark + 1));
}

void halley_framelog_expire(struct halley_framelog *log,
                            const struct halley_framelog_bounds *bounds, uint32_t now_ms)
{
    while (oldest_must_go(log, bounds, now_ms, NULL))
        log->tail++;
    if (log->tail == log->head)
        free_rings(log);
}

uint32_t halley_framelog_trim(struct halley_framelog *log, uint32_t bytes)
{
    uint32_t before = log->tail;
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        while (log->tail != log->head && kept_bytes(log, e) > bytes)
            log->tail++;
    }
    while (entries_pass(log->head - log->tail, bytes))
        log->tail++;
    uint32_t dropped = log->tail - before;
    if (log->tail == log->head) {
        free_rings(log);
        return dropped;
    }
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        struct ring *ring = &log->rings[e];
        uint32_t cap = power_of_two(kept_bytes(log, e), MIN_RING_BYTES);
        if (cap < ring->cap)
            (void)ring_resize(ring, kept_bytes(log, e), cap); /* without memory it stays larger */
    }
    uint32_t cap = power_of_two(log->head - log->tail, MIN_ENTRIES);
    if (cap < log->entry_cap)
        (void)entries_resize(log, cap);
    return dropped;
}

uint32_t halley_framelog_head(const struct halley_framelog *log)
{
    return log->head;
}

uint32_t halley_framelog_tail(const struct halley_framelog *log)
{
    return log->tail;
}

size_t halley_framelog_memory(const struct halley_framelog *log)
{
    size_t sum = sizeof(*log) + log->entry_cap * sizeof(struct entry);
    for (int e = 0; e < HALLEY_ENCODINGS; e++)
        sum += log->rings[e].cap;
    return sum;
}

uint32_t halley_framelog_age_ms(const struct halley_framelog *log, uint32_t number, uint32_t now_ms)
{
    return number == log->head ? 0 : now_ms - entry_at(log, number)->time_ms;
}

/* Points iov at the ring bytes [offset, offset + len). */
static int ring_range(const struct ring *ring, uint32_t offset, uint32_t len, struct iovec iov[2])
{
    if (len == 0)
        return 0;
    uint32_t at = offset & (ring->cap - 1);
    uint32_t first = ring->cap - at < len ? ring->cap - at : len;
    iov[0] = (struct iovec){ring->data + at, first};
    if (first == len)
        return 1;
    iov[1] = (struct iovec){ring->data, len - first};
    return 2;
}

int halley_framelog_range(const struct halley_framelog *log, int encoding, uint32_t from,
                          struct iovec iov[2])
{
    uint32_t start = start_of(log, encoding, from);
    return ring_range(&log->rings[encoding], start, log->rings[encoding].head - start, iov);
}

size_t halley_framelog_pending(const struct halley_framelog *log, int encoding, uint32_t from)
{
    return log->rings[encoding].head - start_of(log, encoding, from);
}

uint32_t halley_framelog_locate(const struct halley_framelog *log, int encoding, uint32_t from,
                                size_t bytes, size_t *into)
{
    uint32_t base = start_of(log, encoding, from);
    uint32_t target = (uint32_t)bytes;
    /* Bisection for the last frame that starts at or before the target; starts are sorted relative to base. */
    uint32_t low = from;
    uint32_t span = log->head - from;
    while (span > 0) {
        uint32_t half = (span + 1) / 2;
        if (start_of(log, encoding, low + half) - base <= target) {
            low += half;
            span -= half;
        } else {
            span = half - 1;
        }
    }
    *into = target - (start_of(log, encoding, low) - base);
    return low;
}

int halley_framelog_frame(const struct halley_framelog *log, int encoding, uint32_t number,
                          size_t into, struct iovec iov[2])
{
    uint32_t start = start_of(log, encoding, number);
    uint32_t end = start_of(log, encoding, number + 1);
    return ring_range(&log->rings[encoding], start + (uint32_t)into, end - start - (uint32_t)into,
                      iov);
}

uint32_t halley_framelog_resume(const struct halley_framelog *log,
                                const struct halley_framelog_bounds *bounds, int encoding,
                                uint32_t now_ms)
{
    uint32_t low = log->tail;
    uint32_t span = log->head - log->tail;
    while (
        span >
        0) { /* first number for which the rest is within half of both bounds; both shrink with the number */
        uint32_t half = span / 2;
        uint32_t number = low + half;
        bool within = halley_framelog_pending(log, encoding, number) <= bounds->bytes / 2 &&
                      halley_framelog_age_ms(log, number, now_ms) <= bounds->ttl_ms / 2;
        if (within) {
            span = half;
        } else {
            low = number + 1;
            span -= half + 1;
        }
    }
    return low;
}

bool halley_framelog_check(const struct halley_framelog *log)
{
    if (log->head - log->tail > log->entry_cap)
        return false;
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        const struct ring *ring = &log->rings[e];
        if ((ring->cap & (ring->cap - 1)) != 0 || kept_bytes(log, e) > ring->cap)
            return false;
        for (uint32_t n = log->tail; n != log->head; n++) {
            if (start_of(log, e, n + 1) - start_of(log, e, n) > ring->cap)
                return false;
        }
    }
    return true;
}
