#include "worker/tickets.h"

#include "base/clock.h"
#include "base/sendbuf.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { DESCRIBED_BYTES = 64 * 1024 /* of one user's connections, per worker */ };

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
        "\"blocked\":%s,\"sndbuf\":%u,\"narrowed\":%s,\"passive\":%s,\"private_bytes\":%zu,"
        "\"skipped\":%u,\"rooms\":[",
        connection, worker->conf->server.node, worker->setup.index, viewer_adapter(viewer)->name,
        peer, worker->now_ms - viewer->opened_ms, worker->now_ms - viewer->beat.heard_ms,
        worker->now_ms - viewer->written_ms, info.tcpi_rtt / 1000, info.tcpi_rtt % 1000,
        info.tcpi_snd_mss, viewer->blocked ? "true" : "false", sendbuf_size(viewer->fd),
        viewer->narrowed ? "true" : "false", viewer->passive ? "true" : "false",
        outbox_pending(viewer), viewer_terms(viewer)->skipped);
    struct bytes session = bytes_str(viewer_session(viewer));
    if (session.len > 0) {
        out->len -= sizeof("\"rooms\":[") - 1;
        buf_printf(out, "\"session\":\"%.*s\",\"rooms\":[", (int)session.len, session.data);
    }
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
    if (kind != QUERY_KICK && viewer->state != VIEWER_OPEN)
        return;
    answer->count++;
    if (kind == QUERY_KICK) {
        viewer_close(worker, viewer, CLOSE_KICKED);
        return;
    }
    if (answer->text.len > DESCRIBED_BYTES)
        return; /* counted, and that is all */
    if (answer->text.len > 0)
        BUF_LIT(&answer->text, ",");
    describe(worker, viewer, &answer->text);
}

static void for_each_of_user(struct worker *worker, struct bytes user, struct query_answer *answer,
                             enum query_kind kind)
{
    size_t count;
    const struct found *found = users_find(worker, user, &count);
    for (size_t i = 0; i < count; i++) {
        struct viewer *viewer = viewer_find(worker, found[i].slot, found[i].id);
        if (viewer)
            on_connection(worker, viewer, answer, kind);
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
        if (query->kind == QUERY_KICK)
            tickets_kicked(worker, name);
        for_each_of_user(worker, name, answer, query->kind);
    }
}
