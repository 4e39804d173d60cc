#include "lanes/test_lanes.h"

int main(void)
{
    return run_framelog_tests() + run_framelog_property_tests() + run_lanes_tests() +
           run_plan_tests() + run_viewer_tests() + run_memory_tests();
}
