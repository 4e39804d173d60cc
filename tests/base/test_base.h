/* test_base.h: the groups that test_base.c runs. Each returns its number of failed tests. */
#pragma once

int run_bytes_tests(void);
int run_list_tests(void);
int run_map_tests(void);
int run_names_tests(void);
int run_log_tests(void);
int run_wheel_tests(void);
int run_bucket_tests(void);
int run_ring_tests(void);
int run_mailbox_tests(void);
int run_clock_tests(void);
int run_address_tests(void);
int run_peers_tests(void);
int run_network_tests(void);
int run_sendbuf_tests(void);
