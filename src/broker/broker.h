/* broker.h: where room messages come from and go to, and Redis' commands for those who need more of it.
 *
 * A broker keeps one subscription per room for the whole node. Backends are tables of functions: memory.c (embedded),
 * redis.c. Callbacks come from the loop, never from inside a call of this interface.
 *
 * Path:      Redis -> [broker] -> node (policy, dispatch); node (publish) -> [broker] -> Redis.
 * Threads:   the main thread's loop.
 * Ownership: borrows names and payloads for the duration of a call.
 * Limits:    broker.pending, broker.output_bytes, broker.message_bytes.
 */
#pragma once

#include "base/bytes.h"
#include "broker/broker_value.h"
#include "conf/conf.h"

#include <uv.h>

struct broker;

enum broker_channel {
    BROKER_ROOM, /* <prefix>:room:{<room>} */
    BROKER_HIGH, /* <prefix>:high:{<room>} */
    /* Every node listens to these from its start: */
    BROKER_ALL,   /* <prefix>:all */
    BROKER_USERS, /* <prefix>:users: for all connections of a user, on whichever node */
    BROKER_NODE,  /* <prefix>:node:<node>: orders for one node */
    BROKER_CHANNELS
};

struct broker_events {
    /* A payload arrived. room is empty from BROKER_ALL on. */
    void (*on_message)(void *ctx, enum broker_channel channel, struct bytes room,
                       struct bytes payload);
    /* Both channels of the room are confirmed: messages published from now on arrive. Also after each reconnect that
     * took one of them away. */
    void (*on_subscribed)(void *ctx, struct bytes room);
    /* Redis answers on all connections and every subscription is confirmed again (ready), or not. */
    void (*on_ready)(void *ctx, bool ready);
    /* Messages of `lane`s may have been lost for this room (empty: for halley:all and halley:users) while a connection
     * was away. Called after its subscription was confirmed again, before any newer message of it. lanes: bits 1 << LANE_…. */
    void (*on_gap)(void *ctx, struct bytes room, unsigned lanes);
    /* The fate of broker_publish() with this token: 0, or BROKER_ERR_…. Called exactly once for each accepted publish. */
    void (*on_published)(void *ctx, uint64_t token, int result);
    /* May more messages of this urgency be read now? false pauses reading that connection until broker_resume(). */
    bool (*may_read)(void *ctx, bool high);
};

enum {
    BROKER_OK = 0,
    /* Not ready, or it went away before it answered (the message may have been published). */
    BROKER_ERR_AWAY = -5301,
    BROKER_ERR_FULL = -5302,   /* broker.pending or broker.output_bytes reached, or memory is out */
    BROKER_ERR_REFUSED = -5303 /* Redis answered with an error */
};

struct broker_stats {
    bool ready;
    uint64_t received; /* payloads */
    uint64_t received_bytes;
    uint64_t published; /* confirmed */
    uint64_t publish_failed;
    uint64_t reconnects;
    uint64_t protocol_errors;
    uint64_t calls;         /* commands that were answered */
    uint64_t call_failed;   /* refused, or never answered */
    uint32_t subscriptions; /* rooms */
    uint32_t pending;       /* publishes and commands that wait for an answer */
    uint64_t lag_ms;        /* age of the oldest of them */
};

/* Makes the backend for conf->broker.url and starts connecting. Returns NULL when memory is out. The URL was checked
 * by conf_load() (conf/url.h). The conf is not held. */
struct broker *broker_create(uv_loop_t *loop, const struct conf *conf,
                             const struct broker_events *events, void *ctx);

/* Closes everything; on_closed(ctx) is called from the loop when the last handle is gone and the memory is freed.
 * Publishes and commands that still wait are answered (BROKER_ERR_AWAY) before that; nothing else is called any more. May
 * be called from a callback. */
void broker_close(struct broker *broker, void (*on_closed)(void *ctx));

/* Wants / no longer wants a room's messages. Idempotent per room: on_subscribed answers only the first wish. Returns 0,
 * UV_ENOMEM, or UV_EINVAL for a name of no or too many bytes. While the broker is away the wish is kept. */
int broker_subscribe(struct broker *broker, struct bytes room);
void broker_unsubscribe(struct broker *broker, struct bytes room);

/* Publishes a payload; room is the node's name for BROKER_NODE and not looked at for BROKER_ALL and BROKER_USERS. Returns 0 when accepted (on_published follows), else BROKER_ERR_… at once. */
int broker_publish(struct broker *broker, enum broker_channel channel, struct bytes room,
                   struct bytes payload, uint64_t token);

/* What became of a command: 0 and its answer, BROKER_ERR_AWAY (it may have been carried out), BROKER_ERR_FULL, or
 * BROKER_ERR_REFUSED with Redis' error in value->text. value is never NULL and borrowed for the call. Called from the
 * loop, exactly once for each accepted command. */
typedef void (*broker_reply)(void *owner, uint64_t token, int result,
                             const struct broker_value *value);

/* A Lua script of scripts/redis, embedded when halley is built. */
struct broker_script {
    const char *name;
    struct bytes text;
    char sha[41]; /* SHA-1 of the text in hexadecimal, as EVALSHA wants it */
};

/* Does this broker take commands? `memory:` does not: broker_call() and broker_eval() answer BROKER_ERR_REFUSED. */
bool broker_has_commands(const struct broker *broker);

/* First part of every Redis name (broker.prefix). */
const char *broker_prefix(const struct broker *broker);

/* Sends a command, pipelined and in order with publishes; one that blocks in Redis would hold all others up. Returns 0
 * when accepted (on_reply follows), else BROKER_ERR_… at once. */
int broker_call(struct broker *broker, const struct bytes *args, uint32_t count,
                broker_reply on_reply, void *owner, uint64_t token);

/* Runs a script, in order with publishes and commands: by EVAL the first time on each connection, by EVALSHA after that. Where an
 * operator took it away meanwhile (SCRIPT FLUSH) it is sent once more by EVAL, behind what was asked until then. */
int broker_eval(struct broker *broker, const struct broker_script *script, const struct bytes *keys,
                uint32_t key_count, const struct bytes *args, uint32_t arg_count,
                broker_reply on_reply, void *owner, uint64_t token);

/* Undoes a pause that may_read() caused. */
void broker_resume(struct broker *broker);

/* A new snapshot: time limits and bounds take effect; a changed URL or prefix needs a restart. */
void broker_set_conf(struct broker *broker, const struct conf *conf);

void broker_get_stats(const struct broker *broker, struct broker_stats *stats);
