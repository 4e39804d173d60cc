/* address.h: socket addresses as text, for logs and answers.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stddef.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT_MAX = 64 };

/* Writes `192.0.2.1:1314` or `[2001:db8::1]:1314`; what is neither IPv4 nor IPv6 becomes `?`. */
void address_print(const struct sockaddr_storage *address, char *out, size_t cap);
