#include "halley/lanes.h"
#include "lanes/model.h"
#include "lanes/test_lanes.h"
#include "lib/alloc.h"

#include <stdlib.h>

static void framelog_create__without_memory_is_null(void **state)
{
    (void)state;
    alloc_fail_at(1);
    assert_null(halley_framelog_create(1));
}

/* The same appends with their n-th allocation failing, n = 1…, until none is left to fail. */
static void framelog_append__loses_only_the_frame_that_had_no_memory(void **state)
{
    (void)state;
    unsigned n = 1;
    for (bool all_worked = false; !all_worked; n++) {
        struct model *model = model_create(n, UINT32_MAX - 50, 20000, 1000);
        unsigned failures = 0;
        alloc_fail_at(n);
        for (uint32_t i = 0; i < 200; i++) {
            model->step = i;
            if (model_append(model, 1 + i * 3, i % 3 ? 0 : 500)) {
                failures++;
                model_check(model);
                assert_int_equal(model_append(model, 1 + i * 3, i % 3 ? 0 : 500), 0);
            }
            if (i % 50 == 49)
                model_trim(model, 2000);
            model_check(model);
        }
        all_worked = alloc_disarm();
        assert_in_range(failures, 0, all_worked ? 0 : 1);
        model_destroy(model);
    }
    assert_true(n > 10);
}

static void framelog_trim__drops_as_much_without_memory(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        struct model *model = model_create(n, 0, 20000, 1000);
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(model_append(model, 150, 150), HALLEY_FRAMELOG_OK);
        size_t before = halley_framelog_memory(model->log);
        alloc_fail_at(n);
        model_trim(model, 1000);
        assert_false(alloc_disarm()); /* both rings and the entries would shrink */
        model_check(model);
        assert_true(halley_framelog_memory(model->log) < before);
        model_trim(model, 1000); /* with memory it shrinks now */
        assert_true(halley_framelog_memory(model->log) < 4096);
        model_check(model);
        model_destroy(model);
    }
}

static void lanes_append__without_memory_leaves_the_lane_as_it_was(void **state)
{
    (void)state;
    const struct halley_lane_policy policies[HALLEY_LANES] = {
        {.bounds = {.bytes = 1000, .ttl_ms = 100}},
        {.bounds = {.bytes = 1000, .ttl_ms = 100}},
        {.bounds = {.bytes = 1000, .ttl_ms = 100}},
    };
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{"abc", 3}, {"defg", 4}};
    for (unsigned n = 1; n <= 4; n++) { /* the log, its entries, two rings */
        struct halley_lanes lanes;
        lanes_fresh(&lanes, 0);
        alloc_fail_at(n);
        assert_int_equal(halley_lanes_append(&lanes, &policies[0], 0, 0, 0, frames),
                         HALLEY_FRAMELOG_ERR_NO_MEMORY);
        assert_false(alloc_disarm());
        assert_int_equal(lanes.next[0], 0);
        assert_int_equal(lanes.pending, 0);
        assert_false(halley_lanes_lost(&lanes, 0, 0));
        assert_int_equal(halley_lanes_append(&lanes, &policies[0], 0, 0, 0, frames), 0);
        assert_int_equal(halley_framelog_pending(lanes.log[0], 1, 0), 4);
        assert_false(halley_lanes_expire(&lanes, policies, 101));
        halley_lanes_fini(&lanes);
    }
}

int run_memory_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framelog_create__without_memory_is_null),
        cmocka_unit_test(framelog_append__loses_only_the_frame_that_had_no_memory),
        cmocka_unit_test(framelog_trim__drops_as_much_without_memory),
        cmocka_unit_test(lanes_append__without_memory_leaves_the_lane_as_it_was),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
