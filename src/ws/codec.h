/* codec.h: WebSocket frames from viewers, decoded by wslay, without a context per idle viewer.
 *
 * A wslay event context is 8.8 KB. It is attached to a viewer only while a message is open (all its
 * fragments and the control frames between them) or a frame is longer than CODEC_STASH_MAX; idle
 * viewers hold nothing (*slot is NULL). An unfinished frame up to CODEC_STASH_MAX bytes waits as
 * raw bytes in a right-sized buffer; of a text frame what has come is shown to a fresh context
 * after each feed, so that bytes that are not UTF-8 are refused at once. So a viewer that sends a
 * byte a minute costs its bytes. Contexts return to the pool only from a clean state; after an
 * error they are freed.
 *
 * wslay 1.1.1 unmasks, checks UTF-8, the order of fragments and close frames. What it does late or
 * not is done here: heads are judged as their bytes come (ws_head_read()), message_bytes counts all
 * fragments, close codes 1012 to 1014 are accepted.
 *
 * What wslay wants to send (pongs, close frames) is thrown away at once: pongs and closes are the
 * caller's, who keeps only the newest pong (RFC 6455 §5.5.3).
 *
 * Path:      worker (read) -> [codec] -> protocol adapter.
 * Threads:   a pool and its slots belong to one thread.
 * Ownership: a slot owns its codec: give it back with codec_detach().
 * Limits:    limits.message_bytes, limits.open_messages (slots that hold a context after a feed),
 *            CODEC_STASH_MAX.
 */
#pragma once

#include "ws/frame.h"

#include <stdbool.h>

struct codec;      /* what one viewer holds while a frame or message is unfinished */
struct codec_pool; /* one per worker */

enum { CODEC_STASH_MAX = 2048 };

struct codec_limits {
    uint64_t message_bytes; /* longest message, all fragments together; past it 1009 */
    uint32_t open_messages; /* contexts attached at once; past it 1013 */
    uint32_t idle_contexts; /* clean contexts kept for reuse */
};

/* Called in order, from inside codec_feed(). A callback that returns non-zero ends the feed:
 * codec_feed() returns that value. After on_close the feed ends too, whatever stands behind the
 * close frame. Payloads are borrowed until the callback returns. A callback may not detach the
 * slot: return non-zero instead. */
struct codec_events {
    /* WS_TEXT (valid UTF-8) or WS_BINARY. */
    int (*on_message)(void *ctx, enum ws_opcode opcode, struct bytes payload);
    int (*on_ping)(void *ctx, struct bytes payload);
    int (*on_pong)(void *ctx, struct bytes payload);
    int (*on_close)(void *ctx, uint16_t code, struct bytes reason); /* code 0: none given */
};

/* Returns NULL when memory is out. */
struct codec_pool *codec_pool_create(const struct codec_limits *limits);
void codec_pool_destroy(struct codec_pool *pool); /* NULL is fine; all slots must be detached */
void codec_pool_set_limits(struct codec_pool *pool, const struct codec_limits *limits);

/* Frees all idle contexts: for quiet times. */
void codec_pool_trim(struct codec_pool *pool);

/* Slots that hold a context now / bytes of memory of pool, contexts, stashes and open messages
 * (estimate). */
uint32_t codec_pool_open(const struct codec_pool *pool);
size_t codec_pool_bytes(const struct codec_pool *pool);

/* Feeds bytes that a viewer sent. `bytes_in` is borrowed for the call. now_ms: any monotonic clock.
 * Returns 0 to go on; a positive WebSocket close code (1002, 1007, 1009, 1011 out of memory, 1013
 * open_messages) when the connection must be failed with it; or what a callback returned, if that
 * was not 0 (negative by convention). After anything but 0, and after on_close, *slot is NULL and
 * nothing more may be fed. */
int codec_feed(struct codec_pool *pool, struct codec **slot, struct bytes bytes_in, uint64_t now_ms,
               const struct codec_events *events, void *ctx);

/* When the unfinished frame or message in this slot began: the now_ms of the feed that brought its
 * first byte. */
uint64_t codec_since_ms(const struct codec *codec);

/* The viewer was not read for a while, so what is unfinished could not end: its time begins anew. */
void codec_restart_clock(struct codec *codec, uint64_t now_ms);

/* Drops what is held of an unfinished frame or message, if anything, and gives the memory back.
 * *slot may be NULL, and is afterwards. */
void codec_detach(struct codec_pool *pool, struct codec **slot);
