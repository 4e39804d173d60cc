/* answer.h: replies, notices and messages as JSON and frames, for all adapters. Only src/protocol includes it.
 *
 * What is no validated name is quoted here, so an answer is valid JSON whatever it tells of.
 *
 * Path:      reply, notice, message -> [answer] -> native.c, socketio.c -> frame.
 * Threads:   any; no state.
 * Ownership: appends to the caller's buf; pieces borrow.
 */
#pragma once

#include "protocol/intent.h"

/* A writer's guess for ws_frame_begin(): answers take the short head (RFC 6455 §5.2: up to 125 bytes). */
enum { ANSWER_LIKELY_BYTES = 100 };

/* Appends the native object: {"op":"joined",…}. */
void answer_reply(struct buf *out, const struct reply *reply);

/* Appends what a Socket.IO acknowledgement callback gets: {"ok":true,…} or {"ok":false,…}. */
void answer_acknowledgement(struct buf *out, const struct reply *reply);

/* Appends the native object: {"op":"skipped",…}. */
void answer_notice(struct buf *out, const struct notice *notice);

/* The notice that a MESSAGE_GAP or MESSAGE_ONLINE stands for; false: it is a message. */
bool answer_is_notice(const struct message *message, struct notice *notice);

/* Ends the text frame that ws_frame_begin() opened at mark; takes it back where memory ran out. */
void answer_end_frame(struct buf *out, size_t mark);

/* The pieces of a message's frame: collected first, so that its length is known and all is copied once. */
enum { PIECES_MAX = 16 };
struct pieces {
    struct bytes list[PIECES_MAX];
    size_t count;
    size_t len;
};

static inline void pieces_add(struct pieces *pieces, struct bytes text)
{
    pieces->list[pieces->count++] = text;
    pieces->len += text.len;
}

/* Adds `before`, text and `"` when text is not empty. Names of messages are valid and need no escapes (names.h). */
static inline void pieces_add_name(struct pieces *pieces, struct bytes before, struct bytes text)
{
    if (text.len == 0)
        return;
    pieces_add(pieces, before);
    pieces_add(pieces, text);
    pieces_add(pieces, BYTES_LIT("\""));
}

/* Appends the pieces as one text frame, or nothing where memory ran out. */
void pieces_append_frame(struct buf *out, const struct pieces *pieces);
