#include "bench/inner.h"
#include "json/json.h"

/* The client protocol of NATS: lines, and a payload of announced length behind a MSG line. */
enum { LINE_MAX_BYTES = 65536, SIZE_DIGITS_MAX = 9 };

static void nats_login(struct buf *out, const struct inner_login *login)
{
    BUF_LIT(out, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,\"name\":");
    json_quote(out, bytes_str(login->client));
    if (login->user[0]) {
        BUF_LIT(out, ",\"user\":");
        json_quote(out, bytes_str(login->user));
        BUF_LIT(out, ",\"pass\":");
        json_quote(out, bytes_str(login->password));
    }
    BUF_LIT(out, "}\r\n");
}

/* A subscription is not confirmed, but what follows is answered in order, so the PONG tells that it
 * stands. */
static void nats_subscribe(struct buf *out, const char *room)
{
    buf_printf(out, "SUB %s 1\r\nPING\r\n", room);
}

static void nats_publish(struct buf *out, const char *room, struct bytes data)
{
    buf_printf(out, "PUB %s %zu\r\n", room, data.len);
    buf_bytes(out, data);
    BUF_LIT(out, "\r\n");
}

static bool starts(struct bytes line, const char *word)
{
    size_t len = strlen(word);
    return line.len >= len && memcmp(line.data, word, len) == 0;
}

/* The size is the last word of `MSG subject sid [reply] size`. */
static bool read_size(struct bytes line, size_t *out)
{
    const char *space = memrchr(line.data, ' ', line.len);
    const char *end = line.data + line.len;
    size_t size = 0;
    if (!space || space + 1 == end || end - space - 1 > SIZE_DIGITS_MAX)
        return false;
    for (const char *at = space + 1; at < end; at++) {
        if (*at < '0' || *at > '9')
            return false;
        size = size * 10 + (size_t)(*at - '0');
    }
    *out = size;
    return true;
}

static const char *on_msg(struct bytes line, struct bytes data, size_t *used,
                          struct inner_event *out)
{
    size_t size;
    size_t head = line.len + 2;
    *used = 0;
    if (!read_size(line, &size))
        return "the server sent a MSG without a length";
    if (data.len - head < size + 2)
        return NULL;
    if (memcmp(data.data + head + size, "\r\n", 2) != 0)
        return "the server sent a MSG that is longer than announced";
    *out = (struct inner_event){.kind = INNER_MESSAGE, .data = bytes_of(data.data + head, size)};
    *used = head + size + 2;
    return NULL;
}

static const char *nats_next(struct bytes data, size_t *used, struct inner_event *out)
{
    const char *end = memmem(data.data, data.len, "\r\n", 2);
    *used = 0;
    if (!end)
        return data.len > LINE_MAX_BYTES ? "the server sent a line above 64 KB" : NULL;
    struct bytes line = bytes_of(data.data, (size_t)(end - data.data));
    if (starts(line, "MSG "))
        return on_msg(line, data, used, out);
    *used = line.len + 2;
    if (bytes_is(line, "PING"))
        out->kind = INNER_PING;
    else if (bytes_is(line, "PONG"))
        out->kind = INNER_JOINED;
    else if (starts(line, "-ERR"))
        *out = (struct inner_event){.kind = INNER_REFUSED, .data = line};
    else if (!bytes_is(line, "+OK") && !starts(line, "INFO "))
        return "the server sent an operation that is not of NATS";
    return NULL;
}

const struct inner inner_nats = {.name = "nats",
                                 .pong = {"PONG\r\n", 6},
                                 .login = nats_login,
                                 .subscribe = nats_subscribe,
                                 .publish = nats_publish,
                                 .next = nats_next};
