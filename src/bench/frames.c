#include "bench/frames.h"

struct head {
    uint8_t opcode;
    bool fin;
    uint32_t size; /* of the header; 0: not all there */
    uint64_t length;
};

static uint64_t big_endian(const unsigned char *at, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++)
        value = value << 8 | at[i];
    return value;
}

static const char *check_head(const struct head *head, unsigned first, bool masked,
                              struct frame_reader *reader)
{
    if (first & 0x70)
        return "the server set a reserved bit, and no extension was negotiated";
    if (masked)
        return "the server masked a frame";
    if (head->opcode >= FRAME_CLOSE) {
        if (head->opcode > FRAME_PONG)
            return "the server sent an unknown control opcode";
        if (!head->fin || head->length > 125)
            return "the server sent a control frame that is fragmented or above 125 bytes";
        return NULL;
    }
    if (head->opcode > FRAME_BINARY)
        return "the server sent an unknown data opcode";
    if ((head->opcode == FRAME_CONTINUATION) != reader->in_message)
        return "the server sent a continuation out of place";
    return NULL;
}

static const char *read_head(struct frame_reader *reader, struct bytes data, struct head *out)
{
    const unsigned char *at = (const unsigned char *)data.data;
    *out = (struct head){0};
    if (data.len < 2)
        return NULL;
    struct head head = {.opcode = at[0] & 15, .fin = at[0] >> 7, .size = 2, .length = at[1] & 127};
    if (head.length >= 126) {
        size_t more = head.length == 126 ? 2 : 8;
        if (data.len < 2 + more)
            return NULL;
        head.length = big_endian(at + 2, more);
        head.size += (uint32_t)more;
    }
    if (head.length >> 63)
        return "the server announced a frame of 2^63 bytes or more";
    if (reader->whole && head.length > FRAME_WHOLE_MAX)
        return "the server announced a frame above 64 MB";
    const char *wrong = check_head(&head, at[0], at[1] & 128, reader);
    if (!wrong)
        *out = head;
    return wrong;
}

/* Hands on the frames in data and sets *used to where the first incomplete one begins. */
static const char *read_frames(struct frame_reader *reader, struct bytes data, frame_sink *sink,
                               void *ctx, size_t *used)
{
    size_t at = 0;
    *used = 0;
    for (;;) {
        struct head head;
        struct bytes rest = bytes_of(data.data + at, data.len - at);
        const char *wrong = read_head(reader, rest, &head);
        if (wrong)
            return wrong;
        if (!head.size)
            break;
        bool large = head.length > FRAME_KEPT_MAX && !reader->whole;
        size_t kept = large ? FRAME_CUT : (size_t)head.length;
        if (rest.len - head.size < kept)
            break;
        if (head.opcode < FRAME_CLOSE)
            reader->in_message = !head.fin;
        sink(ctx, &(struct server_frame){.opcode = head.opcode,
                                         .fin = head.fin,
                                         .length = head.length,
                                         .wire_head = head.size,
                                         .payload = bytes_of(rest.data + head.size, kept)});
        at += head.size + kept;
        if (large) {
            uint64_t skip = head.length - kept;
            size_t here = data.len - at < skip ? data.len - at : (size_t)skip;
            at += here;
            reader->skip = skip - here;
        }
    }
    *used = at;
    return NULL;
}

const char *frame_reader_feed(struct frame_reader *reader, struct bytes data, frame_sink *sink,
                              void *ctx)
{
    if (reader->skip) {
        size_t drop = reader->skip < data.len ? (size_t)reader->skip : data.len;
        reader->skip -= drop;
        data = bytes_of(data.data + drop, data.len - drop);
    }
    bool held = reader->held.len > 0;
    if (held) {
        buf_bytes(&reader->held, data);
        data = buf_view(&reader->held);
    }
    size_t used = 0;
    if (!reader->held.failed) {
        const char *wrong = read_frames(reader, data, sink, ctx, &used);
        if (wrong)
            return wrong;
        if (held)
            buf_consume(&reader->held, used);
        else
            buf_append(&reader->held, data.data + used, data.len - used);
    }
    return reader->held.failed ? "out of memory in the load generator" : NULL;
}

void frame_reader_fini(struct frame_reader *reader)
{
    buf_fini(&reader->held);
}

void frame_write_head(struct buf *out, uint8_t opcode, uint64_t length)
{
    buf_byte(out, (char)(0x80 | opcode));
    if (length < 126) {
        buf_byte(out, (char)length);
        return;
    }
    int bytes = length <= UINT16_MAX ? 2 : 8;
    buf_byte(out, bytes == 2 ? 126 : 127);
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
        buf_byte(out, (char)(length >> shift & 255));
}

void frame_write_masked(struct buf *out, uint8_t opcode, struct bytes payload, uint32_t mask)
{
    size_t start = out->len;
    frame_write_head(out, opcode, payload.len);
    char key[4];
    memcpy(key, &mask, sizeof(key));
    buf_append(out, key, sizeof(key));
    if (out->failed || !buf_reserve(out, payload.len))
        return;
    out->data[start + 1] = (char)(out->data[start + 1] | (char)0x80);
    for (size_t i = 0; i < payload.len; i++)
        out->data[out->len++] = (char)(payload.data[i] ^ key[i & 3]);
}
