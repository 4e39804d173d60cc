#include "node/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "node/notify.h"
#include "node/presence.h"
#include "ws/head.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    FILES_RESERVED = 96,
    FILES_PER_WORKER = 16,
    PARTINGS_MAX = 512, /* refused connections on their way out, per worker */
    LEAVE_MOST_MS = 200
};

uint64_t node_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    rlim_t soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return soft;
    return limit.rlim_cur;
}

/* Refused connections stay open for a moment (worker/turnaway.c): one in 64 files for all of them. */
static uint32_t partings_per_worker(const struct conf *conf, uint64_t file_limit)
{
    uint64_t share = file_limit / 64 / conf->server.workers;
    return share < 1 ? 1 : share < PARTINGS_MAX ? (uint32_t)share : PARTINGS_MAX;
}

uint32_t node_connections(const struct conf *conf, uint64_t file_limit)
{
    uint64_t reserved =
        FILES_RESERVED +
        conf->server.workers * (FILES_PER_WORKER + (uint64_t)partings_per_worker(conf, file_limit));
    uint64_t room = file_limit > reserved + 16 ? file_limit - reserved : 16;
    if (conf->limits.connections > 0 && conf->limits.connections < room)
        return conf->limits.connections;
    return room < UINT32_MAX / 2 ? (uint32_t)room : UINT32_MAX / 2;
}

void node_update_broker_metrics(struct node *node)
{
    struct broker_stats stats = {0};
    struct node_metrics *metrics = &node->metrics;
    broker_get_stats(node->broker, &stats);
    metric_set(&metrics->broker_received, stats.received);
    metric_set(&metrics->broker_received_bytes, stats.received_bytes);
    metric_set(&metrics->broker_published, stats.published);
    metric_set(&metrics->broker_publish_failed, stats.publish_failed);
    metric_set(&metrics->broker_calls, stats.calls);
    metric_set(&metrics->broker_call_failed, stats.call_failed);
    metric_set(&metrics->broker_reconnects, stats.reconnects);
    metric_set(&metrics->broker_protocol_errors, stats.protocol_errors);
    metric_set(&metrics->broker_subscriptions, stats.subscriptions);
    metric_set(&metrics->broker_pending, stats.pending);
    metric_set(&metrics->broker_lag_ms, stats.lag_ms);
}

static void post_all(struct node *node, enum command_kind kind)
{
    for (uint32_t i = 0; i < node->worker_count; i++) {
        struct command *command = command_create(kind, (struct bytes){0}, (struct bytes){0});
        if (!command)
            continue; /* the drain limit ends it */
        if (kind == COMMAND_CONF)
            command->object = conf_ref(node->conf);
        worker_post(node->workers[i], command);
    }
}

static void on_closed(void *ctx)
{
    (void)ctx; /* the loop ends by itself when the last handle is closed */
}

/* Workers' threads end, then everything that has a handle on this loop. The broker answers what still waits for it, the admin
 * listener waits for those answers. */
void node_end(struct node *node)
{
    if (node->phase == PHASE_ENDING)
        return;
    node->phase = PHASE_ENDING;
    post_all(node, COMMAND_EXIT);
    for (uint32_t i = 0; i < node->worker_count; i++)
        worker_join(node->workers[i]);
    api_abandon(node);
    if (node->admin)
        admin_close(node->admin, on_closed);
    broker_close(node->broker, on_closed);
    uv_close((uv_handle_t *)&node->wake, NULL);
    uv_close((uv_handle_t *)&node->batch_before, NULL);
    uv_close((uv_handle_t *)&node->batch_after, NULL);
    uv_close((uv_handle_t *)&node->tick, NULL);
    uv_close((uv_handle_t *)&node->pause, NULL);
    uv_close((uv_handle_t *)&node->merge_timer, NULL);
    uv_close((uv_handle_t *)&node->events_timer, NULL);
    history_close(node);
    uv_close((uv_handle_t *)&node->gather, NULL);
    uv_close((uv_handle_t *)&node->stop_timer, NULL);
    uv_close((uv_handle_t *)&node->drain_timer, NULL);
    share_stop(&node->share);
    for (int i = 0; i < 3; i++)
        uv_close((uv_handle_t *)&node->signals[i], NULL);
}

