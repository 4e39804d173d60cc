#include "base/clock.h"
#include "bench/follower.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { EVENTS = 512, TURN_MS = 5 };

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: halley-bench follow --url ws://HOST:PORT/PATH [--url …] --room NAME [option]…\n\n"
        "Viewers that stay in a room whatever happens: each comes back after a loss, to one of "
        "the URLs, and resumes.\n"
        "What is published must have history (docs/protocol.md). Writes a line of JSON each "
        "time:\n"
        "who is in, where each lane stands, what went wrong. SIGUSR1: all hang up and stay "
        "away; SIGUSR2: all come back;\n"
        "SIGTERM, SIGINT: the end.\n"
        "Exit codes: 0 every message came once and in order, 1 not so, 64 usage, 70 "
        "internal.\n\n"
        "  --url URL           where viewers connect; up to %d, one is drawn each time\n"
        "  --room NAME         the room, 1 to 64 bytes\n"
        "  --viewers N         connections (default 100)\n"
        "  --slow PERCENT      of the viewers stop reading again and again (default 0)\n"
        "  --stall-ms MS       … each time for MS to 2 MS (default 3000)\n"
        "  --report-ms MS      between two lines (default 1000)\n"
        "  --seconds S         ends by itself, 0: by a signal (default)\n",
        FOLLOW_TARGETS_MAX);
    return code;
}

static int complain(const char *option, const char *value, const char *wanted)
{
    fprintf(stderr, "halley-bench follow: --%s %s: %s; see halley-bench follow --help\n", option,
            value ? value : "", wanted);
    return EXIT_USE;
}

static int take_number(const char *option, const char *value, double low, double high, double *out)
{
    char *end;
    char wanted[80];
    *out = strtod(value, &end);
    if (end != value && !*end && *out >= low && *out <= high)
        return 0;
    snprintf(wanted, sizeof(wanted), "a number from %.10g to %.10g is wanted", low, high);
    return complain(option, value, wanted);
}

static int take_url(struct follow *follow, const char *value)
{
    if (follow->target_count == FOLLOW_TARGETS_MAX)
        return complain("url", value, "at most 16 of them");
    struct target *target = &follow->targets[follow->target_count++];
    return target_parse(value, "ws", "80", target) < 0 ? EXIT_USE : 0;
}

static int take_source(struct follow *follow, const char *value)
{
    follow->source.sin_family = AF_INET;
    if (inet_pton(AF_INET, value, &follow->source.sin_addr) == 1)
        return 0;
    return complain("source", value, "an IPv4 address is wanted");
}

enum follow_option { URL, ROOM, SOURCE, VIEWERS, SOURCES, SLOW, STALL, REPORT, SECONDS, HELP };

static const struct option options[] = {
    [URL] = {"url", required_argument, NULL, 0},
    [ROOM] = {"room", required_argument, NULL, 0},
    [SOURCE] = {"source", required_argument, NULL, 0},
    [VIEWERS] = {"viewers", required_argument, NULL, 0},
    [SOURCES] = {"sources", required_argument, NULL, 0},
    [SLOW] = {"slow", required_argument, NULL, 0},
    [STALL] = {"stall-ms", required_argument, NULL, 0},
    [REPORT] = {"report-ms", required_argument, NULL, 0},
    [SECONDS] = {"seconds", required_argument, NULL, 0},
    [HELP] = {"help", no_argument, NULL, 0},
    {0},
};

static const struct {
    double low, high, start;
} bounds[] = {
    [VIEWERS] = {1, 5e5, 100},   [SOURCES] = {1, 65000, 1},     [SLOW] = {0, 100, 0},
    [STALL] = {1, 600000, 3000}, [REPORT] = {1, 3600000, 1000}, [SECONDS] = {0, 86400, 0}};

/* Returns 0, an exit code, or -1 after --help. */
static int parse(int argc, char **argv, struct follow *out)
{
    double numbers[HELP];
    for (int i = VIEWERS; i <= SECONDS; i++)
        numbers[i] = bounds[i].start;
    int which = 0;
    int found;
    while ((found = getopt_long(argc, argv, "", options, &which)) == 0) {
        int wrong = 0;
        if (which == HELP)
            return -1;
        if (which == URL)
            wrong = take_url(out, optarg);
        else if (which == ROOM)
            out->room = optarg;
        else if (which == SOURCE)
            wrong = take_source(out, optarg);
        else
            wrong = take_number(options[which].name, optarg, bounds[which].low, bounds[which].high,
                                &numbers[which]);
        if (wrong)
            return wrong;
    }
    if (found != -1 || optind < argc)
        return usage(EXIT_USE);
    if (out->target_count == 0)
        return complain("url", NULL, "is needed");
    if (!out->room || !*out->room || strlen(out->room) > 64)
        return complain("room", out->room, "1 to 64 bytes are wanted");
    out->count = (uint32_t)numbers[VIEWERS];
    out->sources = (uint32_t)numbers[SOURCES];
    out->slow_share = numbers[SLOW] / 100;
    out->stall_ns = (uint64_t)(numbers[STALL] * 1e6);
    out->report_ns = (uint64_t)(numbers[REPORT] * 1e6);
    out->end_ns = numbers[SECONDS] > 0 ? clock_ns() + (uint64_t)(numbers[SECONDS] * 1e9) : 0;
    return 0;
}

