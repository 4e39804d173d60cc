/* head.h: the HTTP request head of a WebSocket handshake (RFC 6455 §4.2.1, RFC 9112), strictly.
 *
 * One GET request, no body. No maintained C parser is packaged for Debian 12, so this is our own:
 * bounded, allocates nothing, fuzzed.
 *
 * Path:      listener -> [head] -> worker (path, query) -> welcome.
 * Threads:   any; no state.
 * Ownership: spans borrow the parsed text.
 * Limits:    HEAD_LINES_MAX header lines; bytes by the caller (limits.head_bytes).
 */
#pragma once

#include "base/bytes.h"

#include <stdbool.h>
#include <sys/types.h>

enum { HEAD_LINES_MAX = 64, WS_ACCEPT_LEN = 28 };

struct head {
    struct bytes method; /* only GET passes without status 405; others are still given back */
    struct bytes path;   /* of the target, before '?', as sent: starts with '/' */
    struct bytes query;  /* behind '?', without it, as sent; empty when there is none */
    struct bytes host;
    struct bytes key;    /* Sec-WebSocket-Key */
    struct bytes origin; /* empty when absent */
    struct bytes bearer; /* token of Authorization: Bearer; empty when absent */
    bool upgrade;        /* Upgrade: websocket and Connection: upgrade are both there */
    bool version_ok;     /* Sec-WebSocket-Version is 13 */
    bool key_ok;         /* exactly one key, base64 of 16 bytes */
    bool subprotocol_v1; /* Sec-WebSocket-Protocol offers halley.v1.json */
    size_t length;       /* bytes of the whole head, its empty line included */
};

/* What head_parse() returns besides a negated status. */
enum {
    HEAD_MORE = 0, /* not complete yet; what is there so far is acceptable */
    HEAD_DONE = 1
};

/* Parses the head at the start of text. Returns HEAD_DONE with *head filled, HEAD_MORE, or the
 * negated HTTP status that refuses it: -400 malformed (bad line ends, NUL, obs-fold, HTTP/1.0,
 * no or two Hosts, a body announced by Content-Length other than 0 or Transfer-Encoding, white
 * space before the colon, repeated Upgrade-critical headers that contradict), -431 more than
 * HEAD_LINES_MAX header lines, -505 a major version other than 1. Errors are found as early as
 * the bytes allow. The method is not judged (405 is a matter of the path). */
int head_parse(struct bytes text, struct head *head);

/* The status that a GET on a WebSocket path must be refused with, or 0 when it is a proper upgrade:
 * 405 other method, 426 no upgrade asked or a version other than 13, 400 key missing or wrong. */
int head_upgrade_status(const struct head *head);

/* Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2 item 5.4): WS_ACCEPT_LEN base64 characters, no
 * NUL. Where OpenSSL finds no memory they are wrong ones: the client then refuses the handshake. */
void head_accept(struct bytes key, char accept[WS_ACCEPT_LEN]);

/* Walks the query: each call gives the next name and raw value of *rest and advances it; false
 * at the end. */
bool query_next(struct bytes *rest, struct bytes *name, struct bytes *raw_value);

/* Decodes %XX and '+' of a raw query part into out. Returns the length, or -1 when it is
 * malformed or longer than cap. NUL bytes come out as they are: names are checked by their own
 * rules. */
ssize_t query_decode(struct bytes raw, char *out, size_t cap);
