#include "base/test_base.h"

int main(void)
{
    return run_bytes_tests() + run_list_tests() + run_map_tests() + run_names_tests() +
           run_log_tests() + run_wheel_tests() + run_bucket_tests() + run_ring_tests() +
           run_mailbox_tests() + run_clock_tests() + run_address_tests() + run_peers_tests() +
           run_network_tests() + run_sendbuf_tests();
}
