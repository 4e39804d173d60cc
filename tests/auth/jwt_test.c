#include "auth_test.h"

#define HS "{\"alg\":\"HS256\",\"kid\":\"hs\"}"
#define RS "{\"alg\":\"RS256\",\"kid\":\"rs\"}"
#define ES "{\"alg\":\"ES256\",\"kid\":\"es\"}"
#define ALICE "{\"sub\":\"alice\",\"exp\":1795000060}"

static void token__of_each_algorithm_is_read(void **state)
{
    (void)state;
    struct auth_claims claims;
    assert_int_equal(read_token(HS, ALICE, SIGN_HS256, &claims), AUTH_OK);
    assert_string_equal(claims.user, "alice");
    assert_int_equal(claims.expires_s, 1795000060);
    assert_int_equal(read_token(RS, ALICE, SIGN_RS256, &claims), AUTH_OK);
    /* Signatures of ES256 differ each time: short r and s come up too. */
    for (int i = 0; i < 300; i++)
        assert_int_equal(read_token(ES, ALICE, SIGN_ES256, &claims), AUTH_OK);
}

static void token__without_kid_is_the_first_keys(void **state)
{
    (void)state;
    assert_int_equal(read_token("{\"alg\":\"HS256\"}", ALICE, SIGN_HS256, NULL), AUTH_OK);
    assert_int_equal(read_token("{\"alg\":\"ES256\"}", ALICE, SIGN_ES256, NULL), AUTH_ALGORITHM);
}

static void token__with_an_unknown_kid_is_refused(void **state)
{
    (void)state;
    assert_int_equal(read_token("{\"alg\":\"HS256\",\"kid\":\"nope\"}", ALICE, SIGN_HS256, NULL),
                     AUTH_UNKNOWN_KEY);
    assert_int_equal(read_token("{\"alg\":\"HS256\",\"kid\":\"\"}", ALICE, SIGN_HS256, NULL),
                     AUTH_UNKNOWN_KEY);
    assert_int_equal(read_token("{\"alg\":\"HS256\",\"kid\":7}", ALICE, SIGN_HS256, NULL),
                     AUTH_MALFORMED);
    assert_int_equal(
        read_token("{\"alg\":\"HS256\",\"kid\":\"\\u0068s\"}", ALICE, SIGN_HS256, NULL), AUTH_OK);
}

static void algorithm__is_the_keys_and_never_the_tokens(void **state)
{
    (void)state;
    struct issuer *issuer = issuer_get();
    struct auth_claims claims;
    struct buf token = {0};
    char *pem = public_pem(issuer->rsa);
    /* Signed with the public key as a secret, the classic. */
    make_token(&token, "{\"alg\":\"HS256\",\"kid\":\"rs\"}", ALICE, SIGN_HS256, NULL,
               bytes_str(pem));
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_ALGORITHM);
    make_token(&token, RS, ALICE, SIGN_HS256, NULL, bytes_str(pem));
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_SIGNATURE);
    free(pem);
    buf_fini(&token);
    static const char *const none[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"none\",\"kid\":\"hs\"}",
        "{\"alg\":\"None\",\"kid\":\"rs\"}",
        "{\"alg\":\"nOnE\",\"kid\":\"es\"}",
        "{\"alg\":\"\",\"kid\":\"es\"}",
        "{\"alg\":\"HS384\",\"kid\":\"hs\"}",
        "{\"alg\":\"hs256\",\"kid\":\"hs\"}",
        "{\"alg\":\"HS256 \",\"kid\":\"hs\"}",
        "{\"alg\":\"a name that is longer than every one that there is\",\"kid\":\"hs\"}"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_int_equal(read_token(none[i], ALICE, SIGN_NONE, NULL), AUTH_ALGORITHM);
        assert_int_equal(read_token(none[i], ALICE, SIGN_HS256, NULL), AUTH_ALGORITHM);
    }
    assert_int_equal(read_token(HS, ALICE, SIGN_NONE, NULL), AUTH_SIGNATURE);
    assert_int_equal(read_token(ES, ALICE, SIGN_NONE, NULL), AUTH_SIGNATURE);
}

static void critical_extensions__are_refused(void **state)
{
    (void)state;
    assert_int_equal(
        read_token("{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[\"b64\"],\"b64\":false}", ALICE,
                   SIGN_HS256, NULL),
        AUTH_ALGORITHM);
}

static void signature__of_another_key_or_text_is_refused(void **state)
{
    (void)state;
    struct issuer *issuer = issuer_get();
    struct auth_claims claims;
    struct buf token = {0};
    make_token(&token, ES, ALICE, SIGN_ES256, issuer->other_ec, (struct bytes){0});
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_SIGNATURE);
    make_token(&token, HS, ALICE, SIGN_HS256, NULL, bytes_str("0123456789abcdef0123456789abcdeF"));
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_SIGNATURE);
    buf_fini(&token);
}

