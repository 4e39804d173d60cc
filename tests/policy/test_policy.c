#include "policy/test_policy.h"

#include "base/map.h"

int main(void)
{
    map_seed();
    int failed = run_rates_tests();
    failed += run_limiter_tests();
    failed += run_merge_tests();
    failed += run_sample_tests();
    failed += run_backlog_tests();
    failed += run_kicks_tests();
    failed += run_narrow_tests();
    return failed ? 1 : 0;
}
