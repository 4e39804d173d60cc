/* notify.h: what the daemon and systemd tell each other.
 *
 * Without systemd (NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS not set) every call does nothing and succeeds.
 *
 * Threads:   the main thread; notify_listen_fds() before any other thread starts, since it changes
 *            the environment.
 * Ownership: the sockets that notify_listen_fds() gives belong to the caller.
 */
#pragma once

#include "base/bytes.h"

#include <stdint.h>

/* The node serves; with a line for `systemctl status`. */
void notify_ready(const char *status);

/* A reload begins; notify_ready() ends it. */
void notify_reloading(void);

/* The node drains or stops. */
void notify_stopping(const char *status);

/* A line for `systemctl status`, nothing else. */
void notify_status(const char *status);

/* Feeds the watchdog. Only to be called while all workers turn their loops. */
void notify_watchdog(void);

/* Milliseconds after which systemd wants to be fed (feed at half of it); 0: no watchdog. */
uint64_t notify_watchdog_ms(void);

/* Takes over the listening TCP sockets that systemd passed: close-on-exec and non-blocking. Returns
 * how many stand in fds[], 0 when there are none; or -1 with a sentence in *why when systemd passed
 * something else or more than max, and then all of them are closed. Call once. */
int notify_listen_fds(int *fds, int max, struct buf *why);
