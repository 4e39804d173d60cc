#include "policy/kicks.h"
#include "policy/test_policy.h"

#include <stdint.h>

static enum kicks_verdict judge(const struct kicks *kicks, const char *user, uint64_t number)
{
    return kicks_judge(kicks, bytes_str(user), number);
}

static void kicks__concern_what_was_asked_before_them(void **state)
{
    (void)state;
    struct kicks kicks;
    kicks_init(&kicks);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("alice"), 7, 16), 0);
    assert_int_equal(judge(&kicks, "alice", 6), KICKS_KICKED);
    assert_int_equal(judge(&kicks, "alice", 7), KICKS_KICKED);
    assert_int_equal(judge(&kicks, "alice", 8), KICKS_NONE);
    assert_int_equal(judge(&kicks, "bob", 6), KICKS_NONE);
    assert_int_equal(judge(&kicks, "alic", 6), KICKS_NONE);
    kicks_fini(&kicks);
}

static void kicks__a_later_one_of_the_same_user_counts(void **state)
{
    (void)state;
    struct kicks kicks;
    kicks_init(&kicks);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("alice"), 7, 16), 0);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("bob"), 8, 16), 0);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("alice"), 9, 16), 0);
    assert_int_equal(kicks.users.count, 2);
    assert_int_equal(judge(&kicks, "alice", 9), KICKS_KICKED);
    kicks_settle(&kicks, 9); /* bob's is over, alice's not */
    assert_int_equal(kicks.users.count, 1);
    assert_int_equal(judge(&kicks, "alice", 9), KICKS_KICKED);
    kicks_fini(&kicks);
}

static void kicks__are_forgotten_when_all_that_they_concern_is_settled(void **state)
{
    (void)state;
    struct kicks kicks;
    kicks_init(&kicks);
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(kicks_add(&kicks,
                                   i == 2   ? BYTES_LIT("b")
                                   : i == 3 ? BYTES_LIT("c")
                                            : BYTES_LIT("a"),
                                   i, 16),
                         0);
    kicks_settle(&kicks, 1);
    assert_int_equal(kicks.users.count, 3);
    kicks_settle(&kicks, 3);
    assert_int_equal(kicks.users.count, 1);
    kicks_settle(&kicks, UINT64_MAX);
    assert_int_equal(kicks.users.count, 0);
    kicks_fini(&kicks);
}

static void kicks__past_the_bound_what_they_may_concern_is_not_judged(void **state)
{
    (void)state;
    struct kicks kicks;
    kicks_init(&kicks);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("a"), 5, 2), 0);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("b"), 6, 2), 0);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("b"), 6, 2), 0); /* known: takes no room */
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("c"), 8, 2), 1);
    assert_int_equal(kicks.users.count, 2);
    assert_int_equal(judge(&kicks, "a", 5), KICKS_UNKNOWN);
    assert_int_equal(judge(&kicks, "nobody", 5), KICKS_UNKNOWN);
    assert_int_equal(judge(&kicks, "b", 5), KICKS_KICKED);
    assert_int_equal(judge(&kicks, "a", 6), KICKS_NONE);
    kicks_fini(&kicks);
}

static void kicks__past_a_lowered_bound_each_that_is_forgotten_counts(void **state)
{
    static const char names[] = "abcdefgh";
    (void)state;
    struct kicks kicks;
    kicks_init(&kicks);
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(kicks_add(&kicks, bytes_of(&names[i], 1), i + 1, 16), 0);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("c"), 9, 3), 0); /* known: takes no room */
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("z"), 10, 3), 6);
    assert_int_equal(kicks.users.count, 3);
    assert_int_equal(judge(&kicks, "a", 1), KICKS_UNKNOWN);
    assert_int_equal(judge(&kicks, "nobody", 7), KICKS_UNKNOWN);
    assert_int_equal(judge(&kicks, "nobody", 8), KICKS_NONE);
    assert_int_equal(judge(&kicks, "h", 8), KICKS_KICKED);
    assert_int_equal(judge(&kicks, "c", 9), KICKS_KICKED);
    assert_int_equal(judge(&kicks, "z", 10), KICKS_KICKED);
    assert_int_equal(kicks_add(&kicks, BYTES_LIT("y"), 11, 3), 1);
    kicks_fini(&kicks);
}

int run_kicks_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kicks__concern_what_was_asked_before_them),
        cmocka_unit_test(kicks__a_later_one_of_the_same_user_counts),
        cmocka_unit_test(kicks__are_forgotten_when_all_that_they_concern_is_settled),
        cmocka_unit_test(kicks__past_the_bound_what_they_may_concern_is_not_judged),
        cmocka_unit_test(kicks__past_a_lowered_bound_each_that_is_forgotten_counts),
    };
    return cmocka_run_group_tests_name("kicks", tests, NULL, NULL);
}
