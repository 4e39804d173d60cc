/* bucket.h: a rate limit in four bytes (generic cell rate algorithm, ITU-T I.371).
 *
 * The state is the time at which the bucket would be full again, in 1/256 ms modulo 2^32; 0 is a full one. A state further
 * ahead than the burst allows can only be a leftover of hours ago and counts as full. One that comes round each 4.66 hours can be
 * mistaken for a debt for as long as the burst takes to gain: never too generous, and right again after that time.
 *
 * Threads:   the owner's thread; bucket_take_shared() any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct bucket {
    uint32_t full_at; /* 0: full */
};

/* Takes one token of a bucket of `burst` tokens (1..1e6) that gains `per` tokens each `period_ms` (per: at least 1). now_ms: a monotonic clock
 * modulo 2^32. No more is saved up than 70 minutes gain, and a token's time is a whole number of 1/256 ms, which makes 100,000/s 85,333/s.
 * Returns 0 when one was there, else the milliseconds until one will be (at least 1). */
static inline uint32_t bucket_take(struct bucket *bucket, uint32_t now_ms, uint32_t per,
                                   uint32_t period_ms, uint32_t burst)
{
    uint32_t now = now_ms << 8;
    uint64_t step = (((uint64_t)period_ms << 8) + per / 2) / per;
    if (step < 2)
        step = 2;                  /* more than what is given away below */
    uint64_t depth = step * burst; /* how far ahead full_at may be */
    if (depth > INT32_MAX / 2)
        depth = INT32_MAX / 2;
    int32_t ahead = bucket->full_at ? (int32_t)(bucket->full_at - now) : 0;
    if (ahead < 0 || (uint64_t)ahead > depth)
        ahead = 0;
    if ((uint64_t)ahead + step > depth)
        return (uint32_t)(((uint64_t)ahead + step - depth + 255) >> 8);
    uint32_t full_at = now + (uint32_t)ahead + (uint32_t)step;
    bucket->full_at =
        full_at ? full_at
                : UINT32_MAX; /* 1/256 ms early: later would look like more than the burst */
    return 0;
}

/* The same for a bucket that several threads take from. Their clocks must be one: two that differ by more than the burst takes to gain
 * would give too much. */
static inline uint32_t bucket_take_shared(_Atomic uint32_t *full_at, uint32_t now_ms, uint32_t per,
                                          uint32_t period_ms, uint32_t burst)
{
    uint32_t seen = atomic_load_explicit(full_at, memory_order_relaxed);
    for (;;) {
        struct bucket bucket = {seen};
        uint32_t wait = bucket_take(&bucket, now_ms, per, period_ms, burst);
        if (wait > 0 ||
            atomic_compare_exchange_weak_explicit(full_at, &seen, bucket.full_at,
                                                  memory_order_relaxed, memory_order_relaxed))
            return wait;
    }
}

/* Whether nothing is owed any more: a bucket that is as good as one never used. */
static inline bool bucket_is_full(const struct bucket *bucket, uint32_t now_ms)
{
    return bucket->full_at == 0 || (int32_t)(bucket->full_at - (now_ms << 8)) <= 0;
}
