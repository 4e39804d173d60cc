#include "worker/internal.h"

#include "base/check.h"
#include "ws/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct extras *extras_of(struct worker *worker, struct viewer *viewer)
{
    if (!viewer->extras) {
        viewer->extras = calloc(1, sizeof(struct extras));
        if (viewer->extras) {
            viewer->extras->counted = sizeof(struct extras);
            metric_add(&worker->metrics.memory_queues, sizeof(struct extras));
        }
    }
    return viewer->extras;
}

void extras_free(struct worker *worker, struct viewer *viewer)
{
    struct extras *extras = viewer->extras;
    if (!extras)
        return;
    metric_sub(&worker->metrics.memory_queues, extras->counted);
    buf_fini(&extras->head);
    buf_fini(&extras->rest);
    buf_fini(&extras->queue);
    buf_fini(&extras->rooms);
    free(extras);
    viewer->extras = NULL;
}

void extras_settle(struct worker *worker, struct viewer *viewer)
{
    struct extras *extras = viewer->extras;
    if (!extras)
        return;
    if (extras->rest.len == 0 && extras->queue.len == 0 && extras->rooms.len == 0 &&
        extras->head.len == 0 && !extras->inquiry && !extras->refused && !extras->session[0] &&
        !extras->resumes) {
        extras_free(worker, viewer);
        return;
    }
    size_t now = sizeof(*extras) + extras->head.cap + extras->rest.cap + extras->queue.cap +
                 extras->rooms.cap;
    metric_add(&worker->metrics.memory_queues,
               now - extras->counted); /* modulo 2^64: may shrink too */
    extras->counted = now;
}

size_t outbox_pending(const struct viewer *viewer)
{
    const struct extras *extras = viewer->extras;
    return extras ? extras->rest.len - extras->rest_sent + extras->queue.len - extras->queue_sent
                  : 0;
}

/* Drops what is sent already from the front, when that is the larger part. */
static void queue_compact(struct extras *extras)
{
    if (extras->queue_sent < 4096 || extras->queue_sent < extras->queue.len / 2)
        return;
    if (extras->pong_at < extras->queue_sent)
        extras->pong_len = 0; /* on its way already */
    else
        extras->pong_at -= (uint32_t)extras->queue_sent;
    buf_consume(&extras->queue, extras->queue_sent);
    extras->queue_sent = 0;
}

bool outbox_append(struct worker *worker, struct viewer *viewer, struct bytes frames,
                   uint32_t count, bool bounded)
{
    if (frames.len == 0)
        return true;
    struct extras *extras = extras_of(worker, viewer);
    if (!extras) {
        if (bounded)
            viewer_close(worker, viewer, CLOSE_INTERNAL);
        return false;
    }
    if (bounded &&
        extras->queue.len - extras->queue_sent + frames.len > worker->conf->limits.private_bytes) {
        viewer_close(worker, viewer, CLOSE_TOO_SLOW);
        return false;
    }
    queue_compact(extras);
    buf_bytes(&extras->queue, frames);
    if (extras->queue.failed) {
        extras->queue.failed = false;
        if (bounded)
            viewer_close(worker, viewer, CLOSE_INTERNAL);
        return false;
    }
    extras->queue_frames += count;
    extras_settle(worker, viewer);
    return true;
}

void outbox_pong(struct worker *worker, struct viewer *viewer, struct bytes frame)
{
    struct extras *extras = extras_of(worker, viewer);
    if (extras && extras->pong_len > 0 && extras->pong_at >= extras->queue_sent) {
        size_t behind = extras->pong_at + extras->pong_len;
        memmove(extras->queue.data + extras->pong_at, extras->queue.data + behind,
                extras->queue.len - behind);
        extras->queue.len -= extras->pong_len;
        extras->queue_frames--;
    }
    if (!outbox_append(worker, viewer, frame, 1, true))
        return;
    extras = viewer->extras;
    extras->pong_len = (uint32_t)frame.len;
    extras->pong_at = (uint32_t)(extras->queue.len - frame.len);
    flush_mark(worker, viewer);
}

