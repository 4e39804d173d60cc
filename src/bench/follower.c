#include "bench/follower.h"
#include "base/clock.h"
#include "bench/handshake.h"
#include "protocol/message.h"
#include "json/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

enum {
    STALL_RCVBUF = 4096,
    OPENING_MS = 10000,
    AWAY_MS = 50, /* and up to AWAY_MORE_MS more */
    AWAY_MORE_MS = 250,
    RETRY_MS = 500,
    AFTER_MAX = 8,
    MESSAGE_HEAD_MAX = 512,
    DEPTH_MAX = 64
};

static uint64_t below(struct follow *follow, uint64_t limit)
{
    return limit ? random_next(&follow->random) % limit : 0;
}

static void count_code(struct follow_code *codes, struct bytes text)
{
    struct follow_code *last = &codes[FOLLOW_CODES_MAX - 1];
    struct follow_code *code = codes;
    for (; code < last && code->count > 0; code++)
        if (strlen(code->text) == text.len && memcmp(code->text, text.data, text.len) == 0)
            break;
    if (code->count++ == 0)
        snprintf(code->text, sizeof(code->text), "%.*s", (int)(code < last ? text.len : 5),
                 code < last ? text.data : "other");
    for (char *at = code->text; *at; at++) /* what a server says goes into JSON */
        if (*at < '-' || *at > 'z' || *at == '\\')
            *at = '?';
}

void follower_drop(struct follow *follow, struct follower *viewer, uint64_t pause_ns)
{
    if (viewer->state == FOLLOWER_CONNECTING || viewer->state == FOLLOWER_HANDSHAKE)
        follow->opening--;
    if (viewer->fd >= 0)
        close(viewer->fd);
    viewer->fd = -1;
    viewer->state = FOLLOWER_AWAY;
    viewer->joined = viewer->healing = viewer->stalled = false;
    viewer->join_ns = viewer->retry_ns = 0;
    viewer->due_ns = follow->now_ns + pause_ns;
    frame_reader_fini(&viewer->reader);
}

static void lose(struct follow *follow, struct follower *viewer)
{
    uint64_t pause = (AWAY_MS + below(follow, AWAY_MORE_MS)) * MS;
    follower_drop(follow, viewer, viewer->retry_ns ? viewer->retry_ns : pause);
}

static void lose_because(struct follow *follow, struct follower *viewer, const char *why)
{
    count_code(follow->counts.closes, bytes_str(why));
    lose(follow, viewer);
}

static bool send_bytes(struct follow *follow, struct follower *viewer)
{
    struct bytes out = buf_view(&follow->scratch);
    if (!follow->scratch.failed &&
        send(viewer->fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)out.len)
        return true;
    lose_because(follow, viewer, "unsent");
    return false;
}

static bool send_frame(struct follow *follow, struct follower *viewer, uint8_t opcode,
                       struct bytes payload)
{
    buf_clear(&follow->scratch);
    frame_write_masked(&follow->scratch, opcode, payload, (uint32_t)random_next(&follow->random));
    return send_bytes(follow, viewer);
}

static void join(struct follow *follow, struct follower *viewer)
{
    struct buf *out = &follow->text;
    char id[HISTORY_ID_MAX + 1];
    const char *comma = "";
    buf_clear(out);
    BUF_LIT(out, "{\"op\":\"join\",\"ref\":1,\"room\":");
    json_quote(out, bytes_str(follow->room));
    if (viewer->known) {
        BUF_LIT(out, ",\"after\":[");
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            if (!viewer->have[lane].epoch)
                continue;
            struct bytes text = history_id_format((enum lane)lane, viewer->have[lane], id);
            buf_printf(out, "%s\"%.*s\"", comma, (int)text.len, text.data);
            comma = ",";
        }
        BUF_LIT(out, "]");
        memcpy(viewer->sent, viewer->have, sizeof(viewer->sent));
    }
    BUF_LIT(out, "}");
    viewer->healing = true;
    viewer->join_ns = 0;
    follow->counts.joins++;
    send_frame(follow, viewer, FRAME_TEXT, buf_view(out));
}

