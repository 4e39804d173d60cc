/* merge.c: sends of merged types, gathered for a few milliseconds before the main thread hears of them.
 *
 * Likes come by the hundred thousand a second; a command each would cost the main thread more than all else that it does. What is
 * gathered here is one command for each room and type and GATHER_MS. Where limits.user_rate is set each send goes by itself, since only
 * the main thread knows of a user's other connections.
 */
#include "worker/internal.h"

#include "base/log.h"

enum { GATHER_MS = 10 };

struct gathered {
    struct merge_entry base;
    enum conf_merge kind;
    enum lane lane;
    uint32_t told;    /* viewers in `waiters` */
    uint32_t waiting; /* those of them that wait for an ack */
    struct merge_sum sum;
    struct buf newest;  /* MERGE_LATEST: the envelope */
    struct buf waiters; /* struct merge_waiter each */
};

static void gathered_fini(struct gathered *gathered)
{
    buf_fini(&gathered->newest);
    buf_fini(&gathered->waiters);
}

/* Adds a send. Returns false when memory is out. */
static bool gather(struct worker *worker, struct gathered *into, const struct send *send)
{
    const struct conf_type *type = send->type;
    char user[USER_NAME_MAX + 1];
    into->kind = type->merge_kind;
    into->lane = type->lane;
    if (type->merge_kind == MERGE_LATEST) {
        struct message_parts parts = {.type = send->intent->type,
                                      .from = viewer_user(worker, send->viewer, user),
                                      .data = send->intent->data.raw};
        buf_clear(&into->newest);
        envelope_append(&into->newest, &parts);
    }
    bool waits = send->intent->ref.present;
    bool told = waits || worker->conf->limits.user_rate > 0; /* of a refusal at least */
    if (told) {
        struct merge_waiter waiter = {.id = send->viewer->id,
                                      .ref = send->intent->ref.value,
                                      .slot = send->viewer->slot,
                                      .has_ref = waits};
        buf_append(&into->waiters, &waiter, sizeof(waiter));
    }
    if (into->newest.failed || into->waiters.failed)
        return false;
    merge_add(&into->sum, &(struct merge_sum){.delta = send->amount});
    into->base.count++;
    into->told += told;
    into->waiting += waits;
    worker->merge_waiting += waits;
    metric_set(&worker->metrics.merge_waiting, worker->merge_waiting);
    return true;
}

/* Hands what was gathered to the main thread; it comes back as COMMAND_MERGED when somebody waits for its fate. */
static void post(struct worker *worker, struct gathered *gathered, struct bytes room,
                 struct bytes type, struct bytes user)
{
    struct buf payload = {0};
    buf_bytes(&payload, buf_view(&gathered->waiters));
    buf_bytes(&payload, type);
    buf_bytes(&payload, buf_view(&gathered->newest));
    struct command *command =
        payload.failed ? NULL : command_create_for(COMMAND_MERGE, room, buf_view(&payload), user);
    buf_fini(&payload);
    if (!command) {
        worker->merge_waiting -= gathered->waiting;
        log_limited(LOG_LEVEL_ERROR, "out of memory: sends of a merged type are lost",
                    LOG_BYTES("room", room), LOG_BYTES("type", type),
                    LOG_UINT("sends", gathered->base.count));
        return;
    }
    command->lane = gathered->lane;
    command->merge.kind = gathered->kind;
    command->merge.delta = gathered->sum.delta;
    command->merge.sends = gathered->base.count;
    command->merge.waiters = gathered->told;
    command->merge.type_len = (uint32_t)type.len;
    worker_tell_node(worker, command);
}

static void post_ended(struct worker *worker)
{
    struct merge_entry *entry;
    while ((entry = merger_next(&worker->merges, uv_now(&worker->loop)))) {
        struct gathered *gathered = CONTAINER_OF(entry, struct gathered, base);
        post(worker, gathered, merge_room(entry), merge_type(entry), (struct bytes){0});
        gathered_fini(gathered);
        merger_close(&worker->merges, entry);
    }
}

static void on_gathered(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    post_ended(worker);
    if (worker->merges.entries.count > 0)
        uv_timer_start(timer, on_gathered, GATHER_MS, 0);
}

/* By itself, with its user. */
static bool post_one(struct worker *worker, const struct send *send)
{
    struct gathered one = {0};
    char user[USER_NAME_MAX + 1];
    bool good = gather(worker, &one, send);
    if (good)
        post(worker, &one, send->intent->room, send->intent->type,
             viewer_user(worker, send->viewer, user));
    gathered_fini(&one);
    return good;
}

bool merge_send(struct worker *worker, const struct send *send)
{
    const struct conf *conf = worker->conf;
    const struct intent *intent = send->intent;
    if ((intent->ref.present && worker->merge_waiting >= conf->limits.merge_waiting) ||
        mailbox_count(worker->setup.node_mailbox) > conf->limits.mailbox)
        return false;
    if (conf->limits.user_rate > 0)
        return post_one(worker, send);
    struct merge_entry *entry = merger_find(&worker->merges, intent->room, intent->type);
    if (!entry)
        entry = merger_open(&worker->merges, intent->room, intent->type, conf->limits.merges,
                            uv_now(&worker->loop), GATHER_MS);
    if (!entry)
        return false;
    if (!uv_is_active((uv_handle_t *)&worker->merge_timer))
        uv_timer_start(&worker->merge_timer, on_gathered, GATHER_MS, 0);
    return gather(worker, CONTAINER_OF(entry, struct gathered, base), send);
}

void merge_settled(struct worker *worker, const struct command *command)
{
    for (uint32_t i = 0; i < command->merge.waiters; i++) {
        struct merge_waiter waiter = command_waiter(command, i);
        struct command fate = {.slot = waiter.slot,
                               .id = waiter.id,
                               .ref = {.present = waiter.has_ref, .value = waiter.ref},
                               .result = command->result,
                               .retry_after_ms = command->retry_after_ms};
        intents_published(worker, &fate);
        worker->merge_waiting -= waiter.has_ref;
    }
    metric_set(&worker->metrics.merge_waiting, worker->merge_waiting);
}

void merge_post_all(struct worker *worker)
{
    merger_end_all(&worker->merges);
    post_ended(worker);
}

void merge_init(struct worker *worker)
{
    uv_timer_init(&worker->loop, &worker->merge_timer);
    worker->merge_timer.data = worker;
    merger_init(&worker->merges, sizeof(struct gathered), uv_now(&worker->loop));
}

static void on_dropped(void *ctx, struct merge_entry *entry)
{
    (void)ctx;
    gathered_fini(CONTAINER_OF(entry, struct gathered, base));
}

void merge_fini(struct worker *worker)
{
    merger_fini(&worker->merges, on_dropped, NULL);
}
