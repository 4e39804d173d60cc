/* worker.h: one thread with its own loop, listeners, viewers and rooms.
 *
 * Workers share no mutable state. Room messages come in through one bounded ring per lane, everything else through a mailbox; what
 * a worker wants of the node goes out through the node's mailbox.
 *
 * Path:      node (dispatch) -> [worker] -> viewers; viewers -> [worker] -> node.
 * Threads:   the functions below run on the main thread; all else on the worker's own.
 * Ownership: owns its listeners' descriptors, viewers, rooms, logs; references the conf.
 * Limits:    limits.* and lane.* of the conf.
 */
#pragma once

#include "base/list.h"
#include "base/mailbox.h"
#include "conf/conf.h"
#include "metrics/metrics.h"
#include "protocol/intent.h"

struct worker;

enum command_kind {
    /* node to worker */
    COMMAND_ROOM_LIVE, /* text: room; its subscription is confirmed; online: UINT32_MAX, not known; payload: a struct history_point per lane (epoch 0, n 1: it could not be read), or empty */
    COMMAND_ROOM_REFUSED, /* text: room; the node can't take it (limits.rooms) */
    COMMAND_HISTORY,      /* text: room; lane; object: struct history_batch, one reference */
    COMMAND_PUBLISHED, /* viewer, ref, result, text: id (may be empty); the fate of a COMMAND_PUBLISH */
    COMMAND_TICKET_ANSWER, /* viewer, ref (number of the inquiry), result: enum auth_result, payload: claims that were found */
    COMMAND_CLOSE,  /* viewer; result: enum close_reason */
    COMMAND_CONF,   /* object: struct conf with a reference for the worker */
    COMMAND_QUERY,  /* object: struct worker_query */
    COMMAND_DRAIN,  /* object: struct drain_order, freed by the worker */
    COMMAND_EXIT,   /* close every handle and end the thread */
    COMMAND_MERGED, /* a COMMAND_MERGE comes back with its result, when somebody waits for it */
    /* worker to node */
    COMMAND_HOLD,        /* text: room; the worker has its first viewer */
    COMMAND_RELEASE,     /* text: room; its last viewer left */
    COMMAND_ASK_HISTORY, /* text: room; lane; answered by COMMAND_HISTORY */
    COMMAND_PUBLISH, /* text: room, payload, user; answered by COMMAND_PUBLISHED when ref is present or it failed */
    COMMAND_MERGE, /* text: room; waiters, type and newest envelope; user where limits.user_rate is set */
    COMMAND_TICKET_FIND, /* payload: an opaque ticket; answered by COMMAND_TICKET_ANSWER, as is */
    COMMAND_TICKET_BIND, /* room: a ticket's digest, payload: whom it belongs to, until_s */
    COMMAND_OPENED,      /* viewer; text: session (may be empty), connection, user */
    COMMAND_CLOSED,      /* viewer; text: session (may be empty), nothing, user */
    COMMAND_COUNTS, /* payload: records {i32 viewers more or less, u8 length, name of the room} */
    COMMAND_EVENT, /* result: enum event_kind, id: for how long it has been open (ms); text: room, packed struct event, user */
    COMMAND_QUERY_DONE,
    COMMAND_DRAINED, /* id: serial of the order; nobody is left to be sent away */
    COMMAND_STOPPED  /* after DRAIN_LAST: no connection is left */
};

/* Steps of a drain. A worker may be told to skip some. */
enum drain_step {
    DRAIN_NOTICE,    /* /healthz says 503, all else is as ever */
    DRAIN_REFUSE,    /* handshakes are answered 503 */
    DRAIN_HAND_OVER, /* another process accepts: listeners close, who was accepted here is served */
    DRAIN_FAREWELL,  /* viewers are closed at the rate, then COMMAND_DRAINED */
    DRAIN_SHED,      /* the same for a share of them; the worker serves on */
    DRAIN_HURRY,     /* those that are left are closed at once */
    DRAIN_LAST       /* what waits for accept or shakes hands gets its 503, then COMMAND_STOPPED */
};

struct drain_order {
    enum drain_step step;
    uint64_t serial;    /* FAREWELL, SHED */
    uint64_t since_ms;  /* of clock_ms(): the rate counts from then, and … */
    uint64_t base;      /* … from this value of worker_setup.farewells */
    uint32_t rate;      /* closes a second of all workers together */
    uint32_t spread_ms; /* viewers are told to come back within so long */
    uint32_t share;     /* SHED: millionths */
};

/* Sends of one room and merged type. */
struct command_merge {
    enum conf_merge kind;
    uint32_t sends;
    uint32_t waiters; /* struct merge_waiter, at the start of the payload */
    uint32_t type_len;
    uint64_t delta;
};

/* A viewer that is to be told what became of its send; without a ref only when its user sends too fast. */
struct merge_waiter {
    uint64_t id;
    uint64_t ref;
    uint32_t slot;
    bool has_ref;
};

struct command {
    struct link link;
    enum command_kind kind;
    uint32_t worker; /* index of the worker that sent it, or that it is for */
    uint32_t slot;   /* viewer: slot and id */
    uint64_t id;
    struct intent_ref ref;
    int result;
    uint32_t retry_after_ms; /* PUBLISHED, with PUBLISH_ERR_…_RATE */
    enum lane lane;          /* PUBLISH: of the type */
    bool
        queued; /* PUBLISH: into a queue; the payload is a packed struct queued (protocol/queued.h) */
    bool kept; /* PUBLISH: of a type with history; packed the same way, data is the envelope */
    uint64_t until_s; /* TICKET_BIND: when the ticket expires, Unix time */
    uint64_t time_ms; /* EVENT: when it happened, Unix time */
    uint32_t online;  /* ROOM_LIVE */
    void *object;
    struct command_merge merge; /* MERGE, MERGED */
    uint32_t room_len;
    uint32_t payload_len;
    uint32_t user_len;
    char text[]; /* room, payload, user */
};

