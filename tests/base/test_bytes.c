#include "base/bytes.h"
#include "base/test_base.h"
#include "lib/alloc.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_view(const struct buf *buf, const char *text)
{
    assert_int_equal(buf->len, strlen(text));
    assert_memory_equal(buf->data, text, buf->len);
}

static void bytes_equal__compares_length_and_content(void **state)
{
    (void)state;
    assert_true(bytes_equal(BYTES_LIT("abc"), bytes_of("abcd", 3)));
    assert_false(bytes_equal(BYTES_LIT("abc"), BYTES_LIT("abcd")));
    assert_false(bytes_equal(BYTES_LIT("abc"), BYTES_LIT("abd")));
    assert_true(bytes_equal(bytes_str(NULL), BYTES_LIT("")));
    assert_false(bytes_equal(bytes_of("a\0b", 3), bytes_of("a\0c", 3)));
    assert_true(bytes_is(BYTES_LIT("room"), "room"));
    assert_false(bytes_is(BYTES_LIT("room\0"), "room"));
}

static void buf__appends_in_order_and_grows(void **state)
{
    (void)state;
    struct buf buf = {0};
    BUF_LIT(&buf, "n=");
    buf_uint(&buf, 0);
    buf_byte(&buf, ' ');
    buf_uint(&buf, UINT64_MAX);
    buf_text(&buf, "; ");
    buf_bytes(&buf, bytes_of("x\0y", 3));
    buf_printf(&buf, "%s-%d", "z", 7);
    const char expected[] = "n=0 18446744073709551615; x\0yz-7";
    assert_int_equal(buf.len, sizeof(expected) - 1);
    assert_memory_equal(buf.data, expected, buf.len);
    assert_false(buf.failed);
    buf_fini(&buf);
}

static void buf__holds_every_byte_of_many_appends(void **state)
{
    (void)state;
    struct buf buf = {0};
    for (unsigned i = 0; i < 100000; i++)
        buf_byte(&buf, (char)(i % 251));
    assert_int_equal(buf.len, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal((unsigned char)buf.data[i], i % 251);
    buf_fini(&buf);
}

static void buf_printf__text_that_fills_the_buffer_exactly_is_whole(void **state)
{
    (void)state;
    for (int width = 1; width < 200; width++) {
        struct buf buf = {0};
        buf_printf(&buf, "%*d", width, 7);
        assert_int_equal(buf.len, width);
        assert_int_equal(buf.data[width - 1], '7');
        buf_fini(&buf);
    }
}

static void buf_consume__keeps_the_rest(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_text(&buf, "headbody");
    buf_consume(&buf, 4);
    assert_view(&buf, "body");
    buf_consume(&buf, 0);
    assert_view(&buf, "body");
    buf_consume(&buf, 4);
    assert_int_equal(buf.len, 0);
    buf_fini(&buf);
}

static void buf__out_of_memory_sets_failed_and_keeps_what_was_there(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_text(&buf, "kept");
    alloc_fail_at(1);
    assert_false(buf_reserve(&buf, 4096));
    alloc_fail_at(0);
    assert_true(buf.failed);
    buf_text(&buf, " lost");
    assert_view(&buf, "kept");
    buf_clear(&buf);
    buf_text(&buf, "again");
    assert_false(buf.failed);
    assert_view(&buf, "again");
    buf_fini(&buf);
}

static void buf_reserve__a_size_that_overflows_fails(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_text(&buf, "x");
    assert_false(buf_reserve(&buf, SIZE_MAX));
    assert_true(buf.failed);
    buf_clear(&buf);
    /* The largest size that does not: it goes as far as the allocation. */
    alloc_fail_at(1);
    assert_false(buf_reserve(&buf, SIZE_MAX / 2));
    assert_view(&buf, "");
    buf_fini(&buf);
}

static void buf_fini__leaves_a_usable_buffer(void **state)
{
    (void)state;
    struct buf buf = {0};
    buf_fini(&buf);
    buf_text(&buf, "one");
    buf_fini(&buf);
    assert_null(buf.data);
    buf_text(&buf, "two");
    assert_view(&buf, "two");
    buf_fini(&buf);
}

int run_bytes_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_equal__compares_length_and_content),
        cmocka_unit_test(buf__appends_in_order_and_grows),
        cmocka_unit_test(buf__holds_every_byte_of_many_appends),
        cmocka_unit_test(buf_printf__text_that_fills_the_buffer_exactly_is_whole),
        cmocka_unit_test(buf_consume__keeps_the_rest),
        cmocka_unit_test(buf__out_of_memory_sets_failed_and_keeps_what_was_there),
        cmocka_unit_test(buf_reserve__a_size_that_overflows_fails),
        cmocka_unit_test(buf_fini__leaves_a_usable_buffer),
    };
    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
