/* broker_backend.h: what a broker's backend provides, and what all of them share.
 *
 * A backend embeds struct broker as its first member and gives a table of functions; broker.c only dispatches.
 *
 * Path:      broker.h -> [backend] -> memory.c, redis.c.
 * Threads:   the main thread's loop.
 * Ownership: the backend owns its whole object, struct broker included, and frees it after close.
 */
#pragma once

#include "broker/broker.h"
#include "conf/url.h"

/* The conf keys that a backend needs, copied so that no snapshot is held. */
struct broker_limits {
    uint32_t connect_timeout_ms;
    uint32_t reply_timeout_ms;
    uint32_t silence_ms;
    uint32_t pending;
    uint32_t output_bytes;
    uint32_t message_bytes;
};

struct broker_backend {
    void (*close)(struct broker *broker);
    int (*subscribe)(struct broker *broker, struct bytes room);
    void (*unsubscribe)(struct broker *broker, struct bytes room);
    int (*publish)(struct broker *broker, enum broker_channel channel, struct bytes room,
                   struct bytes payload, uint64_t token);
    /* Both NULL: it takes no commands. */
    int (*call)(struct broker *broker, const struct bytes *args, uint32_t count,
                broker_reply on_reply, void *owner, uint64_t token);
    int (*eval)(struct broker *broker, const struct broker_script *script, const struct bytes *keys,
                uint32_t key_count, const struct bytes *args, uint32_t arg_count,
                broker_reply on_reply, void *owner, uint64_t token);
    void (*resume)(struct broker *broker);
    void (*set_limits)(struct broker *broker); /* limits is new */
    void (*get_stats)(const struct broker *broker, struct broker_stats *stats);
};

struct broker {
    const struct broker_backend *backend;
    uv_loop_t *loop;
    struct broker_events events;
    void *ctx;
    struct broker_limits limits;
    char prefix[CONF_ADDRESS_MAX];
    void (*on_closed)(void *ctx); /* set by broker_close() */
    bool closing; /* after it only on_published, broker_reply and on_closed are called */
};

/* Each returns NULL when memory is out, and calls nothing before the loop runs: broker.c fills struct broker in. */
struct broker *memory_broker_create(uv_loop_t *loop);
struct broker *redis_broker_create(uv_loop_t *loop, const struct broker_url *url,
                                   const char *prefix, const char *node);
