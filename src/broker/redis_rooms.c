#include "broker/redis_rooms.h"

#include "broker/redis_wire.h"
#include "protocol/message.h"

#include <stdlib.h>

enum room_state { ROOM_NONE, ROOM_SUBSCRIBING, ROOM_SUBSCRIBED, ROOM_UNSUBSCRIBING };

/* A room on one line. */
struct room_line {
    uint8_t state : 2;
    uint8_t lost : 1;   /* was confirmed when the line broke: a gap is due */
    uint8_t resync : 1; /* counted in rooms->resync */
};

struct redis_room {
    struct map_node node;
    struct link todo[REDIS_LINES]; /* on subscribe, unsubscribe or (the first one) announce */
    struct room_line on[REDIS_LINES];
    bool want;
    uint8_t len;
    char name[];
};

_Static_assert(sizeof(struct redis_room) + 10 <= 72, "an idle room is to cost at most 120 bytes");

static struct bytes name_of(const struct redis_room *room)
{
    return bytes_of(room->name, room->len);
}

static bool is_fixed(const struct redis_room *room)
{
    return room->len == 0;
}

static bool is_confirmed(const struct redis_room *room)
{
    return room->on[REDIS_LINE_HIGH].state == ROOM_SUBSCRIBED &&
           room->on[REDIS_LINE_NORMAL].state == ROOM_SUBSCRIBED;
}

static struct redis_room *room_create(struct bytes name)
{
    struct redis_room *room = malloc(sizeof(struct redis_room) + name.len);
    if (!room)
        return NULL;
    *room = (struct redis_room){.len = (uint8_t)name.len};
    if (name.len > 0)
        memcpy(room->name, name.data, name.len);
    for (unsigned line = 0; line < REDIS_LINES; line++)
        list_init(&room->todo[line]);
    return room;
}

static struct redis_room *find(const struct redis_rooms *rooms, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *node = map_chain(&rooms->map, hash); node; node = node->next) {
        struct redis_room *room = CONTAINER_OF(node, struct redis_room, node);
        if (node->hash == hash && bytes_equal(name_of(room), name))
            return room;
    }
    return NULL;
}

/* Puts a room on the list of what there is to send for it on this line; none while an answer is awaited. */
static void plan(struct redis_rooms *rooms, struct redis_room *room, unsigned line)
{
    list_remove(&room->todo[line]);
    if (room->want && room->on[line].state == ROOM_NONE)
        list_append(&rooms->subscribe[line], &room->todo[line]);
    else if (!room->want && room->on[line].state == ROOM_SUBSCRIBED)
        list_append(&rooms->unsubscribe[line], &room->todo[line]);
}

static void set_resync(struct redis_rooms *rooms, struct redis_room *room, unsigned line,
                       bool resync)
{
    if (room->on[line].resync == resync)
        return;
    room->on[line].resync = resync;
    if (resync)
        rooms->resync[line]++;
    else
        rooms->resync[line]--;
}

static bool is_idle(const struct redis_room *room)
{
    return !room->want && room->on[REDIS_LINE_HIGH].state == ROOM_NONE &&
           room->on[REDIS_LINE_NORMAL].state == ROOM_NONE;
}

static void forget(struct redis_rooms *rooms, struct redis_room *room)
{
    for (unsigned line = 0; line < REDIS_LINES; line++)
        list_remove(&room->todo[line]);
    map_remove(&rooms->map, &room->node);
    free(room);
}

/* A channel that every node listens to. */
static struct redis_room *fixed_create(struct redis_rooms *rooms)
{
    struct redis_room *room = room_create(BYTES_LIT(""));
    if (!room)
        return NULL;
    room->want = true;
    room->on[REDIS_LINE_HIGH].state = ROOM_SUBSCRIBED; /* There is no such channel. */
    set_resync(rooms, room, REDIS_LINE_NORMAL, true);
    plan(rooms, room, REDIS_LINE_NORMAL);
    return room;
}

int redis_rooms_init(struct redis_rooms *rooms, const char *prefix, const char *node,
                     const struct redis_rooms_events *events, void *ctx)
{
    *rooms = (struct redis_rooms){.events = *events, .ctx = ctx};
    redis_names_init(&rooms->names, prefix, node);
    list_init(&rooms->announce);
    for (unsigned line = 0; line < REDIS_LINES; line++) {
        list_init(&rooms->subscribe[line]);
        list_init(&rooms->unsubscribe[line]);
    }
    for (unsigned i = 0; i < REDIS_FIXED; i++) {
        rooms->fixed[i] = fixed_create(rooms);
        if (!rooms->fixed[i]) {
            redis_rooms_fini(rooms);
            return UV_ENOMEM;
        }
    }
    return 0;
}

