/* tickets.c: what workers ask about tickets, on the main thread: the claims of an opaque one, and whether one that is for single use
 * may be used by this session or address. In Redis where there is one, so that all nodes know; else in a table of this node.
 *
 * A ticket itself stands in Redis only where the backend put it; a used one is marked under its SHA-256. A mark says when it
 * was used first and whom it belongs to since, and lives as long as the ticket. */
#include "node/internal.h"

#include "auth/digest.h"
#include "auth/result.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXPIRE_SLICE = 1000, KEEP_LEAST_MS = 60000 };

/* A question to Redis on its way; its address is the token. */
struct question {
    uint32_t worker;
    uint32_t slot;
    uint64_t id;
    uint64_t number;
    size_t binder_len;
    char binder[]; /* BIND: whom the ticket is to belong to */
};

struct mark {
    struct map_node node;
    struct link link;
    char digest[AUTH_DIGEST_LEN];
    uint64_t first_ms;
    uint64_t until_ms;
    size_t binder_len;
    char binder[];
};

static void answer(struct node *node, const struct question *question, enum auth_result result,
                   struct bytes claims)
{
    if (node->phase == PHASE_ENDING)
        return;
    struct command *command = command_create(COMMAND_TICKET_ANSWER, (struct bytes){0}, claims);
    if (!command)
        return; /* the worker's time limit answers */
    command->slot = question->slot;
    command->id = question->id;
    command->ref.value = question->number;
    command->result = (int)result;
    worker_post(node->workers[question->worker], command);
}

static struct question *question_create(const struct command *command, struct bytes binder)
{
    struct question *question = malloc(sizeof(*question) + binder.len);
    if (!question)
        return NULL;
    *question = (struct question){.worker = command->worker,
                                  .slot = command->slot,
                                  .id = command->id,
                                  .number = command->ref.value,
                                  .binder_len = binder.len};
    if (binder.len > 0)
        memcpy(question->binder, binder.data, binder.len);
    return question;
}

static void on_found(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct question *question = (struct question *)(uintptr_t)token;
    if (result == BROKER_OK && value->kind == BROKER_TEXT)
        answer(owner, question, AUTH_OK, value->text);
    else
        answer(owner, question,
               result == BROKER_OK && value->kind == BROKER_NIL ? AUTH_UNKNOWN : AUTH_AWAY,
               (struct bytes){0});
    free(question);
}

/* Appends the name of a ticket's key, or of a used one's mark. */
static void key_of(const struct node *node, const char *kind, struct bytes name, struct buf *out)
{
    buf_printf(out, "%s:ticket:%s", broker_prefix(node->broker), kind);
    buf_bytes(out, name);
}

void tickets_find(struct node *node, const struct command *command)
{
    struct question *question = question_create(command, (struct bytes){0});
    struct buf key = {0};
    key_of(node, "", command_payload(command), &key);
    struct bytes args[] = {BYTES_LIT("GET"), buf_view(&key)};
    int error = BROKER_ERR_FULL;
    if (question && !key.failed)
        error = broker_call(node->broker, args, 2, on_found, node, (uint64_t)(uintptr_t)question);
    buf_fini(&key);
    if (error == 0)
        return;
    if (question)
        answer(node, question, error == BROKER_ERR_FULL ? AUTH_FULL : AUTH_AWAY, (struct bytes){0});
    free(question);
}

/* May whoever asks use a ticket that was used first then, and by whom? */
static enum auth_result judge(const struct node *node, uint64_t first_ms, struct bytes owner,
                              struct bytes binder)
{
    uint64_t now = clock_unix_ms();
    bool in_time = now <= first_ms || now - first_ms <= node->conf->auth.reuse_window_ms;
    return in_time && bytes_equal(owner, binder) ? AUTH_OK : AUTH_USED;
}

/* `<first use, Unix ms> <owner>` */
static enum auth_result judge_text(const struct node *node, struct bytes text, struct bytes binder)
{
    uint64_t first_ms = 0;
    size_t at = 0;
    while (at < text.len && at < 15 && text.data[at] >= '0' && text.data[at] <= '9')
        first_ms = first_ms * 10 + (uint64_t)(text.data[at++] - '0');
    if (at == 0 || at == text.len || text.data[at] != ' ')
        return AUTH_USED; /* none of ours: nobody gets in with it */
    return judge(node, first_ms, bytes_of(text.data + at + 1, text.len - at - 1), binder);
}

static void on_marked(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    (void)owner;
    (void)token;
    (void)result;
    (void)value; /* what counts is what stands there afterwards: on_mark() */
}

static void on_mark(void *owner, uint64_t token, int result, const struct broker_value *value)
{
    struct question *question = (struct question *)(uintptr_t)token;
    struct bytes binder = bytes_of(question->binder, question->binder_len);
    enum auth_result verdict = AUTH_AWAY; /* no mark either: it could not be set */
    if (result == BROKER_OK && value->kind == BROKER_TEXT)
        verdict = judge_text(owner, value->text, binder);
    answer(owner, question, verdict, (struct bytes){0});
    free(question);
}

