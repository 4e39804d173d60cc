/* drain.c: how a node stops, and how it sheds a part of its viewers.
 *
 *      SIGTERM, POST /v1/drain ─▶ notice ─▶ farewell ─▶ last words ─▶ publishes settle ─▶ exit
 *                                    └ another process serves the port: hand-over, farewell at once
 *
 * drain.timeout after the beginning it ends in any case; TAIL_MS before that those that are left are closed at once, so that their
 * close frames get out.
 */
#include "node/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "node/notify.h"

#include <stdlib.h>

enum {
    TIMEOUT_LEAST_MS = 100,
    TAIL_MS = 1000,
    ASK_MS = 1000,          /* another process that has the sockets may be starting */
    SPREAD_LEAST_MS = 4500, /* retry_after_ms is 500 ms to so much more … */
    SPREAD_MOST_MS = 30000, /* … or this, where closing them all takes longer */
    SETTLE_MS = 1000,
    SETTLE_EVERY_MS = 5,
    MILLION = 1000000
};

static void order_all(struct node *node, const struct drain_order *order)
{
    for (uint32_t i = 0; i < node->worker_count; i++) {
        struct command *command =
            command_create(COMMAND_DRAIN, (struct bytes){0}, (struct bytes){0});
        struct drain_order *own = malloc(sizeof(*own));
        if (!command || !own) { /* drain.timeout ends it */
            free(command);
            free(own);
            continue;
        }
        *own = *order;
        command->object = own;
        worker_post(node->workers[i], command);
    }
}

static void order_step(struct node *node, enum drain_step step)
{
    struct drain_order order = {.step = step};
    order_all(node, &order);
}

/* Closes so many viewers, or all, at the rate from now on. */
static void order_farewell(struct node *node, enum drain_step step, uint32_t viewers,
                           uint32_t share)
{
    uint32_t rate = node->conf->drain.rate;
    uint64_t window_ms = (uint64_t)viewers * 1000 / rate;
    uint32_t spread = window_ms < SPREAD_LEAST_MS  ? SPREAD_LEAST_MS
                      : window_ms > SPREAD_MOST_MS ? SPREAD_MOST_MS
                                                   : (uint32_t)window_ms;
    struct drain_order order = {.step = step,
                                .serial = ++node->drain.serial,
                                .since_ms = clock_ms(),
                                .base = atomic_load(&node->farewells),
                                .rate = rate,
                                .spread_ms = spread,
                                .share = share};
    node->drain.workers_done = 0;
    order_all(node, &order);
}

static uint32_t timeout_ms(const struct node *node)
{
    uint32_t limit = node->conf->drain.timeout_ms;
    return limit > TIMEOUT_LEAST_MS ? limit : TIMEOUT_LEAST_MS;
}

/* When those that are left are closed at once, from the beginning. */
static uint32_t hurry_ms(const struct node *node)
{
    uint32_t limit = timeout_ms(node);
    return limit - (limit / 4 < TAIL_MS ? limit / 4 : TAIL_MS);
}

static void on_hurry(uv_timer_t *timer)
{
    struct node *node = timer->data;
    log_warn("drain.timeout is near, viewers that are left are closed at once",
             LOG_UINT("viewers", atomic_load(&node->connections)),
             LOG_STR("do", "raise drain.timeout or drain.rate"));
    if (!node->drain.farewell)
        order_farewell(node, DRAIN_FAREWELL, atomic_load(&node->connections), 0);
    node->drain.farewell = true;
    if (!node->drain.handed_over)
        order_step(node, DRAIN_REFUSE);
    order_step(node, DRAIN_HURRY);
}

static void begin_farewell(struct node *node)
{
    if (node->drain.farewell)
        return;
    node->drain.farewell = true;
    uint32_t viewers = atomic_load(&node->connections);
    uint32_t rate = node->conf->drain.rate;
    uint64_t passed = clock_ms() - node->drain.since_ms;
    uint32_t hurry = hurry_ms(node);
    uint64_t left = passed < hurry ? hurry - passed : 0;
    log_info("saying goodbye to viewers", LOG_UINT("viewers", viewers),
             LOG_UINT("drain.rate", rate), LOG_UINT("time_left_ms", left));
    if (viewers > left * rate / 1000)
        log_warn("drain.timeout is too short for so many viewers at drain.rate: the last ones will "
                 "be closed at once",
                 LOG_UINT("viewers", viewers), LOG_UINT("in_time", left * rate / 1000));
    notify_status("saying goodbye to viewers");
    if (!node->drain.handed_over)
        order_step(node, DRAIN_REFUSE);
    order_farewell(node, DRAIN_FAREWELL, viewers, 0);
    uv_timer_start(&node->drain_timer, on_hurry, left, 0);
}

static void on_notice_over(uv_timer_t *timer)
{
    begin_farewell(timer->data);
}

/* No other process serves the port, as far as is known. */
static void begin_alone(struct node *node)
{
    order_step(node, DRAIN_NOTICE);
    uint32_t notice = node->conf->drain.notice_ms;
    uint32_t hurry = hurry_ms(node);
    uint64_t passed = clock_ms() - node->drain.since_ms;
    if (notice <= passed)
        begin_farewell(node);
    else
        uv_timer_start(&node->drain_timer, on_notice_over,
                       (notice < hurry ? notice : hurry) - (passed < hurry ? passed : hurry), 0);
}

static void on_no_answer(uv_timer_t *timer)
{
    begin_alone(timer->data);
}

