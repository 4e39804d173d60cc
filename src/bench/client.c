#include "base/clock.h"
#include "bench/viewer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Connections on their way at once, per process: well below a listener's backlog, where a SYN that
 * is dropped comes again only after a second. */
enum { PENDING_MAX = 128, EVENTS = 256 };

static void create_viewers(struct client *client, uint32_t process)
{
    uint64_t processes = (uint64_t)client->options->processes;
    uint64_t total = (uint64_t)client->options->viewers;
    uint32_t first = (uint32_t)(total * process / processes);
    client->count = (uint32_t)(total * (process + 1) / processes) - first;
    client->viewers = calloc(client->count ? client->count : 1, sizeof(*client->viewers));
    client->rooms_each = options_rooms_per_viewer(client->options);
    size_t streams = 2 * (size_t)client->rooms_each;
    client->orders = calloc(client->count ? client->count : 1, streams * sizeof(*client->orders));
    client->input = malloc(CLIENT_INPUT);
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!client->viewers || !client->orders || !client->input || client->epoll < 0)
        _exit(EXIT_INTERNAL);
    for (uint32_t i = 0; i < client->count; i++) {
        struct bench_viewer *viewer = &client->viewers[i];
        viewer->fd = -1;
        viewer->index = first + i;
        viewer->room = options_viewer_room(client->options, viewer->index, 0);
        viewer->orders = &client->orders[i * streams];
        viewer->group = (uint8_t)options_group(client->options, viewer->index);
    }
}

/* Opens as many as the rate and PENDING_MAX allow now. */
static void open_more(struct client *client, uint64_t begun_ns)
{
    double allowed = client->count;
    if (client->options->connect_rate > 0) {
        double share = client->options->connect_rate / client->options->processes;
        allowed = 1 + share * (double)(clock_ns() - begun_ns) / 1e9;
    }
    while (client->opened < client->count && client->opened < allowed &&
           client->pending < PENDING_MAX) {
        bench_viewer_open(client, &client->viewers[client->opened]);
        client->opened++;
    }
    atomic_store(&client->shard->opened, client->opened);
}

/* Everybody drops, and comes back as fast as it goes; or not. */
static void next_wave(struct client *client, uint32_t wave)
{
    client->wave = wave;
    for (uint32_t i = 0; i < client->count; i++)
        bench_viewer_drop(&client->viewers[i]);
    client->opened = wave == BENCH_WAVE_NONE ? client->count : 0;
    client->pending = 0;
}

static void pause_stalling(struct client *client, bool pause)
{
    for (uint32_t i = 0; i < client->count; i++)
        if (client->viewers[i].group == GROUP_STALLING)
            bench_viewer_pause(client, &client->viewers[i], pause);
}

/* 0 reading, 1 stalled, 2 reading again. */
static void step_stall(struct client *client, int *step)
{
    if (client->options->stall <= 0 || !client->start_ns)
        return;
    uint64_t now = clock_ns();
    if (*step == 0 && now >= client->shared->stall_from_ns) {
        pause_stalling(client, true);
        *step = 1;
    } else if (*step == 1 && now >= client->shared->stall_until_ns) {
        pause_stalling(client, false);
        *step = 2;
    }
}

static void wait_events(struct client *client, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(client->epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++)
        bench_viewer_event(client, events[i].data.ptr, events[i].events);
    for (int group = 0; group < GROUPS; group++)
        atomic_store_explicit(&client->shard->delivered[group],
                              client->shard->tallies[group].messages, memory_order_relaxed);
}

void client_run(const struct bench_options *options, const struct target *target,
                struct bench_shared *shared, uint32_t process)
{
    struct client client = {.options = options,
                            .target = target,
                            .inner = inner_of(options->as),
                            .shared = shared,
                            .shard = &shared->shards[process],
                            .numbered = options->rate > 0 && options->publish[0] &&
                                        strcmp(options->publish, "none") != 0,
                            .random = random_seed() | 1};
    create_viewers(&client, process);
    uint64_t begun_ns = clock_ns();
    int stall_step = 0;
    uint32_t phase;
    while ((phase = atomic_load(&shared->phase)) != PHASE_STOP) {
        if (phase == PHASE_RUN && !client.start_ns)
            client.start_ns = shared->schedule.start_ns;
        uint32_t wave = atomic_load(&shared->wave);
        if (wave != client.wave) {
            next_wave(&client, wave);
            begun_ns = clock_ns();
        }
        if (client.opened < client.count)
            open_more(&client, begun_ns);
        step_stall(&client, &stall_step);
        wait_events(&client, client.opened < client.count ? 1 : 5);
    }
    for (uint32_t i = 0; i < client.count; i++)
        bench_viewer_finish(&client, &client.viewers[i]);
    free(client.viewers);
    free(client.orders);
    free(client.input);
    buf_fini(&client.scratch);
    buf_fini(&client.text);
    close(client.epoll);
}
