#include "broker/broker.h"

#include "base/log.h"
#include "broker/broker_backend.h"

#include <stdio.h>

static struct broker_limits limits_of(const struct conf *conf)
{
    return (struct broker_limits){
        .connect_timeout_ms = conf->broker.connect_timeout_ms,
        .reply_timeout_ms = conf->broker.reply_timeout_ms,
        .silence_ms = conf->broker.silence_ms,
        .pending = conf->broker.pending,
        .output_bytes = conf->broker.output_bytes,
        .message_bytes = conf->broker.message_bytes,
    };
}

struct broker *broker_create(uv_loop_t *loop, const struct conf *conf,
                             const struct broker_events *events, void *ctx)
{
    struct broker_url url;
    const char *why = "";
    struct broker *broker = NULL;
    if (broker_url_parse(conf->broker.url, &url, &why) != 0)
        log_error("broker.url cannot be used", LOG_STR("reason", why));
    else if (url.scheme == BROKER_SCHEME_REDIS)
        broker = redis_broker_create(loop, &url, conf->broker.prefix, conf->server.node);
    else
        broker = memory_broker_create(loop);
    if (!broker)
        return NULL;
    broker->loop = loop;
    broker->events = *events;
    broker->ctx = ctx;
    broker->limits = limits_of(conf);
    snprintf(broker->prefix, sizeof(broker->prefix), "%s", conf->broker.prefix);
    return broker;
}

void broker_close(struct broker *broker, void (*on_closed)(void *ctx))
{
    broker->closing = true;
    broker->on_closed = on_closed;
    broker->backend->close(broker);
}

int broker_subscribe(struct broker *broker, struct bytes room)
{
    return broker->backend->subscribe(broker, room);
}

void broker_unsubscribe(struct broker *broker, struct bytes room)
{
    broker->backend->unsubscribe(broker, room);
}

int broker_publish(struct broker *broker, enum broker_channel channel, struct bytes room,
                   struct bytes payload, uint64_t token)
{
    return broker->backend->publish(broker, channel, room, payload, token);
}

bool broker_has_commands(const struct broker *broker)
{
    return broker->backend->call;
}

const char *broker_prefix(const struct broker *broker)
{
    return broker->prefix;
}

int broker_call(struct broker *broker, const struct bytes *args, uint32_t count,
                broker_reply on_reply, void *owner, uint64_t token)
{
    if (!broker->backend->call)
        return BROKER_ERR_REFUSED;
    return broker->backend->call(broker, args, count, on_reply, owner, token);
}

int broker_eval(struct broker *broker, const struct broker_script *script, const struct bytes *keys,
                uint32_t key_count, const struct bytes *args, uint32_t arg_count,
                broker_reply on_reply, void *owner, uint64_t token)
{
    if (!broker->backend->eval)
        return BROKER_ERR_REFUSED;
    return broker->backend->eval(broker, script, keys, key_count, args, arg_count, on_reply, owner,
                                 token);
}

void broker_resume(struct broker *broker)
{
    broker->backend->resume(broker);
}

void broker_set_conf(struct broker *broker, const struct conf *conf)
{
    broker->limits = limits_of(conf);
    broker->backend->set_limits(broker);
}

void broker_get_stats(const struct broker *broker, struct broker_stats *stats)
{
    *stats = (struct broker_stats){0};
    broker->backend->get_stats(broker, stats);
}
