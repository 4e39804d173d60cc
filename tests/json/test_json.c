#include "json/tests.h"

int main(void)
{
    int failed = run_scan_tests();
    failed += run_text_tests();
    return failed ? 1 : 0;
}
