/* rfc7515_test.c: the examples of RFC 7515, Appendix A.1 to A.3. Their claims have no `sub`, so what is checked is that the
 * signature is good and the claims are what is missing; with a byte of it changed, the signature. */
#include "auth_test.h"

#define PAYLOAD                                                                                    \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cn"   \
    "VlfQ"

static const char a1_key[] =
    "base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
static const char a1[] = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." PAYLOAD
                         ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/* n and e of A.2 in PEM. */
static const char a2_key[] = "-----BEGIN PUBLIC KEY-----\n"
                             "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj\n"
                             "NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz\n"
                             "P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo\n"
                             "9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB\n"
                             "EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX\n"
                             "FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp\n"
                             "oQIDAQAB\n"
                             "-----END PUBLIC KEY-----\n";
static const char a2[] =
    "eyJhbGciOiJSUzI1NiJ9." PAYLOAD
    ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5j"
    "ujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
    "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07"
    "Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
    "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUT"
    "I8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/* x and y of A.3 in PEM. */
static const char a3_key[] = "-----BEGIN PUBLIC KEY-----\n"
                             "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
                             "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
                             "-----END PUBLIC KEY-----\n";
static const char a3[] = "eyJhbGciOiJFUzI1NiJ9." PAYLOAD
                         ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKT"
                         "UJqPP3-Kg6NU1Q";

static void assert_vector(struct auth_keys *keys, const char *text)
{
    struct auth_claims claims;
    char *copy = strdup(text);
    assert_non_null(copy);
    assert_int_equal(jwt_read(keys, bytes_str(copy), NOW_MS, 0, &claims), AUTH_CLAIMS);
    char *signature = strrchr(copy, '.') + 1;
    signature[3] = signature[3] == 'A' ? 'B' : 'A';
    assert_int_equal(jwt_read(keys, bytes_str(copy), NOW_MS, 0, &claims), AUTH_SIGNATURE);
    free(copy);
    auth_keys_destroy(keys);
}

static void appendix_a1__hs256(void **state)
{
    (void)state;
    struct auth_keys *keys = auth_keys_create();
    assert_null(auth_keys_add_secret(keys, bytes_str("a1"), bytes_str(a1_key)));
    assert_vector(keys, a1);
}

static void appendix_a2__rs256(void **state)
{
    (void)state;
    struct auth_keys *keys = auth_keys_create();
    assert_null(auth_keys_add_file(keys, bytes_str("a2"), AUTH_RS256, bytes_str(a2_key)));
    assert_vector(keys, a2);
}

static void appendix_a3__es256(void **state)
{
    (void)state;
    struct auth_keys *keys = auth_keys_create();
    assert_null(auth_keys_add_file(keys, bytes_str("a3"), AUTH_ES256, bytes_str(a3_key)));
    assert_vector(keys, a3);
}

int run_rfc7515_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appendix_a1__hs256),
        cmocka_unit_test(appendix_a2__rs256),
        cmocka_unit_test(appendix_a3__es256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
