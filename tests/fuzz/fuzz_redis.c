/* fuzz_redis.c: bytes of a Redis' replies, through the reader and the subscriptions.
 *
 * The first byte says how many bytes are fed at a time and which line they come on. Rooms a to d are wanted and asked
 * for, so the corpus can confirm them. Checked: what a reply borrows can be read, a delivered message belongs to a
 * wanted and confirmed room, and gaps and announcements come for wanted rooms only.
 */
#include "base/check.h"
#include "broker/redis_rooms.h"
#include "broker/redis_wire.h"

#include <stdint.h>

enum { WIRE_MAX_BYTES = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const room_names[] = {"a", "b", "c", "d"};

static bool is_known(struct bytes room)
{
    for (size_t i = 0; i < sizeof(room_names) / sizeof(room_names[0]); i++) {
        if (bytes_is(room, room_names[i]))
            return true;
    }
    return room.len == 0;
}

static void on_subscribed(void *ctx, struct bytes room)
{
    (void)ctx;
    REQUIRE(room.len == 1 && is_known(room));
}

static void on_gap(void *ctx, struct bytes room, unsigned lanes)
{
    (void)ctx;
    REQUIRE(is_known(room) && lanes != 0 && lanes < 8);
}

/* Reads every byte that a reply borrows, for the address sanitizer to see. */
static void touch(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        (void)*(const volatile char *)&text.data[i];
}

static void touch_all(const struct broker_value *value)
{
    touch(value->text);
    for (uint32_t i = 0; i < value->count; i++)
        touch_all(&value->items[i]);
}

static int take_reply(struct redis_rooms *rooms, enum redis_line line, struct wire *wire)
{
    struct bytes channel;
    struct bytes payload;
    struct bytes room;
    enum broker_channel kind;
    enum wire_event event = wire_event(wire->reply, &channel, &payload);
    touch_all(wire->reply);
    if (event == WIRE_EVENT_OTHER)
        return wire_is_pong(wire->reply) ? 0 : -1;
    touch(channel);
    if (event != WIRE_EVENT_MESSAGE)
        return redis_rooms_confirmed(rooms, line, channel, event == WIRE_EVENT_SUBSCRIBED);
    touch(payload);
    if (redis_rooms_deliver(rooms, line, channel, &kind, &room)) {
        REQUIRE(is_known(room));
        REQUIRE((kind == BROKER_HIGH) == (line == REDIS_LINE_HIGH));
        REQUIRE((kind >= BROKER_ALL) == (room.len == 0));
    }
    return 0;
}

/* One life of a connection. Returns how many bytes it lived on. */
static size_t run_line(struct redis_rooms *rooms, enum redis_line line, const uint8_t *data,
                       size_t size, size_t step)
{
    struct wire wire;
    struct buf out = {0};
    size_t at = 0;
    int result = 0;
    if (wire_init(&wire, WIRE_MAX_BYTES) != 0)
        return size;
    redis_rooms_up(rooms, line);
    while (at < size && result >= 0) {
        (void)redis_rooms_batch(rooms, line, &out);
        size_t len = size - at < step ? size - at : step;
        result = wire_feed(&wire, (const char *)data + at, len);
        at += len;
        while (result >= 0 && (result = wire_next(&wire)) == 1)
            result = take_reply(rooms, line, &wire);
    }
    REQUIRE(result >= 0 || *wire.why != '\0' || result == -1 || result == UV_EPROTO);
    redis_rooms_down(rooms, line);
    REQUIRE(!redis_rooms_settled(rooms, line));
    buf_fini(&out);
    wire_fini(&wire);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct redis_rooms_events events = {on_subscribed, on_gap};
    struct redis_rooms rooms;
    if (size == 0 || redis_rooms_init(&rooms, "halley", "n1", &events, NULL) != 0)
        return 0;
    enum redis_line line = data[0] & 1 ? REDIS_LINE_HIGH : REDIS_LINE_NORMAL;
    size_t step = (size_t)(data[0] >> 1) + 1;
    for (size_t i = 0; i < sizeof(room_names) / sizeof(room_names[0]); i++)
        (void)redis_rooms_want(&rooms, bytes_str(room_names[i]));
    /* After an error the rest is read as if the connection had come back; the wishes change between two lives. */
    size_t at = 1;
    for (int lives = 0; at < size && lives < 16; lives++) {
        at += run_line(&rooms, line, data + at, size - at, step);
        struct bytes room = bytes_str(room_names[lives % 4]);
        redis_rooms_unwant(&rooms, room);
        if (data[0] & 2)
            (void)redis_rooms_want(&rooms, room);
        line = line == REDIS_LINE_HIGH ? REDIS_LINE_NORMAL : REDIS_LINE_HIGH;
    }
    redis_rooms_fini(&rooms);
    return 0;
}
