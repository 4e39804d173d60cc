/* internal.h: what the files of the node share.
 *
 *      node.c      start, stop, signals, reload, watchdog
 *      dispatch.c  broker -> message -> policy -> workers; held rooms; publishes
 *      users.c     messages, orders and questions about one user, over all nodes
 *      sessions.c  one connection per session, so many per user
 *      events.c    what viewers do, into a stream
 *      queue.c     viewers' messages into the streams of their queues
 *      merge.c     windows of merged types: merge_up.c before the broker, merge_down.c before the workers
 *      publish.c   messages with history: numbered, kept, published
 *      tickets.c   what workers ask about tickets
 *      presence.c  who is online, over all nodes
 *      frames.c    do messages fit one TCP segment?
 *      history.c   … what of them is missing on their way back: history_lane.c what numbers say, history_ask.c reads for workers,
 *                  history_read.c each of the reads
 *      api.c       what operators and backends ask over HTTP
 *      drain.c     how it stops, and sheds viewers
 *
 * Threads:   the main thread.
 */
#pragma once

#include "admin/admin.h"
#include "base/log.h"
#include "base/map.h"
#include "broker/broker.h"
#include "metrics/metrics.h"
#include "node/history.h"
#include "node/listen.h"
#include "node/node.h"
#include "node/share.h"
#include "policy/backlog.h"
#include "policy/limiter.h"
#include "policy/merge.h"
#include "policy/sample.h"
#include "policy/totals.h"
#include "worker/worker.h"

#include <uv.h>

enum { WORKERS_MAX = 64, NODE_TICK_MS = 500, PAUSE_MS = 5, RING_SLACK = 64 };

enum phase { PHASE_RUNNING, PHASE_DRAINING, PHASE_ENDING };

/* A room that some worker holds, or held a moment ago (it lingers before it is unsubscribed). */
struct held {
    struct map_node node;
    uint64_t holders;     /* bit per worker */
    uint32_t turn;        /* another one whenever its last holder lets go, and for each room */
    uint32_t local;       /* viewers on this node */
    uint32_t others;      /* … on the others, as last read */
    bool live : 1;        /* its subscription is confirmed */
    bool reading : 1;     /* … and its numbers are being asked for: viewers wait */
    bool known : 1;       /* others was read */
    bool changed : 1;     /* local is to be written */
    bool stale : 1;       /* viewers are to be told */
    uint8_t checking : 3; /* lanes: after a cut its counters are being read */
    bool gap_told : 1;    /* … and its viewers know that something may be missing */
    uint8_t name_len;
    char name[];
};

_Static_assert(offsetof(struct held, name) + 10 + sizeof(size_t) <= 64,
               "an idle room is to cost one small allocation");

/* The last holder let go of a room then; void when one came back and left again since. */
struct lingering {
    struct link link; /* on node->lingering, in order of time */
    struct held *held;
    uint32_t turn;  /* another one than the room's: void */
    uint32_t at_ms; /* modulo 2^32 */
    uint32_t looks; /* at which its workers' counts were not in yet */
};

/* How long a message's frame is (native; 0: not worth measuring), and how much of it goes in one segment. */
struct frame_size {
    uint32_t bytes;
    uint32_t common;
};

static inline bool frame_is_long(const struct frame_size *size)
{
    return size->common > 0 && size->bytes > size->common;
}

/* A publish on its way through the broker; its address is the token. */
struct publish {
    struct admin_request *request; /* over HTTP; NULL: from a viewer */
    struct frame_size size;        /* over HTTP: what the publisher is warned of */
    struct up *merged;             /* or a batch of a merged type */
    uint32_t worker;
    uint32_t slot;
    uint64_t id;
    struct intent_ref ref;
    uint8_t id_len;
    char message_id[HISTORY_ID_MAX]; /* of a message with history, with `memory:` */
};

/* A message with history before it has its number. */
struct numbered {
    struct bytes room;
    enum lane lane;
    struct bytes message; /* an envelope without id */
    struct bytes key;     /* empty: none; unique over whose key it is */
};

/* Used tickets, where there is no Redis to remember them. */
struct ticket_marks {
    struct map map;
    struct link list; /* all of them; looked through from its head, a slice a tick */
};

struct presence;

