#include "node/internal.h"

#include "base/log.h"
#include "node/presence.h"

#include <stdlib.h>

static void answer_json(struct admin_request *request, int status, struct buf *body)
{
    if (body->failed)
        admin_answer_error(request, 503, "unavailable", "the node is out of memory", 1);
    else
        admin_answer(request, status, "application/json", buf_view(body), 0);
    buf_fini(body);
}

/* 202, with what the publisher should know of its message. */
static void answer_accepted(struct admin_request *request, struct bytes id,
                            const struct frame_size *size)
{
    struct buf body = {0};
    buf_printf(&body, id.len > 0 ? "{\"id\":\"%.*s\"" : "{\"id\":null", (int)id.len, id.data);
    BUF_LIT(&body, ",\"warnings\":[");
    frames_warn(size, &body);
    BUF_LIT(&body, "]}");
    answer_json(request, 202, &body);
}

void api_published(struct admin_request *request, int result, struct bytes id,
                   const struct frame_size *size)
{
    if (result == BROKER_OK)
        answer_accepted(request, id, size);
    else if (result == PUBLISH_ERR_DUPLICATE)
        admin_answer_error(request, 409, "duplicate",
                           "this key was published before with other content", 0);
    else if (result == BROKER_ERR_FULL)
        admin_answer_error(request, 503, "unavailable",
                           "too many publishes wait for the broker (broker.pending)", 1);
    else if (result == BROKER_ERR_REFUSED)
        admin_answer_error(request, 503, "unavailable",
                           "Redis refused the publish; its answer is in the log", 5);
    else
        admin_answer_error(request, 503, "unavailable",
                           "the message broker is away; the message may not have been published",
                           1);
}

/* What is wrong with a body that is to be published; true when the request was answered. */
static bool refuse_body(struct node *node, struct admin_request *request, struct bytes body,
                        struct message_scratch *scratch, struct message_parts *parts)
{
    int depth = (int)node->conf->limits.json_depth;
    int error = envelope_parse(body, depth, scratch, parts);
    if (error == ENVELOPE_ERR_JSON) {
        admin_answer_error(request, 400, "bad-message", envelope_error(error), 0);
        return true;
    }
    if (error != ENVELOPE_OK) {
        admin_answer_error(request, 400, "bad-name", envelope_error(error), 0);
        return true;
    }
    uint16_t type = conf_type_find(node->conf, parts->type);
    if (type == 0) {
        admin_answer_error(request, 422, "unknown-type",
                           "the type is not in the conf: add a `type` section for it", 0);
        return true;
    }
    if (parts->data.len > node->conf->types[type].max_bytes) {
        admin_answer_error(request, 413, "too-large", "data is longer than the type's max_bytes",
                           0);
        return true;
    }
    return false;
}

/* The optional member key; true when it was refused and the request answered. */
static bool refuse_key(struct node *node, struct admin_request *request, struct bytes body,
                       bool numbered, char *scratch, struct bytes *key)
{
    struct json_field field = {.name = "key"};
    if (json_object(body, (int)node->conf->limits.json_depth, &field, 1) != JSON_OK ||
        field.value.kind == JSON_ABSENT || field.value.kind == JSON_NULL)
        return false;
    if (!numbered) {
        admin_answer_error(request, 400, "bad-message",
                           "key works only for types with history, in rooms", 0);
        return true;
    }
    if (json_text(field.value, scratch, ROOM_NAME_MAX, key) && name_is_room(*key))
        return false;
    admin_answer_error(request, 400, "bad-message",
                       "key must be a string of 1 to 64 of A-Z a-z 0-9 _ . : -, or be left out", 0);
    return true;
}