void drain_on_other(void *ctx)
{
    struct node *node = ctx;
    if (node->phase != PHASE_DRAINING || node->drain.handed_over || node->drain.last)
        return;
    log_info("another process serves the port: it takes all new viewers");
    node->drain.handed_over = true;
    share_stop(&node->share);
    order_step(node, DRAIN_HAND_OVER);
    begin_farewell(node);
}

static void on_timeout(uv_timer_t *timer)
{
    struct node *node = timer->data;
    log_warn("drain.timeout passed, viewers that are left are cut off",
             LOG_UINT("viewers", atomic_load(&node->connections)));
    node_leave(node);
}

bool drain_begin(struct node *node)
{
    if (node->phase != PHASE_RUNNING)
        return false;
    log_info("draining", LOG_UINT("viewers", atomic_load(&node->connections)),
             LOG_UINT("drain.notice_ms", node->conf->drain.notice_ms),
             LOG_UINT("drain.timeout_ms", node->conf->drain.timeout_ms));
    notify_stopping("draining: new viewers are still served");
    node->phase = PHASE_DRAINING;
    node->drain.since_ms = clock_ms();
    metric_set(&node->metrics.draining, 1);
    uv_timer_start(&node->stop_timer, on_timeout, timeout_ms(node), 0);
    if (share_ask(&node->share)) {
        uint32_t hurry = hurry_ms(node);
        uv_timer_start(&node->drain_timer, on_no_answer, hurry < ASK_MS ? hurry : ASK_MS, 0);
    } else {
        begin_alone(node);
    }
    return true;
}

void drain_tick(struct node *node)
{
    if (node->phase == PHASE_DRAINING && !node->drain.handed_over && !node->drain.last)
        share_ask(&node->share);
}

/* Viewers' last publishes may still be on their way to Redis. */
static void on_settle(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct broker_stats stats = {0};
    broker_get_stats(node->broker, &stats);
    if (stats.pending > 0 && clock_ms() - node->drain.settling_ms < SETTLE_MS)
        return;
    uv_timer_stop(timer);
    node_leave(node);
}

void drain_on_drained(struct node *node, const struct command *command)
{
    if (command->id != node->drain.serial || ++node->drain.workers_done < node->worker_count)
        return;
    node->drain.shedding = false;
    if (!node->drain.farewell) { /* of a share: a drain that has begun meanwhile has its own pace */
        log_info("shed as many viewers as were asked for");
        return;
    }
    node->drain.last = true;
    share_stop(&node->share);
    uv_timer_stop(&node->drain_timer);
    order_step(node, DRAIN_LAST);
}

void drain_on_stopped(struct node *node)
{
    if (++node->drain.workers_stopped < node->worker_count)
        return;
    log_info("all viewers are gone");
    merges_stop(node);
}

void drain_settle(struct node *node)
{
    if (node->drain.settling_ms > 0)
        return;
    node->drain.settling_ms = clock_ms();
    uv_timer_start(&node->drain_timer, on_settle, 0, SETTLE_EVERY_MS);
}

/* ---- POST /v1/drain */

/* Reads {"share":0.2} into millionths; 0: none was given. Returns false when the body is something else. */
static bool read_share(struct node *node, struct bytes body, uint32_t *share)
{
    struct json_field field = {.name = "share"};
    char text[32];
    char *end;
    *share = 0;
    if (body.len == 0)
        return true;
    if (json_object(body, (int)node->conf->limits.json_depth, &field, 1) != JSON_OK)
        return false;
    if (field.value.kind == JSON_ABSENT || field.value.kind == JSON_NULL)
        return true;
    if (field.value.kind != JSON_NUMBER || field.value.raw.len >= sizeof(text))
        return false;
    memcpy(text, field.value.raw.data, field.value.raw.len);
    text[field.value.raw.len] = '\0';
    double value = strtod(text, &end);
    if (*end != '\0' || !(value > 0) || value > 1)
        return false;
    *share = value * MILLION < 1 ? 1 : (uint32_t)(value * MILLION + 0.5);
    return true;
}

static void answer(struct admin_request *request, const struct node *node, bool stops,
                   uint32_t viewers)
{
    struct buf body = {0};
    uint32_t rate = node->conf->drain.rate;
    buf_printf(&body, "{\"stops\":%s,\"viewers\":%u,\"rate\":%u,\"notice_ms\":%u,\"ms\":%llu}",
               stops ? "true" : "false", viewers, rate, stops ? node->conf->drain.notice_ms : 0,
               (unsigned long long)viewers * 1000 / rate);
    admin_answer(request, 202, "application/json", buf_view(&body), 0);
    buf_fini(&body);
}

void drain_request(struct node *node, struct admin_request *request, struct bytes body)
{
    uint32_t share;
    uint32_t viewers = atomic_load(&node->connections);
    if (!read_share(node, body, &share)) {
        admin_answer_error(request, 400, "bad-message",
                           "The body is empty, or {\"share\":0.2} with a number above 0 and at "
                           "most 1.",
                           0);
    } else if (share == 0) {
        drain_begin(node);
        answer(request, node, true, viewers);
    } else if (node->phase != PHASE_RUNNING) {
        admin_answer_error(request, 409, "draining", "this node stops: all viewers go", 0);
    } else if (node->drain.shedding) {
        admin_answer_error(request, 409, "draining", "the share asked for before is not gone yet",
                           0);
    } else {
        viewers = (uint32_t)((uint64_t)viewers * share / MILLION);
        log_info("shedding a share of the viewers", LOG_UINT("viewers", viewers),
                 LOG_UINT("drain.rate", node->conf->drain.rate));
        node->drain.shedding = true;
        order_farewell(node, DRAIN_SHED, viewers, share);
        answer(request, node, false, viewers);
    }
}
