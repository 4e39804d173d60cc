/* merge_up.c: sends of merged types on their way up: one batch per room, type and window to the broker.
 *
 * A window has at most one batch under way; what is sent meanwhile gathers for the next one, so a broker that is slow or away costs one
 * counter. A batch has a number. When its answer was lost it is sent again under the same one, and the script (scripts/redis/merge.lua)
 * counts it once. Redis remembers the number for BATCH_REMEMBERED_MS; a batch is given up before that.
 *
 * A reload may change a type's kind while something is gathered or under way: sums and newest messages are gathered apart, and leave as
 * batches of their own, the sums first.
 *
 *      IDLE ─ window ends, something gathered ─▶ FLYING ─ accepted, or refused for good ─▶ IDLE
 *                                                  ▲ └─ answer lost ─▶ LOST ─┐
 *                                                  └─── broker ready again ──┘
 */
#include "node/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker/scripts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH_REMEMBERED_MS "7200000"
enum { BATCH_KEPT_MS = 3600000 };

enum up_state { UP_IDLE, UP_FLYING, UP_LOST };

struct up {
    struct merge_entry base;
    enum up_state state;
    /* What is gathered: base.count sends, of which … */
    uint32_t sums; /* … so many are added up in delta, the others are MERGE_LATEST: */
    struct merge_sum gathered;
    struct buf newest;
    enum lane next_lane;
    struct link waiting; /* commands whose viewers wait */
    /* The batch under way: */
    enum conf_merge kind;
    enum lane lane;
    struct buf payload; /* MERGE_LATEST: the message; without Redis: the sum as published */
    uint64_t flying;    /* its delta */
    uint32_t flying_sends;
    uint64_t number;
    uint64_t since_ms;
    struct link sent; /* commands whose viewers wait */
};

static struct up *up_of(struct merge_entry *entry)
{
    return CONTAINER_OF(entry, struct up, base);
}

/* The command goes back to its worker, which tells the viewers. */
static void answer(struct node *node, struct command *command, int result, uint32_t retry_after_ms)
{
    if (command->merge.waiters == 0 || node->phase == PHASE_ENDING) {
        free(command);
        return;
    }
    command->kind = COMMAND_MERGED;
    command->result = result;
    command->retry_after_ms = retry_after_ms;
    worker_post(node->workers[command->worker], command);
}

static void answer_all(struct node *node, struct link *commands, int result)
{
    struct link *link;
    while ((link = list_shift(commands)))
        answer(node, CONTAINER_OF(link, struct command, link), result, 0);
}

/* Those of what is gathered that wait for a batch of this kind, on to `to`. */
static void move_waiting(struct up *up, enum conf_merge kind, struct link *to)
{
    struct link others;
    struct link *link;
    list_init(&others);
    while ((link = list_shift(&up->waiting)))
        list_append(CONTAINER_OF(link, struct command, link)->merge.kind == kind ? to : &others,
                    link);
    list_splice(&up->waiting, &others);
}

/* Takes what was gathered of one kind as the next batch. */
static void take_batch(struct node *node, struct up *up)
{
    up->kind = up->sums > 0 ? MERGE_SUM : MERGE_LATEST;
    up->lane = up->next_lane;
    up->flying = up->gathered.delta;
    up->flying_sends = up->sums > 0 ? up->sums : up->base.count;
    up->gathered = (struct merge_sum){0};
    up->sums = 0;
    up->base.count -= up->flying_sends;
    up->number = ++node->merge_number;
    up->since_ms = uv_now(&node->loop);
    if (up->kind == MERGE_LATEST) {
        buf_fini(&up->payload);
        up->payload = up->newest;
        up->newest = (struct buf){0};
    }
    move_waiting(up, up->kind, &up->sent);
}

/* Nobody has it: it is part of what is gathered again, before what came since. */
static void put_back(struct up *up)
{
    if (up->kind == MERGE_SUM) {
        merge_add(&up->gathered, &(struct merge_sum){.delta = up->flying});
        up->sums += up->flying_sends;
    } else if (up->newest.len == 0) {
        buf_fini(&up->newest);
        up->newest = up->payload;
        up->payload = (struct buf){0};
    }
    up->base.count += up->flying_sends;
    list_splice(&up->sent, &up->waiting);
    list_splice(&up->waiting, &up->sent);
    up->state = UP_IDLE;
}

/* The batch is through, one way or the other. */
static void finish(struct node *node, struct up *up, int result)
{
    if (result == BROKER_OK)
        metric_add(&node->metrics.merge_batches, 1);
    else
        metric_add(&node->metrics.merge_lost, up->flying_sends);
    answer_all(node, &up->sent, result);
    up->state = UP_IDLE;
    buf_fini(&up->payload);
}

