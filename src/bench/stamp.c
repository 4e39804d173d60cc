#include "bench/stamp.h"

#include <inttypes.h>
#include <string.h>

/* Where the parts stand, counted from the brace. */
enum {
    TIME_AT = 6,
    TIME_DIGITS = 19,
    NUMBER_AT = 32,
    NUMBER_DIGITS = 10,
    ROOM_AT = 49,
    ROOM_DIGITS = 7,
    STAMP_HEAD = 57 /* up to and with the quote behind the room */
};

void stamp_write(struct buf *out, const struct stamp *stamp, size_t size)
{
    buf_printf(out, "{\"t\":\"%019" PRIu64 "\",\"n\":\"%010" PRIu64 "\",\"r\":\"%07u\",\"pad\":\"",
               stamp->time_ns, stamp->number, stamp->room);
    size_t pad = size > STAMP_SIZE_MIN ? size - STAMP_SIZE_MIN : 0;
    if (buf_reserve(out, pad)) {
        memset(out->data + out->len, 'x', pad);
        out->len += pad;
    }
    BUF_LIT(out, "\"}");
}

static void put_digits(char *text, size_t count, uint64_t value)
{
    while (count-- > 0) {
        text[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void stamp_patch(char *text, const struct stamp *stamp)
{
    put_digits(text + TIME_AT, TIME_DIGITS, stamp->time_ns);
    put_digits(text + NUMBER_AT, NUMBER_DIGITS, stamp->number);
    put_digits(text + ROOM_AT, ROOM_DIGITS, stamp->room);
}

static bool digits(const char *text, size_t count, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned digit = (unsigned)(unsigned char)text[i] - '0';
        if (digit > 9)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

static bool stamp_at(struct bytes payload, size_t at, struct stamp *out)
{
    if (payload.len < STAMP_HEAD || at > payload.len - STAMP_HEAD)
        return false;
    const char *text = payload.data + at;
    if (memcmp(text, "{\"t\":\"", TIME_AT) != 0 || memcmp(text + 25, "\",\"n\":\"", 7) != 0 ||
        memcmp(text + 42, "\",\"r\":\"", 7) != 0 || text[STAMP_HEAD - 1] != '"')
        return false;
    uint64_t time_ns;
    uint64_t number;
    uint64_t room;
    if (!digits(text + TIME_AT, TIME_DIGITS, &time_ns) ||
        !digits(text + NUMBER_AT, NUMBER_DIGITS, &number) ||
        !digits(text + ROOM_AT, ROOM_DIGITS, &room))
        return false;
    *out = (struct stamp){.time_ns = time_ns, .number = number, .room = (uint32_t)room};
    return true;
}

bool stamp_find(struct bytes payload, size_t *hint, struct stamp *out)
{
    if (stamp_at(payload, *hint, out))
        return true;
    const char *end = payload.data + payload.len;
    const char *from = payload.data;
    while (from && (from = memmem(from, (size_t)(end - from), "{\"t\":\"", TIME_AT))) {
        size_t at = (size_t)(from - payload.data);
        if (stamp_at(payload, at, out)) {
            *hint = at;
            return true;
        }
        from++;
    }
    return false;
}

uint64_t schedule_due_ns(const struct schedule *schedule, uint64_t message)
{
    /* A double holds whole nanoseconds for 104 days, and no rounding adds up. */
    double after = (double)message * (1e9 / schedule->rate);
    uint64_t due = schedule->start_ns + (uint64_t)after;
    return message >= schedule->warmup ? due + schedule->pause_ns : due;
}

/* Which of a room's messages is the first high one. Each room has another, so that high messages come
 * evenly and not all rooms' at once. */
static uint64_t first_high(const struct schedule *schedule, uint64_t room)
{
    return (schedule->high_every - room % schedule->high_every) % schedule->high_every;
}

uint64_t schedule_stream(const struct schedule *schedule, uint64_t message, struct stream *out)
{
    uint64_t rooms = schedule->rooms ? schedule->rooms : 1;
    uint64_t number = message / rooms;
    uint64_t every = schedule->high_every;
    *out = (struct stream){.room = (uint32_t)(message % rooms)};
    if (every == 0)
        return number;
    uint64_t first = first_high(schedule, out->room);
    out->high = number % every == first;
    uint64_t high_before = schedule_in_room(number, every, first);
    return out->high ? high_before : number - high_before;
}

uint64_t schedule_in_stream(const struct schedule *schedule, uint64_t before, struct stream stream)
{
    uint64_t all = schedule_in_room(before, schedule->rooms ? schedule->rooms : 1, stream.room);
    uint64_t high = 0;
    if (schedule->high_every > 0)
        high = schedule_in_room(all, schedule->high_every, first_high(schedule, stream.room));
    return stream.high ? high : all - high;
}
