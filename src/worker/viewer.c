#include "worker/tickets.h"

#include "base/address.h"
#include "base/log.h"
#include "policy/rates.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Slots are stable while a viewer lives, so that (slot, id) finds it again; free ones form a list through the array. */
static struct viewer *slot_pack(uint32_t next)
{
    return (struct viewer *)(((uintptr_t)next << 1) | 1);
}

static uint32_t slot_unpack(const struct viewer *value)
{
    return (uint32_t)((uintptr_t)value >> 1);
}

static bool slot_is_free(const struct viewer *value)
{
    return (uintptr_t)value & 1;
}

static int slots_grow(struct worker *worker)
{
    uint32_t cap = worker->slot_cap ? worker->slot_cap * 2 : 64;
    struct viewer **slots = realloc(worker->slots, cap * sizeof(struct viewer *));
    if (!slots)
        return UV_ENOMEM;
    for (uint32_t i = cap; i-- > worker->slot_cap;) {
        slots[i] = slot_pack(worker->free_slot);
        worker->free_slot = i;
    }
    worker->slots = slots;
    sweep_grew(&worker->all, cap - worker->slot_cap);
    worker->slot_cap = cap;
    return 0;
}

static int slot_take(struct worker *worker, struct viewer *viewer)
{
    if (worker->free_slot == INT32_MAX) {
        int error = slots_grow(worker);
        if (error)
            return error;
    }
    viewer->slot = worker->free_slot;
    worker->free_slot = slot_unpack(worker->slots[viewer->slot]);
    worker->slots[viewer->slot] = viewer;
    return 0;
}

static void slot_give(struct worker *worker, struct viewer *viewer)
{
    worker->slots[viewer->slot] = slot_pack(worker->free_slot);
    worker->free_slot = viewer->slot;
    if (worker->viewer_count > 0)
        return;
    free(worker->slots); /* everybody left: nothing of the peak is kept */
    worker->slots = NULL;
    worker->slot_cap = 0;
    worker->free_slot = INT32_MAX;
}

struct viewer *viewer_find(struct worker *worker, uint32_t slot, uint64_t id)
{
    if (slot >= worker->slot_cap || slot_is_free(worker->slots[slot]))
        return NULL;
    struct viewer *viewer = worker->slots[slot];
    return viewer->id == id && viewer->state != VIEWER_DEAD ? viewer : NULL;
}

/* The gauge that a viewer counts in, by state and protocol; NULL: in none. */
static _Atomic uint64_t *gauge_of(struct worker *worker, const struct viewer *viewer)
{
    struct worker_metrics *metrics = &worker->metrics;
    switch ((enum viewer_state)viewer->state) {
    case VIEWER_HANDSHAKE:
    case VIEWER_CHECKING:
        return &metrics->handshaking;
    case VIEWER_WAITING:
    case VIEWER_OPEN:
        if (viewer->echo)
            return &metrics->viewers_echo;
        if (viewer_adapter(viewer) == &adapter_native)
            return &metrics->viewers_native;
        return viewer_adapter(viewer) == &adapter_engineio3 ? &metrics->viewers_engineio3
                                                            : &metrics->viewers_engineio4;
    default:
        return NULL;
    }
}

void viewer_set_state(struct worker *worker, struct viewer *viewer, enum viewer_state state)
{
    /* Rows: from; bits: legal successors. */
    static const unsigned legal[] = {
        [VIEWER_HANDSHAKE] = 1u << VIEWER_CHECKING | 1u << VIEWER_WAITING | 1u << VIEWER_OPEN |
                             1u << VIEWER_CLOSING | 1u << VIEWER_DEAD,
        [VIEWER_CHECKING] =
            1u << VIEWER_WAITING | 1u << VIEWER_OPEN | 1u << VIEWER_CLOSING | 1u << VIEWER_DEAD,
        [VIEWER_WAITING] = 1u << VIEWER_OPEN | 1u << VIEWER_CLOSING | 1u << VIEWER_DEAD,
        [VIEWER_OPEN] = 1u << VIEWER_CLOSING | 1u << VIEWER_DEAD,
        [VIEWER_CLOSING] = 1u << VIEWER_DEAD,
        [VIEWER_DEAD] = 0};
    REQUIRE(legal[viewer->state] & 1u << state);
    _Atomic uint64_t *gauge = gauge_of(worker, viewer);
    if (gauge)
        metric_sub(gauge, 1);
    viewer->state = (unsigned)state & 0x7u;
    gauge = gauge_of(worker, viewer);
    if (gauge)
        metric_add(gauge, 1);
}

