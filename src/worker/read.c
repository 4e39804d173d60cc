#include "worker/internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* The peer closed: echo its code, write what is left, then close first (RFC 6455 §5.5.1, §7.1.1). */
static int on_close(void *ctx, uint16_t code, struct bytes reason)
{
    (void)reason;
    struct worker *worker = ctx;
    struct viewer *viewer = worker->in_hand;
    viewer_begin_closing(worker, viewer, CLOSE_CLIENT);
    ws_frame_close(&worker->reply, code, "");
    viewer->hang_up = true;
    return -1;
}

static int on_ping(void *ctx, struct bytes payload)
{
    struct worker *worker = ctx;
    metric_add(&worker->metrics.pings_in, 1);
    bool free_way = !worker->in_hand->blocked && outbox_pending(worker->in_hand) == 0;
    if (free_way && worker->reply.len < PONGS_AT_ONCE_BYTES) {
        ws_frame_append(&worker->reply, WS_PONG, payload);
        return 0;
    }
    struct buf frame = {0};
    ws_frame_append(&frame, WS_PONG, payload);
    if (!frame.failed)
        outbox_pong(worker, worker->in_hand, buf_view(&frame));
    buf_fini(&frame);
    return worker->in_hand->state >= VIEWER_CLOSING ? -1 : 0;
}

static int on_pong(void *ctx, struct bytes payload)
{
    (void)ctx;
    (void)payload;
    return 0; /* any byte has proved life already */
}

static enum close_reason reason_of_code(int code)
{
    switch (code) {
    case 1003:
        return CLOSE_BINARY;
    case 1007:
        return CLOSE_NOT_UTF8;
    case 1009:
        return CLOSE_TOO_BIG;
    case 1011:
        return CLOSE_INTERNAL;
    case 1013:
        return CLOSE_TRY_LATER;
    default:
        return CLOSE_PROTOCOL;
    }
}

void viewer_feed(struct worker *worker, struct viewer *viewer, struct bytes bytes_in)
{
    static const struct codec_events events = {intents_on_message, on_ping, on_pong, on_close};
    reply_begin(worker, viewer);
    int result =
        codec_feed(worker->codecs, &viewer->codec, bytes_in, worker->now_ms, &events, worker);
    if (result != 0)
        codec_detach(worker->codecs, &viewer->codec);
    reply_end(worker, viewer); /* answers to what was fine go out before a close frame */
    if (result > 0)
        viewer_close(worker, viewer, reason_of_code(result));
    else if (viewer->codec && (int32_t)(viewer->due_ms - worker->now_ms) >
                                  (int32_t)worker->conf->limits.frame_timeout_ms)
        viewer_set_timer(worker, viewer, worker->conf->limits.frame_timeout_ms);
}

/* Nothing may follow a request before its answer (RFC 6455 §4.1). */
static void refuse_hasty(struct worker *worker, struct viewer *viewer)
{
    welcome_refuse(worker, viewer, HANDSHAKE_MALFORMED, "bad-message",
                   "nothing may be sent before the handshake is answered");
}

/* Returns true when the head is complete or refused, i.e. when `viewer` has left VIEWER_HANDSHAKE. */
static void on_head_bytes(struct worker *worker, struct viewer *viewer, struct bytes in)
{
    struct extras *extras = viewer->extras;
    struct bytes text = in;
    if (extras && extras->head.len > 0) {
        buf_bytes(&extras->head, in);
        text = buf_view(&extras->head);
    }
    struct head head;
    int result = head_parse(text, &head);
    if (result == HEAD_DONE && head.length <= worker->conf->limits.head_bytes) {
        struct bytes behind = bytes_of(text.data + head.length, text.len - head.length);
        welcome(worker, viewer, &head);
        if (behind.len > 0 && (viewer->state == VIEWER_OPEN || viewer->state == VIEWER_WAITING))
            viewer_feed(worker, viewer, behind);
        if (behind.len > 0 && viewer->state == VIEWER_CHECKING)
            refuse_hasty(worker, viewer);
        if (viewer->extras) {
            buf_fini(&viewer->extras->head);
            extras_settle(worker, viewer);
        }
        return;
    }
    if (result == HEAD_DONE || text.len > worker->conf->limits.head_bytes || result == -431) {
        welcome_refuse(worker, viewer, HANDSHAKE_TOO_LARGE, "too-large",
                       "the request head is longer than limits.head_bytes");
        return;
    }
    if (result < 0) {
        welcome_refuse(worker, viewer, HANDSHAKE_MALFORMED, "bad-message",
                       "not a well-formed HTTP/1.1 request head");
        return;
    }
    if (!extras || extras->head.len == 0) {
        extras = extras_of(worker, viewer);
        if (extras)
            buf_bytes(&extras->head, in);
    }
    if (!extras || extras->head.failed)
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    else
        extras_settle(worker, viewer);
}

static void on_bytes(struct worker *worker, struct viewer *viewer, struct bytes in)
{
    metric_add(&worker->metrics.bytes_in, in.len);
    pulse_heard(worker, viewer);
    halley_heartbeat_heard(&viewer->beat, worker->now_ms);
    switch ((enum viewer_state)viewer->state) {
    case VIEWER_HANDSHAKE:
        on_head_bytes(worker, viewer, in);
        break;
    case VIEWER_CHECKING:
        refuse_hasty(worker, viewer);
        break;
    case VIEWER_WAITING:
    case VIEWER_OPEN:
        viewer_feed(worker, viewer, in);
        break;
    default:
        break; /* closing: what comes is read and forgotten, so that our last bytes are not lost by a reset */
    }
}

static void on_end(struct worker *worker, struct viewer *viewer, bool reset)
{
    if (viewer->state == VIEWER_CLOSING) {
        viewer_destroy(worker, viewer);
        return;
    }
    if (viewer->state <= VIEWER_CHECKING)
        metric_add(&worker->metrics.handshakes[HANDSHAKE_GONE], 1);
    if (reset) /* who ends it by itself met nothing that forgot it */
        pulse_cut(worker, viewer);
    viewer_close(worker, viewer, CLOSE_RESET);
}

static void on_readable(struct worker *worker, struct viewer *viewer, bool to_the_end)
{
    for (int round = 0; round < READ_ROUNDS; round++) {
        if (viewer->paused || viewer->state == VIEWER_DEAD)
            return;
        ssize_t got = recv(viewer->fd, worker->receive, RECEIVE_BYTES, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got <= 0) {
            on_end(worker, viewer, got < 0);
            return;
        }
        on_bytes(worker, viewer, bytes_of(worker->receive, (size_t)got));
        if (got < RECEIVE_BYTES && !to_the_end)
            return;
    }
    if (viewer->state != VIEWER_DEAD)
        viewer_rearm(worker, viewer); /* more may wait: the others first */
}

void viewer_on_event(struct worker *worker, struct viewer *viewer, uint32_t events)
{
    if (viewer->state == VIEWER_DEAD)
        return;
    if ((events & EPOLLOUT) && viewer->blocked)
        flush_writable(worker, viewer);
    if (viewer->state != VIEWER_DEAD && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        on_readable(worker, viewer, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}
