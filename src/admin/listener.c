#include "admin/internal.h"
#include "base/address.h"
#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* libmicrohttpd could accept by itself, but at the file limit it would do so in a busy loop. */
enum { BACKLOG = 512, ACCEPTS_PER_TURN = 64, PAUSE_MS = 100 };

/* Takes `host:port` apart. Returns the length of the host without brackets, or 0. */
static size_t split_address(const char *address, char *host, size_t cap, int *port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5 ||
        colon[1] == '\0')
        return 0;
    *port = atoi(colon + 1);
    size_t len = (size_t)(colon - address);
    if (*port > 65535 || len == 0)
        return 0;
    if (address[0] == '[') {
        if (len < 3 || address[len - 1] != ']')
            return 0;
        address++;
        len -= 2;
    }
    if (len >= cap)
        return 0;
    memcpy(host, address, len);
    host[len] = '\0';
    return len;
}

static int parse_address(const char *address, struct sockaddr_storage *out, socklen_t *len)
{
    char host[CONF_ADDRESS_MAX];
    int port;
    if (split_address(address, host, sizeof(host), &port) == 0)
        return UV_EINVAL;
    if (address[0] == '[') {
        *len = sizeof(struct sockaddr_in6);
        return uv_ip6_addr(host, port, (struct sockaddr_in6 *)out);
    }
    const char *literal = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    *len = sizeof(struct sockaddr_in);
    return uv_ip4_addr(literal, port, (struct sockaddr_in *)out);
}

static int name_address(struct admin *admin)
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof(bound);
    if (getsockname(admin->fd, (struct sockaddr *)&bound, &len) != 0)
        return -errno;
    address_print(&bound, admin->address, sizeof(admin->address));
    return 0;
}

int listener_open(struct admin *admin, const char *address)
{
    struct sockaddr_storage wanted;
    socklen_t len;
    int rc = parse_address(address, &wanted, &len);
    if (rc != 0)
        return rc;
    int fd = socket(wanted.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    int off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (wanted.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, (struct sockaddr *)&wanted, len) != 0 || listen(fd, BACKLOG) != 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    admin->fd = fd;
    return name_address(admin);
}

static void refuse(struct admin *admin, int fd)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                                 "Content-Length: 0\r\nConnection: close\r\n\r\n";
    char scratch[4096];
    atomic_fetch_add(&admin->refused, 1);
    /* What is unread when a socket closes resets the connection, and the answer may be lost with
     * it. */
    ssize_t got = recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT);
    ssize_t sent = send(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)got;
    (void)sent;
    close(fd);
    log_limited(LOG_LEVEL_WARN, "too many admin connections",
                LOG_UINT("limits.admin_requests", atomic_load(&admin->requests_max)));
}

static void take(struct admin *admin, int fd, const struct sockaddr *peer, socklen_t len)
{
    if (atomic_load(&admin->connections) >=
        atomic_load(&admin->requests_max) + ADMIN_CONNECTIONS_SPARE) {
        refuse(admin, fd);
        return;
    }
    /* Closes the socket when it fails. */
    if (MHD_add_connection(admin->daemon, fd, peer, len) == MHD_YES)
        admin->added++;
    else
        log_limited(LOG_LEVEL_WARN, "admin connection lost", LOG_STR("why", "out of memory"));
}

static void pause_accepting(struct admin *admin, int error);

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct admin *admin = poll->data;
    (void)events;
    (void)status; /* an error of a listening socket shows in accept */
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(admin->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(admin, fd, (struct sockaddr *)&peer, len);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            pause_accepting(admin, errno);
            return;
        }
    }
}

static void on_pause_over(uv_timer_t *timer)
{
    struct admin *admin = timer->data;
    if (listener_start(admin) != 0)
        uv_timer_start(timer, on_pause_over, PAUSE_MS, 0);
}

/* The connection stays in the backlog and would wake the loop at once again. */
static void pause_accepting(struct admin *admin, int error)
{
    log_limited(LOG_LEVEL_WARN, "admin cannot accept, pausing", LOG_STR("why", strerror(error)),
                LOG_INT("pause_ms", PAUSE_MS));
    uv_poll_stop(&admin->poll);
    uv_timer_start(&admin->timer, on_pause_over, PAUSE_MS, 0);
}

int listener_start(struct admin *admin)
{
    return uv_poll_start(&admin->poll, UV_READABLE, on_readable);
}

void listener_stop(struct admin *admin)
{
    /* In this order: libuv would otherwise take whoever gets the same number next out of its epoll
     * set. */
    uv_close((uv_handle_t *)&admin->poll, admin_on_handle_closed);
    uv_timer_stop(&admin->timer);
    close(admin->fd);
    admin->fd = -1;
}
