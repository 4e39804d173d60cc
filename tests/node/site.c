#include "node/site.h"

#include "broker/scripts.h"
#include "lib/conf_with.h"
#include "worker/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_MS = 10000 };

static void note_message(struct site *site, const struct message *message)
{
    struct buf *seen = &site->seen;
    struct history_point after;
    enum lane lane;
    if (message->lane != LANE_NORMAL || message->room.len == 0)
        return;
    if (seen->len > 0)
        buf_byte(seen, ' ');
    site->words++;
    if (message->kind == MESSAGE_GAP) {
        buf_text(seen, message->no_join ? "(gap)" : "gap");
        if (history_id_parse(message->id, &lane, &after))
            buf_printf(seen, "#%d", (int)after.n);
        if (message->point.epoch != 0)
            buf_printf(seen, ">%d", (int)message->point.n);
        return;
    }
    buf_bytes(seen, bytes_of(message->data.data + 1, message->data.len - 2)); /* without quotes */
    assert_int_equal(message->id.len > 0, message->point.epoch != 0);
    if (message->point.epoch != 0) {
        assert_true(history_id_parse(message->id, &lane, &after));
        assert_int_equal(after.n, message->point.n);
        assert_int_equal(after.epoch, message->point.epoch);
        buf_printf(seen, "#%d", (int)after.n);
    }
}

static void take_command(struct site *site, uint32_t worker, struct command *command)
{
    if (command->kind == COMMAND_ROOM_LIVE) {
        site->lives++;
        assert_int_equal(command->payload_len, sizeof(site->stands));
        memcpy(site->stands, command_payload(command).data, sizeof(site->stands));
    } else if (command->kind == COMMAND_HISTORY) {
        history_batch_unref(site->batches[worker]);
        site->batches[worker] = command->object;
    }
    site->merged += command->kind == COMMAND_MERGED && command->result == BROKER_OK;
    free(command);
}

static void take_all(struct site *site)
{
    for (uint32_t i = 0; i < site->node->worker_count; i++) {
        struct worker *worker = site->node->workers[i];
        struct link commands;
        struct link *link;
        list_init(&commands);
        mailbox_take(&worker->mailbox, &commands);
        while ((link = list_shift(&commands)))
            take_command(site, i, CONTAINER_OF(link, struct command, link));
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            struct message *message;
            while ((message = ring_shift(&worker->lanes[lane]))) {
                if (i == 0)
                    note_message(site, message);
                message_unref(message);
            }
        }
    }
}

void site_turn(struct site *site)
{
    uv_run(&site->node->loop, UV_RUN_ONCE);
    take_all(site);
}

static void on_limit(uv_timer_t *timer)
{
    ((struct site *)timer->data)->late = true;
}

static void set_limit(struct site *site, uint64_t ms)
{
    site->late = false;
    uv_update_time(&site->node->loop);
    uv_timer_start(&site->limit, on_limit, ms, 0);
}

void site_until(struct site *site, bool (*done)(const struct site *site))
{
    set_limit(site, LIMIT_MS);
    while (!done(site) && !site->late)
        site_turn(site);
    uv_timer_stop(&site->limit);
    assert_false(site->late);
}

void site_for(struct site *site, uint64_t ms)
{
    set_limit(site, ms);
    while (!site->late)
        site_turn(site);
}

static struct worker *worker_open(struct node *node, uint32_t index)
{
    struct worker *worker = aligned_alloc(_Alignof(struct worker), sizeof(*worker));
    assert_non_null(worker);
    memset(worker, 0, sizeof(*worker));
    worker->setup.index = index;
    mailbox_init(&worker->mailbox);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        assert_int_equal(ring_init(&worker->lanes[lane], 8192), 0);
    uv_async_init(&node->loop, &worker->wake, NULL);
    return worker;
}

static void worker_free(struct worker *worker)
{
    for (int lane = 0; lane < LANE_COUNT; lane++)
        ring_fini(&worker->lanes[lane]);
    mailbox_fini(&worker->mailbox);
    free(worker);
}

