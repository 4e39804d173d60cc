#include "metrics/process.h"

#include "base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Reads a small file of /proc whole, as a string. Returns false when it cannot be read. */
static bool read_text(const char *path, char *text, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, text, cap - 1);
    close(fd);
    if (len <= 0)
        return false;
    text[len] = '\0';
    return true;
}

static void read_memory(struct process_stats *stats)
{
    char text[256];
    uint64_t size, resident;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!read_text("/proc/self/statm", text, sizeof(text)))
        return;
    if (sscanf(text, "%" SCNu64 " %" SCNu64, &size, &resident) != 2)
        return;
    stats->virtual_bytes = size * page;
    stats->resident_bytes = resident * page;
}

/* Field n (1 is the process id) of /proc/self/stat, past the name that may hold spaces and
 * brackets. */
static uint64_t stat_field(const char *text, int n)
{
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < n; field++) {
        at = strchr(at, ' ');
        if (at)
            at++;
    }
    return at ? strtoull(at, NULL, 10) : 0;
}

static void read_stat(struct process_stats *stats)
{
    /* The start never changes, but computed again it would wobble by the clocks' drift, which looks
     * like a restart. */
    static _Atomic uint64_t start_unix_ms;
    char text[1024];
    if (!read_text("/proc/self/stat", text, sizeof(text)))
        return;
    stats->threads = stat_field(text, 20);
    uint64_t start = atomic_load_explicit(&start_unix_ms, memory_order_relaxed);
    struct timespec boot;
    if (start == 0 && clock_gettime(CLOCK_BOOTTIME, &boot) == 0) {
        uint64_t up_ms = (uint64_t)boot.tv_sec * 1000 + (uint64_t)boot.tv_nsec / 1000000;
        uint64_t after_boot_ms = stat_field(text, 22) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
        start = clock_unix_ms() - up_ms + after_boot_ms;
        atomic_store_explicit(&start_unix_ms, start, memory_order_relaxed);
    }
    stats->start_unix_ms = start;
}

static uint64_t count_fds(void)
{
    struct stat info;
    if (stat("/proc/self/fd", &info) == 0 && info.st_size > 0)
        return (uint64_t)info.st_size;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return 0;
    uint64_t count = 0;
    while (count < PROCESS_FDS_COUNTED_MAX + 3 && readdir(directory))
        count++;
    closedir(directory);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the directory itself */
}

static uint64_t to_us(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

void process_read(struct process_stats *stats)
{
    *stats = (struct process_stats){0};
    read_memory(stats);
    read_stat(stats);
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        stats->cpu_user_us = to_us(usage.ru_utime);
        stats->cpu_system_us = to_us(usage.ru_stime);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        stats->max_fds = limit.rlim_cur;
    stats->open_fds = count_fds();
}
