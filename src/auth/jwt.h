/* jwt.h: tickets that carry their claims: JWS in compact form (RFC 7515 §3.1) with the payload of a JWT (RFC 7519).
 *
 * Path:      handshake, CONNECT, refresh -> [jwt] -> claims.
 * Threads:   any; keys are constant.
 * Ownership: borrows keys and token for the call.
 * Limits:    JWT_BYTES_MAX; longer ones are AUTH_MALFORMED.
 */
#pragma once

#include "auth/claims.h"
#include "auth/key.h"

enum { JWT_BYTES_MAX = 8192 };

/* Checks a token from the outside to the inside: form, key by `kid` (without one the first key), the header's `alg` against the
 * key's, no `crit` (RFC 7515 §4.1.11: we understand none), signature, claims, their times. *out is filled when AUTH_OK. */
enum auth_result jwt_read(const struct auth_keys *keys, struct bytes token, uint64_t now_ms,
                          uint64_t leeway_ms, struct auth_claims *out);