static void go_on_from(struct follow *follow, struct follower *viewer, struct json_span after)
{
    struct json_span ids[AFTER_MAX];
    size_t count = AFTER_MAX;
    struct history_point have[LANE_COUNT] = {0};
    if (after.kind != JSON_ARRAY || json_array(after.raw, 1, ids, &count) != JSON_OK)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        char scratch[HISTORY_ID_MAX + 1];
        struct bytes id;
        struct history_point point;
        enum lane lane;
        if (json_text(ids[i], scratch, sizeof(scratch), &id) && history_id_parse(id, &lane, &point))
            have[lane] = point;
    }
    for (int lane = 0; viewer->known && lane < LANE_COUNT; lane++)
        if (viewer->sent[lane].epoch &&
            (viewer->sent[lane].epoch != have[lane].epoch || viewer->sent[lane].n != have[lane].n))
            follow->counts.lost++;
    memcpy(viewer->have, have, sizeof(viewer->have));
    viewer->known = viewer->joined = true;
    viewer->healing = false;
}

enum field { OP, ID, ROOM, LANE, AFTER, JOIN, CODE, RETRY, FIELDS };

static void count_gap(struct follow *follow, const struct json_field *fields)
{
    char scratch[16];
    struct bytes name;
    follow->counts.gaps++;
    if (!json_text(fields[LANE].value, scratch, sizeof(scratch), &name))
        return;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        follow->counts.gaps_in[lane] += bytes_is(name, lane_name((enum lane)lane));
}

static void on_notice(struct follow *follow, struct follower *viewer, struct json_field *fields)
{
    struct bytes op = {0};
    struct bytes text = {0};
    char scratch[160];
    uint64_t retry_ms = 0;
    json_text(fields[OP].value, scratch, 32, &op);
    json_uint53(fields[RETRY].value, &retry_ms);
    bool here = json_text(fields[ROOM].value, scratch + 32, sizeof(scratch) - 32, &text) &&
                bytes_is(text, follow->room);
    bool heals = false;
    if (bytes_is(op, "joined") && here) {
        go_on_from(follow, viewer, fields[AFTER].value);
    } else if (bytes_is(op, "skipped") && here) {
        follow->counts.skipped++;
        heals = true;
    } else if (bytes_is(op, "gap") && here) {
        count_gap(follow, fields);
        heals = fields[JOIN].value.kind != JSON_FALSE;
    } else if (bytes_is(op, "goodbye")) {
        viewer->retry_ns = retry_ms * MS;
    } else if (bytes_is(op, "error")) {
        if (json_text(fields[CODE].value, scratch + 32, sizeof(scratch) - 32, &text))
            count_code(follow->counts.errors, text);
        viewer->join_ns = follow->now_ns + (retry_ms ? retry_ms : RETRY_MS) * MS;
    }
    if (heals && !viewer->healing)
        join(follow, viewer);
}

static void on_message(struct follow *follow, struct follower *viewer, struct bytes id)
{
    struct history_point point;
    enum lane lane;
    if (viewer->healing || !viewer->joined || !history_id_parse(id, &lane, &point))
        return;
    struct history_point *have = &viewer->have[lane];
    follow->counts.messages++;
    /* Of a lane that `joined` did not name the first message is due. */
    uint64_t due = have->epoch ? have->n + 1 : 1;
    if (point.n != due || (have->epoch && point.epoch != have->epoch)) {
        bool repeats = point.epoch == have->epoch && point.n < due;
        if (repeats)
            follow->counts.repeats++;
        else
            follow->counts.holes++;
        if (!follow->counts.wrong[0])
            snprintf(follow->counts.wrong, sizeof(follow->counts.wrong),
                     "viewer %td: %.*s where %" PRIu64 " was due", viewer - follow->viewers,
                     (int)id.len, id.data, due);
        if (repeats)
            return;
    }
    *have = point;
}