/* Errors of a Redis that will come round: it loads, is a replica for the moment, or has no memory left. */
static bool will_pass(struct bytes error)
{
    static const char *const words[] = {"LOADING",     "READONLY", "MASTERDOWN", "OOM",
                                        "CLUSTERDOWN", "TRYAGAIN", "BUSY",       "MISCONF"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        if (error.len >= len && memcmp(error.data, words[i], len) == 0)
            return true;
    }
    return false;
}

void merge_up_settled(struct node *node, struct up *up, int result)
{
    if (result == BROKER_OK || result == BROKER_ERR_REFUSED)
        finish(node, up, result);
    else if (up->kind == MERGE_LATEST)
        put_back(up); /* told twice is no harm */
    else
        up->state = UP_LOST;
}

static void on_reply(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct up *up = (struct up *)(uintptr_t)token;
    if (result == BROKER_ERR_REFUSED) {
        log_limited(LOG_LEVEL_ERROR, "redis refused a batch of a merged type",
                    LOG_BYTES("room", merge_room(&up->base)),
                    LOG_BYTES("type", merge_type(&up->base)), LOG_BYTES("error", value->text));
        if (will_pass(value->text))
            result = BROKER_ERR_AWAY;
    }
    merge_up_settled(owner, up, result);
}

/* The total and the message in one step, on Redis. */
static int send_script(struct node *node, struct up *up)
{
    const char *prefix = broker_prefix(node->broker);
    struct bytes room = merge_room(&up->base);
    struct bytes type = merge_type(&up->base);
    int room_len = (int)room.len;
    int type_len = (int)type.len;
    struct buf text[6] = {0};
    buf_printf(&text[0], "%s:total:{%.*s}", prefix, room_len, room.data);
    buf_printf(&text[1], "%s:dedupe:{%.*s}:merge:%.*s:%s", prefix, room_len, room.data, type_len,
               type.data, node->run);
    buf_printf(&text[2], "%s:%s:{%.*s}", prefix, up->lane == LANE_HIGH ? "high" : "room", room_len,
               room.data);
    buf_uint(&text[3], up->flying);
    buf_uint(&text[4], node->conf->broker.total_ttl_ms);
    buf_uint(&text[5], up->number);
    const struct bytes keys[] = {buf_view(&text[0]), buf_view(&text[1])};
    const struct bytes args[] = {buf_view(&text[2]), type,
                                 buf_view(&text[3]), buf_view(&text[4]),
                                 buf_view(&text[5]), BYTES_LIT(BATCH_REMEMBERED_MS)};
    bool failed = false;
    for (int i = 0; i < 6; i++)
        failed |= text[i].failed;
    int error = failed ? BROKER_ERR_FULL
                       : broker_eval(node->broker, &script_merge, keys, 2, args, 6, on_reply, node,
                                     (uint64_t)(uintptr_t)up);
    for (int i = 0; i < 6; i++)
        buf_fini(&text[i]);
    return error;
}

/* Without Redis the total is this process's; it is part of the payload, which stays until it is through. */
static void make_payload(struct node *node, struct up *up)
{
    struct merge_sum sum = {.delta = up->flying, .has_total = true};
    struct buf data = {0};
    sum.total = totals_add(&node->totals, merge_room(&up->base), merge_type(&up->base), up->flying,
                           uv_now(&node->loop), node->conf->limits.merges);
    merge_append(&data, &sum);
    struct message_parts parts = {.type = merge_type(&up->base), .data = buf_view(&data)};
    buf_clear(&up->payload);
    envelope_append(&up->payload, &parts);
    buf_fini(&data);
}

static void send_batch(struct node *node, struct up *up)
{
    bool fresh = up->state == UP_IDLE;
    if (fresh)
        take_batch(node, up);
    bool script = up->kind == MERGE_SUM && broker_has_commands(node->broker);
    if (fresh && up->kind == MERGE_SUM && !script)
        make_payload(node, up);
    if (!script && (up->payload.failed || up->payload.len == 0)) {
        finish(node, up, BROKER_ERR_FULL); /* there was no memory for it */
        return;
    }
    int error = script ? send_script(node, up)
                       : dispatch_publish_merged(node, up, merge_room(&up->base), up->lane,
                                                 buf_view(&up->payload));
    if (error == 0)
        up->state = UP_FLYING;
    else if (fresh && (script || up->kind == MERGE_LATEST))
        put_back(up);
    else
        up->state = UP_LOST; /* its number, or its total, is taken */
}

