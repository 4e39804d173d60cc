#include "policy/merge.h"
#include "policy/test_policy.h"
#include "policy/totals.h"

#include <stdio.h>

enum { MOST = 1000, WINDOW_MS = 500 };

struct item {
    struct merge_entry base;
    int mark;
};

/* Two clocks: one that begins now, one that passes 2^32 ms while windows are open. */
static const uint64_t clocks[] = {5, (UINT64_C(1) << 32) - 1003, (UINT64_C(10) << 32) - 5003};

static void amount__is_an_integer_from_0_or_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        int error;
        uint64_t amount;
    } cases[] = {
        {"", 0, 1},
        {"{}", 0, 1},
        {"{\"m\":7}", 0, 1},
        {"{\"n\":0}", 0, 0},
        {"{\"n\":37,\"x\":[1,{}]}", 0, 37},
        {"{\"n\":1,\"n\":5}", 0, 5},
        {"{\"n\":1000}", 0, 1000},
        {"{\"n\":1001}", MERGE_ERR_VALUE, 0},
        {"{\"n\":9007199254740992}", MERGE_ERR_DATA, 0},
        {"{\"n\":99999999999999999999999}", MERGE_ERR_DATA, 0},
        {"{\"n\":-1}", MERGE_ERR_DATA, 0},
        {"{\"n\":1.0}", MERGE_ERR_DATA, 0},
        {"{\"n\":1e2}", MERGE_ERR_DATA, 0},
        {"{\"n\":\"1\"}", MERGE_ERR_DATA, 0},
        {"{\"n\":null}", MERGE_ERR_DATA, 0},
        {"7", MERGE_ERR_DATA, 0},
        {"[1]", MERGE_ERR_DATA, 0},
        {"null", MERGE_ERR_DATA, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t amount = 0;
        int error = merge_read_amount(bytes_str(cases[i].data), "n", 1000, &amount);
        if (error != cases[i].error || amount != cases[i].amount)
            fail_msg("%s: %d, %lu", cases[i].data, error, (unsigned long)amount);
    }
}

static void sum__reads_what_nodes_and_backends_publish(void **state)
{
    (void)state;
    struct merge_sum sum = {0};
    assert_int_equal(merge_read_sum(BYTES_LIT("{\"delta\":37,\"total\":123456}"), "n", &sum), 0);
    assert_true(sum.delta == 37 && sum.has_total && sum.total == 123456);
    assert_int_equal(merge_read_sum(BYTES_LIT("{\"n\":9007199254740991}"), "n", &sum), 0);
    assert_true(sum.delta == MERGE_VALUE_MAX && !sum.has_total);
    assert_int_equal(merge_read_sum(BYTES_LIT("{\"delta\":2,\"n\":9}"), "n", &sum), 0);
    assert_true(sum.delta == 2);
    assert_int_equal(merge_read_sum((struct bytes){0}, "n", &sum), 0);
    assert_true(sum.delta == 1);
    assert_int_equal(merge_read_sum(BYTES_LIT("{\"delta\":1,\"total\":\"9\"}"), "n", &sum),
                     MERGE_ERR_DATA);
    assert_int_equal(merge_read_sum(BYTES_LIT("{\"n\":-1}"), "n", &sum), MERGE_ERR_DATA);
    assert_int_equal(merge_read_sum(BYTES_LIT("3"), "n", &sum), MERGE_ERR_DATA);
}

static void sum__adds_deltas_keeps_the_largest_total_and_never_wraps(void **state)
{
    (void)state;
    struct merge_sum sum = {0};
    struct buf out = {0};
    merge_add(&sum, &(struct merge_sum){.delta = 3});
    merge_append(&out, &sum);
    merge_add(&sum, &(struct merge_sum){.delta = 4, .has_total = true, .total = 90});
    merge_add(&sum, &(struct merge_sum){.delta = 5, .has_total = true, .total = 80});
    merge_add(&sum, &(struct merge_sum){.delta = 6});
    merge_append(&out, &sum);
    assert_true(bytes_is(buf_view(&out), "{\"delta\":3}{\"delta\":18,\"total\":90}"));
    merge_add(&sum, &(struct merge_sum){.delta = MERGE_VALUE_MAX});
    merge_add(&sum, &(struct merge_sum){.delta = MERGE_VALUE_MAX});
    assert_true(sum.delta == MERGE_VALUE_MAX);
    buf_fini(&out);
}

static void merger__a_window_ends_on_its_tick_and_not_before(void **state)
{
    (void)state;
    static const uint32_t windows[] = {10, 500, 2559, 2560, 7777, 60000};
    for (size_t c = 0; c < 3; c++) {
        for (size_t w = 0; w < 6; w++) {
            struct merger merger;
            uint64_t now = clocks[c];
            merger_init(&merger, sizeof(struct item), now);
            now += 100000; /* nothing was open for long */
            struct merge_entry *entry =
                merger_open(&merger, BYTES_LIT("r"), BYTES_LIT("like"), MOST, now, windows[w]);
            assert_non_null(entry);
            uint64_t ended = 0;
            for (uint64_t t = now; !ended && t < now + windows[w] + 100; t++) {
                if (merger_next(&merger, t))
                    ended = t;
            }
            assert_in_range(ended - now, windows[w], windows[w] + MERGE_TICK_MS - 1);
            merger_fini(&merger, NULL, NULL);
        }
    }
}

