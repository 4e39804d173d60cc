#include "base/clock.h"
#include "halley/lanes.h"
#include "lanes/test_lanes.h"

#include <string.h>

enum { ROOMS = 3, CURSORS = ROOMS * HALLEY_LANES, STREAM_MAX = 16384 };

static const struct halley_lane_policy policy = {.bounds = {.bytes = 1000, .ttl_ms = 1000}};

/* Three rooms whose rings have wrapped, and one viewer's cursors, half way to the heads. */
static struct halley_lanes rooms[ROOMS];
static uint32_t start[CURSORS];
static uint32_t cursors[CURSORS];
static uint64_t random_state;

static uint32_t below(uint32_t end)
{
    return (uint32_t)(random_next(&random_state) >> 32) % end;
}

static void append(struct halley_lanes *lanes, int lane, const char *data, size_t len)
{
    const struct halley_frame frames[HALLEY_ENCODINGS] = {{data, len}, {data, len / 2}};
    assert_int_equal(halley_lanes_append(lanes, &policy, lane, 0, 0, frames), HALLEY_FRAMELOG_OK);
}

static int fill_rooms(void **state)
{
    (void)state;
    random_state = 77;
    for (int room = 0; room < ROOMS; room++) {
        lanes_fresh(&rooms[room], 0);
        for (int lane = 0; lane < HALLEY_LANES; lane++) {
            rooms[room].next[lane] = UINT32_MAX - 90 - below(10);
            for (uint32_t i = 0; i < 120; i++) {
                char data[80];
                size_t len = i % 6 == 5 ? 0 : 1 + below(sizeof(data) - 1);
                for (size_t at = 0; at < len; at++)
                    data[at] = (char)random_next(&random_state);
                append(&rooms[room], lane, data, len);
            }
            uint32_t tail = halley_framelog_tail(rooms[room].log[lane]);
            start[room * HALLEY_LANES + lane] =
                tail + (rooms[room].next[lane] - tail) / 4 * (uint32_t)room;
        }
    }
    return 0;
}

static int empty_rooms(void **state)
{
    (void)state;
    for (int room = 0; room < ROOMS; room++)
        halley_lanes_fini(&rooms[room]);
    return 0;
}

/* As the worker does it: high over all rooms, then normal, then low. */
static void gather(struct halley_plan *plan, int encoding)
{
    halley_plan_init(plan);
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        for (int room = 0; room < ROOMS; room++)
            assert_true(halley_plan_add(plan, &rooms[room], lane, encoding,
                                        &cursors[room * HALLEY_LANES + lane]));
    }
}

static size_t flatten(const struct iovec *iov, int count, char *out)
{
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        assert_true(iov[i].iov_len > 0 && len + iov[i].iov_len <= STREAM_MAX);
        memcpy(out + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return len;
}

/* Frame after frame through the log's own look-up of single frames, in the order of the lanes. */
static size_t expected_stream(int encoding, char *out)
{
    size_t len = 0;
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        for (int room = 0; room < ROOMS; room++) {
            const struct halley_framelog *log = rooms[room].log[lane];
            for (uint32_t n = start[room * HALLEY_LANES + lane]; n != rooms[room].next[lane]; n++) {
                struct iovec iov[2];
                len += flatten(iov, halley_framelog_frame(log, encoding, n, 0, iov), out + len);
            }
        }
    }
    return len;
}

static void plan_add__puts_the_lanes_in_the_order_of_the_calls(void **state)
{
    (void)state;
    static char expected[STREAM_MAX];
    static char planned[STREAM_MAX];
    for (int encoding = 0; encoding < HALLEY_ENCODINGS; encoding++) {
        struct halley_plan plan;
        memcpy(cursors, start, sizeof(cursors));
        gather(&plan, encoding);
        size_t len = expected_stream(encoding, expected);
        assert_true(len > 1000);
        assert_int_equal(plan.bytes, len);
        assert_int_equal(plan.segment_count, CURSORS);
        assert_true(plan.iov_count > CURSORS); /* some ranges wrap */
        assert_int_equal(flatten(plan.iov, plan.iov_count, planned), len);
        assert_memory_equal(planned, expected, len);
        assert_memory_equal(cursors, start, sizeof(cursors));
    }
}

/* By how many frames the cursors moved, those without bytes included. */
static uint32_t passed_frames(void)
{
    uint32_t frames = 0;
    for (int i = 0; i < CURSORS; i++)
        frames += cursors[i] - start[i];
    return frames;
}

