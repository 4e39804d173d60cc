/* base64url.h: base64url as JOSE has it (RFC 7515 §2): no padding, no white space, no second way to write the same bytes.
 *
 * Threads: any; no state.
 */
#pragma once

#include "base/bytes.h"

#include <sys/types.h>

/* Decodes text into out. Returns the length, or -1 when a character is not of the alphabet, the length is impossible, the bits
 * left over are not zero, or cap is too small. */
ssize_t base64url_decode(struct bytes text, unsigned char *out, size_t cap);

/* The same for either alphabet, with or without padding: for secrets that people wrote down. */
ssize_t base64_decode_any(struct bytes text, unsigned char *out, size_t cap);
