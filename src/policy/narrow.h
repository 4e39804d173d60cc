/* narrow.h: how much of what a viewer is sent may be on its way.
 *
 * What is on its way can't be overtaken. Congestion control fills the queue of a thin link far away, however long, until packets are
 * lost; so the send buffer, which bounds what is on its way, follows the round trip. What is held, divided by the round trip, is what the link
 * carries (Little's law); the buffer gets what that carries in tcp.send_delay. Unlike the kernel's delivery rate this is true also while
 * the buffer, and not the congestion window, is the bound. A way that is long by itself is given a quarter more than its length: so
 * a buffer that is too small for it grows by as much each time, and a least round trip that was measured with a standing queue shrinks.
 *
 * Path:      worker's tick -> [narrow] -> SO_SNDBUF.
 * Threads:   any; no state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Memory as the kernel counts it, about twice the data. The least is one or two segments; the most is what net.core.wmem_max allows
 * everywhere: who needs more than that within the delay has no thin link. */
enum { NARROW_LEAST_BYTES = 8 * 1024, NARROW_MOST_BYTES = 384 * 1024 };

struct narrow_path {
    uint32_t held;     /* bytes of memory of what is not acknowledged */
    uint32_t rtt_us;   /* smoothed round trip; 0: not known */
    uint32_t base_us;  /* the least ever seen; 0: not known */
    uint32_t rate;     /* bytes/s that arrived lately; 0: not known */
    uint32_t delay_us; /* tcp.send_delay; 0: nobody is narrowed */
    uint32_t size;     /* of the buffer as it was set; 0: the kernel tunes it */
};

/* Bytes of memory that the send buffer of a viewer whose writes wait is to have; 0: the kernel is to tune it. */
uint32_t narrow_size(const struct narrow_path *path);
