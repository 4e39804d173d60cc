/* listen.h: the viewers' listening sockets.
 *
 * Each address has a group of sockets (SO_REUSEPORT), one for each worker. With server.accept = ip-hash one classic BPF program per
 * group picks the socket by the source address, so that one address always meets one worker. Sockets from systemd, or from a process
 * that is being replaced (share.h), are shared out to the workers as they are: a group never changes while somebody accepts from it. With fewer
 * of them than workers several accept from one, and an address may meet any of these.
 *
 * Threads:   the main thread, at start.
 * Ownership: the sockets belong to the workers once these are created; their numbers are remembered here, to be given to a successor.
 */
#pragma once

#include "conf/conf.h"

enum { LISTEN_GROUP_MAX = 64 };

struct listen_set {
    uint32_t addresses;
    uint32_t group; /* sockets of each address */
    int *sockets;   /* [address][socket] */
    uint32_t workers;
    bool steady;                                   /* an address always meets the same worker */
    uint32_t slots;                                /* most sockets of one worker */
    int *fds;                                      /* [worker][slot]; -1: none */
    int locks[CONF_LISTEN_MAX];                    /* keep a second daemon off the port; -1: none */
    char bound[CONF_LISTEN_MAX][CONF_ADDRESS_MAX]; /* with the port that the kernel chose */
};

/* Sockets that somebody else opened: [address][socket]. Taken over, whatever comes of it. */
struct listen_gift {
    uint32_t addresses; /* 0: none */
    uint32_t group;
    bool fixed; /* systemd's: where viewers come in, whatever server.listen says */
    int sockets[CONF_LISTEN_MAX * LISTEN_GROUP_MAX];
};

/* Shares out the gift. Unless it is fixed, what server.listen names beyond it is opened, and what server.listen lacks of it is closed: the
 * process that gave it has that still. Returns 0; or -1 with a
 * sentence in *error and nothing open. */
int listen_open(struct listen_set *set, const struct conf *conf, uint32_t workers,
                const struct listen_gift *gift, struct buf *error);

/* The sockets of one worker. */
static inline const int *listen_of(const struct listen_set *set, uint32_t worker)
{
    return set->fds + (size_t)worker * set->slots;
}

uint32_t listen_count(const struct listen_set *set, uint32_t worker);

/* The name under which the processes of one port find each other, and that locks it: an abstract address, kept while the socket is
 * open. Returns its length, or 0 where the port is the kernel's to choose. */
struct sockaddr_un;
uint32_t listen_name(const char *address, struct sockaddr_un *name);

/* The first address as it will be bound, for listen_name(); of the gift, if there is one. */
void listen_first(const struct conf *conf, const struct listen_gift *gift, char *out, size_t cap);

/* Closes the locks and frees the table; the sockets are the workers' by then. */
void listen_release(struct listen_set *set);
