/* fuzz_ticket.c: tickets. As a whole token, as claims behind a good signature, and as base64url: whatever the bytes, what is
 * accepted is well-formed, and nothing is accepted whose signature was not made with our key. */
#include "auth/base64url.h"
#include "auth/grant.h"
#include "auth/jwt.h"

#include "base/check.h"

#include <stdlib.h>

enum { NOW_S = 1795000000 };

static const char public_key[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
    "-----END PUBLIC KEY-----\n";

static struct auth_keys *keys_of_test(void)
{
    static struct auth_keys *keys;
    if (keys)
        return keys;
    map_seed();
    keys = auth_keys_create();
    REQUIRE(keys);
    REQUIRE(!auth_keys_add_secret(keys, bytes_str("hs"),
                                  bytes_str("0123456789abcdef0123456789abcdef")));
    REQUIRE(!auth_keys_add_file(keys, bytes_str("es"), AUTH_ES256, bytes_str(public_key)));
    return keys;
}

static void check_names(const struct auth_claims *claims, const struct auth_names *names)
{
    struct bytes list = auth_names_of(claims, names);
    struct bytes name;
    size_t count = 0;
    REQUIRE((size_t)names->at + names->len <= claims->text_len);
    while (auth_names_next(&list, &name)) {
        REQUIRE(name.len > 0 && name.len <= ROOM_NAME_MAX + 1);
        REQUIRE(name.data + name.len <= claims->text + claims->text_len);
        count++;
    }
    REQUIRE(count <= AUTH_LIST_MAX && names->len <= AUTH_RIGHTS_MAX);
}

static void check_claims(const struct auth_claims *claims)
{
    static struct grants grants;
    struct bytes list = auth_names_of(claims, &claims->join);
    struct bytes name;
    REQUIRE(name_is_user(bytes_str(claims->user)));
    REQUIRE(!claims->session[0] || name_is_room(bytes_str(claims->session)));
    check_names(claims, &claims->rooms);
    check_names(claims, &claims->join);
    check_names(claims, &claims->send);
    struct grant *grant = grants_take(&grants, claims);
    REQUIRE(grant);
    while (auth_names_next(&list, &name))
        REQUIRE(grant_allows_room(grant, name));
    list = auth_names_of(claims, &claims->send);
    while (auth_names_next(&list, &name))
        REQUIRE(grant_allows_type(grant, name));
    grants_release(&grants, grant);
    REQUIRE(grants.map.count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct auth_claims claims;
    unsigned char *decoded = malloc(size + 1);
    /* A block of its own, so that reads past the end are seen. */
    char *copy = malloc(size ? size : 1);
    REQUIRE(decoded && copy);
    if (size > 0)
        memcpy(copy, data, size);
    struct bytes text = bytes_of(copy, size);
    enum auth_result result = jwt_read(keys_of_test(), text, UINT64_C(1000) * NOW_S, 0, &claims);
    if (result == AUTH_OK)
        check_claims(&claims);
    if (auth_claims_read(text, &claims) == AUTH_OK)
        check_claims(&claims);
    ssize_t len = base64url_decode(text, decoded, size + 1);
    REQUIRE(len < 0 || (size_t)len == size * 3 / 4);
    free(decoded);
    free(copy);
    return 0;
}
