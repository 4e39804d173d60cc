#include "policy/narrow.h"
#include "policy/test_policy.h"

enum { DELAY_US = 500000, MSS = 1448, SLACK = 2 /* memory per byte of data */ };

/* A link that carries so much, with a queue as long as it takes: what is on its way beyond one round trip waits in it. */
struct far_link {
    uint32_t bytes_per_second;
    uint32_t base_us;
};

static uint32_t round_trip(const struct far_link *link, uint32_t held)
{
    uint64_t drain_us = (uint64_t)held / SLACK * 1000000 / link->bytes_per_second;
    return drain_us > link->base_us ? (uint32_t)drain_us : link->base_us;
}

/* Looks at a viewer who always has more to get than its buffer, so often; returns its buffer. tuned: what the kernel would have it hold. */
static uint32_t settle(const struct far_link *link, uint32_t size, uint32_t tuned, int looks)
{
    for (int i = 0; i < looks; i++) {
        uint32_t held = size > 0 && size < tuned ? size : tuned;
        struct narrow_path path = {.held = held,
                                   .rtt_us = round_trip(link, held),
                                   .base_us = link->base_us,
                                   .delay_us = DELAY_US,
                                   .size = size};
        size = narrow_size(&path);
    }
    return size;
}

static void narrow__a_thin_link_holds_what_it_carries_in_the_delay(void **state)
{
    (void)state;
    const uint32_t rates[] = {16000, 32000, 125000, 300000};
    for (int i = 0; i < 4; i++) {
        struct far_link link = {.bytes_per_second = rates[i], .base_us = 40000};
        uint32_t size = settle(&link, 0, 4 << 20, 10);
        assert_in_range(size, rates[i] * 99 / 100,
                        rates[i] * 101 / 100); /* half a second, doubled */
        assert_int_equal(settle(&link, NARROW_LEAST_BYTES, 4 << 20, 10) / 100, size / 100);
    }
}

static void narrow__the_thinnest_links_keep_the_least(void **state)
{
    (void)state;
    struct far_link link = {.bytes_per_second = 1000, .base_us = 300000};
    assert_int_equal(settle(&link, 0, 1 << 20, 10), NARROW_LEAST_BYTES);
}

static void narrow__fast_links_stay_the_kernels(void **state)
{
    (void)state;
    struct far_link fast = {.bytes_per_second = 2500000, .base_us = 100000};
    assert_int_equal(settle(&fast, 0, 250000 * SLACK, 1), 0);
    /* Nothing waits on the way: a small window is the link's own affair. */
    assert_int_equal(settle(&fast, 0, 10 * MSS * SLACK, 1), 0);
    struct far_link satellite = {.bytes_per_second = 2500000, .base_us = 650000};
    assert_int_equal(settle(&satellite, 0, 10 * MSS * SLACK, 1), 0);
}

static void narrow__a_link_that_got_faster_gets_its_buffer_back(void **state)
{
    (void)state;
    struct far_link near = {.bytes_per_second = 625000, .base_us = 30000};
    assert_int_equal(settle(&near, NARROW_LEAST_BYTES, 4 << 20, 2), 0);
    /* However long its way is: the buffer must not settle below what fills it. */
    for (uint32_t base_us = 100000; base_us <= 3200000; base_us *= 2) {
        struct far_link link = {.bytes_per_second = 2500000, .base_us = base_us};
        assert_int_equal(settle(&link, NARROW_LEAST_BYTES, 16 << 20, 20), 0);
    }
}

static void narrow__a_long_way_is_filled(void **state)
{
    (void)state;
    struct far_link link = {.bytes_per_second = 50000, .base_us = 1500000};
    assert_true(settle(&link, 0, 4 << 20, 20) / SLACK > 50000 * 3 / 2);
}

