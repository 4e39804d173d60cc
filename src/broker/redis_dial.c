#include "broker/redis_dial.h"

#include "base/list.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct redis_lookup {
    uv_getaddrinfo_t request;
    struct redis_dial *dial; /* NULL: nobody waits any more */
};

static void try_next(struct redis_dial *dial);

void redis_handles_closed(struct redis_handles *handles)
{
    if (--handles->open == 0 && handles->on_none)
        handles->on_none(handles->ctx);
}

static void on_socket_closed(uv_handle_t *handle)
{
    struct redis_socket *socket = CONTAINER_OF(handle, struct redis_socket, poll);
    struct redis_handles *handles = socket->handles;
    free(socket);
    redis_handles_closed(handles);
}

static void on_socket_poll(uv_poll_t *poll, int status, int events)
{
    struct redis_socket *socket = CONTAINER_OF(poll, struct redis_socket, poll);
    /* libuv stops a handle that it reports an error of. */
    if (status < 0)
        socket->watching = 0;
    socket->on_poll(socket, status, events);
}

int redis_socket_watch(struct redis_socket *socket, int events)
{
    if (events == socket->watching)
        return 0;
    int result =
        events ? uv_poll_start(&socket->poll, events, on_socket_poll) : uv_poll_stop(&socket->poll);
    if (result == 0)
        socket->watching = events;
    return result;
}

void redis_socket_close(struct redis_socket *socket)
{
    if (!socket)
        return;
    /* The handle leaves the epoll set with this call, so the number may be reused from here on. */
    uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
    close(socket->fd);
}

/* Makes a handle for fd, which it takes also when it fails. */
static struct redis_socket *socket_create(struct redis_dial *dial, int fd, int *error)
{
    struct redis_socket *created = calloc(1, sizeof(struct redis_socket));
    *error = created ? uv_poll_init(dial->loop, &created->poll, fd) : UV_ENOMEM;
    if (*error != 0) {
        free(created);
        close(fd);
        return NULL;
    }
    created->fd = fd;
    created->owner = dial;
    created->handles = dial->handles;
    created->handles->open++;
    return created;
}

static void finish(struct redis_dial *dial, struct redis_socket *socket, const char *reason,
                   int error)
{
    dial->active = false;
    dial->socket = NULL;
    uv_timer_stop(&dial->timer);
    dial->on_done(dial->ctx, socket, reason, error);
}

static void on_connect_poll(struct redis_socket *socket, int status, int events)
{
    struct redis_dial *dial = socket->owner;
    int error = 0;
    socklen_t len = sizeof(error);
    (void)events;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error == 0 && status >= 0) {
        finish(dial, socket, NULL, 0);
        return;
    }
    dial->error = error ? uv_translate_sys_error(error) : status;
    redis_socket_close(socket);
    dial->socket = NULL;
    try_next(dial);
}

static int connect_to(struct redis_dial *dial, const struct sockaddr_storage *address)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return uv_translate_sys_error(errno);
    int on = 1;
    int error;
    socklen_t len =
        address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    /* Both only tune; a connection without them still works. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)address, len) != 0 && errno != EINPROGRESS) {
        error = uv_translate_sys_error(errno);
        close(fd);
        return error;
    }
    dial->socket = socket_create(dial, fd, &error);
    if (!dial->socket)
        return error;
    dial->socket->on_poll = on_connect_poll;
    error = redis_socket_watch(dial->socket, UV_WRITABLE);
    if (error != 0) {
        redis_socket_close(dial->socket);
        dial->socket = NULL;
    }
    return error;
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_dial *dial = CONTAINER_OF(timer, struct redis_dial, timer);
    if (!dial->socket) {
        finish(dial, NULL, "the look-up of its name takes too long", UV_ETIMEDOUT);
        return;
    }
    redis_socket_close(dial->socket);
    dial->socket = NULL;
    dial->error = UV_ETIMEDOUT;
    try_next(dial);
}

static void try_next(struct redis_dial *dial)
{
    while (dial->next < dial->count) {
        dial->error = connect_to(dial, &dial->addresses[dial->next++]);
        if (dial->error == 0) {
            uv_timer_start(&dial->timer, on_timer, dial->timeout_ms, 0);
            return;
        }
    }
    finish(dial, NULL, "no connection", dial->error);
}

static void add_address(struct redis_dial *dial, const void *address, size_t len)
{
    if (dial->count < REDIS_DIAL_ADDRESSES_MAX && len <= sizeof(dial->addresses[0]))
        memcpy(&dial->addresses[dial->count++], address, len);
}

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct redis_lookup *lookup = CONTAINER_OF(request, struct redis_lookup, request);
    struct redis_dial *dial = lookup->dial;
    if (dial) {
        dial->lookup = NULL;
        for (struct addrinfo *at = found; at && status == 0; at = at->ai_next)
            add_address(dial, at->ai_addr, at->ai_addrlen);
    }
    free(lookup);
    uv_freeaddrinfo(found);
    if (!dial || !dial->active)
        return;
    if (dial->count > 0)
        try_next(dial);
    else
        finish(dial, NULL, "its name cannot be looked up", status ? status : UV_EAI_NODATA);
}

static int start_lookup(struct redis_dial *dial)
{
    if (dial->lookup)
        return 0;
    struct redis_lookup *lookup = calloc(1, sizeof(struct redis_lookup));
    if (!lookup)
        return UV_ENOMEM;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    snprintf(port, sizeof(port), "%u", (unsigned)dial->url->port);
    int result =
        uv_getaddrinfo(dial->loop, &lookup->request, on_lookup, dial->url->host, port, &hints);
    if (result != 0) {
        free(lookup);
        return result;
    }
    lookup->dial = dial;
    dial->lookup = lookup;
    return 0;
}

void redis_dial_init(struct redis_dial *dial)
{
    (void)uv_timer_init(dial->loop, &dial->timer); /* Always 0. */
    dial->handles->open++;
}

void redis_dial_start(struct redis_dial *dial, uint32_t timeout_ms)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    dial->active = true;
    dial->timeout_ms = timeout_ms;
    dial->count = dial->next = 0;
    dial->error = 0;
    if (uv_ip4_addr(dial->url->host, dial->url->port, &v4) == 0)
        add_address(dial, &v4, sizeof(v4));
    else if (uv_ip6_addr(dial->url->host, dial->url->port, &v6) == 0)
        add_address(dial, &v6, sizeof(v6));
    if (dial->count > 0) {
        try_next(dial);
        return;
    }
    int result = start_lookup(dial);
    if (result != 0)
        finish(dial, NULL, "its name cannot be looked up", result);
    else
        uv_timer_start(&dial->timer, on_timer, timeout_ms, 0);
}

static void on_timer_closed(uv_handle_t *handle)
{
    redis_handles_closed(CONTAINER_OF(handle, struct redis_dial, timer)->handles);
}

void redis_dial_close(struct redis_dial *dial)
{
    dial->active = false;
    if (dial->lookup) {
        /* When it is running already it ends by itself and finds nobody. */
        dial->lookup->dial = NULL;
        (void)uv_cancel((uv_req_t *)&dial->lookup->request);
        dial->lookup = NULL;
    }
    redis_socket_close(dial->socket);
    dial->socket = NULL;
    uv_close((uv_handle_t *)&dial->timer, on_timer_closed);
}
