#include "base/clock.h"
#include "bench/bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LEAD_NS = 200 * 1000 * 1000, /* from the order to start to the first message */
    PAUSE_NS =
        250 * 1000 * 1000, /* between warm-up and measured part, so that the probes stand at rest */
    PROBE_NS = 20 * 1000 * 1000 /* the first probe's distance to the first measured message */
};

struct run {
    const struct bench_options *options;
    struct bench_result *result;
    struct bench_shared *shared;
    size_t shared_size;
    uint32_t processes;
    int children[BENCH_PROCESSES_MAX];
    struct target target;
    struct publisher *publisher;
    uint64_t next;          /* message to be published */
    uint64_t not_before_ns; /* the next batch */
    bool self_timed;
    uint64_t next_second_ns;
    uint64_t delivered_before;
};

static uint64_t seconds_ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static double between(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e9;
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        continue;
}

static uint32_t sum_of(const struct run *run, size_t offset)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < run->processes; i++)
        sum += atomic_load((_Atomic uint32_t *)(void *)((char *)&run->shared->shards[i] + offset));
    return sum;
}

#define SUM(run_, member_) sum_of((run_), offsetof(struct shard, member_))

static uint64_t delivered(const struct run *run)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < run->processes; i++)
        for (int group = 0; group < GROUPS; group++)
            sum += atomic_load(&run->shared->shards[i].delivered[group]);
    return sum;
}

static void take_probe(const struct run *run, struct probe *out)
{
    probe_take((uint32_t)run->options->pid, run->children, run->processes, out);
    out->delivered = run->shared ? delivered(run) : 0;
}

static void take_failure(struct run *run)
{
    for (uint32_t i = 0; i < run->processes; i++) {
        const struct shard *shard = &run->shared->shards[i];
        if (!run->result->failure[0])
            memcpy(run->result->failure, shard->failure, sizeof(shard->failure));
        if (!run->result->close_code)
            run->result->close_code = shard->close_code;
    }
}

static int start_clients(struct run *run)
{
    run->shared_size = sizeof(struct bench_shared) + run->processes * sizeof(struct shard);
    run->shared =
        mmap(NULL, run->shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run->shared == MAP_FAILED) {
        run->shared = NULL;
        return -1;
    }
    fflush(NULL);
    for (uint32_t i = 0; i < run->processes; i++) {
        int pid = fork();
        if (pid < 0)
            return -1;
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            client_run(run->options, &run->target, run->shared, i);
            _exit(0);
        }
        run->children[i] = pid;
    }
    /* The publisher must keep its pace beside busy viewers. Without the right to do so it goes on
     * as it is. */
    (void)setpriority(PRIO_PROCESS, 0, -10);
    return 0;
}

/* Children stop by themselves after PHASE_STOP; one that does not within 30 s is killed. */
static int stop_clients(struct run *run)
{
    int wrong = 0;
    if (run->shared)
        atomic_store(&run->shared->phase, PHASE_STOP);
    uint64_t until = clock_ns() + seconds_ns(30);
    for (uint32_t i = 0; i < run->processes; i++) {
        int status = 0;
        int done = 0;
        while (run->children[i] > 0 && (done = waitpid(run->children[i], &status, WNOHANG)) == 0) {
            if (clock_ns() > until)
                kill(run->children[i], SIGKILL);
            sleep_ns(2000000);
        }
        if (done > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
            wrong = -1;
        run->children[i] = 0;
    }
    return wrong;
}

static bool child_died(const struct run *run)
{
    for (uint32_t i = 0; i < run->processes; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)run->children[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid)
            return true;
    }
    return false;
}

static void progress(struct run *run, uint64_t now)
{
    if (now < run->next_second_ns)
        return;
    run->next_second_ns = now + seconds_ns(1);
    struct memory memory;
    memory_take((uint32_t)run->options->pid, &memory);
    if (memory.pss_bytes > run->result->peak.pss_bytes)
        run->result->peak = memory;
    if (run->options->quiet)
        return;
    uint64_t sum = delivered(run);
    fprintf(stderr, "%u of %.0f viewers ready, %llu messages delivered (%llu/s), %u closed\n",
            SUM(run, ready), run->options->viewers, (unsigned long long)sum,
            (unsigned long long)(sum - run->delivered_before), SUM(run, closed));
    run->delivered_before = sum;
}

