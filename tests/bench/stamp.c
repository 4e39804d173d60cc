#include "bench/stamp.h"
#include "suites.h"

static void write__has_exactly_the_size_asked_for(void **state)
{
    (void)state;
    const size_t sizes[] = {STAMP_SIZE_MIN, 68, 128, 1024, 70000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf out = {0};
        stamp_write(&out, &(struct stamp){UINT64_MAX / 2, UINT32_MAX, 9999999}, sizes[i]);
        assert_int_equal(out.len, sizes[i]);
        assert_int_equal(out.data[out.len - 1], '}');
        buf_fini(&out);
    }
}

static void find__reads_back_what_was_written_wherever_it_stands(void **state)
{
    (void)state;
    struct stamp in = {123456789012345678, 42, 7};
    const char *wraps[] = {"",
                           "{\"type\":\"chat\",\"data\":", "42[\"chat\",{\"t\":\"no\",\"data\":"};
    size_t hint = 0;
    for (size_t i = 0; i < 3; i++) {
        struct buf out = {0};
        struct stamp found = {0};
        buf_text(&out, wraps[i]);
        stamp_write(&out, &in, 100);
        assert_true(stamp_find(buf_view(&out), &hint, &found));
        assert_int_equal(hint, strlen(wraps[i]));
        assert_int_equal(found.time_ns, in.time_ns);
        assert_int_equal(found.number, in.number);
        assert_int_equal(found.room, in.room);
        buf_fini(&out);
    }
}

static void find__refuses_what_is_no_stamp(void **state)
{
    (void)state;
    struct buf whole = {0};
    stamp_write(&whole, &(struct stamp){1, 2, 3}, 80);
    struct stamp found;
    size_t hint = 0;
    for (size_t len = 0; len < 57; len++)
        assert_false(stamp_find(bytes_of(whole.data, len), &hint, &found));
    const size_t places[] = {1, 8, 26, 33, 43, 50, 56};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char saved = whole.data[places[i]];
        whole.data[places[i]] = 'z';
        assert_false(stamp_find(buf_view(&whole), &hint, &found));
        whole.data[places[i]] = saved;
    }
    assert_true(stamp_find(buf_view(&whole), &hint, &found));
    hint = SIZE_MAX;
    assert_true(stamp_find(buf_view(&whole), &hint, &found));
    buf_fini(&whole);
}

static void schedule__is_steady_and_pauses_once(void **state)
{
    (void)state;
    struct schedule schedule = {
        .start_ns = 1000, .rate = 400, .warmup = 400, .count = 4000, .pause_ns = 250000000};
    assert_int_equal(schedule_due_ns(&schedule, 0), 1000);
    assert_int_equal(schedule_due_ns(&schedule, 399), 1000 + UINT64_C(997500000));
    assert_int_equal(schedule_due_ns(&schedule, 400), 1000 + UINT64_C(1250000000));
    assert_int_equal(schedule_due_ns(&schedule, 4400), 1000 + UINT64_C(11250000000));
    assert_int_equal(schedule_total(&schedule), 4400);
}

static void schedule__deals_messages_out_to_rooms_in_turn(void **state)
{
    (void)state;
    for (uint64_t before = 0; before < 40; before++) {
        for (uint64_t room = 0; room < 7; room++) {
            uint64_t counted = 0;
            for (uint64_t message = 0; message < before; message++)
                counted += message % 7 == room;
            assert_int_equal(schedule_in_room(before, 7, room), counted);
        }
    }
}

static void patch__changes_numbers_and_nothing_else(void **state)
{
    (void)state;
    struct buf patched = {0};
    struct buf wanted = {0};
    struct stamp stamp = {UINT64_MAX / 2, 4294967295, 9999999};
    stamp_write(&patched, &(struct stamp){1, 2, 3}, 100);
    stamp_write(&wanted, &stamp, 100);
    stamp_patch(patched.data, &stamp);
    assert_memory_equal(patched.data, wanted.data, 100);
    buf_fini(&patched);
    buf_fini(&wanted);
}

/* Counts by hand what the closed forms say, for each room and lane. */
static void schedule__numbers_each_lane_of_a_room_without_holes(void **state)
{
    (void)state;
    enum { ROOMS = 7, EVERY = 5, TOTAL = 400 };
    struct schedule schedule = {.rooms = ROOMS, .high_every = EVERY};
    uint64_t counted[2][ROOMS] = {0};
    for (uint64_t message = 0; message < TOTAL; message++) {
        struct stream stream;
        uint64_t number = schedule_stream(&schedule, message, &stream);
        assert_int_equal(stream.room, message % ROOMS);
        assert_int_equal(number, counted[stream.high][stream.room]);
        counted[stream.high][stream.room]++;
        assert_int_equal(schedule_in_stream(&schedule, message + 1, stream), number + 1);
    }
    for (uint32_t room = 0; room < ROOMS; room++) {
        uint64_t all = counted[0][room] + counted[1][room];
        assert_in_range(counted[1][room], all / EVERY, all / EVERY + 1);
    }
}

static void schedule__without_a_high_share_has_one_lane(void **state)
{
    (void)state;
    struct schedule schedule = {0};
    struct stream stream;
    assert_int_equal(schedule_stream(&schedule, 41, &stream), 41);
    assert_false(stream.high);
    assert_int_equal(schedule_in_stream(&schedule, 41, stream), 41);
    stream.high = true;
    assert_int_equal(schedule_in_stream(&schedule, 41, stream), 0);
}

int suite_stamp(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__has_exactly_the_size_asked_for),
        cmocka_unit_test(find__reads_back_what_was_written_wherever_it_stands),
        cmocka_unit_test(find__refuses_what_is_no_stamp),
        cmocka_unit_test(schedule__is_steady_and_pauses_once),
        cmocka_unit_test(schedule__deals_messages_out_to_rooms_in_turn),
        cmocka_unit_test(patch__changes_numbers_and_nothing_else),
        cmocka_unit_test(schedule__numbers_each_lane_of_a_room_without_holes),
        cmocka_unit_test(schedule__without_a_high_share_has_one_lane),
    };
    return cmocka_run_group_tests_name("stamp", tests, NULL, NULL);
}
