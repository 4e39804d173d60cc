#include "worker/resume.h"
#include "worker/tickets.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    EXPIRE_EVERY_MS = 1000,
    TRIM_LEAST_VIEWERS = 1000,
    MESSAGES_PER_TURN = 4096,
    ADDRESSES_PER_TICK = 4096 /* idle ones that are looked at, to be forgotten */
};

struct command *command_create(enum command_kind kind, struct bytes room, struct bytes payload)
{
    return command_create_for(kind, room, payload, (struct bytes){0});
}

struct command *command_create_for(enum command_kind kind, struct bytes room, struct bytes payload,
                                   struct bytes user)
{
    struct command *command = calloc(1, sizeof(*command) + room.len + payload.len + user.len);
    if (!command)
        return NULL;
    list_init(&command->link);
    command->kind = kind;
    command->room_len = (uint32_t)room.len;
    command->payload_len = (uint32_t)payload.len;
    command->user_len = (uint32_t)user.len;
    if (room.len > 0)
        memcpy(command->text, room.data, room.len);
    if (payload.len > 0)
        memcpy(command->text + room.len, payload.data, payload.len);
    if (user.len > 0)
        memcpy(command->text + room.len + payload.len, user.data, user.len);
    return command;
}

uint32_t worker_random(struct worker *worker)
{
    return (uint32_t)(random_next(&worker->random) >> 32);
}

/* Both clocks come from the loop's; ticks are divided before they are cut to 32 bits, so that they wrap smoothly. */
static void take_time(struct worker *worker)
{
    uint64_t now = uv_now(&worker->loop);
    worker->now_ms = (uint32_t)now;
    worker->now_tick = (uint32_t)(now / TICK_MS);
}

void worker_tell_node(struct worker *worker, struct command *command)
{
    command->worker = worker->setup.index;
    if (mailbox_post(worker->setup.node_mailbox, &command->link))
        worker->setup.wake_node(worker->setup.ctx);
}

static void tell_kind(struct worker *worker, enum command_kind kind, void *object)
{
    struct command *command = command_create(kind, (struct bytes){0}, (struct bytes){0});
    REQUIRE(command); /* the node waits for this one: without it it would hang */
    command->object = object;
    worker_tell_node(worker, command);
}

/* What viewers were told when they came stands, whatever the next conf says; the interval is kept with each. */
static void keep_promises(struct worker *worker, const struct conf *earlier)
{
    worker->promised_timeout_ms = most(worker->promised_timeout_ms, earlier->heartbeat.timeout_ms);
    worker->promised_id = worker->next_id;
}

static void take_conf(struct worker *worker, struct conf *conf)
{
    struct conf *earlier = worker->conf;
    if (earlier)
        keep_promises(worker, earlier);
    worker->conf = conf;
    worker->sndbuf_most = 0; /* net.core.wmem_max may have been raised meanwhile */
    pulse_take_conf(worker, earlier);
    conf_unref(earlier);
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        const struct conf_lane *from = &conf->lanes[lane];
        worker->policies[lane] =
            (struct halley_lane_policy){.bounds = {.bytes = from->bytes, .ttl_ms = from->ttl_ms},
                                        .interval_ms = from->interval_ms,
                                        .disconnect = from->overflow == OVERFLOW_DISCONNECT};
    }
    worker->trusted_count = 0;
    for (uint32_t i = 0; i < conf->limits.trusted.count; i++)
        worker->trusted_count += network_parse(bytes_str(conf->limits.trusted.items[i]),
                                               &worker->trusted[worker->trusted_count]);
    worker->adapter_limits =
        (struct adapter_limits){.json_depth = (int)conf->limits.json_depth,
                                .join_event = bytes_str(conf->socketio.join_event),
                                .leave_event = bytes_str(conf->socketio.leave_event)};
    struct codec_limits limits = {.message_bytes = conf->limits.message_bytes,
                                  .open_messages = conf->limits.open_messages,
                                  .idle_contexts = 4};
    if (worker->codecs)
        codec_pool_set_limits(worker->codecs, &limits);
    else
        worker->codecs = codec_pool_create(&limits);
}

static void update_gauges(struct worker *worker)
{
    metric_set(&worker->metrics.memory_viewers,
               (uint64_t)worker->viewer_count * sizeof(struct viewer) +
                   worker->slot_cap * sizeof(struct viewer *) +
                   metric_get(&worker->metrics.memberships) * sizeof(struct member) +
                   worker->terms_bytes);
    metric_set(&worker->metrics.memory_tickets, worker->grants.bytes);
    metric_set(&worker->metrics.memory_codec, codec_pool_bytes(worker->codecs));
    metric_set(&worker->metrics.addresses, worker->peers.map.count);
    metric_set(&worker->metrics.memory_addresses, peers_memory(&worker->peers));
    metric_set(&worker->metrics.networks, halley_networks_count(worker->networks));
    metric_set(&worker->metrics.memory_networks, halley_networks_memory(worker->networks));
}

