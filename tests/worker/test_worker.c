#include "worker/test_worker.h"

#include "base/log.h"

#include <signal.h>

int main(void)
{
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    signal(SIGPIPE, SIG_IGN);
    return run_resume_tests() + run_memory_tests();
}
