#include "admin/internal.h"
#include "base/log.h"
#include "json/json.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A refused body is read to its end and thrown away, because a connection closed with unread bytes
 * loses the answer; but not more than this. */
static const uint64_t DRAIN_MAX_BYTES = 8 << 20;

/* Connections are counted by the listener; libmicrohttpd only needs a number that is not in the
 * way. */
enum { CONNECTIONS_MAX = 65535 };

struct MHD_Response *http_response(const struct admin *admin, const char *content_type,
                                   struct bytes body, uint32_t retry_after_s)
{
    /* The body is only read, but libmicrohttpd's prototype is older than const. */
    void *data = (void *)(uintptr_t)(body.len ? body.data : "");
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body.len, data, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return NULL;
    MHD_add_response_header(response, "Content-Type", content_type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof(seconds), "%u", (unsigned)retry_after_s);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (atomic_load(&admin->closing))
        MHD_add_response_header(response, "Connection", "close");
    return response;
}

struct MHD_Response *http_error(const struct admin *admin, const char *code, const char *message,
                                uint32_t retry_after_s)
{
    struct buf body = {0};
    BUF_LIT(&body, "{\"error\":");
    json_quote(&body, bytes_str(code));
    BUF_LIT(&body, ",\"message\":");
    json_quote(&body, bytes_str(message));
    BUF_LIT(&body, "}\n");
    struct MHD_Response *response = NULL;
    if (!body.failed)
        response = http_response(admin, "application/json", buf_view(&body), retry_after_s);
    buf_fini(&body);
    return response;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **slot,
                          enum MHD_ConnectionNotificationCode what)
{
    struct admin *admin = cls;
    (void)connection;
    (void)slot;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        atomic_fetch_sub(&admin->connections, 1);
        return;
    }
    atomic_fetch_add(&admin->connections, 1);
    atomic_fetch_add(&admin->started, 1);
    if (atomic_load(&admin->closing))
        uv_async_send(&admin->async);
}

static void *on_first_line(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct admin *admin = cls;
    struct admin_request *request = calloc(1, sizeof(*request));
    char *copy = strdup(target);
    if (!request || !copy) {
        free(request);
        free(copy);
        return NULL;
    }
    list_init(&request->link);
    request->admin = admin;
    request->connection = connection;
    request->target = copy;
    atomic_fetch_add(&admin->open, 1);
    return request;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **slot,
                         enum MHD_RequestTerminationCode why)
{
    struct admin *admin = cls;
    struct admin_request *request = *slot;
    (void)connection;
    (void)why; /* a client that went away is none of our business */
    if (!request)
        return;
    *slot = NULL;
    if (request->response)
        MHD_destroy_response(request->response);
    buf_fini(&request->body);
    free(request->target);
    free(request);
    if (atomic_fetch_sub(&admin->open, 1) == 1 && atomic_load(&admin->closing))
        uv_async_send(&admin->async);
}

static enum MHD_Result send_answer(struct admin_request *request)
{
    request->state = REQUEST_SENT;
    if (!request->response)
        return MHD_NO;
    return MHD_queue_response(request->connection, (unsigned)request->status, request->response);
}

/* Answers what this thread decides by itself. */
static enum MHD_Result send_refusal(struct admin_request *request)
{
    struct admin *admin = request->admin;
    request->status = request->refused;
    if (request->refused == MHD_HTTP_CONTENT_TOO_LARGE) {
        char message[96];
        snprintf(message, sizeof(message),
                 "The body is longer than %llu bytes (broker.message_bytes + 4 KB).",
                 (unsigned long long)request->body_max);
        request->response = http_error(admin, "too-large", message, 0);
    } else {
        request->response = http_error(
            admin, "unavailable",
            atomic_load(&admin->closing)
                ? "This node is stopping; ask another one."
                : "Too many admin requests at once (limits.admin_requests), or no memory; "
                  "come back later.",
            1);
    }
    return send_answer(request);
}

