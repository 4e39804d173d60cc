#include "base/clock.h"
#include "bench/bench.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a small file of /proc whole. Returns its length, or 0. */
static size_t read_proc(const char *path, char *out, size_t cap)
{
    FILE *file = fopen(path, "re");
    size_t len = file ? fread(out, 1, cap - 1, file) : 0;
    out[len] = 0;
    if (file)
        fclose(file);
    return len;
}

/* Time on a CPU in ns: the first number of schedstat, exact where stat counts ticks. */
static uint64_t schedstat_ns(const char *path)
{
    char text[128];
    return read_proc(path, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* Calls visit for each entry of a folder that is a number. */
static void each_number(const char *folder, void (*visit)(const char *name, void *ctx), void *ctx)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir)))
        if (isdigit((unsigned char)entry->d_name[0]))
            visit(entry->d_name, ctx);
    closedir(dir);
}

struct task_sum {
    uint32_t pid;
    uint64_t sum_ns;
};

static void add_task(const char *name, void *ctx)
{
    struct task_sum *sum = ctx;
    char path[96];
    snprintf(path, sizeof(path), "/proc/%u/task/%.20s/schedstat", sum->pid, name);
    sum->sum_ns += schedstat_ns(path);
}

static uint64_t process_ns(uint32_t pid)
{
    struct task_sum sum = {.pid = pid};
    char folder[48];
    snprintf(folder, sizeof(folder), "/proc/%u/task", pid);
    each_number(folder, add_task, &sum);
    return sum.sum_ns;
}

enum { KSOFTIRQD_MAX = 256 };

static struct {
    uint32_t pids[KSOFTIRQD_MAX];
    uint32_t count;
    bool searched;
} ksoftirqd;

static void find_ksoftirqd(const char *name, void *ctx)
{
    (void)ctx;
    char path[48];
    char text[32];
    snprintf(path, sizeof(path), "/proc/%.20s/comm", name);
    if (ksoftirqd.count < KSOFTIRQD_MAX && read_proc(path, text, sizeof(text)) &&
        strncmp(text, "ksoftirqd/", 10) == 0)
        ksoftirqd.pids[ksoftirqd.count++] = (uint32_t)strtoul(name, NULL, 10);
}

static uint64_t ksoftirqd_ns(void)
{
    if (!ksoftirqd.searched)
        each_number("/proc", find_ksoftirqd, NULL);
    ksoftirqd.searched = true;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ksoftirqd.count; i++) {
        char path[48];
        snprintf(path, sizeof(path), "/proc/%u/schedstat", ksoftirqd.pids[i]);
        sum += schedstat_ns(path);
    }
    return sum;
}

/* utime and stime are the 14th and 15th field; the name before them may hold blanks, but no `)`
 * follows it. */
static void take_times(uint32_t pid, struct probe *out)
{
    char path[48];
    char text[1024];
    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    if (!read_proc(path, text, sizeof(text)))
        return;
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 14; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return;
    uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
    char *rest;
    out->user_ns = strtoull(at, &rest, 10) * tick_ns;
    out->system_ns = strtoull(rest, NULL, 10) * tick_ns;
}

/* /proc/net/snmp has a line of names and a line of numbers for each protocol. */
static uint64_t tcp_segments(void)
{
    char text[4096];
    read_proc("/proc/net/snmp", text, sizeof(text));
    char *names = strstr(text, "Tcp: ");
    char *numbers = names ? strstr(names + 5, "Tcp: ") : NULL;
    char *found = numbers ? strstr(names, " OutSegs") : NULL;
    if (!found || found > numbers)
        return 0;
    int column = 0;
    for (char *at = names; at <= found; at++)
        column += *at == ' ';
    for (; numbers && column > 0; column--)
        numbers = strchr(numbers + 1, ' ');
    return numbers ? strtoull(numbers, NULL, 10) : 0;
}

void probe_take(uint32_t pid, const int *children, uint32_t child_count, struct probe *out)
{
    *out = (struct probe){.time_ns = clock_ns()};
    if (pid) {
        out->cpu_ns = process_ns(pid);
        take_times(pid, out);
    }
    out->ksoftirqd_ns = ksoftirqd_ns();
    out->client_ns = process_ns((uint32_t)getpid());
    for (uint32_t i = 0; i < child_count; i++)
        out->client_ns += process_ns((uint32_t)children[i]);
    out->tcp_segments = tcp_segments();
}

static uint64_t pss_bytes(uint32_t pid)
{
    char path[48];
    char text[2048];
    snprintf(path, sizeof(path), "/proc/%u/smaps_rollup", pid);
    read_proc(path, text, sizeof(text));
    const char *line = strstr(text, "\nPss:");
    return line ? strtoull(line + 5, NULL, 10) * 1024 : 0;
}

static bool is_socket_slab(const char *name)
{
    static const char *const names[] = {"TCP", "TCPv6", "sock_inode_cache", "eventpoll_epi"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strncmp(name, "skbuff_", 7) == 0;
}

/* Only root may read it; without it the figure is left out. */
static uint64_t slab_bytes(void)
{
    FILE *file = fopen("/proc/slabinfo", "re");
    if (!file)
        return 0;
    char line[512];
    char name[64];
    uint64_t sum = 0;
    uint64_t objects;
    uint64_t size;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "%63s %" SCNu64 " %*u %" SCNu64, name, &objects, &size) == 3 &&
            is_socket_slab(name))
            sum += objects * size;
    fclose(file);
    return sum;
}

void memory_take(uint32_t pid, struct memory *out)
{
    *out = (struct memory){.pss_bytes = pid ? pss_bytes(pid) : 0, .slab_bytes = slab_bytes()};
}
