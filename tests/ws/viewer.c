#include "ws/viewer.h"

enum { SHOWN_MAX = 125 };

static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};

static void big_endian(struct buf *stream, uint64_t value, size_t len)
{
    for (size_t i = len; i > 0; i--)
        buf_byte(stream, (char)(value >> (8 * (i - 1)) & 0xff));
}

void frame_head(struct buf *stream, unsigned first, uint64_t payload_len, size_t length_bytes)
{
    unsigned mask_bit = first & UNMASKED ? 0 : 0x80;
    unsigned len7 = length_bytes == 2 ? 126 : length_bytes == 8 ? 127 : (unsigned)payload_len;
    buf_byte(stream, (char)(first & 0xff));
    buf_byte(stream, (char)(mask_bit | len7));
    big_endian(stream, payload_len, length_bytes);
    if (mask_bit)
        buf_append(stream, mask, sizeof(mask));
}

void frame_append(struct buf *stream, unsigned first, struct bytes payload)
{
    size_t length_bytes = payload.len < 126 ? 0 : payload.len <= UINT16_MAX ? 2 : 8;
    frame_head(stream, first, payload.len, length_bytes);
    if (!buf_reserve(stream, payload.len))
        return;
    for (size_t i = 0; i < payload.len; i++) {
        unsigned char byte = (unsigned char)payload.data[i];
        stream->data[stream->len++] = (char)(first & UNMASKED ? byte : byte ^ mask[i % 4]);
    }
}

void frame_text(struct buf *stream, unsigned first, const char *payload)
{
    frame_append(stream, first, bytes_str(payload));
}

void frame_close(struct buf *stream, unsigned first, unsigned code, struct bytes reason)
{
    struct buf payload = {0};
    big_endian(&payload, code, 2);
    buf_bytes(&payload, reason);
    frame_append(stream, first, buf_view(&payload));
    buf_fini(&payload);
}

static void log_payload(struct buf *log, struct bytes payload)
{
    if (payload.len <= SHOWN_MAX) {
        buf_bytes(log, payload);
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < payload.len; i++)
        hash = (hash ^ (unsigned char)payload.data[i]) * 0x100000001b3u;
    buf_printf(log, "%zu:%016llx", payload.len, (unsigned long long)hash);
}

static int log_event(struct viewer *viewer, const char *name, struct bytes payload)
{
    buf_text(&viewer->log, name);
    log_payload(&viewer->log, payload);
    buf_text(&viewer->log, ") ");
    return ++viewer->events == viewer->stop_at ? viewer->stop_with : 0;
}

static int on_message(void *ctx, enum ws_opcode opcode, struct bytes payload)
{
    return log_event(ctx, opcode == WS_TEXT ? "text(" : "binary(", payload);
}

static int on_ping(void *ctx, struct bytes payload)
{
    return log_event(ctx, "ping(", payload);
}

static int on_pong(void *ctx, struct bytes payload)
{
    return log_event(ctx, "pong(", payload);
}

static int on_close(void *ctx, uint16_t code, struct bytes reason)
{
    struct viewer *viewer = ctx;
    buf_printf(&viewer->log, "close(%u,", code);
    return log_event(viewer, "", reason);
}

int viewer_feed(struct viewer *viewer, struct bytes bytes)
{
    static const struct codec_events events = {on_message, on_ping, on_pong, on_close};
    int rc = codec_feed(viewer->pool, &viewer->slot, bytes, viewer->now_ms, &events, viewer);
    if (rc != 0)
        buf_printf(&viewer->log, "=%d", rc);
    return rc;
}

bool viewer_closed(const struct viewer *viewer)
{
    return viewer->log.len > 0 && memmem(viewer->log.data, viewer->log.len, "close(", 6);
}

size_t viewer_feed_pieces(struct viewer *viewer, struct bytes stream, size_t piece)
{
    for (size_t at = 0; at < stream.len;) {
        size_t n = piece < stream.len - at ? piece : stream.len - at;
        int rc = viewer_feed(viewer, bytes_of(stream.data + at, n));
        at += n;
        if (rc != 0 || viewer_closed(viewer))
            return at;
    }
    return 0;
}

void viewer_fini(struct viewer *viewer)
{
    codec_detach(viewer->pool, &viewer->slot);
    buf_fini(&viewer->log);
}
