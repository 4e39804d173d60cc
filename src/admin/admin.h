/* admin.h: the admin HTTP listener and its API.
 *
 * libmicrohttpd's own thread only parses, collects bodies and suspends. Each complete request goes
 * to the main thread by a queue; the answer goes back the same way and resumes the connection.
 * Routes, names and tokens are judged here, on the main thread; what a request does (and what a
 * body means) is the node's, through struct admin_ops.
 *
 * Who may ask: `/healthz` and `/readyz` everybody; `/metrics` without a token; `/v1` with
 * admin.token where one is set. A web page on the operator's machine can send requests to loopback
 * too, so except for health
 *   - a request with an Origin header is refused (403) unless it carries the valid token, and
 *   - without admin.token the Host header must be an IP address or localhost (403): a page's own
 *     name that was pointed at 127.0.0.1 (DNS rebinding) is neither.
 *
 * Path:      HTTP -> [admin] -> node (publish, look-ups) -> [admin] -> HTTP.
 * Threads:   created, answered and destroyed on the main thread (checked); one thread of
 *            libmicrohttpd inside.
 * Ownership: a request belongs to the node from the ops call until admin_answer(), which must be
 *            called exactly once.
 * Limits:    limits.admin_requests at once (503); about 64 idle connections more (503);
 *            broker.message_bytes + 4 KB per body (413); 16 KB per head (414, 431); 10 s without
 *            progress (closed; not while the node has the request).
 */
#pragma once

#include "base/bytes.h"
#include "conf/conf.h"

#include <uv.h>

struct admin;
struct admin_request;

enum rooms_sort { ROOMS_BY_NAME, ROOMS_BY_VIEWERS };

enum { ADMIN_ROOMS_LIMIT_DEFAULT = 100, ADMIN_ROOMS_LIMIT_MAX = 1000 };

/* Called on the main thread. Every op must lead to one admin_answer(), at once or later. Room and
 * user names are valid, bodies are whole and not empty; all of these are borrowed until the answer.
 */
struct admin_ops {
    /* POST /v1/rooms/<room>/messages, POST /v1/messages (room empty: all). body: as it came,
     * nothing checked. */
    void (*publish)(void *ctx, struct admin_request *request, struct bytes room, struct bytes body);
    /* POST /v1/users/<user>/messages */
    void (*publish_user)(void *ctx, struct admin_request *request, struct bytes user,
                         struct bytes body);
    /* GET /v1/rooms: limit 1-1000; after: names greater than this (empty: from the start), only
     * with ROOMS_BY_NAME. */
    void (*rooms)(void *ctx, struct admin_request *request, uint32_t limit, struct bytes after,
                  enum rooms_sort sort);
    /* GET /v1/rooms/<room> */
    void (*room)(void *ctx, struct admin_request *request, struct bytes room);
    /* GET /v1/users/<user>/connections */
    void (*connections)(void *ctx, struct admin_request *request, struct bytes user);
    /* DELETE of it */
    void (*kick)(void *ctx, struct admin_request *request, struct bytes user);
    /* GET /v1/config */
    void (*config)(void *ctx, struct admin_request *request);
    /* POST /v1/drain. body: as it came, may be empty. */
    void (*drain)(void *ctx, struct admin_request *request, struct bytes body);
    /* GET /healthz, /readyz */
    void (*health)(void *ctx, struct admin_request *request, bool ready);
    /* GET /metrics */
    void (*metrics)(void *ctx, struct admin_request *request);
};

/* Listens on conf->admin.listen: `1.2.3.4:7314`, `[::1]:7314`, `localhost:7314`; port 0 takes a
 * free one; `[::]` serves IPv4 too. The conf is borrowed for the call. Returns 0, or a libuv error
 * code (UV_EADDRINUSE …, UV_EINVAL for an address that cannot be read) with nothing left open. */
int admin_create(struct admin **out, uv_loop_t *loop, struct conf *conf,
                 const struct admin_ops *ops, void *ctx);

/* The bound address as text, for logs and for port 0. */
const char *admin_address(const struct admin *admin);

/* A new snapshot: the token and the limits take effect. The conf is borrowed for the call. */
void admin_set_conf(struct admin *admin, struct conf *conf);

/* Requests refused so far because of limits.admin_requests, for halley_admin_refused_total. Any
 * thread. */
uint64_t admin_refused(const struct admin *admin);

/* Stops listening and answers 503 to what the node has not got yet; requests that it has may still
 * be answered, and are waited for. Answers have a second to be read, then the thread is joined.
 * on_closed(ctx of admin_create) comes from the loop when all handles are closed and the admin is
 * freed. NULL admin: nothing happens, on_closed is the caller's affair. */
void admin_close(struct admin *admin, void (*on_closed)(void *ctx));

/* Answers a request: HTTP status, content type ("application/json", …), body (copied).
 * retry_after_s 0: no such header. Main thread; the request is gone afterwards. */
void admin_answer(struct admin_request *request, int status, const char *content_type,
                  struct bytes body, uint32_t retry_after_s);

/* {"error":"<code>","message":"…"} with the status. */
void admin_answer_error(struct admin_request *request, int status, const char *code,
                        const char *message, uint32_t retry_after_s);