struct terms *terms_of(struct worker *worker, struct viewer *viewer)
{
    if (viewer->terms)
        return viewer->terms;
    viewer->terms = calloc(1, sizeof(struct terms));
    if (viewer->terms)
        worker->terms_bytes += sizeof(struct terms);
    return viewer->terms;
}

/* Its grant was given back before. */
static void terms_free(struct worker *worker, struct viewer *viewer)
{
    struct terms *terms = viewer->terms;
    if (!terms)
        return;
    worker->terms_bytes -= sizeof(*terms) + rates_bytes(terms->rates);
    if (terms->flow)
        worker->terms_bytes -= sizeof(*terms->flow);
    free(terms->flow);
    rates_free(terms->rates);
    peers_leave(&worker->peers, terms->peer);
    free(terms);
    viewer->terms = NULL;
}

struct viewer *viewer_create(struct worker *worker, int fd, struct peer *peer)
{
    require_own_thread(worker);
    struct viewer *viewer = calloc(1, sizeof(*viewer));
    if (!viewer || slot_take(worker, viewer) != 0) {
        free(viewer);
        return NULL;
    }
    viewer->fd = fd;
    viewer->state = VIEWER_HANDSHAKE;
    viewer->id = ++worker->next_id & ((UINT64_C(1) << 48) - 1);
    viewer->opened_ms = worker->now_ms;
    viewer->written_ms = worker->now_ms;
    list_init(&viewer->link);
    list_init(&viewer->timer);
    halley_heartbeat_init(&viewer->beat, worker->now_ms);
    /* Edge-triggered and armed for both directions once: no epoll_ctl per message (epoll(7)). */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = viewer};
    worker->viewer_count++;
    if ((peer && !terms_of(worker, viewer)) ||
        epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        worker->viewer_count--;
        slot_give(worker, viewer);
        terms_free(worker, viewer);
        free(viewer);
        return NULL;
    }
    if (peer)
        viewer->terms->peer = peer;
    atomic_fetch_add_explicit(worker->setup.connections, 1, memory_order_relaxed);
    metric_add(&worker->metrics.handshaking, 1);
    viewer_set_timer(worker, viewer, worker->conf->limits.head_timeout_ms);
    return viewer;
}

void viewer_set_adapter(struct viewer *viewer, const struct adapter *adapter)
{
    viewer->protocol = 0;
    while (viewer_adapter(viewer) != adapter)
        viewer->protocol++;
}

void viewer_rearm(struct worker *worker, struct viewer *viewer)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = viewer};
    (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, viewer->fd, &event);
}

static bool is_indexed(const struct viewer *viewer)
{
    return viewer->user_node.hash != 0;
}

static int index_user(struct worker *worker, struct viewer *viewer)
{
    char user[USER_NAME_MAX + 1];
    struct bytes name = viewer_user(worker, viewer, user); /* a guest is found by its own too */
    if (is_indexed(viewer))
        return 0;
    return map_add(&worker->users, &viewer->user_node, map_hash(name.data, name.len) | 1) == 0
               ? 0
               : UV_ENOMEM;
}

static void unindex_user(struct worker *worker, struct viewer *viewer)
{
    if (is_indexed(viewer))
        map_remove(&worker->users, &viewer->user_node);
    viewer->user_node = (struct map_node){0};
}

