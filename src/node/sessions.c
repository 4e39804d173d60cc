/* sessions.c: one connection per session of a user, on whichever node, and how many connections a user has here.
 *
 * Workers tell of viewers with a session (and of all with a user, while limits.user_connections is set). Within the node
 * the newest takes the session over at once. Between nodes Redis knows who has it:
 *
 *     <prefix>:session:<user>:<session> = "<node> <connection> <time it came>"
 *
 * claimed with SET … GET, whose answer names the node that must be told, renewed by a third of its life, deleted while
 * it is ours. An order that gets lost is made up for by the next renewal: of two holders the older one goes.
 *
 * A `:` or `%` in a user's name stands as %3A or %25 in the key, so that no user can meet another's session.
 */
#include "base/clock.h"
#include "base/log.h"
#include "broker/scripts.h"
#include "node/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECTION_MAX = 32,
    VALUE_MAX = ROOM_NAME_MAX + CONNECTION_MAX + 24,
    KEY_MAX = CONF_ADDRESS_MAX + 3 * USER_NAME_MAX + ROOM_NAME_MAX + 16,
    RETRY_MS = 1000,    /* until a claim that failed is made again */
    RENEWED_ONCE = 2000 /* per tick */
};

struct session {
    struct map_node node;
    struct link link; /* on node->sessions_held or ->sessions_unclaimed */
    uint64_t due_ms;
    uint64_t came_ms; /* Unix time */
    uint64_t id;      /* of the viewer, as slot and worker */
    uint32_t slot;
    uint32_t worker;
    bool claimed;
    char connection[CONNECTION_MAX];
    uint8_t user_len;
    uint8_t name_len;
    char text[]; /* user, name */
};

/* How many connections a user has on this node. */
struct user_count {
    struct map_node node;
    uint32_t count;
    uint8_t len;
    char name[];
};

/* A question to Redis about a session, which may have changed hands when the answer comes. */
struct claim {
    struct node *node;
    bool late; /* an earlier one of the session failed */
    char connection[CONNECTION_MAX];
    uint8_t user_len;
    uint8_t name_len;
    char text[];
};

/* Who has a session, as Redis says. */
struct holder {
    char node[ROOM_NAME_MAX + 1];
    char connection[CONNECTION_MAX];
    uint64_t came_ms;
};

static uint32_t hash_of(struct bytes user, struct bytes name)
{
    return map_hash(user.data, user.len) * 31 + map_hash(name.data, name.len);
}

static struct bytes user_of(const struct session *session)
{
    return bytes_of(session->text, session->user_len);
}

static struct bytes name_of(const struct session *session)
{
    return bytes_of(session->text + session->user_len, session->name_len);
}

static struct session *session_find(const struct node *node, struct bytes user, struct bytes name)
{
    uint32_t hash = hash_of(user, name);
    for (struct map_node *at = map_chain(&node->sessions, hash); at; at = at->next) {
        struct session *session = CONTAINER_OF(at, struct session, node);
        if (at->hash == hash && bytes_equal(user_of(session), user) &&
            bytes_equal(name_of(session), name))
            return session;
    }
    return NULL;
}

static struct session *session_add(struct node *node, struct bytes user, struct bytes name)
{
    struct session *session = calloc(1, sizeof(*session) + user.len + name.len);
    if (!session)
        return NULL;
    list_init(&session->link);
    session->user_len = (uint8_t)user.len;
    session->name_len = (uint8_t)name.len;
    memcpy(session->text, user.data, user.len);
    memcpy(session->text + user.len, name.data, name.len);
    if (map_add(&node->sessions, &session->node, hash_of(user, name)) != 0) {
        free(session);
        return NULL;
    }
    metric_set(&node->metrics.sessions, node->sessions.count);
    return session;
}

static void session_remove(struct node *node, struct session *session)
{
    list_remove(&session->link);
    map_remove(&node->sessions, &session->node);
    metric_set(&node->metrics.sessions, node->sessions.count);
    free(session);
}

