/* users.c: messages, orders and questions about one user, who may have connections on every node.
 *
 * On <prefix>:users comes, for every node,
 *     {"user":"alice","type":…,"data":…}                           a message
 *     {"op":"kick","user":"alice"}                                 an order, perhaps with node and query to answer to
 *     {"op":"connections","user":"alice","node":"n1","query":"…"}  a question of node n1
 * and on <prefix>:node:<node> for that node alone
 *     {"op":"answer","query":"…","count":2,"connections":[…]}      what another node knows
 *     {"op":"replace","user":…,"session":…,"connection":…}         a newer connection of the session is elsewhere
 *
 * Redis tells how many nodes listen, so a question is complete as soon as that many have answered; a second is the
 * limit for those that don't.
 */
#include "base/log.h"
#include "base/minmax.h"
#include "node/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GATHER_MS = 1000,
    QUESTION_ID_MAX = 16,
    ANSWER_DEPTH = 8 /* of describe() in worker/query.c */
};

struct question {
    struct link link; /* on node->questions, when it is ours */
    uint64_t id;
    uint64_t due_ms;
    enum query_kind kind;
    struct admin_request *request; /* NULL: another node's */
    char asker[ROOM_NAME_MAX + 1]; /* of another node's; empty: nobody waits for an answer */
    char asker_id[QUESTION_ID_MAX + 1];
    bool here;         /* our own workers have answered */
    bool cut_off;      /* the other nodes could not be asked */
    bool told;         /* Redis has said how many nodes were asked */
    uint32_t expected; /* of them, without ourselves */
    uint32_t answered;
    uint64_t count;
    struct buf connections; /* JSON objects, comma-separated */
    char user[USER_NAME_MAX + 1];
};

static void question_destroy(struct question *question)
{
    list_remove(&question->link);
    buf_fini(&question->connections);
    free(question);
}

static struct question *question_create(enum query_kind kind, struct bytes user)
{
    struct question *question = calloc(1, sizeof(*question));
    if (!question)
        return NULL;
    list_init(&question->link);
    question->kind = kind;
    memcpy(question->user, user.data, user.len);
    return question;
}

static struct question *question_find(struct node *node, uint64_t id)
{
    for (struct link *at = node->questions.next; at != &node->questions; at = at->next) {
        struct question *question = CONTAINER_OF(at, struct question, link);
        if (question->id == id)
            return question;
    }
    return NULL;
}

static bool is_complete(const struct question *question)
{
    return question->told && !question->cut_off && question->answered >= question->expected;
}

static void answer(struct question *question)
{
    struct buf body = {0};
    BUF_LIT(&body, "{\"user\":");
    json_quote(&body, bytes_str(question->user));
    buf_printf(&body, ",\"%s\":%" PRIu64 ",\"nodes\":%u,\"complete\":%s",
               question->kind == QUERY_KICK ? "kicked" : "count", question->count,
               question->answered + 1, is_complete(question) ? "true" : "false");
    if (question->kind != QUERY_KICK) {
        BUF_LIT(&body, ",\"connections\":[");
        buf_bytes(&body, buf_view(&question->connections));
        BUF_LIT(&body, "]");
    }
    BUF_LIT(&body, "}");
    if (body.failed || question->connections.failed)
        admin_answer_error(question->request, 503, "unavailable", "the node is out of memory", 1);
    else
        admin_answer(question->request, 200, "application/json", buf_view(&body), 0);
    buf_fini(&body);
}

static void on_gather_over(uv_timer_t *timer);

/* The timer waits for the first question whose time is not over yet. */
static void set_timer(struct node *node)
{
    uint64_t now = uv_now(&node->loop);
    uv_timer_stop(&node->gather);
    for (struct link *at = node->questions.next; at != &node->questions; at = at->next) {
        const struct question *question = CONTAINER_OF(at, struct question, link);
        if (question->due_ms <= now)
            continue;
        uv_timer_start(&node->gather, on_gather_over, question->due_ms - now, 0);
        return;
    }
}

/* Answers a question of ours when there is nothing more to wait for. */
static void check(struct node *node, struct question *question)
{
    bool over = uv_now(&node->loop) >= question->due_ms;
    if (!question->here || (!over && !question->cut_off && !is_complete(question)))
        return;
    answer(question);
    question_destroy(question);
    set_timer(node);
}

static void on_gather_over(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct link *next;
    for (struct link *at = node->questions.next; at != &node->questions; at = next) {
        next = at->next;
        check(node, CONTAINER_OF(at, struct question, link));
    }
    set_timer(node);
}

/* Redis has passed the question on to so many subscribers, ourselves among them while our subscription stands. */
static void on_asked(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct node *node = owner;
    struct question *question = question_find(node, token);
    if (!question)
        return;
    question->told = true;
    question->cut_off = result != BROKER_OK || value->kind != BROKER_INTEGER;
    if (!question->cut_off && value->integer > 0)
        question->expected = (uint32_t)value->integer - (node->broker_ready ? 1 : 0);
    check(node, question);
}

