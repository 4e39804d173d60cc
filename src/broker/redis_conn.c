#include "broker/redis_conn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>

enum {
    READ_CHUNK =
        16 * 1024, /* hiredis moves the rest of its buffer while it parses: keep that short */
    OUT_KEEP_BYTES = 256 * 1024,   /* output memory that is kept when all is sent */
    OUT_COMPACT_BYTES = 64 * 1024, /* sent bytes that stay in front of the unsent ones at most */
    TOLD_AGAIN_MS = 10000,         /* the same reason is logged so often */
    TICK_MIN_MS = 5
};

static void start_dialing(uv_timer_t *timer);
static void on_tick(uv_timer_t *timer);
static void on_greeting_timeout(uv_timer_t *timer);

static struct bytes no_detail(void)
{
    return BYTES_LIT("");
}

static void set_state(struct redis_conn *conn, enum redis_conn_state state)
{
    static const unsigned successors[] = {
        [REDIS_CONN_WAITING] = 1u << REDIS_CONN_DIALING | 1u << REDIS_CONN_CLOSED,
        [REDIS_CONN_DIALING] =
            1u << REDIS_CONN_GREETING | 1u << REDIS_CONN_WAITING | 1u << REDIS_CONN_CLOSED,
        [REDIS_CONN_GREETING] =
            1u << REDIS_CONN_LIVE | 1u << REDIS_CONN_WAITING | 1u << REDIS_CONN_CLOSED,
        [REDIS_CONN_LIVE] = 1u << REDIS_CONN_WAITING | 1u << REDIS_CONN_CLOSED,
        [REDIS_CONN_CLOSED] = 0,
    };
    REQUIRE(successors[conn->state] & 1u << state);
    conn->state = state;
}

static bool is_open(const struct redis_conn *conn)
{
    return conn->state == REDIS_CONN_GREETING || conn->state == REDIS_CONN_LIVE;
}

