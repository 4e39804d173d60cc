/* process.h: what the kernel says about this process.
 *
 * Path:      /proc -> [process] -> metrics.
 * Threads:   any.
 * Limits:    bounded work whatever the number of open files: the main thread asks.
 */
#pragma once

#include <stdint.h>

/* Before Linux 6.2 files can only be counted one by one; there the count stops here. */
enum { PROCESS_FDS_COUNTED_MAX = 10000 };

struct process_stats {
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t cpu_user_us;
    uint64_t cpu_system_us;
    uint64_t threads;
    uint64_t open_fds;
    uint64_t max_fds;       /* the soft limit */
    uint64_t start_unix_ms; /* 0: not known */
};

/* Fills *stats; what cannot be read is 0. */
void process_read(struct process_stats *stats);
