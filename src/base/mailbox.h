/* mailbox.h: commands from one thread to another, waking it only when it had nothing to do.
 *
 * For what is rare (joins, publishes, look-ups, reloads); room messages travel in ring.h.
 *
 * Threads:   post from any, take from the owner's.
 * Ownership: a posted link belongs to the mailbox until it is taken.
 * Limits:    the sender's (mailbox_count()).
 */
#pragma once

#include "base/list.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct mailbox {
    pthread_mutex_t lock;
    struct link posted;
    _Atomic uint32_t count;
};

static inline void mailbox_init(struct mailbox *box)
{
    pthread_mutex_init(&box->lock, NULL);
    list_init(&box->posted);
    atomic_init(&box->count, 0);
}

static inline void mailbox_fini(struct mailbox *box)
{
    pthread_mutex_destroy(&box->lock);
}

/* Returns true when the mailbox was empty: the receiver must be woken. */
static inline bool mailbox_post(struct mailbox *box, struct link *link)
{
    pthread_mutex_lock(&box->lock);
    bool was_empty = list_empty(&box->posted);
    list_append(&box->posted, link);
    atomic_fetch_add_explicit(&box->count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&box->lock);
    return was_empty;
}

/* Moves everything posted onto the list `out`. */
static inline void mailbox_take(struct mailbox *box, struct link *out)
{
    pthread_mutex_lock(&box->lock);
    list_splice(out, &box->posted);
    atomic_store_explicit(&box->count, 0, memory_order_relaxed);
    pthread_mutex_unlock(&box->lock);
}

/* How many wait, about. */
static inline uint32_t mailbox_count(const struct mailbox *box)
{
    return atomic_load_explicit(&box->count, memory_order_relaxed);
}
