#include "ws/head.h"
#include "ws/test_ws.h"

static void accept_of_the_standards_example__as_printed_there(void **state)
{
    (void)state;
    char accept[WS_ACCEPT_LEN];
    head_accept(BYTES_LIT("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    assert_bytes(bytes_of(accept, WS_ACCEPT_LEN), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    head_accept(BYTES_LIT("x3JJHMbDL1EzLkh9GBhXDw=="), accept);
    assert_bytes(bytes_of(accept, WS_ACCEPT_LEN), "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
}

static void assert_next(struct bytes *rest, const char *name, const char *value)
{
    struct bytes got_name;
    struct bytes got_value;
    assert_true(query_next(rest, &got_name, &got_value));
    assert_bytes(got_name, name);
    assert_bytes(got_value, value);
}

static void query__walked_in_order(void **state)
{
    (void)state;
    struct bytes rest = bytes_str("&room=42&&room=43&flag&empty=&a=b=c&=x&");
    struct bytes name;
    struct bytes value;
    assert_next(&rest, "room", "42");
    assert_next(&rest, "room", "43");
    assert_next(&rest, "flag", "");
    assert_next(&rest, "empty", "");
    assert_next(&rest, "a", "b=c");
    assert_next(&rest, "", "x");
    assert_false(query_next(&rest, &name, &value));
    assert_false(query_next(&rest, &name, &value));
    rest = (struct bytes){0};
    assert_false(query_next(&rest, &name, &value));
}

static void decode__percent_and_plus(void **state)
{
    (void)state;
    char out[16];
    ssize_t len = query_decode(BYTES_LIT("a+b%2Bc%2fd%00"), out, sizeof(out));
    assert_int_equal(len, 8);
    assert_memory_equal(out, "a b+c/d\0", 8);
    assert_int_equal(query_decode((struct bytes){0}, out, 0), 0);
}

static void decode_malformed__refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"%", "%2", "a%", "%g0", "%0g", "%%20", "% 0"};
    char out[16];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(query_decode(bytes_str(wrong[i]), out, sizeof(out)), -1);
    /* What stands behind the part is not part of it. */
    assert_int_equal(query_decode(bytes_of("%41", 2), out, sizeof(out)), -1);
}

static void decode_past_cap__refused(void **state)
{
    (void)state;
    char out[3];
    assert_int_equal(query_decode(BYTES_LIT("%61%62%63"), out, 3), 3);
    assert_int_equal(query_decode(BYTES_LIT("abcd"), out, 3), -1);
    assert_int_equal(query_decode(BYTES_LIT("a"), out, 0), -1);
}

int run_accept_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_of_the_standards_example__as_printed_there),
        cmocka_unit_test(query__walked_in_order),
        cmocka_unit_test(decode__percent_and_plus),
        cmocka_unit_test(decode_malformed__refused),
        cmocka_unit_test(decode_past_cap__refused),
    };
    return cmocka_run_group_tests_name("ws accept and query", tests, NULL, NULL);
}
