/* internal.h: what the files of the node share.
 *
 *      node.c      start, stop, signals, reload, watchdog
 *      dispatch.c  broker -> message -> policy -> workers; held rooms; publishes
 *      queue.c     viewers' messages into the streams of their queues
 *      api.c       what operators and backends ask over HTTP
 *
 * Threads:   the main thread.
 */
#pragma once

#include "admin/admin.h"
#include "base/map.h"
#include "broker/broker.h"
#include "metrics/metrics.h"
#include "node/listen.h"
#include "node/node.h"
#include "policy/limiter.h"
#include "worker/worker.h"

#include <uv.h>

enum { WORKERS_MAX = 64, PAUSE_MS = 5, RING_SLACK = 64 };

enum phase { PHASE_RUNNING, PHASE_STOPPING, PHASE_ENDING };

/* A room that some worker holds, or held a moment ago (it lingers before it is unsubscribed). */
struct held {
    struct map_node node;
    uint64_t holders;   /* bit per worker */
    uint32_t abandoned; /* which of the node's abandonings was its last one */
    bool live;          /* its subscription is confirmed */
    uint8_t name_len;
    char name[];
};

_Static_assert(offsetof(struct held, name) + 10 + sizeof(size_t) <= 64,
               "an idle room is to cost one small allocation");

/* The last holder let go of a room then; void when one came back and left again since. */
struct lingering {
    struct link link; /* on node->lingering, in order of time */
    struct held *held;
    uint32_t abandoned; /* another number than the room's: void */
    uint32_t at_ms;     /* modulo 2^32 */
};

/* A publish on its way through the broker; its address is the token. */
struct publish {
    struct admin_request *request; /* over HTTP; NULL: from a viewer */
    uint32_t worker;
    uint32_t slot;
    uint64_t id;
    struct intent_ref ref;
};

struct node {
    struct conf *conf;
    const struct node_options *options;
    struct node_metrics metrics;
    enum phase phase;
    int exit_code;
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t batch_before; /* wakes workers once per turn: before the loop sleeps */
    uv_check_t batch_after; /* and after it read, so that a long turn does not hold messages back */
    uv_timer_t tick;
    uv_timer_t pause;
    uv_timer_t stop_timer;
    uv_signal_t signals[3];
    struct mailbox mailbox;
    struct worker *workers[WORKERS_MAX];
    uint32_t worker_count;
    uint32_t workers_stopped;
    uint64_t woken; /* bit per worker that got messages in this turn */
    uint64_t ticks_seen[WORKERS_MAX];
    uint64_t ticked_ms;
    _Atomic uint32_t connections;
    _Atomic uint32_t connections_limit;
    _Atomic uint32_t handshakes; /* bucket of limits.handshake_rate, shared by all workers */
    struct listen_set listeners;
    struct broker *broker;
    bool broker_ready;
    struct admin *admin;
    struct limiter user_rates;
    struct limiter room_rates;
    struct map rooms;
    struct link lingering;
    uint32_t abandoned; /* rooms, one by one, modulo 2^32 */
    struct link queries;
};

/* dispatch.c */
extern const struct broker_events node_broker_events;
void dispatch_hold(struct node *node, const struct command *command);
void dispatch_release(struct node *node, const struct command *command);
void dispatch_publish(struct node *node, const struct command *command);
/* Publishes for an HTTP request. Returns 0 when on its way (the request is answered by its fate), or BROKER_ERR_…. */
int dispatch_publish_http(struct node *node, struct admin_request *request, struct bytes room,
                          enum lane lane, struct bytes payload);
void dispatch_expire(struct node *node);       /* unsubscribes rooms whose linger has passed */
void dispatch_expire_rates(struct node *node); /* forgets users and rooms that owe nothing */
void dispatch_free_rooms(struct node *node);

/* Tells the worker what became of a viewer's send and frees publish; id may be empty. */
void dispatch_settle(struct node *node, struct publish *publish, int result, struct bytes id);

/* queue.c */
void queue_append(struct node *node, const struct command *command, struct publish *publish);

/* api.c */
extern const struct admin_ops node_admin_ops;
void api_published(struct admin_request *request, int result);
void api_query_done(struct worker_query *query);
void api_abandon(struct node *node);

/* node.c */
void node_update_broker_metrics(struct node *node);
