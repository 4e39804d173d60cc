/* site.h: an admin listener with a node that is played by the test, and clients on the same loop.
 *
 * The clients are plain sockets: what they send is written byte for byte, what comes back is kept
 * whole. Nothing sleeps; site_until() turns the loop and the clients until a condition holds, and
 * fails the test after 20 seconds.
 */
#pragma once

#include "admin/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SITE_HELD_MAX = 512 };

struct site {
    uv_loop_t loop;
    struct conf *conf;
    struct admin *admin;
    bool closed;
    bool hold; /* keep requests in held instead of answering */
    struct admin_request *held[SITE_HELD_MAX];
    size_t held_count;
    size_t calls;
    char said[512];  /* what the last op was called with, in words */
    struct buf body; /* of the last publish */
};

struct client {
    int fd;
    struct buf out; /* not sent yet */
    struct buf in;  /* received, NUL behind it */
    bool ended;     /* by the gateway */
};

/* A whole request for /healthz. */
extern const char ask_health[];
extern const size_t ask_health_len;

/* Listens on a free port. token: empty for none. requests: limits.admin_requests. */
struct site *site_open(const char *token, uint32_t requests, unsigned timeout_s);
/* Calls admin_close() and returns. */
void site_begin_close(struct site *site);
/* Closes and waits for it; fails the test when anything is left open. */
void site_close(struct site *site);

void client_open(struct site *site, struct client *client);
void client_send(struct client *client, const char *text);
/* A publish to all that announces so many bytes and sends so many. */
void client_post(struct client *client, size_t announced, size_t sent);
void client_close(struct client *client);

/* One turn of the loop and of the clients; waits for at most wait_ms. */
void site_turn(struct site *site, struct client *clients, size_t count, int wait_ms);

typedef bool (*site_condition)(const struct site *site, const struct client *clients, size_t count);
void site_until(struct site *site, struct client *clients, size_t count, site_condition condition);

/* Conditions. */
bool all_ended(const struct site *site, const struct client *clients, size_t count);
bool all_held(const struct site *site, const struct client *clients, size_t count);
bool all_gone(const struct site *site, const struct client *clients, size_t count);
bool is_closed(const struct site *site, const struct client *clients, size_t count);

/* Sends one request and returns everything that came until the end of the connection; freed by the
 * next ask. */
const char *site_ask(struct site *site, const char *request);
/* The same with a request line, Host and `Connection: close` put around: extra is whole header
 * lines. */
const char *site_get(struct site *site, const char *method, const char *path, const char *extra);

void assert_status(const char *response, int status);
void assert_contains(const char *text, const char *part);

int run_guard_tests(void);
int run_routes_tests(void);
int run_close_tests(void);
int run_memory_tests(void);