/* What the kernel took, then the cut frame's rest, then the next plan: it is the whole stream. */
static void cut_at(size_t sent, int encoding, const char *expected, size_t len, int *longest_rest)
{
    static char received[STREAM_MAX];
    struct halley_plan plan;
    struct iovec rest[2];
    int rest_count = -1;
    memcpy(cursors, start, sizeof(cursors));
    gather(&plan, encoding);
    memcpy(received, expected, sent);
    uint32_t frames = halley_plan_settle(&plan, sent, rest, &rest_count);
    assert_in_range(rest_count, 0, 2);
    assert_int_equal(frames, passed_frames());
    size_t had = sent;
    had += flatten(rest, rest_count, received + had);
    assert_true(had - sent < 80);
    *longest_rest = rest_count > *longest_rest ? rest_count : *longest_rest;
    gather(&plan, encoding);
    had += flatten(plan.iov, plan.iov_count, received + had);
    assert_int_equal(had, len);
    assert_memory_equal(received, expected, len);
}

static void plan_settle__loses_no_byte_wherever_a_write_stops(void **state)
{
    (void)state;
    static char expected[STREAM_MAX];
    for (int encoding = 0; encoding < HALLEY_ENCODINGS; encoding++) {
        int longest_rest = 0;
        size_t len = expected_stream(encoding, expected);
        for (size_t sent = 0; sent <= len; sent++)
            cut_at(sent, encoding, expected, len, &longest_rest);
        assert_int_equal(longest_rest, 2); /* a cut frame that wraps was among them */
    }
}

/* On a boundary nothing is left to copy, and one byte before or behind it there is. */
static void plan_settle__copies_only_of_a_frame_that_was_cut(void **state)
{
    (void)state;
    struct halley_lanes lanes;
    lanes_fresh(&lanes, 0);
    for (int i = 0; i < 5; i++)
        append(&lanes, HALLEY_LANE_HIGH, "0123456789", 10);
    for (size_t sent = 0; sent <= 50; sent++) {
        uint32_t cursor = 0;
        struct halley_plan plan;
        struct iovec rest[2];
        int rest_count = -1;
        halley_plan_init(&plan);
        assert_true(halley_plan_add(&plan, &lanes, HALLEY_LANE_HIGH, 0, &cursor));
        uint32_t frames = halley_plan_settle(&plan, sent, rest, &rest_count);
        assert_int_equal(frames, (sent + 9) / 10);
        assert_int_equal(cursor, frames);
        assert_int_equal(rest_count, sent % 10 ? 1 : 0);
        if (rest_count)
            assert_int_equal(rest[0].iov_len, 10 - sent % 10);
    }
    halley_lanes_fini(&lanes);
}

/* Two logs of the high lane with frames of 10, 11, 12, … bytes, then one of the normal lane; each room for a segment that can be. */
static void plan_cut__ends_where_frames_end_and_wastes_no_room(void **state)
{
    (void)state;
    enum { FRAMES = 20 };
    static const char text[64] = "frames of several lengths, one after another, all of them short";
    struct halley_lanes lanes[2];
    size_t ends[2 * FRAMES + 1] = {0};
    uint32_t at[3] = {0};
    struct halley_plan plan;
    for (int i = 0; i < 2 * FRAMES; i++) {
        if (i % FRAMES == 0)
            lanes_fresh(&lanes[i / FRAMES], 0);
        append(&lanes[i / FRAMES], HALLEY_LANE_HIGH, text, 10 + (size_t)i);
        ends[i + 1] = ends[i] + 10 + (size_t)i;
    }
    append(&lanes[0], HALLEY_LANE_NORMAL, text, 60);
    halley_plan_init(&plan);
    for (int i = 0; i < 2; i++)
        assert_true(halley_plan_add(&plan, &lanes[i], HALLEY_LANE_HIGH, 0, &at[i]));
    size_t high = plan.bytes;
    assert_true(halley_plan_add(&plan, &lanes[0], HALLEY_LANE_NORMAL, 0, &at[2]));
    assert_int_equal(high, ends[2 * FRAMES]);
    for (size_t room = 1; room <= high + 10; room++) {
        size_t from = 0;
        for (int frame = 0; from < high;) {
            size_t len = halley_plan_cut(&plan, from, high, room);
            int whole = frame;
            while (whole < 2 * FRAMES && ends[whole + 1] - from <= room)
                whole++;
            frame = whole > frame ? whole : frame + 1; /* one that does not fit goes whole */
            assert_int_equal(from + len, ends[frame]);
            from += len;
        }
    }
    halley_lanes_fini(&lanes[0]);
    halley_lanes_fini(&lanes[1]);
}

