#include "base/ring.h"
#include "base/test_base.h"
#include "lib/alloc.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void *number(uintptr_t n)
{
    return (void *)n;
}

static void ring_init__rounds_up_to_a_power_of_two(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{0, 64},   {1, 64},    {64, 64},
                                        {65, 128}, {128, 128}, {1000, 1024}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct ring_queue ring;
        assert_int_equal(ring_init(&ring, sizes[i][0]), 0);
        assert_int_equal(ring_free(&ring), sizes[i][1]);
        assert_null(ring_shift(&ring));
        ring_fini(&ring);
    }
}

static void ring_init__without_memory_fails(void **state)
{
    (void)state;
    struct ring_queue ring;
    alloc_fail_at(1);
    assert_int_equal(ring_init(&ring, 64), -1);
    ring_fini(&ring);
}

/* Fills and empties it by all amounts, with indexes that wrap in the middle. */
static void ring__keeps_order_and_bound_when_the_indexes_wrap(void **state)
{
    (void)state;
    struct ring_queue ring;
    uintptr_t pushed = 0;
    uintptr_t shifted = 0;
    assert_int_equal(ring_init(&ring, 64), 0);
    atomic_store(&ring.head, UINT32_MAX - 1000);
    atomic_store(&ring.tail, UINT32_MAX - 1000);
    for (uint32_t amount = 0; amount <= 64; amount++) {
        for (uint32_t i = 0; i < amount; i++)
            assert_true(ring_push(&ring, number(++pushed)));
        assert_int_equal(ring_free(&ring), 64 - amount);
        if (amount == 64)
            assert_false(ring_push(&ring, number(pushed + 1)));
        for (uint32_t i = 0; i < amount; i++)
            assert_ptr_equal(ring_shift(&ring), number(++shifted));
        assert_null(ring_shift(&ring));
        assert_int_equal(ring_free(&ring), 64);
    }
    assert_true(atomic_load(&ring.head) < 64 * 64);
    ring_fini(&ring);
}

enum { PASSED_ON = 200000 };

/* What is pointed to must be seen whole by the reader, too. */
struct item {
    uint32_t number;
    uint32_t check;
};

static struct item items[PASSED_ON];

static void *write_items(void *arg)
{
    struct ring_queue *ring = arg;
    for (uint32_t i = 0; i < PASSED_ON; i++) {
        items[i] = (struct item){.number = i, .check = ~i};
        while (!ring_push(ring, &items[i]))
            sched_yield();
    }
    return NULL;
}

static void ring__passes_everything_on_between_two_threads(void **state)
{
    (void)state;
    struct ring_queue ring;
    pthread_t writer;
    uint32_t wrong = 0;
    assert_int_equal(ring_init(&ring, 64), 0);
    atomic_store(&ring.head, UINT32_MAX - 1000);
    atomic_store(&ring.tail, UINT32_MAX - 1000);
    assert_int_equal(pthread_create(&writer, NULL, write_items, &ring), 0);
    for (uint32_t i = 0; i < PASSED_ON;) {
        struct item *item = ring_shift(&ring);
        if (!item) {
            sched_yield();
            continue;
        }
        wrong += item->number != i || item->check != ~i;
        i++;
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_null(ring_shift(&ring));
    ring_fini(&ring);
}

int run_ring_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_init__rounds_up_to_a_power_of_two),
        cmocka_unit_test(ring_init__without_memory_fails),
        cmocka_unit_test(ring__keeps_order_and_bound_when_the_indexes_wrap),
        cmocka_unit_test(ring__passes_everything_on_between_two_threads),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