static void on_leave_timeout(uv_timer_t *timer)
{
    node_end(timer->data);
}

void node_leave(struct node *node)
{
    node->events_stopping = false; /* whoever of them is late */
    uv_timer_start(&node->stop_timer, on_leave_timeout, LEAVE_MOST_MS, 0);
    presence_leave(node, node_end);
}

static void stop(struct node *node, const char *signal_name)
{
    log_info("told to stop", LOG_STR("signal", signal_name));
    if (drain_begin(node))
        return;
    log_warn("second signal: ending at once", LOG_STR("signal", signal_name));
    node_end(node);
}

/* What else may stand in the way, told in one place; the file limit comes first since everything is sized by it. */
static void size_connections(struct node *node)
{
    uint64_t files = node_raise_file_limit();
    uint32_t limit = node_connections(node->conf, files);
    atomic_store(&node->connections_limit, limit);
    metric_set(&node->metrics.connections_limit, limit);
    log_info("connections sized by the file limit", LOG_UINT("limits.connections", limit),
             LOG_UINT("configured", node->conf->limits.connections), LOG_UINT("file_limit", files));
}

static void reload(struct node *node)
{
    struct buf error = {0};
    struct buf warnings = {0};
    struct buf later = {0};
    notify_reloading();
    struct conf *fresh = conf_load(node->options->conf_path, node->options->overrides,
                                   node->options->override_count, &error, &warnings);
    if (!fresh) {
        metric_add(&node->metrics.reloads_failed, 1);
        log_lines(LOG_LEVEL_ERROR, "reload refused, nothing changed", buf_view(&error));
    } else {
        conf_diff_restart(node->conf, fresh, &later);
        log_lines(LOG_LEVEL_WARN, "conf warning", buf_view(&warnings));
        if (later.len > 0)
            log_warn("these keys take effect after a restart", LOG_BYTES("keys", buf_view(&later)));
        conf_keep_restart(node->conf, fresh);
        if (node->conf->history_types == 0 && fresh->history_types > 0)
            history_begin(node);
        conf_unref(node->conf);
        node->conf = fresh;
        log_configure((enum log_format)fresh->log.format, (enum log_level)fresh->log.level);
        broker_set_conf(node->broker, fresh);
        if (node->admin)
            admin_set_conf(node->admin, fresh);
        size_connections(node);
        post_all(node, COMMAND_CONF);
        metric_add(&node->metrics.reloads, 1);
        log_info(
            "conf reloaded",
            LOG_STR("file", node->options->conf_path ? node->options->conf_path : "(built-in)"));
    }
    notify_ready(fresh ? "serving" : "serving; the last reload was refused, see the log");
    buf_fini(&error);
    buf_fini(&warnings);
    buf_fini(&later);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct node *node = handle->data;
    if (number == SIGHUP)
        reload(node);
    else
        stop(node, number == SIGTERM ? "SIGTERM" : "SIGINT");
}

void node_merged(struct node *node)
{
    events_stop(node);
    if (events_settled(node))
        drain_settle(node);
}

void node_events_settled(struct node *node)
{
    drain_settle(node);
}

