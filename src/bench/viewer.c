#include "bench/viewer.h"
#include "base/clock.h"
#include "bench/handshake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void gone(struct client *client, struct bench_viewer *viewer, const char *why)
{
    struct shard *shard = client->shard;
    bool was_live = viewer->state == BENCH_VIEWER_LIVE;
    if (!shard->failure[0])
        snprintf(shard->failure, sizeof(shard->failure), "viewer %u: %s", viewer->index, why);
    if (was_live) {
        atomic_fetch_add(&shard->closed, 1);
    } else {
        atomic_fetch_add(&shard->failed, 1);
        client->pending--;
    }
    viewer->state = BENCH_VIEWER_CLOSED;
    if (viewer->fd >= 0)
        close(viewer->fd);
    viewer->fd = -1;
    frame_reader_fini(&viewer->reader);
    buf_fini(&viewer->inner);
}

static void gone_errno(struct client *client, struct bench_viewer *viewer, const char *doing,
                       int error)
{
    char why[160];
    snprintf(why, sizeof(why), "%s: %s", doing, strerror(error));
    gone(client, viewer, why);
}

static void user_name(const struct client *client, const struct bench_viewer *viewer,
                      struct buf *out)
{
    int width = (int)client->options->user_length - 1;
    if (width > 0)
        buf_printf(out, "u%0*u", width, viewer->index);
}

static void expand(struct client *client, const struct bench_viewer *viewer, uint32_t room_index,
                   const char *text, struct buf *out)
{
    while (*text) {
        char room[BENCH_ROOM_NAME];
        if (strncmp(text, "{room}", 6) == 0) {
            options_room(client->options, room_index, room, sizeof(room));
            buf_text(out, room);
            text += 6;
        } else if (strncmp(text, "{index}", 7) == 0) {
            buf_uint(out, viewer->index);
            text += 7;
        } else if (strncmp(text, "{user}", 6) == 0) {
            user_name(client, viewer, out);
            text += 6;
        } else if (strncmp(text, "{ticket}", 8) == 0 && client->options->tickets.count > 0) {
            const struct ticket_list *tickets = &client->options->tickets;
            buf_text(out, tickets->lines[viewer->index % tickets->count]);
            text += 8;
        } else {
            buf_byte(out, *text++);
        }
    }
}

void template_expand(struct client *client, const struct bench_viewer *viewer, const char *text,
                     struct buf *out)
{
    expand(client, viewer, viewer->room, text, out);
}

/* Sends what is in scratch. What a viewer says is far smaller than a socket's buffer, so a short
 * write means that the server has not read for long. */
static bool send_scratch(struct client *client, struct bench_viewer *viewer)
{
    struct buf *out = &client->scratch;
    if (out->failed) {
        gone(client, viewer, "out of memory in the load generator");
        return false;
    }
    ssize_t sent = send(viewer->fd, out->data, out->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)out->len)
        return true;
    if (sent < 0 && errno != EAGAIN)
        gone_errno(client, viewer, "send", errno);
    else
        gone(client, viewer, "the server does not read what this viewer sends");
    return false;
}

static bool send_frame(struct client *client, struct bench_viewer *viewer, uint8_t opcode,
                       struct bytes payload)
{
    buf_clear(&client->scratch);
    frame_write_masked(&client->scratch, opcode, payload, (uint32_t)random_next(&client->random));
    return send_scratch(client, viewer);
}

static bool send_text(struct client *client, struct bench_viewer *viewer, const char *text)
{
    if (!*text)
        return true;
    buf_clear(&client->text);
    template_expand(client, viewer, text, &client->text);
    return send_frame(client, viewer, FRAME_TEXT, buf_view(&client->text));
}

static void inner_join(struct client *client, struct bench_viewer *viewer, uint32_t room_index,
                       bool first)
{
    char name[80] = "";
    char room[BENCH_ROOM_NAME];
    int width = (int)client->options->user_length - 1;
    if (width > 0)
        snprintf(name, sizeof(name), "u%0*u", width, viewer->index);
    const struct inner_login login = {
        .client = name, .user = client->target->user, .password = client->target->password};
    options_room(client->options, room_index, room, sizeof(room));
    if (first)
        client->inner->login(&client->text, &login);
    client->inner->subscribe(&client->text, room);
}

