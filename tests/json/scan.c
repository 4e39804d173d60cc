#include "json/json.h"
#include "json/tests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { DEPTH = 16 };

/* Checks a copy of exactly that size, so that a sanitizer sees a read behind the end. */
static int check_copy(const char *text, size_t len, int max_depth)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int err = json_check(bytes_of(copy, len), max_depth, NULL);
    free(copy);
    return err;
}

static void expect_all(const char *const *texts, size_t count, int error)
{
    for (size_t i = 0; i < count; i++) {
        int err = check_copy(texts[i], strlen(texts[i]), DEPTH);
        if (err != error)
            fail_msg("%s: got %d, expected %d", texts[i], err, error);
    }
}

#define EXPECT_ALL(texts, error) expect_all((texts), sizeof(texts) / sizeof((texts)[0]), (error))

static void check__accepts_json(void **state)
{
    (void)state;
    static const char *const good[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "7",
        "-12",
        "0.1",
        "1e2",
        "1E+2",
        "1.5e-10",
        "18446744073709551615",
        "123456789012345678901234567890.0e999",
        "\"\"",
        "\"a\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uAbCd\"",
        "\"\xc2\x80 \xe2\x98\x83 \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf \xed\x9f\xbf \xee\x80\x80\"",
        "[]",
        "{}",
        "[[],{}]",
        "[1,2,3]",
        "{\"a\":1,\"a\":[{\"b\":null}]}",
        " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n",
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        "\"\x7f\"",
    };
    EXPECT_ALL(good, JSON_OK);
}

static void check__refuses_what_is_no_json(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "tru",
        "fals",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1.e3",
        "1e",
        "1e+",
        "0x10",
        "1 2",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u\"",
        "\"tab\there\"",
        "\"line\nfeed\"",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\",1}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1]",
        "{\"a\":}",
        "{\"a\"::1}",
        "{}{}",
        "[] []",
        "1,",
        "// x\n1",
        "\xef\xbb\xbf{}",
        "\xc3\xa4",
        "[1]]",
        "{\"a\":[}",
    };
    EXPECT_ALL(bad, JSON_ERR_SYNTAX);
    assert_int_equal(check_copy("\"a\0b\"", 5, DEPTH), JSON_ERR_SYNTAX);
    assert_int_equal(check_copy("1\0", 2, DEPTH), JSON_ERR_SYNTAX);
}

static void check__refuses_what_is_no_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"\x80\"",             /* continuation without a lead */
        "\"\xc0\x80\"",         /* overlong */
        "\"\xc1\xbf\"",         /* overlong */
        "\"\xe0\x9f\xbf\"",     /* overlong */
        "\"\xf0\x8f\xbf\xbf\"", /* overlong */
        "\"\xed\xa0\x80\"",     /* surrogate */
        "\"\xed\xbf\xbf\"",     /* surrogate */
        "\"\xf4\x90\x80\x80\"", /* past U+10FFFF */
        "\"\xf5\x80\x80\x80\"",
        "\"\xff\"",
        "\"\xc2\"", /* cut by the quote */
        "\"\xe2\x98\"",
        "\"\xf0\x9f\x98\"",
        "\"\xe2\x98",
        "\"\xc2",
        "\"\xe2(\xa1\"",
        "\"\xf0\x9f(\x80\"",
        "{\"\xff\":1}",
        "[\"abcdefghijk\xff\"]",
    };
    EXPECT_ALL(bad, JSON_ERR_UTF8);
}

/* The fast path looks at eight bytes at a time: every special byte at every place of them. */
static void check__sees_special_bytes_at_every_offset(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 26; len++) {
        for (size_t at = 0; at < len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                char text[32];
                memset(text, 'x', sizeof(text));
                text[0] = '"';
                text[1 + at] = (char)byte;
                text[1 + len] = '"';
                int expected = JSON_OK;
                if (byte >= 0x80)
                    expected = JSON_ERR_UTF8;
                else if (byte < 0x20 || byte == '"' || byte == '\\')
                    expected = JSON_ERR_SYNTAX;
                assert_int_equal(check_copy(text, len + 2, DEPTH), expected);
            }
        }
    }
}

