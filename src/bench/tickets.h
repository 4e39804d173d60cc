/* tickets.h: tickets that viewers of a run bring, and the command that makes them.
 *
 * Threads:   before the client processes begin.
 * Ownership: the lines are kept for as long as the process lives.
 */
#pragma once

#include <stddef.h>

struct ticket_list {
    char **lines;
    size_t count; /* 0: none; viewer i brings line i modulo count */
};

/* Reads one ticket a line. Returns 0, or -1 after saying why. */
int tickets_load(const char *path, struct ticket_list *out);

/* The command `halley-bench tickets`. Returns an exit code. */
int tickets_main(int argc, char **argv);