static void publish(void *ctx, struct admin_request *request, struct bytes room, struct bytes body)
{
    struct node *node = ctx;
    struct message_scratch scratch;
    struct message_parts parts;
    char key_text[ROOM_NAME_MAX];
    struct bytes key = {0};
    if (refuse_body(node, request, body, &scratch, &parts))
        return;
    const struct conf_type *type = &node->conf->types[conf_type_find(node->conf, parts.type)];
    bool history = type->history && room.len > 0;
    if (refuse_key(node, request, body, history, key_text, &key))
        return;
    parts.id = (struct bytes){0}; /* ids are given, not taken */
    struct buf payload = {0};
    envelope_append(&payload, &parts);
    struct numbered numbered = {room, type->lane, buf_view(&payload), key};
    int error = payload.failed ? BROKER_ERR_FULL
                : history
                    ? history_publish_http(node, request, &numbered)
                    : dispatch_publish_http(node, request, room, type->lane, buf_view(&payload));
    buf_fini(&payload);
    if (error)
        api_published(request, error, (struct bytes){0}, &(struct frame_size){0});
}

static void publish_user(void *ctx, struct admin_request *request, struct bytes user,
                         struct bytes body)
{
    struct node *node = ctx;
    struct message_scratch scratch;
    struct message_parts parts;
    struct bytes key = {0};
    if (refuse_body(node, request, body, &scratch, &parts) ||
        refuse_key(node, request, body, false, NULL, &key))
        return;
    parts.id = (struct bytes){0};
    struct buf payload = {0};
    BUF_LIT(&payload, "{\"user\":");
    json_quote(&payload, user);
    BUF_LIT(&payload, ",");
    struct buf envelope = {0};
    envelope_append(&envelope, &parts);
    if (envelope.len > 0)
        buf_append(&payload, envelope.data + 1, envelope.len - 1);
    int error = payload.failed || envelope.failed
                    ? BROKER_ERR_FULL
                    : dispatch_publish_user(node, request, user, buf_view(&payload));
    buf_fini(&envelope);
    buf_fini(&payload);
    if (error)
        api_published(request, error, (struct bytes){0}, &(struct frame_size){0});
}

/* How GET /v1/rooms is to be answered; kept with its query. */
struct rooms_wish {
    struct admin_request *request;
    uint32_t limit;
    enum rooms_sort sort;
    char after[ROOM_NAME_MAX + 1];
};

bool api_ask_workers(struct node *node, enum query_kind kind, struct bytes name, void *request)
{
    struct worker_query *query =
        calloc(1, sizeof(*query) + node->worker_count * sizeof(struct query_answer));
    struct command *commands[WORKERS_MAX] = {NULL};
    const uint32_t count = node->worker_count;
    bool memory = query;
    for (uint32_t i = 0; memory && i < count; i++) {
        commands[i] = command_create(COMMAND_QUERY, (struct bytes){0}, (struct bytes){0});
        memory = commands[i];
    }
    if (!memory) {
        for (uint32_t i = 0; i < count; i++)
            free(commands[i]);
        free(query);
        return false;
    }
    query->kind = kind;
    query->request = request;
    query->workers = query->unanswered = count;
    memcpy(query->name, name.data ? name.data : "", name.len);
    query->name_len = name.len;
    list_append(&node->queries, &query->link);
    for (uint32_t i = 0; i < count; i++) {
        commands[i]->object = query;
        worker_post(node->workers[i], commands[i]);
    }
    return true;
}

static void ask_or_refuse(struct node *node, enum query_kind kind, struct bytes name,
                          struct admin_request *request)
{
    if (!api_ask_workers(node, kind, name, request))
        admin_answer_error(request, 503, "unavailable", "the node is out of memory", 1);
}

static void rooms(void *ctx, struct admin_request *request, uint32_t limit, struct bytes after,
                  enum rooms_sort sort)
{
    struct rooms_wish *wish = calloc(1, sizeof(*wish));
    if (wish) {
        *wish = (struct rooms_wish){.request = request, .limit = limit, .sort = sort};
        memcpy(wish->after, after.data ? after.data : "",
               after.len < ROOM_NAME_MAX ? after.len : ROOM_NAME_MAX);
    }
    if (wish && api_ask_workers(ctx, QUERY_ROOMS, (struct bytes){0}, wish))
        return;
    free(wish);
    admin_answer_error(request, 503, "unavailable", "the node is out of memory", 1);
}