/* The id of a room message as Halley writes it: {"type":…,"id":"…","data":…}. Names hold no quotes,
 * so what stands before the data needs no parser, which would cost the viewers more than the node. */
static bool quick_id(struct bytes payload, struct bytes *id)
{
    static const char begin[] = "{\"type\":\"";
    static const char mark[] = ",\"id\":\"";
    static const char data[] = ",\"data\":";
    size_t head = payload.len < MESSAGE_HEAD_MAX ? payload.len : MESSAGE_HEAD_MAX;
    if (head < sizeof(begin) || memcmp(payload.data, begin, sizeof(begin) - 1) != 0)
        return false;
    const char *at = memmem(payload.data, head, mark, sizeof(mark) - 1);
    if (!at || memmem(payload.data, (size_t)(at - payload.data), data, sizeof(data) - 1))
        return false;
    at += sizeof(mark) - 1;
    const char *end = memchr(at, '"', (size_t)(payload.data + payload.len - at));
    *id = bytes_of(at, end ? (size_t)(end - at) : 0);
    return end != NULL;
}

static void on_text(struct follow *follow, struct follower *viewer, struct bytes payload)
{
    struct json_field fields[FIELDS] = {
        [OP] = {.name = "op"},       [ID] = {.name = "id"},
        [ROOM] = {.name = "room"},   [LANE] = {.name = "lane"},
        [AFTER] = {.name = "after"}, [JOIN] = {.name = "join"},
        [CODE] = {.name = "code"},   [RETRY] = {.name = "retry_after_ms"}};
    char scratch[HISTORY_ID_MAX + 1];
    struct bytes id;
    if (quick_id(payload, &id))
        on_message(follow, viewer, id);
    else if (json_object(payload, DEPTH_MAX, fields, FIELDS) != JSON_OK)
        lose_because(follow, viewer, "no-json");
    else if (fields[OP].value.kind != JSON_ABSENT)
        on_notice(follow, viewer, fields);
    else if (json_text(fields[ID].value, scratch, sizeof(scratch), &id))
        on_message(follow, viewer, id);
}

struct reading {
    struct follow *follow;
    struct follower *viewer;
};

static void on_frame(void *ctx, const struct server_frame *frame)
{
    struct follow *follow = ((struct reading *)ctx)->follow;
    struct follower *viewer = ((struct reading *)ctx)->viewer;
    if (viewer->state != FOLLOWER_OPEN)
        return;
    if (frame->opcode == FRAME_TEXT) {
        on_text(follow, viewer, frame->payload);
    } else if (frame->opcode == FRAME_PING) {
        send_frame(follow, viewer, FRAME_PONG, frame->payload);
    } else if (frame->opcode == FRAME_CLOSE) {
        const unsigned char *code = (const unsigned char *)frame->payload.data;
        char text[8];
        snprintf(text, sizeof(text), "%u",
                 frame->payload.len < 2 ? 1005 : (unsigned)code[0] << 8 | code[1]);
        lose_because(follow, viewer, text);
    }
}

/* The reader is moved out, because a frame may end the connection, which frees what it holds. */
static void on_frames(struct follow *follow, struct follower *viewer, struct bytes data)
{
    struct reading reading = {follow, viewer};
    struct frame_reader reader = viewer->reader;
    viewer->reader = (struct frame_reader){0};
    const char *wrong = frame_reader_feed(&reader, data, on_frame, &reading);
    if (viewer->state == FOLLOWER_OPEN) {
        viewer->reader = reader;
        if (wrong)
            lose_because(follow, viewer, "bad-frame");
    } else {
        frame_reader_fini(&reader);
    }
}