static void say_not_ready(const struct run *run, double seconds)
{
    const char *failure = run->result->failure;
    fprintf(stderr, "halley-bench: %s: only %u of %.0f viewers became ready in %.1f s, %u failed; ",
            run->options->url, SUM(run, ready), run->options->viewers, seconds, SUM(run, failed));
    if (failure[0])
        fprintf(stderr, "first: %s\n", failure);
    else
        fprintf(stderr,
                "the others wait for a text that holds `%s` (--ready), or see --connect-timeout\n",
                run->options->ready);
}

/* Waits until every viewer is ready, all waves counted. */
static int open_viewers(struct run *run, uint32_t wave, uint64_t begun)
{
    uint64_t until = begun + seconds_ns(run->options->connect_timeout);
    while (SUM(run, ready) < (uint32_t)run->options->viewers * (wave + 1)) {
        uint64_t now = clock_ns();
        if (SUM(run, failed) || now > until || child_died(run)) {
            take_failure(run);
            say_not_ready(run, between(begun, now));
            return EXIT_UNREACHABLE;
        }
        publisher_pump(run->publisher); /* its own handshake, and pings meanwhile */
        progress(run, now);
        sleep_ns(1000000);
    }
    run->result->waves[wave].seconds = between(begun, clock_ns());
    return 0;
}

/* Viewers that a wave lost cannot come back in it, so they show in the next one's wait. */
static int run_wave(struct run *run, uint32_t index)
{
    struct wave *wave = &run->result->waves[index];
    take_probe(run, &wave->from);
    uint64_t begun = clock_ns();
    if (index == 0 && start_clients(run) < 0) {
        fprintf(stderr, "halley-bench: can't start %u processes: %s\n", run->processes,
                strerror(errno));
        return EXIT_INTERNAL;
    }
    atomic_store(&run->shared->wave, index);
    int wrong = open_viewers(run, index, begun);
    if (wrong)
        return wrong;
    if (index == 0)
        take_probe(run, &run->result->opened);
    sleep_ns(seconds_ns(run->options->settle));
    take_probe(run, &wave->to);
    memory_take((uint32_t)run->options->pid, &wave->memory);
    return 0;
}

/* What coming back costs is the cost of a wave less this. */
static void drop_all(struct run *run)
{
    struct wave *drop = &run->result->drop;
    take_probe(run, &drop->from);
    atomic_store(&run->shared->wave, BENCH_WAVE_NONE);
    sleep_ns(seconds_ns(run->options->settle));
    take_probe(run, &drop->to);
    memory_take((uint32_t)run->options->pid, &drop->memory);
}

static int run_waves(struct run *run)
{
    uint32_t waves = run->options->waves < 1 ? 1 : (uint32_t)run->options->waves;
    for (uint32_t i = 0; i < waves; i++) {
        int wrong = run_wave(run, i);
        if (wrong)
            return wrong;
    }
    run->result->opening = run->result->waves[0].from;
    run->result->connect_seconds = run->result->waves[0].seconds;
    run->result->connected = run->result->waves[waves - 1].memory;
    run->result->peak = run->result->connected;
    return 0;
}

static void plan(struct run *run)
{
    const struct bench_options *options = run->options;
    struct schedule *schedule = &run->shared->schedule;
    /* Who publishes nothing is owed nothing: others' messages are counted as they come. */
    double rate = strcmp(options->publish, "none") == 0 ? 0 : options->rate;
    *schedule = (struct schedule){.start_ns = clock_ns() + LEAD_NS,
                                  .rate = rate,
                                  .warmup = (uint64_t)(rate * options->warmup),
                                  .count = (uint64_t)(rate * options->seconds),
                                  .pause_ns = PAUSE_NS,
                                  .rooms = (uint64_t)options->rooms,
                                  .high_every = (uint64_t)options->high_every};
    run->shared->stall_from_ns = schedule->start_ns + seconds_ns(options->stall_after);
    run->shared->stall_until_ns = run->shared->stall_from_ns + seconds_ns(options->stall_seconds);
    run->result->schedule = *schedule;
    atomic_store(&run->shared->phase, PHASE_RUN);
}