static void check__every_prefix_of_an_object_is_refused(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":[1.5e3,true,false,null,\"\\u0041\xe2\x98\x83\\n\"],\"b\":{\"c\":{},\"d\":[]}}";
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        assert_int_not_equal(check_copy(text, len, DEPTH), JSON_OK);
    assert_int_equal(check_copy(text, sizeof(text) - 1, DEPTH), JSON_OK);
}

static void check__gives_the_value_without_white_space(void **state)
{
    (void)state;
    struct json_span value;
    assert_int_equal(json_check(BYTES_LIT(" \n[ 1 ] "), DEPTH, &value), JSON_OK);
    assert_int_equal(value.kind, JSON_ARRAY);
    assert_true(bytes_is(value.raw, "[ 1 ]"));
    assert_int_equal(json_check(BYTES_LIT(" -0.10 "), DEPTH, &value), JSON_OK);
    assert_int_equal(value.kind, JSON_NUMBER);
    assert_true(bytes_is(value.raw, "-0.10"));
}

static void check__leaves_the_value_alone_on_error(void **state)
{
    (void)state;
    struct json_span value = {JSON_TRUE, BYTES_LIT("x")};
    assert_int_equal(json_check(BYTES_LIT("[1] 2"), DEPTH, &value), JSON_ERR_SYNTAX);
    assert_int_equal(value.kind, JSON_TRUE);
    assert_true(bytes_is(value.raw, "x"));
}

/* Levels alternate between arrays and objects, so that each level's kind must be remembered. */
static struct bytes nested(char *text, int depth)
{
    size_t len = 0;
    for (int i = 0; i < depth; i++) {
        bool object = i % 3 == 0;
        if (object && i + 1 < depth) {
            memcpy(text + len, "{\"k\":", 5);
            len += 5;
        } else {
            text[len++] = object ? '{' : '[';
        }
    }
    for (int i = depth; i-- > 0;)
        text[len++] = i % 3 == 0 ? '}' : ']';
    return bytes_of(text, len);
}

static void check__nesting_is_bounded(void **state)
{
    (void)state;
    char text[6 * (JSON_DEPTH_MAX + 2)];
    static const int depths[] = {1, 2, 3, 63, 64, 65, 128, 129, JSON_DEPTH_MAX};
    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        struct bytes exact = nested(text, depths[i]);
        assert_int_equal(json_check(exact, depths[i], NULL), JSON_OK);
        text[exact.len - 1] = 'x';
        assert_int_equal(json_check(exact, depths[i], NULL), JSON_ERR_SYNTAX);
        assert_int_equal(json_check(nested(text, depths[i] + 1), depths[i], NULL), JSON_ERR_DEPTH);
    }
    assert_int_equal(json_check(nested(text, JSON_DEPTH_MAX + 1), 1 << 20, NULL), JSON_ERR_DEPTH);
    assert_int_equal(json_check(BYTES_LIT("1"), 1, NULL), JSON_OK);
    assert_int_equal(json_check(BYTES_LIT("[1]"), 1, NULL), JSON_OK);
    assert_int_equal(json_check(BYTES_LIT("[1]"), 0, NULL), JSON_ERR_DEPTH);
    assert_int_equal(json_check(BYTES_LIT("[1]"), -1, NULL), JSON_ERR_DEPTH);
}

static void check__a_hundred_thousand_levels_cost_nothing(void **state)
{
    (void)state;
    enum { LEVELS = 100000 };
    char *text = malloc(LEVELS);
    assert_non_null(text);
    memset(text, '[', LEVELS);
    assert_int_equal(json_check(bytes_of(text, LEVELS), JSON_DEPTH_MAX, NULL), JSON_ERR_DEPTH);
    free(text);
}

