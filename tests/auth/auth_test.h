/* auth_test.h: what the tests of src/auth share: keys generated at the start, and an issuer of tickets. */
#pragma once

#include "auth/jwt.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOW_S = 1795000000 };
#define NOW_MS (UINT64_C(1000) * NOW_S)
#define SECRET "0123456789abcdef0123456789abcdef"

/* The keys of one test run; private parts here, public ones in the ring. */
struct issuer {
    EVP_PKEY *rsa;
    EVP_PKEY *ec;
    EVP_PKEY *other_ec;
    struct auth_keys *keys; /* hs, rs, es in this order */
};

struct issuer *issuer_get(void);
void issuer_free(void);

/* PEM of a key's public half, as a NUL-terminated text; free() it. */
char *public_pem(EVP_PKEY *key);

/* base64url of text, appended. */
void append_base64url(struct buf *out, struct bytes text);

/* A compact JWS: header and payload as JSON, signed by alg with a key (HS256: with the bytes of secret). */
enum sign_with { SIGN_NONE, SIGN_HS256, SIGN_RS256, SIGN_ES256 };
void make_token(struct buf *out, const char *header, const char *payload, enum sign_with alg,
                EVP_PKEY *key, struct bytes secret);

/* Reads a token made so with the issuer's own keys. */
enum auth_result read_token(const char *header, const char *payload, enum sign_with alg,
                            struct auth_claims *claims);

int run_base64url_tests(void);
int run_key_tests(void);
int run_jwt_tests(void);
int run_rfc7515_tests(void);
int run_claims_tests(void);
int run_grant_tests(void);
