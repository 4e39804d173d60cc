/* digest.h: what a ticket is called where it must not stand itself: the SHA-256 of its bytes, in hexadecimal.
 *
 * Threads: any; no state.
 */
#pragma once

#include "base/bytes.h"

enum { AUTH_DIGEST_LEN = 64 };

void auth_digest(struct bytes ticket, char out[AUTH_DIGEST_LEN + 1]);