/* 100 likes a millisecond for ten seconds: how many messages leave, and does each like leave once? */
static void merger__a_busy_room_sends_one_message_per_window(void **state)
{
    (void)state;
    for (size_t c = 0; c < 3; c++) {
        struct merger merger;
        uint64_t start = clocks[c];
        unsigned messages = 0;
        uint64_t likes = 0;
        merger_init(&merger, sizeof(struct item), start);
        for (uint64_t t = start; t < start + 12000; t++) {
            struct merge_entry *entry;
            while ((entry = merger_next(&merger, t))) {
                if (entry->count == 0) {
                    merger_close(&merger, entry);
                    continue;
                }
                messages++;
                likes += entry->count;
                entry->count = 0;
                merger_reopen(&merger, entry, t, WINDOW_MS);
            }
            if (t >= start + 10000)
                continue;
            entry = merger_find(&merger, BYTES_LIT("r"), BYTES_LIT("like"));
            if (!entry) {
                messages++; /* the first one leaves at once */
                likes++;
                entry = merger_open(&merger, BYTES_LIT("r"), BYTES_LIT("like"), MOST, t, WINDOW_MS);
                entry->count = 99;
            } else {
                entry->count += 100;
            }
        }
        assert_int_equal(likes, 1000000);
        assert_in_range(messages, 20, 21);
        assert_int_equal(merger.entries.count, 0);
        merger_fini(&merger, NULL, NULL);
    }
}

static void merger__tells_rooms_and_types_apart(void **state)
{
    (void)state;
    struct merger merger;
    merger_init(&merger, sizeof(struct item), 0);
    struct bytes rooms[] = {BYTES_LIT("a"), BYTES_LIT("ab"), {0}};
    struct bytes types[] = {BYTES_LIT("bc"), BYTES_LIT("c")};
    for (int i = 0; i < 6; i++) {
        assert_null(merger_find(&merger, rooms[i / 2], types[i % 2]));
        struct merge_entry *entry =
            merger_open(&merger, rooms[i / 2], types[i % 2], MOST, 0, WINDOW_MS);
        CONTAINER_OF(entry, struct item, base)->mark = i;
    }
    for (int i = 0; i < 6; i++) {
        struct merge_entry *entry = merger_find(&merger, rooms[i / 2], types[i % 2]);
        assert_int_equal(CONTAINER_OF(entry, struct item, base)->mark, i);
        assert_true(bytes_equal(merge_room(entry), rooms[i / 2]));
        assert_true(bytes_equal(merge_type(entry), types[i % 2]));
    }
    merger_fini(&merger, NULL, NULL);
}

static void count_dropped(void *ctx, struct merge_entry *entry)
{
    (void)entry;
    ++*(int *)ctx;
}

static void merger__is_bounded_and_ends_all_on_demand(void **state)
{
    (void)state;
    struct merger merger;
    char name[16];
    int given = 0;
    int dropped = 0;
    struct merge_entry *entry;
    merger_init(&merger, sizeof(struct item), 77);
    for (int i = 0; i < 100; i++) {
        int len = snprintf(name, sizeof(name), "room%d", i);
        entry = merger_open(&merger, bytes_of(name, (size_t)len), BYTES_LIT("like"), 64, 77, 60000);
        assert_int_equal(entry != NULL, i < 64);
    }
    assert_null(merger_next(&merger, 80));
    merger_end_all(&merger);
    while ((entry = merger_next(&merger, 80))) {
        if (++given % 2)
            merger_close(&merger, entry);
        else
            merger_reopen(&merger, entry, 80, 60000);
    }
    assert_int_equal(given, 64);
    merger_fini(&merger, count_dropped, &dropped);
    assert_int_equal(dropped, 32);
}

static void totals__add_up_forget_what_rests_and_are_bounded(void **state)
{
    (void)state;
    struct totals totals;
    struct bytes like = BYTES_LIT("like");
    totals_init(&totals);
    assert_true(totals_add(&totals, BYTES_LIT("a"), like, 5, 1000, 2) == 5);
    assert_true(totals_add(&totals, BYTES_LIT("b"), like, 7, 1001, 2) == 7);
    assert_true(totals_add(&totals, BYTES_LIT("a"), like, 5, 1002, 2) == 10);
    assert_true(totals_add(&totals, BYTES_LIT("al"), BYTES_LIT("ike"), 1, 1003, 2) ==
                1); /* b goes */
    assert_true(totals_add(&totals, BYTES_LIT("a"), like, 1, 1004, 2) == 11);
    assert_true(totals_add(&totals, BYTES_LIT("b"), like, 1, 1005, 2) == 1);
    totals_expire(&totals, 1104, 100);
    assert_int_equal(totals.entries.count, 1);
    assert_true(totals_add(&totals, BYTES_LIT("b"), like, MERGE_VALUE_MAX, 1105, 2) ==
                MERGE_VALUE_MAX);
    totals_fini(&totals);
}

int run_merge_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amount__is_an_integer_from_0_or_left_out),
        cmocka_unit_test(sum__reads_what_nodes_and_backends_publish),
        cmocka_unit_test(sum__adds_deltas_keeps_the_largest_total_and_never_wraps),
        cmocka_unit_test(merger__a_window_ends_on_its_tick_and_not_before),
        cmocka_unit_test(merger__a_busy_room_sends_one_message_per_window),
        cmocka_unit_test(merger__tells_rooms_and_types_apart),
        cmocka_unit_test(merger__is_bounded_and_ends_all_on_demand),
        cmocka_unit_test(totals__add_up_forget_what_rests_and_are_bounded),
    };
    return cmocka_run_group_tests_name("merge", tests, NULL, NULL);
}
