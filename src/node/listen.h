/* listen.h: the viewers' listening sockets.
 *
 * Every worker has a socket of its own per address (SO_REUSEPORT). With server.accept = ip-hash one classic BPF program per address
 * picks the socket by the source address, so that one address always meets one worker.
 *
 * Threads:   the main thread, at start.
 * Ownership: the sockets belong to the caller.
 */
#pragma once

#include "conf/conf.h"

struct listen_set {
    int *fds; /* [worker][address] */
    uint32_t workers;
    uint32_t addresses;
    int locks[CONF_LISTEN_MAX];                    /* keep a second daemon off the port; -1: none */
    char bound[CONF_LISTEN_MAX][CONF_ADDRESS_MAX]; /* with the port that the kernel chose */
};

/* Opens everything. passed: sockets from systemd, passed_count may be 0. Returns 0; or -1 with a sentence in *error and nothing open. */
int listen_open(struct listen_set *set, const struct conf *conf, uint32_t workers,
                const int *passed, uint32_t passed_count, struct buf *error);

/* The sockets of one worker. */
static inline const int *listen_of(const struct listen_set *set, uint32_t worker)
{
    return set->fds + (size_t)worker * set->addresses;
}

/* Closes the locks and frees the table; the sockets are the workers' by then. */
void listen_release(struct listen_set *set);