static void on_command(struct node *node, struct command *command)
{
    switch (command->kind) {
    case COMMAND_HOLD:
        dispatch_hold(node, command);
        break;
    case COMMAND_RELEASE:
        dispatch_release(node, command);
        break;
    case COMMAND_ASK_HISTORY:
        history_ask(node, command);
        break;
    case COMMAND_PUBLISH:
        dispatch_publish(node, command);
        break;
    case COMMAND_TICKET_FIND:
        tickets_find(node, command);
        break;
    case COMMAND_TICKET_BIND:
        tickets_bind(node, command);
        break;
    case COMMAND_EVENT:
        events_take(node, command);
        break;
    case COMMAND_OPENED:
        sessions_opened(node, command);
        break;
    case COMMAND_CLOSED:
        sessions_closed(node, command);
        break;
    case COMMAND_COUNTS:
        presence_take_counts(node, command);
        break;
    case COMMAND_QUERY_DONE:
        api_query_done(node, command->object);
        break;
    case COMMAND_STOPPED:
        drain_on_stopped(node);
        break;
    case COMMAND_DRAINED:
        drain_on_drained(node, command);
        break;
    default:
        break;
    }
}

static void on_wake(uv_async_t *async)
{
    struct node *node = async->data;
    struct link commands;
    struct link *link;
    list_init(&commands);
    mailbox_take(&node->mailbox, &commands);
    while ((link = list_shift(&commands))) {
        struct command *command = CONTAINER_OF(link, struct command, link);
        if (node->phase != PHASE_ENDING && command->kind == COMMAND_MERGE) {
            merge_up_put(node, command);
            continue; /* taken: it may go back to its worker with the answer */
        }
        if (node->phase != PHASE_ENDING)
            on_command(node, command);
        free(command);
    }
}

static void wake_node(void *ctx)
{
    struct node *node = ctx;
    uv_async_send(&node->wake);
}

/* One wake-up per worker and batch, however many messages came. */
static void wake_workers(struct node *node)
{
    for (uint32_t i = 0; node->woken != 0 && i < node->worker_count; i++) {
        if (node->woken & 1ull << i)
            worker_wake(node->workers[i]);
    }
    node->woken = 0;
}

static void on_batch_before(uv_prepare_t *prepare)
{
    wake_workers(prepare->data);
}

static void on_batch_after(uv_check_t *check)
{
    wake_workers(check->data);
}

/* systemd is told that the node lives only while every worker's loop turns. */
static void feed_watchdog(struct node *node)
{
    bool all = true;
    for (uint32_t i = 0; i < node->worker_count; i++) {
        uint64_t ticks = worker_ticks(node->workers[i]);
        if (ticks == node->ticks_seen[i]) {
            all = false;
            log_limited(LOG_LEVEL_ERROR, "worker does not turn: watchdog not fed",
                        LOG_UINT("worker", i));
        }
        node->ticks_seen[i] = ticks;
    }
    if (all)
        notify_watchdog();
}

static void on_tick(uv_timer_t *timer)
{
    struct node *node = timer->data;
    uint64_t now = clock_ms();
    uint64_t passed = node->ticked_ms ? now - node->ticked_ms : NODE_TICK_MS;
    histogram_add(&node->metrics.loop_lag,
                  passed > NODE_TICK_MS ? (passed - NODE_TICK_MS) * 1000 : 0);
    node->ticked_ms = now;
    if (node->phase == PHASE_RUNNING)
        dispatch_expire(node);
    tickets_expire(node);
    dispatch_expire_rates(node);
    totals_expire(&node->totals, uv_now(&node->loop), node->conf->broker.total_ttl_ms);
    struct backlog_bounds kept = history_bounds(node);
    backlog_expire(&node->backlog, &kept, uv_now(&node->loop));
    sessions_tick(node);
    if (node->phase != PHASE_ENDING)
        presence_tick(node);
    frames_update(node);
    drain_tick(node);
    feed_watchdog(node);
}

