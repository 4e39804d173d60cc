#include "base/bytes.h"
#include "bench/inner.h"
#include "bench/publish.h"

/* Publishes through NATS and MQTT over a plain connection. Nothing is confirmed there (QoS 0). */
static void inner_open(struct publisher *publisher)
{
    const struct inner_login login = {
        .client = "", .user = publisher->target.user, .password = publisher->target.password};
    publisher->kind->inner->login(&publisher->out, &login);
}

static void inner_add(struct publisher *publisher, const char *room, struct bytes data)
{
    publisher->kind->inner->publish(&publisher->out, room, data);
}

static void on_event(void *ctx, const struct inner_event *event)
{
    struct publisher *publisher = ctx;
    if (event->kind == INNER_PING)
        buf_bytes(&publisher->out, publisher->kind->inner->pong);
    else if (event->kind == INNER_REFUSED)
        publisher_refused(publisher, event->data.data, event->data.len);
}

/* The buffer is both what came and what is held back, so it is fed nothing new. */
static const char *inner_answers(struct publisher *publisher)
{
    return inner_feed(publisher->kind->inner, &publisher->in, bytes_of("", 0), on_event, publisher);
}

const struct publisher_kind publisher_nats = {.scheme = "nats",
                                              .port = "4222",
                                              .inner = &inner_nats,
                                              .open = inner_open,
                                              .add = inner_add,
                                              .answers = inner_answers};
const struct publisher_kind publisher_mqtt = {.scheme = "mqtt",
                                              .port = "1883",
                                              .inner = &inner_mqtt,
                                              .open = inner_open,
                                              .add = inner_add,
                                              .answers = inner_answers};