struct buf *reply_begin(struct worker *worker, struct viewer *viewer)
{
    REQUIRE(!worker->in_hand);
    worker->in_hand = viewer;
    buf_clear(&worker->reply);
    return &worker->reply;
}

/* Nothing waits before it: the answer goes to the socket without a stop in a queue. Returns the bytes taken. */
static size_t send_directly(struct worker *worker, struct viewer *viewer, struct bytes text)
{
    struct iovec run = {(char *)(uintptr_t)text.data, text.len};
    ssize_t sent = write_runs(worker, viewer, &run, 1, text.len);
    if (sent <= 0)
        return 0; /* a full socket or a dead one: the queue and epoll will tell */
    metric_add(&worker->metrics.bytes_out, (uint64_t)sent);
    metric_add(&worker->metrics.writes, 1);
    viewer->written_ms = worker->now_ms;
    return (size_t)sent;
}

/* The socket has half of a frame: the other half goes before everything, so that whole frames stand in the queue. Returns its length, 0 when memory is
 * out: then it is the queue's. */
static size_t keep_half(struct worker *worker, struct viewer *viewer, struct bytes text,
                        size_t sent)
{
    struct extras *extras = extras_of(worker, viewer);
    size_t half = ws_frames_end(text, sent) - sent;
    if (!extras)
        return 0;
    buf_append(&extras->rest, text.data + sent, half);
    if (extras->rest.failed) {
        buf_fini(&extras->rest);
        half = 0;
    }
    extras_settle(worker, viewer);
    return half;
}

void reply_end(struct worker *worker, struct viewer *viewer)
{
    worker->in_hand = NULL;
    struct bytes text = buf_view(&worker->reply);
    if (worker->reply.failed) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
        return;
    }
    if (text.len == 0 || viewer->state == VIEWER_DEAD)
        return;
    size_t sent = 0;
    if (!viewer->blocked && outbox_pending(viewer) == 0)
        sent = send_directly(worker, viewer, text);
    if (sent > 0 && sent < text.len)
        sent += keep_half(worker, viewer, text, sent);
    if (sent == text.len)
        metric_add(&worker->metrics.write_frames, 1);
    bool closing = viewer->state == VIEWER_CLOSING;
    bool bounded = !closing && !viewer->echo;
    /* What the socket has half of must follow whole, before a close frame too: then the bound is looked at afterwards. */
    if (outbox_append(worker, viewer, bytes_of(text.data + sent, text.len - sent), 1,
                      bounded && sent == 0)) {
        if (outbox_pending(viewer) > 0 || closing)
            flush_mark(worker, viewer);
        if (bounded && outbox_pending(viewer) > worker->conf->limits.private_bytes)
            viewer_close(worker, viewer, CLOSE_TOO_SLOW);
    } else if (sent > 0) {
        viewer_abort(worker, viewer, CLOSE_INTERNAL);
        return;
    }
    if (viewer->echo && outbox_pending(viewer) > 0)
        viewer->paused = true; /* while output waits its viewer is not read */
    else if (outbox_pending(viewer) > worker->conf->limits.private_bytes / 2)
        viewer->paused = true;
    if (worker->reply.cap > 4 * RECEIVE_BYTES)
        buf_fini(&worker->reply); /* a large echo's buffer is not kept */
}

void reply_send(struct worker *worker, struct viewer *viewer, const struct reply *reply)
{
    if (!viewer_adapter(viewer))
        return;
    if (reply->kind == REPLY_ERROR)
        metric_add(&worker->metrics.errors[reply->error_code], 1);
    if (worker->in_hand == viewer) {
        viewer_adapter(viewer)->append_reply(&worker->reply, reply);
        return;
    }
    viewer_adapter(viewer)->append_reply(reply_begin(worker, viewer), reply);
    reply_end(worker, viewer);
}

void reply_notice(struct worker *worker, struct viewer *viewer, const struct notice *notice)
{
    if (!viewer_adapter(viewer))
        return;
    if (worker->in_hand == viewer) {
        viewer_adapter(viewer)->append_notice(&worker->reply, notice);
        return;
    }
    viewer_adapter(viewer)->append_notice(reply_begin(worker, viewer), notice);
    reply_end(worker, viewer);
}
