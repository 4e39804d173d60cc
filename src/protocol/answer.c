#include "protocol/answer.h"

#include "protocol/history_id.h"
#include "ws/frame.h"

const char *error_code_name(enum error_code code)
{
    static const char *const names[ERROR_CODE_COUNT] = {
        [ERROR_BAD_MESSAGE] = "bad-message",   [ERROR_BAD_NAME] = "bad-name",
        [ERROR_TOO_LARGE] = "too-large",       [ERROR_NOT_IN_ROOM] = "not-in-room",
        [ERROR_FORBIDDEN] = "forbidden",       [ERROR_UNKNOWN_TYPE] = "unknown-type",
        [ERROR_RATE_LIMITED] = "rate-limited", [ERROR_TOO_MANY_ROOMS] = "too-many-rooms",
        [ERROR_UNAVAILABLE] = "unavailable",   [ERROR_DUPLICATE] = "duplicate",
    };
    return names[code];
}

static void write_room(struct buf *out, struct bytes room)
{
    if (room.len == 0)
        return;
    BUF_LIT(out, ",\"room\":");
    json_quote(out, room);
}

static void write_ref(struct buf *out, struct intent_ref ref)
{
    if (!ref.present)
        return;
    BUF_LIT(out, ",\"ref\":");
    buf_uint(out, ref.value);
}

/* Ids are names without what needs an escape (names.h). */
static void write_id(struct buf *out, struct bytes id)
{
    if (id.len == 0)
        return;
    BUF_LIT(out, ",\"id\":\"");
    buf_bytes(out, id);
    BUF_LIT(out, "\"");
}

static void write_online(struct buf *out, const struct reply *reply)
{
    if (!reply->online_known)
        return;
    BUF_LIT(out, ",\"online\":");
    buf_uint(out, reply->online);
}

static void write_after(struct buf *out, const struct reply *reply)
{
    char text[HISTORY_ID_MAX + 1];
    bool first = true;
    if (!reply->has_after)
        return;
    BUF_LIT(out, ",\"after\":[");
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (reply->after[lane].n == 0)
            continue;
        buf_text(out, first ? "\"" : ",\"");
        buf_bytes(out, history_id_format((enum lane)lane, reply->after[lane], text));
        BUF_LIT(out, "\"");
        first = false;
    }
    BUF_LIT(out, "]");
}

static void write_retry(struct buf *out, uint32_t retry_after_ms)
{
    if (retry_after_ms == 0)
        return;
    BUF_LIT(out, ",\"retry_after_ms\":");
    buf_uint(out, retry_after_ms);
}

static void write_error(struct buf *out, const struct reply *reply)
{
    write_room(out, reply->room);
    BUF_LIT(out, ",\"code\":\"");
    buf_text(out, error_code_name(reply->error_code));
    BUF_LIT(out, "\",\"message\":");
    json_quote(out, bytes_str(reply->text));
    write_retry(out, reply->retry_after_ms);
}

static void write_pong(struct buf *out, const struct reply *reply)
{
    BUF_LIT(out, ",\"time_ms\":");
    buf_uint(out, reply->time_ms);
    if (reply->online_rooms.len > 0) {
        BUF_LIT(out, ",\"online\":{");
        buf_bytes(out, reply->online_rooms);
        BUF_LIT(out, "}");
    }
    if (reply->interval_ms > 0) {
        BUF_LIT(out, ",\"heartbeat\":{\"interval_ms\":");
        buf_uint(out, reply->interval_ms);
        BUF_LIT(out, "}");
    }
    if (reply->frame_bytes > 0) {
        BUF_LIT(out, ",\"frame_bytes\":");
        buf_uint(out, reply->frame_bytes);
    }
}

