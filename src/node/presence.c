#include "node/presence.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker/scripts.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SLOTS_MAX = 60 * 1000 / NODE_TICK_MS,
    BATCH_ROOMS = 128,  /* about half a millisecond of Redis' time */
    BATCHES_ASKED = 4,  /* at a time: publishes go between them */
    DEAD_MAX = 256,     /* dead nodes that a batch may name */
    EXPIRY_MS = 600000, /* of a room's hash that nobody renews */
    RENEWAL_MS = EXPIRY_MS / 3,
    REMEMBER_MS =
        3600000,     /* dead nodes, longer than any hash lives without them being cleared from it */
    QUIET_MS = 3000, /* after Redis forgot the nodes: all have told it their counts by then */
    MEMBER_MAX = ROOM_NAME_MAX + 20
};

enum walk { WALK_NONE, WALK_SHARED, WALK_ALL };

struct batch {
    struct node *node;
    uint32_t count;
    uint32_t lens[BATCH_ROOMS];
    uint32_t counts[BATCH_ROOMS];
    bool news[BATCH_ROOMS]; /* the count changed since it was last written */
    struct buf names;
};

struct presence {
    bool remote; /* there is a Redis; else this node's counts are all */
    char member[MEMBER_MAX];
    char own[ROOM_NAME_MAX + 2]; /* name and a space: what members of earlier boots begin with */
    struct buf changed;          /* names behind a length byte: rooms to be written */
    struct buf tell[SLOTS_MAX];  /* … to be told, by the tick that is theirs */
    uint32_t slots;
    uint32_t tick;
    struct buf dead; /* members behind a length byte */
    uint32_t dead_count;
    bool beating;     /* a sign of life is on its way */
    bool beaten;      /* there was one */
    uint32_t asked;   /* batches on their way */
    uint32_t budget;  /* changed rooms that may still go in this tick */
    uint32_t left;    /* rooms of the slow round that may still go */
    uint32_t round;   /* bucket at which the slow round is */
    enum walk walk;   /* the fast one */
    uint32_t walk_at; /* bucket */
    bool renew;       /* this round renews the hashes' expiry */
    uint64_t renewed_ms;
    uint64_t quiet_until_ms; /* 0: what Redis says is believed */
    void (*left_node)(struct node *node);
};

static void pump(struct node *node);

static uint64_t now_ms(const struct node *node)
{
    return uv_now(&node->loop);
}

/* Returns false when memory is out: the list is as before. */
static bool put_name(struct buf *list, struct bytes name)
{
    if (!buf_reserve(list, 1 + name.len)) {
        list->failed = false;
        return false;
    }
    buf_byte(list, (char)name.len);
    buf_bytes(list, name);
    return true;
}

static struct bytes name_at(const struct buf *list, size_t at)
{
    return bytes_of(list->data + at + 1, (unsigned char)list->data[at]);
}

static struct bytes held_name(const struct held *held)
{
    return bytes_of(held->name, held->name_len);
}

uint32_t presence_online(const struct held *held)
{
    return held->known ? held->local + held->others : UINT32_MAX;
}

/* ---- what is to be done */

static void mark_changed(struct node *node, struct held *held)
{
    if (held->changed || !node->presence->remote)
        return;
    held->changed = true; /* where memory is out, the slow round makes it good */
    (void)put_name(&node->presence->changed, held_name(held));
}

static void mark_stale(struct node *node, struct held *held)
{
    if (held->stale || !held->known)
        return;
    /* Where memory is out the next change is told. */
    held->stale =
        put_name(&node->presence->tell[held->node.hash % node->presence->slots], held_name(held));
}

/* Returns false when a worker's ring has no room to spare: it comes round again. */
static bool send_online(struct node *node, const struct held *held, bool silent)
{
    for (uint32_t i = 0; i < node->worker_count; i++) {
        if (held->holders & 1ull << i &&
            worker_room_left(node->workers[i], LANE_LOW) < node->conf->limits.mailbox / 4)
            return false;
    }
    struct message_parts none = {0};
    struct message *message = message_create(MESSAGE_ONLINE, held_name(held), &none);
    if (!message)
        return false;
    message->lane = LANE_LOW;
    message->online = presence_online(held);
    message->silent = silent;
    dispatch_deliver(node, message);
    message_unref(message);
    if (!silent)
        metric_add(&node->metrics.presence_told, 1);
    return true;
}

