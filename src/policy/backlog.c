#include "policy/backlog.h"

#include <stdlib.h>

static const uint64_t DAY_MS = 86400000;

struct backlog_lane {
    uint64_t n;
    uint32_t count;
    struct link messages; /* oldest first */
};

struct backlog_room {
    struct map_node node;
    struct link silent;
    uint64_t touched_ms;
    uint64_t epoch;
    struct backlog_lane lanes[LANE_COUNT];
    size_t name_len;
    char name[];
};

struct backlog_message {
    struct link by_age;
    struct link in_lane;
    struct backlog_lane *lane;
    uint64_t at_ms;
    size_t len;
    char text[];
};

struct backlog_key {
    struct map_node node;
    struct link by_age;
    uint64_t at_ms;
    uint64_t digest;
    struct history_point point;
    enum lane lane;
    size_t room_len;
    size_t key_len;
    char text[]; /* room, key */
};

void backlog_init(struct backlog *backlog)
{
    *backlog = (struct backlog){0};
    list_init(&backlog->by_age);
    list_init(&backlog->keys_by_age);
    list_init(&backlog->silent);
}

static struct backlog_room *find_room(const struct backlog *backlog, struct bytes name)
{
    uint32_t hash = map_hash(name.data, name.len);
    for (struct map_node *at = map_chain(&backlog->rooms, hash); at; at = at->next) {
        struct backlog_room *room = CONTAINER_OF(at, struct backlog_room, node);
        if (at->hash == hash && bytes_equal(bytes_of(room->name, room->name_len), name))
            return room;
    }
    return NULL;
}

static void drop_message(struct backlog *backlog, struct backlog_message *message)
{
    backlog->bytes -= sizeof(*message) + message->len;
    message->lane->count--;
    list_remove(&message->by_age);
    list_remove(&message->in_lane);
    free(message);
}

static void drop_room(struct backlog *backlog, struct backlog_room *room)
{
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct link *messages = &room->lanes[lane].messages;
        while (!list_empty(messages))
            drop_message(backlog, CONTAINER_OF(messages->next, struct backlog_message, in_lane));
    }
    backlog->bytes -= sizeof(*room) + room->name_len;
    list_remove(&room->silent);
    map_remove(&backlog->rooms, &room->node);
    free(room);
}

static void drop_key(struct backlog *backlog, struct backlog_key *key)
{
    backlog->bytes -= sizeof(*key) + key->room_len + key->key_len;
    list_remove(&key->by_age);
    map_remove(&backlog->keys, &key->node);
    free(key);
}

void backlog_fini(struct backlog *backlog)
{
    while (!list_empty(&backlog->silent))
        drop_room(backlog, CONTAINER_OF(backlog->silent.next, struct backlog_room, silent));
    while (!list_empty(&backlog->keys_by_age))
        drop_key(backlog, CONTAINER_OF(backlog->keys_by_age.next, struct backlog_key, by_age));
    map_fini(&backlog->rooms);
    map_fini(&backlog->keys);
}

static struct backlog_room *make_room(struct backlog *backlog, const struct backlog_post *post)
{
    struct bytes name = post->room;
    struct backlog_room *room = calloc(1, sizeof(*room) + name.len);
    if (!room)
        return NULL;
    room->name_len = name.len;
    memcpy(room->name, name.data, name.len);
    /* Two epochs never are the same, though the clock be set back or rest. */
    room->epoch = post->unix_us > backlog->newest_epoch ? post->unix_us : backlog->newest_epoch + 1;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        list_init(&room->lanes[lane].messages);
    list_init(&room->silent);
    if (map_add(&backlog->rooms, &room->node, map_hash(name.data, name.len)) != 0) {
        free(room);
        return NULL;
    }
    backlog->newest_epoch = room->epoch;
    backlog->bytes += sizeof(*room) + name.len;
    list_append(&backlog->silent, &room->silent);
    return room;
}

