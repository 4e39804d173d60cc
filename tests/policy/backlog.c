#include "policy/backlog.h"
#include "policy/test_policy.h"

#include <stdio.h>

static const struct backlog_bounds roomy = {
    .length = 3, .ttl_ms = 1000, .dedupe_ms = 2000, .rooms = 10, .bytes = 1 << 20};

static struct backlog_answer post(struct backlog *backlog, const struct backlog_bounds *bounds,
                                  const char *message, const char *key, uint64_t now_ms)
{
    struct backlog_post one = {.room = BYTES_LIT("42"),
                               .lane = LANE_NORMAL,
                               .message = bytes_str(message),
                               .key = bytes_str(key),
                               .now_ms = now_ms,
                               .unix_us = 1000};
    return backlog_post(backlog, bounds, &one);
}

static uint32_t kept(const struct backlog *backlog, struct bytes *out, uint64_t *first)
{
    return backlog_read(backlog, BYTES_LIT("42"), LANE_NORMAL, 1 << 20, out, 16, first);
}

static void backlog__numbers_and_keeps_the_newest(void **state)
{
    (void)state;
    struct backlog backlog;
    struct bytes out[16];
    uint64_t first = 0;
    backlog_init(&backlog);
    for (uint64_t n = 1; n <= 5; n++) {
        struct backlog_answer answer = post(&backlog, &roomy, "{\"type\":\"chat\"}", NULL, 10);
        assert_int_equal(answer.result, BACKLOG_ADDED);
        assert_int_equal(answer.point.n, n);
        assert_int_equal(answer.point.epoch, 1000);
    }
    assert_int_equal(kept(&backlog, out, &first), 3);
    assert_int_equal(first, 3);
    assert_true(bytes_is(out[2], "{\"id\":\"n.rs.5\",\"type\":\"chat\"}"));
    assert_int_equal(
        backlog_read(&backlog, BYTES_LIT("42"), LANE_NORMAL, 2 * out[0].len, out, 16, &first), 2);
    assert_int_equal(first, 4);
    struct history_point points[LANE_COUNT];
    assert_true(backlog_stand(&backlog, BYTES_LIT("42"), points));
    assert_int_equal(points[LANE_NORMAL].n, 5);
    assert_int_equal(points[LANE_HIGH].n, 0);
    assert_false(backlog_stand(&backlog, BYTES_LIT("43"), points));
    backlog_fini(&backlog);
    assert_int_equal(backlog.bytes, 0);
}

static void backlog__a_repeat_gets_the_first_id(void **state)
{
    (void)state;
    struct backlog backlog;
    backlog_init(&backlog);
    assert_int_equal(post(&backlog, &roomy, "{\"a\":1}", "k", 0).result, BACKLOG_ADDED);
    assert_int_equal(post(&backlog, &roomy, "{\"a\":2}", NULL, 0).point.n, 2);
    struct backlog_answer again = post(&backlog, &roomy, "{\"a\":1}", "k", 2000);
    assert_int_equal(again.result, BACKLOG_REPEAT);
    assert_int_equal(again.point.n, 1);
    assert_int_equal(post(&backlog, &roomy, "{\"a\":3}", "k", 2000).result, BACKLOG_OTHER);
    assert_int_equal(post(&backlog, &roomy, "{\"a\":3}", "k", 2001).result, BACKLOG_ADDED);
    backlog_fini(&backlog);
}

static void backlog__old_messages_go_and_numbers_stay(void **state)
{
    (void)state;
    struct backlog backlog;
    struct bytes out[16];
    uint64_t first = 0;
    backlog_init(&backlog);
    (void)post(&backlog, &roomy, "{\"a\":1}", NULL, 0);
    backlog_expire(&backlog, &roomy, 1000);
    assert_int_equal(kept(&backlog, out, &first), 1);
    backlog_expire(&backlog, &roomy, 1001);
    assert_int_equal(kept(&backlog, out, &first), 0);
    assert_int_equal(post(&backlog, &roomy, "{\"a\":1}", NULL, 80000000).point.n, 2);
    backlog_expire(&backlog, &roomy, 80000000 + 86400000 + 1001);
    struct backlog_answer anew = post(&backlog, &roomy, "{\"a\":1}", NULL, 200000000);
    assert_int_equal(anew.point.n, 1);
    assert_int_equal(anew.point.epoch, 1001); /* another one, though the clock stood still */
    backlog_fini(&backlog);
}

static void backlog__is_bounded_by_bytes_and_rooms(void **state)
{
    (void)state;
    struct backlog backlog;
    struct backlog_bounds bounds = roomy;
    bounds.bytes = 4096;
    bounds.length = 1000;
    backlog_init(&backlog);
    for (int i = 0; i < 500; i++) {
        char room[16];
        char key[16];
        snprintf(room, sizeof(room), "room%d", i % 20);
        snprintf(key, sizeof(key), "key%d", i);
        struct backlog_post one = {.room = bytes_str(room),
                                   .message = BYTES_LIT("{\"type\":\"chat\",\"data\":1}"),
                                   .key = bytes_str(key),
                                   .unix_us = 5};
        assert_int_equal(backlog_post(&backlog, &bounds, &one).result, BACKLOG_ADDED);
        backlog_expire(&backlog, &bounds, 0);
        assert_true(backlog.bytes <= bounds.bytes);
        assert_true(backlog.rooms.count <= bounds.rooms);
    }
    backlog_fini(&backlog);
}

static void backlog__what_could_not_be_published_leaves_no_trace(void **state)
{
    (void)state;
    struct backlog backlog;
    struct backlog_post one = {.room = BYTES_LIT("42"),
                               .lane = LANE_NORMAL,
                               .message = BYTES_LIT("{\"a\":1}"),
                               .key = BYTES_LIT("k"),
                               .unix_us = 1};
    backlog_init(&backlog);
    assert_int_equal(backlog_post(&backlog, &roomy, &one).point.n, 1);
    backlog_undo(&backlog, &one);
    one.message = BYTES_LIT("{\"a\":2}");
    struct backlog_answer answer = backlog_post(&backlog, &roomy, &one);
    assert_int_equal(answer.result, BACKLOG_ADDED);
    assert_int_equal(answer.point.n, 1);
    backlog_fini(&backlog);
}

int run_backlog_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backlog__numbers_and_keeps_the_newest),
        cmocka_unit_test(backlog__a_repeat_gets_the_first_id),
        cmocka_unit_test(backlog__old_messages_go_and_numbers_stay),
        cmocka_unit_test(backlog__is_bounded_by_bytes_and_rooms),
        cmocka_unit_test(backlog__what_could_not_be_published_leaves_no_trace),
    };
    return cmocka_run_group_tests_name("backlog", tests, NULL, NULL);
}
