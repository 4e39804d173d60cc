#include "base/sendbuf.h"

/* The kernel's own header: libc's struct tcp_info ends before the least round trip. */
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

bool sendbuf_read(int fd, struct sendbuf *out)
{
    struct tcp_info info = {0};
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t info_len = sizeof(info);
    socklen_t memory_len = sizeof(memory);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_len) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &memory_len) != 0)
        return false;
    bool has_min = info_len >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt);
    bool has_busy =
        info_len >= offsetof(struct tcp_info, tcpi_busy_time) + sizeof(info.tcpi_busy_time);
    out->busy_us = has_busy ? info.tcpi_busy_time : 0;
    out->rtt_us = info.tcpi_rtt;
    out->min_rtt_us = has_min && info.tcpi_min_rtt != UINT32_MAX ? info.tcpi_min_rtt : 0;
    out->acked = (uint32_t)info.tcpi_bytes_acked;
    out->held = memory[SK_MEMINFO_WMEM_QUEUED];
    return true;
}

uint32_t sendbuf_size(int fd)
{
    int bytes = 0;
    socklen_t len = sizeof(bytes);
    return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &len) == 0 ? (uint32_t)bytes : 0;
}

uint32_t sendbuf_set(int fd, uint32_t bytes, uint32_t most)
{
    int unlocked = 0;
    uint32_t wanted = bytes ? bytes : most;
    int half = (int)(wanted / 2 + wanted % 2);
    if (bytes > 0 || setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked)) != 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
    return sendbuf_size(fd);
}