static const char *header(const struct admin_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* The head is read. What is certain to be refused and not worth reading is answered at once. */
static enum MHD_Result on_head(struct admin_request *request, const char *method)
{
    struct admin *admin = request->admin;
    const char *length = header(request, "Content-Length");
    uint64_t announced = length ? strtoull(length, NULL, 10) : 0;
    request->state = REQUEST_BODY;
    request->method = method;
    request->body_max = atomic_load(&admin->body_max);
    if (announced > request->body_max)
        request->refused = MHD_HTTP_CONTENT_TOO_LARGE;
    if (atomic_load(&admin->open) > atomic_load(&admin->requests_max)) {
        atomic_fetch_add(&admin->refused, 1);
        request->refused = MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (request->refused && (announced > DRAIN_MAX_BYTES || header(request, "Expect")))
        return send_refusal(request);
    return MHD_YES;
}

static enum MHD_Result on_body(struct admin_request *request, const char *data, size_t len)
{
    request->body_seen += len;
    if (!request->refused && request->body_seen > request->body_max)
        request->refused = MHD_HTTP_CONTENT_TOO_LARGE;
    if (request->refused) {
        buf_fini(&request->body);
        return request->body_seen > DRAIN_MAX_BYTES ? MHD_NO : MHD_YES;
    }
    buf_append(&request->body, data, len);
    if (request->body.failed)
        request->refused = MHD_HTTP_SERVICE_UNAVAILABLE;
    return MHD_YES;
}

/* The request is whole. It is suspended under the mutex, so that admin_close() either finds it in
 * the queue or is seen here. */
static enum MHD_Result on_whole(struct admin_request *request)
{
    struct admin *admin = request->admin;
    if (request->refused)
        return send_refusal(request);
    request->host = header(request, "Host");
    request->origin = header(request, "Origin");
    request->authorization = header(request, "Authorization");
    pthread_mutex_lock(&admin->mutex);
    bool stopping = admin->stopping;
    bool wake = list_empty(&admin->queue);
    if (!stopping) {
        request->state = REQUEST_QUEUED;
        MHD_suspend_connection(request->connection);
        list_append(&admin->queue, &request->link);
    }
    pthread_mutex_unlock(&admin->mutex);
    if (stopping) {
        request->refused = MHD_HTTP_SERVICE_UNAVAILABLE;
        return send_refusal(request);
    }
    if (wake)
        uv_async_send(&admin->async);
    return MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *data_len, void **slot)
{
    struct admin_request *request = *slot;
    (void)cls;
    (void)connection;
    (void)url; /* decoded already, in a way that loses what was a slash and what was %2F */
    (void)version;
    if (!request)
        return MHD_NO; /* there was no memory for it */
    switch (request->state) {
    case REQUEST_HEAD:
        return on_head(request, method);
    case REQUEST_BODY:
        if (*data_len == 0)
            return on_whole(request);
        enum MHD_Result result = on_body(request, data, *data_len);
        *data_len = 0;
        return result;
    case REQUEST_ANSWERED:
        return send_answer(request);
    case REQUEST_QUEUED:
    case REQUEST_SENT:
        *data_len = 0;
        return MHD_YES;
    }
    return MHD_NO;
}

static void __attribute__((format(printf, 2, 0)))
on_log(void *cls, const char *format, va_list args)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_limited(LOG_LEVEL_DEBUG, "admin http", LOG_STR("text", text));
}

int http_start(struct admin *admin, unsigned timeout_s)
{
    /* The process's signals are the main thread's. A thread inherits the mask. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    errno = 0;
    admin->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_access, admin, MHD_OPTION_EXTERNAL_LOGGER, on_log, admin,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin, MHD_OPTION_URI_LOG_CALLBACK,
        on_first_line, admin, MHD_OPTION_NOTIFY_COMPLETED, on_completed, admin,
        MHD_OPTION_CONNECTION_TIMEOUT, timeout_s, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ADMIN_HEAD_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (admin->daemon)
        return 0;
    return error ? -error : UV_ENOMEM;
}

void http_stop(struct admin *admin)
{
    MHD_stop_daemon(admin->daemon);
    admin->daemon = NULL;
}
