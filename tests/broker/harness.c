#include "harness.h"

#include "base/map.h"

#include <stdlib.h>

enum { LIMIT_MS = 20000 };

static struct event *add(struct harness *h, enum event_kind kind, struct bytes room)
{
    if (h->count == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 1024;
        h->events = realloc(h->events, h->cap * sizeof(struct event));
        assert_non_null(h->events);
    }
    struct event *event = &h->events[h->count++];
    *event = (struct event){.kind = kind};
    assert_true(room.len <= ROOM_NAME_MAX);
    if (room.len > 0)
        memcpy(event->room, room.data, room.len);
    return event;
}

static void on_message(void *ctx, enum broker_channel channel, struct bytes room,
                       struct bytes payload)
{
    struct harness *h = ctx;
    struct event *event = add(h, ON_MESSAGE, room);
    event->channel = (int)channel;
    event->value = (int64_t)payload.len;
    size_t len = payload.len < sizeof(event->payload) ? payload.len : sizeof(event->payload) - 1;
    memcpy(event->payload, payload.data, len);
    h->messages++;
    if (h->close_on_message)
        harness_close(h);
}

static void on_subscribed(void *ctx, struct bytes room)
{
    struct harness *h = ctx;
    add(h, ON_SUBSCRIBED, room);
    h->subscribed++;
}

static void on_ready(void *ctx, bool ready)
{
    struct harness *h = ctx;
    assert_true(ready != h->ready);
    h->ready = ready;
    add(h, ON_READY, BYTES_LIT(""))->value = ready;
}

static void on_gap(void *ctx, struct bytes room, unsigned lanes)
{
    add(ctx, ON_GAP, room)->value = lanes;
}

static void on_published(void *ctx, uint64_t token, int result)
{
    struct harness *h = ctx;
    struct event *event = add(h, ON_PUBLISHED, BYTES_LIT(""));
    event->value = (int64_t)token;
    event->result = result;
    h->published++;
}

static bool may_read(void *ctx, bool high)
{
    const struct harness *h = ctx;
    return !h->hold[high];
}

void harness_init(struct harness *h, const char *url)
{
    *h = (struct harness){0};
    map_seed();
    assert_int_equal(uv_loop_init(&h->loop), 0);
    assert_int_equal(uv_timer_init(&h->loop, &h->limit), 0);
    h->conf = calloc(1, sizeof(struct conf));
    assert_non_null(h->conf);
    snprintf(h->conf->broker.url, sizeof(h->conf->broker.url), "%s", url);
    snprintf(h->conf->broker.prefix, sizeof(h->conf->broker.prefix), "halley");
    h->conf->broker.connect_timeout_ms = 2000;
    h->conf->broker.reply_timeout_ms = 3000;
    h->conf->broker.silence_ms = 10000;
    h->conf->broker.pending = 65536;
    h->conf->broker.output_bytes = 16 << 20;
    h->conf->broker.message_bytes = 64 * 1024;
}

void harness_open(struct harness *h)
{
    static const struct broker_events events = {
        .on_message = on_message,
        .on_subscribed = on_subscribed,
        .on_ready = on_ready,
        .on_gap = on_gap,
        .on_published = on_published,
        .may_read = may_read,
    };
    h->broker = broker_create(&h->loop, h->conf, &events, h);
    assert_non_null(h->broker);
    assert_int_equal(h->count, 0);
}

static void on_closed(void *ctx)
{
    struct harness *h = ctx;
    h->closed = true;
    h->broker = NULL;
}

static void on_limit(uv_timer_t *timer)
{
    ((struct harness *)timer->data)->late = true;
}

static void set_limit(struct harness *h, uint64_t ms)
{
    h->late = false;
    h->limit.data = h;
    uv_update_time(&h->loop);
    uv_timer_start(&h->limit, on_limit, ms, 0);
}

void harness_close(struct harness *h)
{
    if (h->close_on_message) {
        /* From inside a callback: the rest is done by the next call. */
        h->close_on_message = false;
        broker_close(h->broker, on_closed);
        return;
    }
    if (h->broker && !h->closed)
        broker_close(h->broker, on_closed);
    uv_close((uv_handle_t *)&h->limit, NULL);
    /* Ends only when nothing is left on the loop, look-ups included. */
    uv_run(&h->loop, UV_RUN_DEFAULT);
    assert_true(h->closed || !h->broker);
    assert_int_equal(uv_loop_close(&h->loop), 0);
    free(h->events);
    free(h->conf);
}

void harness_until(struct harness *h, bool (*done)(struct harness *h))
{
    set_limit(h, LIMIT_MS);
    while (!done(h) && !h->late)
        uv_run(&h->loop, UV_RUN_ONCE);
    uv_timer_stop(&h->limit);
    assert_false(h->late);
}

void harness_turns(struct harness *h, int turns)
{
    for (int i = 0; i < turns; i++)
        uv_run(&h->loop, UV_RUN_NOWAIT);
}

void harness_for(struct harness *h, uint64_t ms)
{
    set_limit(h, ms);
    while (!h->late)
        uv_run(&h->loop, UV_RUN_ONCE);
}

bool is_ready(struct harness *h)
{
    return h->ready;
}

bool is_away(struct harness *h)
{
    return !h->ready;
}

int event_find(const struct harness *h, enum event_kind kind, const char *room, int n)
{
    for (size_t i = 0; i < h->count; i++) {
        const struct event *event = &h->events[i];
        if (event->kind == kind && (!room || strcmp(event->room, room) == 0) && n-- == 0)
            return (int)i;
    }
    return -1;
}

void events_clear(struct harness *h)
{
    h->count = 0;
    h->subscribed = h->messages = h->published = 0;
}