/* What an operator can do about an error of Redis, by its beginning. */
static const char *advice_for(struct bytes error)
{
    static const struct {
        const char *begins;
        const char *advice;
    } table[] = {
        {"NOAUTH",
         "Redis asks for a password: give one in broker.url (redis://user:password@host:port)"},
        {"WRONGPASS", "check user and password in broker.url"},
        {"ERR invalid password", "check the password in broker.url"},
        {"ERR Client sent AUTH", "this Redis has no password: take it out of broker.url"},
        {"ERR AUTH", "this Redis has no such password or user: check them in broker.url"},
        {"NOPERM", "grant this Redis user the channels <broker.prefix>:* and publish, subscribe, "
                   "unsubscribe, ping (ACL SETUSER)"},
        {"LOADING", "none needed: Redis still reads its data, this node tries again"},
        {"MASTERDOWN", "this replica has lost its master: point broker.url at the master"},
        {"DENIED",
         "Redis is in protected mode: give it a password or let it bind to loopback only"},
        {"ERR max number of clients", "raise maxclients in Redis"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        size_t len = strlen(table[i].begins);
        if (error.len >= len && memcmp(error.data, table[i].begins, len) == 0)
            return table[i].advice;
    }
    return "see that broker.url leads to a Redis that answers";
}

static void tell(struct redis_conn *conn, const char *reason, struct bytes detail,
                 uint64_t retry_ms)
{
    uint64_t now = clock_ms();
    if (conn->told == reason && now - conn->told_ms < TOLD_AGAIN_MS)
        return;
    conn->told = reason;
    conn->told_ms = now;
    char address[sizeof(conn->url->host) + 8];
    snprintf(address, sizeof(address), strchr(conn->url->host, ':') ? "[%s]:%u" : "%s:%u",
             conn->url->host, (unsigned)conn->url->port);
    log_warn("redis is away", LOG_STR("connection", conn->name), LOG_STR("address", address),
             LOG_STR("reason", reason), LOG_BYTES("detail", detail),
             LOG_STR("advice", advice_for(detail)), LOG_UINT("retry_ms", retry_ms));
}

static uint64_t next_delay_ms(struct redis_conn *conn)
{
    /* Half to all of the step, so that nodes which lost Redis together don't return together. */
    uint64_t half = conn->backoff_ms / 2;
    uint64_t delay = half + random_next(&conn->random) % (conn->backoff_ms - half + 1);
    conn->backoff_ms =
        conn->backoff_ms * 2 < REDIS_BACKOFF_MAX_MS ? conn->backoff_ms * 2 : REDIS_BACKOFF_MAX_MS;
    return delay;
}

void redis_conn_fail(struct redis_conn *conn, const char *reason, struct bytes detail)
{
    bool was_live = conn->state == REDIS_CONN_LIVE;
    uint64_t delay = next_delay_ms(conn);
    tell(conn, reason, detail, delay);
    redis_socket_close(conn->socket);
    conn->socket = NULL;
    /* Last use of detail, which may point into the reader. */
    wire_fini(&conn->wire);
    buf_fini(&conn->out);
    conn->sent = 0;
    conn->waiting = 0;
    conn->pinging = false;
    conn->paused = false;
    conn->settled = false;
    set_state(conn, REDIS_CONN_WAITING);
    uv_timer_start(&conn->timer, start_dialing, delay, 0);
    if (was_live)
        conn->events->on_down(conn);
}

static void fail_uv(struct redis_conn *conn, const char *reason, int error)
{
    redis_conn_fail(conn, reason, bytes_str(uv_strerror(error)));
}

static void watch(struct redis_conn *conn)
{
    int events = (conn->paused ? 0 : UV_READABLE) | (redis_conn_unsent(conn) ? UV_WRITABLE : 0);
    int result = redis_socket_watch(conn->socket, events);
    if (result != 0)
        fail_uv(conn, "its socket cannot be watched", result);
}

static void compact(struct redis_conn *conn)
{
    if (redis_conn_unsent(conn) == 0) {
        conn->sent = 0;
        buf_clear(&conn->out);
        if (conn->out.cap > OUT_KEEP_BYTES)
            buf_fini(&conn->out);
    } else if (conn->sent > OUT_COMPACT_BYTES && conn->sent > conn->out.len / 2) {
        buf_consume(&conn->out, conn->sent);
        conn->sent = 0;
    }
}

void redis_conn_flush(struct redis_conn *conn)
{
    if (!is_open(conn))
        return;
    while (redis_conn_unsent(conn) > 0) {
        ssize_t n = send(conn->socket->fd, conn->out.data + conn->sent, redis_conn_unsent(conn),
                         MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0) {
            fail_uv(conn, "the connection broke", uv_translate_sys_error(errno));
            return;
        }
        conn->sent += (size_t)n;
    }
    compact(conn);
    watch(conn);
}

void redis_conn_expect(struct redis_conn *conn, uint32_t replies)
{
    if (conn->waiting == 0)
        conn->since_ms = clock_ms();
    conn->waiting += replies;
}

void redis_conn_answered(struct redis_conn *conn)
{
    if (conn->waiting > 0)
        conn->waiting--;
}

static uint64_t tick_ms(const struct redis_conn *conn)
{
    const struct broker_limits *limits = &conn->broker->limits;
    uint32_t shortest = limits->reply_timeout_ms < limits->silence_ms ? limits->reply_timeout_ms
                                                                      : limits->silence_ms;
    return shortest / 4 > TICK_MIN_MS ? shortest / 4 : TICK_MIN_MS;
}

static void become_live(struct redis_conn *conn)
{
    set_state(conn, REDIS_CONN_LIVE);
    conn->connects++;
    uv_timer_start(&conn->timer, on_tick, tick_ms(conn), tick_ms(conn));
    conn->events->on_up(conn);
}

/* AUTH (when there is one) answers with +OK, PING with +PONG; any error means that this Redis can't serve us yet. */
static void take_greeting(struct redis_conn *conn, const struct broker_value *reply)
{
    redis_conn_answered(conn);
    conn->greetings--;
    bool is_last = conn->greetings == 0;
    if (reply->kind == BROKER_ERROR)
        redis_conn_fail(conn, is_last ? "it refuses PING" : "it refuses AUTH", reply->text);
    else if (is_last && !wire_is_pong(reply))
        redis_conn_fail(conn, "its answer to PING is not PONG", no_detail());
    else if (is_last)
        become_live(conn);
}

static void take_reply(struct redis_conn *conn)
{
    const struct broker_value *reply = conn->wire.reply;
    if (conn->state == REDIS_CONN_GREETING) {
        take_greeting(conn, reply);
    } else if (conn->pinging && wire_is_pong(reply)) {
        conn->pinging = false;
        redis_conn_answered(conn);
    } else if (conn->events->on_reply(conn, reply) == 0 || conn->state != REDIS_CONN_LIVE) {
        return;
    } else if (reply->kind == BROKER_ERROR) {
        redis_conn_fail(conn, "it refuses a command", reply->text);
    } else {
        conn->protocol_errors++;
        redis_conn_fail(conn, "it answers what was not asked", no_detail());
    }
}

/* Handles the replies that were read. Returns true when more bytes are needed to go on. */
static bool take_replies(struct redis_conn *conn)
{
    for (;;) {
        if (!is_open(conn))
            return false;
        if (conn->state == REDIS_CONN_LIVE && !conn->events->may_read(conn)) {
            conn->paused = true;
            watch(conn);
            return false;
        }
        int result = wire_next(&conn->wire);
        if (result == 0)
            return true;
        if (result < 0) {
            conn->protocol_errors++;
            redis_conn_fail(conn, "its reply cannot be read", bytes_str(conn->wire.why));
            return false;
        }
        take_reply(conn);
    }
}

/* Returns the number of bytes read; 0 when none wait in the socket or the connection is lost. */
static size_t read_chunk(struct redis_conn *conn)
{
    char chunk[READ_CHUNK];
    ssize_t n;
    do
        n = recv(conn->socket->fd, chunk, sizeof(chunk), 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (n <= 0) {
        fail_uv(conn, "the connection broke", n == 0 ? UV_EOF : uv_translate_sys_error(errno));
        return 0;
    }
    conn->heard_ms = conn->since_ms = clock_ms();
    int result = wire_feed(&conn->wire, chunk, (size_t)n);
    if (result != 0) {
        conn->protocol_errors++;
        redis_conn_fail(conn, "its reply cannot be read", bytes_str(conn->wire.why));
        return 0;
    }
    return (size_t)n;
}

void redis_conn_read(struct redis_conn *conn, size_t max_bytes)
{
    size_t total = 0;
    if (!is_open(conn) || conn->paused)
        return;
    while (take_replies(conn) && total < max_bytes) {
        size_t n = read_chunk(conn);
        if (n == 0)
            return;
        total += n;
    }
}

void redis_conn_resume(struct redis_conn *conn)
{
    if (!is_open(conn) || !conn->paused)
        return;
    conn->paused = false;
    conn->heard_ms = conn->since_ms = clock_ms();
    redis_conn_read(conn, REDIS_READ_SLICE);
    if (is_open(conn))
        watch(conn);
}

static void on_poll(struct redis_socket *socket, int status, int events)
{
    struct redis_conn *conn = socket->owner;
    if (status < 0 || events & UV_READABLE) {
        if (conn->state == REDIS_CONN_LIVE)
            conn->events->before_read(conn);
        if (conn->socket == socket)
            redis_conn_read(conn, REDIS_READ_SLICE);
    }
    if (conn->socket == socket && status < 0) {
        int error = 0;
        socklen_t len = sizeof(error);
        if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
            error = errno;
        fail_uv(conn, "the connection broke", error ? uv_translate_sys_error(error) : UV_EOF);
        return;
    }
    if (conn->socket == socket && events & UV_WRITABLE) {
        redis_conn_flush(conn);
        if (conn->state == REDIS_CONN_LIVE && redis_conn_unsent(conn) == 0)
            conn->events->on_drained(conn);
    }
}

/* Redis' AUTH takes a password, or a user and a password (Redis 6). */
static void append_auth(struct redis_conn *conn)
{
    const struct broker_url *url = conn->url;
    if (url->password[0] == '\0')
        return;
    wire_command_start(&conn->out, url->user[0] ? 3 : 2);
    wire_command_arg(&conn->out, BYTES_LIT("AUTH"));
    if (url->user[0])
        wire_command_arg(&conn->out, bytes_str(url->user));
    wire_command_arg(&conn->out, bytes_str(url->password));
    redis_conn_expect(conn, 1);
}

static void append_ping(struct redis_conn *conn)
{
    wire_command_start(&conn->out, 1);
    wire_command_arg(&conn->out, BYTES_LIT("PING"));
    redis_conn_expect(conn, 1);
}

static void on_dialed(void *ctx, struct redis_socket *socket, const char *reason, int error)
{
    struct redis_conn *conn = ctx;
    if (!socket) {
        fail_uv(conn, reason, error);
        return;
    }
    size_t twice = (size_t)conn->broker->limits.message_bytes * 2;
    socket->owner = conn;
    socket->on_poll = on_poll;
    conn->socket = socket;
    conn->heard_ms = clock_ms();
    int result =
        wire_init(&conn->wire, twice > REDIS_REPLY_MAX_BYTES ? twice : REDIS_REPLY_MAX_BYTES);
    append_auth(conn);
    append_ping(conn);
    conn->greetings = conn->waiting;
    if (result != 0 || conn->out.failed) {
        fail_uv(conn, "out of memory", UV_ENOMEM);
        return;
    }
    set_state(conn, REDIS_CONN_GREETING);
    uv_timer_start(&conn->timer, on_greeting_timeout, conn->broker->limits.reply_timeout_ms, 0);
    redis_conn_flush(conn);
}

static void on_greeting_timeout(uv_timer_t *timer)
{
    struct redis_conn *conn = CONTAINER_OF(timer, struct redis_conn, timer);
    /* When the loop itself was late the answer lies there unread. */
    redis_conn_read(conn, REDIS_READ_SLICE);
    if (conn->state == REDIS_CONN_GREETING)
        redis_conn_fail(conn,
                        "it accepts connections but does not answer within "
                        "broker.reply_timeout",
                        no_detail());
}

static void on_tick(uv_timer_t *timer)
{
    struct redis_conn *conn = CONTAINER_OF(timer, struct redis_conn, timer);
    const struct broker_limits *limits = &conn->broker->limits;
    if (conn->settled)
        conn->backoff_ms = REDIS_BACKOFF_MIN_MS;
    /* When the loop itself was late the answers lie there unread. */
    if (conn->waiting > 0 && clock_ms() - conn->since_ms >= limits->reply_timeout_ms)
        redis_conn_read(conn, REDIS_READ_SLICE);
    /* While paused nothing can be heard, and nothing is asked. */
    if (conn->state != REDIS_CONN_LIVE || conn->paused)
        return;
    uint64_t now = clock_ms();
    if (conn->waiting > 0 && now - conn->since_ms >= limits->reply_timeout_ms) {
        redis_conn_fail(conn, "it does not answer within broker.reply_timeout", no_detail());
    } else if (conn->waiting == 0 && now - conn->heard_ms >= limits->silence_ms) {
        append_ping(conn);
        conn->pinging = true;
        if (conn->out.failed)
            fail_uv(conn, "out of memory", UV_ENOMEM);
        else
            redis_conn_flush(conn);
    }
}

static void start_dialing(uv_timer_t *timer)
{
    struct redis_conn *conn = CONTAINER_OF(timer, struct redis_conn, timer);
    set_state(conn, REDIS_CONN_DIALING);
    redis_dial_start(&conn->dial, conn->broker->limits.connect_timeout_ms);
}

void redis_conn_init(struct redis_conn *conn)
{
    conn->state = REDIS_CONN_WAITING;
    conn->backoff_ms = REDIS_BACKOFF_MIN_MS;
    conn->random = random_seed();
    conn->dial.url = conn->url;
    conn->dial.on_done = on_dialed;
    conn->dial.ctx = conn;
    (void)uv_timer_init(conn->dial.loop, &conn->timer); /* Always 0. */
    conn->dial.handles->open++;
    redis_dial_init(&conn->dial);
}

void redis_conn_start(struct redis_conn *conn)
{
    uv_timer_start(&conn->timer, start_dialing, 0, 0);
}

void redis_conn_settled(struct redis_conn *conn)
{
    conn->settled = true;
}

void redis_conn_set_limits(struct redis_conn *conn)
{
    if (conn->state == REDIS_CONN_LIVE)
        uv_timer_start(&conn->timer, on_tick, tick_ms(conn), tick_ms(conn));
}

static void on_timer_closed(uv_handle_t *handle)
{
    redis_handles_closed(CONTAINER_OF(handle, struct redis_conn, timer)->dial.handles);
}

void redis_conn_close(struct redis_conn *conn)
{
    set_state(conn, REDIS_CONN_CLOSED);
    redis_socket_close(conn->socket);
    conn->socket = NULL;
    redis_dial_close(&conn->dial);
    uv_close((uv_handle_t *)&conn->timer, on_timer_closed);
}

void redis_conn_fini(struct redis_conn *conn)
{
    wire_fini(&conn->wire);
    buf_fini(&conn->out);
}
