/* internal.h: what the files of admin share.
 *
 *   listener.c   main thread    accepts, gives sockets to libmicrohttpd
 *   http.c       its thread     head and body, then suspends and queues; sends answers
 *   admin.c      main thread    takes the queue, answers, stops
 *   routes.c     main thread    who may ask for what
 *   guard.c      pure           tokens and Host headers
 *
 * A request is made in libmicrohttpd's thread when its first line is read, and freed there when its
 * connection is done with it. Between the suspend and the resume only the main thread touches it;
 * the queue's mutex and libmicrohttpd's own order the two.
 */
#pragma once

#include "admin/admin.h"
#include "base/list.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum { ADMIN_TIMEOUT_S = 10, ADMIN_CONNECTIONS_SPARE = 64, ADMIN_HEAD_BYTES = 16384 };

enum request_state {
    REQUEST_HEAD,     /* the first line is read */
    REQUEST_BODY,     /* the head is read, the body comes */
    REQUEST_QUEUED,   /* suspended, on its way to the main thread or at the node */
    REQUEST_ANSWERED, /* the response is there, the connection resumed */
    REQUEST_SENT      /* the response is with libmicrohttpd */
};

struct admin_request {
    struct link link; /* in admin.queue */
    struct admin *admin;
    struct MHD_Connection *connection;
    enum request_state state;
    char *target; /* path and query as they came; routes.c takes them apart in place */
    /* The connection's memory, which stands still while it is suspended; NULL: no such header. */
    const char *method;
    const char *host;
    const char *origin;
    const char *authorization;
    struct buf body;
    uint64_t body_seen; /* bytes that came, kept or not */
    uint64_t body_max;  /* bytes kept at most */
    int refused;        /* what libmicrohttpd's thread decided to answer; 0: nothing yet */
    int status;
    struct MHD_Response *response;
};

struct admin {
    const struct admin_ops *ops;
    void *ctx;
    pthread_t thread; /* the main one */
    uv_loop_t *loop;
    uv_async_t async;
    uv_poll_t poll;
    uv_timer_t timer; /* ends a pause of accepting; when closing, the wait for readers */
    int handles;      /* to be closed */
    int fd;
    char address[CONF_ADDRESS_MAX];
    char token[CONF_TEXT_MAX];
    struct MHD_Daemon *daemon;

    pthread_mutex_t mutex; /* guards the two below */
    struct link queue;
    bool stopping; /* nothing may be suspended any more */

    _Atomic uint64_t body_max;
    _Atomic uint32_t requests_max;
    _Atomic uint32_t open;        /* requests that exist */
    _Atomic uint32_t connections; /* that libmicrohttpd has */
    _Atomic uint64_t started;     /* that it ever began to serve */
    _Atomic uint64_t refused;
    _Atomic bool closing;

    uint64_t added;  /* connections ever given to libmicrohttpd */
    uint32_t handed; /* requests taken from the queue and not answered */
    bool waited;     /* the time for readers is over */
    void (*on_closed)(void *ctx);
};

/* admin_create() with another time limit, for tests. */
int admin_create_timed(struct admin **out, uv_loop_t *loop, struct conf *conf,
                       const struct admin_ops *ops, void *ctx, unsigned timeout_s);

/* admin.c. admin_answer_error() with one more header. */
void admin_answer_header(struct admin_request *request, int status, const char *code,
                         const char *message, const char *name, const char *value);

/* admin.c. Frees the admin when it was the last of its handles. */
void admin_on_handle_closed(uv_handle_t *handle);

/* http.c. Start: 0 or a negative code. Stop joins the thread; nothing may be suspended. */
int http_start(struct admin *admin, unsigned timeout_s);
void http_stop(struct admin *admin);
/* A response, or NULL when memory is out. */
struct MHD_Response *http_response(const struct admin *admin, const char *content_type,
                                   struct bytes body, uint32_t retry_after_s);
struct MHD_Response *http_error(const struct admin *admin, const char *code, const char *message,
                                uint32_t retry_after_s);

/* listener.c. Opens the socket; starts accepting; both 0 or a negative code. Stop closes the socket
 * and its handle. */
int listener_open(struct admin *admin, const char *address);
int listener_start(struct admin *admin);
void listener_stop(struct admin *admin);

/* routes.c. Leads to exactly one answer. */
void routes_judge(struct admin_request *request);

/* guard.c. Whether the Authorization header carries the token; compares in a time that does not
 * depend on where they differ. */
bool guard_token_valid(const char *authorization, const char *token);
/* Whether a Host header is an IP address or localhost, with or without port. */
bool guard_host_is_local(const char *host);
