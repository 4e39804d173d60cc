/* redis_dial.h: from a host's name to a connected socket on the loop.
 *
 * The look-up has a time limit and so has each address; the addresses are tried in the resolver's order. A look-up
 * that hangs can't be taken back from libuv's threads: it is left alone, and the next attempt waits for the same one
 * instead of filling those threads.
 *
 * Path:      redis_conn -> [dial] -> redis_socket.
 * Threads:   the broker's loop (the look-up itself on libuv's threads).
 * Ownership: borrows the URL; the socket goes to whoever is called with it.
 * Limits:    REDIS_DIAL_ADDRESSES_MAX addresses of a name.
 */
#pragma once

#include "conf/url.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

enum { REDIS_DIAL_ADDRESSES_MAX = 8 };

/* How many handles a broker has open: when closing, the last one's end is the moment to free it. */
struct redis_handles {
    uint32_t open;
    void (*on_none)(void *ctx); /* NULL until the broker closes */
    void *ctx;
};

void redis_handles_closed(struct redis_handles *handles);

/* A socket with its poll handle, on the heap because libuv closes handles later than we want to forget them. */
struct redis_socket {
    uv_poll_t poll;
    int fd;
    int watching; /* the events that the poll handle waits for */
    void *owner;
    void (*on_poll)(struct redis_socket *socket, int status, int events);
    struct redis_handles *handles;
};

/* Waits for events (UV_READABLE, UV_WRITABLE; 0: none). Returns 0 or libuv's code. */
int redis_socket_watch(struct redis_socket *socket, int events);

/* Closes the socket at once; its memory goes with the handle. NULL is fine. */
void redis_socket_close(struct redis_socket *socket);

struct redis_lookup;

struct redis_dial {
    uv_loop_t *loop;
    struct redis_handles *handles;
    const struct broker_url *url;
    uv_timer_t timer;
    uint32_t timeout_ms;
    bool active;
    struct redis_lookup *lookup;
    struct redis_socket *socket; /* the one that connects now */
    struct sockaddr_storage addresses[REDIS_DIAL_ADDRESSES_MAX];
    unsigned count;
    unsigned next;
    int error; /* of the last address */
    /* The end of an attempt: a connected socket, which the callee takes over, or NULL with the reason and libuv's
     * code. May be called from redis_dial_start(). */
    void (*on_done)(void *ctx, struct redis_socket *socket, const char *reason, int error);
    void *ctx;
};

/* Fill in loop, handles, url, on_done and ctx first. */
void redis_dial_init(struct redis_dial *dial);

/* Starts an attempt; one at a time. */
void redis_dial_start(struct redis_dial *dial, uint32_t timeout_ms);

/* Gives up for good. The memory must stay until the handles are gone. */
void redis_dial_close(struct redis_dial *dial);