static void tell_slot(struct node *node, struct buf *slot)
{
    struct buf due = *slot;
    *slot = (struct buf){0};
    for (size_t at = 0; at < due.len; at += 1 + (unsigned char)due.data[at]) {
        struct held *held = dispatch_find(node, name_at(&due, at));
        if (!held || !held->stale)
            continue;
        held->stale = false;
        if (held->holders != 0 && held->live && !send_online(node, held, false))
            mark_stale(node, held);
    }
    buf_fini(&due);
}

static void add_difference(struct node *node, struct bytes name, int32_t delta)
{
    struct held *held = dispatch_find(node, name);
    if (!held)
        return; /* refused, or gone: presence_forget() saw to it */
    /* A worker without memory may have told less than it takes away now. */
    uint32_t left = delta < 0 ? (uint32_t)-delta : 0;
    held->local = left > held->local ? 0 : held->local + (uint32_t)delta;
    mark_changed(node, held);
    mark_stale(node, held);
}

void presence_take_counts(struct node *node, const struct command *command)
{
    struct bytes records = command_payload(command);
    int32_t delta;
    for (size_t at = 0; node->presence && at < records.len;) {
        memcpy(&delta, records.data + at, sizeof(delta));
        at += sizeof(delta);
        size_t len = (unsigned char)records.data[at++];
        add_difference(node, bytes_of(records.data + at, len), delta);
        at += len;
    }
}

void presence_begin(struct node *node, struct held *held)
{
    if (!node->presence)
        return;
    held->known = !node->presence->remote;
    mark_changed(node, held); /* read what the others have */
}

void presence_forget(struct node *node, const struct held *held)
{
    if (node->presence && node->presence->remote && held->local != 0 && !held->changed)
        (void)put_name(&node->presence->changed, held_name(held));
}

/* ---- batches */

static void batch_free(struct batch *batch)
{
    batch->node->presence->asked--;
    buf_fini(&batch->names);
    free(batch);
}

static void take_others(struct node *node, struct held *held, int64_t others)
{
    uint32_t before = presence_online(held);
    held->others = others > 0 && others < INT32_MAX ? (uint32_t)others : 0;
    if (!held->known) {
        held->known = true;
        if (held->holders != 0)
            send_online(node, held, true); /* for `joined`; viewers are told in its tick */
    }
    if (presence_online(held) != before)
        mark_stale(node, held);
}

static void on_forgotten(struct node *node);

/* One room's answer. A count that was written and is another one now was lost, and those of others with it, perhaps. */
static void take_answer(struct node *node, struct held *held, int64_t answer, bool news)
{
    struct presence *presence = node->presence;
    if (answer < 0 && !news && presence->quiet_until_ms == 0)
        on_forgotten(node);
    if (held && presence->quiet_until_ms == 0)
        take_others(node, held, answer < 0 ? -1 - answer : answer);
}

static void on_batch(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct batch *batch = (struct batch *)(uintptr_t)token;
    struct node *node = owner;
    struct presence *presence = node->presence;
    bool good = result == BROKER_OK && value->kind == BROKER_ARRAY && value->count == batch->count;
    if (!good)
        metric_add(&node->metrics.presence_failed, 1);
    if (result == BROKER_ERR_REFUSED)
        log_limited(LOG_LEVEL_WARN, "redis refuses to count viewers",
                    LOG_BYTES("error", value->text),
                    LOG_STR("advice", "grant this Redis user the keys <broker.prefix>:online:* and "
                                      "<broker.prefix>:nodes, or set presence.enabled = no"));
    size_t at = 0;
    for (uint32_t i = 0; i < batch->count; i++, at += batch->lens[i - 1]) {
        struct bytes name = bytes_of(batch->names.data + at, batch->lens[i]);
        struct held *held = dispatch_find(node, name);
        if (!good && held)
            mark_changed(node, held);
        else if (!good && node->phase != PHASE_ENDING)
            (void)put_name(&presence->changed, name);
        else if (good)
            take_answer(node, held, value->items[i].integer, batch->news[i]);
    }
    batch_free(batch);
    if (good)
        pump(node); /* else the next tick tries again */
}

