/* suites.h: the parts of test_bench. Each returns how many of its tests failed. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int suite_latency(void);
int suite_stamp(void);
int suite_order(void);
int suite_frames(void);
int suite_options(void);
int suite_inner(void);
int suite_publish(void);
int suite_speak(void);
int suite_run(void);
