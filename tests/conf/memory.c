/* Every allocation of ours fails once; libconfuse's own are out of reach. */
#include "conf_test.h"

#include "lib/alloc.h"

#include <stdlib.h>
#include <string.h>

/* Loads with the n-th allocation failing, n = 1 …, until all succeed. Returns how many failed. */
static unsigned fail_each(const char *path, const char *override, bool good)
{
    unsigned n = 1;
    for (;; n++) {
        struct conf_override given = {override};
        struct buf errors = {0}, warnings = {0};
        alloc_fail_at(n);
        struct conf *conf = conf_load(path, &given, 1, &errors, &warnings);
        bool reached = !alloc_disarm();
        assert_false(conf && errors.len > 0);
        assert_false(conf && !good);
        if (!reached)
            assert_int_equal(conf != NULL, good);
        conf_unref(conf);
        buf_fini(&errors);
        buf_fini(&warnings);
        if (!reached)
            return n - 1;
    }
}

static void load__survives_each_failed_allocation(void **state)
{
    (void)state;
    assert_in_range(fail_each("conf/halley.conf", "server.workers=2", true), 4, 1000);
}

static void refusal__survives_each_failed_allocation(void **state)
{
    (void)state;
    assert_in_range(fail_each("conf/halley.conf", "server.workers=99", false), 4, 1000);
    assert_in_range(fail_each(NULL, "lane.low.bytes=8k", false), 2, 1000);
    assert_in_range(fail_each(NULL, "server.nodd=8k", false), 2, 1000);
}

const struct CMUnitTest memory_tests[] = {
    cmocka_unit_test(load__survives_each_failed_allocation),
    cmocka_unit_test(refusal__survives_each_failed_allocation),
};
const size_t memory_test_count = COUNT(memory_tests);