static struct conf *load_conf(const struct site *site, const char *const *overrides)
{
    char url[96];
    const char *const ours[] = {url, "type.chat.history=yes", "history.length=20", NULL};
    snprintf(url, sizeof(url), "broker.url=redis://node:secret@127.0.0.1:%d", site->redis.port);
    return conf_with(ours, overrides);
}

static bool is_ready(const struct site *site)
{
    return site->node->broker_ready;
}

struct site *site_open(const char *const *overrides)
{
    struct site *site = calloc(1, sizeof(*site));
    struct node *node = calloc(1, sizeof(*node));
    assert_non_null(site);
    assert_non_null(node);
    map_seed();
    redis_start(&site->redis, 0, "");
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node on >secret ~* &* +@all"), "OK");
    site->node = node;
    node->conf = load_conf(site, overrides);
    assert_int_equal(uv_loop_init(&node->loop), 0);
    uv_timer_init(&node->loop, &site->limit);
    uv_timer_init(&node->loop, &node->pause);
    site->limit.data = site;
    node->pause.data = node;
    list_init(&node->lingering);
    sampler_init(&node->sampler);
    backlog_init(&node->backlog);
    history_init(node);
    merges_init(node);
    for (; node->worker_count < SITE_WORKERS; node->worker_count++)
        node->workers[node->worker_count] = worker_open(node, node->worker_count);
    node->broker = broker_create(&node->loop, node->conf, &node_broker_events, node);
    assert_non_null(node->broker);
    site_until(site, is_ready);
    return site;
}

/* ctx: the node's, as with all that the broker tells. */
static void on_broker_closed(void *ctx)
{
    ((struct node *)ctx)->broker = NULL;
}

void site_close(struct site *site)
{
    struct node *node = site->node;
    node->phase = PHASE_ENDING;
    broker_close(node->broker, on_broker_closed);
    history_close(node);
    uv_close((uv_handle_t *)&node->pause, NULL);
    uv_close((uv_handle_t *)&node->merge_timer, NULL);
    uv_close((uv_handle_t *)&site->limit, NULL);
    for (uint32_t i = 0; i < node->worker_count; i++)
        uv_close((uv_handle_t *)&node->workers[i]->wake, NULL);
    uv_run(&node->loop, UV_RUN_DEFAULT);
    assert_null(node->broker);
    take_all(site);
    history_fini(node);
    merges_fini(node);
    assert_int_equal(node->history.waiting, 0);
    assert_int_equal(node->history.read_count, 0);
    dispatch_free_rooms(node);
    for (uint32_t i = 0; i < node->worker_count; i++) {
        history_batch_unref(site->batches[i]);
        worker_free(node->workers[i]);
    }
    backlog_fini(&node->backlog);
    sampler_fini(&node->sampler);
    assert_int_equal(uv_loop_close(&node->loop), 0);
    conf_unref(node->conf);
    free(node);
    redis_stop(&site->redis);
    buf_fini(&site->seen);
    free(site);
}

int site_set_up(void **state)
{
    static const char *const overrides[] = {"history.wait=10s", NULL};
    *state = site_open(overrides);
    return 0;
}

int site_set_up_impatient(void **state)
{
    static const char *const overrides[] = {"history.wait=300ms", NULL};
    *state = site_open(overrides);
    return 0;
}

int site_tear_down(void **state)
{
    site_close(*state);
    return 0;
}

uint64_t site_reads(const struct site *site)
{
    return metric_get(&site->node->metrics.history_reads_fill);
}

uint64_t site_misnumbered(const struct site *site)
{
    return metric_get(&site->node->metrics.history_misnumbered);
}

static uint32_t lives_wanted;

static bool is_live(const struct site *site)
{
    return site->lives >= lives_wanted;
}

static struct command *command_of(enum command_kind kind, const char *room)
{
    struct command *command = command_create(kind, bytes_str(room), (struct bytes){0});
    assert_non_null(command);
    command->lane = LANE_NORMAL;
    return command;
}

void site_begin_hold(struct site *site, const char *room)
{
    struct command *command = command_of(COMMAND_HOLD, room);
    lives_wanted = site->lives + 1;
    dispatch_hold(site->node, command);
    free(command);
}

void site_end_hold(struct site *site)
{
    site_until(site, is_live);
}

void site_hold(struct site *site, const char *room)
{
    site_begin_hold(site, room);
    site_end_hold(site);
}