struct drain {
    uint64_t since_ms;    /* of clock_ms() */
    uint64_t serial;      /* of the last farewell */
    uint64_t settling_ms; /* all viewers are gone since */
    uint32_t workers_done;
    uint32_t workers_stopped;
    bool shedding;
    bool handed_over;
    bool farewell;
    bool last;
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
    uv_timer_t stop_timer;  /* drain.timeout */
    uv_timer_t drain_timer; /* the next step of the drain */
    struct drain drain;
    uv_signal_t signals[3];
    struct mailbox mailbox;
    struct worker *workers[WORKERS_MAX];
    uint32_t worker_count;
    uint64_t woken; /* bit per worker that got messages in this turn */
    uint64_t ticks_seen[WORKERS_MAX];
    uint64_t ticked_ms;
    _Atomic uint32_t connections;
    _Atomic uint32_t connections_limit;
    _Atomic uint32_t handshakes; /* bucket of limits.handshake_rate, shared by all workers */
    _Atomic uint32_t ramp;       /* the same of server.ramp */
    _Atomic uint64_t farewells;  /* viewers sent away at drain.rate */
    struct listen_set listeners;
    struct ticket_marks marks;
    struct share share;
    struct broker *broker;
    bool broker_ready;
    struct admin *admin;
    uv_timer_t merge_timer;
    struct merger ups; /* merged types: sends on their way to the broker */
    struct merger downs;
    struct totals totals; /* without Redis */
    uint64_t merge_number;
    char run[17];           /* tells batches of this process from those of any other */
    bool merge_stopping;    /* windows end at once, then node_merged() */
    struct sampler sampler; /* of rooms with more messages than limits.room_rate */
    struct limiter user_rates;
    struct limiter room_rates;
    struct history history;
    struct backlog backlog;    /* history, with `memory:` */
    struct presence *presence; /* NULL: presence.enabled = no */
    struct map rooms;
    struct link lingering;
    uint32_t turns; /* of rooms, one by one, modulo 2^32 */
    struct link queries;
    struct link questions; /* about users, in order of time */
    uint64_t question_id;  /* of the newest */
    struct link events_waiting;
    uint32_t events_gathered; /* of these */
    uint32_t events_unanswered;
    bool events_stopping;
    uv_timer_t events_timer;
    struct map sessions; /* whose newest connection is here */
    struct link sessions_held;
    struct link sessions_unclaimed;
    struct map user_counts;
    uv_timer_t gather; /* until the first question's time is over */
};

/* frames.c */
void frames_update(struct node *node); /* what is common among the viewers that are here now */
/* name: of the room or user. The size is known only where it may be too long. */
struct frame_size frames_measure(const struct node *node, enum message_kind kind, struct bytes name,
                                 struct bytes payload);
/* Counts and logs a message whose frame is long. */
void frames_judge(struct node *node, enum message_kind kind, struct bytes name, struct bytes type,
                  struct bytes payload);
/* Appends the warning as a JSON string, or nothing. */
void frames_warn(const struct frame_size *size, struct buf *out);

/* dispatch.c */
extern const struct broker_events node_broker_events;
struct held *dispatch_find(const struct node *node, struct bytes room);
void dispatch_hold(struct node *node, const struct command *command);
void dispatch_release(struct node *node, const struct command *command);
void dispatch_publish(struct node *node, const struct command *command);
/* Publishes for an HTTP request. Returns 0 when on its way (the request is answered by its fate), or BROKER_ERR_…. */
int dispatch_publish_http(struct node *node, struct admin_request *request, struct bytes room,
                          enum lane lane, struct bytes payload);
void dispatch_expire(struct node *node); /* unsubscribes rooms whose linger has passed */
/* Publishes the batch; merge_up_settled() follows when 0 is returned. */
int dispatch_publish_merged(struct node *node, struct up *up, struct bytes room, enum lane lane,
                            struct bytes payload);
/* To all workers that have viewers of its room; the caller keeps its reference. */
void dispatch_deliver(struct node *node, struct message *message);
/* The room's numbers are read: its viewers may be told that they are in. */
void dispatch_stands(struct node *node, struct bytes room);
/* A hole is told in the lane's own order, once per room and lane, to everybody there. no_join: nothing with an id is missing there, or it will come
 * by itself, so that nobody needs to join again. */
void dispatch_gap(struct node *node, struct bytes room, unsigned lanes, bool no_join);
void dispatch_expire_rates(struct node *node); /* forgets users and rooms that owe nothing */
void dispatch_free_rooms(struct node *node);

/* Tells the worker what became of a viewer's send and frees publish; id may be empty. */
void dispatch_settle(struct node *node, struct publish *publish, int result, struct bytes id);

/* For log lines: whose message it is. */
struct log_field dispatch_whose(enum message_kind kind, struct bytes name);

/* Parses and judges one payload. name: of the room or user; empty for MESSAGE_ALL. Returns a message with its lane, or NULL when it was
 * dropped (and counted). */
struct message *dispatch_judge(struct node *node, enum message_kind kind, struct bytes name,
                               struct bytes payload);