static int start_workers(struct node *node)
{
    uint32_t seed = (uint32_t)(random_seed() >> 16);
    uint64_t started_ms = clock_ms();
    for (uint32_t i = 0; i < node->listeners.workers; i++) {
        struct worker_setup setup = {.index = i,
                                     .conf = node->conf,
                                     .listeners = listen_of(&node->listeners, i),
                                     .listener_count = listen_count(&node->listeners, i),
                                     .steady = node->listeners.steady,
                                     .connection_seed = seed,
                                     .connections = &node->connections,
                                     .connections_limit = &node->connections_limit,
                                     .handshakes = &node->handshakes,
                                     .ramp = &node->ramp,
                                     .started_ms = started_ms,
                                     .farewells = &node->farewells,
                                     .partings =
                                         partings_per_worker(node->conf, node_raise_file_limit()),
                                     .node_mailbox = &node->mailbox,
                                     .wake_node = wake_node,
                                     .ctx = node};
        int error = worker_create(&node->workers[i], &setup);
        if (error) {
            log_error("a worker can't be started", LOG_UINT("worker", i),
                      LOG_STR("why", uv_strerror(error)));
            return error;
        }
        node->worker_count++;
    }
    metric_set(&node->metrics.workers, node->worker_count);
    if (node->conf->heartbeat.adaptive && node->conf->server.accept == ACCEPT_IP_HASH &&
        !node->listeners.steady)
        log_info("intervals of heartbeats are not learned: these listening sockets lead an "
                 "address to several workers",
                 LOG_UINT("sockets", node->listeners.group),
                 LOG_UINT("workers", node->worker_count));
    return 0;
}

static void start_handles(struct node *node)
{
    static const int numbers[3] = {SIGHUP, SIGTERM, SIGINT};
    uv_async_init(&node->loop, &node->wake, on_wake);
    uv_prepare_init(&node->loop, &node->batch_before);
    uv_prepare_start(&node->batch_before, on_batch_before);
    uv_check_init(&node->loop, &node->batch_after);
    uv_check_start(&node->batch_after, on_batch_after);
    uv_timer_init(&node->loop, &node->tick);
    uv_timer_start(&node->tick, on_tick, NODE_TICK_MS, NODE_TICK_MS);
    uv_timer_init(&node->loop, &node->pause);
    merges_init(node);
    events_init(node);
    history_init(node);
    uv_timer_init(&node->loop, &node->gather);
    uv_timer_init(&node->loop, &node->stop_timer);
    uv_timer_init(&node->loop, &node->drain_timer);
    node->wake.data = node->batch_before.data = node->batch_after.data = node->tick.data =
        node->pause.data = node->gather.data = node->stop_timer.data = node->drain_timer.data =
            node;
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&node->loop, &node->signals[i]);
        node->signals[i].data = node;
        uv_signal_start(&node->signals[i], on_signal, numbers[i]);
    }
}

/* Finds out whether another process has the port already, and takes copies of its sockets. Those that systemd passed are the same
 * ones; there it is not needed, and only tells who is there. */
static int take_share(struct node *node, struct listen_gift *gift, struct buf *error)
{
    bool passed = gift->addresses > 0;
    struct listen_gift taken = {0};
    char address[CONF_ADDRESS_MAX];
    node->share.fd = -1;
    if (!passed && !node->conf->server.share_port)
        return 0;
    listen_first(node->conf, gift, address, sizeof(address));
    int result = share_open(&node->share, address, &taken, error);
    if (!passed) {
        *gift = taken;
        return result;
    }
    for (uint32_t i = 0; i < taken.addresses * taken.group; i++)
        close(taken.sockets[i]);
    log_lines(LOG_LEVEL_WARN, "no hand-over by this process", buf_view(error));
    buf_clear(error);
    return 0;
}

static int open_listeners(struct node *node)
{
    struct buf error = {0};
    struct listen_gift gift = {.group = 1};
    int passed = notify_listen_fds(gift.sockets, CONF_LISTEN_MAX, &error);
    gift.addresses = passed > 0 ? (uint32_t)passed : 0;
    gift.fixed = passed > 0;
    if (passed > 0)
        log_info("listening on sockets from systemd: all workers accept from each");
    int result = passed < 0 ? -1 : take_share(node, &gift, &error);
    if (result == 0)
        result =
            listen_open(&node->listeners, node->conf, node->conf->server.workers, &gift, &error);
    if (result != 0)
        log_lines(LOG_LEVEL_ERROR, "can't listen for viewers", buf_view(&error));
    buf_fini(&error);
    return result;
}

