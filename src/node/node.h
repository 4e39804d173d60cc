/* node.h: the daemon's main thread: broker, policy, dispatch, admin API, signals.
 *
 * Path:      broker -> [node] -> workers; workers (joins, publishes) -> [node] -> broker; admin -> [node] -> workers.
 * Threads:   everything here runs on the main thread; workers reach it through one mailbox.
 * Ownership: owns broker, admin listener, workers; references the conf.
 * Limits:    limits.rooms, limits.connections, broker.*; workers' mailboxes.
 */
#pragma once

#include "conf/conf.h"

/* Exit codes (contract). */
enum { EXIT_OK = 0, EXIT_USAGE = 64, EXIT_UNAVAILABLE = 69, EXIT_INTERNAL = 70, EXIT_CONF = 78 };

struct node_options {
    const char *conf_path; /* NULL: the built-in conf */
    const struct conf_override *overrides;
    size_t override_count;
};

/* Raises the soft file limit to the hard one. Returns the limit. */
uint64_t node_raise_file_limit(void);

/* What limits.connections comes to under this file limit: what the conf says, cut to what the limit can hold (0 in the conf: all of that). */
uint32_t node_connections(const struct conf *conf, uint64_t file_limit);

/* Runs until SIGTERM or SIGINT. Takes its own reference of conf. Returns an exit code. */
int node_run(struct conf *conf, const struct node_options *options);
