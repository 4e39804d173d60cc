/* merge.h: messages of one room and type gathered over a window into one.
 *
 * The first message after a rest opens a window and leaves at once; what follows gathers until the window ends, leaves as one message and
 * opens the next; a window in which nothing came is closed and forgotten. So a quiet room waits for nothing, and a busy one sends one
 * message per window, whatever comes in.
 *
 *      put put   put put put        put
 *      |<- window ->|<- window ->|<- window ->|
 *      out          out          out          closed
 *
 * What is gathered stands in a struct of the owner's that begins with struct merge_entry.
 *
 * Path:      intents, dispatch -> [merge] -> broker; dispatch -> [merge] -> workers.
 * Threads:   the owner's thread.
 * Ownership: owns the entries; what the owner's part of one holds is the owner's to free.
 * Limits:    the number of entries is given with each merger_open() (limits.merges).
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "base/wheel.h"
#include "conf/conf.h"

enum {
    MERGE_TICK_MS = 10,     /* windows end on these */
    MERGE_ERR_DATA = -5501, /* no object, or a field of it of the wrong kind */
    MERGE_ERR_VALUE = -5502 /* larger than allowed */
};
#define MERGE_VALUE_MAX UINT64_C(9007199254740991) /* 2^53 - 1: what JSON readers take exactly */

/* What likes add up to. Sums stay at MERGE_VALUE_MAX once they are there. */
struct merge_sum {
    uint64_t delta;
    uint64_t total; /* the largest one seen */
    bool has_total;
};

/* What a viewer's data counts: its field, an integer 0..max; without data or without the field 1. */
int merge_read_amount(struct bytes data, const char *field, uint64_t max, uint64_t *amount);

/* What data of a backend or another node counts: {"delta":…,"total":…}, or as above. */
int merge_read_sum(struct bytes data, const char *field, struct merge_sum *sum);

void merge_add(struct merge_sum *sum, const struct merge_sum *more);

/* Appends {"delta":…,"total":…}; total only where known. */
void merge_append(struct buf *out, const struct merge_sum *sum);

struct merge_entry {
    struct map_node node;
    struct link due;
    uint64_t due_ms;
    uint32_t count; /* messages gathered and not sent yet; the owner's to keep */
    uint8_t room_len;
    uint8_t type_len;
    char room[ROOM_NAME_MAX];
    char type[TYPE_NAME_MAX];
};

static inline struct bytes merge_room(const struct merge_entry *entry)
{
    return bytes_of(entry->room, entry->room_len);
}

static inline struct bytes merge_type(const struct merge_entry *entry)
{
    return bytes_of(entry->type, entry->type_len);
}

struct merger {
    struct map entries;
    struct wheel wheel;
    struct link ended; /* whose window has ended, not yet given to the owner */
    size_t entry_size;
};

/* entry_size: of the owner's struct, which begins with a struct merge_entry. Times are a monotonic clock's. */
void merger_init(struct merger *merger, size_t entry_size, uint64_t now_ms);

/* The open window of a room (empty: of messages to all) and type, or NULL. */
struct merge_entry *merger_find(const struct merger *merger, struct bytes room, struct bytes type);

/* Opens one that is not there. The owner's part of it is zero. NULL: there are `most` already, or memory is out. */
struct merge_entry *merger_open(struct merger *merger, struct bytes room, struct bytes type,
                                uint32_t most, uint64_t now_ms, uint32_t window_ms);

/* The next entry whose window has ended by now, or NULL. The owner then calls merger_reopen() or merger_close(). */
struct merge_entry *merger_next(struct merger *merger, uint64_t now_ms);

void merger_reopen(struct merger *merger, struct merge_entry *entry, uint64_t now_ms,
                   uint32_t window_ms);
void merger_close(struct merger *merger, struct merge_entry *entry);

/* Ends all windows at once: merger_next() gives every entry. */
void merger_end_all(struct merger *merger);

/* Closes what is open; dropped (may be NULL) is called for each entry before. */
void merger_fini(struct merger *merger, void (*dropped)(void *ctx, struct merge_entry *entry),
                 void *ctx);