/* Gathers rooms on a list through their first link. */
static void gather(void *list, struct map_node *node)
{
    struct redis_room *room = CONTAINER_OF(node, struct redis_room, node);
    list_remove(&room->todo[0]);
    list_append(list, &room->todo[0]);
}

void redis_rooms_fini(struct redis_rooms *rooms)
{
    struct link every;
    struct link *at;
    list_init(&every);
    map_each(&rooms->map, gather, &every);
    while ((at = list_shift(&every)))
        free(CONTAINER_OF(at, struct redis_room, todo[0]));
    for (unsigned i = 0; i < REDIS_FIXED; i++)
        free(rooms->fixed[i]);
    map_fini(&rooms->map);
}

static struct redis_room *add(struct redis_rooms *rooms, struct bytes name)
{
    struct redis_room *room = room_create(name);
    if (!room)
        return NULL;
    if (map_add(&rooms->map, &room->node, map_hash(name.data, name.len)) != 0) {
        free(room);
        return NULL;
    }
    return room;
}

int redis_rooms_want(struct redis_rooms *rooms, struct bytes name)
{
    if (name.len == 0 || name.len > ROOM_NAME_MAX)
        return UV_EINVAL;
    struct redis_room *room = find(rooms, name);
    if (!room)
        room = add(rooms, name);
    if (!room)
        return UV_ENOMEM;
    if (room->want)
        return 0;
    room->want = true;
    rooms->wanted++;
    for (unsigned line = 0; line < REDIS_LINES; line++) {
        set_resync(rooms, room, line, !rooms->up[line]);
        plan(rooms, room, line);
    }
    if (is_confirmed(room))
        list_append(&rooms->announce, &room->todo[0]);
    return 0;
}

void redis_rooms_unwant(struct redis_rooms *rooms, struct bytes name)
{
    struct redis_room *room = name.len > 0 ? find(rooms, name) : NULL;
    if (!room || !room->want)
        return;
    room->want = false;
    rooms->wanted--;
    for (unsigned line = 0; line < REDIS_LINES; line++) {
        room->on[line].lost = false;
        set_resync(rooms, room, line, false);
        plan(rooms, room, line);
    }
    if (is_idle(room))
        forget(rooms, room);
}

void redis_rooms_announce(struct redis_rooms *rooms)
{
    /* Only what stands on the list now: a callback may put rooms on it again. */
    struct link due;
    struct link *at;
    list_init(&due);
    list_splice(&due, &rooms->announce);
    while ((at = list_shift(&due)))
        rooms->events.on_subscribed(rooms->ctx,
                                    name_of(CONTAINER_OF(at, struct redis_room, todo[0])));
}

void redis_rooms_up(struct redis_rooms *rooms, enum redis_line line)
{
    rooms->up[line] = true;
}

static void lose(struct redis_rooms *rooms, struct redis_room *room, unsigned line)
{
    struct room_line *on = &room->on[line];
    if (room->want) {
        on->lost |= on->state == ROOM_SUBSCRIBED;
        set_resync(rooms, room, line, true);
    }
    on->state = ROOM_NONE;
    /* On the announce list it may stand through the other line's link. */
    for (unsigned other = 0; other < REDIS_LINES; other++)
        plan(rooms, room, other);
}

struct loss {
    struct redis_rooms *rooms;
    struct link forgotten;
    unsigned line;
};

static void lose_node(void *ctx, struct map_node *node)
{
    struct loss *loss = ctx;
    struct redis_room *room = CONTAINER_OF(node, struct redis_room, node);
    lose(loss->rooms, room, loss->line);
    if (is_idle(room))
        list_append(&loss->forgotten, &room->todo[0]);
}

void redis_rooms_down(struct redis_rooms *rooms, enum redis_line line)
{
    struct loss loss = {.rooms = rooms, .line = line};
    struct link *at;
    rooms->up[line] = false;
    list_init(&loss.forgotten);
    for (unsigned i = 0; line == REDIS_LINE_NORMAL && i < REDIS_FIXED; i++)
        lose(rooms, rooms->fixed[i], line);
    map_each(&rooms->map, lose_node, &loss);
    while ((at = list_shift(&loss.forgotten)))
        forget(rooms, CONTAINER_OF(at, struct redis_room, todo[0]));
}

static enum broker_channel channel_of(const struct redis_rooms *rooms,
                                      const struct redis_room *room, enum redis_line line)
{
    for (unsigned i = 0; is_fixed(room) && i < REDIS_FIXED; i++) {
        if (rooms->fixed[i] == room)
            return (enum broker_channel)(BROKER_ALL + i);
    }
    return line == REDIS_LINE_HIGH ? BROKER_HIGH : BROKER_ROOM;
}

