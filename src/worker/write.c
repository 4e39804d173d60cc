#include "worker/internal.h"

#include "ws/frame.h"

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

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

static ssize_t send_runs(int fd, struct iovec *runs, int count, int flags)
{
    if (count == 1)
        return send(fd, runs[0].iov_base, runs[0].iov_len, flags);
    struct msghdr message = {.msg_iov = runs, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &message, flags);
}

/* How many of the next bytes may go in one piece, by what they are: whole frames of the private queue or of the high lane, within `room` where one fits
 * it. A frame that is longer goes whole: the kernel's own cuts can't be helped then. */
static size_t piece_at(const struct write_cuts *cuts, size_t done, size_t room, size_t plain)
{
    size_t own = cuts->rest + cuts->queue.len;
    if (done < cuts->rest)
        return least_of(cuts->rest - done, plain);
    if (done >= own)
        return halley_plan_cut(cuts->plan, done - own, cuts->high, room);
    size_t from = done - cuts->rest;
    size_t left = cuts->queue.len - from;
    size_t len = ws_frames_cut(bytes_of(cuts->queue.data + from, left), room);
    return len > 0 ? len : least_of(left, plain);
}

/* The kernel compares what it holds unsent with TCP_NOTSENT_LOWAT only when it begins a new buffer, and the last one grows to 64 KB as long as it
 * may be appended to. MSG_EOR closes each slice's buffer, so that every slice is asked about. */
static size_t slice_at(const struct worker *worker, const struct viewer *viewer, size_t done,
                       size_t left, const struct write_cuts *cuts)
{
    size_t lowat = worker->conf->tcp.notsent_lowat;
    size_t plain = lowat > 0 ? least_of(lowat, left) : left;
    size_t framed = cuts ? cuts->rest + cuts->queue.len + cuts->high : 0;
    if (done >= framed)
        return plain;
    size_t room = lowat > 0 ? least_of(lowat, viewer->segment) : viewer->segment;
    size_t len = piece_at(cuts, done, room, plain);
    if (done + len == framed && len < room) /* the other lanes fill it up */
        len = least_of(left, room);
    return len;
}

ssize_t write_cut(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                  size_t bytes, const struct write_cuts *cuts)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_EOR;
    size_t lowat = worker->conf->tcp.notsent_lowat;
    if (viewer->segment == 0 || (cuts && cuts->rest + cuts->queue.len + cuts->high == 0))
        cuts = NULL;
    if ((lowat == 0 || bytes <= lowat) && (!cuts || bytes <= viewer->segment))
        return send_runs(viewer->fd, runs, count, flags);
    size_t done = 0;
    while (done < bytes) {
        struct iovec part[HALLEY_PLAN_IOV];
        size_t len = slice_at(worker, viewer, done, bytes - done, cuts);
        int parts = cut(runs, count, done, len, part);
        ssize_t sent = send_runs(viewer->fd, part, parts, flags);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) /* bytes that went out are told first: the next write meets the error again */
            return done > 0 ? (ssize_t)done : -1;
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