static void ask_others(struct node *node, struct question *question)
{
    char channel[CONF_ADDRESS_MAX + 16];
    struct buf text = {0};
    snprintf(channel, sizeof(channel), "%s:users", broker_prefix(node->broker));
    buf_printf(&text,
               "{\"op\":\"%s\",\"user\":", question->kind == QUERY_KICK ? "kick" : "connections");
    json_quote(&text, bytes_str(question->user));
    buf_printf(&text, ",\"node\":\"%s\",\"query\":\"%" PRIx64 "\"}", node->conf->server.node,
               question->id);
    const struct bytes args[] = {BYTES_LIT("PUBLISH"), bytes_str(channel), buf_view(&text)};
    int error = text.failed ? BROKER_ERR_FULL
                            : broker_call(node->broker, args, 3, on_asked, node, question->id);
    buf_fini(&text);
    if (error) {
        question->told = true;
        question->cut_off = true;
    }
}

void users_ask(struct node *node, enum query_kind kind, struct bytes user,
               struct admin_request *request)
{
    struct question *question = question_create(kind, user);
    if (!question || !api_ask_workers(node, kind, user, question)) {
        free(question);
        admin_answer_error(request, 503, "unavailable", "the node is out of memory", 1);
        return;
    }
    question->request = request;
    question->id = ++node->question_id;
    question->due_ms = uv_now(&node->loop) + GATHER_MS;
    list_append(&node->questions, &question->link);
    if (broker_has_commands(node->broker))
        ask_others(node, question);
    else
        question->told = true; /* there are no others */
    set_timer(node);
}

/* Another node's question is answered on its own channel. */
static void send_answer(struct node *node, const struct question *question)
{
    struct buf text = {0};
    if (question->asker[0] == '\0')
        return;
    buf_printf(&text,
               "{\"op\":\"answer\",\"query\":\"%s\",\"node\":\"%s\",\"count\":%" PRIu64
               ",\"connections\":[",
               question->asker_id, node->conf->server.node, question->count);
    buf_bytes(&text, buf_view(&question->connections));
    BUF_LIT(&text, "]}");
    if (!text.failed && !question->connections.failed)
        dispatch_tell(node, bytes_str(question->asker), buf_view(&text));
    buf_fini(&text);
}

void users_answered(struct node *node, struct worker_query *query)
{
    struct question *question = query->request;
    for (uint32_t i = 0; i < query->workers; i++) {
        const struct query_answer *part = &query->answers[i];
        question->count += part->count;
        if (part->text.len > 0 && question->connections.len > 0)
            BUF_LIT(&question->connections, ",");
        buf_bytes(&question->connections, buf_view(&part->text));
        question->connections.failed |= part->text.failed;
    }
    if (question->kind == QUERY_KICK && question->count > 0)
        log_info("user kicked", LOG_STR("user", question->user),
                 LOG_UINT("connections", question->count));
    question->here = true;
    if (question->request) {
        check(node, question);
        return;
    }
    send_answer(node, question);
    question_destroy(question);
}

void users_abandoned(struct worker_query *query)
{
    struct question *question = query->request;
    if (!question->request)
        question_destroy(question);
}

void users_abandon(struct node *node)
{
    struct link *at;
    while ((at = list_shift(&node->questions))) {
        struct question *question = CONTAINER_OF(at, struct question, link);
        admin_answer_error(question->request, 503, "draining", "this node stops", 5);
        question_destroy(question);
    }
}

/* What stands in a payload of either channel. */
struct order {
    struct bytes op;
    struct bytes user;
    struct bytes node;
    struct bytes query;
    struct bytes session;
    struct bytes connection;
    struct json_span count;
    struct json_span connections;
    char op_text[16];
    char user_text[USER_NAME_MAX];
    char node_text[ROOM_NAME_MAX];
    char query_text[QUESTION_ID_MAX];
    char session_text[ROOM_NAME_MAX];
    char connection_text[ROOM_NAME_MAX];
};

static bool take_text(struct json_span value, char *scratch, size_t cap, struct bytes *out)
{
    *out = (struct bytes){0};
    return value.kind == JSON_ABSENT || value.kind == JSON_NULL ||
           (json_text(value, scratch, cap, out) && out->len <= cap);
}

