/* frame.h: WebSocket frame heads, written for viewers (never masked, RFC 6455 §5.1) and read from
 * viewers (always masked).
 *
 * Threads:   any; no state.
 */
#pragma once

#include "base/bytes.h"

enum ws_opcode {
    WS_CONTINUATION = 0x0,
    WS_TEXT = 0x1,
    WS_BINARY = 0x2,
    WS_CLOSE = 0x8,
    WS_PING = 0x9,
    WS_PONG = 0xa
};

enum { WS_HEAD_MAX = 10, WS_CONTROL_MAX = 125 };

/* Writes the head of a final frame (FIN set) with a payload of payload_len bytes; returns its
 * length, 2, 4 or 10 (RFC 6455 §5.2). */
size_t ws_frame_head(unsigned char head[WS_HEAD_MAX], enum ws_opcode opcode, uint64_t payload_len);

/* Appends one whole frame. */
void ws_frame_append(struct buf *out, enum ws_opcode opcode, struct bytes payload);

/* Appends a close frame; reason is cut at 123 bytes on a UTF-8 boundary. code 0: an empty close
 * frame (§5.5.1). */
void ws_frame_close(struct buf *out, uint16_t code, const char *reason);

/* A row of whole frames for viewers, as it waits to be sent. How many of its bytes are whole frames within the first `room`; the first frame
 * alone where that does not fit. 0: no such frame stands at its start. */
size_t ws_frames_cut(struct bytes row, size_t room);

/* Where the frame ends whose bytes are sent up to `at`: the least end of a frame that is not before it, or the end of what can't be read as
 * frames. */
size_t ws_frames_end(struct bytes row, size_t at);

/* Writers that do not know their payload's length yet: ws_frame_begin() leaves room for the head of
 * a payload of likely_len bytes and returns a mark; ws_frame_end() puts the head right before the
 * payload, which is moved only where its head has another length than the room. Failures as
 * everywhere in struct buf: out->failed. */
size_t ws_frame_begin(struct buf *out, size_t likely_len);
void ws_frame_end(struct buf *out, size_t mark, enum ws_opcode opcode);

static inline bool ws_is_control(unsigned opcode)
{
    return opcode >= WS_CLOSE;
}

/* The head of a frame from a viewer, as far as its bytes are there. */
struct ws_head {
    unsigned opcode;
    bool final;           /* FIN */
    bool sized;           /* payload_len is known */
    bool complete;        /* every byte of the head is there, the mask too */
    size_t length;        /* of the head, as far as the bytes tell */
    uint64_t payload_len; /* at most 2^63-1 */
};

/* Reads the head at the start of view. Returns false when it breaks a rule of RFC 6455 §5.2 or
 * §5.5 that a single head can break (to be failed with 1002), each as soon as its byte is there:
 * reserved bits and opcodes, no mask, lengths not in their shortest form or past 2^63-1, control
 * frames in fragments or past WS_CONTROL_MAX, a close payload of one byte. */
bool ws_head_read(struct bytes view, struct ws_head *head);