uint32_t redis_rooms_batch(struct redis_rooms *rooms, enum redis_line line, struct buf *out)
{
    bool subscribe = !list_empty(&rooms->subscribe[line]);
    struct link *list = subscribe ? &rooms->subscribe[line] : &rooms->unsubscribe[line];
    struct redis_room *batch[REDIS_BATCH_MAX];
    uint32_t count = 0;
    while (count < REDIS_BATCH_MAX && !list_empty(list)) {
        struct link *at = list_shift(list);
        batch[count++] = CONTAINER_OF(at - line, struct redis_room, todo[0]);
    }
    if (count == 0)
        return 0;
    wire_command_start(out, count + 1);
    wire_command_arg(out, subscribe ? BYTES_LIT("SUBSCRIBE") : BYTES_LIT("UNSUBSCRIBE"));
    for (uint32_t i = 0; i < count; i++) {
        char text[REDIS_CHANNEL_MAX];
        struct redis_room *room = batch[i];
        enum broker_channel channel = channel_of(rooms, room, line);
        wire_command_arg(out, channel == BROKER_NODE ? bytes_str(rooms->names.node)
                                                     : redis_names_channel(&rooms->names, channel,
                                                                           name_of(room), text));
        room->on[line].state = subscribe ? ROOM_SUBSCRIBING : ROOM_UNSUBSCRIBING;
    }
    return count;
}

/* The room of a channel's name, when that channel belongs on this line. */
static struct redis_room *find_channel(const struct redis_rooms *rooms, enum redis_line line,
                                       struct bytes channel, enum broker_channel *kind)
{
    struct bytes name;
    if (!redis_names_parse(&rooms->names, channel, kind, &name))
        return NULL;
    if ((*kind == BROKER_HIGH) != (line == REDIS_LINE_HIGH))
        return NULL;
    return *kind >= BROKER_ALL ? rooms->fixed[*kind - BROKER_ALL] : find(rooms, name);
}

static void give_gap(struct redis_rooms *rooms, struct redis_room *room, bool high, bool normal)
{
    unsigned lanes = 0;
    /* A high type may come on the room's channel too: only its urgency is lost there. */
    if (normal && room->on[REDIS_LINE_NORMAL].lost)
        lanes = 1u << LANE_HIGH | 1u << LANE_NORMAL | 1u << LANE_LOW;
    if (high && room->on[REDIS_LINE_HIGH].lost)
        lanes |= 1u << LANE_HIGH;
    if (normal)
        room->on[REDIS_LINE_NORMAL].lost = false;
    if (high)
        room->on[REDIS_LINE_HIGH].lost = false;
    /* What is lost on the other two is lost on halley:all too, which lives on the same connection: one gap tells it. */
    if (is_fixed(room) && room != rooms->fixed[0])
        return;
    if (lanes != 0)
        rooms->events.on_gap(rooms->ctx, name_of(room), lanes);
}

int redis_rooms_confirmed(struct redis_rooms *rooms, enum redis_line line, struct bytes channel,
                          bool subscribed)
{
    enum broker_channel kind;
    struct redis_room *room = find_channel(rooms, line, channel, &kind);
    if (!room || room->on[line].state != (subscribed ? ROOM_SUBSCRIBING : ROOM_UNSUBSCRIBING))
        return UV_EPROTO;
    room->on[line].state = subscribed ? ROOM_SUBSCRIBED : ROOM_NONE;
    set_resync(rooms, room, line, false);
    plan(rooms, room, line);
    if (is_idle(room)) {
        forget(rooms, room);
        return 0;
    }
    if (!room->want || !is_confirmed(room))
        return 0;
    /* The callbacks may withdraw the wish, but a room that is held on a line is never freed by that. */
    give_gap(rooms, room, true, true);
    if (room->want && !is_fixed(room))
        rooms->events.on_subscribed(rooms->ctx, name_of(room));
    return 0;
}

bool redis_rooms_deliver(struct redis_rooms *rooms, enum redis_line line, struct bytes channel,
                         enum broker_channel *kind, struct bytes *room_name)
{
    struct redis_room *room = find_channel(rooms, line, channel, kind);
    if (!room || !room->want || room->on[line].state != ROOM_SUBSCRIBED)
        return false;
    /* Confirmed here but still away on the other line: the gap can't wait for that. */
    if (room->on[line].lost)
        give_gap(rooms, room, line == REDIS_LINE_HIGH, line == REDIS_LINE_NORMAL);
    *room_name = name_of(room);
    return room->want;
}

bool redis_rooms_settled(const struct redis_rooms *rooms, enum redis_line line)
{
    return rooms->up[line] && rooms->resync[line] == 0;
}
