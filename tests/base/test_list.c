#include "base/list.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int number;
    struct link link;
};

/* The list holds exactly the numbers from..to, both ways round. */
static void assert_numbers(struct link *head, int from, int to)
{
    int expected = from;
    for (struct link *at = head->next; at != head; at = at->next)
        assert_int_equal(CONTAINER_OF(at, struct item, link)->number, expected++);
    assert_int_equal(expected, to + 1);
    for (struct link *at = head->prev; at != head; at = at->prev)
        assert_int_equal(CONTAINER_OF(at, struct item, link)->number, --expected);
    assert_int_equal(expected, from);
}

static void fill(struct link *head, struct item *items, int from, int to)
{
    list_init(head);
    for (int number = from; number <= to; number++) {
        items[number].number = number;
        list_append(head, &items[number].link);
    }
}

static void list__keeps_the_order_of_appends(void **state)
{
    (void)state;
    struct item items[5];
    struct link head;
    list_init(&head);
    assert_true(list_empty(&head));
    fill(&head, items, 0, 4);
    assert_false(list_empty(&head));
    assert_numbers(&head, 0, 4);
}

static void list_remove__twice_is_harmless(void **state)
{
    (void)state;
    struct item items[3];
    struct link head;
    fill(&head, items, 0, 2);
    list_remove(&items[0].link);
    list_remove(&items[0].link);
    assert_numbers(&head, 1, 2);
    list_append(&head, &items[0].link);
    list_remove(&items[0].link);
    assert_numbers(&head, 1, 2);
}

static void list_shift__takes_the_first_until_empty(void **state)
{
    (void)state;
    struct item items[3];
    struct link head;
    fill(&head, items, 0, 2);
    for (int i = 0; i < 3; i++) {
        struct link *first = list_shift(&head);
        assert_ptr_equal(first, &items[i].link);
        assert_true(list_empty(first));
    }
    assert_null(list_shift(&head));
}

static void list_splice__moves_all_behind(void **state)
{
    (void)state;
    struct item items[6];
    struct link front;
    struct link back;
    fill(&front, items, 0, 2);
    fill(&back, items, 3, 5);
    list_splice(&front, &back);
    assert_numbers(&front, 0, 5);
    assert_true(list_empty(&back));
    list_splice(&front, &back);
    assert_numbers(&front, 0, 5);
    list_splice(&back, &front);
    assert_numbers(&back, 0, 5);
    assert_true(list_empty(&front));
}

int run_list_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list__keeps_the_order_of_appends),
        cmocka_unit_test(list_remove__twice_is_harmless),
        cmocka_unit_test(list_shift__takes_the_first_until_empty),
        cmocka_unit_test(list_splice__moves_all_behind),
    };
    return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}
