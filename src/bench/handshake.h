/* handshake.h: the opening of a connection as a client does it (RFC 6455 §4.1).
 *
 * Threads:   plain values.
 * Limits:    a response head of HANDSHAKE_HEAD_MAX bytes.
 */
#pragma once

#include "bench/bench.h"

#include <netinet/in.h>

enum { HANDSHAKE_HEAD_MAX = 8192 };

/* Appends the request but for the path before it and for further headers and the empty line behind
 * it, which the caller appends. */
void handshake_request(struct buf *out, const struct target *target);

enum handshake_result { HANDSHAKE_MORE, HANDSHAKE_OPEN, HANDSHAKE_REFUSED };

/* Looks at what has come so far. OPEN: *head_len bytes are the head, frames follow. REFUSED: `why`
 * says how the server answered. */
enum handshake_result handshake_answer(struct bytes received, size_t *head_len, char *why,
                                       size_t why_cap);

/* Begins to connect. Returns the socket, or -1 with errno. rcvbuf in bytes, 0: the system's.
 * from: source address, NULL: the system's choice. */
int handshake_connect(const struct target *target, const struct sockaddr_in *from, int rcvbuf);
