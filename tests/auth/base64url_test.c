#include "auth/base64url.h"
#include "auth_test.h"

static ssize_t decode(const char *text, unsigned char *out)
{
    return base64url_decode(bytes_str(text), out, 16);
}

static void decode__takes_what_rfc_4648_has(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {{"", ""},           {"Zg", "f"},          {"Zm8", "fo"},         {"Zm9v", "foo"},
                 {"Zm9vYg", "foob"}, {"Zm9vYmE", "fooba"}, {"Zm9vYmFy", "foobar"}};
    unsigned char out[16];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ssize_t len = decode(cases[i].text, out);
        assert_int_equal(len, strlen(cases[i].expected));
        assert_memory_equal(out, cases[i].expected, (size_t)len);
    }
    assert_int_equal(decode("-_-_", out), 3);
    assert_memory_equal(out, "\xfb\xff\xbf", 3);
}

static void decode__refuses_every_other_spelling(void **state)
{
    (void)state;
    static const char *const bad[] = {"Zg==",  "Zm8=",    "Z",       "Zm9vY", "Zh",
                                      "Zm9",   "+/+/",    "Zm 9",    "Zm9\n", "Zm9v.",
                                      "Zm9v=", "Zm9\x80", "\xc3\xa4"};
    unsigned char out[16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(decode(bad[i], out), -1);
    assert_int_equal(base64url_decode(bytes_of("Zm\0v", 4), out, sizeof(out)), -1);
}

static void decode__keeps_to_the_room_it_has(void **state)
{
    (void)state;
    unsigned char out[4] = {0, 0, 0, 0x55};
    assert_int_equal(base64url_decode(bytes_str("Zm9v"), out, 3), 3);
    assert_int_equal(out[3], 0x55);
    assert_int_equal(base64url_decode(bytes_str("Zm9v"), out, 2), -1);
    assert_int_equal(base64url_decode(bytes_str(""), out, 0), 0);
}

static void decode_any__takes_both_alphabets_and_padding(void **state)
{
    (void)state;
    unsigned char out[16];
    assert_int_equal(base64_decode_any(bytes_str("+/-_"), out, sizeof(out)), 3);
    assert_int_equal(base64_decode_any(bytes_str("Zg=="), out, sizeof(out)), 1);
    assert_int_equal(base64_decode_any(bytes_str("Zg"), out, sizeof(out)), 1);
    assert_int_equal(base64_decode_any(bytes_str("Z g"), out, sizeof(out)), -1);
}

int run_base64url_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode__takes_what_rfc_4648_has),
        cmocka_unit_test(decode__refuses_every_other_spelling),
        cmocka_unit_test(decode__keeps_to_the_room_it_has),
        cmocka_unit_test(decode_any__takes_both_alphabets_and_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
