/* test_policy.h: the suites of this folder. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

int run_rates_tests(void);
int run_limiter_tests(void);
int run_merge_tests(void);
int run_sample_tests(void);
int run_backlog_tests(void);
int run_kicks_tests(void);
int run_narrow_tests(void);