static bool order_parse(struct node *node, struct bytes payload, struct order *order)
{
    enum { OP, USER, NODE, QUERY, SESSION, CONNECTION, COUNT_FIELD, CONNECTIONS, FIELDS };
    struct json_field fields[FIELDS] = {[OP] = {.name = "op"},
                                        [USER] = {.name = "user"},
                                        [NODE] = {.name = "node"},
                                        [QUERY] = {.name = "query"},
                                        [SESSION] = {.name = "session"},
                                        [CONNECTION] = {.name = "connection"},
                                        [COUNT_FIELD] = {.name = "count"},
                                        [CONNECTIONS] = {.name = "connections"}};
    if (json_object(payload, (int)most(node->conf->limits.json_depth, ANSWER_DEPTH), fields,
                    FIELDS) != JSON_OK)
        return false;
    order->count = fields[COUNT_FIELD].value;
    order->connections = fields[CONNECTIONS].value;
    return take_text(fields[OP].value, order->op_text, sizeof(order->op_text), &order->op) &&
           take_text(fields[USER].value, order->user_text, sizeof(order->user_text),
                     &order->user) &&
           take_text(fields[NODE].value, order->node_text, sizeof(order->node_text),
                     &order->node) &&
           take_text(fields[QUERY].value, order->query_text, sizeof(order->query_text),
                     &order->query) &&
           take_text(fields[SESSION].value, order->session_text, sizeof(order->session_text),
                     &order->session) &&
           take_text(fields[CONNECTION].value, order->connection_text,
                     sizeof(order->connection_text), &order->connection);
}

/* A question or a kick by somebody else: the workers are asked, users_answered() goes on. */
static void carry_out(struct node *node, enum query_kind kind, const struct order *order)
{
    if (bytes_is(order->node, node->conf->server.node))
        return; /* our own, which our workers were asked already */
    struct question *question = question_create(kind, order->user);
    if (!question || !api_ask_workers(node, kind, order->user, question)) {
        log_limited(LOG_LEVEL_ERROR, "out of memory: an order about a user is not carried out",
                    LOG_BYTES("user", order->user));
        free(question);
        return;
    }
    if (order->node.len > 0 && order->query.len > 0) {
        memcpy(question->asker, order->node.data, order->node.len);
        memcpy(question->asker_id, order->query.data, order->query.len);
    }
}

void users_on_message(struct node *node, struct bytes payload)
{
    const struct bytes shown = BYTES_LIT("(users)");
    struct order order = {0};
    if (!order_parse(node, payload, &order)) {
        dispatch_bad(node, "not one JSON object, or a member of the wrong kind", shown, payload);
    } else if (!name_is_user(order.user) || (order.node.len > 0 && !name_is_room(order.node)) ||
               (order.query.len > 0 && !name_is_room(order.query))) {
        dispatch_bad(node, "user is missing or no user name, or node or query is no name", shown,
                     payload);
    } else if (order.op.len == 0) {
        struct message *message = dispatch_judge(node, MESSAGE_USER, order.user, payload);
        if (!message)
            return;
        metric_add(&node->metrics.user_messages, 1);
        dispatch_to_all(node, message);
        message_unref(message);
    } else if (bytes_is(order.op, "kick")) {
        metric_add(&node->metrics.orders_kick, 1);
        carry_out(node, QUERY_KICK, &order);
    } else if (bytes_is(order.op, "connections")) {
        metric_add(&node->metrics.orders_connections, 1);
        carry_out(node, QUERY_CONNECTIONS, &order);
    } else {
        dispatch_bad(node, "op must be kick or connections, or left out for a message", shown,
                     payload);
    }
}

static void take_answer(struct node *node, const struct order *order)
{
    char text[QUESTION_ID_MAX + 1];
    uint64_t count = 0;
    snprintf(text, sizeof(text), "%.*s", (int)order->query.len, order->query.data);
    struct question *question = question_find(node, strtoull(text, NULL, 16));
    if (!question || !json_uint53(order->count, &count))
        return; /* it came too late */
    question->answered++;
    question->count += count;
    struct bytes list = order->connections.raw;
    if (order->connections.kind == JSON_ARRAY && list.len > 2) {
        if (question->connections.len > 0)
            BUF_LIT(&question->connections, ",");
        buf_append(&question->connections, list.data + 1, list.len - 2);
    }
    check(node, question);
}

void users_on_order(struct node *node, struct bytes payload)
{
    const struct bytes shown = BYTES_LIT("(node)");
    struct order order = {0};
    if (!order_parse(node, payload, &order)) {
        dispatch_bad(node, "not one JSON object, or a member of the wrong kind", shown, payload);
    } else if (bytes_is(order.op, "answer") && name_is_room(order.query)) {
        metric_add(&node->metrics.orders_answer, 1);
        take_answer(node, &order);
    } else if (bytes_is(order.op, "replace") && name_is_user(order.user) &&
               name_is_room(order.session)) {
        metric_add(&node->metrics.orders_replace, 1);
        sessions_replaced(node, order.user, order.session, order.connection);
    } else {
        dispatch_bad(node, "op must be answer or replace, with what belongs to it", shown, payload);
    }
}