static void room(void *ctx, struct admin_request *request, struct bytes name)
{
    ask_or_refuse(ctx, QUERY_ROOM, name, request);
}

static void connections(void *ctx, struct admin_request *request, struct bytes user)
{
    users_ask(ctx, QUERY_CONNECTIONS, user, request);
}

static void kick(void *ctx, struct admin_request *request, struct bytes user)
{
    users_ask(ctx, QUERY_KICK, user, request);
}

static void config(void *ctx, struct admin_request *request)
{
    struct node *node = ctx;
    struct buf body = {0};
    conf_print_json(node->conf, &body);
    answer_json(request, 200, &body);
}

static void health(void *ctx, struct admin_request *request, bool ready)
{
    struct node *node = ctx;
    if (node->phase != PHASE_RUNNING)
        admin_answer_error(request, 503, "draining", "this node stops", 5);
    else if (ready && !node->broker_ready)
        admin_answer_error(request, 503, "unavailable", "the message broker is away", 1);
    else
        admin_answer(request, 200, "application/json", BYTES_LIT("{\"status\":\"ok\"}"), 0);
}

static void drain(void *ctx, struct admin_request *request, struct bytes body)
{
    drain_request(ctx, request, body);
}

static void metrics(void *ctx, struct admin_request *request)
{
    struct node *node = ctx;
    struct worker_metrics *blocks[WORKERS_MAX];
    for (uint32_t i = 0; i < node->worker_count; i++)
        blocks[i] = worker_metrics(node->workers[i]);
    node_update_broker_metrics(node);
    metric_set(&node->metrics.admin_refused, admin_refused(node->admin));
    struct buf body = {0};
    metrics_print(&body, &node->metrics, blocks, node->worker_count);
    if (body.failed)
        admin_answer_error(request, 503, "unavailable", "the node is out of memory", 1);
    else
        admin_answer(request, 200, "text/plain; version=0.0.4", buf_view(&body), 0);
    buf_fini(&body);
}

const struct admin_ops node_admin_ops = {.publish = publish,
                                         .publish_user = publish_user,
                                         .rooms = rooms,
                                         .room = room,
                                         .connections = connections,
                                         .kick = kick,
                                         .config = config,
                                         .health = health,
                                         .drain = drain,
                                         .metrics = metrics};

/* One worker's view of one room; rooms of several workers are added up by name. */
struct room_row {
    struct bytes name;
    uint64_t viewers;
};

static int by_name(const void *a, const void *b)
{
    const struct room_row *left = a;
    const struct room_row *right = b;
    size_t shorter = left->name.len < right->name.len ? left->name.len : right->name.len;
    int order = memcmp(left->name.data, right->name.data, shorter);
    return order ? order : (left->name.len > right->name.len) - (left->name.len < right->name.len);
}

static int by_viewers(const void *a, const void *b)
{
    const struct room_row *left = a;
    const struct room_row *right = b;
    if (left->viewers != right->viewers)
        return left->viewers < right->viewers ? 1 : -1;
    return by_name(a, b);
}

static size_t read_rows(const struct worker_query *query, struct room_row *rows)
{
    size_t count = 0;
    for (uint32_t i = 0; i < query->workers; i++) {
        const struct buf *text = &query->answers[i].text;
        for (size_t at = 0; at < text->len;) {
            uint32_t viewers;
            memcpy(&viewers, text->data + at, sizeof(viewers));
            size_t len = (unsigned char)text->data[at + sizeof(viewers)];
            at += sizeof(viewers) + 1;
            rows[count++] = (struct room_row){bytes_of(text->data + at, len), viewers};
            at += len;
        }
    }
    return count;
}