/* The arguments of one call of presence.lua; spans point into the batch, the presence and text. */
struct call {
    struct bytes keys[BATCH_ROOMS];
    struct bytes args[4 + DEAD_MAX + BATCH_ROOMS];
    uint32_t arg_count;
    struct buf text;
};

static struct bytes print_into(struct buf *text, uint64_t number)
{
    size_t at = text->len;
    buf_uint(text, number);
    return bytes_of(text->data + at, text->len - at);
}

static void fill_call(const struct node *node, const struct batch *batch, bool renew,
                      struct call *call)
{
    const struct presence *presence = node->presence;
    const char *prefix = broker_prefix(node->broker);
    size_t at = 0;
    call->args[call->arg_count++] = bytes_str(presence->member);
    call->args[call->arg_count++] = print_into(&call->text, EXPIRY_MS);
    call->args[call->arg_count++] = renew ? BYTES_LIT("1") : BYTES_LIT("0");
    call->args[call->arg_count++] = print_into(&call->text, presence->dead_count);
    for (uint32_t i = 0; i < presence->dead_count; i++) {
        call->args[call->arg_count++] = name_at(&presence->dead, at);
        at += 1 + (unsigned char)presence->dead.data[at];
    }
    at = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        call->args[call->arg_count++] = print_into(&call->text, batch->counts[i]);
        size_t start = call->text.len;
        buf_printf(&call->text, "%s:online:{%.*s}", prefix, (int)batch->lens[i],
                   batch->names.data + at);
        call->keys[i] = bytes_of(call->text.data + start, call->text.len - start);
        at += batch->lens[i];
    }
}

static bool ask(struct node *node, struct batch *batch, bool renew)
{
    /* Room for all texts at once: they must not move while spans point to them. */
    size_t room =
        batch->names.len + batch->count * (size_t)(strlen(broker_prefix(node->broker)) + 48) + 64;
    struct call call = {.arg_count = 0};
    int result = BROKER_ERR_FULL;
    if (buf_reserve(&call.text, room)) {
        fill_call(node, batch, renew, &call);
        result = broker_eval(node->broker, &script_presence, call.keys, batch->count, call.args,
                             call.arg_count, on_batch, node, (uint64_t)(uintptr_t)batch);
    }
    buf_fini(&call.text);
    return result == BROKER_OK;
}

/* A room that there is no memory for is left to the slow round. */
static void batch_add(struct batch *batch, struct bytes name, struct held *held)
{
    if (batch->count == BATCH_ROOMS)
        return;
    if (!buf_reserve(&batch->names, name.len)) {
        batch->names.failed = false;
        return;
    }
    batch->lens[batch->count] = (uint32_t)name.len;
    batch->news[batch->count] = !held || held->changed;
    batch->counts[batch->count++] = held ? held->local : 0;
    buf_bytes(&batch->names, name);
    if (held)
        held->changed = false;
}

static void add_changed(struct node *node, struct batch *batch)
{
    struct presence *presence = node->presence;
    size_t at = 0;
    while (at < presence->changed.len && batch->count < BATCH_ROOMS && presence->budget > 0) {
        struct bytes name = name_at(&presence->changed, at);
        struct held *held = dispatch_find(node, name);
        if (!held || held->changed) { /* else another batch took it along */
            batch_add(batch, name, held);
            presence->budget--;
        }
        at += 1 + name.len;
    }
    buf_consume(&presence->changed, at);
    if (presence->changed.len == 0)
        buf_fini(&presence->changed);
}

