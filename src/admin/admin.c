#include "admin/internal.h"
#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

/* What a body may have around a message of broker.message_bytes. */
enum { BODY_SLACK_BYTES = 4096 };

/* How long answers may wait for their readers when the admin closes. */
enum { CLOSE_WAIT_MS = 1000 };

/* Takes all that waits. */
static void take_queue(struct admin *admin, struct link *taken)
{
    list_init(taken);
    pthread_mutex_lock(&admin->mutex);
    list_splice(taken, &admin->queue);
    pthread_mutex_unlock(&admin->mutex);
}

static struct admin_request *next_request(struct link *taken)
{
    struct link *link = list_shift(taken);
    return link ? CONTAINER_OF(link, struct admin_request, link) : NULL;
}

static void answer_stopping(struct admin_request *request)
{
    admin_answer_error(request, 503, "unavailable", "This node is stopping; ask another one.", 1);
}

void admin_on_handle_closed(uv_handle_t *handle)
{
    struct admin *admin = handle->data;
    if (--admin->handles > 0)
        return;
    void (*on_closed)(void *ctx) = admin->on_closed;
    void *ctx = admin->ctx;
    pthread_mutex_destroy(&admin->mutex);
    free(admin);
    if (on_closed)
        on_closed(ctx);
}

/* The listener's is closed with its socket. */
static void close_handles(struct admin *admin)
{
    uv_close((uv_handle_t *)&admin->async, admin_on_handle_closed);
    uv_close((uv_handle_t *)&admin->timer, admin_on_handle_closed);
}

/* Stops the thread once nobody has a request any more, or has had it for long enough. */
static void close_step(struct admin *admin)
{
    if (!admin->daemon || admin->handed > 0)
        return;
    /* A connection that its thread has not looked at yet would be closed without the lock it was
     * added under. */
    bool busy = atomic_load(&admin->open) > 0 || atomic_load(&admin->started) < admin->added;
    if (busy && !admin->waited)
        return;
    pthread_mutex_lock(&admin->mutex);
    admin->stopping = true;
    pthread_mutex_unlock(&admin->mutex);
    struct link taken;
    struct admin_request *request;
    take_queue(admin, &taken);
    while ((request = next_request(&taken))) {
        admin->handed++;
        answer_stopping(request);
    }
    http_stop(admin);
    close_handles(admin);
}

static void on_async(uv_async_t *async)
{
    struct admin *admin = async->data;
    struct link taken;
    struct admin_request *request;
    take_queue(admin, &taken);
    while ((request = next_request(&taken))) {
        admin->handed++;
        if (atomic_load(&admin->closing))
            answer_stopping(request);
        else
            routes_judge(request);
    }
    if (atomic_load(&admin->closing))
        close_step(admin);
}

static void on_waited(uv_timer_t *timer)
{
    struct admin *admin = timer->data;
    admin->waited = true;
    close_step(admin);
}

/* The handles of a loop can fail to be made only for want of memory or files; what was made is
 * closed by the loop. */
static int init_handles(struct admin *admin)
{
    int rc = uv_async_init(admin->loop, &admin->async, on_async);
    if (rc != 0)
        return rc;
    admin->handles = 3;
    admin->async.data = admin->timer.data = admin->poll.data = admin;
    uv_timer_init(admin->loop, &admin->timer);
    rc = uv_poll_init(admin->loop, &admin->poll, admin->fd);
    if (rc == 0)
        return 0;
    admin->handles = 2;
    close_handles(admin);
    return rc;
}

/* Undoes what admin_create() did before the handles were there. */
static int fail_early(struct admin *admin, int rc)
{
    if (admin->fd >= 0)
        close(admin->fd);
    if (admin->handles == 0) {
        pthread_mutex_destroy(&admin->mutex);
        free(admin);
    }
    return rc;
}

int admin_create_timed(struct admin **out, uv_loop_t *loop, struct conf *conf,
                       const struct admin_ops *ops, void *ctx, unsigned timeout_s)
{
    struct admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return UV_ENOMEM;
    admin->ops = ops;
    admin->ctx = ctx;
    admin->loop = loop;
    admin->fd = -1;
    admin->thread = pthread_self();
    list_init(&admin->queue);
    pthread_mutex_init(&admin->mutex, NULL);
    admin_set_conf(admin, conf);
    int rc = listener_open(admin, conf->admin.listen);
    if (rc == 0)
        rc = init_handles(admin);
    if (rc != 0)
        return fail_early(admin, rc);
    rc = http_start(admin, timeout_s);
    if (rc == 0)
        rc = listener_start(admin);
    if (rc != 0) {
        if (admin->daemon)
            http_stop(admin);
        listener_stop(admin);
        close_handles(admin);
        return rc;
    }
    *out = admin;
    return 0;
}

int admin_create(struct admin **out, uv_loop_t *loop, struct conf *conf,
                 const struct admin_ops *ops, void *ctx)
{
    return admin_create_timed(out, loop, conf, ops, ctx, ADMIN_TIMEOUT_S);
}

const char *admin_address(const struct admin *admin)
{
    return admin->address;
}

void admin_set_conf(struct admin *admin, struct conf *conf)
{
    REQUIRE(pthread_equal(admin->thread, pthread_self()));
    memcpy(admin->token, conf->admin.token, sizeof(admin->token));
    admin->token[sizeof(admin->token) - 1] = '\0';
    atomic_store(&admin->body_max, (uint64_t)conf->broker.message_bytes + BODY_SLACK_BYTES);
    atomic_store(&admin->requests_max, conf->limits.admin_requests);
}

uint64_t admin_refused(const struct admin *admin)
{
    return atomic_load(&admin->refused);
}

void admin_close(struct admin *admin, void (*on_closed)(void *ctx))
{
    if (!admin)
        return;
    REQUIRE(pthread_equal(admin->thread, pthread_self()));
    REQUIRE(!atomic_load(&admin->closing));
    admin->on_closed = on_closed;
    listener_stop(admin);
    atomic_store(&admin->closing, true);
    uv_timer_start(&admin->timer, on_waited, CLOSE_WAIT_MS, 0);
    uv_async_send(&admin->async);
}

/* Gives the request back to libmicrohttpd's thread. Without a response (no memory) the connection
 * is closed. */
static void finish(struct admin_request *request, int status, struct MHD_Response *response)
{
    struct admin *admin = request->admin;
    REQUIRE(pthread_equal(admin->thread, pthread_self()));
    REQUIRE(request->state == REQUEST_QUEUED && admin->handed > 0);
    log_debug("admin request", LOG_STR("method", request->method), LOG_STR("path", request->target),
              LOG_INT("status", status));
    request->status = status;
    request->response = response;
    request->state = REQUEST_ANSWERED;
    admin->handed--;
    MHD_resume_connection(request->connection);
    if (atomic_load(&admin->closing))
        uv_async_send(&admin->async);
}

void admin_answer(struct admin_request *request, int status, const char *content_type,
                  struct bytes body, uint32_t retry_after_s)
{
    finish(request, status, http_response(request->admin, content_type, body, retry_after_s));
}

void admin_answer_error(struct admin_request *request, int status, const char *code,
                        const char *message, uint32_t retry_after_s)
{
    finish(request, status, http_error(request->admin, code, message, retry_after_s));
}

void admin_answer_header(struct admin_request *request, int status, const char *code,
                         const char *message, const char *name, const char *value)
{
    struct MHD_Response *response = http_error(request->admin, code, message, 0);
    if (response)
        MHD_add_response_header(response, name, value);
    finish(request, status, response);
}
