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

/* Where net.core.wmem_max is small the kernel cuts what it is asked for. */
static void narrow__past_what_can_be_set_the_buffer_is_given_back(void **state)
{
    (void)state;
    const uint32_t most = 128 * 1024;
    struct far_link far = {.bytes_per_second = 625000, .base_us = 800000};
    struct narrow_path path = {
        .held = most, .rtt_us = 800000, .base_us = 800000, .delay_us = DELAY_US, .size = most};
    assert_int_equal(narrow_size(&path), most / 4 * 5); /* as long as nobody knows */
    path.most = most;
    assert_int_equal(narrow_size(&path), 0);
    /* And nobody is given what would be cut. */
    path = (struct narrow_path){.held = 1 << 20,
                                .rtt_us = round_trip(&far, 1 << 20) * 2,
                                .base_us = 800000,
                                .delay_us = DELAY_US,
                                .most = most};
    assert_int_equal(narrow_size(&path), 0);
    path.rtt_us = 16000000;
    assert_int_equal(narrow_size(&path), 65536);
    path.most = 65536;
    assert_int_equal(narrow_size(&path), 0);
    path.most = NARROW_LEAST_BYTES;
    assert_int_equal(narrow_size(&path), 0);
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

/* Looks at a viewer's flow every 100 ms for so long, while so many bytes/s arrive; returns the last rate. */
static uint32_t look_for(struct narrow_flow *flow, uint32_t *acked, uint32_t *now_ms,
                         uint32_t bytes_per_second, uint32_t ms)
{
    uint32_t rate = 0;
    for (uint32_t i = 0; i < ms; i += 100) {
        *now_ms += 100;
        *acked += bytes_per_second / 10;
        rate = narrow_flow_rate(flow, *acked, *now_ms);
    }
    return rate;
}

static void flow__what_arrives_while_writes_wait_is_the_rate(void **state)
{
    (void)state;
    struct narrow_flow flow = {0};
    uint32_t now_ms = UINT32_MAX - 1000; /* clock and count come around */
    uint32_t acked = UINT32_MAX - 5000;
    assert_int_equal(look_for(&flow, &acked, &now_ms, 8000, 200), 0); /* too soon to say */
    assert_int_equal(look_for(&flow, &acked, &now_ms, 8000, 100), 8000);
    assert_int_equal(look_for(&flow, &acked, &now_ms, 8000, 5000), 8000);
    assert_in_range(look_for(&flow, &acked, &now_ms, 80000, 1300), 79000, 81000);
}

/* A burst that blocks, a pause in which nothing waits, however long or short, and the next one: the link carries 100,000 bytes/s all the while. */
static void flow__a_pause_is_not_taken_for_a_slow_link(void **state)
{
    (void)state;
    for (uint32_t pause_ms = 0; pause_ms <= 2000; pause_ms += 50) {
        struct narrow_flow flow = {0};
        uint32_t now_ms = 1000;
        uint32_t acked = 0;
        for (int burst = 0; burst < 20; burst++) {
            for (int i = 0; i < 3; i++) {
                uint32_t rate = look_for(&flow, &acked, &now_ms, 100000, 100);
                if (rate > 0 && rate < 90000)
                    fail_msg("%u bytes/s with pauses of %u ms", rate, pause_ms);
            }
            narrow_flow_free(&flow, now_ms);
            now_ms += pause_ms;
            acked += 200; /* what was said meanwhile */
            narrow_flow_wait(&flow, now_ms);
        }
    }
}

/* What came long before the writes began to wait says nothing. */
static void flow__a_beginning_is_not_known(void **state)
{
    (void)state;
    struct narrow_flow flow = {0};
    uint32_t now_ms = 1000;
    uint32_t acked = 500;
    assert_int_equal(look_for(&flow, &acked, &now_ms, 50000, 300), 50000);
    narrow_flow_free(&flow, now_ms);
    now_ms += 200;
    acked += 200000;
    narrow_flow_wait(&flow, now_ms);
    assert_int_equal(look_for(&flow, &acked, &now_ms, 8000, 200), 0);
    assert_int_equal(look_for(&flow, &acked, &now_ms, 8000, 100), 8000);
}

/* The kernel tells for how long something was on its way since the connection began: minutes without a word don't count. */
static void flow__a_young_connection_is_judged_from_its_beginning(void **state)
{
    (void)state;
    const uint32_t now_ms = 900000;
    struct narrow_flow flow;
    narrow_flow_begin(&flow, 500000, now_ms);
    assert_int_equal(narrow_flow_rate(&flow, 4000, now_ms), 8000);
    assert_int_equal(narrow_flow_rate(&flow, 4800, now_ms + 100), 8000);
    narrow_flow_begin(&flow, 100000, now_ms);
    assert_int_equal(narrow_flow_rate(&flow, 800, now_ms), 0);
    assert_int_equal(narrow_flow_rate(&flow, 1600, now_ms + 100), 8000);
    /* One that has been busy for long, and one of which the kernel does not tell. */
    const uint64_t busy_us[] = {1200000, 60000000, 1000ull << 32 | 500000, 0};
    for (int i = 0; i < 4; i++) {
        narrow_flow_begin(&flow, busy_us[i], now_ms);
        assert_int_equal(narrow_flow_rate(&flow, 1000000, now_ms), 0);
        assert_int_equal(narrow_flow_rate(&flow, 1000000 + 4000, now_ms + 500), 8000);
    }
}

/* With many viewers each is looked at rarely. */
static void flow__an_old_count_says_nothing(void **state)
{
    (void)state;
    struct narrow_flow flow = {0};
    (void)narrow_flow_rate(&flow, 0, 1000);
    assert_int_equal(narrow_flow_rate(&flow, 1100 * 8, 2100), 8000);
    assert_int_equal(narrow_flow_rate(&flow, 2300 * 8, 3300), 0);
    assert_int_equal(narrow_flow_rate(&flow, 3300 * 8, 4300), 8000);
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
        cmocka_unit_test(narrow__past_what_can_be_set_the_buffer_is_given_back),
        cmocka_unit_test(narrow__a_long_way_is_filled),
        cmocka_unit_test(narrow__a_buffer_that_is_the_bound_counts_as_full),
        cmocka_unit_test(narrow__a_standing_queue_is_not_taken_for_distance),
        cmocka_unit_test(narrow__a_beginning_is_judged_by_what_arrived),
        cmocka_unit_test(flow__what_arrives_while_writes_wait_is_the_rate),
        cmocka_unit_test(flow__a_pause_is_not_taken_for_a_slow_link),
        cmocka_unit_test(flow__a_beginning_is_not_known),
        cmocka_unit_test(flow__a_young_connection_is_judged_from_its_beginning),
        cmocka_unit_test(flow__an_old_count_says_nothing),
        cmocka_unit_test(narrow__without_a_delay_nobody_is_narrowed),
        cmocka_unit_test(narrow__what_is_not_known_changes_nothing),
    };
    return cmocka_run_group_tests_name("narrow", tests, NULL, NULL);
}
