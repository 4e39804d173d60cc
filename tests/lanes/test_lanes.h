/* test_lanes.h: the groups that test_lanes.c runs. Each returns its number of failed tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int run_framelog_tests(void);
int run_framelog_property_tests(void);
int run_lanes_tests(void);
int run_plan_tests(void);
int run_viewer_tests(void);
int run_memory_tests(void);
