/* sendbuf.h: the kernel's send buffer of a TCP connection.
 *
 * It holds what is not acknowledged yet, sent or not, each buffer with its overhead; SO_SNDBUF is doubled for that (socket(7)). All
 * sizes here are bytes of memory as the kernel counts them, doubled. While nobody sets one the kernel tunes it by the congestion window.
 *
 * Threads:   any; no state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sendbuf {
    uint32_t rtt_us;     /* smoothed; 0: not known */
    uint32_t min_rtt_us; /* least of the last minutes (net.ipv4.tcp_min_rtt_wlen); 0: not known */
    uint32_t held;       /* memory of what is not acknowledged */
    uint32_t acked;      /* bytes of data that arrived since the connection began, modulo 2^32 */
    uint64_t
        busy_us; /* for how long since then something was not acknowledged; 0: not known (kernels before 4.10) */
};

/* Returns false when the kernel does not tell. */
bool sendbuf_read(int fd, struct sendbuf *out);

/* The size as it stands now, whoever set it; 0: not known. */
uint32_t sendbuf_size(int fd);

/* bytes: rounded up to an even number; at most twice net.core.wmem_max takes effect. 0: the kernel's own tuning again; kernels before 5.14 can't, and get `most`.
 * Returns the size as it stands then; 0: not known. */
uint32_t sendbuf_set(int fd, uint32_t bytes, uint32_t most);
