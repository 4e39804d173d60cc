#include "auth_test.h"

#include <openssl/pem.h>

static const char *add_secret(const char *secret)
{
    struct auth_keys *keys = auth_keys_create();
    assert_non_null(keys);
    const char *why = auth_keys_add_secret(keys, bytes_str("k"), bytes_str(secret));
    assert_int_equal(auth_keys_count(keys), why ? 0 : 1);
    auth_keys_destroy(keys);
    return why;
}

static const char *add_file(enum auth_alg alg, const char *text)
{
    struct auth_keys *keys = auth_keys_create();
    assert_non_null(keys);
    const char *why = auth_keys_add_file(keys, bytes_str("k"), alg, bytes_str(text));
    assert_int_equal(auth_keys_count(keys), why ? 0 : 1);
    auth_keys_destroy(keys);
    return why;
}

static void assert_says(const char *why, const char *part)
{
    assert_non_null(why);
    if (!strstr(why, part))
        fail_msg("`%s` does not say `%s`", why, part);
}

static void secret__must_be_long_enough(void **state)
{
    (void)state;
    assert_null(add_secret(SECRET));
    assert_says(add_secret("0123456789abcdef0123456789abcde"), "32 to 1024");
    assert_says(add_secret(""), "32 to 1024");
}

static void secret__may_be_base64_of_either_alphabet(void **state)
{
    (void)state;
    assert_null(add_secret(
        "base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTw"
        "jAzZr1Z9CAow=="));
    assert_null(add_secret(
        "base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTw"
        "jAzZr1Z9CAow"));
    assert_says(add_secret("base64:AyM1"), "32 to 1024");
    assert_says(add_secret("base64:!!!!"), "base64");
}

static void secret__is_no_public_key(void **state)
{
    (void)state;
    char *pem = public_pem(issuer_get()->rsa);
    assert_says(add_secret(pem), "RS256 or ES256");
    assert_says(add_file(AUTH_HS256, pem), "RS256 or ES256");
    free(pem);
}

static void file__of_a_secret_loses_one_line_end(void **state)
{
    (void)state;
    unsigned char mac[32] = {0};
    struct auth_keys *keys = auth_keys_create();
    assert_null(auth_keys_add_file(keys, bytes_str("a"), AUTH_HS256, bytes_str(SECRET "\r\n")));
    assert_null(auth_keys_add_secret(keys, bytes_str("b"), bytes_str(SECRET)));
    struct buf token = {0};
    struct auth_claims claims;
    make_token(&token, "{\"alg\":\"HS256\",\"kid\":\"a\"}", "{\"sub\":\"u\"}", SIGN_HS256, NULL,
               bytes_str(SECRET));
    assert_int_equal(jwt_read(keys, buf_view(&token), NOW_MS, 0, &claims), AUTH_OK);
    assert_false(auth_key_verify(auth_keys_find(keys, bytes_str("b")), bytes_str("x"), mac, 32));
    buf_fini(&token);
    auth_keys_destroy(keys);
}

static void file__must_hold_the_public_key_of_its_algorithm(void **state)
{
    (void)state;
    char *rsa = public_pem(issuer_get()->rsa);
    char *ec = public_pem(issuer_get()->ec);
    EVP_PKEY *small = EVP_RSA_gen(1024);
    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    char *small_pem = public_pem(small);
    char *p384_pem = public_pem(p384);
    assert_null(add_file(AUTH_RS256, rsa));
    assert_null(add_file(AUTH_ES256, ec));
    assert_says(add_file(AUTH_ES256, rsa), "P-256");
    assert_says(add_file(AUTH_RS256, ec), "RSA");
    assert_says(add_file(AUTH_RS256, small_pem), "2048");
    assert_says(add_file(AUTH_ES256, p384_pem), "P-256");
    assert_says(add_file(AUTH_ES256, "nothing"), "PEM");
    assert_says(add_file(AUTH_ES256, ""), "PEM");
    free(rsa);
    free(ec);
    free(small_pem);
    free(p384_pem);
    EVP_PKEY_free(small);
    EVP_PKEY_free(p384);
}

static void file__with_a_private_key_is_refused(void **state)
{
    (void)state;
    char *data;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, issuer_get()->ec, NULL, NULL, 0, NULL, NULL), 1);
    BIO_write(bio, "", 1);
    BIO_get_mem_data(bio, &data);
    assert_says(add_file(AUTH_ES256, data), "private");
    BIO_free(bio);
}

static void keys__are_found_by_name_and_the_first_without(void **state)
{
    (void)state;
    const struct auth_keys *keys = issuer_get()->keys;
    assert_int_equal(auth_key_alg(auth_keys_find(keys, bytes_str("es"))), AUTH_ES256);
    assert_int_equal(auth_key_alg(auth_keys_find(keys, bytes_str("rs"))), AUTH_RS256);
    assert_int_equal(auth_key_alg(auth_keys_find(keys, (struct bytes){0})), AUTH_HS256);
    assert_null(auth_keys_find(keys, bytes_str("")));
    assert_null(auth_keys_find(keys, bytes_str("e")));
    assert_null(auth_keys_find(keys, bytes_str("ess")));
}

static void keys__are_bounded(void **state)
{
    (void)state;
    struct auth_keys *keys = auth_keys_create();
    for (int i = 0; i < AUTH_KEYS_MAX; i++)
        assert_null(auth_keys_add_secret(keys, bytes_str("k"), bytes_str(SECRET)));
    assert_says(auth_keys_add_secret(keys, bytes_str("k"), bytes_str(SECRET)), "at most 16");
    auth_keys_destroy(keys);
    auth_keys_destroy(NULL);
}

static void kid__may_be_what_people_use(void **state)
{
    (void)state;
    assert_true(auth_kid_ok(bytes_str("2026-11")));
    assert_true(auth_kid_ok(bytes_str("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")));
    assert_false(auth_kid_ok(bytes_str("")));
    assert_false(auth_kid_ok(bytes_str("a.b")));
    assert_false(auth_kid_ok(bytes_str("a b")));
    assert_false(auth_kid_ok(bytes_str(SECRET SECRET "x")));
}

int run_key_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret__must_be_long_enough),
        cmocka_unit_test(secret__may_be_base64_of_either_alphabet),
        cmocka_unit_test(secret__is_no_public_key),
        cmocka_unit_test(file__of_a_secret_loses_one_line_end),
        cmocka_unit_test(file__must_hold_the_public_key_of_its_algorithm),
        cmocka_unit_test(file__with_a_private_key_is_refused),
        cmocka_unit_test(keys__are_found_by_name_and_the_first_without),
        cmocka_unit_test(keys__are_bounded),
        cmocka_unit_test(kid__may_be_what_people_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
