#include "worker/internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void note(struct worker *worker, struct viewer *viewer, uint32_t bytes)
{
    if (viewer->segment > 0)
        metric_sub(&worker->metrics.segments[segment_class(viewer->segment)], 1);
    viewer->segment = (uint16_t)least(bytes, UINT16_MAX);
    if (viewer->segment > 0)
        metric_add(&worker->metrics.segments[segment_class(viewer->segment)], 1);
}

void segment_begin(struct worker *worker, struct viewer *viewer)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (getsockopt(viewer->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return;
    note(worker, viewer, info.tcpi_snd_mss);
    metric_add(&worker->metrics.tcp_known, 1);
    if (!(info.tcpi_options & TCPI_OPT_SACK))
        metric_add(&worker->metrics.tcp_without_sack, 1);
    if (!(info.tcpi_options & TCPI_OPT_TIMESTAMPS))
        metric_add(&worker->metrics.tcp_without_timestamps, 1);
    if (!(info.tcpi_options & TCPI_OPT_WSCALE))
        metric_add(&worker->metrics.tcp_without_scaling, 1);
}

void segment_end(struct worker *worker, struct viewer *viewer)
{
    note(worker, viewer, 0);
}

bool segment_changed(struct worker *worker, struct viewer *viewer)
{
    int bytes = 0;
    socklen_t len = sizeof(bytes);
    uint16_t before = viewer->segment;
    if (before == 0 || getsockopt(viewer->fd, IPPROTO_TCP, TCP_MAXSEG, &bytes, &len) != 0 ||
        bytes <= 0)
        return false;
    if (bytes != before)
        note(worker, viewer, (uint32_t)bytes);
    return viewer->segment != before;
}

uint32_t segment_frame_bytes(const struct viewer *viewer)
{
    return viewer->segment > LONG_HEAD_BYTES ? viewer->segment - (uint32_t)LONG_HEAD_BYTES : 0;
}