void dispatch_to_all(struct node *node, struct message *message);
/* Sends an order to another node; what becomes of it is not asked. */
void dispatch_tell(struct node *node, struct bytes name, struct bytes payload);
/* What is no message and no order: counted and logged. */
void dispatch_bad(struct node *node, const char *why, struct bytes name, struct bytes payload);
/* Publishes an HTTP request's message to a user; as dispatch_publish_http(). */
int dispatch_publish_user(struct node *node, struct admin_request *request, struct bytes user,
                          struct bytes payload);

/* users.c */
void users_on_message(struct node *node, struct bytes payload); /* <prefix>:users */
void users_on_order(struct node *node, struct bytes payload);   /* <prefix>:node:<node> */
/* Asks all nodes, for a second at most, then answers the request. */
void users_ask(struct node *node, enum query_kind kind, struct bytes user,
               struct admin_request *request);
void users_answered(struct node *node, struct worker_query *query); /* by the workers here */
void users_abandoned(struct worker_query *query);                   /* they never will */
void users_abandon(struct node *node); /* answers every request that still waits: the node stops */

/* sessions.c */
void sessions_opened(struct node *node, const struct command *command);
void sessions_closed(struct node *node, const struct command *command);
/* Another node has a newer connection of the session than this one. */
void sessions_replaced(struct node *node, struct bytes user, struct bytes session,
                       struct bytes connection);
void sessions_tick(struct node *node); /* renews what Redis knows */
void sessions_free(struct node *node);

/* events.c */
void events_init(struct node *node);
void events_take(struct node *node, const struct command *command);
bool events_settled(const struct node *node); /* nothing waits that Redis could take */
void events_stop(
    struct node *node); /* sends what waits; node_events_settled() when it has settled */
void events_free(struct node *node);

/* queue.c */
void queue_append(struct node *node, const struct command *command, struct publish *publish);

/* merge.c, merge_up.c, merge_down.c */
void merges_init(struct node *node);
void merges_fini(struct node *node);
void merges_start_ticking(struct node *node);
/* Nothing more comes from viewers: sends what is gathered, then calls node_merged(). */
void merges_stop(struct node *node);
void merge_up_init(struct node *node);
void merge_up_fini(struct node *node);
void merge_up_put(struct node *node, struct command *command); /* takes a COMMAND_MERGE */
void merge_up_tick(struct node *node, uint64_t now);
void merge_up_settled(struct node *node, struct up *up, int result);
void merge_down_init(struct node *node);
void merge_down_fini(struct node *node);
void merge_down_put(struct node *node, const struct conf_type *type, struct message *message);
void merge_down_tick(struct node *node, uint64_t now);

/* kept.c */
enum kept_verdict { KEPT_ADDED, KEPT_REPEAT, KEPT_OTHER, KEPT_FULL, KEPT_FAILED };
struct kept {
    enum kept_verdict verdict;
    int result;      /* for dispatch_settle() */
    struct bytes id; /* borrowed from the answer; empty where it has none */
};
/* Of an answer of publish.lua or queue.lua, or of none. */
struct kept kept_read(int result, const struct broker_value *value);

/* publish.c */
/* Returns 0 when on its way (dispatch_settle() follows, or came already), or BROKER_ERR_…. */
int history_publish(struct node *node, struct publish *publish, const struct numbered *numbered);
void history_publish_viewer(struct node *node, const struct command *command,
                            struct publish *publish);
int history_publish_http(struct node *node, struct admin_request *request,
                         const struct numbered *numbered);
struct backlog_bounds history_bounds(const struct node *node);

/* tickets.c */
void tickets_find(struct node *node, const struct command *command);
void tickets_bind(struct node *node, const struct command *command);
void tickets_expire(
    struct node *node); /* forgets used tickets that have expired, a slice of them */
void tickets_free(struct node *node);

/* api.c */
extern const struct admin_ops node_admin_ops;
/* id: empty, or what the message got. */
void api_published(struct admin_request *request, int result, struct bytes id,
                   const struct frame_size *size);
bool api_ask_workers(struct node *node, enum query_kind kind, struct bytes name, void *request);
void api_query_done(struct node *node, struct worker_query *query);
void api_abandon(struct node *node);

/* drain.c */
bool drain_begin(struct node *node); /* false: it was told before */
void drain_request(struct node *node, struct admin_request *request, struct bytes body);
void drain_tick(struct node *node);
void drain_on_other(void *ctx);
void drain_on_drained(struct node *node, const struct command *command);
void drain_on_stopped(struct node *node);
void drain_settle(
    struct node *node); /* viewers and merges are gone: ends when the broker has everything */

/* node.c */
void node_events_settled(struct node *node); /* after events_stop() */
void node_merged(struct node *node); /* after merges_stop(): everything is with the broker */
void node_end(struct node *node);
/* The other nodes are told that this one counts no more, which may not take long; then it ends. */
void node_leave(struct node *node);
void node_update_broker_metrics(struct node *node);