/* What holds for a user over all its connections. Returns 0, or the time to wait. */
static uint32_t take_user_rate(struct node *node, const struct command *command)
{
    const struct conf *conf = node->conf;
    struct limiter_policy policy = {conf->limits.user_rate, conf->limits.user_burst,
                                    conf->limits.rate_entries};
    if (command->user_len == 0)
        return 0;
    return limiter_take(&node->user_rates, &policy, command_user(command),
                        (uint32_t)uv_now(&node->loop));
}

/* Whether somebody wants an ack. What was sent with its user came by itself, so that it could be refused. */
static bool is_awaited(const struct command *command)
{
    return command->merge.waiters > 1 ||
           (command->merge.waiters == 1 && command_waiter(command, 0).has_ref);
}

static struct up *open_window(struct node *node, const struct command *command)
{
    struct bytes type = command_type(command);
    uint32_t window_ms = node->conf->types[conf_type_find(node->conf, type)].window_ms;
    struct merge_entry *entry =
        merger_open(&node->ups, command_room(command), type, node->conf->limits.merges,
                    uv_now(&node->loop), window_ms);
    if (!entry)
        return NULL;
    list_init(&up_of(entry)->waiting);
    list_init(&up_of(entry)->sent);
    return up_of(entry);
}

static void gather(struct up *up, const struct command *command)
{
    up->base.count += command->merge.sends;
    up->next_lane = command->lane;
    if (command->merge.kind == MERGE_SUM) {
        up->sums += command->merge.sends;
        merge_add(&up->gathered, &(struct merge_sum){.delta = command->merge.delta});
    } else {
        buf_clear(&up->newest);
        buf_bytes(&up->newest, command_newest(command));
    }
}

void merge_up_put(struct node *node, struct command *command)
{
    uint32_t wait = take_user_rate(node, command);
    if (wait > 0) {
        answer(node, command, PUBLISH_ERR_USER_RATE, wait);
        return;
    }
    struct merge_entry *entry =
        merger_find(&node->ups, command_room(command), command_type(command));
    struct up *up = entry ? up_of(entry) : open_window(node, command);
    if (!up) {
        metric_add(&node->metrics.merge_lost, command->merge.sends);
        log_limited(LOG_LEVEL_WARN, "sends of a merged type refused: limits.merges is reached",
                    LOG_BYTES("room", command_room(command)),
                    LOG_UINT("limits.merges", node->conf->limits.merges));
        answer(node, command, BROKER_ERR_FULL, 0);
        return;
    }
    metric_add(&node->metrics.merged_up, command->merge.sends);
    gather(up, command);
    if (is_awaited(command))
        list_append(&up->waiting, &command->link);
    else
        free(command);
    if (!entry)
        send_batch(node, up);
    merges_start_ticking(node);
}

void merge_up_tick(struct node *node, uint64_t now)
{
    struct merge_entry *entry;
    while ((entry = merger_next(&node->ups, now))) {
        struct up *up = up_of(entry);
        uint32_t window_ms =
            node->conf->types[conf_type_find(node->conf, merge_type(entry))].window_ms;
        if (up->state == UP_LOST && now - up->since_ms > BATCH_KEPT_MS)
            finish(node, up, BROKER_ERR_AWAY);
        bool something = up->state == UP_LOST || (up->state == UP_IDLE && entry->count > 0);
        if (something && node->broker_ready)
            send_batch(node, up);
        if (up->state == UP_IDLE && entry->count == 0) {
            buf_fini(&up->newest);
            merger_close(&node->ups, entry);
        } else {
            merger_reopen(&node->ups, entry, now, window_ms);
        }
    }
    metric_set(&node->metrics.merges_up, node->ups.entries.count);
}

void merge_up_init(struct node *node)
{
    snprintf(node->run, sizeof(node->run), "%016" PRIx64, random_seed());
    merger_init(&node->ups, sizeof(struct up), uv_now(&node->loop));
    totals_init(&node->totals);
}

static void free_all(struct link *commands)
{
    struct link *link;
    while ((link = list_shift(commands)))
        free(CONTAINER_OF(link, struct command, link));
}

static void on_dropped(void *ctx, struct merge_entry *entry)
{
    struct up *up = up_of(entry);
    (void)ctx;
    free_all(&up->waiting);
    free_all(&up->sent);
    buf_fini(&up->newest);
    buf_fini(&up->payload);
}

void merge_up_fini(struct node *node)
{
    merger_fini(&node->ups, on_dropped, NULL);
    totals_fini(&node->totals);
}
