#include "json/json.h"
#include "json/tests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct json_span span_of(const char *text)
{
    struct json_span span = {0};
    assert_int_equal(json_check(bytes_str(text), 4, &span), JSON_OK);
    return span;
}

static void expect_unescaped(const char *text, const char *expected, size_t len)
{
    char out[64];
    assert_int_equal(json_unescape(span_of(text), out, sizeof(out)), (ssize_t)len);
    assert_memory_equal(out, expected, len);
}

static void unescape__decodes_every_escape(void **state)
{
    (void)state;
    expect_unescaped("\"\"", "", 0);
    expect_unescaped("\"abc\"", "abc", 3);
    expect_unescaped("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    expect_unescaped("\"a\\u0000b\"", "a\0b", 3);
    expect_unescaped("\"\\u007f\\u0080\\u07FF\"", "\x7f\xc2\x80\xdf\xbf", 5);
    expect_unescaped("\"\\u0800\\uffff\"", "\xe0\xa0\x80\xef\xbf\xbf", 6);
    expect_unescaped("\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", 4);
    expect_unescaped("\"\\uD800\\uDC00\\udbff\\udfff\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8);
    expect_unescaped("\"x\xe2\x98\x83\\ny\"", "x\xe2\x98\x83\ny", 6);
}

static void unescape__refuses_lone_surrogates(void **state)
{
    (void)state;
    char out[64];
    static const char *const bad[] = {
        "\"\\ud800\"",        "\"\\udc00\"",        "\"\\ud800x\"",      "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\\ud800\""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(json_unescape(span_of(bad[i]), out, sizeof(out)), -1);
}

static void unescape__refuses_what_does_not_fit(void **state)
{
    (void)state;
    char out[4];
    assert_int_equal(json_unescape(span_of("\"abcd\""), out, 4), 4);
    assert_int_equal(json_unescape(span_of("\"abcde\""), out, 4), -1);
    assert_int_equal(json_unescape(span_of("\"abc\\n\""), out, 4), 4);
    assert_int_equal(json_unescape(span_of("\"abc\\u00e4\""), out, 4), -1);
    assert_int_equal(json_unescape(span_of("\"\\n\""), out, 0), -1);
    assert_int_equal(json_unescape(span_of("\"\""), out, 0), 0);
}

static void unescape__refuses_what_is_no_string(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(json_unescape(span_of("12"), out, sizeof(out)), -1);
    assert_int_equal(json_unescape((struct json_span){0}, out, sizeof(out)), -1);
}

static void text__points_into_the_input_where_nothing_is_escaped(void **state)
{
    (void)state;
    char scratch[4];
    struct bytes text;
    struct json_span span = span_of("\"much longer than the scratch\"");
    assert_true(json_text(span, scratch, sizeof(scratch), &text));
    assert_ptr_equal(text.data, span.raw.data + 1);
    assert_true(bytes_is(text, "much longer than the scratch"));
    assert_true(json_text(span_of("\"a\\u0062\""), scratch, sizeof(scratch), &text));
    assert_ptr_equal(text.data, scratch);
    assert_true(bytes_is(text, "ab"));
    assert_false(json_text(span_of("\"abcd\\n\""), scratch, sizeof(scratch), &text));
    assert_false(json_text(span_of("\"\\ud800\""), scratch, sizeof(scratch), &text));
    assert_false(json_text(span_of("7"), scratch, sizeof(scratch), &text));
    assert_false(json_text((struct json_span){0}, scratch, sizeof(scratch), &text));
}

static void uint53__takes_plain_integers_only(void **state)
{
    (void)state;
    uint64_t value = 1;
    assert_true(json_uint53(span_of("0"), &value));
    assert_int_equal(value, 0);
    assert_true(json_uint53(span_of("9007199254740991"), &value));
    assert_true(value == 9007199254740991u);
    static const char *const bad[] = {"9007199254740992",
                                      "-0",
                                      "-1",
                                      "1.0",
                                      "1e2",
                                      "\"1\"",
                                      "true",
                                      "[1]",
                                      "0.5e1",
                                      "10000000000000000",
                                      "18446744073709551617"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(json_uint53(span_of(bad[i]), &value));
    assert_true(value == 9007199254740991u);
    assert_false(json_uint53((struct json_span){0}, &value));
}

static void expect_quoted(struct bytes text, const char *expected)
{
    struct buf out = {0};
    json_quote(&out, text);
    assert_int_equal(json_check(buf_view(&out), 1, NULL), JSON_OK);
    assert_true(bytes_is(buf_view(&out), expected));
    buf_fini(&out);
}

static void quote__escapes_what_must_be(void **state)
{
    (void)state;
    expect_quoted((struct bytes){0}, "\"\"");
    expect_quoted(BYTES_LIT("plain text / it's"), "\"plain text / it's\"");
    expect_quoted(BYTES_LIT("a\"b\\c"), "\"a\\\"b\\\\c\"");
    expect_quoted(BYTES_LIT("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\"");
    expect_quoted(BYTES_LIT("\0\x01\x0b\x0e\x1f\x7f"),
                  "\"\\u0000\\u0001\\u000b\\u000e\\u001f\x7f\"");
    expect_quoted(BYTES_LIT("\xe2\x98\x83 \xf0\x9f\x98\x80"), "\"\xe2\x98\x83 \xf0\x9f\x98\x80\"");
}

static void quote__replaces_what_is_no_utf8(void **state)
{
    (void)state;
    expect_quoted(BYTES_LIT("a\xff"
                            "b"),
                  "\"a\xef\xbf\xbd"
                  "b\"");
    expect_quoted(BYTES_LIT("\xe2\x98"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    expect_quoted(BYTES_LIT("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void quote__comes_back_from_unescape(void **state)
{
    (void)state;
    char all[128];
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)i;
    struct buf out = {0};
    json_quote(&out, bytes_of(all, sizeof(all)));
    struct json_span span;
    assert_int_equal(json_check(buf_view(&out), 1, &span), JSON_OK);
    char back[sizeof(all)];
    assert_int_equal(json_unescape(span, back, sizeof(back)), sizeof(all));
    assert_memory_equal(back, all, sizeof(all));
    buf_fini(&out);
}

int run_text_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unescape__decodes_every_escape),
        cmocka_unit_test(unescape__refuses_lone_surrogates),
        cmocka_unit_test(unescape__refuses_what_does_not_fit),
        cmocka_unit_test(unescape__refuses_what_is_no_string),
        cmocka_unit_test(text__points_into_the_input_where_nothing_is_escaped),
        cmocka_unit_test(uint53__takes_plain_integers_only),
        cmocka_unit_test(quote__escapes_what_must_be),
        cmocka_unit_test(quote__replaces_what_is_no_utf8),
        cmocka_unit_test(quote__comes_back_from_unescape),
    };
    return cmocka_run_group_tests_name("json text", tests, NULL, NULL);
}
