/* url.h: broker.url, taken apart.
 *
 * Threads:   any; no state.
 */
#pragma once

#include <stdint.h>

enum broker_scheme { BROKER_SCHEME_MEMORY, BROKER_SCHEME_REDIS };

struct broker_url {
    enum broker_scheme scheme;
    char user[128];     /* percent-decoded; empty: none (Redis' AUTH with one argument) */
    char password[128]; /* percent-decoded; empty: no AUTH */
    char host[256];     /* name or address, IPv6 without brackets */
    uint16_t port;      /* 6379 when not given */
};

/* Parses `memory:` or `redis://[user:password@]host[:port][/]`. Returns 0 with *out filled, or -1
 * with a sentence in *why that says what is wrong and what is allowed (`rediss://`: TLS to Redis is
 * not supported; a database number: pub/sub ignores it, use broker.prefix). */
int broker_url_parse(const char *text, struct broker_url *out, const char **why);