void answer_reply(struct buf *out, const struct reply *reply)
{
    switch (reply->kind) {
    case REPLY_JOINED:
        BUF_LIT(out, "{\"op\":\"joined\"");
        write_room(out, reply->room);
        write_ref(out, reply->ref);
        write_online(out, reply);
        write_after(out, reply);
        break;
    case REPLY_ACK:
        BUF_LIT(out, "{\"op\":\"ack\"");
        write_ref(out, reply->ref);
        write_id(out, reply->id);
        break;
    case REPLY_ERROR:
        BUF_LIT(out, "{\"op\":\"error\"");
        write_ref(out, reply->ref);
        write_error(out, reply);
        break;
    case REPLY_PONG:
        BUF_LIT(out, "{\"op\":\"pong\"");
        write_ref(out, reply->ref);
        write_pong(out, reply);
        break;
    }
    BUF_LIT(out, "}");
}

void answer_acknowledgement(struct buf *out, const struct reply *reply)
{
    if (reply->kind == REPLY_ERROR) {
        BUF_LIT(out, "{\"ok\":false");
        write_error(out, reply);
    } else {
        BUF_LIT(out, "{\"ok\":true");
        if (reply->kind == REPLY_JOINED) {
            write_room(out, reply->room);
            write_online(out, reply);
            write_after(out, reply);
        } else if (reply->kind == REPLY_PONG) {
            write_pong(out, reply);
        } else {
            write_id(out, reply->id);
        }
    }
    BUF_LIT(out, "}");
}

static void write_lane(struct buf *out, enum lane lane)
{
    BUF_LIT(out, ",\"lane\":\"");
    buf_text(out, lane_name(lane));
    BUF_LIT(out, "\"");
}

static void write_after_id(struct buf *out, struct bytes id)
{
    if (id.len == 0)
        return;
    BUF_LIT(out, ",\"after\":\"");
    buf_bytes(out, id);
    BUF_LIT(out, "\"");
}

void answer_notice(struct buf *out, const struct notice *notice)
{
    switch (notice->kind) {
    case NOTICE_SKIPPED:
        BUF_LIT(out, "{\"op\":\"skipped\"");
        write_room(out, notice->room);
        write_lane(out, notice->lane);
        BUF_LIT(out, ",\"count\":");
        buf_uint(out, notice->count);
        break;
    case NOTICE_GAP:
        BUF_LIT(out, "{\"op\":\"gap\"");
        write_room(out, notice->room);
        write_lane(out, notice->lane);
        write_after_id(out, notice->after);
        if (notice->no_join)
            BUF_LIT(out, ",\"join\":false");
        break;
    case NOTICE_ONLINE:
        BUF_LIT(out, "{\"op\":\"online\"");
        write_room(out, notice->room);
        BUF_LIT(out, ",\"online\":");
        buf_uint(out, notice->count);
        break;
    case NOTICE_GOODBYE:
        BUF_LIT(out, "{\"op\":\"goodbye\",\"reason\":");
        json_quote(out, bytes_str(notice->reason));
        write_retry(out, notice->retry_after_ms);
        break;
    }
    BUF_LIT(out, "}");
}

bool answer_is_notice(const struct message *message, struct notice *notice)
{
    if (message->kind != MESSAGE_GAP && message->kind != MESSAGE_ONLINE)
        return false;
    *notice = (struct notice){
        .kind = message->kind == MESSAGE_GAP ? NOTICE_GAP : NOTICE_ONLINE,
        .room = message->room,
        .lane = message->lane,
        .count = message->online,
        .after = message->id,
        .no_join = message->no_join,
    };
    return true;
}

void answer_end_frame(struct buf *out, size_t mark)
{
    ws_frame_end(out, mark, WS_TEXT);
    if (out->failed)
        out->len = mark;
}

void pieces_append_frame(struct buf *out, const struct pieces *pieces)
{
    unsigned char head[WS_HEAD_MAX];
    size_t head_len = ws_frame_head(head, WS_TEXT, pieces->len);
    if (!buf_reserve(out, head_len + pieces->len))
        return;
    char *at = out->data + out->len;
    memcpy(at, head, head_len);
    at += head_len;
    for (size_t i = 0; i < pieces->count; i++) {
        memcpy(at, pieces->list[i].data, pieces->list[i].len);
        at += pieces->list[i].len;
    }
    out->len += head_len + pieces->len;
}
