#include "suites.h"

int main(void)
{
    return suite_latency() + suite_stamp() + suite_order() + suite_frames() + suite_options() +
           suite_inner() + suite_speak() + suite_publish() + suite_run();
}
