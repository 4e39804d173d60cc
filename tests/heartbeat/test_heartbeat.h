/* test_heartbeat.h: the groups that test_heartbeat.c runs. Each returns its number of failed tests. */
#pragma once

int run_networks_tests(void);
