#include "broker/redis_publisher.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

enum { ARG_HEAD_BYTES = 32 /* "$<length>\r\n" and "\r\n", generously */ };

/* A script's number of keys, keys and arguments as they stand in the command, for when its text must be sent. */
struct redis_eval {
    const struct broker_script *script;
    uint32_t args;
    bool with_text;
    size_t len;
    char tail[];
};

static const struct broker_value nothing = {.kind = BROKER_NIL};

static size_t bytes_needed(const struct bytes *args, uint32_t count)
{
    size_t need = ARG_HEAD_BYTES;
    for (uint32_t i = 0; i < count; i++)
        need += args[i].len + ARG_HEAD_BYTES;
    return need;
}

/* Makes room for a question of so many bytes and its entry. Afterwards appending cannot fail. */
static int reserve(struct redis_publisher *publisher, const struct redis_pending_entry *entry,
                   size_t need, size_t kept)
{
    struct redis_conn *conn = publisher->conn;
    const struct broker_limits *limits = &publisher->broker->limits;
    if (conn->state != REDIS_CONN_LIVE || publisher->broker->closing)
        return BROKER_ERR_AWAY;
    if (publisher->pending.count >= limits->pending ||
        redis_conn_unsent(conn) + kept + need > limits->output_bytes)
        return BROKER_ERR_FULL;
    if (!buf_reserve(&conn->out, need)) {
        conn->out.failed = false;
        return BROKER_ERR_FULL;
    }
    if (redis_pending_push(&publisher->pending, entry) != 0)
        return BROKER_ERR_FULL;
    redis_conn_expect(conn, 1);
    return 0;
}

static void append(struct redis_publisher *publisher, const struct bytes *args, uint32_t count)
{
    wire_command_start(&publisher->conn->out, count);
    for (uint32_t i = 0; i < count; i++)
        wire_command_arg(&publisher->conn->out, args[i]);
}

int redis_publisher_publish(struct redis_publisher *publisher, struct bytes channel,
                            struct bytes payload, uint64_t token)
{
    const struct redis_pending_entry entry = {.token = token, .since_ms = clock_ms()};
    const struct bytes args[] = {BYTES_LIT("PUBLISH"), channel, payload};
    int result = reserve(publisher, &entry, bytes_needed(args, 3), 0);
    if (result == 0)
        append(publisher, args, 3);
    else
        publisher->publish_failed++;
    return result;
}

int redis_publisher_call(struct redis_publisher *publisher, const struct bytes *args,
                         uint32_t count, broker_reply on_reply, void *owner, uint64_t token)
{
    const struct redis_pending_entry entry = {
        .token = token, .since_ms = clock_ms(), .on_reply = on_reply, .owner = owner};
    int result = reserve(publisher, &entry, bytes_needed(args, count), 0);
    if (result == 0)
        append(publisher, args, count);
    else
        publisher->call_failed++;
    return result;
}

static struct redis_eval *eval_create(const struct broker_script *script, const struct bytes *keys,
                                      uint32_t key_count, const struct bytes *args,
                                      uint32_t arg_count)
{
    struct buf tail = {0};
    struct buf number = {0};
    buf_uint(&number, key_count);
    wire_command_arg(&tail, buf_view(&number));
    for (uint32_t i = 0; i < key_count; i++)
        wire_command_arg(&tail, keys[i]);
    for (uint32_t i = 0; i < arg_count; i++)
        wire_command_arg(&tail, args[i]);
    struct redis_eval *eval =
        tail.failed || number.failed ? NULL : malloc(sizeof(*eval) + tail.len);
    if (eval) {
        *eval = (struct redis_eval){
            .script = script, .args = 1 + key_count + arg_count, .len = tail.len};
        memcpy(eval->tail, tail.data, tail.len);
    }
    buf_fini(&number);
    buf_fini(&tail);
    return eval;
}

/* Its place in known; known_count: it is not there. */
static uint32_t known_at(const struct redis_publisher *publisher,
                         const struct broker_script *script)
{
    uint32_t i = 0;
    while (i < publisher->known_count && publisher->known[i] != script)
        i++;
    return i;
}

static bool is_known(const struct redis_publisher *publisher, const struct broker_script *script)
{
    return known_at(publisher, script) < publisher->known_count;
}

static void set_known(struct redis_publisher *publisher, const struct broker_script *script)
{
    if (!is_known(publisher, script) && publisher->known_count < REDIS_SCRIPTS_KNOWN)
        publisher->known[publisher->known_count++] = script;
}

/* An EVAL that was refused may not have been read at all (no right to it, BUSY). */
static void set_unknown(struct redis_publisher *publisher, const struct broker_script *script)
{
    uint32_t at = known_at(publisher, script);
    if (at < publisher->known_count)
        publisher->known[at] = publisher->known[--publisher->known_count];
}

