#include "worker/internal.h"

#include "base/clock.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void add_room(void *ctx, struct map_node *node)
{
    struct query_answer *answer = ctx;
    const struct room *room = CONTAINER_OF(node, struct room, node);
    if (!buf_reserve(&answer->text,
                     sizeof(room->count) + 1 + room->name_len)) /* never half a record */
        return;
    buf_append(&answer->text, &room->count, sizeof(room->count));
    buf_append(&answer->text, &room->name_len, 1);
    buf_append(&answer->text, room->name, room->name_len);
    answer->count++;
}

static void describe_room(struct buf *out, const struct viewer *viewer, const struct member *member)
{
    const struct room *room = member->room;
    BUF_LIT(out, "{\"room\":\"");
    buf_append(out, room->name, room->name_len);
    buf_text(out, room->live ? "\",\"live\":true,\"lag\":{" : "\",\"live\":false,\"lag\":{");
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        uint32_t frames = room->live ? room_next(room)[lane] - member->cursor[lane] : 0;
        const struct halley_lanes *lanes = room->activity ? &room->activity->lanes : NULL;
        const struct halley_framelog *log = lanes ? lanes->log[lane] : NULL;
        bool inside = frames > 0 && log && !halley_lanes_lost(lanes, lane, member->cursor[lane]);
        size_t bytes = inside ? halley_framelog_pending(log, (int)viewer_adapter(viewer)->encoding,
                                                        member->cursor[lane])
                              : 0;
        buf_printf(out, "%s\"%s\":{\"frames\":%u,\"bytes\":%zu}", lane ? "," : "",
                   lane_name((enum lane)lane), frames, bytes);
    }
    BUF_LIT(out, "}}");
}

/* What an operator asks: why does Bob get nothing? */
static void describe(struct worker *worker, const struct viewer *viewer, struct buf *out)
{
    char connection[CONNECTION_ID_LEN + 1];
    char peer[64];
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    (void)getsockopt(viewer->fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    viewer_connection_id(worker, viewer, connection);
    viewer_peer(viewer, peer, sizeof(peer));
    buf_printf(
        out,
        "{\"connection\":\"%s\",\"node\":\"%s\",\"worker\":%u,\"protocol\":\"%s\",\"peer\":\"%s\","
        "\"age_ms\":%u,\"last_in_ms\":%u,\"last_out_ms\":%u,\"rtt_ms\":%u.%03u,\"mss\":%u,"
        "\"blocked\":%s,\"passive\":%s,\"private_bytes\":%zu,\"skipped\":%u,\"rooms\":[",
        connection, worker->conf->server.node, worker->setup.index, viewer_adapter(viewer)->name,
        peer, worker->now_ms - viewer->opened_ms, worker->now_ms - viewer->beat.heard_ms,
        worker->now_ms - viewer->written_ms, info.tcpi_rtt / 1000, info.tcpi_rtt % 1000,
        info.tcpi_snd_mss, viewer->blocked ? "true" : "false", viewer->passive ? "true" : "false",
        outbox_pending(viewer), viewer->skipped);
    for (const struct member *member = viewer->members; member; member = member->next) {
        describe_room(out, viewer, member);
        if (member->next)
            BUF_LIT(out, ",");
    }
    BUF_LIT(out, "]}");
}

static void on_connection(struct worker *worker, struct viewer *viewer, struct query_answer *answer,
                          enum query_kind kind)
{
    answer->count++;
    if (kind == QUERY_KICK) {
        viewer_close(worker, viewer, CLOSE_KICKED);
        return;
    }
    if (answer->text.len > 0)
        BUF_LIT(&answer->text, ",");
    describe(worker, viewer, &answer->text);
}

/* A guest's name tells its connection, but is in no index: looked for among all. */
static void for_each_of_user(struct worker *worker, struct bytes user, struct query_answer *answer,
                             enum query_kind kind)
{
    if (user.len > 6 && memcmp(user.data, "guest-", 6) == 0) {
        for (uint32_t i = 0; i < worker->slot_cap; i++) {
            struct viewer *viewer = worker->slots[i];
            char name[USER_NAME_MAX + 1];
            bool usable = !((uintptr_t)viewer & 1) && viewer_adapter(viewer) && !viewer->user &&
                          viewer->state == VIEWER_OPEN;
            if (usable && bytes_equal(viewer_user(worker, viewer, name), user))
                on_connection(worker, viewer, answer, kind);
            if (worker->slot_cap == 0)
                return;
        }
    }
    uint32_t hash = map_hash(user.data, user.len) | 1;
    struct map_node *node = map_chain(&worker->users, hash);
    while (node) {
        struct viewer *viewer = CONTAINER_OF(node, struct viewer, user_node);
        bool wanted = node->hash == hash && bytes_equal(bytes_str(viewer->user), user);
        node = node->next;
        if (!wanted)
            continue;
        on_connection(worker, viewer, answer, kind);
        if (kind == QUERY_KICK) /* it left the index, which may have been rebuilt */
            node = map_chain(&worker->users, hash);
    }
}

void query_answer(struct worker *worker, struct worker_query *query)
{
    require_own_thread(worker);
    struct query_answer *answer = &query->answers[worker->setup.index];
    struct bytes name = bytes_of(query->name, query->name_len);
    switch (query->kind) {
    case QUERY_ROOMS:
        map_each(&worker->rooms, add_room, answer);
        break;
    case QUERY_ROOM: {
        struct room *room = room_find(worker, name, map_hash(name.data, name.len));
        answer->found = room;
        answer->count = room ? room->count : 0;
        answer->log_bytes =
            room && room->activity ? halley_lanes_memory(&room->activity->lanes) : 0;
        break;
    }
    default:
        for_each_of_user(worker, name, answer, query->kind);
    }
}
