#include "worker/tickets.h"

void viewer_set_timer(struct worker *worker, struct viewer *viewer, uint32_t in_ms)
{
    viewer->due_ms = worker->now_ms + in_ms;
    wheel_add(&worker->wheel, &viewer->timer, worker->now_tick + in_ms / TICK_MS + 1);
}

static struct halley_heartbeat_policy beat_policy(const struct worker *worker,
                                                  const struct viewer *viewer)
{
    static const enum halley_heartbeat_style styles[] = {
        [HEARTBEAT_NATIVE] = HALLEY_HEARTBEAT_NATIVE,
        [HEARTBEAT_CLIENT] = HALLEY_HEARTBEAT_CLIENT,
        [HEARTBEAT_SERVER] = HALLEY_HEARTBEAT_SERVER};
    struct halley_heartbeat_policy policy = {
        .style = viewer_adapter(viewer) ? styles[viewer_adapter(viewer)->heartbeat]
                                        : HALLEY_HEARTBEAT_NATIVE,
        .interval_ms = halley_pulse_told_ms(&viewer->pulse),
        .timeout_ms = worker->conf->heartbeat.timeout_ms};
    if (viewer->id <= worker->promised_id)
        policy.timeout_ms = most(policy.timeout_ms, worker->promised_timeout_ms);
    return policy;
}

static void send_ping(struct worker *worker, struct viewer *viewer)
{
    struct buf *out = reply_begin(worker, viewer);
    if (viewer_adapter(viewer) && viewer_adapter(viewer)->append_ping)
        viewer_adapter(viewer)->append_ping(out);
    else
        ws_frame_append(out, WS_PING, (struct bytes){0});
    metric_add(&worker->metrics.pings_out, 1);
    reply_end(worker, viewer);
}

/* Everything that can be late for a viewer; returns ms until the next look, 0 when the viewer is gone. */
static uint32_t check_upgraded(struct worker *worker, struct viewer *viewer)
{
    uint32_t next = tickets_check(worker, viewer);
    if (next == 0)
        return 0;
    if (viewer->codec && !viewer->paused) { /* while it is not read the frame can't end */
        uint32_t passed = worker->now_ms - (uint32_t)codec_since_ms(viewer->codec);
        uint32_t limit = worker->conf->limits.frame_timeout_ms;
        if (passed >= limit) {
            viewer_close(worker, viewer, CLOSE_FRAME_TIMEOUT);
            return 0;
        }
        next = least(next, limit - passed);
    }
    if (viewer->state == VIEWER_WAITING) {
        uint32_t passed = worker->now_ms - viewer->opened_ms;
        if (passed >= CONNECT_WAIT_MS) {
            viewer_close(worker, viewer, CLOSE_NO_CONNECT);
            return 0;
        }
        next = least(next, CONNECT_WAIT_MS - passed);
    }
    struct halley_heartbeat_policy policy = beat_policy(worker, viewer);
    bool unasked = viewer->beat.asked_ms == 0;
    struct halley_heartbeat_verdict verdict =
        halley_heartbeat_check(&viewer->beat, &policy, worker->now_ms, worker_random(worker));
    next = least(next, pulse_watch(worker, viewer, &policy));
    if (verdict.action == HALLEY_HEARTBEAT_DEAD) {
        viewer_close(worker, viewer, CLOSE_HEARTBEAT);
        return 0;
    }
    if (verdict.action == HALLEY_HEARTBEAT_PING) {
        if (unasked)
            pulse_pinged(worker, viewer);
        send_ping(worker, viewer);
    }
    if (policy.style == HALLEY_HEARTBEAT_SERVER && verdict.next_ms > 4 * TICK_MS)
        verdict.next_ms -=
            2 * TICK_MS; /* the wheel may be late by two ticks; a promised ping may not */
    return least(next, verdict.next_ms);
}

void viewer_on_timer(struct worker *worker, struct viewer *viewer)
{
    int32_t early = (int32_t)(viewer->due_ms - worker->now_ms);
    if (early > 0) { /* the wheel came round before the time */
        wheel_add(&worker->wheel, &viewer->timer, worker->now_tick + (uint32_t)early / TICK_MS + 1);
        return;
    }
    switch ((enum viewer_state)viewer->state) {
    case VIEWER_HANDSHAKE:
        metric_add(&worker->metrics.handshakes[HANDSHAKE_TIMEOUT], 1);
        viewer_close(worker, viewer, CLOSE_HEAD_TIMEOUT);
        break;
    case VIEWER_CHECKING: {
        uint32_t next = tickets_check(worker, viewer);
        if (next > 0 && viewer->state == VIEWER_CHECKING)
            viewer_set_timer(worker, viewer, next);
        break;
    }
    case VIEWER_CLOSING:
        viewer_destroy(worker, viewer);
        break;
    case VIEWER_DEAD:
        break;
    default: {
        narrow_rest(worker, viewer);
        uint32_t next = check_upgraded(worker, viewer);
        if (next > 0 && viewer->state < VIEWER_CLOSING)
            viewer_set_timer(worker, viewer, next);
    }
    }
}
