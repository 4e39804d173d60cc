/* clock.h: the monotonic clock and random numbers.
 *
 * Threads:   any.
 */
#pragma once

#include <stdint.h>

/* Monotonic milliseconds / nanoseconds since an arbitrary start. */
uint64_t clock_ms(void);
uint64_t clock_ns(void);

/* Milliseconds since 1970-01-01 UTC, for what viewers and logs read. */
uint64_t clock_unix_ms(void);

/* A small fast generator for jitter; not for secrets. Seed any non-zero state. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

/* A 64-bit seed from the kernel. */
uint64_t random_seed(void);
