/* address.h: the addresses of server.listen and admin.listen.
 *
 * Threads: any; no state.
 */
#pragma once

#include "base/bytes.h"

#include <sys/socket.h>

/* Parses `192.0.2.1:1314` or `[2001:db8::1]:1314`; names and scopes are refused, port 0 lets the
 * kernel choose. Returns 0 with *out filled, or -1. */
int conf_address_parse(struct bytes text, struct sockaddr_storage *out);

/* 127.0.0.0/8 and ::1. */
bool conf_address_is_loopback(const struct sockaddr_storage *address);

uint16_t conf_address_port(const struct sockaddr_storage *address);
