#include "auth/key.h"

#include "auth/base64url.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>

enum {
    SECRET_BYTES_MIN = 32,
    SECRET_BYTES_MAX = 1024,
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 8192, /* a verification grows with it: 16,384 bits would cost milliseconds */
    SHA256_BYTES = 32,
    ES256_HALF = 32, /* bytes of r, and of s */
    ES256_DER_MAX = 2 * (ES256_HALF + 3) + 2
};

/* `ready` is a context in which everything that depends on the key alone is done: a verification copies it, which saves the
 * look-ups by name that make up most of an HMAC's time in OpenSSL 3. */
struct auth_key {
    char kid[AUTH_KID_MAX];
    size_t kid_len;
    enum auth_alg alg;
    EVP_MAC_CTX *mac;   /* HS256 */
    EVP_MD_CTX *verify; /* RS256, ES256 */
};

struct auth_keys {
    size_t count;
    struct auth_key list[AUTH_KEYS_MAX];
};

const char *auth_alg_name(enum auth_alg alg)
{
    static const char *const names[AUTH_ALG_COUNT] = {"HS256", "RS256", "ES256"};
    return names[alg];
}

bool auth_kid_ok(struct bytes kid)
{
    for (size_t i = 0; i < kid.len; i++) {
        char c = kid.data[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-';
        if (!fine)
            return false;
    }
    return kid.len > 0 && kid.len <= AUTH_KID_MAX;
}

struct auth_keys *auth_keys_create(void)
{
    return calloc(1, sizeof(struct auth_keys));
}

void auth_keys_destroy(struct auth_keys *keys)
{
    for (size_t i = 0; keys && i < keys->count; i++) {
        EVP_MAC_CTX_free(keys->list[i].mac);
        EVP_MD_CTX_free(keys->list[i].verify);
    }
    free(keys);
}

size_t auth_keys_count(const struct auth_keys *keys)
{
    return keys->count;
}

/* The place of the next key, named; NULL with the reason in *why. */
static struct auth_key *place(struct auth_keys *keys, struct bytes kid, enum auth_alg alg,
                              const char **why)
{
    if (keys->count == AUTH_KEYS_MAX) {
        *why = "there may be at most 16 keys; remove those whose tickets have all expired";
        return NULL;
    }
    struct auth_key *key = &keys->list[keys->count];
    *key = (struct auth_key){.kid_len = kid.len, .alg = alg};
    memcpy(key->kid, kid.data, kid.len);
    return key;
}

static const char *add_hmac(struct auth_keys *keys, struct bytes kid, struct bytes secret)
{
    const char *why = NULL;
    char digest[] = "SHA256";
    if (secret.len < SECRET_BYTES_MIN || secret.len > SECRET_BYTES_MAX)
        return "a secret must have 32 to 1024 bytes; `openssl rand -base64 32` makes one, to be "
               "given as base64:…";
    if (memmem(secret.data, secret.len, "-----BEGIN ", 11))
        return "this is a key in PEM, which is no secret of HS256; set alg to RS256 or ES256";
    struct auth_key *key = place(keys, kid, AUTH_HS256, &why);
    if (!key)
        return why;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    key->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    if (!key->mac ||
        !EVP_MAC_init(key->mac, (const unsigned char *)secret.data, secret.len, params)) {
        EVP_MAC_CTX_free(key->mac);
        return "OpenSSL can't use it: out of memory, or HMAC is not there (OPENSSL_CONF?)";
    }
    keys->count++;
    return NULL;
}

const char *auth_keys_add_secret(struct auth_keys *keys, struct bytes kid, struct bytes secret)
{
    static const char prefix[] = "base64:";
    unsigned char decoded[SECRET_BYTES_MAX];
    size_t prefix_len = sizeof(prefix) - 1;
    if (secret.len < prefix_len || memcmp(secret.data, prefix, prefix_len) != 0)
        return add_hmac(keys, kid, secret);
    struct bytes text = bytes_of(secret.data + prefix_len, secret.len - prefix_len);
    ssize_t len = base64_decode_any(text, decoded, sizeof(decoded));
    if (len < 0)
        return "what follows base64: must be base64 or base64url of 32 to 1024 bytes";
    const char *why = add_hmac(keys, kid, bytes_of((const char *)decoded, (size_t)len));
    OPENSSL_cleanse(decoded, sizeof(decoded));
    return why;
}

/* Why a public key is none of the algorithm's, or NULL. */
static const char *judge_public(const EVP_PKEY *pkey, enum auth_alg alg)
{
    char group[32] = "";
    if (alg == AUTH_RS256) {
        if (!EVP_PKEY_is_a(pkey, "RSA"))
            return "RS256 needs an RSA key, this is another kind";
        int bits = EVP_PKEY_get_bits(pkey);
        return bits < RSA_BITS_MIN || bits > RSA_BITS_MAX ? "an RSA key must have 2048 to 8192 bits"
                                                          : NULL;
    }
    size_t len = 0;
    if (!EVP_PKEY_is_a(pkey, "EC") ||
        !EVP_PKEY_get_utf8_string_param(pkey, "group", group, sizeof(group), &len) ||
        strcmp(group, "prime256v1") != 0)
        return "ES256 needs an EC key on P-256 (prime256v1), this is another kind";
    return NULL;
}

static const char *add_public(struct auth_keys *keys, struct bytes kid, enum auth_alg alg,
                              struct bytes pem)
{
    if (memmem(pem.data, pem.len, "PRIVATE KEY-----", 16))
        return "holds a private key, which must not lie on a gateway; give the public one: openssl "
               "pkey -in FILE -pubout";
    BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    if (!pkey)
        return "holds no public key in PEM (-----BEGIN PUBLIC KEY-----), as openssl pkey -pubout "
               "writes it";
    const char *why = judge_public(pkey, alg);
    struct auth_key *key = why ? NULL : place(keys, kid, alg, &why);
    if (key) {
        key->verify = EVP_MD_CTX_new();
        if (key->verify &&
            EVP_DigestVerifyInit_ex(key->verify, NULL, "SHA256", NULL, NULL, pkey, NULL) == 1) {
            keys->count++;
        } else {
            EVP_MD_CTX_free(key->verify);
            why = "OpenSSL can't use it: out of memory, or the algorithm is not there "
                  "(OPENSSL_CONF?)";
        }
    }
    EVP_PKEY_free(pkey);
    return why;
}

const char *auth_keys_add_file(struct auth_keys *keys, struct bytes kid, enum auth_alg alg,
                               struct bytes text)
{
    if (alg != AUTH_HS256)
        return add_public(keys, kid, alg, text);
    if (text.len > 0 && text.data[text.len - 1] == '\n')
        text.len--;
    if (text.len > 0 && text.data[text.len - 1] == '\r')
        text.len--;
    return auth_keys_add_secret(keys, kid, text);
}

const struct auth_key *auth_keys_find(const struct auth_keys *keys, struct bytes kid)
{
    for (size_t i = 0; i < keys->count; i++) {
        const struct auth_key *key = &keys->list[i];
        if (!kid.data || bytes_equal(bytes_of(key->kid, key->kid_len), kid))
            return key;
    }
    return NULL;
}

enum auth_alg auth_key_alg(const struct auth_key *key)
{
    return key->alg;
}

static bool verify_hmac(const struct auth_key *key, struct bytes text,
                        const unsigned char *signature, size_t len)
{
    unsigned char own[SHA256_BYTES];
    size_t own_len = 0;
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(key->mac);
    bool done = ctx && EVP_MAC_update(ctx, (const unsigned char *)text.data, text.len) &&
                EVP_MAC_final(ctx, own, &own_len, sizeof(own));
    EVP_MAC_CTX_free(ctx);
    return done && len == own_len && CRYPTO_memcmp(own, signature, own_len) == 0;
}

/* Appends a positive INTEGER (X.690 §8.3): the shortest form, a zero byte before a set top bit. */
static size_t append_integer(unsigned char *out, const unsigned char *half)
{
    size_t skip = 0;
    while (skip < ES256_HALF - 1 && half[skip] == 0)
        skip++;
    size_t zero = half[skip] & 0x80 ? 1 : 0;
    size_t len = ES256_HALF - skip;
    out[0] = 0x02;
    out[1] = (unsigned char)(len + zero);
    out[2] = 0;
    memcpy(out + 2 + zero, half + skip, len);
    return 2 + zero + len;
}

/* r and s one after the other, as JOSE has them, to the SEQUENCE that OpenSSL wants. */
static size_t es256_to_der(const unsigned char *raw, unsigned char out[ES256_DER_MAX])
{
    size_t len = append_integer(out + 2, raw);
    len += append_integer(out + 2 + len, raw + ES256_HALF);
    out[0] = 0x30;
    out[1] = (unsigned char)len;
    return 2 + len;
}

static bool verify_public(const struct auth_key *key, struct bytes text,
                          const unsigned char *signature, size_t len)
{
    unsigned char der[ES256_DER_MAX];
    if (key->alg == AUTH_ES256) {
        if (len != 2 * ES256_HALF)
            return false;
        len = es256_to_der(signature, der);
        signature = der;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good =
        ctx && EVP_MD_CTX_copy_ex(ctx, key->verify) == 1 &&
        EVP_DigestVerify(ctx, signature, len, (const unsigned char *)text.data, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (!good)
        ERR_clear_error(); /* the thread's queue of errors would grow with each bad ticket */
    return good;
}

bool auth_key_verify(const struct auth_key *key, struct bytes text, const unsigned char *signature,
                     size_t len)
{
    return key->alg == AUTH_HS256 ? verify_hmac(key, text, signature, len)
                                  : verify_public(key, text, signature, len);
}