/* Counts the messages due to a group, up to `before`. */
static uint64_t expected(const struct run *run, uint64_t before, enum group group)
{
    uint32_t each = options_rooms_per_viewer(run->options);
    struct stream stream = {.high = group == GROUP_HIGH};
    uint64_t sum = 0;
    for (uint32_t i = 0; i < (uint32_t)run->options->viewers; i++) {
        if (!stream.high && options_group(run->options, i) != group)
            continue;
        for (uint32_t k = 0; k < each; k++) {
            stream.room = options_viewer_room(run->options, i, k);
            sum += schedule_in_stream(&run->shared->schedule, before, stream);
        }
    }
    return sum;
}

/* Publishes what is due. Returns when the next step is, in ns of the clock. */
static uint64_t publish_due(struct run *run, uint64_t now)
{
    const struct schedule *schedule = &run->shared->schedule;
    uint64_t total = run->self_timed ? 0 : schedule_total(schedule);
    if (run->next >= total)
        return UINT64_MAX;
    uint64_t due = schedule_due_ns(schedule, run->next);
    if (due > now || run->not_before_ns > now)
        return due > run->not_before_ns ? due : run->not_before_ns;
    while (due <= now) {
        publisher_add(run->publisher, run->next++, due);
        if (run->next == total)
            return UINT64_MAX;
        due = schedule_due_ns(schedule, run->next);
    }
    run->not_before_ns = now + (uint64_t)(run->options->batch_ms * 1e6);
    return due > run->not_before_ns ? due : run->not_before_ns;
}

/* Waits for the publisher's socket, at most until `wake` and 5 ms, so that the end is seen soon. */
static void wait_until(const struct run *run, uint64_t wake)
{
    uint64_t now = clock_ns();
    uint64_t wait = wake > now ? wake - now : 0;
    if (wait > 5000000)
        wait = 5000000;
    struct timespec timeout = {0, (long)wait};
    struct pollfd poll = {
        .fd = publisher_fd(run->publisher),
        .events = (short)(POLLIN | (publisher_wants_write(run->publisher) ? POLLOUT : 0))};
    ppoll(&poll, 1, &timeout, NULL);
}

/* The measured part: from the first message until everything has arrived, or --drain after the last
 * one. */
static int drive(struct run *run)
{
    const struct schedule *schedule = &run->shared->schedule;
    uint64_t total = schedule_total(schedule);
    uint64_t everything = 0;
    for (int group = 0; group < GROUPS; group++) {
        everything += expected(run, total, (enum group)group);
        run->result->expected[group] = expected(run, total, (enum group)group) -
                                       expected(run, schedule->warmup, (enum group)group);
    }
    bool publishes = total > 0 && strcmp(run->options->publish, "none") != 0;
    uint64_t measure_ns = schedule->start_ns + seconds_ns(run->options->warmup) + PAUSE_NS;
    uint64_t end_ns = measure_ns + seconds_ns(run->options->seconds);
    if (publishes)
        end_ns = schedule_due_ns(schedule, total - 1) + seconds_ns(run->options->drain);
    bool begun = false;
    for (;;) {
        uint64_t now = clock_ns();
        if (!begun && now >= measure_ns - PROBE_NS) {
            take_probe(run, &run->result->begin);
            begun = true;
        }
        if (now > end_ns || (publishes && begun && delivered(run) >= everything))
            break;
        uint64_t wake = publish_due(run, now);
        publisher_pump(run->publisher);
        if (child_died(run))
            return EXIT_INTERNAL;
        progress(run, now);
        if (!begun && wake > measure_ns - PROBE_NS)
            wake = measure_ns - PROBE_NS;
        wait_until(run, wake);
    }
    take_probe(run, &run->result->end);
    run->result->elapsed_seconds = between(run->result->begin.time_ns, run->result->end.time_ns);
    return 0;
}

