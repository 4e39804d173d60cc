#include "suites.h"

#include "base/log.h"

#include <signal.h>

int main(void)
{
    /* The cases break connections on purpose; the lines about that are no news. */
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    signal(SIGPIPE, SIG_IGN);
    int failed = 0;
    failed += test_wire();
    failed += test_rooms();
    failed += test_memory();
    failed += test_redis();
    failed += test_redis_away();
    failed += test_calls();
    return failed;
}
