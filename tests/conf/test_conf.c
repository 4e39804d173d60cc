#include "conf_test.h"

#include "conf/load.h"

#include <stdlib.h>

struct buf test_errors;
struct buf test_warnings;

const char *text_of(struct buf *buf)
{
    buf_byte(buf, '\0');
    assert_false(buf->failed);
    return buf->data;
}

struct conf *load_text(const char *text, ...)
{
    struct conf_override overrides[4];
    size_t count = 0;
    va_list args;
    va_start(args, text);
    for (const char *each; count < COUNT(overrides) && (each = va_arg(args, const char *)); count++)
        overrides[count].text = each;
    va_end(args);
    buf_clear(&test_errors);
    buf_clear(&test_warnings);
    struct conf *conf =
        load_conf("t.conf", bytes_str(text), overrides, count, &test_errors, &test_warnings);
    if (conf)
        assert_int_equal(test_errors.len, 0);
    text_of(&test_errors);
    text_of(&test_warnings);
    return conf;
}

static int run(const char *name, const struct CMUnitTest *tests, size_t count)
{
    return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}

int main(void)
{
    int failed = run("file", file_tests, file_test_count);
    failed += run("overrides", override_tests, override_test_count);
    failed += run("table", table_tests, table_test_count);
    failed += run("units", units_tests, units_test_count);
    failed += run("url", url_tests, url_test_count);
    failed += run("memory", memory_tests, memory_test_count);
    failed += run("ticket keys", ticket_key_tests, ticket_key_test_count);
    buf_fini(&test_errors);
    buf_fini(&test_warnings);
    return failed;
}
