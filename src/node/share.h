/* share.h: several processes on one viewers' port, so that one replaces the other without refusing anybody.
 *
 * Closing a listening socket resets the connections that wait in it, so none is ever closed while viewers come: all processes of a
 * port hold the same sockets. Who starts beside another asks it for copies over an abstract Unix socket (named by the first
 * address, for the same user only) and shares them out to its own workers. Who drains asks whether another one serves; if so it just
 * lets go of its copies. What waits in the queues is accepted by the other one, and the accept program's group stays as it was
 * (docs/design/2026-11-drain.md, with measurements).
 *
 * That Unix socket is passed on too: whoever holds a copy answers, it is gone with the last one.
 *
 *      "L"  -> who shares gives all listening sockets         "S" -> "serving", by one that serves and is not draining
 *
 * Threads:   the main thread.
 * Ownership: owns its Unix sockets; the viewers' sockets that it gives are copied by the kernel.
 * Limits:    SHARE_TALKS_MAX talks at a time, the oldest goes first.
 */
#pragma once

#include "base/bytes.h"
#include "node/listen.h"

#include <stdbool.h>
#include <uv.h>

enum { SHARE_TALKS_MAX = 8 };

struct share_end;

struct share {
    uv_loop_t *loop;
    char address[CONF_ADDRESS_MAX]; /* what the name is made of */
    const struct listen_set *set;   /* what is given; NULL: nothing any more */
    int fd;                         /* of the name; -1: not held */
    bool serving;                   /* answers "S" */
    bool others;                    /* another process may hold the sockets too */
    struct share_end *offer;
    struct share_end *asking;
    struct share_end *talks[SHARE_TALKS_MAX];
    uint32_t next_talk;
    void (*on_other)(void *ctx);
    void *ctx;
};

/* At start, may block for seconds: takes the name, or copies of the sockets of whoever has it, into *gift (addresses 0: this is the
 * first process). Returns 0, or -1 with a sentence in *error. */
int share_open(struct share *share, const char *address, struct listen_gift *gift,
               struct buf *error);

/* Begins to answer others. on_other comes when share_ask() found one that serves. */
void share_start(struct share *share, uv_loop_t *loop, const struct listen_set *set,
                 void (*on_other)(void *ctx), void *ctx);

/* Asks whether another process serves the port. Returns false when there is none; else on_other may come, at once or when one that
 * starts is ready. Call it again now and then: a successor may appear at any time. */
bool share_ask(struct share *share);

/* No more answers, no more sockets are given. A share that was never opened is fine. */
void share_stop(struct share *share);
