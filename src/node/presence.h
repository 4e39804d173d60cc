/* presence.h: how many viewers are in each room, over all nodes.
 *
 * Redis holds a hash per room, `<prefix>:online:{<room>}`, with a field per node, and in `<prefix>:nodes` until when each node counts
 * as alive. Rooms go there in batches, one script each: it writes this node's count where it differs and returns what the
 * others have. Changed rooms go at once (the next tick), all rooms in a slow round of presence.interval or, with very many, as
 * presence.rate allows. When a node dies, rooms that it may have had viewers in are read again at once, few batches at a time,
 * so that messages are not held up. With `memory:` this node's own count is all.
 *
 * Viewers are told by a message in the low lane of the room. Rooms are dealt out over the ticks of an interval by their name, and
 * told in their own tick only: so at most once an interval each.
 *
 * Path:      workers (COMMAND_COUNTS) -> [presence] -> broker; broker -> [presence] -> workers (MESSAGE_ONLINE, COMMAND_ROOM_LIVE).
 * Threads:   the main thread.
 * Ownership: owns its lists of names; borrows the rooms of the node, looked up by name whenever they are needed.
 * Limits:    presence.rate; lists hold each room of the node once (limits.rooms).
 */
#pragma once

#include "node/internal.h"

int presence_create(struct node *node);

/* Every 500 ms. */
void presence_tick(struct node *node);

/* The broker is there (again). */
void presence_on_ready(struct node *node);

/* A worker's differences. */
void presence_take_counts(struct node *node, const struct command *command);

/* A room is held from now on / is about to be freed. */
void presence_begin(struct node *node, struct held *held);
void presence_forget(struct node *node, const struct held *held);

/* Viewers of the room on all nodes; UINT32_MAX when not known. */
uint32_t presence_online(const struct held *held);

/* Orderly stop: the other nodes stop counting this one. done(node) is called once, at once or when Redis has answered. */
void presence_leave(struct node *node, void (*done)(struct node *node));

void presence_destroy(struct node *node);
