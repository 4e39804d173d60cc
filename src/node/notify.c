#include "node/notify.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* A lost notice is no reason to stop serving, so results are not looked at: systemd's own time limits notice. */
void notify_ready(const char *status)
{
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_reloading(void)
{
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_ns() / 1000);
}

void notify_stopping(const char *status)
{
    (void)sd_notifyf(0, "STOPPING=1\nSTATUS=%s", status);
}

void notify_status(const char *status)
{
    (void)sd_notifyf(0, "STATUS=%s", status);
}

void notify_watchdog(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

uint64_t notify_watchdog_ms(void)
{
    uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? usec / 1000 : 0;
}

static bool is_tcp_listener(int fd)
{
    return sd_is_socket_inet(fd, AF_UNSPEC, SOCK_STREAM, 1, 0) > 0;
}

static bool make_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

/* Returns NULL, or what is wrong with the fd-th socket. */
static const char *take_socket(int fd, struct buf *why)
{
    if (!is_tcp_listener(fd))
        return "is not a listening TCP socket: the .socket unit may hold only ListenStream= with "
               "addresses and ports";
    if (!make_nonblocking(fd)) {
        buf_printf(why, "fcntl: %s: ", strerror(errno));
        return "cannot be made non-blocking";
    }
    return NULL;
}

int notify_listen_fds(int *fds, int max, struct buf *why)
{
    /* 1: the variables are unset, so that no child takes the sockets for its own. */
    int count = sd_listen_fds(1);
    if (count < 0) {
        buf_printf(why, "socket activation: LISTEN_FDS cannot be read: %s", strerror(-count));
        return -1;
    }
    const char *problem = NULL;
    int at = 0;
    if (count > max)
        buf_printf(why, "socket activation: %d sockets were passed, at most %d are allowed", count,
                   max);
    for (; at < count && count <= max && !problem; at++)
        problem = take_socket(SD_LISTEN_FDS_START + at, why);
    if (problem)
        buf_printf(why, "socket activation: socket %d of %d %s", at, count, problem);
    if (problem || count > max) {
        for (int i = 0; i < count; i++)
            close(SD_LISTEN_FDS_START + i);
        return -1;
    }
    for (int i = 0; i < count; i++)
        fds[i] = SD_LISTEN_FDS_START + i;
    return count;
}