/* epoll tells that it takes more when a third of it is free. */
static void narrow__a_buffer_that_is_the_bound_counts_as_full(void **state)
{
    (void)state;
    struct narrow_path path = {
        .held = 70000, .rtt_us = 400000, .base_us = 380000, .delay_us = DELAY_US, .size = 100000};
    assert_int_equal(narrow_size(&path), 125000);
    path.held = 40000; /* something else is */
    assert_int_equal(narrow_size(&path), 50000);
    path.held = 160000; /* what it had before still drains */
    assert_int_equal(narrow_size(&path), 200000);
}

/* The least round trip was measured while the buffer's own bytes stood in the queue: it must not keep itself up. */
static void narrow__a_standing_queue_is_not_taken_for_distance(void **state)
{
    (void)state;
    struct far_link link = {.bytes_per_second = 32000, .base_us = 40000};
    uint32_t base_us = 4000000;
    uint32_t size = 32000 * 4 * SLACK;
    for (int i = 0; i < 60; i++) {
        struct narrow_path path = {.held = size,
                                   .rtt_us = round_trip(&link, size),
                                   .base_us = base_us,
                                   .delay_us = DELAY_US,
                                   .size = size};
        size = narrow_size(&path);
        /* Writes wait until a third of the buffer is free. */
        uint32_t least_us = round_trip(&link, size / 3 * 2 + MSS * SLACK);
        base_us = least_us < base_us ? least_us : base_us;
    }
    assert_in_range(size, 31000, 33000);
}

/* The first window of a connection to a phone, a quarter of a second after it left: three segments have arrived. */
static void narrow__a_beginning_is_judged_by_what_arrived(void **state)
{
    (void)state;
    struct narrow_path path = {
        .held = 24204, .rtt_us = 80000, .base_us = 30000, .delay_us = DELAY_US, .rate = 8000};
    assert_int_equal(narrow_size(&path), NARROW_LEAST_BYTES);
    path.size = NARROW_LEAST_BYTES;
    assert_int_equal(narrow_size(&path), NARROW_LEAST_BYTES);
    path.rate = 16000;
    assert_int_equal(narrow_size(&path), 16000);
    /* The same on a fast link, whose answer is not back yet: nothing waits there. */
    path = (struct narrow_path){
        .held = 29000, .rtt_us = 61000, .base_us = 60000, .delay_us = DELAY_US, .rate = 8000};
    assert_int_equal(narrow_size(&path), 0);
}

static void narrow__without_a_delay_nobody_is_narrowed(void **state)
{
    (void)state;
    struct narrow_path path = {.held = 100000, .rtt_us = 6000000, .base_us = 1000};
    assert_int_equal(narrow_size(&path), 0);
    path.size = NARROW_LEAST_BYTES;
    assert_int_equal(narrow_size(&path), 0);
}

static void narrow__what_is_not_known_changes_nothing(void **state)
{
    (void)state;
    struct narrow_path path = {.held = 100000, .delay_us = DELAY_US};
    assert_int_equal(narrow_size(&path), 0);
    path.size = 20000;
    assert_int_equal(narrow_size(&path), 20000);
    path = (struct narrow_path){.held = UINT32_MAX,
                                .rtt_us = UINT32_MAX,
                                .base_us = UINT32_MAX,
                                .delay_us = UINT32_MAX,
                                .rate = 1};
    assert_int_equal(narrow_size(&path), 0);
}

int run_narrow_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow__a_thin_link_holds_what_it_carries_in_the_delay),
        cmocka_unit_test(narrow__the_thinnest_links_keep_the_least),
        cmocka_unit_test(narrow__fast_links_stay_the_kernels),
        cmocka_unit_test(narrow__a_link_that_got_faster_gets_its_buffer_back),
        cmocka_unit_test(narrow__a_long_way_is_filled),
        cmocka_unit_test(narrow__a_buffer_that_is_the_bound_counts_as_full),
        cmocka_unit_test(narrow__a_standing_queue_is_not_taken_for_distance),
        cmocka_unit_test(narrow__a_beginning_is_judged_by_what_arrived),
        cmocka_unit_test(narrow__without_a_delay_nobody_is_narrowed),
        cmocka_unit_test(narrow__what_is_not_known_changes_nothing),
    };
    return cmocka_run_group_tests_name("narrow", tests, NULL, NULL);
}