/* All joins in one write: the server may answer them in one, too. */
static bool send_joins(struct client *client, struct bench_viewer *viewer)
{
    const char *join = client->options->join;
    bool joins = *join || client->inner;
    viewer->unready = joins ? client->rooms_each : 1;
    buf_clear(&client->scratch);
    for (uint32_t i = 0; joins && i < client->rooms_each; i++) {
        uint32_t room = options_viewer_room(client->options, viewer->index, i);
        buf_clear(&client->text);
        if (client->inner)
            inner_join(client, viewer, room, i == 0);
        else
            expand(client, viewer, room, join, &client->text);
        frame_write_masked(&client->scratch, client->inner ? FRAME_BINARY : FRAME_TEXT,
                           buf_view(&client->text), (uint32_t)random_next(&client->random));
    }
    return client->scratch.len == 0 || send_scratch(client, viewer);
}

static void build_request(struct client *client, struct bench_viewer *viewer)
{
    const struct bench_options *options = client->options;
    struct buf *out = &client->scratch;
    buf_clear(out);
    BUF_LIT(out, "GET ");
    template_expand(client, viewer, client->target->path, out);
    if (options->user_length > 0) {
        buf_text(out, strchr(client->target->path, '?') ? "&user=" : "?user=");
        user_name(client, viewer, out);
    }
    handshake_request(out, client->target);
    if (options->subprotocol)
        buf_printf(out, "Sec-WebSocket-Protocol: %s\r\n", options->subprotocol);
    for (size_t i = 0; i < options->header_count; i++) {
        template_expand(client, viewer, options->headers[i], out);
        BUF_LIT(out, "\r\n");
    }
    BUF_LIT(out, "\r\n");
}

/* Viewers take the source addresses in turn. Returns whether *from is one. */
static bool source_of(const struct client *client, const struct bench_viewer *viewer,
                      struct sockaddr_in *from)
{
    *from = (struct sockaddr_in){.sin_family = AF_INET};
    if (client->target->address.ss_family != AF_INET ||
        inet_pton(AF_INET, client->options->source, &from->sin_addr) != 1)
        return false;
    if (client->options->sources <= 1 && strcmp(client->options->source, "127.0.0.1") == 0)
        return false;
    uint32_t offset = viewer->index % (uint32_t)client->options->sources;
    from->sin_addr.s_addr = htonl(ntohl(from->sin_addr.s_addr) + offset);
    return true;
}

void bench_viewer_open(struct client *client, struct bench_viewer *viewer)
{
    client->pending++;
    for (uint32_t i = 0; i < 2 * client->rooms_each; i++)
        order_init(&viewer->orders[i], client->numbered);
    int small = viewer->group == GROUP_STALLING ? (int)client->options->stall_rcvbuf : 0;
    struct sockaddr_in from;
    viewer->state = BENCH_VIEWER_CONNECTING;
    viewer->fd =
        handshake_connect(client->target, source_of(client, viewer, &from) ? &from : NULL, small);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = viewer};
    if (viewer->fd < 0)
        gone_errno(client, viewer, "connect", errno);
    else if (epoll_ctl(client->epoll, EPOLL_CTL_ADD, viewer->fd, &event) < 0)
        gone_errno(client, viewer, "epoll_ctl", errno);
}

static void watch(struct client *client, struct bench_viewer *viewer, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = viewer};
    epoll_ctl(client->epoll, EPOLL_CTL_MOD, viewer->fd, &event);
}

void bench_viewer_pause(struct client *client, struct bench_viewer *viewer, bool pause)
{
    if (viewer->state != BENCH_VIEWER_LIVE)
        return;
    /* A hang-up would be reported even for an empty set, so the socket leaves epoll. */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = viewer};
    epoll_ctl(client->epoll, pause ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, viewer->fd, &event);
}

static void become_live(struct client *client, struct bench_viewer *viewer)
{
    viewer->state = BENCH_VIEWER_LIVE;
    client->pending--;
    atomic_fetch_add(&client->shard->ready, 1);
}

