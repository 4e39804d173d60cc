#include "worker/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RAMP_PAUSE_MS = 10, RAMP_BURSTS = 20, RAMP_RATE_MOST = 100000 };

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void resume_accepting(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    if (!worker->accepting)
        return;
    if (worker->spare_fd < 0) /* another thread was faster when it was to be taken back */
        worker->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < worker->setup.listener_count; i++)
        uv_poll_start(&worker->listeners[i], UV_READABLE, on_acceptable);
}

/* A ready listener that can't be served would make the loop spin: it is left alone for a moment. */
static void pause_accepting(struct worker *worker, uint32_t ms)
{
    for (uint32_t i = 0; i < worker->setup.listener_count; i++)
        uv_poll_stop(&worker->listeners[i]);
    uv_timer_start(&worker->accept_pause, resume_accepting, ms, 0);
}

/* At the file limit: the spare descriptor lets one connection be told so, rather than wait for nothing. Returns false when accepting must pause. */
static bool turn_away_with_spare(struct worker *worker, int listener)
{
    log_limited(LOG_LEVEL_WARN, "file limit reached, new viewers are refused",
                LOG_STR("do", "raise LimitNOFILE, or lower limits.connections"));
    if (worker->spare_fd < 0)
        return false;
    close(worker->spare_fd);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        turn_away(worker, fd, HANDSHAKE_FULL, false); /* its descriptor is needed */
    worker->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0 && worker->spare_fd >= 0;
}

static bool is_trusted(const struct worker *worker, const struct sockaddr_storage *address)
{
    for (uint32_t i = 0; i < worker->trusted_count; i++) {
        if (network_has(&worker->trusted[i], address))
            return true;
    }
    return false;
}

/* Whether a connection may become a viewer, before anything is allocated for it; HANDSHAKE_OK when it may. An address past its own
 * limits takes nothing from the node's. */
static enum handshake_result judge(struct worker *worker, const struct sockaddr_storage *address,
                                   struct peer **peer)
{
    const struct conf *conf = worker->conf;
    uint32_t connections = atomic_load_explicit(worker->setup.connections, memory_order_relaxed);
    uint32_t limit = atomic_load_explicit(worker->setup.connections_limit, memory_order_relaxed);
    if (connections >= limit + REFUSAL_RESERVE)
        return HANDSHAKE_FULL;
    if (is_trusted(worker, address))
        return HANDSHAKE_OK;
    struct peer_limits limits = {.connections = conf->limits.address_connections,
                                 .rate = conf->limits.address_rate,
                                 .burst = conf->limits.address_burst,
                                 .entries = conf->limits.addresses};
    switch (peers_admit(&worker->peers, &limits, peer_network(address), worker->now_ms, peer)) {
    case PEER_TOO_MANY:
        return HANDSHAKE_ADDRESS_FULL;
    case PEER_TOO_FAST:
        return HANDSHAKE_ADDRESS_RATE;
    case PEER_UNCOUNTED:
        metric_add(&worker->metrics.addresses_uncounted, 1);
        break;
    case PEER_OK:
        break;
    }
    if (conf->limits.handshake_rate == 0 ||
        bucket_take_shared(worker->setup.handshakes, (uint32_t)clock_ms(),
                           conf->limits.handshake_rate, 1000, conf->limits.handshake_burst) == 0)
        return HANDSHAKE_OK;
    peers_leave(&worker->peers, *peer);
    return HANDSHAKE_RATE;
}

static void take_in(struct worker *worker, int fd, const struct sockaddr_storage *address)
{
    struct peer *peer = NULL;
    metric_add(&worker->metrics.accepted, 1);
    enum handshake_result result = judge(worker, address, &peer);
    if (result != HANDSHAKE_OK) {
        turn_away(worker, fd, result, true);
    } else if (!viewer_create(worker, fd, peer)) {
        peers_leave(&worker->peers, peer);
        metric_add(&worker->metrics.accept_errors, 1);
        turn_away(worker, fd, HANDSHAKE_FULL, true);
    }
}

/* Whether the start-up ramp lets one more connection in now; the others wait in the backlog. A token whose connection did not come is kept. */
static bool ramp_allows(struct worker *worker)
{
    const struct conf *conf = worker->conf;
    if (conf->server.ramp_ms == 0 || worker->ramp_token)
        return true;
    uint64_t now = clock_ms();
    uint64_t since = now - worker->setup.started_ms;
    if (since >= conf->server.ramp_ms)
        return true;
    uint64_t rate = conf->server.ramp_rate * (1 + since / 1000);
    uint32_t per = rate < RAMP_RATE_MOST ? (uint32_t)rate : RAMP_RATE_MOST;
    worker->ramp_token = bucket_take_shared(worker->setup.ramp, (uint32_t)now, per, 1000,
                                            most(per / RAMP_BURSTS, 1)) == 0;
    return worker->ramp_token;
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    uv_os_fd_t listener;
    (void)events;
    if (status < 0 || uv_fileno((const uv_handle_t *)poll, &listener) != 0)
        return;
    worker->now_ms = (uint32_t)uv_now(&worker->loop);
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        if (!ramp_allows(worker)) {
            metric_add(&worker->metrics.ramp_pauses, 1);
            pause_accepting(worker, RAMP_PAUSE_MS);
            return;
        }
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof(address);
        int fd = accept4(listener, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            worker->ramp_token = false;
            take_in(worker, fd, &address);
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        metric_add(&worker->metrics.accept_errors, 1);
        bool at_limit = errno == EMFILE || errno == ENFILE;
        if (!at_limit || !turn_away_with_spare(worker, listener)) {
            pause_accepting(worker, ACCEPT_PAUSE_MS);
            return;
        }
    }
}

int listeners_start(struct worker *worker)
{
    worker->listeners = calloc(worker->setup.listener_count, sizeof(uv_poll_t));
    if (!worker->listeners)
        return UV_ENOMEM;
    worker->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < worker->setup.listener_count; i++) {
        int error = uv_poll_init(&worker->loop, &worker->listeners[i], worker->setup.listeners[i]);
        if (error)
            return error;
        worker->listeners[i].data = worker;
        uv_poll_start(&worker->listeners[i], UV_READABLE, on_acceptable);
    }
    worker->accepting = true;
    return 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct worker *worker = handle->data;
    uint32_t index = (uint32_t)((uv_poll_t *)(void *)handle - worker->listeners);
    close(worker->setup.listeners[index]);
}

void listeners_stop(struct worker *worker)
{
    if (!worker->accepting)
        return;
    worker->accepting = false;
    uv_timer_stop(&worker->accept_pause);
    for (uint32_t i = 0; i < worker->setup.listener_count; i++)
        uv_close((uv_handle_t *)&worker->listeners[i], on_listener_closed);
    if (worker->spare_fd >= 0)
        close(worker->spare_fd);
    worker->spare_fd = -1;
}

void listeners_finish(struct worker *worker)
{
    for (uint32_t i = 0; worker->accepting && i < worker->setup.listener_count; i++) {
        int fd;
        while ((fd = accept4(worker->setup.listeners[i], NULL, NULL,
                             SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
            metric_add(&worker->metrics.accepted, 1);
            turn_away(worker, fd, HANDSHAKE_DRAINING, true);
        }
    }
    listeners_stop(worker);
}
