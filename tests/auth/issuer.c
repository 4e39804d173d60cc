#include "auth_test.h"

#include <openssl/ec.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

static struct issuer issuer;

char *public_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    long len = BIO_get_mem_data(bio, &data);
    /* The BIO's bytes may end where its memory does: there is no NUL to look for. */
    char *text = calloc(1, (size_t)len + 1);
    assert_non_null(text);
    memcpy(text, data, (size_t)len);
    BIO_free(bio);
    return text;
}

static void add(const char *kid, enum auth_alg alg, EVP_PKEY *key)
{
    char *pem = public_pem(key);
    assert_null(auth_keys_add_file(issuer.keys, bytes_str(kid), alg, bytes_str(pem)));
    free(pem);
}

struct issuer *issuer_get(void)
{
    if (issuer.keys)
        return &issuer;
    issuer.rsa = EVP_RSA_gen(2048);
    issuer.ec = EVP_EC_gen("P-256");
    issuer.other_ec = EVP_EC_gen("P-256");
    issuer.keys = auth_keys_create();
    assert_true(issuer.rsa && issuer.ec && issuer.other_ec && issuer.keys);
    assert_null(auth_keys_add_secret(issuer.keys, bytes_str("hs"), bytes_str(SECRET)));
    add("rs", AUTH_RS256, issuer.rsa);
    add("es", AUTH_ES256, issuer.ec);
    return &issuer;
}

void issuer_free(void)
{
    EVP_PKEY_free(issuer.rsa);
    EVP_PKEY_free(issuer.ec);
    EVP_PKEY_free(issuer.other_ec);
    auth_keys_destroy(issuer.keys);
    issuer = (struct issuer){0};
}

void append_base64url(struct buf *out, struct bytes text)
{
    unsigned char *encoded = malloc(text.len * 4 / 3 + 8);
    assert_non_null(encoded);
    int len = EVP_EncodeBlock(encoded, (const unsigned char *)text.data, (int)text.len);
    while (len > 0 && encoded[len - 1] == '=')
        len--;
    for (int i = 0; i < len; i++) {
        char c = (char)encoded[i];
        buf_byte(out, (char)(c == '+' ? '-' : c == '/' ? '_' : c));
    }
    free(encoded);
}

/* DER to r and s of 32 bytes each. */
static size_t raw_of_der(unsigned char *signature, size_t len)
{
    const unsigned char *at = signature;
    unsigned char raw[64];
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    assert_non_null(sig);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32), 32);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32), 32);
    ECDSA_SIG_free(sig);
    memcpy(signature, raw, sizeof(raw));
    return sizeof(raw);
}

static size_t sign(struct bytes text, enum sign_with alg, EVP_PKEY *key, struct bytes secret,
                   unsigned char signature[1024])
{
    size_t len = 1024;
    unsigned hmac_len = 0;
    if (alg == SIGN_NONE)
        return 0;
    if (alg == SIGN_HS256) {
        assert_non_null(HMAC(EVP_sha256(), secret.data, (int)secret.len,
                             (const unsigned char *)text.data, text.len, signature, &hmac_len));
        return hmac_len;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(
        EVP_DigestSign(ctx, signature, &len, (const unsigned char *)text.data, text.len), 1);
    EVP_MD_CTX_free(ctx);
    return alg == SIGN_ES256 ? raw_of_der(signature, len) : len;
}

void make_token(struct buf *out, const char *header, const char *payload, enum sign_with alg,
                EVP_PKEY *key, struct bytes secret)
{
    unsigned char signature[1024];
    buf_clear(out);
    append_base64url(out, bytes_str(header));
    buf_byte(out, '.');
    append_base64url(out, bytes_str(payload));
    size_t len = sign(buf_view(out), alg, key, secret, signature);
    buf_byte(out, '.');
    append_base64url(out, bytes_of((const char *)signature, len));
}

enum auth_result read_token(const char *header, const char *payload, enum sign_with alg,
                            struct auth_claims *claims)
{
    struct issuer *own = issuer_get();
    struct auth_claims unused;
    struct buf token = {0};
    make_token(&token, header, payload, alg, alg == SIGN_RS256 ? own->rsa : own->ec,
               bytes_str(SECRET));
    enum auth_result result =
        jwt_read(own->keys, buf_view(&token), NOW_MS, 2000, claims ? claims : &unused);
    buf_fini(&token);
    return result;
}