static void on_head(struct follow *follow, struct follower *viewer, struct bytes data)
{
    struct buf *held = &viewer->reader.held;
    size_t head_len = 0;
    char why[FOLLOW_CODE_TEXT];
    buf_bytes(held, data);
    enum handshake_result result = handshake_answer(buf_view(held), &head_len, why, sizeof(why));
    if (result == HANDSHAKE_REFUSED)
        lose_because(follow, viewer, "handshake-refused");
    if (result != HANDSHAKE_OPEN)
        return;
    struct buf rest = *held;
    *held = (struct buf){0};
    follow->opening--;
    viewer->state = FOLLOWER_OPEN;
    follow->counts.connects++;
    join(follow, viewer);
    if (viewer->state == FOLLOWER_OPEN)
        on_frames(follow, viewer, bytes_of(rest.data + head_len, rest.len - head_len));
    buf_fini(&rest);
}

static void on_connected(struct follow *follow, struct follower *viewer)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(viewer->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        lose(follow, viewer);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = viewer};
    epoll_ctl(follow->epoll, EPOLL_CTL_MOD, viewer->fd, &event);
    const struct target *target = &follow->targets[viewer->target];
    struct buf *out = &follow->scratch;
    buf_clear(out);
    buf_printf(out, "GET %s", target->path);
    handshake_request(out, target);
    BUF_LIT(out, "\r\n");
    viewer->state = FOLLOWER_HANDSHAKE;
    send_bytes(follow, viewer);
}

void follower_event(struct follow *follow, struct follower *viewer)
{
    if (viewer->state == FOLLOWER_CONNECTING) {
        on_connected(follow, viewer);
        return;
    }
    if (viewer->state == FOLLOWER_AWAY || viewer->stalled)
        return;
    ssize_t got = recv(viewer->fd, follow->input, FOLLOW_INPUT, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        lose_because(follow, viewer, got < 0 ? "reset" : "cut");
    else if (viewer->state == FOLLOWER_HANDSHAKE)
        on_head(follow, viewer, bytes_of(follow->input, (size_t)got));
    else
        on_frames(follow, viewer, bytes_of(follow->input, (size_t)got));
}

static void connect_to_some(struct follow *follow, struct follower *viewer)
{
    viewer->target = (uint8_t)below(follow, follow->target_count);
    viewer->fd =
        handshake_connect(&follow->targets[viewer->target], NULL, viewer->slow ? STALL_RCVBUF : 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = viewer};
    if (viewer->fd < 0 || epoll_ctl(follow->epoll, EPOLL_CTL_ADD, viewer->fd, &event) < 0) {
        lose(follow, viewer);
        return;
    }
    viewer->state = FOLLOWER_CONNECTING;
    viewer->due_ns = follow->now_ns + OPENING_MS * MS;
    follow->opening++;
}

/* Reads for up to two stalls' time, then reads nothing for one to two. A hang-up would be reported
 * even for an empty set, so the socket leaves epoll. */
static void step_stall(struct follow *follow, struct follower *viewer)
{
    if (viewer->stall_ns > follow->now_ns)
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = viewer};
    viewer->stalled = !viewer->stalled;
    epoll_ctl(follow->epoll, viewer->stalled ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, viewer->fd, &event);
    uint64_t more = below(follow, follow->stall_ns);
    viewer->stall_ns = follow->now_ns + (viewer->stalled ? follow->stall_ns + more : 2 * more);
}

void follower_step(struct follow *follow, struct follower *viewer)
{
    uint64_t now = follow->now_ns;
    if (viewer->state == FOLLOWER_AWAY) {
        if (viewer->due_ns <= now && !follow->away && follow->opening < FOLLOW_OPENING_MAX)
            connect_to_some(follow, viewer);
    } else if (viewer->state != FOLLOWER_OPEN) {
        if (viewer->due_ns <= now)
            lose_because(follow, viewer, "handshake-timeout");
    } else {
        if (viewer->join_ns && viewer->join_ns <= now)
            join(follow, viewer);
        if (viewer->slow && viewer->joined)
            step_stall(follow, viewer);
    }
}