static void forget_user(struct worker *worker, struct viewer *viewer)
{
    users_delist(worker, viewer);
    unindex_user(worker, viewer);
}

void viewer_destroy(struct worker *worker, struct viewer *viewer)
{
    if (viewer->state == VIEWER_DEAD)
        return;
    if (viewer->blocked)
        metric_sub(&worker->metrics.viewers_blocked, 1);
    viewer->blocked = false;
    if (viewer->state == VIEWER_WAITING || viewer->state == VIEWER_OPEN) {
        room_leave_all(worker, viewer);
        forget_user(worker, viewer);
    }
    viewer_set_state(worker, viewer, VIEWER_DEAD);
    codec_detach(worker->codecs, &viewer->codec);
    tickets_forget(worker, viewer);
    extras_free(worker, viewer);
    terms_free(worker, viewer);
    free(viewer->user);
    pulse_end(worker, viewer);
    viewer->user = NULL;
    segment_end(worker, viewer);
    narrow_end(worker, viewer);
    close(viewer->fd);
    viewer->fd = -1;
    list_remove(&viewer->link);
    list_remove(&viewer->timer);
    worker->viewer_count--;
    slot_give(worker, viewer);
    atomic_fetch_sub_explicit(worker->setup.connections, 1, memory_order_relaxed);
    list_append(&worker->graveyard,
                &viewer->link); /* an event of this turn may still point to it */
}

void viewer_bury(struct worker *worker)
{
    struct link *link;
    while ((link = list_shift(&worker->graveyard)))
        free(CONTAINER_OF(link, struct viewer, link));
    while ((link = list_shift(&worker->ended)))
        free(CONTAINER_OF(link, struct activity, link));
    while (worker->dead_rooms) {
        struct room *room = CONTAINER_OF(worker->dead_rooms, struct room, node);
        worker->dead_rooms = room->node.next;
        free(room);
    }
}

void viewer_connection_id(const struct worker *worker, const struct viewer *viewer,
                          char out[CONNECTION_ID_LEN + 1])
{
    snprintf(out, CONNECTION_ID_LEN + 1, "%08x%02x%010" PRIx64, worker->setup.connection_seed,
             worker->setup.index, (uint64_t)viewer->id & 0xffffffffffu);
}

struct bytes viewer_user(const struct worker *worker, const struct viewer *viewer,
                         char out[USER_NAME_MAX + 1])
{
    if (viewer->user)
        return bytes_str(viewer->user);
    char connection[CONNECTION_ID_LEN + 1];
    viewer_connection_id(worker, viewer, connection);
    snprintf(out, USER_NAME_MAX + 1, "guest-%s", connection);
    return bytes_str(out);
}

bool viewer_set_user(struct worker *worker, struct viewer *viewer, const char *user,
                     const char *session)
{
    size_t user_len = strlen(user) + 1;
    size_t session_len = session[0] ? strlen(session) + 1 : 0;
    if (user_len == 1)
        return true;
    char *text = malloc(user_len + session_len);
    if (!text)
        return false;
    memcpy(text, user, user_len);
    if (session_len > 0)
        memcpy(text + user_len, session, session_len); /* it may stand behind the earlier name */
    unindex_user(worker, viewer);
    free(viewer->user);
    viewer->user = text;
    viewer->has_session = session_len > 0;
    return true;
}

const char *viewer_session(const struct viewer *viewer)
{
    return viewer->has_session ? viewer->user + strlen(viewer->user) + 1 : "";
}

void viewer_peer(const struct viewer *viewer, char *out, size_t cap)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    (void)getpeername(viewer->fd, (struct sockaddr *)&address, &len); /* gone: printed as `?` */
    address_print(&address, out, cap);
}

