#include "site.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MAX_MS = 20000 };

const char ask_health[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const size_t ask_health_len = sizeof(ask_health) - 1;

static struct buf last_answer;

static void take(struct site *site, struct admin_request *request, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Remembers what was asked; answers with it unless the test wants to do that later. */
static void take(struct site *site, struct admin_request *request, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(site->said, sizeof(site->said), format, args);
    va_end(args);
    site->calls++;
    if (site->hold) {
        assert_true(site->held_count < SITE_HELD_MAX);
        site->held[site->held_count++] = request;
    } else {
        admin_answer(request, 200, "text/plain", bytes_str(site->said), 0);
    }
}

static void on_publish(void *ctx, struct admin_request *request, struct bytes room,
                       struct bytes body)
{
    struct site *site = ctx;
    buf_clear(&site->body);
    buf_bytes(&site->body, body);
    take(site, request, "publish room=%.*s bytes=%zu", (int)room.len, room.data, body.len);
}

static void on_publish_user(void *ctx, struct admin_request *request, struct bytes user,
                            struct bytes body)
{
    take(ctx, request, "publish user=%.*s bytes=%zu", (int)user.len, user.data, body.len);
}

static void on_rooms(void *ctx, struct admin_request *request, uint32_t limit, struct bytes after,
                     enum rooms_sort sort)
{
    take(ctx, request, "rooms limit=%u after=%.*s sort=%s", limit, (int)after.len, after.data,
         sort == ROOMS_BY_VIEWERS ? "viewers" : "name");
}

static void on_room(void *ctx, struct admin_request *request, struct bytes room)
{
    take(ctx, request, "room %.*s", (int)room.len, room.data);
}

static void on_connections(void *ctx, struct admin_request *request, struct bytes user)
{
    take(ctx, request, "connections %.*s", (int)user.len, user.data);
}

static void on_kick(void *ctx, struct admin_request *request, struct bytes user)
{
    take(ctx, request, "kick %.*s", (int)user.len, user.data);
}

static void on_config(void *ctx, struct admin_request *request)
{
    take(ctx, request, "config");
}

static void on_drain(void *ctx, struct admin_request *request, struct bytes body)
{
    take(ctx, request, "drain bytes=%zu", body.len);
}

static void on_health(void *ctx, struct admin_request *request, bool ready)
{
    take(ctx, request, ready ? "ready" : "health");
}

static void on_metrics(void *ctx, struct admin_request *request)
{
    take(ctx, request, "metrics");
}

static const struct admin_ops ops = {
    .publish = on_publish,
    .publish_user = on_publish_user,
    .rooms = on_rooms,
    .room = on_room,
    .connections = on_connections,
    .kick = on_kick,
    .config = on_config,
    .health = on_health,
    .drain = on_drain,
    .metrics = on_metrics,
};

struct site *site_open(const char *token, uint32_t requests, unsigned timeout_s)
{
    struct site *site = calloc(1, sizeof(*site));
    assert_non_null(site);
    site->conf = calloc(1, sizeof(*site->conf));
    assert_non_null(site->conf);
    snprintf(site->conf->admin.listen, sizeof(site->conf->admin.listen), "127.0.0.1:0");
    snprintf(site->conf->admin.token, sizeof(site->conf->admin.token), "%s", token);
    site->conf->broker.message_bytes = 65536;
    site->conf->limits.admin_requests = requests;
    assert_int_equal(uv_loop_init(&site->loop), 0);
    assert_int_equal(
        admin_create_timed(&site->admin, &site->loop, site->conf, &ops, site, timeout_s), 0);
    return site;
}

static void on_closed(void *ctx)
{
    struct site *site = ctx;
    site->closed = true;
}

void site_begin_close(struct site *site)
{
    admin_close(site->admin, on_closed);
}

void site_close(struct site *site)
{
    if (!site->closed) {
        if (!atomic_load(&site->admin->closing))
            site_begin_close(site);
        site_until(site, NULL, 0, is_closed);
    }
    assert_int_equal(uv_loop_close(&site->loop), 0);
    buf_fini(&site->body);
    buf_fini(&last_answer);
    free(site->conf);
    free(site);
}

void client_open(struct site *site, struct client *client)
{
    const char *colon = strrchr(admin_address(site->admin), ':');
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(colon + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *client = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(client->fd >= 0);
    /* The kernel completes it without the gateway, whose backlog is longer than any crowd here. */
    assert_int_equal(connect(client->fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(fcntl(client->fd, F_SETFL, O_NONBLOCK), 0);
}

void client_send(struct client *client, const char *text)
{
    buf_text(&client->out, text);
}

void client_post(struct client *client, size_t announced, size_t sent)
{
    buf_printf(&client->out,
               "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
               "Content-Length: %zu\r\n\r\n",
               announced);
    for (size_t i = 0; i < sent; i++)
        buf_byte(&client->out, 'x');
}

void client_close(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    buf_fini(&client->out);
    buf_fini(&client->in);
}

static void client_write(struct client *client)
{
    ssize_t n = send(client->fd, client->out.data, client->out.len, MSG_NOSIGNAL);
    if (n > 0)
        buf_consume(&client->out, (size_t)n);
    else if (errno != EAGAIN)
        buf_clear(&client->out); /* nobody reads it; what was answered can still be read */
}

static void client_read(struct client *client)
{
    char chunk[16384];
    ssize_t n = recv(client->fd, chunk, sizeof(chunk), 0);
    if (n > 0) {
        buf_append(&client->in, chunk, (size_t)n);
        buf_byte(&client->in, '\0');
        client->in.len--;
    } else if (n == 0 || errno != EAGAIN) {
        client->ended = true;
    }
}

void site_turn(struct site *site, struct client *clients, size_t count, int wait_ms)
{
    struct pollfd fds[SITE_HELD_MAX + 1];
    assert_true(count <= SITE_HELD_MAX);
    for (size_t i = 0; i < count; i++) {
        bool silent = clients[i].ended || clients[i].fd < 0;
        fds[i] = (struct pollfd){.fd = silent ? -1 : clients[i].fd, .events = POLLIN};
        if (clients[i].out.len > 0)
            fds[i].events |= POLLOUT;
    }
    fds[count] = (struct pollfd){.fd = uv_backend_fd(&site->loop), .events = POLLIN};
    int timer = uv_backend_timeout(&site->loop);
    if (timer >= 0 && timer < wait_ms)
        wait_ms = timer;
    poll(fds, count + 1, wait_ms);
    for (size_t i = 0; i < count; i++) {
        if (fds[i].revents & POLLOUT)
            client_write(&clients[i]);
        if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
            client_read(&clients[i]);
    }
    uv_run(&site->loop, UV_RUN_NOWAIT);
}

void site_until(struct site *site, struct client *clients, size_t count, site_condition condition)
{
    uint64_t deadline = clock_ms() + WAIT_MAX_MS;
    while (!condition(site, clients, count)) {
        if (clock_ms() > deadline)
            fail_msg("waited in vain; last asked: %s", site->said);
        site_turn(site, clients, count, 20);
    }
}

bool all_ended(const struct site *site, const struct client *clients, size_t count)
{
    (void)site;
    for (size_t i = 0; i < count; i++) {
        if (!clients[i].ended)
            return false;
    }
    return true;
}

bool all_held(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    return site->held_count >= count;
}

bool all_gone(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    (void)count;
    return atomic_load(&site->admin->open) == 0;
}

bool is_closed(const struct site *site, const struct client *clients, size_t count)
{
    (void)clients;
    (void)count;
    return site->closed;
}

const char *site_ask(struct site *site, const char *request)
{
    struct client client;
    client_open(site, &client);
    client_send(&client, request);
    site_until(site, &client, 1, all_ended);
    buf_fini(&last_answer);
    last_answer = client.in;
    client.in = (struct buf){0};
    client_close(&client);
    return last_answer.data ? last_answer.data : "";
}

const char *site_get(struct site *site, const char *method, const char *path, const char *extra)
{
    struct buf request = {0};
    buf_printf(&request, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s\r\n", method,
               path, extra);
    buf_byte(&request, '\0');
    const char *answer = site_ask(site, request.data);
    buf_fini(&request);
    return answer;
}

void assert_status(const char *response, int status)
{
    char expected[32];
    snprintf(expected, sizeof(expected), "HTTP/1.1 %d ", status);
    if (strncmp(response, expected, strlen(expected)) != 0)
        fail_msg("expected %d, got: %.300s", status, response);
}

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in: %.600s", part, text);
}
