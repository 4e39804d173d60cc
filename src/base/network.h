/* network.h: address ranges such as 192.0.2.0/24, 2001:db8::/32, or one address.
 *
 * Threads: any; no state.
 */
#pragma once

#include "base/bytes.h"

#include <sys/socket.h>

struct network {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;        /* of the prefix, of 128 */
};

/* Parses `address` or `address/bits`. Returns false for anything else, and where bits behind the prefix are set. */
bool network_parse(struct bytes text, struct network *out);

/* Whether the address lies in the range. */
bool network_has(const struct network *network, const struct sockaddr_storage *address);
