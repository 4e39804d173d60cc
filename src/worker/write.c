#include "worker/internal.h"

#include <errno.h>
#include <sys/socket.h>

/* Points `part` at the bytes [from, from + len) of the runs; returns how many entries it took. */
static int cut(const struct iovec *runs, int count, size_t from, size_t len, struct iovec *part)
{
    int parts = 0;
    for (int i = 0; i < count && len > 0; i++) {
        if (from >= runs[i].iov_len) {
            from -= runs[i].iov_len;
            continue;
        }
        size_t here = runs[i].iov_len - from < len ? runs[i].iov_len - from : len;
        part[parts++] = (struct iovec){(char *)runs[i].iov_base + from, here};
        len -= here;
        from = 0;
    }
    return parts;
}

static ssize_t send_runs(int fd, struct iovec *runs, int count, int flags)
{
    if (count == 1)
        return send(fd, runs[0].iov_base, runs[0].iov_len, flags);
    struct msghdr message = {.msg_iov = runs, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &message, flags);
}

/* The kernel compares what it holds unsent with TCP_NOTSENT_LOWAT only when it begins a new buffer, and the last one grows to 64 KB as long as it
 * may be appended to. MSG_EOR closes each slice's buffer, so that every slice is asked about. */
ssize_t write_runs(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                   size_t bytes)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_EOR;
    size_t slice = worker->conf->tcp.notsent_lowat;
    if (slice == 0 || bytes <= slice)
        return send_runs(viewer->fd, runs, count, flags);
    size_t done = 0;
    while (done < bytes) {
        struct iovec part[HALLEY_PLAN_IOV];
        size_t len = bytes - done < slice ? bytes - done : slice;
        int parts = cut(runs, count, done, len, part);
        ssize_t sent = send_runs(viewer->fd, part, parts, flags);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return done > 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? (ssize_t)done : -1;
        done += (size_t)sent;
        if ((size_t)sent < len)
            break;
    }
    return (ssize_t)done;
}