static void object__finds_members_byte_for_byte(void **state)
{
    (void)state;
    struct json_field fields[] = {{.name = "data"}, {.name = "type"}, {.name = "x"}};
    static const char text[] = " { \"type\" : \"chat\" , \"skip\":[{\"type\":1}],"
                               "\"data\" : {\"n\":0.1,\"e\": 1e2 ,\"u\":18446744073709551615,"
                               "\"z\":\"\\u0000\",\"d\":1,\"d\":2} } ";
    assert_int_equal(json_object(bytes_str(text), DEPTH, fields, 3), JSON_OK);
    assert_int_equal(fields[0].value.kind, JSON_OBJECT);
    assert_true(bytes_is(fields[0].value.raw, "{\"n\":0.1,\"e\": 1e2 ,\"u\":18446744073709551615,"
                                              "\"z\":\"\\u0000\",\"d\":1,\"d\":2}"));
    assert_int_equal(fields[1].value.kind, JSON_STRING);
    assert_true(bytes_is(fields[1].value.raw, "\"chat\""));
    assert_int_equal(fields[2].value.kind, JSON_ABSENT);
    assert_int_equal(fields[2].value.raw.len, 0);
}

static void object__tells_every_kind(void **state)
{
    (void)state;
    struct json_field fields[] = {{.name = "a"}, {.name = "b"}, {.name = "c"}, {.name = "d"},
                                  {.name = "e"}, {.name = "f"}, {.name = "g"}};
    static const enum json_kind kinds[] = {JSON_NULL,   JSON_FALSE, JSON_TRUE,  JSON_NUMBER,
                                           JSON_STRING, JSON_ARRAY, JSON_OBJECT};
    assert_int_equal(json_object(BYTES_LIT("{\"a\":null,\"b\":false,\"c\":true,\"d\":-1,"
                                           "\"e\":\"\",\"f\":[],\"g\":{}}"),
                                 DEPTH, fields, 7),
                     JSON_OK);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(fields[i].value.kind, kinds[i]);
}

static void object__the_last_of_two_members_counts(void **state)
{
    (void)state;
    struct json_field field = {.name = "a"};
    assert_int_equal(json_object(BYTES_LIT("{\"a\":1,\"a\":2}"), DEPTH, &field, 1), JSON_OK);
    assert_true(bytes_is(field.value.raw, "2"));
    assert_int_equal(json_object(BYTES_LIT("{\"a\":1,\"\\u0061\":3}"), DEPTH, &field, 1), JSON_OK);
    assert_true(bytes_is(field.value.raw, "3"));
}

static void object__compares_names_whole_and_unescaped(void **state)
{
    (void)state;
    struct json_field fields[] = {{.name = "room"}, {.name = ""}};
    struct bytes text =
        BYTES_LIT("{\"roo\":1,\"rooms\":2,\"room\\u0000\":3,\"Room\":4,\"\\ud800\":5,"
                  "\"r\\u006fom\":6,\"\":7}");
    assert_int_equal(json_object(text, DEPTH, fields, 2), JSON_OK);
    assert_true(bytes_is(fields[0].value.raw, "6"));
    assert_true(bytes_is(fields[1].value.raw, "7"));
}

static void object__forgets_values_of_an_earlier_call(void **state)
{
    (void)state;
    struct json_field field = {.name = "a"};
    assert_int_equal(json_object(BYTES_LIT("{\"a\":1}"), DEPTH, &field, 1), JSON_OK);
    assert_int_equal(json_object(BYTES_LIT("{}"), DEPTH, &field, 1), JSON_OK);
    assert_int_equal(field.value.kind, JSON_ABSENT);
}

