/* test_worker.h: the groups that test_worker.c runs. Each returns its number of failed tests. */
#pragma once

int run_resume_tests(void);
int run_memory_tests(void);
