#include "bench/latency.h"

/* Values below LATENCY_STEPS have a bucket each. Above, the highest set bit chooses the row and the
 * next LATENCY_STEP_BITS bits the bucket in it. */
static size_t bucket_of(uint64_t value)
{
    if (value < LATENCY_STEPS)
        return (size_t)value;
    if (value >> LATENCY_VALUE_BITS)
        return LATENCY_BUCKETS - 1;
    unsigned row = 63U - (unsigned)__builtin_clzll(value) - LATENCY_STEP_BITS;
    return ((size_t)row << LATENCY_STEP_BITS) + (size_t)(value >> row);
}

uint64_t latency_bucket_end(size_t bucket)
{
    if (bucket < LATENCY_STEPS)
        return bucket;
    size_t row = (bucket >> LATENCY_STEP_BITS) - 1;
    uint64_t step = LATENCY_STEPS + (bucket & (LATENCY_STEPS - 1));
    return ((step + 1) << row) - 1;
}

void latency_add(struct latency *histogram, uint64_t value)
{
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[bucket_of(value)]++;
}

void latency_merge(struct latency *to, const struct latency *from)
{
    to->count += from->count;
    if (from->max > to->max)
        to->max = from->max;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

uint64_t latency_quantile(const struct latency *histogram, double quantile)
{
    /* The value that this many values do not exceed, at least the first. */
    double wanted = quantile * (double)histogram->count;
    uint64_t seen = 0;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (histogram->buckets[i] && (double)seen >= wanted) {
            uint64_t end = latency_bucket_end(i);
            return end < histogram->max && i < LATENCY_BUCKETS - 1 ? end : histogram->max;
        }
    }
    return histogram->max;
}
