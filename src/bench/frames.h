/* frames.h: WebSocket frames as a client sees them: reads the server's, writes masked ones.
 *
 * Streaming: whole frames are handed on where they lie in the receive buffer; only a frame that a
 *            read cut off is copied. Of a frame above FRAME_KEPT_MAX only the head of its payload
 *            is kept and the rest skipped, unless `whole` is set.
 *
 * Threads:   plain values.
 * Ownership: a reader owns what it holds back; frames borrow until the sink returns.
 */
#pragma once

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum { FRAME_KEPT_MAX = 65536, FRAME_CUT = 1024, FRAME_WHOLE_MAX = 64 << 20 };

enum {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

struct server_frame {
    uint8_t opcode;
    bool fin;
    uint64_t length;      /* of the payload, as announced */
    uint32_t wire_head;   /* bytes of the frame's header */
    struct bytes payload; /* shorter than length when the frame was above FRAME_KEPT_MAX */
};

typedef void frame_sink(void *ctx, const struct server_frame *frame);

struct frame_reader {
    struct buf held; /* the beginning of a frame */
    uint64_t skip;   /* bytes of a large frame still to be dropped */
    bool in_message; /* a fragmented message is open */
    bool whole;      /* frames are never cut, because others lie inside; FRAME_WHOLE_MAX */
};

/* Takes what was read and calls the sink for each frame that is complete. Returns NULL, or a
 * sentence about what the server did wrong (RFC 6455 §5.2, §5.4, §5.5, and no extension was
 * negotiated); the reader is then of no more use. */
const char *frame_reader_feed(struct frame_reader *reader, struct bytes data, frame_sink *sink,
                              void *ctx);

void frame_reader_fini(struct frame_reader *reader);

/* Appends a masked frame (RFC 6455 §5.3), payload up to 65,535 bytes. */
void frame_write_masked(struct buf *out, uint8_t opcode, struct bytes payload, uint32_t mask);

/* Appends the header of an unmasked frame, as a server sends it. */
void frame_write_head(struct buf *out, uint8_t opcode, uint64_t length);
