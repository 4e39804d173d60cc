#include "ws/test_ws.h"

int main(void)
{
    int failed = run_frame_tests() + run_head_tests() + run_origin_tests() + run_accept_tests() +
                 run_codec_tests() + run_codec_pool_tests() + run_codec_memory_tests();
    return failed == 0 ? 0 : 1;
}
