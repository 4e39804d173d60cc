/* suites.h: the groups of this binary, one a file. */
#pragma once

int test_wire(void);
int test_rooms(void);
int test_memory(void);
int test_redis(void);
int test_redis_away(void);
int test_calls(void);