static size_t add_up(struct room_row *rows, size_t count)
{
    size_t out = 0;
    qsort(rows, count, sizeof(*rows), by_name);
    for (size_t i = 0; i < count; i++) {
        if (out > 0 && bytes_equal(rows[out - 1].name, rows[i].name))
            rows[out - 1].viewers += rows[i].viewers;
        else
            rows[out++] = rows[i];
    }
    return out;
}

static void answer_rooms(const struct worker_query *query)
{
    const struct rooms_wish *wish = query->request;
    size_t count = 0;
    for (uint32_t i = 0; i < query->workers; i++)
        count += query->answers[i].count;
    struct room_row *rows = calloc(count + 1, sizeof(*rows));
    if (!rows) {
        admin_answer_error(wish->request, 503, "unavailable", "the node is out of memory", 1);
        return;
    }
    count = add_up(rows, read_rows(query, rows));
    if (wish->sort == ROOMS_BY_VIEWERS)
        qsort(rows, count, sizeof(*rows), by_viewers);
    struct room_row after = {.name = bytes_str(wish->after)};
    struct buf body = {0};
    buf_printf(&body, "{\"total\":%zu,\"rooms\":[", count);
    uint32_t shown = 0;
    for (size_t i = 0; i < count && shown < wish->limit; i++) {
        if (after.name.len > 0 && by_name(&rows[i], &after) <= 0)
            continue;
        buf_text(&body, shown++ ? ",{\"room\":\"" : "{\"room\":\"");
        buf_bytes(&body, rows[i].name);
        buf_printf(&body, "\",\"viewers\":%llu}", (unsigned long long)rows[i].viewers);
    }
    BUF_LIT(&body, "]}");
    free(rows);
    answer_json(wish->request, 200, &body);
}

static void answer_room(const struct node *node, const struct worker_query *query)
{
    uint64_t viewers = 0;
    uint64_t log_bytes = 0;
    struct buf body = {0};
    struct buf workers = {0};
    for (uint32_t i = 0; i < query->workers; i++) {
        viewers += query->answers[i].count;
        log_bytes += query->answers[i].log_bytes;
        buf_printf(&workers, "%s%llu", i ? "," : "", (unsigned long long)query->answers[i].count);
    }
    buf_printf(&body,
               "{\"room\":\"%s\",\"viewers\":%llu,\"viewers_by_worker\":[%.*s],\"log_bytes\":%llu",
               query->name, (unsigned long long)viewers, (int)workers.len,
               workers.data ? workers.data : "", (unsigned long long)log_bytes);
    const struct held *held = dispatch_find(node, bytes_of(query->name, query->name_len));
    if (held && presence_online(held) != UINT32_MAX)
        buf_printf(&body, ",\"online\":%u", presence_online(held));
    BUF_LIT(&body, "}");
    body.failed |= workers.failed;
    buf_fini(&workers);
    answer_json(query->request, 200, &body);
}

static void query_free(struct worker_query *query)
{
    list_remove(&query->link);
    for (uint32_t i = 0; i < query->workers; i++)
        buf_fini(&query->answers[i].text);
    if (query->kind == QUERY_ROOMS)
        free(query->request);
    free(query);
}

void api_query_done(struct node *node, struct worker_query *query)
{
    if (--query->unanswered > 0)
        return;
    if (query->kind == QUERY_ROOMS)
        answer_rooms(query);
    else if (query->kind == QUERY_ROOM)
        answer_room(node, query);
    else
        users_answered(node, query);
    query_free(query);
}

void api_abandon(struct node *node)
{
    while (!list_empty(&node->queries)) {
        struct worker_query *query = CONTAINER_OF(node->queries.next, struct worker_query, link);
        if (query->kind == QUERY_ROOMS)
            admin_answer_error(((struct rooms_wish *)query->request)->request, 503, "draining",
                               "this node stops", 5);
        else if (query->kind == QUERY_ROOM)
            admin_answer_error(query->request, 503, "draining", "this node stops", 5);
        else
            users_abandoned(query);
        query_free(query);
    }
    users_abandon(node);
}