/* glibc keeps what was freed: after most viewers left, pages go back to the system. */
static void give_memory_back(struct worker *worker)
{
    if (worker->viewer_count > worker->peak_viewers)
        worker->peak_viewers = worker->viewer_count;
    if (worker->peak_viewers < TRIM_LEAST_VIEWERS ||
        worker->viewer_count > worker->peak_viewers / 2)
        return;
    worker->peak_viewers = worker->viewer_count;
    viewer_bury(worker); /* those whose time ran out in this very tick */
    codec_pool_trim(worker->codecs);
    for (int e = 0; e < ENCODING_COUNT; e++)
        buf_fini(&worker->scratch[e]);
    malloc_trim(0);
}

static void on_tick(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    uint64_t now = clock_ns() / 1000;
    take_time(worker);
    if (worker->ticked_us > 0 && now > worker->ticked_us + TICK_MS * 1000)
        histogram_add(&worker->metrics.loop_lag, now - worker->ticked_us - TICK_MS * 1000);
    else
        histogram_add(&worker->metrics.loop_lag, 0);
    worker->ticked_us = now;
    atomic_fetch_add_explicit(&worker->ticks, 1, memory_order_relaxed);

    struct link due;
    struct link *link;
    list_init(&due);
    wheel_advance(&worker->wheel, worker->now_tick, &due);
    while ((link = list_shift(&due)))
        viewer_on_timer(worker, CONTAINER_OF(link, struct viewer, timer));
    if (worker->now_ms - worker->expired_ms >= EXPIRE_EVERY_MS) {
        worker->expired_ms = worker->now_ms;
        flush_check_blocked(worker);
        rooms_expire(worker);
        update_gauges(worker);
        give_memory_back(worker);
    }
    narrow_tick(worker);
    counts_flush(worker);
    turn_away_tick(worker);
    resume_tick(worker);
    peers_expire(&worker->peers, worker->now_ms, ADDRESSES_PER_TICK);
    pulse_tick(worker);
}

static void on_viewers(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    struct epoll_event ready[EVENTS_PER_TURN];
    (void)events;
    if (status < 0)
        return;
    take_time(worker);
    int count = epoll_wait(worker->epoll_fd, ready, EVENTS_PER_TURN, 0);
    for (int i = 0; i < count; i++)
        viewer_on_event(worker, ready[i].data.ptr, ready[i].events);
}

static void on_busy(uv_idle_t *idle)
{
    (void)idle; /* its being active keeps the loop from sleeping while slices are left */
}

static void on_turn(uv_prepare_t *prepare)
{
    struct worker *worker = prepare->data;
    take_time(worker);
    metric_add(&worker->metrics.loop_turns, 1);
    sweep_on_gather(worker);
    resume_turn(worker);
    bool more = sweep_turn(worker);
    viewer_bury(worker);
    if (more)
        uv_idle_start(&worker->busy, on_busy);
    else
        uv_idle_stop(&worker->busy);
}

static void on_exit_command(struct worker *worker)
{
    listeners_stop(worker);
    uv_close((uv_handle_t *)&worker->wake, NULL);
    uv_close((uv_handle_t *)&worker->turn, NULL);
    uv_close((uv_handle_t *)&worker->busy, NULL);
    uv_close((uv_handle_t *)&worker->tick, NULL);
    uv_close((uv_handle_t *)&worker->gather_timer, NULL);
    uv_close((uv_handle_t *)&worker->merge_timer, NULL);
    uv_close((uv_handle_t *)&worker->accept_pause, NULL);
    uv_close((uv_handle_t *)&worker->farewell_timer, NULL);
    uv_close((uv_handle_t *)&worker->viewers_poll, NULL);
}

