/* test_ws.h: the groups of the ws tests; test_ws.c runs them. Each returns the number of failed
 * tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"

int run_frame_tests(void);
int run_head_tests(void);
int run_origin_tests(void);
int run_accept_tests(void);
int run_codec_tests(void);
int run_codec_pool_tests(void);
int run_codec_memory_tests(void);

#define assert_bytes(actual, expected) assert_bytes_at((actual), (expected), __FILE__, __LINE__)

static inline void assert_bytes_at(struct bytes actual, const char *expected, const char *file,
                                   int line)
{
    if (bytes_is(actual, expected))
        return;
    print_error("got \"%.*s\", expected \"%s\"\n", (int)actual.len, actual.data, expected);
    _fail(file, line);
}
