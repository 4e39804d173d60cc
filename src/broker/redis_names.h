/* redis_names.h: the channels' names on Redis, made and taken apart.
 *
 * `<prefix>:room:{<room>}`, `<prefix>:high:{<room>}`, `<prefix>:all`, `<prefix>:users`, `<prefix>:node:<node>`.
 * The braces are literal: they let a cluster keep all of a room's names on one shard.
 *
 * Threads:   immutable after init.
 * Ownership: plain values.
 */
#pragma once

#include "broker/broker.h"

enum {
    REDIS_PREFIX_MAX = CONF_ADDRESS_MAX + 8,                 /* "<prefix>:room:{" */
    REDIS_CHANNEL_MAX = REDIS_PREFIX_MAX + ROOM_NAME_MAX + 1 /* and "<room>}", or a node's name */
};

struct redis_names {
    char room[REDIS_PREFIX_MAX]; /* "<prefix>:room:{" */
    char high[REDIS_PREFIX_MAX];
    char nodes[REDIS_PREFIX_MAX]; /* "<prefix>:node:" */
    char all[REDIS_PREFIX_MAX];   /* "<prefix>:all" */
    char users[REDIS_PREFIX_MAX];
    char node[REDIS_CHANNEL_MAX]; /* this node's: "<prefix>:node:<node>" */
};

void redis_names_init(struct redis_names *names, const char *prefix, const char *node);

/* Writes a channel's name into text and returns it. room has at most ROOM_NAME_MAX bytes; for BROKER_NODE it is the
 * node's name, for BROKER_ALL and BROKER_USERS it is not looked at. */
struct bytes redis_names_channel(const struct redis_names *names, enum broker_channel channel,
                                 struct bytes room, char text[REDIS_CHANNEL_MAX]);

/* Takes a name apart; *room borrows it and is empty where there is none. Returns false for a name that is none of ours. */
bool redis_names_parse(const struct redis_names *names, struct bytes name,
                       enum broker_channel *channel, struct bytes *room);