static uint32_t key_hash(struct bytes room, struct bytes key)
{
    return map_hash(room.data, room.len) ^ map_hash(key.data, key.len) * 31;
}

static struct backlog_key *find_key(const struct backlog *backlog, struct bytes room,
                                    struct bytes key)
{
    uint32_t hash = key_hash(room, key);
    for (struct map_node *at = map_chain(&backlog->keys, hash); at; at = at->next) {
        struct backlog_key *held = CONTAINER_OF(at, struct backlog_key, node);
        if (at->hash == hash && bytes_equal(bytes_of(held->text, held->room_len), room) &&
            bytes_equal(bytes_of(held->text + held->room_len, held->key_len), key))
            return held;
    }
    return NULL;
}

/* Seeded and of 64 bits: nobody outside can make two messages look the same. */
static uint64_t digest_of(enum lane lane, struct bytes message)
{
    return ((uint64_t)map_hash(message.data, message.len) << 32 |
            map_hash(message.data + 1, message.len - 1)) +
           (uint64_t)lane;
}

static bool keep_key(struct backlog *backlog, const struct backlog_post *post,
                     struct history_point point)
{
    struct backlog_key *key = calloc(1, sizeof(*key) + post->room.len + post->key.len);
    if (!key)
        return false;
    key->at_ms = post->now_ms;
    key->digest = digest_of(post->lane, post->message);
    key->point = point;
    key->lane = post->lane;
    key->room_len = post->room.len;
    key->key_len = post->key.len;
    memcpy(key->text, post->room.data, post->room.len);
    memcpy(key->text + post->room.len, post->key.data, post->key.len);
    list_init(&key->by_age);
    if (map_add(&backlog->keys, &key->node, key_hash(post->room, post->key)) != 0) {
        free(key);
        return false;
    }
    list_append(&backlog->keys_by_age, &key->by_age);
    backlog->bytes += sizeof(*key) + key->room_len + key->key_len;
    return true;
}

/* The message with its id in front; counted and listed, but for its number. */
static struct backlog_message *keep_message(struct backlog *backlog, struct backlog_lane *lane,
                                            const struct backlog_post *post,
                                            struct history_point point)
{
    char id[HISTORY_ID_MAX + 1];
    struct bytes text = history_id_format(post->lane, point, id);
    struct buf out = {0};
    BUF_LIT(&out, "{\"id\":\"");
    buf_bytes(&out, text);
    BUF_LIT(&out, "\",");
    buf_append(&out, post->message.data + 1, post->message.len - 1);
    struct backlog_message *message = out.failed ? NULL : malloc(sizeof(*message) + out.len);
    if (message) {
        *message = (struct backlog_message){.lane = lane, .at_ms = post->now_ms, .len = out.len};
        memcpy(message->text, out.data, out.len);
        list_init(&message->by_age);
        list_init(&message->in_lane);
        list_append(&backlog->by_age, &message->by_age);
        list_append(&lane->messages, &message->in_lane);
        lane->count++;
        backlog->bytes += sizeof(*message) + message->len;
    }
    buf_fini(&out);
    return message;
}

static struct backlog_answer add(struct backlog *backlog, const struct backlog_bounds *bounds,
                                 const struct backlog_post *post)
{
    struct backlog_answer answer = {.result = BACKLOG_NO_MEMORY, .lane = post->lane};
    struct backlog_room *room = find_room(backlog, post->room);
    if (!room)
        room = make_room(backlog, post);
    if (!room)
        return answer;
    struct backlog_lane *lane = &room->lanes[post->lane];
    answer.point = (struct history_point){room->epoch, lane->n + 1};
    struct backlog_message *message = keep_message(backlog, lane, post, answer.point);
    if (!message)
        return answer;
    if (post->key.len > 0 && !keep_key(backlog, post, answer.point)) {
        drop_message(backlog, message);
        return answer;
    }
    lane->n++;
    while (lane->count > bounds->length)
        drop_message(backlog, CONTAINER_OF(lane->messages.next, struct backlog_message, in_lane));
    room->touched_ms = post->now_ms;
    list_remove(&room->silent);
    list_append(&backlog->silent, &room->silent);
    answer.result = BACKLOG_ADDED;
    answer.message = bytes_of(message->text, message->len);
    return answer;
}