static int prepare(struct follow *follow)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (follow->count + 16 > limit.rlim_max)
        return complain("viewers", NULL,
                        "too many for the file limit; raise `ulimit -n` or start several");
    follow->random = random_seed() | 1;
    follow->viewers = calloc(follow->count, sizeof(*follow->viewers));
    follow->input = malloc(FOLLOW_INPUT);
    follow->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!follow->viewers || !follow->input || follow->epoll < 0) {
        fprintf(stderr, "halley-bench follow: %s\n", strerror(errno));
        return EXIT_INTERNAL;
    }
    for (uint32_t i = 0; i < follow->count; i++) {
        uint64_t slow_before = (uint64_t)(i * follow->slow_share);
        follow->viewers[i].fd = -1;
        follow->viewers[i].slow = (uint64_t)((i + 1) * follow->slow_share) > slow_before;
    }
    return 0;
}

static int watch_signals(const struct follow *follow)
{
    sigset_t set;
    sigemptyset(&set);
    const int wanted[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        sigaddset(&set, wanted[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    return fd < 0 || epoll_ctl(follow->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -1 : fd;
}

/* Returns false when it is the end. */
static bool on_signal(struct follow *follow, int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo != SIGUSR1 && info.ssi_signo != SIGUSR2)
            return false;
        follow->away = info.ssi_signo == SIGUSR1;
        for (uint32_t i = 0; follow->away && i < follow->count; i++)
            follower_drop(follow, &follow->viewers[i], 0);
    }
    return true;
}

static void print_codes(const char *name, const struct follow_code *codes)
{
    printf(",\"%s\":{", name);
    for (int i = 0; i < FOLLOW_CODES_MAX && codes[i].count; i++)
        printf("%s\"%s\":%" PRIu64, i ? "," : "", codes[i].text, codes[i].count);
    printf("}");
}

/* A lane stands where the first viewer that knows it stands; how many stand there too. */
static bool print_lane(const struct follow *follow, enum lane lane, const char *comma)
{
    const struct history_point *first = NULL;
    uint32_t same = 0;
    for (uint32_t i = 0; i < follow->count; i++) {
        const struct follower *viewer = &follow->viewers[i];
        const struct history_point *have = &viewer->have[lane];
        if (!viewer->joined || viewer->healing || !have->epoch)
            continue;
        first = first ? first : have;
        same += have->epoch == first->epoch && have->n == first->n;
    }
    if (!first)
        return false;
    char id[HISTORY_ID_MAX + 1];
    struct bytes text = history_id_format(lane, *first, id);
    printf("%s\"%s\":{\"id\":\"%.*s\",\"viewers\":%u}", comma, lane_name(lane), (int)text.len,
           text.data, same);
    return true;
}

static void print_gaps(const struct follow_counts *counts)
{
    printf(",\"gaps_in\":{");
    for (int lane = 0; lane < LANE_COUNT; lane++)
        printf("%s\"%s\":%" PRIu64, lane ? "," : "", lane_name((enum lane)lane),
               counts->gaps_in[lane]);
    printf("}");
}

/* Returns whether everybody is in and nothing went wrong. */
static bool report(const struct follow *follow)
{
    const struct follow_counts *counts = &follow->counts;
    uint32_t joined = 0;
    for (uint32_t i = 0; i < follow->count; i++)
        joined += follow->viewers[i].joined && !follow->viewers[i].healing;
    printf("{\"viewers\":%u,\"joined\":%u,\"lanes\":{", follow->count, joined);
    const char *comma = "";
    for (int lane = 0; lane < LANE_COUNT; lane++)
        if (print_lane(follow, (enum lane)lane, comma))
            comma = ",";
    printf("},\"connects\":%" PRIu64 ",\"joins\":%" PRIu64 ",\"messages\":%" PRIu64
           ",\"holes\":%" PRIu64 ",\"repeats\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"skipped\":%" PRIu64 ",\"gaps\":%" PRIu64,
           counts->connects, counts->joins, counts->messages, counts->holes, counts->repeats,
           counts->lost, counts->skipped, counts->gaps);
    print_gaps(counts);
    print_codes("closes", counts->closes);
    print_codes("errors", counts->errors);
    printf(",\"wrong\":\"%s\"}\n", counts->wrong);
    fflush(stdout);
    return joined == follow->count && !counts->holes && !counts->repeats && !counts->lost;
}

static void run(struct follow *follow, int signals)
{
    uint64_t next_report = 0;
    struct epoll_event events[EVENTS];
    bool going = true;
    while (going) {
        follow->now_ns = clock_ns();
        for (uint32_t i = 0; i < follow->count; i++)
            follower_step(follow, &follow->viewers[i]);
        if (follow->now_ns >= next_report) {
            report(follow);
            next_report = follow->now_ns + follow->report_ns;
        }
        int count = epoll_wait(follow->epoll, events, EVENTS, TURN_MS);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                follower_event(follow, events[i].data.ptr);
            else
                going = on_signal(follow, signals);
        }
        going = going && (!follow->end_ns || follow->now_ns < follow->end_ns);
    }
}

static int follow_until_end(struct follow *follow)
{
    int wrong = prepare(follow);
    int signals = wrong ? -1 : watch_signals(follow);
    if (!wrong && signals < 0)
        wrong = EXIT_INTERNAL;
    if (wrong)
        return wrong;
    run(follow, signals);
    wrong = report(follow) ? 0 : EXIT_BROKEN;
    for (uint32_t i = 0; i < follow->count; i++)
        follower_drop(follow, &follow->viewers[i], 0);
    close(signals);
    return wrong;
}

int follow_main(int argc, char **argv)
{
    struct follow *follow = calloc(1, sizeof(*follow));
    if (!follow)
        return EXIT_INTERNAL;
    follow->epoll = -1;
    int code = parse(argc, argv, follow);
    code = code < 0 ? usage(0) : code ? code : follow_until_end(follow);
    if (follow->epoll >= 0)
        close(follow->epoll);
    buf_fini(&follow->scratch);
    buf_fini(&follow->text);
    free(follow->viewers);
    free(follow->input);
    free(follow);
    return code;
}
