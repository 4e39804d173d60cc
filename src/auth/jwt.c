#include "auth/jwt.h"

#include "auth/base64url.h"
#include "json/json.h"

enum {
    HEADER_DEPTH = 8, /* a header may hold a whole JWK */
    HEADER_BYTES_MAX = 2048,
    SIGNATURE_BYTES_MAX = 1024, /* RSA of 8,192 bits */
    DECODED_BYTES_MAX = JWT_BYTES_MAX / 4 * 3
};

struct parts {
    struct bytes header;
    struct bytes payload;
    struct bytes signature;
    struct bytes signed_text; /* header, dot, payload */
};

static bool split(struct bytes token, struct parts *parts)
{
    const char *end = token.data + token.len;
    if (token.len == 0 || token.len > JWT_BYTES_MAX)
        return false;
    const char *first = memchr(token.data, '.', token.len);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second)
        return false;
    parts->header = bytes_of(token.data, (size_t)(first - token.data));
    parts->payload = bytes_of(first + 1, (size_t)(second - first - 1));
    parts->signature = bytes_of(second + 1, (size_t)(end - second - 1));
    parts->signed_text = bytes_of(token.data, (size_t)(second - token.data));
    return true; /* a third dot is refused by base64url */
}

/* The key that the header names, if it is one for the algorithm that the header speaks of. */
static enum auth_result find_key(const struct auth_keys *keys, struct bytes header,
                                 const struct auth_key **key)
{
    enum { ALG, KID, CRIT, COUNT };
    struct json_field fields[COUNT] = {
        [ALG] = {.name = "alg"}, [KID] = {.name = "kid"}, [CRIT] = {.name = "crit"}};
    char kid_text[AUTH_KID_MAX];
    char alg_text[16];
    struct bytes kid = {0};
    struct bytes alg;
    if (json_object(header, HEADER_DEPTH, fields, COUNT) != JSON_OK ||
        fields[ALG].value.kind != JSON_STRING)
        return AUTH_MALFORMED;
    if (fields[CRIT].value.kind != JSON_ABSENT)
        return AUTH_ALGORITHM;
    if (fields[KID].value.kind != JSON_ABSENT) {
        if (fields[KID].value.kind != JSON_STRING)
            return AUTH_MALFORMED;
        if (!json_text(fields[KID].value, kid_text, sizeof(kid_text), &kid))
            return AUTH_UNKNOWN_KEY;
    }
    *key = auth_keys_find(keys, kid);
    if (!*key)
        return AUTH_UNKNOWN_KEY;
    bool same = json_text(fields[ALG].value, alg_text, sizeof(alg_text), &alg) &&
                bytes_is(alg, auth_alg_name(auth_key_alg(*key)));
    return same ? AUTH_OK : AUTH_ALGORITHM;
}

enum auth_result jwt_read(const struct auth_keys *keys, struct bytes token, uint64_t now_ms,
                          uint64_t leeway_ms, struct auth_claims *out)
{
    unsigned char header[HEADER_BYTES_MAX];
    unsigned char signature[SIGNATURE_BYTES_MAX];
    unsigned char payload[DECODED_BYTES_MAX];
    struct parts parts;
    const struct auth_key *key = NULL;
    if (!split(token, &parts))
        return AUTH_MALFORMED;
    ssize_t header_len = base64url_decode(parts.header, header, sizeof(header));
    ssize_t payload_len = base64url_decode(parts.payload, payload, sizeof(payload));
    ssize_t signature_len = base64url_decode(parts.signature, signature, sizeof(signature));
    if (header_len < 0 || payload_len < 0 || signature_len < 0)
        return AUTH_MALFORMED;
    enum auth_result result =
        find_key(keys, bytes_of((const char *)header, (size_t)header_len), &key);
    if (result != AUTH_OK)
        return result;
    if (!auth_key_verify(key, parts.signed_text, signature, (size_t)signature_len))
        return AUTH_SIGNATURE;
    result = auth_claims_read(bytes_of((const char *)payload, (size_t)payload_len), out);
    return result == AUTH_OK ? auth_claims_judge(out, now_ms, leeway_ms) : result;
}
