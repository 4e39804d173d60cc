#include "node/test_node.h"

int main(void)
{
    return run_doctor_tests() + run_notify_tests();
}
