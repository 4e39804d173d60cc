#include "policy/limiter.h"
#include "policy/test_policy.h"

#include <stdio.h>

static struct bytes numbered(char name[16], unsigned number)
{
    int len = snprintf(name, 16, "user%u", number);
    return bytes_of(name, (size_t)len);
}

static void limiter__without_a_rate_keeps_nobody(void **state)
{
    (void)state;
    struct limiter limiter;
    struct limiter_policy policy = {.rate = 0, .burst = 1, .entries = 16};
    limiter_init(&limiter);
    for (int i = 0; i < 100; i++)
        assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("alice"), 7), 0);
    assert_int_equal(limiter.entries.count, 0);
    limiter_fini(&limiter);
}

static void limiter__each_name_has_its_own_bucket(void **state)
{
    (void)state;
    struct limiter limiter;
    struct limiter_policy policy = {.rate = 4, .burst = 2, .entries = 16};
    limiter_init(&limiter);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("alice"), 7), 0);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("alice"), 7), 0);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("alice"), 7), 250);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("bob"), 7), 0);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("alice"), 257), 0);
    limiter_fini(&limiter);
}

static void limiter__forgets_who_owes_nothing(void **state)
{
    (void)state;
    struct limiter limiter;
    struct limiter_policy policy = {.rate = 1, .burst = 5, .entries = 1000};
    char name[16];
    limiter_init(&limiter);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(limiter_take(&limiter, &policy, numbered(name, i), 1000), 0);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("user3"), 1000), 0);
    limiter_expire(&limiter, 1999, 5000);
    assert_int_equal(limiter.entries.count, 500);
    for (int i = 0; i < 5; i++)
        limiter_expire(&limiter, 2001, 100); /* a part each time, nobody twice before all */
    assert_int_equal(limiter.entries.count, 1);
    limiter_expire(&limiter, 3001, 100);
    assert_int_equal(limiter.entries.count, 0);
    limiter_fini(&limiter);
}

static void limiter__is_bounded_and_makes_room_from_those_who_owe_nothing(void **state)
{
    (void)state;
    struct limiter limiter;
    struct limiter_policy policy = {.rate = 1, .burst = 1, .entries = 16};
    char name[16];
    limiter_init(&limiter);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(limiter_take(&limiter, &policy, numbered(name, i), 1000), 0);
    assert_int_not_equal(limiter_take(&limiter, &policy, BYTES_LIT("late"), 1500), 0);
    assert_int_equal(limiter.entries.count, 16);
    assert_int_equal(limiter_take(&limiter, &policy, BYTES_LIT("late"), 2001), 0);
    assert_int_equal(limiter.entries.count, 1);
    limiter_fini(&limiter);
}

int run_limiter_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limiter__without_a_rate_keeps_nobody),
        cmocka_unit_test(limiter__each_name_has_its_own_bucket),
        cmocka_unit_test(limiter__forgets_who_owes_nothing),
        cmocka_unit_test(limiter__is_bounded_and_makes_room_from_those_who_owe_nothing),
    };
    return cmocka_run_group_tests_name("limiter", tests, NULL, NULL);
}