/* Appends EVALSHA, or EVAL with the script's text. */
static int send_eval(struct redis_publisher *publisher, const struct redis_pending_entry *entry,
                     bool with_text)
{
    struct redis_eval *eval = entry->eval;
    struct buf *out = &publisher->conn->out;
    size_t need = eval->len + (with_text ? eval->script->text.len : 0) + 4 * ARG_HEAD_BYTES;
    size_t kept = publisher->kept_bytes + eval->len;
    int result = reserve(publisher, entry, need, kept);
    if (result != 0)
        return result;
    eval->with_text = with_text;
    publisher->kept_bytes = kept;
    wire_command_start(out, eval->args + 2);
    wire_command_arg(out, with_text ? BYTES_LIT("EVAL") : BYTES_LIT("EVALSHA"));
    wire_command_arg(out, with_text ? eval->script->text : bytes_str(eval->script->sha));
    buf_append(out, eval->tail, eval->len);
    if (with_text)
        set_known(publisher, eval->script);
    return 0;
}

int redis_publisher_eval(struct redis_publisher *publisher, const struct broker_script *script,
                         const struct bytes *keys, uint32_t key_count, const struct bytes *args,
                         uint32_t arg_count, broker_reply on_reply, void *owner, uint64_t token)
{
    struct redis_pending_entry entry = {
        .token = token, .since_ms = clock_ms(), .on_reply = on_reply, .owner = owner};
    entry.eval = eval_create(script, keys, key_count, args, arg_count);
    int result =
        entry.eval ? send_eval(publisher, &entry, !is_known(publisher, script)) : BROKER_ERR_FULL;
    if (result != 0) {
        free(entry.eval);
        publisher->call_failed++;
    }
    return result;
}

/* Takes the oldest question off. */
static bool shift(struct redis_publisher *publisher, struct redis_pending_entry *entry)
{
    if (!redis_pending_shift(&publisher->pending, entry))
        return false;
    if (entry->eval)
        publisher->kept_bytes -= entry->eval->len;
    return true;
}

static void answer(struct redis_publisher *publisher, struct redis_pending_entry *entry, int result,
                   const struct broker_value *value)
{
    free(entry->eval);
    if (entry->on_reply) {
        publisher->calls += result == 0;
        publisher->call_failed += result != 0;
        entry->on_reply(entry->owner, entry->token, result, value);
        return;
    }
    publisher->published += result == 0;
    publisher->publish_failed += result != 0;
    publisher->broker->events.on_published(publisher->broker->ctx, entry->token, result);
}

static bool is_noscript(const struct broker_value *reply)
{
    static const char begin[] = "NOSCRIPT";
    return reply->kind == BROKER_ERROR && reply->text.len >= sizeof(begin) - 1 &&
           memcmp(reply->text.data, begin, sizeof(begin) - 1) == 0;
}

static void tell_refusal(const struct redis_pending_entry *entry, struct bytes error)
{
    const char *script = entry->eval ? entry->eval->script->name : "-";
    if (entry->on_reply)
        log_limited(LOG_LEVEL_WARN, "redis refuses a command", LOG_BYTES("error", error),
                    LOG_STR("script", script),
                    LOG_STR("advice",
                            "grant this Redis user the commands of docs/operations.md and "
                            "the keys <broker.prefix>:* (ACL SETUSER)"));
    else
        log_limited(LOG_LEVEL_WARN, "redis refuses a publish", LOG_BYTES("error", error),
                    LOG_STR("advice", "grant this Redis user PUBLISH and the channels "
                                      "<broker.prefix>:* (ACL SETUSER)"));
}

int redis_publisher_reply(struct redis_publisher *publisher, const struct broker_value *reply)
{
    struct redis_pending_entry entry;
    bool refused = reply->kind == BROKER_ERROR;
    if (publisher->pending.count == 0)
        return UV_EPROTO;
    if (!refused && reply->kind != BROKER_INTEGER &&
        !publisher->pending.entries[publisher->pending.head].on_reply)
        return UV_EPROTO; /* to PUBLISH; it stays, and is answered when the connection is given up */
    (void)shift(publisher, &entry);
    redis_conn_answered(publisher->conn);
    if (is_noscript(reply) && entry.eval && !entry.eval->with_text) {
        int result = send_eval(publisher, &entry, true);
        if (result != 0)
            answer(publisher, &entry, result, &nothing);
        return 0;
    }
    if (refused && entry.eval && entry.eval->with_text)
        set_unknown(publisher, entry.eval->script);
    if (refused)
        tell_refusal(&entry, reply->text);
    answer(publisher, &entry, refused ? BROKER_ERR_REFUSED : 0, reply);
    return 0;
}

void redis_publisher_up(struct redis_publisher *publisher)
{
    publisher->known_count = 0;
}

void redis_publisher_lost(struct redis_publisher *publisher)
{
    struct redis_pending_entry entry;
    while (shift(publisher, &entry))
        answer(publisher, &entry, BROKER_ERR_AWAY, &nothing);
}

void redis_publisher_fini(struct redis_publisher *publisher)
{
    redis_pending_fini(&publisher->pending);
}
