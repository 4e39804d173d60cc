/* events.c: connects, joins, leaves and closes of viewers go to the stream <prefix>:events, for backends.
 *
 * They gather until events.batch are there or events.interval has passed, then leave as pipelined XADDs. While Redis is
 * away they wait, up to events.pending; past it new ones are dropped and counted. One that was sent and never answered
 * may stand in the stream: it is counted as dropped, and not sent again.
 */
#include "base/log.h"
#include "node/internal.h"
#include "protocol/event.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct waiting_event {
    struct link link;
    enum event_kind kind;
    uint64_t time_ms;
    uint64_t open_ms;  /* how long the viewer has been there */
    struct bytes room; /* these point into text */
    struct bytes user;
    struct event event;
    char text[];
};

static void on_interval(uv_timer_t *timer);

static void drop(struct node *node, uint64_t count)
{
    metric_add(&node->metrics.events_dropped, count);
    log_limited(LOG_LEVEL_WARN, "events dropped: Redis is away or too slow",
                LOG_UINT("events.pending", node->conf->events.pending));
}

static void on_added(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    (void)token;
    (void)value;
    node->events_unanswered--;
    if (result == BROKER_OK)
        metric_add(&node->metrics.events_added, 1);
    else
        drop(node, 1);
    if (node->events_stopping && events_settled(node))
        node_events_settled(node);
}

struct fields {
    struct bytes list[32];
    uint32_t count;
};

static void add_field(struct fields *fields, const char *name, struct bytes value)
{
    fields->list[fields->count++] = bytes_str(name);
    fields->list[fields->count++] = value;
}

static int send_event(struct node *node, const struct waiting_event *waiting)
{
    const struct event *event = &waiting->event;
    char key[CONF_ADDRESS_MAX + 16];
    char most_kept[16], time[24], code[8], open[24];
    snprintf(key, sizeof(key), "%s:events", broker_prefix(node->broker));
    snprintf(most_kept, sizeof(most_kept), "%u", node->conf->events.max_length);
    snprintf(time, sizeof(time), "%" PRIu64, waiting->time_ms);
    snprintf(code, sizeof(code), "%u", event->code);
    snprintf(open, sizeof(open), "%" PRIu64, waiting->open_ms);
    struct fields fields = {.list = {BYTES_LIT("XADD"), bytes_str(key), BYTES_LIT("MAXLEN"),
                                     BYTES_LIT("~"), bytes_str(most_kept), BYTES_LIT("*")},
                            .count = 6};
    add_field(&fields, "event", bytes_str(event_name(waiting->kind)));
    add_field(&fields, "time", bytes_str(time));
    add_field(&fields, "node", bytes_str(node->conf->server.node));
    add_field(&fields, "user", waiting->user);
    add_field(&fields, "connection", event->connection);
    if (waiting->room.len > 0)
        add_field(&fields, "room", waiting->room);
    if (event->session.len > 0)
        add_field(&fields, "session", event->session);
    if (waiting->kind == EVENT_CONNECT || waiting->kind == EVENT_CLOSE) {
        add_field(&fields, "protocol", event->protocol);
        add_field(&fields, "peer", event->peer);
    }
    if (waiting->kind == EVENT_CLOSE) {
        add_field(&fields, "reason", event->reason);
        add_field(&fields, "code", bytes_str(code));
        add_field(&fields, "open_ms", bytes_str(open));
    }
    return broker_call(node->broker, fields.list, fields.count, on_added, node, 0);
}

/* Sends what waits, until the broker takes no more; the rest waits for the next interval. */
static void flush(struct node *node)
{
    while (!list_empty(&node->events_waiting)) {
        struct waiting_event *waiting =
            CONTAINER_OF(node->events_waiting.next, struct waiting_event, link);
        if (send_event(node, waiting) != 0)
            break;
        list_remove(&waiting->link);
        free(waiting);
        node->events_gathered--;
        node->events_unanswered++;
    }
    uv_timer_stop(&node->events_timer);
    if (node->events_gathered > 0)
        uv_timer_start(&node->events_timer, on_interval, node->conf->events.interval_ms, 0);
}

static void on_interval(uv_timer_t *timer)
{
    flush(timer->data);
}

static struct waiting_event *waiting_create(const struct command *command)
{
    size_t len = (size_t)command->room_len + command->payload_len + command->user_len;
    struct waiting_event *waiting = malloc(sizeof(*waiting) + len);
    if (!waiting)
        return NULL;
    memcpy(waiting->text, command->text, len);
    list_init(&waiting->link);
    waiting->kind = (enum event_kind)command->result;
    waiting->time_ms = command->time_ms;
    waiting->open_ms = command->id;
    waiting->room = bytes_of(waiting->text, command->room_len);
    waiting->event = event_unpack(
        waiting->kind, bytes_of(waiting->text + command->room_len, command->payload_len));
    waiting->user =
        bytes_of(waiting->text + command->room_len + command->payload_len, command->user_len);
    return waiting;
}

void events_take(struct node *node, const struct command *command)
{
    const struct conf *conf = node->conf;
    if (!broker_has_commands(node->broker))
        return;
    struct waiting_event *waiting =
        node->events_gathered + node->events_unanswered < conf->events.pending
            ? waiting_create(command)
            : NULL;
    if (!waiting) {
        drop(node, 1);
        return;
    }
    list_append(&node->events_waiting, &waiting->link);
    node->events_gathered++;
    if (node->events_gathered % conf->events.batch == 0)
        flush(node);
    else if (node->events_gathered == 1)
        uv_timer_start(&node->events_timer, on_interval, conf->events.interval_ms, 0);
}

bool events_settled(const struct node *node)
{
    return node->events_unanswered == 0 && (node->events_gathered == 0 || !node->broker_ready);
}

void events_stop(struct node *node)
{
    node->events_stopping = true;
    flush(node);
}

void events_init(struct node *node)
{
    list_init(&node->events_waiting);
    uv_timer_init(&node->loop, &node->events_timer);
    node->events_timer.data = node;
}

void events_free(struct node *node)
{
    struct link *at;
    while ((at = list_shift(&node->events_waiting)))
        free(CONTAINER_OF(at, struct waiting_event, link));
}
