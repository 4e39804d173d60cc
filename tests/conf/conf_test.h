/* conf_test.h: what the files of test_conf share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "conf/conf.h"

/* What the last load_text() said; always NUL-terminated. */
extern struct buf test_errors;
extern struct buf test_warnings;

/* Loads text as the file `t.conf` (NULL: the built-in conf) with up to four -o, ended by NULL. */
struct conf *load_text(const char *text, ...) __attribute__((sentinel));

/* Loads what must be refused and checks that the errors are exactly these lines. */
#define assert_refused(text, lines, ...)                                                           \
    do {                                                                                           \
        assert_null(load_text((text), ##__VA_ARGS__, NULL));                                       \
        assert_string_equal(test_errors.data, (lines));                                            \
    } while (0)

/* Finishes buf with a NUL and gives its text. */
const char *text_of(struct buf *buf);

extern const struct CMUnitTest file_tests[], override_tests[], table_tests[], units_tests[],
    url_tests[], memory_tests[], ticket_key_tests[];
extern const size_t file_test_count, override_test_count, table_test_count, units_test_count,
    url_test_count, memory_test_count, ticket_key_test_count;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
