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
 * nearly everywhere: who needs more than that within the delay has no thin link. */
enum { NARROW_LEAST_BYTES = 8 * 1024, NARROW_MOST_BYTES = 384 * 1024 };

struct narrow_path {
    uint32_t held;     /* bytes of memory of what is not acknowledged */
    uint32_t rtt_us;   /* smoothed round trip; 0: not known */
    uint32_t base_us;  /* the least ever seen; 0: not known */
    uint32_t rate;     /* bytes/s that arrived lately; 0: not known */
    uint32_t delay_us; /* tcp.send_delay; 0: nobody is narrowed */
    uint32_t size;     /* of the buffer as it was set; 0: the kernel tunes it */
    uint32_t most;     /* what the kernel lets be set; 0: NARROW_MOST_BYTES or more */
};

/* Bytes of memory that the send buffer of a viewer whose writes wait is to have; 0: the kernel is to tune it. */
uint32_t narrow_size(const struct narrow_path *path);

/* What arrives of a viewer's bytes while its writes wait. Only then is it the link that says how much: time in which nothing waits is
 * taken out, however short, and what was counted before a longer one says nothing any more. Zeroed: nothing is known. */
struct narrow_flow {
    uint32_t acked;    /* bytes that had arrived (modulo 2^32) when counting began … */
    uint32_t since_ms; /* … later by what was taken out since */
    uint32_t free_ms;  /* since when nothing waits */
    bool counting;
};

/* The first look, with all that arrived since the connection began and for how long something of it was on its way. */
void narrow_flow_begin(struct narrow_flow *flow, uint64_t busy_us, uint32_t now_ms);
/* Writes wait no more, and wait again. Times in ms, modulo 2^32. */
void narrow_flow_free(struct narrow_flow *flow, uint32_t now_ms);
void narrow_flow_wait(struct narrow_flow *flow, uint32_t now_ms);
/* While they wait: bytes/s that arrived lately; 0: not known. */
uint32_t narrow_flow_rate(struct narrow_flow *flow, uint32_t acked, uint32_t now_ms);
