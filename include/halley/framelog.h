/* framelog.h: the newest frames of one room and lane, kept once for all viewers.
 *
 * A viewer's send queue is a number: the next frame it has not sent (its cursor). What lies between a cursor and the head is
 * one contiguous run of ready bytes, or two where the ring wraps.
 *
 *      number:   tail ................ cursor ............ head        (tail <= cursor <= head, modulo 2^32)
 *      entries:  [ time, type, mark, offset per encoding ]             ring of entries, index = number & mask
 *      bytes:    |#### frame n ####|## n+1 ##|                         one ring per encoding, index = offset & mask
 *
 * Path:      room message -> adapter (frame) -> [frame log] -> flush (send).
 * Threads:   none inside; one owner's thread.
 * Ownership: owns its rings; callers borrow ranges until the next call that is not const.
 * Limits:    bytes per encoding, as many bytes of entries (so frames that nobody reads are bounded too) and age (ttl); past them the
 *            oldest frames go. It never waits for a reader.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    HALLEY_ENCODINGS = 2,
    HALLEY_FRAMELOG_ENTRY_BYTES = 16 /* what the log keeps of a frame beside its bytes */
};

enum {
    HALLEY_FRAMELOG_OK = 0,
    HALLEY_FRAMELOG_ERR_TOO_LARGE = -5001, /* a frame is longer than the log's bytes */
    HALLEY_FRAMELOG_ERR_NO_MEMORY = -5002
};

struct halley_framelog;

/* A ready frame in one encoding; len 0: nobody needs this encoding now. */
struct halley_frame {
    const void *data;
    size_t len;
};

/* What the log keeps: bytes 1..2^30 per encoding, age in milliseconds. */
struct halley_framelog_bounds {
    uint32_t bytes;
    uint32_t ttl_ms;
};

/* Makes an empty log whose next frame has this number (so that a log can be thrown away while empty and cursors stay valid).
 * Returns NULL when memory is out. */
struct halley_framelog *halley_framelog_create(uint32_t first_number);
void halley_framelog_destroy(struct halley_framelog *log); /* NULL is fine */

/* Appends one frame in every encoding, dropping the oldest ones where the bounds ask for it. now_ms: a monotonic clock, modulo 2^32.
 * Returns HALLEY_FRAMELOG_OK or an error, and then nothing was changed but what was dropped. */
int halley_framelog_append(struct halley_framelog *log, const struct halley_framelog_bounds *bounds,
                           uint32_t now_ms, uint16_t type,
                           const struct halley_frame frames[HALLEY_ENCODINGS]);

/* Gives the newest frame a mark of the owner's, such as the low bits of a count; a new frame has 0. The log must not be empty. */
void halley_framelog_mark(struct halley_framelog *log, uint16_t mark);

/* Where a reader goes on who has everything up to `mark`: the first frame, not before number `since`, behind which all marks are later (a
 * count modulo 2^16, so fewer than 2^15 apart); the head where there is none. Returns false where the frame in that place is not the one
 * marked mark + 1, or this encoding does not have all of them. */
bool halley_framelog_seek(const struct halley_framelog *log, int encoding, uint16_t mark,
                          uint32_t since, uint32_t *number);

/* Drops what is older than ttl; gives all rings' memory back when nothing is left. */
void halley_framelog_expire(struct halley_framelog *log,
                            const struct halley_framelog_bounds *bounds, uint32_t now_ms);

/* Drops the oldest frames until at most `bytes` are kept in every encoding and of entries, and shrinks the rings. Returns how many
 * frames went. Frees a quarter of halley_framelog_memory() at least where that is 4 KiB or more, `bytes` is an eighth of it, and memory for the smaller
 * rings can be had. */
uint32_t halley_framelog_trim(struct halley_framelog *log, uint32_t bytes);

/* The next number to be given / the oldest number kept (= head when empty). */
uint32_t halley_framelog_head(const struct halley_framelog *log);
uint32_t halley_framelog_tail(const struct halley_framelog *log);

/* Bytes of heap that the log holds, itself included. */
size_t halley_framelog_memory(const struct halley_framelog *log);

/* Age of a kept frame in milliseconds. */
uint32_t halley_framelog_age_ms(const struct halley_framelog *log, uint32_t number,
                                uint32_t now_ms);

/* The bytes from frame `from` (tail <= from <= head) to the head. Returns how many of iov are filled, 0 to 2. */
int halley_framelog_range(const struct halley_framelog *log, int encoding, uint32_t from,
                          struct iovec iov[2]);

/* Bytes from frame `from` to the head. */
size_t halley_framelog_pending(const struct halley_framelog *log, int encoding, uint32_t from);

/* Where a reader stands who began at frame `from` and took `bytes` bytes: returns the first frame that it has not whole, and in
 * *into how many bytes of that frame it has (0: it stands on a boundary). */
uint32_t halley_framelog_locate(const struct halley_framelog *log, int encoding, uint32_t from,
                                size_t bytes, size_t *into);

/* The bytes of frame `number` behind its first `into`. Returns how many of iov are filled. */
int halley_framelog_frame(const struct halley_framelog *log, int encoding, uint32_t number,
                          size_t into, struct iovec iov[2]);

/* Where a reader goes on that fell behind the tail: the oldest frame that lies within half the bounds of the head, so that it does not
 * fall behind again at once. */
uint32_t halley_framelog_resume(const struct halley_framelog *log,
                                const struct halley_framelog_bounds *bounds, int encoding,
                                uint32_t now_ms);

/* True when the inside is consistent; for tests and fuzzers. */
bool halley_framelog_check(const struct halley_framelog *log);
