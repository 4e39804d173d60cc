/* redis_conn.h: one connection to Redis that comes back by itself.
 *
 *     WAITING (backoff) -> DIALING -> GREETING (AUTH, PING) -> LIVE -> WAITING …      CLOSED from everywhere
 *
 * Only an answer makes it live: a Redis that accepts and stays silent, or answers LOADING, NOAUTH or any other error,
 * is as good as away. A live connection is given up when commands wait for answers and none of its bytes came for
 * reply_timeout; when it was quiet for `silence`, PING asks. Time spent paused does not count.
 *
 * Path:      redis_dial -> [conn] -> redis (replies by callback).
 * Threads:   the broker's loop.
 * Ownership: owns socket, reader and output; borrows URL, limits and handle count from the broker.
 * Limits:    broker.connect_timeout, reply_timeout, silence; unfinished replies REDIS_REPLY_MAX_BYTES or twice
 *            broker.message_bytes; output is bounded by whoever appends to it.
 */
#pragma once

#include "broker/broker_backend.h"
#include "broker/redis_dial.h"
#include "broker/redis_wire.h"

enum redis_conn_state {
    REDIS_CONN_WAITING,
    REDIS_CONN_DIALING,
    REDIS_CONN_GREETING,
    REDIS_CONN_LIVE,
    REDIS_CONN_CLOSED
};

enum {
    REDIS_REPLY_MAX_BYTES = 16 << 20,
    REDIS_READ_SLICE = 64 * 1024, /* read per loop turn, so that others get theirs */
    REDIS_BACKOFF_MIN_MS = 50,
    REDIS_BACKOFF_MAX_MS = 1000
};

struct redis_conn;

/* Called from the loop only, never from inside the calls below. */
struct redis_conn_events {
    void (*on_up)(struct redis_conn *conn); /* became LIVE */
    void (*on_down)(
        struct redis_conn *conn); /* was LIVE; all that was sent and not answered is lost */
    /* A reply that is no PONG. It and its text are borrowed. Returns 0, or negative to give the connection up as one
     * that makes no sense. */
    int (*on_reply)(struct redis_conn *conn, const struct broker_value *reply);
    void (*on_drained)(struct redis_conn *conn); /* all output is sent */
    /* Before it is read: what is more urgent may be read first. */
    void (*before_read)(struct redis_conn *conn);
    bool (*may_read)(struct redis_conn *conn); /* false pauses until redis_conn_resume() */
};

struct redis_conn {
    const char *name; /* for logs */
    struct broker *broker;
    const struct broker_url *url;
    const struct redis_conn_events *events;
    struct redis_dial dial;
    uv_timer_t timer;
    enum redis_conn_state state;
    struct redis_socket *socket;
    struct wire wire;
    struct buf out;     /* append commands here, then redis_conn_expect() and redis_conn_flush() */
    size_t sent;        /* bytes of out that are sent already */
    uint32_t waiting;   /* replies that are expected */
    unsigned greetings; /* of them, those of AUTH and PING in GREETING */
    bool pinging;
    bool paused;
    bool settled;
    uint64_t heard_ms; /* when bytes came last */
    uint64_t
        since_ms; /* since when the oldest expected reply is waited for, or when bytes came last */
    uint32_t backoff_ms;
    uint64_t random;
    const char *told; /* the reason logged last, and when */
    uint64_t told_ms;
    uint64_t connects; /* times it became LIVE */
    uint64_t protocol_errors;
};

/* Fill in name, broker, url, events, dial.loop and dial.handles first. */
void redis_conn_init(struct redis_conn *conn);

void redis_conn_start(struct redis_conn *conn);

/* Commands with so many replies were appended to out. Sends nothing: flush does. */
void redis_conn_expect(struct redis_conn *conn, uint32_t replies);

/* One expected reply was found. */
void redis_conn_answered(struct redis_conn *conn);

static inline size_t redis_conn_unsent(const struct redis_conn *conn)
{
    return conn->out.len - conn->sent;
}

/* Sends what the socket takes, the rest when it is writable. */
void redis_conn_flush(struct redis_conn *conn);

/* Reads up to about max_bytes while the connection is live and not paused. */
void redis_conn_read(struct redis_conn *conn, size_t max_bytes);

/* Undoes a pause: what was read already is handled now. */
void redis_conn_resume(struct redis_conn *conn);

/* It does all it is for: when that lasts for a tick, the next backoff starts small again. */
void redis_conn_settled(struct redis_conn *conn);

/* Gives a live connection up; on_down follows from within. */
void redis_conn_fail(struct redis_conn *conn, const char *reason, struct bytes detail);

/* New limits: timers follow. */
void redis_conn_set_limits(struct redis_conn *conn);

/* Closes all handles, without callbacks. redis_conn_fini() when they are gone. */
void redis_conn_close(struct redis_conn *conn);
void redis_conn_fini(struct redis_conn *conn);