static void log_close(struct worker *worker, const struct viewer *viewer, enum close_reason reason)
{
    int level = close_reason_level(reason);
    if (!log_enabled((enum log_level)level))
        return;
    char connection[CONNECTION_ID_LEN + 1];
    char user[USER_NAME_MAX + 1];
    char peer[64];
    viewer_connection_id(worker, viewer, connection);
    viewer_peer(viewer, peer, sizeof(peer));
    log_limited(
        (enum log_level)level, "viewer closed", LOG_STR("reason", close_reason_label(reason)),
        LOG_STR("why", close_reason_text(reason)), LOG_UINT("code", close_reason_code(reason)),
        LOG_BYTES("user", viewer_user(worker, viewer, user)), LOG_STR("connection", connection),
        LOG_STR("peer", peer));
}

/* Takes a viewer out of everything that could send to it; its last bytes are what remains. */
void viewer_begin_closing(struct worker *worker, struct viewer *viewer, enum close_reason reason)
{
    metric_add(&worker->metrics.closes[reason], 1);
    log_close(worker, viewer, reason);
    if (viewer->state > VIEWER_CHECKING) {
        room_leave_all(worker, viewer);
        forget_user(worker, viewer);
    }
    events_close(worker, viewer, reason);
    if (viewer->state == VIEWER_OPEN && viewer_adapter(viewer))
        worker->open_encoded[viewer_adapter(viewer)->encoding]--;
    pulse_end(worker, viewer);
    tickets_forget(worker, viewer);
    segment_end(worker, viewer);
    viewer_set_state(worker, viewer, VIEWER_CLOSING);
    viewer_set_timer(worker, viewer, CLOSE_LINGER_MS);
}

void viewer_finish(struct worker *worker, struct viewer *viewer, enum close_reason reason)
{
    if (viewer->state >= VIEWER_CLOSING)
        return;
    viewer_begin_closing(worker, viewer, reason);
    flush_mark(worker, viewer);
}

void viewer_abort(struct worker *worker, struct viewer *viewer, enum close_reason reason)
{
    viewer_finish(worker, viewer, reason);
    viewer_destroy(worker, viewer);
}

static void append_close(struct worker *worker, struct viewer *viewer, enum close_reason reason)
{
    if (worker->in_hand == viewer) { /* answers to what came before stand before the close frame */
        outbox_append(worker, viewer, buf_view(&worker->reply), 1, false);
        buf_clear(&worker->reply);
    }
    struct buf frames = {0};
    if (reason == CLOSE_KICKED && viewer_adapter(viewer) && viewer_adapter(viewer)->append_kicked)
        viewer_adapter(viewer)->append_kicked(&frames);
    ws_frame_close(&frames, close_reason_code(reason), close_reason_text(reason));
    if (frames.failed || !outbox_append(worker, viewer, buf_view(&frames), 1, false))
        viewer->hang_up = true; /* no memory for a farewell */
    buf_fini(&frames);
}

void viewer_close(struct worker *worker, struct viewer *viewer, enum close_reason reason)
{
    require_own_thread(worker);
    if (viewer->state >= VIEWER_CLOSING)
        return;
    bool farewell = close_reason_code(reason) != 0 && viewer->state > VIEWER_CHECKING;
    viewer_begin_closing(worker, viewer, reason);
    if (!farewell) {
        viewer_destroy(worker, viewer);
        return;
    }
    append_close(worker, viewer, reason);
    flush_mark(worker, viewer);
}

int viewer_awaits_connect(struct worker *worker, struct viewer *viewer)
{
    bool known = viewer->user || worker->conf->auth.mode == AUTH_OPEN; /* else its ticket tells */
    return known ? index_user(worker, viewer) : 0;
}

int viewer_opened(struct worker *worker, struct viewer *viewer)
{
    for (int lane = 0; lane < HALLEY_LANES; lane++)
        viewer->all_cursor[lane] = worker->all.lanes.next[lane];
    if (!viewer_adapter(viewer))
        return 0; /* echo: in no room and no user's list */
    worker->open_encoded[viewer_adapter(viewer)->encoding]++;
    if (index_user(worker, viewer) != 0)
        return UV_ENOMEM;
    if (viewer->user)
        users_enlist(worker, viewer);
    events_connect(worker, viewer);
    return 0;
}
