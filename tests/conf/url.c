#include "conf_test.h"

#include "conf/url.h"

#include <string.h>

static struct broker_url parse(const char *text)
{
    struct broker_url url = {0};
    const char *why = NULL;
    assert_int_equal(broker_url_parse(text, &url, &why), 0);
    assert_null(why);
    return url;
}

static void assert_bad(const char *text, const char *part)
{
    struct broker_url url = {.port = 7};
    const char *why = NULL;
    assert_int_equal(broker_url_parse(text, &url, &why), -1);
    assert_non_null(why);
    if (!strstr(why, part))
        fail_msg("%s: %s", text, why);
    assert_int_equal(url.port, 7);
}

static void memory__taken(void **state)
{
    (void)state;
    assert_int_equal(parse("memory:").scheme, BROKER_SCHEME_MEMORY);
    assert_bad("memory", "must be memory:");
    assert_bad("memory://", "must be memory:");
    assert_bad("", "must be memory:");
}

static void redis__taken_apart(void **state)
{
    (void)state;
    struct broker_url url = parse("redis://halley:p%40ss%3a%25@redis.example.com:6380/");
    assert_int_equal(url.scheme, BROKER_SCHEME_REDIS);
    assert_string_equal(url.user, "halley");
    assert_string_equal(url.password, "p@ss:%");
    assert_string_equal(url.host, "redis.example.com");
    assert_int_equal(url.port, 6380);
}

static void redis__parts_left_out(void **state)
{
    (void)state;
    struct broker_url url = parse("redis://127.0.0.1");
    assert_string_equal(url.host, "127.0.0.1");
    assert_int_equal(url.port, 6379);
    assert_string_equal(url.user, "");
    assert_string_equal(url.password, "");
    url = parse("redis://:pa@ss:x/y@h:1");
    assert_string_equal(url.user, "");
    assert_string_equal(url.password, "pa@ss:x/y");
    assert_string_equal(url.host, "h");
    url = parse("redis://[2001:db8::1]");
    assert_string_equal(url.host, "2001:db8::1");
    assert_int_equal(url.port, 6379);
    url = parse("redis://[::1]:65535/");
    assert_string_equal(url.host, "::1");
    assert_int_equal(url.port, 65535);
}

static void redis__refused_with_the_reason(void **state)
{
    (void)state;
    assert_bad("rediss://h:1", "TLS");
    assert_bad("unix:/tmp/redis.sock", "must be memory:");
    assert_bad("Redis://h", "must be memory:");
    assert_bad("redis:h", "must be memory:");
    assert_bad("redis://h:1/0", "database");
    assert_bad("redis://h/12", "database");
    assert_bad("redis://h/x", "must be memory:");
    assert_bad("redis://h?x=1", "must be memory:");
    assert_bad("redis://h#x", "must be memory:");
    assert_bad("redis://secret@h", "user:password");
    assert_bad("redis://user:@h", "user:password");
    assert_bad("redis://:@h", "user:password");
    assert_bad("redis://@h", "user:password");
    assert_bad("redis://a:%4@h", "hex");
    assert_bad("redis://a:%@h", "hex");
    assert_bad("redis://a:%zz@h", "hex");
    assert_bad("redis://a:b%00c@h", "hex");
    assert_bad("redis://", "host");
    assert_bad("redis://:1", "host");
    assert_bad("redis://a b", "host");
    assert_bad("redis://::1", "host");
    assert_bad("redis://::1:6379", "host");
    assert_bad("redis://[::1", "host");
    assert_bad("redis://[::1]x", "host");
    assert_bad("redis://[h]:1", "host");
    assert_bad("redis://[]:1", "host");
    assert_bad("redis://h:", "port");
    assert_bad("redis://h:0", "port");
    assert_bad("redis://h:65536", "port");
    assert_bad("redis://h:1x", "port");
}

static void redis__lengths_bounded(void **state)
{
    (void)state;
    struct buf text = {0};
    static const size_t longest = 127;
    for (size_t len = longest; len <= longest + 1; len++) {
        buf_clear(&text);
        BUF_LIT(&text, "redis://:");
        for (size_t i = 0; i < len; i++)
            BUF_LIT(&text, "%41");
        BUF_LIT(&text, "@h");
        text_of(&text);
        if (len > longest)
            assert_bad(text.data, "127");
        else
            assert_int_equal(strlen(parse(text.data).password), longest);
    }
    buf_clear(&text);
    BUF_LIT(&text, "redis://");
    for (size_t i = 0; i < 256; i++)
        BUF_LIT(&text, "h");
    assert_bad(text_of(&text), "host");
    text.len -= 2;
    assert_int_equal(strlen(parse(text_of(&text)).host), 255);
    buf_fini(&text);
}

const struct CMUnitTest url_tests[] = {
    cmocka_unit_test(memory__taken),          cmocka_unit_test(redis__taken_apart),
    cmocka_unit_test(redis__parts_left_out),  cmocka_unit_test(redis__refused_with_the_reason),
    cmocka_unit_test(redis__lengths_bounded),
};
const size_t url_test_count = COUNT(url_tests);
