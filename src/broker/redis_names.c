#include "broker/redis_names.h"

#include <stdio.h>

void redis_names_init(struct redis_names *names, const char *prefix, const char *node)
{
    snprintf(names->room, sizeof(names->room), "%.63s:room:{", prefix);
    snprintf(names->high, sizeof(names->high), "%.63s:high:{", prefix);
    snprintf(names->nodes, sizeof(names->nodes), "%.63s:node:", prefix);
    snprintf(names->all, sizeof(names->all), "%.63s:all", prefix);
    snprintf(names->users, sizeof(names->users), "%.63s:users", prefix);
    snprintf(names->node, sizeof(names->node), "%s%.64s", names->nodes, node);
}

struct bytes redis_names_channel(const struct redis_names *names, enum broker_channel channel,
                                 struct bytes room, char text[REDIS_CHANNEL_MAX])
{
    if (channel == BROKER_ALL)
        return bytes_str(names->all);
    if (channel == BROKER_USERS)
        return bytes_str(names->users);
    struct bytes head = bytes_str(channel == BROKER_NODE   ? names->nodes
                                  : channel == BROKER_HIGH ? names->high
                                                           : names->room);
    size_t len = room.len < ROOM_NAME_MAX ? room.len : ROOM_NAME_MAX;
    memcpy(text, head.data, head.len);
    memcpy(text + head.len, room.data, len);
    if (channel == BROKER_NODE)
        return bytes_of(text, head.len + len);
    text[head.len + len] = '}';
    return bytes_of(text, head.len + len + 1);
}

static bool is_room_of(const char *head, struct bytes name, struct bytes *room)
{
    size_t len = strlen(head);
    /* At least one byte of the room's name, and the brace behind it. */
    if (name.len < len + 2 || memcmp(name.data, head, len) != 0 || name.data[name.len - 1] != '}')
        return false;
    *room = bytes_of(name.data + len, name.len - len - 1);
    return room->len <= ROOM_NAME_MAX;
}

bool redis_names_parse(const struct redis_names *names, struct bytes name,
                       enum broker_channel *channel, struct bytes *room)
{
    if (is_room_of(names->room, name, room)) {
        *channel = BROKER_ROOM;
        return true;
    }
    if (is_room_of(names->high, name, room)) {
        *channel = BROKER_HIGH;
        return true;
    }
    *room = bytes_of("", 0);
    *channel = bytes_is(name, names->all)     ? BROKER_ALL
               : bytes_is(name, names->users) ? BROKER_USERS
                                              : BROKER_NODE;
    return *channel != BROKER_NODE || bytes_is(name, names->node);
}