/* Adds the rooms of one bucket that somebody is in; `shared`: only those that others have viewers in. Returns how many. */
static uint32_t add_bucket(struct node *node, struct batch *batch, uint32_t bucket, bool shared)
{
    uint32_t before = batch->count;
    for (struct map_node *at = node->rooms.buckets[bucket]; at; at = at->next) {
        struct held *held = CONTAINER_OF(at, struct held, node);
        if (held->holders != 0 && (!shared || held->others != 0 || !held->known))
            batch_add(batch, held_name(held), held);
    }
    return batch->count - before;
}

/* A bucket is taken whole: it must fit, as those of a healthy table do. */
enum { BUCKET_ROOMS = 16 };

static void add_walk(struct node *node, struct batch *batch)
{
    struct presence *presence = node->presence;
    while (presence->walk != WALK_NONE && batch->count <= BATCH_ROOMS - BUCKET_ROOMS) {
        if (!node->rooms.buckets || presence->walk_at > node->rooms.mask) {
            presence->walk = WALK_NONE;
            return;
        }
        add_bucket(node, batch, presence->walk_at++, presence->walk == WALK_SHARED);
    }
}

static void add_round(struct node *node, struct batch *batch)
{
    struct presence *presence = node->presence;
    uint32_t buckets = node->rooms.buckets ? node->rooms.mask + 1 : 0;
    for (uint32_t i = 0; i < buckets && presence->left > 0; i++) {
        if (batch->count > BATCH_ROOMS - BUCKET_ROOMS)
            return;
        if (presence->round >= buckets) {
            presence->round = 0;
            presence->renew = now_ms(node) - presence->renewed_ms >= RENEWAL_MS;
            if (presence->renew)
                presence->renewed_ms = now_ms(node);
        }
        uint32_t added = add_bucket(node, batch, presence->round++, false);
        presence->left -= added < presence->left ? added : presence->left;
    }
}

static void pump(struct node *node)
{
    struct presence *presence = node->presence;
    while (node->broker_ready && node->phase != PHASE_ENDING && !presence->left_node &&
           presence->asked < BATCHES_ASKED) {
        struct batch *batch = calloc(1, sizeof(*batch));
        if (!batch)
            return;
        batch->node = node;
        presence->asked++;
        add_changed(node, batch);
        add_walk(node, batch);
        add_round(node, batch);
        if (batch->count == 0) {
            batch_free(batch);
            return;
        }
        metric_add(&node->metrics.presence_batches, 1);
        metric_add(&node->metrics.presence_rooms, batch->count);
        if (!ask(node, batch, presence->renew)) {
            struct broker_value none = {.kind = BROKER_NIL};
            on_batch(node, (uint64_t)(uintptr_t)batch, BROKER_ERR_FULL, &none);
            return;
        }
    }
}

/* ---- who lives */

static void start_walk(struct presence *presence, enum walk walk)
{
    if (presence->walk == WALK_ALL)
        walk = WALK_ALL;
    presence->walk = walk;
    presence->walk_at = 0;
}

/* Redis had forgotten this node, perhaps all of them: until each has told its counts, what it says is too little. */
static void on_forgotten(struct node *node)
{
    struct presence *presence = node->presence;
    metric_add(&node->metrics.presence_lost, 1);
    presence->quiet_until_ms = now_ms(node) + QUIET_MS;
    start_walk(presence, WALK_ALL);
}

/* The dead nodes of an answer. Where memory is out those known before stand: the next sign of life tells them again. */
static void take_dead(struct presence *presence, const struct broker_value *value)
{
    struct buf dead = {0};
    uint32_t count = 0;
    for (uint32_t i = 1; i < value->count && count < DEAD_MAX; i++) {
        if (value->items[i].text.len > UINT8_MAX)
            continue;
        if (!put_name(&dead, value->items[i].text)) {
            buf_fini(&dead);
            return;
        }
        count++;
    }
    if (!bytes_equal(buf_view(&dead), buf_view(&presence->dead)))
        start_walk(presence, WALK_SHARED);
    buf_fini(&presence->dead);
    presence->dead = dead;
    presence->dead_count = count;
}

