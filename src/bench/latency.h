/* latency.h: latencies in buckets whose width grows with the value (log-linear).
 *
 * Every power of two is cut into LATENCY_STEPS equal buckets, so a quantile is at most 1/64 too
 * high, over nanoseconds to minutes, in a fixed table that processes can share and add up.
 *
 * Threads:   one writer; whoever reads waits until it is done.
 * Ownership: a plain value, all zero is empty.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    LATENCY_STEP_BITS = 6,
    LATENCY_STEPS = 1 << LATENCY_STEP_BITS,
    LATENCY_VALUE_BITS = 40, /* 18 minutes in ns; what is longer counts as that */
    LATENCY_BUCKETS = (LATENCY_VALUE_BITS - LATENCY_STEP_BITS + 1) * LATENCY_STEPS
};

struct latency {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *histogram, uint64_t value);
void latency_merge(struct latency *to, const struct latency *from);

/* Returns the upper end of the bucket that holds the quantile (0 … 1), never more than the highest
 * value seen; 0 when empty. */
uint64_t latency_quantile(const struct latency *histogram, double quantile);

/* Highest value that belongs to a bucket. */
uint64_t latency_bucket_end(size_t bucket);
