#include "bench/order.h"
#include "suites.h"

/* Feeds numbers to a fresh checker and says what it counted after `total` were published. */
static struct order_counts check(const uint64_t *numbers, size_t count, uint64_t total)
{
    struct order order;
    struct order_counts counts = {0};
    order_init(&order, true);
    for (size_t i = 0; i < count; i++)
        order_take(&order, numbers[i], &counts);
    order_finish(&order, total, &counts);
    return counts;
}

#define CHECK(total, ...)                                                                          \
    check((const uint64_t[]){__VA_ARGS__},                                                         \
          sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), (total))

static void assert_counts(struct order_counts counts, uint64_t lost, uint64_t duplicates,
                          uint64_t out_of_order)
{
    assert_int_equal(counts.lost, lost);
    assert_int_equal(counts.duplicates, duplicates);
    assert_int_equal(counts.out_of_order, out_of_order);
}

static void take__all_in_order_is_clean(void **state)
{
    (void)state;
    assert_counts(CHECK(5, 0, 1, 2, 3, 4), 0, 0, 0);
}

static void take__lost_at_front_middle_and_end_are_counted(void **state)
{
    (void)state;
    assert_counts(CHECK(6, 1, 2, 3, 4, 5), 1, 0, 0);
    assert_counts(CHECK(6, 0, 1, 4, 5), 2, 0, 0);
    assert_counts(CHECK(6, 0, 1, 2), 3, 0, 0);
    assert_counts(CHECK(1000, 0, 999), 998, 0, 0);
}

static void take__repeated_is_a_duplicate(void **state)
{
    (void)state;
    assert_counts(CHECK(4, 0, 1, 1, 2, 3), 0, 1, 0);
    assert_counts(CHECK(4, 0, 1, 2, 0, 1, 3), 0, 2, 0);
}

static void take__swapped_is_out_of_order_and_not_lost(void **state)
{
    (void)state;
    assert_counts(CHECK(4, 1, 0, 2, 3), 0, 0, 1);
    assert_counts(CHECK(5, 0, 3, 1, 2, 4), 0, 0, 2);
}

static void take__late_message_that_comes_twice_is_both(void **state)
{
    (void)state;
    assert_counts(CHECK(4, 0, 2, 1, 1, 3), 0, 1, 1);
}

static void take__later_than_the_window_stays_lost(void **state)
{
    (void)state;
    assert_counts(CHECK(ORDER_WINDOW + 1, ORDER_WINDOW, 1), ORDER_WINDOW - 1, 0, 1);
    assert_counts(CHECK(ORDER_WINDOW + 1, ORDER_WINDOW, 0), ORDER_WINDOW, 0, 1);
}

static void take__tells_whether_the_message_is_new(void **state)
{
    (void)state;
    struct order order;
    struct order_counts counts = {0};
    order_init(&order, true);
    assert_true(order_take(&order, 0, &counts));
    assert_true(order_take(&order, 2, &counts));
    assert_true(order_take(&order, 1, &counts));
    assert_false(order_take(&order, 1, &counts));
    assert_false(order_take(&order, 2, &counts));
}

static void take__joins_a_running_count_when_told(void **state)
{
    (void)state;
    struct order order;
    struct order_counts counts = {0};
    order_init(&order, false);
    order_take(&order, 1000, &counts);
    order_take(&order, 1001, &counts);
    order_take(&order, 1003, &counts);
    assert_counts(counts, 1, 0, 0);
}

int suite_order(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take__all_in_order_is_clean),
        cmocka_unit_test(take__lost_at_front_middle_and_end_are_counted),
        cmocka_unit_test(take__repeated_is_a_duplicate),
        cmocka_unit_test(take__swapped_is_out_of_order_and_not_lost),
        cmocka_unit_test(take__late_message_that_comes_twice_is_both),
        cmocka_unit_test(take__later_than_the_window_stays_lost),
        cmocka_unit_test(take__tells_whether_the_message_is_new),
        cmocka_unit_test(take__joins_a_running_count_when_told),
    };
    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
