/* key.h: the keys that tickets are checked with, loaded once with the conf.
 *
 * A key has one algorithm, and that is the only one that it is ever used with: what a token's header says is compared with it and
 * decides nothing (a token signed with HS256 and a public key as its secret is refused before any signature is looked at).
 *
 * Path:      conf (secret or file) -> [key] -> jwt.
 * Threads:   built by one; then constant, any number of threads may verify at a time.
 * Ownership: auth_keys owns its keys; a conf snapshot owns auth_keys.
 * Limits:    AUTH_KEYS_MAX keys; RSA 2,048 to 8,192 bits, EC on P-256, secrets of 32 bytes (RFC 7518 §3.2) to 1,024.
 */
#pragma once

#include "base/bytes.h"

enum auth_alg { AUTH_HS256, AUTH_RS256, AUTH_ES256 };
enum { AUTH_ALG_COUNT = 3, AUTH_KEYS_MAX = 16, AUTH_KID_MAX = 64, AUTH_KEY_FILE_MAX = 65536 };

/* "HS256", "RS256", "ES256": also the `alg` of a token's header (RFC 7518 §3.1). */
const char *auth_alg_name(enum auth_alg alg);

/* 1 to 64 of A-Z a-z 0-9 _ -, which UUIDs, dates and thumbprints (RFC 7638) fit. */
bool auth_kid_ok(struct bytes kid);

struct auth_keys;
struct auth_key;

struct auth_keys *auth_keys_create(void); /* NULL: out of memory */
void auth_keys_destroy(struct auth_keys *keys);

/* Adds a key. secret: of HS256 as it stands in the conf, its own bytes or `base64:` and an encoding of them.
 * Returns NULL, or a sentence that says what is wrong and what is allowed; nothing was added then. */
const char *auth_keys_add_secret(struct auth_keys *keys, struct bytes kid, struct bytes secret);

/* The same with what a file holds: a public key in PEM (`openssl pkey -pubout`) or, for HS256, the secret's bytes, of which one
 * line end at the end is left out. */
const char *auth_keys_add_file(struct auth_keys *keys, struct bytes kid, enum auth_alg alg,
                               struct bytes text);

size_t auth_keys_count(const struct auth_keys *keys);

/* The key of this name; without a kid (kid.data NULL) the first one that was added. NULL: none. */
const struct auth_key *auth_keys_find(const struct auth_keys *keys, struct bytes kid);

enum auth_alg auth_key_alg(const struct auth_key *key);

/* Whether signature is the key's for text. ES256: r and s of 32 bytes each (RFC 7518 §3.4). */
bool auth_key_verify(const struct auth_key *key, struct bytes text, const unsigned char *signature,
                     size_t len);
