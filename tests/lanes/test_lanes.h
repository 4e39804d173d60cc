/* test_lanes.h: the groups that test_lanes.c runs. Each returns its number of failed tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "halley/lanes.h"

int run_framelog_tests(void);
int run_framelog_property_tests(void);
int run_lanes_tests(void);
int run_plan_tests(void);
int run_viewer_tests(void);
int run_memory_tests(void);

/* Lanes that were never flushed. */
static inline void lanes_fresh(struct halley_lanes *lanes, uint32_t now_ms)
{
    struct halley_lanes_rest rest;
    halley_lanes_rest_init(&rest, now_ms);
    halley_lanes_init(lanes, &rest);
}