static void close_viewer(struct node *node, uint32_t worker, uint32_t slot, uint64_t id,
                         enum close_reason reason)
{
    struct command *command = command_create(COMMAND_CLOSE, (struct bytes){0}, (struct bytes){0});
    if (!command) {
        log_error("out of memory: a viewer that must go stays");
        return;
    }
    command->slot = slot;
    command->id = id;
    command->result = (int)reason;
    worker_post(node->workers[worker], command);
}

static void close_holder(struct node *node, const struct session *session)
{
    close_viewer(node, session->worker, session->slot, session->id, CLOSE_REPLACED);
}

static struct bytes key_of(const struct node *node, struct bytes user, struct bytes name,
                           char text[KEY_MAX])
{
    size_t len = (size_t)snprintf(text, KEY_MAX, "%s:session:", broker_prefix(node->broker));
    for (size_t i = 0; i < user.len; i++) {
        if (user.data[i] == ':' || user.data[i] == '%')
            len += (size_t)snprintf(text + len, KEY_MAX - len, "%%%02X", (unsigned)user.data[i]);
        else
            text[len++] = user.data[i];
    }
    len += (size_t)snprintf(text + len, KEY_MAX - len, ":%.*s", (int)name.len, name.data);
    return bytes_of(text, len);
}

static struct bytes value_of(const struct node *node, const struct session *session,
                             char text[VALUE_MAX])
{
    int len = snprintf(text, VALUE_MAX, "%s %s %" PRIu64, node->conf->server.node,
                       session->connection, session->came_ms);
    return bytes_of(text, (size_t)len);
}

/* Another holder's value, taken apart. Returns false for an answer that no node has written. */
static bool read_holder(const struct broker_value *value, struct holder *holder)
{
    char text[VALUE_MAX];
    unsigned long long ms = 0;
    if (value->text.len >= sizeof(text))
        return false;
    snprintf(text, sizeof(text), "%.*s", (int)value->text.len, value->text.data);
    if (sscanf(text, "%64s %31s %llu", holder->node, holder->connection, &ms) != 3 ||
        !name_is_room(bytes_str(holder->node)) || !name_is_room(bytes_str(holder->connection)))
        return false;
    holder->came_ms = ms;
    return true;
}

static void tell_replaced(struct node *node, const struct holder *holder, struct bytes user,
                          struct bytes name)
{
    struct buf text = {0};
    BUF_LIT(&text, "{\"op\":\"replace\",\"user\":");
    json_quote(&text, user);
    buf_printf(&text, ",\"session\":\"%.*s\",\"connection\":\"%s\"}", (int)name.len, name.data,
               holder->connection);
    if (!text.failed)
        dispatch_tell(node, bytes_str(holder->node), buf_view(&text));
    buf_fini(&text);
}

static struct claim *claim_create(struct node *node, const struct session *session)
{
    size_t len = (size_t)session->user_len + session->name_len;
    struct claim *claim = malloc(sizeof(*claim) + len);
    if (!claim)
        return NULL;
    claim->node = node;
    claim->late = false;
    claim->user_len = session->user_len;
    claim->name_len = session->name_len;
    memcpy(claim->connection, session->connection, sizeof(claim->connection));
    memcpy(claim->text, session->text, len);
    return claim;
}

/* The session that a claim was made for, when its viewer still has it. */
static struct session *claimed_session(const struct claim *claim)
{
    struct session *session =
        session_find(claim->node, bytes_of(claim->text, claim->user_len),
                     bytes_of(claim->text + claim->user_len, claim->name_len));
    return session && strcmp(session->connection, claim->connection) == 0 ? session : NULL;
}

static void plan(struct node *node, struct session *session)
{
    list_remove(&session->link);
    uint64_t now = uv_now(&node->loop);
    session->due_ms = now + (session->claimed ? node->conf->broker.session_ttl_ms / 3 : RETRY_MS);
    list_append(session->claimed ? &node->sessions_held : &node->sessions_unclaimed,
                &session->link);
}

