/* counts.c: how many viewers a room has here, told to the node in batches; how many it has everywhere, told to viewers.
 *
 * A room whose count is about to change is written down once, with the count that the node knows of. A tick later the node is told
 * all differences in one command: ten thousand joins cost it one message, not ten thousand. Who waits for the room to live is not counted: the node
 * may refuse it, and would know nothing of a room that the worker believes to have told it of.
 */
#include "worker/internal.h"

#include "base/log.h"

enum { COUNTS_BYTES = 65536, RECORD_HEAD = sizeof(int32_t) + 1 };

static void note(struct worker *worker, struct room *room, uint32_t known)
{
    if (room->counted || !worker->conf->presence.enabled)
        return;
    struct buf *counts = &worker->counts;
    if (!buf_reserve(counts, RECORD_HEAD + room->name_len)) { /* never half a record */
        counts->failed = false;
        log_limited(LOG_LEVEL_ERROR, "no memory to count a room: its online count is off",
                    LOG_BYTES("room", bytes_of(room->name, room->name_len)));
        return;
    }
    buf_append(counts, &known, sizeof(known));
    buf_append(counts, &room->name_len, 1);
    buf_append(counts, room->name, room->name_len);
    room->counted = true;
}

void counts_touch(struct worker *worker, struct room *room)
{
    if (room->live)
        note(worker, room, room->count);
}

void counts_begin(struct worker *worker, struct room *room)
{
    note(worker, room, 0);
}

/* How the room's count differs from what the node knows of. A room that went and came back in the same tick is written down twice: the
 * first time counts. */
static int32_t difference(struct worker *worker, uint32_t known, struct bytes name)
{
    struct room *room = room_find(worker, name, map_hash(name.data, name.len));
    if (room && !room->live)
        room = NULL;
    if (room && !room->counted)
        return 0;
    if (room)
        room->counted = false;
    return (int32_t)((room ? room->count : 0) - known);
}

static void tell(struct worker *worker, struct buf *batch)
{
    if (batch->len == 0)
        return;
    struct command *command =
        batch->failed ? NULL : command_create(COMMAND_COUNTS, (struct bytes){0}, buf_view(batch));
    if (command)
        worker_tell_node(worker, command);
    else
        log_limited(LOG_LEVEL_ERROR, "no memory to count rooms: online counts are off");
    buf_clear(batch);
}

void counts_flush(struct worker *worker)
{
    const struct buf *counts = &worker->counts;
    struct buf batch = {0};
    for (size_t at = 0; at < counts->len;) {
        uint32_t known;
        memcpy(&known, counts->data + at, sizeof(known));
        uint8_t len = (uint8_t)counts->data[at + sizeof(known)];
        struct bytes name = bytes_of(counts->data + at + RECORD_HEAD, len);
        at += RECORD_HEAD + len;
        int32_t delta = difference(worker, known, name);
        if (delta == 0)
            continue;
        buf_append(&batch, &delta, sizeof(delta));
        buf_byte(&batch, (char)len);
        buf_bytes(&batch, name);
        if (batch.len >= COUNTS_BYTES)
            tell(worker, &batch);
    }
    tell(worker, &batch);
    buf_fini(&batch);
    if (worker->counts.cap > COUNTS_BYTES)
        buf_fini(&worker->counts);
    else
        buf_clear(&worker->counts);
}

/* The node's number may be a moment old: never less than who is here. */
static uint64_t online_of(const struct room *room)
{
    return room->online > room->count ? room->online : room->count;
}

void counts_fill_joined(const struct room *room, struct reply *reply)
{
    reply->online_known = room->online != ONLINE_UNKNOWN;
    reply->online = reply->online_known ? online_of(room) : 0;
}

struct bytes counts_print(struct worker *worker, const struct viewer *viewer)
{
    struct buf *out = &worker->online;
    buf_clear(out);
    for (const struct member *member = viewer->members; member; member = member->next) {
        const struct room *room = member->room;
        if (!room->live || room->online == ONLINE_UNKNOWN)
            continue;
        buf_text(out, out->len ? ",\"" : "\"");
        buf_append(out, room->name, room->name_len);
        BUF_LIT(out, "\":");
        buf_uint(out, online_of(room));
    }
    return out->failed ? (struct bytes){0} : buf_view(out);
}

bool counts_take_online(struct room *room, const struct message *message)
{
    bool news = room->online != message->online || !room->told;
    room->online = message->online;
    room->told = !message->silent;
    return news && !message->silent;
}
