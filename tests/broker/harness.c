#include "harness.h"

#include "base/clock.h"
#include "base/map.h"
#include "broker/redis_wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 20000 };

static struct event *add(struct harness *h, enum event_kind kind, struct bytes room)
{
    if (h->count == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 1024;
        h->events = realloc(h->events, h->cap * sizeof(struct event));
        assert_non_null(h->events);
    }
    struct event *event = &h->events[h->count++];
    *event = (struct event){.kind = kind};
    assert_true(room.len <= ROOM_NAME_MAX);
    if (room.len > 0)
        memcpy(event->room, room.data, room.len);
    return event;
}

static void on_message(void *ctx, enum broker_channel channel, struct bytes room,
                       struct bytes payload)
{
    struct harness *h = ctx;
    struct event *event = add(h, ON_MESSAGE, room);
    event->channel = (int)channel;
    event->value = (int64_t)payload.len;
    size_t len = payload.len < sizeof(event->payload) ? payload.len : sizeof(event->payload) - 1;
    memcpy(event->payload, payload.data, len);
    h->messages++;
    if (h->close_on_message)
        harness_close(h);
}

static void on_subscribed(void *ctx, struct bytes room)
{
    struct harness *h = ctx;
    add(h, ON_SUBSCRIBED, room);
    h->subscribed++;
}

static void on_ready(void *ctx, bool ready)
{
    struct harness *h = ctx;
    assert_true(ready != h->ready);
    h->ready = ready;
    add(h, ON_READY, BYTES_LIT(""))->value = ready;
}

static void on_gap(void *ctx, struct bytes room, unsigned lanes)
{
    add(ctx, ON_GAP, room)->value = lanes;
}

static void on_published(void *ctx, uint64_t token, int result)
{
    struct harness *h = ctx;
    struct event *event = add(h, ON_PUBLISHED, BYTES_LIT(""));
    event->value = (int64_t)token;
    event->result = result;
    h->published++;
}

static bool may_read(void *ctx, bool high)
{
    const struct harness *h = ctx;
    return !h->hold[high];
}

void harness_init(struct harness *h, const char *url)
{
    *h = (struct harness){0};
    map_seed();
    assert_int_equal(uv_loop_init(&h->loop), 0);
    assert_int_equal(uv_timer_init(&h->loop, &h->limit), 0);
    h->conf = calloc(1, sizeof(struct conf));
    assert_non_null(h->conf);
    snprintf(h->conf->broker.url, sizeof(h->conf->broker.url), "%s", url);
    snprintf(h->conf->broker.prefix, sizeof(h->conf->broker.prefix), "halley");
    h->conf->broker.connect_timeout_ms = 2000;
    h->conf->broker.reply_timeout_ms = 3000;
    h->conf->broker.silence_ms = 10000;
    h->conf->broker.pending = 65536;
    h->conf->broker.output_bytes = 16 << 20;
    h->conf->broker.message_bytes = 64 * 1024;
}

void harness_open(struct harness *h)
{
    static const struct broker_events events = {
        .on_message = on_message,
        .on_subscribed = on_subscribed,
        .on_ready = on_ready,
        .on_gap = on_gap,
        .on_published = on_published,
        .may_read = may_read,
    };
    h->broker = broker_create(&h->loop, h->conf, &events, h);
    assert_non_null(h->broker);
    assert_int_equal(h->count, 0);
}

static void on_closed(void *ctx)
{
    struct harness *h = ctx;
    h->closed = true;
    h->broker = NULL;
}

static void on_limit(uv_timer_t *timer)
{
    ((struct harness *)timer->data)->late = true;
}

static void set_limit(struct harness *h, uint64_t ms)
{
    h->late = false;
    h->limit.data = h;
    uv_update_time(&h->loop);
    uv_timer_start(&h->limit, on_limit, ms, 0);
}