/* Every byte of a token counts: a flipped one is refused, wherever it stands. */
static void token__with_any_byte_changed_is_refused(void **state)
{
    (void)state;
    struct issuer *issuer = issuer_get();
    struct auth_claims claims;
    struct buf token = {0};
    static const enum sign_with algs[] = {SIGN_HS256, SIGN_RS256, SIGN_ES256};
    static const char *const headers[] = {HS, RS, ES};
    for (size_t a = 0; a < 3; a++) {
        make_token(&token, headers[a], ALICE, algs[a], a == 1 ? issuer->rsa : issuer->ec,
                   bytes_str(SECRET));
        for (size_t i = 0; i < token.len; i++) {
            char kept = token.data[i];
            token.data[i] = kept == 'A' ? 'B' : 'A';
            assert_int_not_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims),
                                 AUTH_OK);
            token.data[i] = kept;
        }
        for (size_t len = 0; len < token.len; len++)
            assert_int_not_equal(
                jwt_read(issuer->keys, bytes_of(token.data, len), NOW_MS, 0, &claims), AUTH_OK);
        buf_byte(&token, 'A');
        assert_int_not_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_OK);
    }
    buf_fini(&token);
}

static void form__must_be_three_parts_of_base64url(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      "...",
                                      "a",
                                      "a.b",
                                      "a.b.c.d",
                                      "e30.e30.",
                                      "e30=.e30.e30",
                                      "e30.e30.e30.e30",
                                      "W10.e30.",
                                      "bnVsbA.e30.",
                                      "e30 .e30.e30",
                                      " e30.e30.e30",
                                      "9c394a175508edfcd3d1db3b7bc8008d"};
    struct auth_claims claims;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(jwt_read(issuer_get()->keys, bytes_str(bad[i]), NOW_MS, 0, &claims),
                         AUTH_MALFORMED);
    struct buf big = {0};
    for (int i = 0; i < 3 * JWT_BYTES_MAX; i++)
        buf_byte(&big, 'A');
    assert_int_equal(jwt_read(issuer_get()->keys, buf_view(&big), NOW_MS, 0, &claims),
                     AUTH_MALFORMED);
    big.data[100] = big.data[200] = '.';
    assert_int_equal(jwt_read(issuer_get()->keys, buf_view(&big), NOW_MS, 0, &claims),
                     AUTH_MALFORMED);
    buf_fini(&big);
}

static void times__are_judged_with_the_leeway(void **state)
{
    (void)state; /* read_token() allows 2 s */
    assert_int_equal(read_token(HS, "{\"sub\":\"a\",\"exp\":1794999998}", SIGN_HS256, NULL),
                     AUTH_EXPIRED);
    assert_int_equal(read_token(HS, "{\"sub\":\"a\",\"exp\":1794999999}", SIGN_HS256, NULL),
                     AUTH_OK);
    assert_int_equal(read_token(HS, "{\"sub\":\"a\",\"nbf\":1795000002}", SIGN_HS256, NULL),
                     AUTH_OK);
    assert_int_equal(read_token(HS, "{\"sub\":\"a\",\"nbf\":1795000003}", SIGN_HS256, NULL),
                     AUTH_NOT_YET);
}

static void claims__are_read_only_behind_a_good_signature(void **state)
{
    (void)state;
    struct issuer *issuer = issuer_get();
    struct auth_claims claims;
    struct buf token = {0};
    make_token(&token, HS, "not JSON", SIGN_HS256, NULL,
               bytes_str("another secret, just as long as it"));
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_SIGNATURE);
    make_token(&token, HS, "not JSON", SIGN_HS256, NULL, bytes_str(SECRET));
    assert_int_equal(jwt_read(issuer->keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_MALFORMED);
    buf_fini(&token);
}

int run_jwt_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token__of_each_algorithm_is_read),
        cmocka_unit_test(token__without_kid_is_the_first_keys),
        cmocka_unit_test(token__with_an_unknown_kid_is_refused),
        cmocka_unit_test(algorithm__is_the_keys_and_never_the_tokens),
        cmocka_unit_test(critical_extensions__are_refused),
        cmocka_unit_test(signature__of_another_key_or_text_is_refused),
        cmocka_unit_test(token__with_any_byte_changed_is_refused),
        cmocka_unit_test(form__must_be_three_parts_of_base64url),
        cmocka_unit_test(times__are_judged_with_the_leeway),
        cmocka_unit_test(claims__are_read_only_behind_a_good_signature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
