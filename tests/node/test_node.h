/* test_node.h: the groups that test_node.c runs. Each returns its number of failed tests. */
#pragma once

int run_doctor_tests(void);
int run_notify_tests(void);
int run_history_tests(void);
int run_cut_tests(void);
int run_forged_tests(void);
int run_merge_tests(void);
int run_presence_tests(void);
int run_stand_tests(void);
