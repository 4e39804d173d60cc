/* origin.h: which web pages may connect (RFC 6455 §10.2, RFC 6454).
 *
 * A pattern is a host, `*.` and a host (any name below it, not itself), or either with a scheme before and a port behind:
 * `live.example.com`, `*.example.com`, `https://live.example.com:8443`. Without a scheme http and https match; without a port the
 * scheme's own (80, 443), `:*` is any. `null` is the origin of sandboxed frames and files. Letters match without case.
 *
 * Path:      head -> [origin] -> welcome; conf -> [origin].
 * Threads:   any; no state.
 * Ownership: borrows.
 */
#pragma once

#include "base/bytes.h"

/* Whether the text is a pattern. */
bool origin_is_pattern(struct bytes text);

/* Whether an Origin header is one that the pattern means. What is no serialized origin matches nothing. */
bool origin_matches(struct bytes pattern, struct bytes origin);
