/* ring.h: a bounded queue of pointers from one thread to one other, without locks.
 *
 *      tail ...... head          (modulo 2^32; the reader owns tail, the writer owns head)
 *
 * Threads:   one writer, one reader.
 * Ownership: owns the slots, not what they point to.
 * Limits:    the capacity given at init, rounded up to a power of two.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct ring_queue {
    void **slots;
    uint32_t mask;
    _Alignas(64) _Atomic uint32_t head;
    _Alignas(64) _Atomic uint32_t tail;
};

/* Returns 0, or -1 when memory is out. */
static inline int ring_init(struct ring_queue *ring, uint32_t capacity)
{
    uint32_t cap = 64;
    while (cap < capacity)
        cap *= 2;
    ring->slots = calloc(cap, sizeof(void *));
    ring->mask = cap - 1;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    return ring->slots ? 0 : -1;
}

static inline void ring_fini(struct ring_queue *ring)
{
    free(ring->slots);
    ring->slots = NULL;
}

/* Writer: how many more fit. */
static inline uint32_t ring_free(const struct ring_queue *ring)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return ring->mask + 1 - (head - tail);
}

/* Writer: false when full. */
static inline bool ring_push(struct ring_queue *ring, void *item)
{
    if (ring_free(ring) == 0)
        return false;
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    ring->slots[head & ring->mask] = item;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

/* Reader: NULL when empty. */
static inline void *ring_shift(struct ring_queue *ring)
{
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(&ring->head, memory_order_acquire))
        return NULL;
    void *item = ring->slots[tail & ring->mask];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return item;
}

/* Reader: the item that the call ring_shift() after `ahead` others would return, NULL when there are not so many. */
static inline void *ring_peek(const struct ring_queue *ring, uint32_t ahead)
{
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    return head - tail > ahead ? ring->slots[(tail + ahead) & ring->mask] : NULL;
}