static void add_tally(struct tally *to, const struct tally *from)
{
    to->order.lost += from->order.lost;
    to->order.duplicates += from->order.duplicates;
    to->order.out_of_order += from->order.out_of_order;
    to->messages += from->messages;
    to->measured += from->measured;
    to->reads += from->reads;
    to->bytes += from->bytes;
    to->wrong_room += from->wrong_room;
    to->stale += from->stale;
    to->skip_notices += from->skip_notices;
    to->skipped += from->skipped;
    to->gap_notices += from->gap_notices;
    to->told += from->told;
    to->accounted += from->accounted;
    to->current += from->current;
    latency_merge(&to->latency, &from->latency);
}

static void gather(struct run *run)
{
    struct bench_result *result = run->result;
    for (uint32_t i = 0; i < run->processes; i++)
        for (int group = 0; group < GROUPS; group++)
            add_tally(&result->tallies[group], &run->shared->shards[i].tallies[group]);
    for (uint32_t i = 0; i < (uint32_t)run->options->viewers; i++)
        result->viewers[options_group(run->options, i)]++;
    if (run->options->high_every > 0)
        result->viewers[GROUP_HIGH] = (uint64_t)run->options->viewers;
    result->closed = SUM(run, closed);
    result->publish = publisher_counts(run->publisher);
    take_failure(run);
}

/* Waits for the server's memory to shrink to what issue and documents promise (1.2 × fresh + 1 MB),
 * at most --leave-wait. */
static void measure_left(struct run *run)
{
    if (run->options->leave_wait <= 0)
        return;
    struct bench_result *result = run->result;
    uint64_t begun = clock_ns();
    uint64_t until = begun + seconds_ns(run->options->leave_wait);
    uint64_t goal = result->fresh.pss_bytes + result->fresh.pss_bytes / 5 + 1000000;
    do {
        sleep_ns(250000000);
        memory_take((uint32_t)run->options->pid, &result->left);
    } while (result->left.pss_bytes > goal && clock_ns() < until);
    result->left_seconds = between(begun, clock_ns());
}

static int run_phases(struct run *run)
{
    struct bench_result *result = run->result;
    memory_take((uint32_t)run->options->pid, &result->fresh);
    int wrong = run_waves(run);
    if (wrong)
        return wrong;
    plan(run);
    run->self_timed = publisher_start(run->publisher, &run->shared->schedule);
    wrong = drive(run);
    if (!wrong && run->options->waves > 1)
        drop_all(run);
    if (stop_clients(run) < 0 && !wrong)
        wrong = EXIT_INTERNAL;
    if (wrong == EXIT_INTERNAL)
        fprintf(stderr, "halley-bench: a client process died\n");
    if (!wrong) {
        gather(run);
        measure_left(run);
    }
    return wrong;
}

int bench_run(const struct bench_options *options, struct bench_result *out)
{
    struct run run = {.options = options, .result = out, .processes = (uint32_t)options->processes};
    memset(out, 0, sizeof(*out));
    if (target_parse(options->url, "ws", "80", &run.target) < 0)
        return EXIT_UNREACHABLE;
    run.publisher = publisher_create(options);
    if (!run.publisher)
        return EXIT_UNREACHABLE;
    int code = run_phases(&run);
    stop_clients(&run);
    publisher_destroy(run.publisher);
    if (run.shared)
        munmap(run.shared, run.shared_size);
    return code;
}

bool result_clean(const struct bench_result *result)
{
    for (int group = 0; group < GROUPS; group++) {
        const struct tally *tally = &result->tallies[group];
        bool forgiven = group == GROUP_STALLING && tally->order.lost == tally->skipped;
        if ((tally->order.lost && !forgiven) || tally->order.duplicates ||
            tally->order.out_of_order || tally->wrong_room)
            return false;
    }
    return result->closed == 0;
}
