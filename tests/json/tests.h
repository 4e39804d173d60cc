/* tests.h: the groups of this binary; each returns the number of failed tests. */
#pragma once

int run_scan_tests(void);
int run_text_tests(void);