static void on_command(struct worker *worker, struct command *command)
{
    switch (command->kind) {
    case COMMAND_ROOM_LIVE:
        room_live(worker, command_room(command), command->online, command_payload(command));
        break;
    case COMMAND_ROOM_REFUSED:
        room_refused(worker, command_room(command));
        break;
    case COMMAND_HISTORY:
        resume_on_history(worker, command);
        history_batch_unref(command->object);
        break;
    case COMMAND_PUBLISHED:
        intents_published(worker, command);
        break;
    case COMMAND_MERGED:
        merge_settled(worker, command);
        break;
    case COMMAND_TICKET_ANSWER:
        tickets_answered(worker, command);
        break;
    case COMMAND_CLOSE: {
        struct viewer *viewer = viewer_find(worker, command->slot, command->id);
        if (viewer)
            viewer_close(worker, viewer, (enum close_reason)command->result);
        break;
    }
    case COMMAND_CONF:
        merge_post_all(worker); /* what is gathered is of the kind that its type had */
        take_conf(worker, command->object);
        break;
    case COMMAND_QUERY:
        query_answer(worker, command->object);
        tell_kind(worker, COMMAND_QUERY_DONE, command->object);
        break;
    case COMMAND_DRAIN:
        drain_obey(worker, command->object);
        free(command->object);
        break;
    case COMMAND_EXIT:
        on_exit_command(worker);
        break;
    default:
        REQUIRE(!"a command for the node");
    }
    free(command);
}

void worker_take_commands(struct worker *worker)
{
    struct link commands;
    struct link *link;
    list_init(&commands);
    mailbox_take(&worker->mailbox, &commands);
    while ((link = list_shift(&commands)))
        on_command(worker, CONTAINER_OF(link, struct command, link));
}

/* Rooms lie scattered in memory: those of the next messages are fetched while this one is delivered. */
static void fetch_ahead(const struct worker *worker, const struct ring_queue *ring)
{
    const struct message *far = ring_peek(ring, 8);
    const struct message *near = ring_peek(ring, 4);
    if (far && worker->rooms.buckets)
        __builtin_prefetch(&worker->rooms.buckets[far->room_hash & worker->rooms.mask]);
    if (near)
        __builtin_prefetch(map_chain(&worker->rooms, near->room_hash));
}

/* A bounded number of one lane's messages. Returns true when more may wait. */
static bool take_messages(struct worker *worker, int lane)
{
    for (uint32_t left = MESSAGES_PER_TURN; left > 0; left--) {
        if (sweep_is_choked(worker, lane))
            return true;
        fetch_ahead(worker, &worker->lanes[lane]);
        struct message *message = ring_shift(&worker->lanes[lane]);
        if (!message)
            return false;
        if (message->kind == MESSAGE_USER)
            user_deliver(worker, message);
        else
            room_deliver(worker, message);
        message_unref(message);
    }
    return true;
}

/* Commands first, then messages by lane. */
static void on_wake(uv_async_t *async)
{
    struct worker *worker = async->data;
    uv_update_time(&worker->loop);
    take_time(worker);
    sweep_on_gather(worker); /* the wheel counts from its last turn */
    worker_take_commands(worker);
    bool more = false;
    for (int lane = 0; lane < LANE_COUNT; lane++)
        more |= take_messages(worker, lane);
    if (more && !uv_is_closing((uv_handle_t *)async))
        uv_async_send(async); /* viewers first, then the rest */
}

static void run(void *arg)
{
    struct worker *worker = arg;
    worker->self = pthread_self();
    uv_run(&worker->loop, UV_RUN_DEFAULT);
}

static int start_handles(struct worker *worker)
{
    uv_loop_t *loop = &worker->loop;
    int error = uv_loop_init(loop);
    if (error)
        return error;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->epoll_fd < 0)
        return UV_EMFILE;
    uv_async_init(loop, &worker->wake, on_wake);
    uv_prepare_init(loop, &worker->turn);
    uv_prepare_start(&worker->turn, on_turn);
    uv_idle_init(loop, &worker->busy);
    uv_timer_init(loop, &worker->tick);
    uv_timer_start(&worker->tick, on_tick, TICK_MS, TICK_MS);
    uv_timer_init(loop, &worker->gather_timer);
    uv_timer_init(loop, &worker->accept_pause);
    merge_init(worker);
    uv_timer_init(loop, &worker->farewell_timer);
    error = uv_poll_init(loop, &worker->viewers_poll, worker->epoll_fd);
    if (error)
        return error;
    uv_poll_start(&worker->viewers_poll, UV_READABLE, on_viewers);
    worker->wake.data = worker->turn.data = worker->busy.data = worker->tick.data = worker;
    worker->gather_timer.data = worker->accept_pause.data = worker->viewers_poll.data =
        worker->farewell_timer.data = worker;
    return listeners_start(worker);
}