struct backlog_answer backlog_post(struct backlog *backlog, const struct backlog_bounds *bounds,
                                   const struct backlog_post *post)
{
    backlog_expire(backlog, bounds, post->now_ms);
    struct backlog_key *held = post->key.len > 0 ? find_key(backlog, post->room, post->key) : NULL;
    if (!held)
        return add(backlog, bounds, post);
    bool same = held->digest == digest_of(post->lane, post->message);
    return (struct backlog_answer){
        .result = same ? BACKLOG_REPEAT : BACKLOG_OTHER, .point = held->point, .lane = held->lane};
}

void backlog_undo(struct backlog *backlog, const struct backlog_post *post)
{
    struct backlog_room *room = find_room(backlog, post->room);
    struct backlog_key *key = post->key.len > 0 ? find_key(backlog, post->room, post->key) : NULL;
    struct backlog_lane *lane = &room->lanes[post->lane];
    drop_message(backlog, CONTAINER_OF(lane->messages.prev, struct backlog_message, in_lane));
    lane->n--;
    if (key)
        drop_key(backlog, key);
}

static void expire_messages(struct backlog *backlog, const struct backlog_bounds *bounds,
                            uint64_t now_ms)
{
    while (!list_empty(&backlog->by_age)) {
        struct backlog_message *oldest =
            CONTAINER_OF(backlog->by_age.next, struct backlog_message, by_age);
        if (now_ms - oldest->at_ms <= bounds->ttl_ms && backlog->bytes <= bounds->bytes)
            return;
        drop_message(backlog, oldest);
    }
}

void backlog_expire(struct backlog *backlog, const struct backlog_bounds *bounds, uint64_t now_ms)
{
    expire_messages(backlog, bounds, now_ms);
    while (!list_empty(&backlog->keys_by_age)) {
        struct backlog_key *oldest =
            CONTAINER_OF(backlog->keys_by_age.next, struct backlog_key, by_age);
        if (now_ms - oldest->at_ms <= bounds->dedupe_ms && backlog->bytes <= bounds->bytes)
            break;
        drop_key(backlog, oldest);
    }
    while (!list_empty(&backlog->silent)) {
        struct backlog_room *oldest =
            CONTAINER_OF(backlog->silent.next, struct backlog_room, silent);
        if (now_ms - oldest->touched_ms <= DAY_MS + bounds->ttl_ms &&
            backlog->rooms.count <= bounds->rooms && backlog->bytes <= bounds->bytes)
            break;
        drop_room(backlog, oldest);
    }
}

bool backlog_stand(const struct backlog *backlog, struct bytes name,
                   struct history_point points[LANE_COUNT])
{
    const struct backlog_room *room = find_room(backlog, name);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        points[lane] = room ? (struct history_point){room->epoch, room->lanes[lane].n}
                            : (struct history_point){0};
    return room;
}

uint32_t backlog_read(const struct backlog *backlog, struct bytes name, enum lane lane,
                      uint64_t bytes, struct bytes *out, uint32_t cap, uint64_t *first)
{
    const struct backlog_room *room = find_room(backlog, name);
    uint32_t count = 0;
    if (!room)
        return 0;
    const struct link *head = &room->lanes[lane].messages;
    const struct link *from = head;
    for (uint64_t sum = 0; from->prev != head && count < cap; count++) {
        sum += CONTAINER_OF(from->prev, struct backlog_message, in_lane)->len;
        if (sum > bytes)
            break;
        from = from->prev;
    }
    *first = room->lanes[lane].n - count + 1;
    for (uint32_t i = 0; i < count; i++, from = from->next) {
        struct backlog_message *message = CONTAINER_OF(from, struct backlog_message, in_lane);
        out[i] = bytes_of(message->text, message->len);
    }
    return count;
}