static void on_beat(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    struct presence *presence = node->presence;
    (void)token;
    presence->beating = false;
    if (result != BROKER_OK || value->kind != BROKER_ARRAY || value->count == 0)
        return;
    take_dead(presence, value);
    if (value->items[0].integer == 0 && presence->beaten)
        on_forgotten(node);
    presence->beaten = true;
    pump(node);
}

static int beat(struct node *node, uint32_t alive_ms, broker_reply on_reply)
{
    struct presence *presence = node->presence;
    char key_text[CONF_ADDRESS_MAX + 8];
    char alive[16];
    char remember[16];
    snprintf(key_text, sizeof(key_text), "%s:nodes", broker_prefix(node->broker));
    snprintf(alive, sizeof(alive), "%u", alive_ms);
    snprintf(remember, sizeof(remember), "%d", REMEMBER_MS);
    struct bytes key = bytes_str(key_text);
    struct bytes args[] = {bytes_str(presence->member), bytes_str(presence->own), bytes_str(alive),
                           bytes_str(remember)};
    return broker_eval(node->broker, &script_nodes, &key, 1, args, 4, on_reply, node, 0);
}

static void beat_if_due(struct node *node)
{
    struct presence *presence = node->presence;
    if (!node->broker_ready || presence->beating || presence->left_node)
        return;
    presence->beating = beat(node, node->conf->presence.timeout_ms, on_beat) == BROKER_OK;
}

void presence_on_ready(struct node *node)
{
    if (!node->presence || !node->presence->remote)
        return;
    beat_if_due(node);
    pump(node);
}

/* ---- time */

static void update_waiting(struct node *node)
{
    uint64_t bytes = node->presence->changed.len;
    for (uint32_t i = 0; i < node->presence->slots; i++)
        bytes += node->presence->tell[i].len;
    metric_set(&node->metrics.presence_waiting, bytes);
}

void presence_tick(struct node *node)
{
    struct presence *presence = node->presence;
    if (!presence)
        return;
    uint32_t tick = presence->tick++;
    if (presence->remote) {
        uint32_t rate = node->conf->presence.rate / (1000 / NODE_TICK_MS);
        uint32_t round = node->rooms.count / presence->slots + 1;
        presence->budget = rate;
        presence->left = round < rate ? round : rate;
        if (tick % 2 == 0)
            beat_if_due(node);
        if (presence->quiet_until_ms != 0 && now_ms(node) >= presence->quiet_until_ms) {
            presence->quiet_until_ms = 0;
            start_walk(presence, WALK_ALL);
        }
        pump(node);
    }
    tell_slot(node, &presence->tell[tick % presence->slots]);
    update_waiting(node);
}

/* ---- begin and end */

int presence_create(struct node *node)
{
    const struct conf *conf = node->conf;
    if (!conf->presence.enabled)
        return 0;
    struct presence *presence = calloc(1, sizeof(*presence));
    if (!presence)
        return UV_ENOMEM;
    presence->remote = broker_has_commands(node->broker);
    presence->slots = conf->presence.interval_ms / NODE_TICK_MS;
    snprintf(presence->own, sizeof(presence->own), "%s ", conf->server.node);
    snprintf(presence->member, sizeof(presence->member), "%s%016llx", presence->own,
             (unsigned long long)random_seed());
    node->presence = presence;
    return 0;
}

static void on_left(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    (void)token;
    (void)result;
    (void)value;
    node->presence->left_node(node);
}

void presence_leave(struct node *node, void (*done)(struct node *node))
{
    struct presence *presence = node->presence;
    if (presence && presence->left_node)
        return; /* on its way */
    if (presence && presence->remote && node->broker_ready) {
        presence->left_node = done;
        if (beat(node, 0, on_left) == BROKER_OK)
            return;
    }
    done(node);
}

void presence_destroy(struct node *node)
{
    struct presence *presence = node->presence;
    if (!presence)
        return;
    buf_fini(&presence->changed);
    for (uint32_t i = 0; i < presence->slots; i++)
        buf_fini(&presence->tell[i]);
    buf_fini(&presence->dead);
    free(presence);
    node->presence = NULL;
}