/* Results of a COMMAND_PUBLISH beside the broker's. */
enum {
    PUBLISH_ERR_USER_RATE = -5401, /* limits.user_rate */
    PUBLISH_ERR_ROOM_RATE = -5402, /* limits.room_send_rate */
    PUBLISH_ERR_DUPLICATE = -5411, /* the key came before, with other content */
    PUBLISH_ERR_QUEUE_FULL = -5412 /* queue.max_length */
};

/* The newest messages of a room's lane, shared by the workers whose viewers missed some of them. */
struct history_batch {
    _Atomic uint32_t refs;
    int error;                 /* 0, or BROKER_ERR_…: nothing is known */
    uint64_t asked_ms;         /* monotonic: what came before is in it */
    struct history_point last; /* of the lane; epoch 0: it has none */
    uint64_t first;            /* number of the first message */
    uint32_t count;
    struct message *messages[]; /* one after the other; NULL: could not be read */
};

void history_batch_unref(struct history_batch *batch); /* NULL is fine */

static inline struct bytes command_room(const struct command *command)
{
    return bytes_of(command->text, command->room_len);
}

static inline struct bytes command_payload(const struct command *command)
{
    return bytes_of(command->text + command->room_len, command->payload_len);
}

static inline struct bytes command_user(const struct command *command)
{
    return bytes_of(command->text + command->room_len + command->payload_len, command->user_len);
}

static inline struct merge_waiter command_waiter(const struct command *command, uint32_t index)
{
    struct merge_waiter waiter;
    memcpy(&waiter, command->text + command->room_len + index * sizeof(waiter), sizeof(waiter));
    return waiter;
}

static inline struct bytes command_type(const struct command *command)
{
    return bytes_of(command->text + command->room_len +
                        command->merge.waiters * sizeof(struct merge_waiter),
                    command->merge.type_len);
}

/* MERGE_LATEST: the newest message. */
static inline struct bytes command_newest(const struct command *command)
{
    struct bytes type = command_type(command);
    const char *end = command->text + command->room_len + command->payload_len;
    return bytes_of(type.data + type.len, (size_t)(end - type.data) - type.len);
}

/* Returns NULL when memory is out. Free with free(). */
struct command *command_create(enum command_kind kind, struct bytes room, struct bytes payload);
/* The same, on behalf of a user. */
struct command *command_create_for(enum command_kind kind, struct bytes room, struct bytes payload,
                                   struct bytes user);

/* A question to all workers; each fills its own answer, the last one back completes it. */
enum query_kind { QUERY_ROOMS, QUERY_ROOM, QUERY_CONNECTIONS, QUERY_KICK };

struct query_answer {
    struct buf
        text; /* ROOMS: records {u32 viewers, u8 length, name}; CONNECTIONS: JSON objects, comma-separated */
    uint64_t count;     /* ROOM: viewers; CONNECTIONS, KICK: connections */
    bool found;         /* ROOM */
    uint64_t log_bytes; /* ROOM */
};

struct worker_query {
    struct link link; /* on the node's list */
    enum query_kind kind;
    char name[USER_NAME_MAX + 1];
    size_t name_len;
    void *request;       /* the node's */
    uint32_t unanswered; /* main thread */
    uint32_t workers;
    struct query_answer answers[]; /* one per worker */
};

struct worker_setup {
    uint32_t index;
    struct conf *conf;    /* referenced by create */
    const int *listeners; /* descriptors; taken over */
    uint32_t listener_count;
    bool
        steady; /* who has been here before comes to this worker again: addresses don't change workers */
    uint32_t connection_seed;                  /* makes connection ids unique over restarts */
    _Atomic uint32_t *connections;             /* of the whole node, shared by all workers */
    const _Atomic uint32_t *connections_limit; /* may change when the conf is reloaded */
    _Atomic uint32_t *handshakes; /* the node's bucket of new connections (bucket_take_shared) */
    _Atomic uint32_t *ramp;       /* the same of the start-up ramp */
    uint64_t started_ms;          /* of clock_ms(): the ramp's beginning */
    _Atomic uint64_t *farewells;  /* viewers sent away at the rate so far, by all workers */
    uint32_t partings; /* refused connections that may wait for their peer's end; at least 1 */
    struct mailbox *node_mailbox;
    void (*wake_node)(void *ctx); /* thread-safe */
    void *ctx;
};

/* Makes the worker and starts its thread. Returns 0 or a libuv error; the listeners are taken over in any case. */
int worker_create(struct worker **out, const struct worker_setup *setup);

/* Puts a room message into its lane's ring and takes a reference of its own. Returns false when the ring is full. Call worker_wake() when a batch is through. */
bool worker_deliver(struct worker *worker, struct message *message);

/* Messages that the ring of this lane can still take. */
uint32_t worker_room_left(const struct worker *worker, enum lane lane);

/* Gives a command to the worker and wakes it. */
void worker_post(struct worker *worker, struct command *command);

void worker_wake(struct worker *worker);

/* Counts up as long as the worker's loop turns: the watchdog is fed only when all did. */
uint64_t worker_ticks(const struct worker *worker);

struct worker_metrics *worker_metrics(struct worker *worker);

/* After COMMAND_EXIT was posted: waits for the thread's end and frees everything. NULL is fine. */
void worker_join(struct worker *worker);
