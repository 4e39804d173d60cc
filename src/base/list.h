/* list.h: intrusive doubly linked lists.
 *
 * A list head is a link that points to itself while empty. A link that is on no list points to itself too, so
 * removing twice is harmless and "which list am I on" stays with the owner's state.
 *
 * Threads:   the owner's thread.
 * Ownership: borrows the embedding objects.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *prev;
    struct link *next;
};

#define CONTAINER_OF(at, type, member) ((type *)(void *)((char *)(at)-offsetof(type, member)))

static inline void list_init(struct link *link)
{
    link->prev = link->next = link;
}

static inline bool list_empty(const struct link *head)
{
    return head->next == head;
}

static inline void list_remove(struct link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

static inline void list_append(struct link *head, struct link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Takes the first link off the list, or returns NULL. */
static inline struct link *list_shift(struct link *head)
{
    if (list_empty(head))
        return NULL;
    struct link *first = head->next;
    list_remove(first);
    return first;
}

/* Moves everything on `from` behind what stands on `to`. */
static inline void list_splice(struct link *to, struct link *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}