static void on_connected(struct client *client, struct bench_viewer *viewer)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(viewer->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        gone_errno(client, viewer, "connect", error);
        return;
    }
    watch(client, viewer, EPOLLIN);
    viewer->state = BENCH_VIEWER_HANDSHAKE;
    build_request(client, viewer);
    send_scratch(client, viewer);
}

/* Finds what a stamp counts in; NULL when the message is not for this viewer. */
static struct order *order_of(const struct client *client, const struct bench_viewer *viewer,
                              const struct stamp *stamp, struct stream *out)
{
    uint32_t rooms = (uint32_t)client->options->rooms;
    out->high = stamp->room >= rooms && client->options->high_every > 0;
    out->room = out->high ? stamp->room - rooms : stamp->room;
    uint32_t stride = options_room_stride(client->options);
    uint32_t distance = (out->room + rooms - viewer->room) % rooms;
    if (out->room >= rooms || distance % stride != 0)
        return NULL;
    uint32_t at = distance / stride;
    return &viewer->orders[out->high ? at + client->rooms_each : at];
}

static void on_message(struct client *client, struct bench_viewer *viewer,
                       const struct stamp *stamp, uint64_t wire_bytes)
{
    const struct schedule *schedule = &client->shared->schedule;
    struct stream stream;
    struct order *order = order_of(client, viewer, stamp, &stream);
    struct tally *tally = &client->shard->tallies[stream.high ? GROUP_HIGH : viewer->group];
    if (client->numbered && (client->start_ns == 0 || stamp->time_ns < client->start_ns)) {
        tally->stale++;
        return;
    }
    if (!order) {
        tally->wrong_room++;
        return;
    }
    if (!order_take(order, stamp->number, stream.high ? &tally->order : &viewer->counts))
        return;
    tally->messages++;
    if (client->numbered && stamp->number < schedule_in_stream(schedule, schedule->warmup, stream))
        return;
    tally->measured++;
    tally->bytes += wire_bytes;
    client->measured_in_read++;
    uint64_t now = client->now_ns;
    latency_add(&tally->latency, now > stamp->time_ns ? now - stamp->time_ns : 0);
}

static void begin_joining(struct client *client, struct bench_viewer *viewer)
{
    viewer->state = BENCH_VIEWER_JOINING;
    if (send_joins(client, viewer) && !*client->options->ready && !client->inner)
        become_live(client, viewer);
}

static bool begins(struct bytes text, const char *part)
{
    size_t len = strlen(part);
    return text.len >= len && memcmp(text.data, part, len) == 0;
}

static bool contains(struct bytes text, const char *part)
{
    return memmem(text.data, text.len, part, strlen(part)) != NULL;
}