void site_release(struct site *site, const char *room)
{
    struct command *command = command_of(COMMAND_RELEASE, room);
    dispatch_release(site->node, command);
    free(command);
}

void site_ask_history(struct site *site, uint32_t worker, const char *room)
{
    struct command *command = command_of(COMMAND_ASK_HISTORY, room);
    command->worker = worker;
    history_ask(site->node, command);
    free(command);
}

void site_publish(struct site *site, const char *room, const char *data, bool lost)
{
    char seq[96];
    char history[96];
    char channel[96];
    char message[256];
    snprintf(seq, sizeof(seq), "halley:seq:{%s}", room);
    snprintf(history, sizeof(history), "halley:history:{%s}:normal", room);
    snprintf(channel, sizeof(channel), lost ? "nowhere:{%s}" : "halley:room:{%s}", room);
    snprintf(message, sizeof(message), "{\"type\":\"chat\",\"data\":\"%s\"}", data);
    const struct bytes args[] = {BYTES_LIT("EVAL"),  script_publish.text, BYTES_LIT("2"),
                                 bytes_str(seq),     bytes_str(history),  BYTES_LIT("normal"),
                                 bytes_str(channel), bytes_str(message),  BYTES_LIT("20"),
                                 BYTES_LIT("60000"), BYTES_LIT("60000")};
    (void)redis_do(&site->redis, args, sizeof(args) / sizeof(args[0]));
}

void site_publish_all(struct site *site, const char *room, const char *names)
{
    for (; *names; names++)
        site_publish(site, room, (char[]){*names, '\0'}, false);
}

void site_forge(struct site *site, const char *room, const char *data, const char *id)
{
    char channel[96];
    char epoch[64] = "";
    char message[256];
    if (id && *id == '.')
        snprintf(epoch, sizeof(epoch), "%s",
                 redis_ask(&site->redis, "HGET halley:seq:{%s} epoch", room));
    snprintf(channel, sizeof(channel), "halley:room:{%s}", room);
    if (id)
        snprintf(message, sizeof(message), "{\"type\":\"chat\",\"data\":\"%s\",\"id\":\"n.%s%s\"}",
                 data, epoch, id);
    else
        snprintf(message, sizeof(message), "{\"type\":\"chat\",\"data\":\"%s\"}", data);
    const struct bytes args[] = {BYTES_LIT("PUBLISH"), bytes_str(channel), bytes_str(message)};
    (void)redis_do(&site->redis, args, 3);
}

void site_let_read(struct site *site, bool may)
{
    assert_string_equal(redis_ask(&site->redis, "ACL SETUSER node %ceval %cevalsha",
                                  may ? '+' : '-', may ? '+' : '-'),
                        "OK");
}

void site_merge(struct site *site, const char *room, enum conf_merge kind, uint64_t delta,
                const char *newest)
{
    struct merge_waiter waiter = {.ref = 1, .has_ref = true};
    struct buf payload = {0};
    buf_bytes(&payload, bytes_of((const char *)&waiter, sizeof(waiter)));
    BUF_LIT(&payload, "vote");
    if (newest)
        buf_printf(&payload, "{\"type\":\"vote\",\"data\":\"%s\"}", newest);
    struct command *command = command_create(COMMAND_MERGE, bytes_str(room), buf_view(&payload));
    assert_non_null(command);
    buf_fini(&payload);
    command->lane = LANE_NORMAL;
    command->merge = (struct command_merge){
        .kind = kind, .sends = 1, .waiters = 1, .type_len = 4, .delta = delta};
    merge_up_put(site->node, command);
}

static uint32_t words_wanted;

static bool has_words(const struct site *site)
{
    return site->words >= words_wanted;
}

void site_expect(struct site *site, const char *text)
{
    words_wanted = 1;
    for (const char *at = text; *at; at++)
        words_wanted += *at == ' ';
    set_limit(site, LIMIT_MS);
    while (!has_words(site) && !site->late)
        site_turn(site);
    uv_timer_stop(&site->limit);
    buf_byte(&site->seen, '\0');
    assert_string_equal(site->seen.data, text);
    buf_clear(&site->seen);
    site->words = 0;
}