static void plan_add__leaves_the_callers_own_runs_first(void **state)
{
    (void)state;
    static char own[2][3] = {"ab", "cd"};
    struct halley_plan plan;
    struct iovec rest[2];
    int rest_count;
    memcpy(cursors, start, sizeof(cursors));
    halley_plan_init(&plan);
    plan.iov[0] = (struct iovec){own[0], 2};
    plan.iov[1] = (struct iovec){own[1], 2};
    plan.iov_count = 2;
    assert_true(halley_plan_add(&plan, &rooms[0], HALLEY_LANE_HIGH, 0, &cursors[0]));
    assert_ptr_equal(plan.iov[0].iov_base, own[0]);
    assert_ptr_equal(plan.iov[1].iov_base, own[1]);
    assert_int_equal(plan.bytes,
                     halley_framelog_pending(rooms[0].log[HALLEY_LANE_HIGH], 0, start[0]));
    (void)halley_plan_settle(&plan, plan.bytes, rest, &rest_count);
    assert_int_equal(cursors[0], rooms[0].next[HALLEY_LANE_HIGH]);
    assert_int_equal(rest_count, 0);
}

static void plan_add__adds_nothing_where_nothing_is_new(void **state)
{
    (void)state;
    struct halley_plan plan;
    struct halley_lanes lanes;
    uint32_t cursor = 0;
    lanes_fresh(&lanes, 0);
    halley_plan_init(&plan);
    assert_true(halley_plan_add(&plan, &lanes, HALLEY_LANE_LOW, 0, &cursor));
    append(&lanes, HALLEY_LANE_LOW, "x", 1);
    cursor = 1;
    assert_true(halley_plan_add(&plan, &lanes, HALLEY_LANE_LOW, 0, &cursor));
    assert_int_equal(plan.segment_count, 0);
    cursor = 0;
    assert_true(halley_plan_add(&plan, &lanes, HALLEY_LANE_LOW, 1, &cursor)); /* half of 1: none */
    assert_int_equal(plan.segment_count, 0);
    assert_int_equal(cursor, 1);
    assert_int_equal(plan.iov_count, 0);
    halley_lanes_fini(&lanes);
}

static void plan_add__refuses_past_its_segments_and_goes_on_after_settling(void **state)
{
    (void)state;
    enum { MANY = HALLEY_PLAN_SEGMENTS + 5 };
    struct halley_plan plan;
    struct iovec rest[2];
    int rest_count;
    uint32_t many[MANY];
    struct halley_lanes *lanes = &rooms[1];
    uint32_t from = halley_framelog_tail(lanes->log[HALLEY_LANE_NORMAL]);
    for (int i = 0; i < MANY; i++)
        many[i] = from;
    halley_plan_init(&plan);
    plan.iov_count = 2; /* with the caller's own runs it must still fit */
    for (int i = 0; i < HALLEY_PLAN_SEGMENTS; i++)
        assert_true(halley_plan_add(&plan, lanes, HALLEY_LANE_NORMAL, 0, &many[i]));
    assert_in_range(plan.iov_count, HALLEY_PLAN_SEGMENTS, HALLEY_PLAN_IOV);
    assert_false(halley_plan_add(&plan, lanes, HALLEY_LANE_NORMAL, 0, &many[HALLEY_PLAN_SEGMENTS]));
    assert_int_equal(plan.segment_count, HALLEY_PLAN_SEGMENTS);
    (void)halley_plan_settle(&plan, plan.bytes, rest, &rest_count);
    assert_int_equal(rest_count, 0);
    halley_plan_init(&plan);
    for (int i = 0; i < MANY; i++)
        assert_true(halley_plan_add(&plan, lanes, HALLEY_LANE_NORMAL, 0, &many[i]));
    assert_int_equal(plan.segment_count, 5);
}

int run_plan_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_add__puts_the_lanes_in_the_order_of_the_calls),
        cmocka_unit_test(plan_settle__loses_no_byte_wherever_a_write_stops),
        cmocka_unit_test(plan_settle__copies_only_of_a_frame_that_was_cut),
        cmocka_unit_test(plan_cut__ends_where_frames_end_and_wastes_no_room),
        cmocka_unit_test(plan_add__leaves_the_callers_own_runs_first),
        cmocka_unit_test(plan_add__adds_nothing_where_nothing_is_new),
        cmocka_unit_test(plan_add__refuses_past_its_segments_and_goes_on_after_settling),
    };
    return cmocka_run_group_tests_name("plan", tests, fill_rooms, empty_rooms);
}