/* How long a mark is kept: as long as the ticket may be used, clocks that differ included. */
static uint64_t keep_ms(const struct node *node, uint64_t until_s)
{
    uint64_t now = clock_unix_ms();
    uint64_t until = until_s * 1000 + 2 * (uint64_t)node->conf->auth.leeway_ms;
    return until > now + KEEP_LEAST_MS ? until - now : KEEP_LEAST_MS;
}

/* Sets the mark unless there is one, and reads what stands there: both in one write, in order. */
static int mark_in_redis(struct node *node, const struct command *command,
                         struct question *question)
{
    struct buf key = {0};
    struct buf value = {0};
    char keep[24];
    key_of(node, "used:", command_room(command), &key);
    buf_printf(&value, "%" PRIu64 " ", clock_unix_ms());
    buf_bytes(&value, command_payload(command));
    snprintf(keep, sizeof(keep), "%" PRIu64, keep_ms(node, command->until_s));
    struct bytes set[] = {BYTES_LIT("SET"), buf_view(&key),  buf_view(&value),
                          BYTES_LIT("NX"),  BYTES_LIT("PX"), bytes_str(keep)};
    struct bytes get[] = {BYTES_LIT("GET"), buf_view(&key)};
    int error = key.failed || value.failed ? BROKER_ERR_FULL : 0;
    if (error == 0)
        error = broker_call(node->broker, set, 6, on_marked, node, 0);
    if (error == 0)
        error = broker_call(node->broker, get, 2, on_mark, node, (uint64_t)(uintptr_t)question);
    buf_fini(&key);
    buf_fini(&value);
    return error;
}

static struct mark *mark_find(const struct node *node, struct bytes digest, uint32_t hash)
{
    for (struct map_node *at = map_chain(&node->marks.map, hash); at; at = at->next) {
        struct mark *mark = CONTAINER_OF(at, struct mark, node);
        if (at->hash == hash && bytes_equal(bytes_of(mark->digest, AUTH_DIGEST_LEN), digest))
            return mark;
    }
    return NULL;
}

static void mark_destroy(struct node *node, struct mark *mark)
{
    list_remove(&mark->link);
    map_remove(&node->marks.map, &mark->node);
    metric_set(&node->metrics.ticket_marks, node->marks.map.count);
    free(mark);
}

static enum auth_result mark_here(struct node *node, const struct command *command)
{
    struct bytes digest = command_room(command);
    struct bytes binder = command_payload(command);
    uint32_t hash = map_hash(digest.data, digest.len);
    const struct mark *found = mark_find(node, digest, hash);
    if (found)
        return judge(node, found->first_ms, bytes_of(found->binder, found->binder_len), binder);
    if (node->marks.map.count >= node->conf->auth.marks)
        return AUTH_FULL;
    struct mark *mark = calloc(1, sizeof(*mark) + binder.len);
    if (!mark || map_add(&node->marks.map, &mark->node, hash) != 0) {
        free(mark);
        return AUTH_NO_MEMORY;
    }
    memcpy(mark->digest, digest.data, AUTH_DIGEST_LEN);
    memcpy(mark->binder, binder.data, binder.len);
    mark->binder_len = binder.len;
    mark->first_ms = clock_unix_ms();
    mark->until_ms = mark->first_ms + keep_ms(node, command->until_s);
    list_append(&node->marks.list, &mark->link);
    metric_set(&node->metrics.ticket_marks, node->marks.map.count);
    return AUTH_OK;
}

void tickets_bind(struct node *node, const struct command *command)
{
    struct question *question = question_create(command, command_payload(command));
    if (!question)
        return; /* the worker's time limit answers */
    if (!broker_has_commands(node->broker)) {
        answer(node, question, mark_here(node, command), (struct bytes){0});
        free(question);
        return;
    }
    int error = mark_in_redis(node, command, question);
    if (error == 0)
        return;
    answer(node, question, error == BROKER_ERR_FULL ? AUTH_FULL : AUTH_AWAY, (struct bytes){0});
    free(question);
}

void tickets_expire(struct node *node)
{
    uint64_t now = clock_unix_ms();
    uint32_t left = node->marks.map.count < EXPIRE_SLICE ? node->marks.map.count : EXPIRE_SLICE;
    while (left-- > 0) {
        struct mark *mark = CONTAINER_OF(list_shift(&node->marks.list), struct mark, link);
        if (mark->until_ms <= now)
            mark_destroy(node, mark);
        else
            list_append(&node->marks.list, &mark->link);
    }
}

void tickets_free(struct node *node)
{
    struct link *link;
    while ((link = list_shift(&node->marks.list)))
        free(CONTAINER_OF(link, struct mark, link));
    map_fini(&node->marks.map);
}
