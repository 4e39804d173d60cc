#include "node/doctor.h"

#include "node/doctor_viewers.h"
#include "policy/narrow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    WANTED_FILES = 1048576, /* LimitNOFILE of the unit */
    FILES_BESIDE = 256,     /* listeners, Redis, admin, event loops */
    PATH_BYTES = 512
};

/* Where each setting is read; what stands behind /proc/sys/ is also the name that sysctl takes. */
static const struct {
    const char *key;
    const char *path;
} settings[DOCTOR_SETTINGS] = {
    [DOCTOR_NR_OPEN] = {"fs.nr_open", "/proc/sys/fs/nr_open"},
    [DOCTOR_FILE_MAX] = {"fs.file-max", "/proc/sys/fs/file-max"},
    [DOCTOR_SOMAXCONN] = {"net.core.somaxconn", "/proc/sys/net/core/somaxconn"},
    [DOCTOR_SYN_BACKLOG] = {"net.ipv4.tcp_max_syn_backlog",
                            "/proc/sys/net/ipv4/tcp_max_syn_backlog"},
    [DOCTOR_SYNCOOKIES] = {"net.ipv4.tcp_syncookies", "/proc/sys/net/ipv4/tcp_syncookies"},
    [DOCTOR_TCP_MEM] = {"net.ipv4.tcp_mem", "/proc/sys/net/ipv4/tcp_mem"},
    [DOCTOR_WMEM_MAX] = {"net.core.wmem_max", "/proc/sys/net/core/wmem_max"},
    [DOCTOR_SACK] = {"net.ipv4.tcp_sack", "/proc/sys/net/ipv4/tcp_sack"},
    [DOCTOR_TIMESTAMPS] = {"net.ipv4.tcp_timestamps", "/proc/sys/net/ipv4/tcp_timestamps"},
    [DOCTOR_WINDOW_SCALING] = {"net.ipv4.tcp_window_scaling",
                               "/proc/sys/net/ipv4/tcp_window_scaling"},
    [DOCTOR_CONGESTION] = {"net.ipv4.tcp_congestion_control",
                           "/proc/sys/net/ipv4/tcp_congestion_control"},
    [DOCTOR_PORT_RANGE] = {"net.ipv4.ip_local_port_range",
                           "/proc/sys/net/ipv4/ip_local_port_range"},
    [DOCTOR_CONNTRACK_MAX] = {"net.netfilter.nf_conntrack_max",
                              "/proc/sys/net/netfilter/nf_conntrack_max"},
    [DOCTOR_OVERCOMMIT] = {"vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"},
    [DOCTOR_HUGE_PAGES] = {"transparent_hugepage", "/sys/kernel/mm/transparent_hugepage/enabled"},
};

/* One judgement under way. */
struct report {
    const struct doctor_facts *facts;
    const struct conf *conf;
    uint64_t connections; /* that the node shall carry */
    const char *level; /* of what keeps it from that: a promise of the conf fails, a guess warns */
    FILE *out;
    int problems;
};

