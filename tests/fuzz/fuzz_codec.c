/* fuzz_codec.c: frames from a viewer. The stream is fed whole, byte by byte and in pieces; each
 * way must give the same events and the same result, and leave nothing behind.
 *
 * The first two input bytes choose the longest message and the size of the pieces, the rest is
 * the stream. */
#include "ws/codec.h"

#include "base/check.h"

#include <stdlib.h>

enum { STREAM_MAX = 1 << 14, OPEN_MAX = 4 };

struct outcome {
    uint64_t hash;
    uint32_t events;
    int rc;
    bool closed;
};

static void note(struct outcome *outcome, uint64_t kind, struct bytes payload)
{
    uint64_t hash = outcome->hash ^ (kind << 32) ^ payload.len;
    for (size_t i = 0; i < payload.len; i++)
        hash = (hash ^ (unsigned char)payload.data[i]) * 0x100000001b3u;
    outcome->hash = hash * 0x100000001b3u;
    outcome->events++;
}

static int on_message(void *ctx, enum ws_opcode opcode, struct bytes payload)
{
    REQUIRE(opcode == WS_TEXT || opcode == WS_BINARY);
    note(ctx, opcode, payload);
    return 0;
}

static int on_ping(void *ctx, struct bytes payload)
{
    REQUIRE(payload.len <= WS_CONTROL_MAX);
    note(ctx, WS_PING, payload);
    return 0;
}

static int on_pong(void *ctx, struct bytes payload)
{
    REQUIRE(payload.len <= WS_CONTROL_MAX);
    note(ctx, WS_PONG, payload);
    return 0;
}

static int on_close(void *ctx, uint16_t code, struct bytes reason)
{
    struct outcome *outcome = ctx;
    REQUIRE(code == 0 || (code >= 1000 && code < 5000));
    note(outcome, WS_CLOSE | (uint64_t)code << 8, reason);
    outcome->closed = true;
    return 0;
}

static struct outcome run(struct codec_pool *pool, struct bytes stream, size_t piece)
{
    static const struct codec_events events = {on_message, on_ping, on_pong, on_close};
    struct outcome outcome = {0};
    struct codec *slot = NULL;
    for (size_t at = 0; at < stream.len && outcome.rc == 0 && !outcome.closed; at += piece) {
        size_t n = piece < stream.len - at ? piece : stream.len - at;
        struct bytes part = bytes_of(stream.data + at, n);
        outcome.rc = codec_feed(pool, &slot, part, at, &events, &outcome);
        REQUIRE(!slot || codec_since_ms(slot) <= at);
        REQUIRE(!slot || (outcome.rc == 0 && !outcome.closed));
    }
    REQUIRE(outcome.rc == 0 || outcome.rc == 1002 || outcome.rc == 1007 || outcome.rc == 1009);
    codec_detach(pool, &slot);
    REQUIRE(codec_pool_open(pool) == 0);
    return outcome;
}

static void check_same(struct outcome a, struct outcome b)
{
    REQUIRE(a.hash == b.hash);
    REQUIRE(a.events == b.events);
    REQUIRE(a.rc == b.rc);
    REQUIRE(a.closed == b.closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > STREAM_MAX)
        return 0;
    struct codec_limits limits = {
        .message_bytes = (uint64_t)data[0] * 32, .open_messages = OPEN_MAX, .idle_contexts = 1};
    struct bytes stream = bytes_of((const char *)data + 2, size - 2);
    struct codec_pool *pool = codec_pool_create(&limits);
    if (!pool)
        abort();
    size_t empty = codec_pool_bytes(pool);
    struct outcome whole = run(pool, stream, SIZE_MAX / 2);
    check_same(whole, run(pool, stream, 1));
    check_same(whole, run(pool, stream, (size_t)data[1] + 2));
    codec_pool_trim(pool);
    REQUIRE(codec_pool_bytes(pool) == empty);
    codec_pool_destroy(pool);
    return 0;
}
