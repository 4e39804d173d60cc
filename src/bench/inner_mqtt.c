#include "bench/inner.h"

/* MQTT 3.1.1, what a subscriber and a publisher of QoS 0 need of it. */
enum { CONNACK = 2, PUBLISH = 3, SUBACK = 9 };
enum { LENGTH_BYTES_MAX = 4, PACKET_ID = 1 };

static void write_length(struct buf *out, size_t length)
{
    do {
        size_t digit = length & 127;
        length >>= 7;
        buf_byte(out, (char)(digit | (length ? 128 : 0)));
    } while (length);
}

static void write_u16(struct buf *out, size_t value)
{
    buf_byte(out, (char)(value >> 8 & 255));
    buf_byte(out, (char)(value & 255));
}

static void write_text(struct buf *out, const char *text)
{
    write_u16(out, strlen(text));
    buf_text(out, text);
}

/* CONNECT with a clean session and no keep-alive (§3.1). */
static void mqtt_login(struct buf *out, const struct inner_login *login)
{
    bool user = login->user[0];
    bool password = user && login->password[0];
    size_t length = 10 + 2 + strlen(login->client);
    length += user ? 2 + strlen(login->user) : 0;
    length += password ? 2 + strlen(login->password) : 0;
    buf_byte(out, 0x10);
    write_length(out, length);
    write_text(out, "MQTT");
    buf_byte(out, 4);
    buf_byte(out, (char)(0x02 | (user ? 0x80 : 0) | (password ? 0x40 : 0)));
    write_u16(out, 0);
    write_text(out, login->client);
    if (user)
        write_text(out, login->user);
    if (password)
        write_text(out, login->password);
}

static void mqtt_subscribe(struct buf *out, const char *room)
{
    buf_byte(out, (char)0x82);
    write_length(out, 2 + 2 + strlen(room) + 1);
    write_u16(out, PACKET_ID);
    write_text(out, room);
    buf_byte(out, 0);
}

static void mqtt_publish(struct buf *out, const char *room, struct bytes data)
{
    buf_byte(out, 0x30);
    write_length(out, 2 + strlen(room) + data.len);
    write_text(out, room);
    buf_bytes(out, data);
}

/* Returns the length of the fixed header with that of the rest in *length; 0 when it is not all
 * there, -1 when it has more than four bytes (§2.2.3). */
static int read_head(struct bytes data, size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < LENGTH_BYTES_MAX; i++) {
        if (data.len < 2 + i)
            return 0;
        unsigned digit = (unsigned char)data.data[1 + i];
        *length |= (size_t)(digit & 127) << (7 * i);
        if (digit < 128)
            return (int)(2 + i);
    }
    return -1;
}

static const char *on_connack(struct bytes body, struct inner_event *out)
{
    static const char *const reasons[] = {
        "the protocol version is refused", "the client's name is refused",
        "the server is not available", "wrong user or password", "not authorised"};
    if (body.len != 2)
        return "the server sent a CONNACK of a wrong length";
    unsigned code = (unsigned char)body.data[1];
    if (code == 0)
        return NULL;
    const char *why = code <= 5 ? reasons[code - 1] : "CONNECT refused for an unknown reason";
    *out = (struct inner_event){.kind = INNER_REFUSED, .data = bytes_str(why)};
    return NULL;
}

static const char *on_suback(struct bytes body, struct inner_event *out)
{
    if (body.len != 3)
        return "the server sent a SUBACK of a wrong length";
    if ((unsigned char)body.data[2] <= 2)
        out->kind = INNER_JOINED;
    else
        *out = (struct inner_event){.kind = INNER_REFUSED, .data = BYTES_LIT("SUBSCRIBE refused")};
    return NULL;
}

static const char *on_publish(unsigned flags, struct bytes body, struct inner_event *out)
{
    size_t skip = 2;
    if (body.len >= 2)
        skip += (size_t)(unsigned char)body.data[0] << 8 | (unsigned char)body.data[1];
    if (flags & 6)
        skip += 2;
    if (body.len < skip)
        return "the server sent a PUBLISH that is shorter than its topic";
    *out = (struct inner_event){.kind = INNER_MESSAGE,
                                .data = bytes_of(body.data + skip, body.len - skip)};
    return NULL;
}

static const char *mqtt_next(struct bytes data, size_t *used, struct inner_event *out)
{
    size_t length;
    int head = read_head(data, &length);
    *used = 0;
    if (head < 0)
        return "the server sent a packet whose length has more than four bytes";
    if (head == 0 || data.len - (size_t)head < length)
        return NULL;
    struct bytes body = bytes_of(data.data + head, length);
    unsigned first = (unsigned char)data.data[0];
    *used = (size_t)head + length;
    if (first >> 4 == CONNACK)
        return on_connack(body, out);
    if (first >> 4 == SUBACK)
        return on_suback(body, out);
    if (first >> 4 == PUBLISH)
        return on_publish(first, body, out);
    return NULL;
}

const struct inner inner_mqtt = {.name = "mqtt",
                                 .subprotocol = "mqtt",
                                 .login = mqtt_login,
                                 .subscribe = mqtt_subscribe,
                                 .publish = mqtt_publish,
                                 .next = mqtt_next};