void harness_close(struct harness *h)
{
    if (h->close_on_message) {
        /* From inside a callback: the rest is done by the next call. */
        h->close_on_message = false;
        broker_close(h->broker, on_closed);
        return;
    }
    if (h->broker && !h->closed)
        broker_close(h->broker, on_closed);
    uv_close((uv_handle_t *)&h->limit, NULL);
    /* Ends only when nothing is left on the loop, look-ups included. */
    uv_run(&h->loop, UV_RUN_DEFAULT);
    assert_true(h->closed || !h->broker);
    assert_int_equal(uv_loop_close(&h->loop), 0);
    free(h->events);
    free(h->conf);
}

void harness_until(struct harness *h, bool (*done)(struct harness *h))
{
    set_limit(h, LIMIT_MS);
    while (!done(h) && !h->late)
        uv_run(&h->loop, UV_RUN_ONCE);
    uv_timer_stop(&h->limit);
    assert_false(h->late);
}

void harness_turns(struct harness *h, int turns)
{
    for (int i = 0; i < turns; i++)
        uv_run(&h->loop, UV_RUN_NOWAIT);
}

void harness_for(struct harness *h, uint64_t ms)
{
    set_limit(h, ms);
    while (!h->late)
        uv_run(&h->loop, UV_RUN_ONCE);
}

bool is_ready(struct harness *h)
{
    return h->ready;
}

bool is_away(struct harness *h)
{
    return !h->ready;
}

int event_find(const struct harness *h, enum event_kind kind, const char *room, int n)
{
    for (size_t i = 0; i < h->count; i++) {
        const struct event *event = &h->events[i];
        if (event->kind == kind && (!room || strcmp(event->room, room) == 0) && n-- == 0)
            return (int)i;
    }
    return -1;
}

void events_clear(struct harness *h)
{
    h->count = 0;
    h->subscribed = h->messages = h->published = 0;
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int free_port(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void exec_redis(int out, int port, const char *password)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", port);
    /* The server must not outlive a test that was killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--requirepass", password, "--maxmemory", "64mb", (char *)NULL);
    _exit(127);
}

static void wait_served(FILE *log)
{
    char line[512];
    while (fgets(line, sizeof(line), log)) {
        if (strstr(line, "Ready to accept connections"))
            return;
    }
    fail_msg("redis-server did not start: is it installed?");
}

void redis_start(struct redis_server *server, int port, const char *password)
{
    int pipe_fds[2];
    *server = (struct redis_server){.port = port ? port : free_port()};
    snprintf(server->password, sizeof(server->password), "%s", password);
    assert_int_equal(pipe(pipe_fds), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        exec_redis(pipe_fds[1], server->port, server->password);
    close(pipe_fds[1]);
    FILE *log = fdopen(pipe_fds[0], "r");
    assert_non_null(log);
    wait_served(log);
    fclose(log);
    struct sockaddr_in address = loopback(server->port);
    server->control = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(server->control, (struct sockaddr *)&address, sizeof(address)), 0);
    if (*password)
        assert_string_equal(redis_ask(server, "AUTH %s", password), "OK");
}

void redis_stop(struct redis_server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    close(server->control);
    server->pid = 0;
}

static void send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        assert_true(n > 0);
        data += n;
        len -= (size_t)n;
    }
}

const char *redis_ask(struct redis_server *server, const char *format, ...)
{
    static char text[65536];
    static char chunk[65536];
    struct buf command = {0};
    struct wire wire;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text) - 2, format, args);
    va_end(args);
    buf_text(&command, text);
    BUF_LIT(&command, "\r\n");
    send_all(server->control, command.data, command.len);
    buf_fini(&command);
    assert_int_equal(wire_init(&wire, 1 << 24), 0);
    int result;
    while ((result = wire_next(&wire)) == 0) {
        ssize_t n = recv(server->control, chunk, sizeof(chunk), 0);
        assert_true(n > 0);
        assert_int_equal(wire_feed(&wire, chunk, (size_t)n), 0);
    }
    assert_int_equal(result, 1);
    const struct broker_value *top = wire.reply;
    if (top->kind == BROKER_INTEGER)
        snprintf(text, sizeof(text), "%lld", (long long)top->integer);
    else
        snprintf(text, sizeof(text), "%.*s", (int)top->text.len,
                 top->text.data ? top->text.data : "");
    wire_fini(&wire);
    return text;
}
