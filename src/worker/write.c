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
static size_t slice_at(const struct worker *worker, const struct viewer *viewer, size_t done,
                       size_t left, const struct write_cuts *cuts)
{
    size_t lowat = worker->conf->tcp.notsent_lowat;
    size_t plain = lowat > 0 && lowat < left ? lowat : left;
    if (!cuts || cuts->high == 0 || viewer->segment == 0 || done >= cuts->own + cuts->high)
        return plain;
    if (done < cuts->own)
        return cuts->own - done < plain ? cuts->own - done : plain;
    size_t room = lowat > 0 && lowat < viewer->segment ? lowat : viewer->segment;
    size_t from = done - cuts->own;
    size_t len = halley_plan_cut(cuts->plan, from, cuts->high, room);
    if (from + len == cuts->high && len < room) /* the other lanes fill it up */
        len = left < room ? left : room;
    return len;
}

ssize_t write_cut(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                  size_t bytes, const struct write_cuts *cuts)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_EOR;
    size_t lowat = worker->conf->tcp.notsent_lowat;
    bool one_segment = !cuts || cuts->high == 0 || bytes <= viewer->segment;
    if (one_segment && (lowat == 0 || bytes <= lowat))
        return send_runs(viewer->fd, runs, count, flags);
    size_t done = 0;
    while (done < bytes) {
        struct iovec part[HALLEY_PLAN_IOV];
        size_t len = slice_at(worker, viewer, done, bytes - done, one_segment ? NULL : cuts);
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

ssize_t write_runs(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                   size_t bytes)
{
    return write_cut(worker, viewer, runs, count, bytes, NULL);
}