static int init(struct worker *worker, const struct worker_setup *setup)
{
    worker->setup = *setup;
    worker->free_slot = INT32_MAX;
    worker->spare_fd = -1;
    worker->random = random_seed();
    list_init(&worker->dirty);
    list_init(&worker->blocked);
    list_init(&worker->graveyard);
    list_init(&worker->active);
    list_init(&worker->ended);
    list_init(&worker->urgent);
    list_init(&worker->resumes);
    list_init(&worker->ripe);
    list_init(&worker->replays);
    list_init(&worker->asking);
    kicks_init(&worker->kicks);
    list_init(&worker->sweeping);
    mailbox_init(&worker->mailbox);
    int error = start_handles(worker);
    if (error)
        return error;
    take_time(worker);
    wheel_init(&worker->wheel, worker->now_tick);
    wheel_init(&worker->gather, worker->now_ms);
    struct halley_lanes_rest none;
    halley_lanes_rest_init(&none, worker->now_ms);
    halley_lanes_init(&worker->all.lanes, &none);
    sweep_init(&worker->all);
    worker->networks = halley_networks_create();
    take_conf(worker, conf_ref(setup->conf));
    worker->receive = malloc(RECEIVE_BYTES);
    error = turn_away_init(worker);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        error |= ring_init(&worker->lanes[lane], setup->conf->limits.mailbox);
    return error || !worker->receive || !worker->codecs || !worker->networks ? UV_ENOMEM : 0;
}

int worker_create(struct worker **out, const struct worker_setup *setup)
{
    struct worker *worker = aligned_alloc(_Alignof(struct worker),
                                          sizeof(*worker)); /* ring.h keeps cache lines apart */
    int *listeners = calloc(setup->listener_count, sizeof(int));
    if (!worker || !listeners) {
        free(worker);
        free(listeners);
        return UV_ENOMEM;
    }
    memset(worker, 0, sizeof(*worker));
    memcpy(listeners, setup->listeners, setup->listener_count * sizeof(int));
    struct worker_setup own = *setup;
    own.listeners = listeners;
    int error = init(worker, &own);
    if (!error)
        error = uv_thread_create(&worker->thread, run, worker);
    if (error)
        return error; /* at start this is fatal: the process ends and nothing is taken apart */
    *out = worker;
    return 0;
}

bool worker_deliver(struct worker *worker, struct message *message)
{
    if (!ring_push(&worker->lanes[message->lane], message_ref(message))) {
        message_unref(message);
        return false;
    }
    return true;
}

uint32_t worker_room_left(const struct worker *worker, enum lane lane)
{
    return ring_free(&worker->lanes[lane]);
}

void worker_post(struct worker *worker, struct command *command)
{
    command->worker = worker->setup.index;
    if (mailbox_post(&worker->mailbox, &command->link))
        worker_wake(worker);
}

void worker_wake(struct worker *worker)
{
    uv_async_send(&worker->wake);
}

uint64_t worker_ticks(const struct worker *worker)
{
    return atomic_load_explicit(&worker->ticks, memory_order_relaxed);
}

struct worker_metrics *worker_metrics(struct worker *worker)
{
    return &worker->metrics;
}

static void drop_everything(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->slot_cap; i++) {
        struct viewer *viewer = worker->slots[i];
        if (!((uintptr_t)viewer & 1))
            viewer_destroy(worker, viewer);
    }
    viewer_bury(worker);
    turn_away_fini(worker);
    struct link commands;
    struct link *link;
    list_init(&commands);
    mailbox_take(&worker->mailbox, &commands);
    while ((link = list_shift(&commands))) {
        struct command *command = CONTAINER_OF(link, struct command, link);
        if (command->kind == COMMAND_HISTORY)
            history_batch_unref(command->object);
        free(command);
    }
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct message *message;
        while ((message = ring_shift(&worker->lanes[lane])))
            message_unref(message);
        ring_fini(&worker->lanes[lane]);
    }
}

void worker_join(struct worker *worker)
{
    if (!worker)
        return;
    uv_thread_join(&worker->thread);
    drop_everything(worker);
    halley_lanes_fini(&worker->all.lanes);
    merge_fini(worker);
    map_fini(&worker->users);
    map_fini(&worker->rooms);
    resume_fini(worker);
    grants_fini(&worker->grants);
    kicks_fini(&worker->kicks);
    peers_fini(&worker->peers);
    halley_networks_destroy(worker->networks);
    codec_pool_destroy(worker->codecs);
    for (int e = 0; e < ENCODING_COUNT; e++)
        buf_fini(&worker->scratch[e]);
    buf_fini(&worker->counts);
    buf_fini(&worker->online);
    buf_fini(&worker->reply);
    buf_fini(&worker->found);
    free(worker->receive);
    free(worker->listeners);
    free((void *)(uintptr_t)worker->setup.listeners);
    close(worker->epoll_fd);
    uv_loop_close(&worker->loop);
    mailbox_fini(&worker->mailbox);
    conf_unref(worker->conf);
    free(worker);
}

void history_batch_unref(struct history_batch *batch)
{
    if (!batch || atomic_fetch_sub_explicit(&batch->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < batch->count; i++)
        message_unref(batch->messages[i]);
    free(batch);
}