static void object__refuses_everything_else(void **state)
{
    (void)state;
    struct json_field field = {.name = "a"};
    static const char *const bad[] = {
        "",    "[]",         "1",     "null",       "\"a\"",   "{",     "{\"a\":1",    "{\"a\":1,",
        "{,}", "{\"a\":1}}", "{} {}", "{\"a\":1,}", "{\"a\"}", "{a:1}", "{\"a\":[}]}", "{\"a\":}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(json_object(bytes_str(bad[i]), DEPTH, &field, 1), JSON_ERR_SYNTAX);
    assert_int_equal(json_object(BYTES_LIT("{\"a\":\"\xff\"}"), DEPTH, &field, 1), JSON_ERR_UTF8);
    assert_int_equal(json_object(BYTES_LIT("{\"a\":[[]]}"), 2, &field, 1), JSON_ERR_DEPTH);
    assert_int_equal(json_object(BYTES_LIT("{\"a\":[1]}"), 2, &field, 1), JSON_OK);
    assert_int_equal(json_object(BYTES_LIT("{}"), 0, &field, 1), JSON_ERR_DEPTH);
    assert_int_equal(json_object((struct bytes){0}, DEPTH, &field, 1), JSON_ERR_SYNTAX);
}

static void array__gives_its_elements(void **state)
{
    (void)state;
    struct json_span list[3];
    size_t count = 3;
    struct bytes text = BYTES_LIT(" [ \"a\" , {\"b\":[1,2]} ,3 ] ");
    assert_int_equal(json_array(text, DEPTH, list, &count), JSON_OK);
    assert_int_equal(count, 3);
    assert_true(bytes_is(list[0].raw, "\"a\""));
    assert_true(bytes_is(list[1].raw, "{\"b\":[1,2]}"));
    assert_true(bytes_is(list[2].raw, "3"));
    assert_int_equal(list[1].kind, JSON_OBJECT);
    assert_int_equal(json_array(BYTES_LIT("[]"), DEPTH, list, &count), JSON_OK);
    assert_int_equal(count, 0);
}

static void array__counts_and_checks_what_does_not_fit(void **state)
{
    (void)state;
    struct json_span list[2];
    size_t count = 2;
    assert_int_equal(json_array(BYTES_LIT("[1,2,3,4]"), DEPTH, list, &count), JSON_ERR_COUNT);
    assert_int_equal(count, 4);
    assert_true(bytes_is(list[0].raw, "1"));
    assert_true(bytes_is(list[1].raw, "2"));
    count = 2;
    assert_int_equal(json_array(BYTES_LIT("[1,2,3,]"), DEPTH, list, &count), JSON_ERR_SYNTAX);
    assert_int_equal(count, 2);
}

static void array__refuses_everything_else(void **state)
{
    (void)state;
    struct json_span list[4];
    static const char *const bad[] = {"",     "{}",  "1",    "[",     "[1",  "[1,",
                                      "[1,]", "[,]", "[1]]", "[1 2]", "[1}", "[] []"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t count = 4;
        assert_int_equal(json_array(bytes_str(bad[i]), DEPTH, list, &count), JSON_ERR_SYNTAX);
    }
    size_t count = 4;
    assert_int_equal(json_array(BYTES_LIT("[[[]]]"), 2, list, &count), JSON_ERR_DEPTH);
}

int run_scan_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check__accepts_json),
        cmocka_unit_test(check__refuses_what_is_no_json),
        cmocka_unit_test(check__refuses_what_is_no_utf8),
        cmocka_unit_test(check__sees_special_bytes_at_every_offset),
        cmocka_unit_test(check__every_prefix_of_an_object_is_refused),
        cmocka_unit_test(check__gives_the_value_without_white_space),
        cmocka_unit_test(check__leaves_the_value_alone_on_error),
        cmocka_unit_test(check__nesting_is_bounded),
        cmocka_unit_test(check__a_hundred_thousand_levels_cost_nothing),
        cmocka_unit_test(object__finds_members_byte_for_byte),
        cmocka_unit_test(object__tells_every_kind),
        cmocka_unit_test(object__the_last_of_two_members_counts),
        cmocka_unit_test(object__compares_names_whole_and_unescaped),
        cmocka_unit_test(object__forgets_values_of_an_earlier_call),
        cmocka_unit_test(object__refuses_everything_else),
        cmocka_unit_test(array__gives_its_elements),
        cmocka_unit_test(array__counts_and_checks_what_does_not_fit),
        cmocka_unit_test(array__refuses_everything_else),
    };
    return cmocka_run_group_tests_name("json scan", tests, NULL, NULL);
}
