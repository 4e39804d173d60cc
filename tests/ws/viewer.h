/* viewer.h: what a viewer sends, and a log of what the codec makes of it. */
#pragma once

#include "ws/codec.h"

enum { FIN = 0x80, UNMASKED = 0x100 };

/* Appends a frame as a client sends it: first is FIN and opcode (and reserved bits), | UNMASKED
 * leaves the mask out. */
void frame_append(struct buf *stream, unsigned first, struct bytes payload);

/* The same with the payload given as text. */
void frame_text(struct buf *stream, unsigned first, const char *payload);

/* A close frame with a code and a reason. */
void frame_close(struct buf *stream, unsigned first, unsigned code, struct bytes reason);

/* Only the head, with any length in any of its forms (length_bytes 0, 2 or 8). */
void frame_head(struct buf *stream, unsigned first, uint64_t payload_len, size_t length_bytes);

struct viewer {
    struct codec_pool *pool;
    struct codec *slot;
    struct buf
        log; /* "text(hello) ping() close(1000,bye) =1002", long payloads as length and hash */
    uint64_t now_ms;
    int stop_at; /* the n-th event returns stop_with; 0: none does */
    int stop_with;
    int events;
};

/* Feeds bytes; what is returned, if not 0, is logged too. */
int viewer_feed(struct viewer *viewer, struct bytes bytes);

/* Feeds the stream in pieces of `piece` bytes. Returns after how many bytes the feed ended, or
 * 0. */
size_t viewer_feed_pieces(struct viewer *viewer, struct bytes stream, size_t piece);

/* Whether the peer's close frame has been told. */
bool viewer_closed(const struct viewer *viewer);

void viewer_fini(struct viewer *viewer);