/* Of two holders the older one goes. */
static bool is_newer(const struct holder *holder, const struct session *than)
{
    return holder->came_ms > than->came_ms ||
           (holder->came_ms == than->came_ms && strcmp(holder->connection, than->connection) > 0);
}

static void on_claimed(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct claim *claim = owner;
    struct node *node = claim->node;
    struct session *session = claimed_session(claim);
    struct holder holder;
    (void)token;
    bool elsewhere = result == BROKER_OK && value->kind == BROKER_TEXT &&
                     read_holder(value, &holder) &&
                     strcmp(holder.node, node->conf->server.node) != 0;
    if (session && elsewhere && claim->late && is_newer(&holder, session)) {
        close_holder(node, session); /* the next renewal of the other one puts its value back */
        session_remove(node, session);
        free(claim);
        return;
    }
    if (session && result == BROKER_OK) {
        session->claimed = true;
        plan(node, session);
    }
    /* Who had it must go, even when its successor has gone already. On this node the table has seen to that. */
    if (elsewhere)
        tell_replaced(node, &holder, bytes_of(claim->text, claim->user_len),
                      bytes_of(claim->text + claim->user_len, claim->name_len));
    free(claim);
}

/* Takes the session for its viewer. What fails is tried again from the tick. */
static void make_claim(struct node *node, struct session *session, bool late)
{
    char key[KEY_MAX];
    char value[VALUE_MAX];
    char ttl[16];
    session->claimed = false;
    plan(node, session);
    struct claim *claim = claim_create(node, session);
    if (!claim)
        return;
    claim->late = late;
    snprintf(ttl, sizeof(ttl), "%u", node->conf->broker.session_ttl_ms);
    const struct bytes args[] = {BYTES_LIT("SET"),
                                 key_of(node, user_of(session), name_of(session), key),
                                 value_of(node, session, value),
                                 BYTES_LIT("PX"),
                                 bytes_str(ttl),
                                 BYTES_LIT("GET")};
    if (broker_call(node->broker, args, 6, on_claimed, claim, 0) != 0)
        free(claim);
}

static void on_renewed(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct claim *claim = owner;
    struct node *node = claim->node;
    struct session *session = claimed_session(claim);
    struct holder holder;
    (void)token;
    free(claim);
    if (!session || result != BROKER_OK || value->text.len == 0)
        return;
    if (read_holder(value, &holder) && is_newer(&holder, session)) {
        close_holder(node, session); /* the order to do so was lost */
        session_remove(node, session);
    } else {
        make_claim(node, session, false);
    }
}

static void run_script(struct node *node, const struct broker_script *script,
                       const struct session *session, broker_reply on_reply, struct claim *claim)
{
    char key[KEY_MAX];
    char value[VALUE_MAX];
    char ttl[16];
    const struct bytes keys[] = {key_of(node, user_of(session), name_of(session), key)};
    snprintf(ttl, sizeof(ttl), "%u", node->conf->broker.session_ttl_ms);
    const struct bytes args[] = {value_of(node, session, value), bytes_str(ttl)};
    if (broker_eval(node->broker, script, keys, 1, args, 2, on_reply, claim, 0) != 0)
        free(claim);
}

static void on_released(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    (void)owner; /* what is not deleted expires */
    (void)token;
    (void)result;
    (void)value;
}

static struct user_count *count_find(const struct node *node, struct bytes user)
{
    uint32_t hash = map_hash(user.data, user.len);
    for (struct map_node *at = map_chain(&node->user_counts, hash); at; at = at->next) {
        struct user_count *count = CONTAINER_OF(at, struct user_count, node);
        if (at->hash == hash && bytes_equal(bytes_of(count->name, count->len), user))
            return count;
    }
    return NULL;
}

/* Returns how many connections the user has with this one; 0 where memory is out. */
static uint32_t count_in(struct node *node, struct bytes user)
{
    struct user_count *count = count_find(node, user);
    if (count)
        return ++count->count;
    count = calloc(1, sizeof(*count) + user.len);
    if (!count)
        return 0;
    count->count = 1;
    count->len = (uint8_t)user.len;
    memcpy(count->name, user.data, user.len);
    if (map_add(&node->user_counts, &count->node, map_hash(user.data, user.len)) == 0)
        return 1;
    free(count);
    return 0;
}

