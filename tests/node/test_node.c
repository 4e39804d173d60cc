#include "node/test_node.h"

#include "base/log.h"

#include <signal.h>

int main(void)
{
    /* The cases break things on purpose; the lines about that are no news. */
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    signal(SIGPIPE, SIG_IGN);
    return run_doctor_tests() + run_notify_tests() + run_history_tests() + run_cut_tests() +
           run_forged_tests() + run_merge_tests() + run_presence_tests() + run_stand_tests();
}
