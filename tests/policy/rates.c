#include "policy/rates.h"
#include "policy/test_policy.h"

#include "lib/conf_with.h"

static const struct conf_type *type_of(const struct conf *conf, const char *name)
{
    return &conf->types[conf_type_find(conf, bytes_str(name))];
}

static void rates__a_type_without_rate_costs_nothing(void **state)
{
    (void)state;
    struct conf *conf = conf_with(NULL, NULL);
    struct rates *rates = NULL;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(rates_take(&rates, conf, type_of(conf, "chat"), 5), 0);
    assert_null(rates);
    assert_int_equal(rates_bytes(rates), 0);
    conf_unref(conf);
}

static void rates__each_type_has_its_own_bucket_in_one_allocation(void **state)
{
    (void)state;
    const char *const set[] = {"type.chat.rate=2", "type.chat.burst=3", "type.like.rate=10",
                               "type.like.burst=5", NULL};
    struct conf *conf = conf_with(set, NULL);
    struct rates *rates = NULL;
    assert_int_equal(conf->limited_types, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rates_take(&rates, conf, type_of(conf, "chat"), 1000), 0);
    struct rates *first = rates;
    assert_int_equal(rates_take(&rates, conf, type_of(conf, "chat"), 1000), 500);
    for (int i = 0; i < 5; i++)
        assert_int_equal(rates_take(&rates, conf, type_of(conf, "like"), 1000), 0);
    assert_int_equal(rates_take(&rates, conf, type_of(conf, "like"), 1000), 100);
    assert_int_equal(rates_take(&rates, conf, type_of(conf, "chat"), 1500), 0);
    assert_int_equal(rates_take(&rates, conf, type_of(conf, "chat"), 1500), 500);
    assert_ptr_equal(rates, first);
    assert_in_range(rates_bytes(rates), 16, 24);
    rates_free(rates);
    conf_unref(conf);
}

/* A reload that puts other types before and between: debts stay with their names, types that are no longer limited give way. */
static void rates__a_reload_leaves_debts_with_their_types(void **state)
{
    (void)state;
    const char *const before[] = {"type.chat.rate=1", "type.chat.burst=1", "type.like.rate=1",
                                  "type.like.burst=1", NULL};
    const char *const after[] = {"type.aaa.rate=1",
                                 "type.aaa.burst=1",
                                 "type.gift.rate=1",
                                 "type.gift.burst=1",
                                 "type.like.rate=1",
                                 "type.like.burst=1",
                                 NULL};
    struct conf *old = conf_with(before, NULL);
    struct conf *fresh = conf_with(after, NULL);
    struct rates *rates = NULL;
    assert_int_equal(rates_take(&rates, old, type_of(old, "chat"), 1000), 0);
    assert_int_equal(rates_take(&rates, old, type_of(old, "like"), 1000), 0);
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "chat"), 1000), 0); /* no limit now */
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "like"), 1000), 1000);
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "aaa"), 1000), 0);
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "gift"), 1000), 0);
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "gift"), 1000), 1000);
    assert_int_equal(rates_take(&rates, fresh, type_of(fresh, "like"), 1000), 1000);
    assert_in_range(rates_bytes(rates), 3 * 8, 3 * 8 + 8);
    rates_free(rates);
    conf_unref(old);
    conf_unref(fresh);
}

int run_rates_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates__a_type_without_rate_costs_nothing),
        cmocka_unit_test(rates__each_type_has_its_own_bucket_in_one_allocation),
        cmocka_unit_test(rates__a_reload_leaves_debts_with_their_types),
    };
    return cmocka_run_group_tests_name("rates", tests, NULL, NULL);
}