static void count_out(struct node *node, struct bytes user)
{
    struct user_count *count = count_find(node, user);
    if (!count || --count->count > 0)
        return;
    map_remove(&node->user_counts, &count->node);
    free(count);
}

void sessions_opened(struct node *node, const struct command *command)
{
    struct bytes user = command_user(command);
    struct bytes name = command_room(command);
    uint32_t most_allowed = node->conf->limits.user_connections;
    uint32_t count = count_in(node, user);
    struct session *session = name.len > 0 ? session_find(node, user, name) : NULL;
    /* Who takes its own session over is about to be one connection less. */
    if (most_allowed > 0 && count > most_allowed && !session) {
        close_viewer(node, command->worker, command->slot, command->id, CLOSE_USER_CONNECTIONS);
        return;
    }
    if (name.len == 0)
        return;
    if (session)
        close_holder(node, session);
    else
        session = session_add(node, user, name);
    if (!session) {
        log_limited(LOG_LEVEL_ERROR, "out of memory: a session is not kept apart",
                    LOG_BYTES("user", user));
        return;
    }
    session->worker = command->worker;
    session->slot = command->slot;
    session->id = command->id;
    session->came_ms = clock_unix_ms();
    snprintf(session->connection, sizeof(session->connection), "%.*s",
             (int)command_payload(command).len, command_payload(command).data);
    if (broker_has_commands(node->broker))
        make_claim(node, session, false);
}

void sessions_closed(struct node *node, const struct command *command)
{
    struct bytes user = command_user(command);
    struct bytes name = command_room(command);
    count_out(node, user);
    struct session *session = name.len > 0 ? session_find(node, user, name) : NULL;
    if (!session || session->worker != command->worker || session->slot != command->slot ||
        session->id != command->id)
        return; /* a newer one has it */
    if (broker_has_commands(node->broker))
        run_script(node, &script_session_release, session, on_released, NULL);
    session_remove(node, session);
}

void sessions_replaced(struct node *node, struct bytes user, struct bytes name,
                       struct bytes connection)
{
    struct session *session = session_find(node, user, name);
    if (!session || !bytes_is(connection, session->connection))
        return; /* it has gone, or a newer one is here */
    close_holder(node, session);
    session_remove(node, session);
}

void sessions_tick(struct node *node)
{
    uint64_t now = uv_now(&node->loop);
    struct link *const lists[] = {&node->sessions_unclaimed, &node->sessions_held};
    int left = node->broker_ready ? RENEWED_ONCE : 0;
    for (int i = 0; i < 2; i++) {
        while (left > 0 && !list_empty(lists[i])) {
            struct session *session = CONTAINER_OF(lists[i]->next, struct session, link);
            if (session->due_ms > now)
                break;
            left--;
            if (!session->claimed) {
                make_claim(node, session, true);
                continue;
            }
            plan(node, session);
            struct claim *claim = claim_create(node, session);
            if (claim)
                run_script(node, &script_session_renew, session, on_renewed, claim);
        }
    }
}

static void free_session(void *ctx, struct map_node *at)
{
    struct link *gone = ctx;
    struct session *session = CONTAINER_OF(at, struct session, node);
    list_remove(&session->link);
    list_append(gone, &session->link);
}

void sessions_free(struct node *node)
{
    struct link gone;
    struct link *at;
    list_init(&gone);
    map_each(&node->sessions, free_session, &gone);
    while ((at = list_shift(&gone)))
        free(CONTAINER_OF(at, struct session, link));
    map_fini(&node->sessions);
    for (uint32_t i = 0; node->user_counts.buckets && i <= node->user_counts.mask; i++) {
        struct map_node *chain = node->user_counts.buckets[i];
        while (chain) {
            struct map_node *next = chain->next;
            free(CONTAINER_OF(chain, struct user_count, node));
            chain = next;
        }
    }
    map_fini(&node->user_counts);
}
