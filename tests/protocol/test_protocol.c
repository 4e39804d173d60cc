#include "protocol/support.h"

int main(void)
{
    int failed = run_message_tests();
    failed += run_native_tests();
    failed += run_socketio_tests();
    return failed ? 1 : 0;
}
