/* fuzz_protocol.h: what holds for every text that a viewer may send, for the fuzz targets of the adapters. */
#pragma once

#include "base/check.h"
#include "protocol/adapter.h"

/* A span lies inside the parsed text or inside the intent itself. */
static inline void fuzz_require_inside(struct bytes span, struct bytes text,
                                       const struct intent *intent)
{
    if (span.len == 0)
        return;
    const char *self = (const char *)intent;
    bool in_text = span.data >= text.data && span.data + span.len <= text.data + text.len;
    bool in_self = span.data >= self && span.data + span.len <= self + sizeof(*intent);
    REQUIRE(in_text || in_self);
}

static inline void fuzz_require_intent(const struct intent *intent, struct bytes text)
{
    fuzz_require_inside(intent->room, text, intent);
    fuzz_require_inside(intent->type, text, intent);
    fuzz_require_inside(intent->data.raw, text, intent);
    fuzz_require_inside(intent->key, text, intent);
    fuzz_require_inside(intent->ticket, text, intent);
    fuzz_require_inside(intent->engine_data, text, intent);
    fuzz_require_inside(intent->namespace_, text, intent);
    REQUIRE(intent->ref.value < (uint64_t)1 << 53);
    switch (intent->op) {
    case INTENT_JOIN:
    case INTENT_LEAVE:
        REQUIRE(name_is_room(intent->room));
        break;
    case INTENT_SEND:
        REQUIRE(name_is_room(intent->room) && name_is_type(intent->type));
        REQUIRE(intent->key.len == 0 || name_is_room(intent->key));
        REQUIRE(intent->data.kind == JSON_ABSENT ||
                json_check(intent->data.raw, JSON_DEPTH_MAX, NULL) == JSON_OK);
        break;
    case INTENT_REFRESH:
        REQUIRE(intent->ticket.len > 0);
        break;
    case INTENT_BAD:
        REQUIRE(intent->error_text && (int)intent->error_code < ERROR_CODE_COUNT);
        break;
    default:
        break;
    }
}

/* Takes one final unmasked text frame off *rest and returns its payload. */
static inline struct bytes fuzz_take_frame(struct bytes *rest)
{
    REQUIRE(rest->len >= 2);
    const unsigned char *head = (const unsigned char *)rest->data;
    REQUIRE(head[0] == 0x81 && head[1] < 0x80);
    size_t head_len = head[1] == 126 ? 4 : head[1] == 127 ? 10 : 2;
    REQUIRE(rest->len >= head_len);
    size_t len = head_len == 2 ? head[1] : 0;
    for (size_t i = 2; i < head_len; i++)
        len = len << 8 | head[i];
    REQUIRE(len <= rest->len - head_len);
    struct bytes payload = bytes_of(rest->data + head_len, len);
    *rest = bytes_of(payload.data + len, rest->len - head_len - len);
    return payload;
}

/* Every frame in out is a text frame whose JSON, behind skip(payload) bytes, can be read. Empties out. */
static inline void fuzz_require_frames(struct buf *out, size_t (*skip)(struct bytes payload))
{
    REQUIRE(!out->failed);
    struct bytes rest = buf_view(out);
    while (rest.len > 0) {
        struct bytes payload = fuzz_take_frame(&rest);
        size_t head = skip(payload);
        REQUIRE(head <= payload.len);
        struct bytes json = bytes_of(payload.data + head, payload.len - head);
        REQUIRE(json_check(json, JSON_DEPTH_MAX, NULL) == JSON_OK);
    }
    buf_clear(out);
}

/* Answers an intent in all ways that its kind allows, then checks the frames. */
static inline void fuzz_answer(const struct adapter *adapter, const struct intent *intent,
                               struct buf *out, size_t (*skip)(struct bytes payload))
{
    struct reply reply = {
        .kind = intent->op == INTENT_BAD ? REPLY_ERROR : REPLY_JOINED,
        .ref = intent->ref,
        .room = intent->room,
        .error_code = intent->error_code,
        .text = intent->error_text,
    };
    adapter->append_reply(out, &reply);
    fuzz_require_frames(out, skip);
    if (intent->op != INTENT_SEND)
        return;
    struct message_parts parts = {.type = intent->type, .data = intent->data.raw};
    struct message *message = message_create(MESSAGE_ROOM, intent->room, &parts);
    REQUIRE(message);
    adapter->append_message(out, message);
    struct bytes rest = buf_view(out);
    struct bytes payload = fuzz_take_frame(&rest);
    REQUIRE(intent->data.raw.len == 0 ||
            memmem(payload.data, payload.len, intent->data.raw.data, intent->data.raw.len));
    fuzz_require_frames(out, skip);
    message_unref(message);
}