static uint64_t number_behind(struct bytes text, const char *key)
{
    const char *at = memmem(text.data, text.len, key, strlen(key));
    uint64_t value = 0;
    for (at = at ? at + strlen(key) : NULL;
         at && at < text.data + text.len && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static void on_notice(struct client *client, struct bench_viewer *viewer, struct bytes text)
{
    struct tally *tally = &client->shard->tallies[viewer->group];
    if (viewer->state == BENCH_VIEWER_GREETING) {
        if (begins(text, client->options->welcome))
            begin_joining(client, viewer);
    } else if (viewer->state == BENCH_VIEWER_JOINING) {
        if (contains(text, client->options->ready)) {
            if (--viewer->unready == 0)
                become_live(client, viewer);
        } else if (contains(text, "\"op\":\"error\"")) {
            char why[160];
            snprintf(why, sizeof(why), "join refused: %.*s", (int)(text.len < 120 ? text.len : 120),
                     text.data);
            gone(client, viewer, why);
        }
    } else if (contains(text, "\"op\":\"skipped\"")) {
        tally->skip_notices++;
        tally->skipped += number_behind(text, "\"count\":");
        viewer->skipped += number_behind(text, "\"count\":");
        viewer->told = true;
    } else if (contains(text, "\"op\":\"gap\"")) {
        tally->gap_notices++;
    }
}

static void on_close_frame(struct client *client, struct bench_viewer *viewer, struct bytes payload)
{
    unsigned code = payload.len < 2 ? 1005
                                    : (unsigned)(unsigned char)payload.data[0] << 8 |
                                          (unsigned char)payload.data[1];
    if (!client->shard->close_code)
        client->shard->close_code = (uint16_t)code;
    char why[160];
    int said = payload.len > 2 ? (int)payload.len - 2 : 0;
    snprintf(why, sizeof(why), "the server closed with %u %.*s", code, said,
             payload.data + (said ? 2 : 0));
    gone(client, viewer, why);
}

struct reading {
    struct client *client;
    struct bench_viewer *viewer;
    uint32_t head; /* of a frame with packets inside: its header, which the first message pays */
};

static void on_inner(void *ctx, const struct inner_event *event)
{
    struct reading *reading = ctx;
    struct client *client = reading->client;
    struct bench_viewer *viewer = reading->viewer;
    struct stamp stamp;
    if (viewer->state == BENCH_VIEWER_CLOSED)
        return;
    if (event->kind == INNER_MESSAGE && stamp_find(event->data, &client->stamp_hint, &stamp)) {
        on_message(client, viewer, &stamp, event->wire + reading->head);
        reading->head = 0;
    } else if (event->kind == INNER_JOINED && viewer->state == BENCH_VIEWER_JOINING) {
        if (--viewer->unready == 0)
            become_live(client, viewer);
    } else if (event->kind == INNER_PING) {
        send_frame(client, viewer, FRAME_BINARY, client->inner->pong);
    } else if (event->kind == INNER_REFUSED) {
        char why[160];
        int said = (int)(event->data.len < 120 ? event->data.len : 120);
        snprintf(why, sizeof(why), "the server refused: %.*s", said, event->data.data);
        gone(client, viewer, why);
    }
}

/* What is held back is moved out, because a packet may close the viewer, which frees it. */
static void on_packets(struct reading *reading, const struct server_frame *frame)
{
    struct bench_viewer *viewer = reading->viewer;
    struct buf held = viewer->inner;
    viewer->inner = (struct buf){0};
    reading->head = frame->wire_head;
    const char *wrong =
        inner_feed(reading->client->inner, &held, frame->payload, on_inner, reading);
    if (viewer->state == BENCH_VIEWER_CLOSED) {
        buf_fini(&held);
        return;
    }
    viewer->inner = held;
    if (wrong)
        gone(reading->client, viewer, wrong);
}

static void on_frame(void *ctx, const struct server_frame *frame)
{
    struct client *client = ((struct reading *)ctx)->client;
    struct bench_viewer *viewer = ((struct reading *)ctx)->viewer;
    struct stamp stamp;
    if (viewer->state == BENCH_VIEWER_CLOSED)
        return;
    if (frame->opcode < FRAME_CLOSE && client->inner) {
        on_packets(ctx, frame);
    } else if (frame->opcode == FRAME_TEXT || frame->opcode == FRAME_BINARY) {
        if (stamp_find(frame->payload, &client->stamp_hint, &stamp))
            on_message(client, viewer, &stamp, frame->length + frame->wire_head);
        else if (bytes_is(frame->payload, "2") && strcmp(client->options->as, "engineio4") == 0)
            send_frame(client, viewer, FRAME_TEXT, BYTES_LIT("3"));
        else
            on_notice(client, viewer, frame->payload);
    } else if (frame->opcode == FRAME_PING) {
        send_frame(client, viewer, FRAME_PONG, frame->payload);
    } else if (frame->opcode == FRAME_CLOSE) {
        on_close_frame(client, viewer, frame->payload);
    }
}

static void on_frames(struct client *client, struct bench_viewer *viewer, struct bytes data)
{
    struct reading reading = {.client = client, .viewer = viewer};
    client->measured_in_read = 0;
    /* The reader is moved out, because a frame may close the viewer, which frees what its reader
     * holds. */
    struct frame_reader reader = viewer->reader;
    viewer->reader = (struct frame_reader){0};
    const char *wrong = frame_reader_feed(&reader, data, on_frame, &reading);
    if (client->measured_in_read)
        client->shard->tallies[viewer->group].reads++;
    if (viewer->state == BENCH_VIEWER_CLOSED) {
        frame_reader_fini(&reader);
        return;
    }
    viewer->reader = reader;
    if (wrong)
        gone(client, viewer, wrong);
}

static void on_head(struct client *client, struct bench_viewer *viewer, struct bytes data)
{
    struct buf *held = &viewer->reader.held;
    buf_bytes(held, data);
    size_t head_len = 0;
    char why[160] = "out of memory in the load generator";
    enum handshake_result result =
        held->failed ? HANDSHAKE_REFUSED
                     : handshake_answer(buf_view(held), &head_len, why, sizeof(why));
    if (result == HANDSHAKE_REFUSED)
        gone(client, viewer, why);
    if (result != HANDSHAKE_OPEN)
        return;
    /* Frames may have come with the head. */
    struct buf rest = *held;
    *held = (struct buf){0};
    viewer->state = BENCH_VIEWER_GREETING;
    viewer->reader.whole = client->inner != NULL;
    if (send_text(client, viewer, client->options->hello)) {
        if (!*client->options->welcome)
            begin_joining(client, viewer);
        if (viewer->state != BENCH_VIEWER_CLOSED)
            on_frames(client, viewer, bytes_of(rest.data + head_len, rest.len - head_len));
    }
    buf_fini(&rest);
}

void bench_viewer_event(struct client *client, struct bench_viewer *viewer, uint32_t events)
{
    if (viewer->state == BENCH_VIEWER_CLOSED)
        return;
    if (viewer->state == BENCH_VIEWER_CONNECTING) {
        on_connected(client, viewer);
        return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t got = recv(viewer->fd, client->input, CLIENT_INPUT, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (got < 0)
            gone_errno(client, viewer, "recv", errno);
        else
            gone(client, viewer, "the server closed the connection without a close frame");
        return;
    }
    client->now_ns = clock_ns();
    struct bytes data = bytes_of(client->input, (size_t)got);
    if (viewer->state == BENCH_VIEWER_HANDSHAKE)
        on_head(client, viewer, data);
    else
        on_frames(client, viewer, data);
}

void bench_viewer_drop(struct bench_viewer *viewer)
{
    if (viewer->fd >= 0)
        close(viewer->fd);
    viewer->fd = -1;
    viewer->state = BENCH_VIEWER_NEW;
    frame_reader_fini(&viewer->reader);
    buf_fini(&viewer->inner);
}

/* Counts what is missing in all streams of a viewer. Returns whether the newest normal message of
 * each room has come. */
static bool finish_orders(struct client *client, struct bench_viewer *viewer)
{
    const struct schedule *schedule = &client->shared->schedule;
    uint64_t published = client->start_ns ? schedule_total(schedule) : 0;
    struct order_counts *high = &client->shard->tallies[GROUP_HIGH].order;
    bool current = published > 0;
    for (uint32_t i = 0; i < client->rooms_each; i++) {
        struct stream stream = {.room = options_viewer_room(client->options, viewer->index, i)};
        uint64_t total = schedule_in_stream(schedule, published, stream);
        order_finish(&viewer->orders[i], total, &viewer->counts);
        current = current && viewer->orders[i].next >= total;
        stream.high = true;
        total = schedule_in_stream(schedule, published, stream);
        order_finish(&viewer->orders[i + client->rooms_each], total, high);
    }
    return current;
}

void bench_viewer_finish(struct client *client, struct bench_viewer *viewer)
{
    struct tally *tally = &client->shard->tallies[viewer->group];
    tally->current += finish_orders(client, viewer);
    tally->order.lost += viewer->counts.lost;
    tally->order.duplicates += viewer->counts.duplicates;
    tally->order.out_of_order += viewer->counts.out_of_order;
    tally->told += viewer->told;
    tally->accounted += viewer->counts.lost == viewer->skipped;
    if (viewer->state == BENCH_VIEWER_LIVE)
        send_frame(client, viewer, FRAME_CLOSE, bytes_of("\x03\xe8", 2));
    if (viewer->fd >= 0)
        close(viewer->fd);
    viewer->fd = -1;
    viewer->state = BENCH_VIEWER_CLOSED;
    frame_reader_fini(&viewer->reader);
    buf_fini(&viewer->inner);
}
