/* Every allocation of ours fails once; libconfuse's own are out of reach. */
#include "conf_test.h"

#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

long fail_allocation;

static bool fails(void)
{
    return fail_allocation > 0 && --fail_allocation == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

/* Loads with the n-th allocation failing, n = 1 …, until all succeed. Returns how many failed. */
static long fail_each(const char *path, const char *override, bool good)
{
    long n = 1;
    for (;; n++) {
        struct conf_override given = {override};
        struct buf errors = {0}, warnings = {0};
        fail_allocation = n;
        struct conf *conf = conf_load(path, &given, 1, &errors, &warnings);
        bool reached = fail_allocation == 0;
        fail_allocation = 0;
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
