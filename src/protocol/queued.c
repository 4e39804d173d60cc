#include "protocol/queued.h"

void queued_pack(const struct queued *queued, struct buf *out)
{
    const struct bytes names[] = {queued->type, queued->key};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        buf_bytes(out, names[i]);
        buf_byte(out, '\0');
    }
    buf_bytes(out, queued->data);
}

/* Takes the bytes before the next NUL off. */
static struct bytes take_name(struct bytes *rest)
{
    const char *end = memchr(rest->data, '\0', rest->len);
    struct bytes name = bytes_of(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    size_t taken = name.len + (end != NULL);
    *rest = bytes_of(rest->data + taken, rest->len - taken);
    return name;
}

struct queued queued_unpack(struct bytes packed)
{
    struct queued queued;
    queued.type = take_name(&packed);
    queued.key = take_name(&packed);
    queued.data = packed;
    return queued;
}