static void read_text(const char *root, const char *path, char text[DOCTOR_TEXT_MAX])
{
    char full[PATH_BYTES];
    text[0] = '\0';
    int len = snprintf(full, sizeof(full), "%s%s", root, path);
    if (len < 0 || (size_t)len >= sizeof(full))
        return;
    FILE *file = fopen(full, "re");
    if (!file)
        return;
    if (!fgets(text, DOCTOR_TEXT_MAX, file))
        text[0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    /* The kernel separates several numbers by tabs. */
    for (char *at = text; *at; at++) {
        if (*at == '\t')
            *at = ' ';
    }
    fclose(file);
}

void doctor_read(struct doctor_facts *facts, const char *root)
{
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    long page = sysconf(_SC_PAGESIZE);
    *facts = (struct doctor_facts){.nofile_soft = files.rlim_cur,
                                   .nofile_hard = files.rlim_max,
                                   .page_bytes = page > 0 ? (uint64_t)page : 4096};
    for (int i = 0; i < DOCTOR_SETTINGS; i++)
        read_text(root, settings[i].path, facts->text[i]);
}

/* The index-th number of a setting; false when it holds no such number. */
static bool number_of(const struct report *report, enum doctor_setting which, int index,
                      uint64_t *out)
{
    const char *at = report->facts->text[which];
    char *end = NULL;
    uint64_t value = 0;
    for (int i = 0; i <= index; i++) {
        errno = 0;
        value = strtoull(at, &end, 10);
        if (end == at || errno != 0)
            return false;
        at = end;
    }
    *out = value;
    return true;
}

static void say_ok(struct report *report, const char *key, const char *value, const char *note)
{
    if (note)
        fprintf(report->out, "ok    %s = %s  (%s)\n", key, value, note);
    else
        fprintf(report->out, "ok    %s = %s\n", key, value);
}

__attribute__((format(printf, 5, 6))) static void say_problem(struct report *report,
                                                              const char *level, const char *key,
                                                              const char *value, const char *format,
                                                              ...)
{
    va_list args;
    va_start(args, format);
    fprintf(report->out, "%-4s  %s = %s  (", level, key, value);
    vfprintf(report->out, format, args);
    fprintf(report->out, ")\n");
    va_end(args);
    report->problems++;
}

static void judge_files(struct report *report)
{
    char soft[24];
    char hard[24];
    uint64_t need = report->conf->limits.connections;
    const struct doctor_facts *facts = report->facts;
    snprintf(soft, sizeof(soft), "%" PRIu64, facts->nofile_soft);
    snprintf(hard, sizeof(hard), "%" PRIu64, facts->nofile_hard);
    say_ok(report, "nofile (soft)", soft, "halley raises it to the hard limit");
    if (need && need + FILES_BESIDE > facts->nofile_hard)
        say_problem(report, "fail", "nofile (hard)", hard,
                    "want %" PRIu64 " or more: limits.connections = %" PRIu64
                    " and %d files beside; set it with: LimitNOFILE=%d in the unit, or ulimit -Hn",
                    need + FILES_BESIDE, need, FILES_BESIDE, WANTED_FILES);
    else if (facts->nofile_hard < WANTED_FILES && !need)
        say_problem(report, "warn", "nofile (hard)", hard,
                    "want %d: without limits.connections it bounds the viewers of this node; "
                    "set it with: LimitNOFILE=%d in the unit, or ulimit -Hn",
                    WANTED_FILES, WANTED_FILES);
    else
        say_ok(report, "nofile (hard)", hard, NULL);
}

/* A setting that must be at least `want`. */
static void judge_minimum(struct report *report, enum doctor_setting which, const char *level,
                          uint64_t want, const char *why)
{
    const char *key = settings[which].key;
    const char *text = report->facts->text[which];
    uint64_t value;
    if (!text[0])
        return;
    if (number_of(report, which, 0, &value) && value >= want)
        say_ok(report, key, text, NULL);
    else
        say_problem(report, level, key, text,
                    "want %" PRIu64 " or more: %s; set it with: sysctl -w %s=%" PRIu64, want, why,
                    key, want);
}

/* A switch that must be on. */
static void judge_switch(struct report *report, enum doctor_setting which, const char *why)
{
    const char *key = settings[which].key;
    const char *text = report->facts->text[which];
    uint64_t value;
    if (!text[0])
        return;
    if (number_of(report, which, 0, &value) && value != 0)
        say_ok(report, key, text, NULL);
    else
        say_problem(report, "warn", key, text, "want 1: %s; set it with: sysctl -w %s=1", why, key);
}

static void judge_queues(struct report *report)
{
    uint64_t backlog = report->conf->server.backlog;
    judge_minimum(report, DOCTOR_SOMAXCONN, "warn", backlog,
                  "server.backlog is cut to it, and a crowd that comes back at once is dropped");
    judge_minimum(report, DOCTOR_SYN_BACKLOG, "warn", backlog,
                  "handshakes of a crowd that comes back at once wait there");
    judge_switch(report, DOCTOR_SYNCOOKIES,
                 "without cookies a SYN flood, or a crowd, fills the queue");
}

/* A page in flight for each viewer is what a message to all of a big room costs. */
static void judge_tcp_mem(struct report *report)
{
    const char *text = report->facts->text[DOCTOR_TCP_MEM];
    uint64_t pressure;
    uint64_t want = report->connections;
    if (!text[0])
        return;
    if (number_of(report, DOCTOR_TCP_MEM, 1, &pressure) && pressure >= want)
        say_ok(report, "net.ipv4.tcp_mem", text, NULL);
    else
        say_problem(report, "warn", "net.ipv4.tcp_mem", text,
                    "want %" PRIu64 " or more in the middle: one page of %" PRIu64
                    " bytes for each of %" PRIu64 " viewers, %" PRIu64
                    " MiB together, before the kernel saves on buffers; lower limits.connections, "
                    "or set it with: sysctl -w net.ipv4.tcp_mem='%" PRIu64 " %" PRIu64 " %" PRIu64
                    "'",
                    want, report->facts->page_bytes, report->connections,
                    want * report->facts->page_bytes >> 20, want / 4 * 3, want, want / 2 * 3);
}

static void judge_tcp(struct report *report)
{
    judge_tcp_mem(report);
    if (report->conf->tcp.sndbuf)
        judge_minimum(report, DOCTOR_WMEM_MAX, "warn", report->conf->tcp.sndbuf,
                      "tcp.sndbuf is cut to it");
    else if (report->conf->tcp.send_delay_ms)
        judge_minimum(report, DOCTOR_WMEM_MAX, "warn", NARROW_MOST_BYTES / 2,
                      "send buffers can't be set larger, so tcp.send_delay passes over links that "
                      "carry more than that in it");
    judge_switch(report, DOCTOR_SACK, "without it a mobile link recovers one loss per round trip");
    judge_switch(report, DOCTOR_TIMESTAMPS,
                 "round trips are measured with it, and SYN cookies keep window scaling by it");
    judge_switch(report, DOCTOR_WINDOW_SCALING, "without it a viewer far away gets 64 KiB a trip");
    const char *congestion = report->facts->text[DOCTOR_CONGESTION];
    if (strncmp(congestion, "bbr", 3) == 0)
        say_problem(report, "warn", "net.ipv4.tcp_congestion_control", congestion,
                    "want cubic: on thin links bbr keeps urgent messages waiting longer; "
                    "set it with: sysctl -w net.ipv4.tcp_congestion_control=cubic");
    else if (congestion[0])
        say_ok(report, "net.ipv4.tcp_congestion_control", congestion, NULL);
}

static void judge_conntrack(struct report *report)
{
    judge_minimum(report, DOCTOR_CONNTRACK_MAX, report->level, report->connections,
                  "the firewall tracks each viewer, and drops who is past it");
}

static void judge_memory(struct report *report)
{
    const char *overcommit = report->facts->text[DOCTOR_OVERCOMMIT];
    if (overcommit[0] == '2')
        say_problem(report, "warn", "vm.overcommit_memory", overcommit,
                    "want 0 or 1: with 2 allocations fail while memory is free; "
                    "set it with: sysctl -w vm.overcommit_memory=0");
    else if (overcommit[0])
        say_ok(report, "vm.overcommit_memory", overcommit, NULL);
    const char *huge = report->facts->text[DOCTOR_HUGE_PAGES];
    if (strstr(huge, "[always]"))
        say_problem(report, "warn", settings[DOCTOR_HUGE_PAGES].key, huge,
                    "want madvise: buffers are rounded up to 2 MiB, so halley takes more memory "
                    "than `halley -t` says; set it with: echo madvise > %s",
                    settings[DOCTOR_HUGE_PAGES].path);
    else if (huge[0])
        say_ok(report, settings[DOCTOR_HUGE_PAGES].key, huge, NULL);
}

int doctor_judge(const struct doctor_facts *facts, const struct conf *conf, FILE *out)
{
    struct report report = {.facts = facts, .conf = conf, .out = out};
    report.connections = conf->limits.connections;
    report.level = report.connections ? "fail" : "warn";
    if (!report.connections)
        report.connections =
            facts->nofile_hard < WANTED_FILES ? facts->nofile_hard : (uint64_t)WANTED_FILES;
    judge_files(&report);
    judge_minimum(&report, DOCTOR_NR_OPEN, "warn", WANTED_FILES,
                  "no process may have a higher file limit");
    judge_minimum(&report, DOCTOR_FILE_MAX, report.level, report.connections + FILES_BESIDE,
                  "it bounds the files of all processes together");
    judge_queues(&report);
    judge_tcp(&report);
    if (facts->text[DOCTOR_PORT_RANGE][0])
        say_ok(&report, settings[DOCTOR_PORT_RANGE].key, facts->text[DOCTOR_PORT_RANGE],
               "matters only to a load generator here: one source address has so many connections "
               "to a port");
    judge_conntrack(&report);
    judge_memory(&report);
    return report.problems;
}

int doctor_run(const struct conf *conf, FILE *out)
{
    struct doctor_facts facts;
    doctor_read(&facts, "");
    int problems = doctor_judge(&facts, conf, out) + doctor_ask_viewers(conf, out);
    if (problems)
        fprintf(out,
                "%d of these settings should be changed; conf/99-halley-sysctl.conf is a set to "
                "start from\n",
                problems);
    else
        fprintf(out, "all settings suit this conf\n");
    return problems;
}