static int open_admin(struct node *node)
{
    if (node->conf->admin.listen[0] == '\0')
        return 0;
    int error = admin_create(&node->admin, &node->loop, node->conf, &node_admin_ops, node);
    if (error)
        log_error("can't listen for admin", LOG_STR("admin.listen", node->conf->admin.listen),
                  LOG_STR("why", uv_strerror(error)));
    return error;
}

/* Loads OpenSSL's SHA-1 now, while its failure is still an error at start: the example of RFC 6455 §1.3. */
static int check_crypto(void)
{
    char accept[WS_ACCEPT_LEN];
    head_accept(BYTES_LIT("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    if (memcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_LEN) == 0)
        return 0;
    log_error("OpenSSL's SHA-1 does not work: handshakes are impossible",
              LOG_STR("do", "check OPENSSL_CONF and the installed providers"));
    return -1;
}

static int start(struct node *node)
{
    if (check_crypto() != 0)
        return EXIT_INTERNAL;
    size_connections(node);
    start_handles(node);
    if (open_listeners(node) != 0 || open_admin(node) != 0)
        return EXIT_UNAVAILABLE;
    node->broker = broker_create(&node->loop, node->conf, &node_broker_events, node);
    if (!node->broker || presence_create(node) != 0 || start_workers(node) != 0)
        return EXIT_INTERNAL;
    for (uint32_t i = 0; i < node->listeners.addresses; i++)
        log_info("listening", LOG_STR("address", node->listeners.bound[i]),
                 LOG_UINT("workers", node->worker_count));
    if (node->admin)
        log_info("admin listening", LOG_STR("address", admin_address(node->admin)));
    log_info("serving", LOG_STR("node", node->conf->server.node),
             LOG_STR("version", HALLEY_VERSION));
    share_start(&node->share, &node->loop, &node->listeners, drain_on_other, node);
    notify_ready("serving");
    return EXIT_OK;
}

/* What workers still told when nobody listened any more, rooms that they let go most of all. */
static void drop_commands(struct node *node)
{
    struct link commands;
    struct link *link;
    list_init(&commands);
    mailbox_take(&node->mailbox, &commands);
    while ((link = list_shift(&commands)))
        free(CONTAINER_OF(link, struct command, link));
}

int node_run(struct conf *conf, const struct node_options *options)
{
    struct node *node = calloc(1, sizeof(*node));
    if (!node || uv_loop_init(&node->loop) != 0) {
        free(node);
        return EXIT_INTERNAL;
    }
    signal(SIGPIPE, SIG_IGN);
    map_seed();
    node->conf = conf_ref(conf);
    node->options = options;
    list_init(&node->lingering);
    list_init(&node->queries);
    list_init(&node->questions);
    list_init(&node->sessions_held);
    list_init(&node->sessions_unclaimed);
    node->question_id = random_seed();
    sampler_init(&node->sampler);
    list_init(&node->marks.list);
    limiter_init(&node->user_rates);
    limiter_init(&node->room_rates);
    backlog_init(&node->backlog);
    mailbox_init(&node->mailbox);
    int code = start(node);
    if (code != EXIT_OK)
        return code; /* the process ends: nothing is worth taking apart */
    uv_run(&node->loop, UV_RUN_DEFAULT);
    listen_release(&node->listeners);
    presence_destroy(node);
    dispatch_free_rooms(node);
    sessions_free(node);
    events_free(node);
    merges_fini(node);
    sampler_fini(&node->sampler);
    tickets_free(node);
    limiter_fini(&node->user_rates);
    limiter_fini(&node->room_rates);
    history_fini(node);
    backlog_fini(&node->backlog);
    uv_loop_close(&node->loop);
    drop_commands(node);
    mailbox_fini(&node->mailbox);
    conf_unref(node->conf);
    free(node);
    log_info("stopped");
    return EXIT_OK;
}
