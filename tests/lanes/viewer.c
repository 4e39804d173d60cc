#include "base/clock.h"
#include "halley/lanes.h"
#include "lanes/test_lanes.h"
#include "lib/alloc.h"

#include <stdlib.h>
#include <string.h>

/* A publisher, a clock and viewers whose sockets take what they like. What each viewer received
 * must be whole frames in order, and a hole exactly where it was told of one. */
enum { VIEWERS = 6, HEAD_BYTES = 8, REST_MAX = 1024 };

struct viewer {
    uint32_t cursor[HALLEY_LANES];
    uint32_t expected[HALLEY_LANES]; /* number of the next frame that it should receive */
    int encoding;
    unsigned speed; /* of 100: how often its socket takes something */
    char rest[REST_MAX];
    size_t rest_len;
    char part[REST_MAX]; /* received bytes that are no whole frame yet */
    size_t part_len;
    uint64_t received;
    uint64_t skipped;
};

struct stage {
    struct halley_lanes lanes;
    struct halley_lane_policy policies[HALLEY_LANES];
    struct viewer viewers[VIEWERS];
    uint32_t now_ms;
    uint64_t random;
    uint64_t published;
    uint64_t refused;
};

static uint32_t below(struct stage *stage, uint32_t end)
{
    return (uint32_t)(random_next(&stage->random) >> 32) % end;
}

/* A frame tells its number, lane and length, and goes on with bytes that follow from these. */
static void make_frame(char *out, uint32_t number, int lane, int encoding, uint16_t len)
{
    memset(out, (int)(number * 31 + (unsigned)encoding) & 0x7f, len);
    memcpy(out, &number, sizeof(number));
    memcpy(out + 4, &len, sizeof(len));
    out[6] = (char)lane;
    out[7] = (char)encoding;
}

static void publish(struct stage *stage)
{
    char data[HALLEY_ENCODINGS][REST_MAX];
    struct halley_frame frames[HALLEY_ENCODINGS];
    int lane = (int)below(stage, HALLEY_LANES);
    uint32_t number = stage->lanes.next[lane];
    for (int e = 0; e < HALLEY_ENCODINGS; e++) {
        uint16_t len = (uint16_t)(HEAD_BYTES + below(stage, below(stage, 10) ? 60 : 900));
        make_frame(data[e], number, lane, e, len);
        frames[e] = (struct halley_frame){data[e], len};
    }
    int error =
        halley_lanes_append(&stage->lanes, &stage->policies[lane], lane, stage->now_ms, 0, frames);
    if (error == HALLEY_FRAMELOG_OK) {
        stage->published++;
        assert_int_equal(stage->lanes.next[lane], (uint32_t)(number + 1));
    } else {
        stage->refused++;
        assert_int_equal(error, HALLEY_FRAMELOG_ERR_NO_MEMORY);
        assert_int_equal(stage->lanes.next[lane], number);
    }
}

static void parse(struct viewer *viewer)
{
    size_t at = 0;
    while (viewer->part_len - at >= HEAD_BYTES) {
        char expected[REST_MAX];
        uint32_t number;
        uint16_t len;
        memcpy(&number, viewer->part + at, sizeof(number));
        memcpy(&len, viewer->part + at + 4, sizeof(len));
        int lane = viewer->part[at + 6];
        assert_in_range(lane, 0, HALLEY_LANES - 1);
        assert_in_range(len, HEAD_BYTES, REST_MAX);
        if (viewer->part_len - at < len)
            break;
        make_frame(expected, number, lane, viewer->encoding, len);
        assert_memory_equal(viewer->part + at, expected, len);
        assert_int_equal(number, viewer->expected[lane]);
        viewer->expected[lane]++;
        viewer->received++;
        at += len;
    }
    viewer->part_len -= at;
    memmove(viewer->part, viewer->part + at, viewer->part_len);
}

static void receive(struct viewer *viewer, const char *data, size_t len)
{
    while (len > 0) {
        size_t room = sizeof(viewer->part) - viewer->part_len;
        size_t now = len < room ? len : room;
        assert_true(now > 0);
        memcpy(viewer->part + viewer->part_len, data, now);
        viewer->part_len += now;
        data += now;
        len -= now;
        parse(viewer);
    }
}

/* The rest of a cut frame goes first, and nothing else before it is gone. Returns true then. */
static bool send_rest(struct viewer *viewer, size_t *budget)
{
    size_t now = *budget < viewer->rest_len ? *budget : viewer->rest_len;
    receive(viewer, viewer->rest, now);
    viewer->rest_len -= now;
    memmove(viewer->rest, viewer->rest + now, viewer->rest_len);
    *budget -= now;
    return viewer->rest_len == 0;
}

static void gather(struct stage *stage, struct viewer *viewer, struct halley_plan *plan)
{
    halley_plan_init(plan);
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        uint32_t *cursor = &viewer->cursor[lane];
        bool lost = halley_lanes_lost(&stage->lanes, lane, *cursor);
        uint32_t skipped = halley_lanes_catch_up(&stage->lanes, &stage->policies[lane], lane,
                                                 viewer->encoding, stage->now_ms, cursor);
        assert_int_equal(lost, skipped > 0);
        viewer->expected[lane] += skipped;
        viewer->skipped += skipped;
        assert_true(halley_plan_add(plan, &stage->lanes, lane, viewer->encoding, cursor));
    }
}

static void write_some(struct stage *stage, struct viewer *viewer, size_t budget)
{
    struct halley_plan plan;
    struct iovec rest[2];
    int rest_count;
    if (!send_rest(viewer, &budget) || budget == 0)
        return;
    gather(stage, viewer, &plan);
    size_t sent = plan.bytes < budget ? plan.bytes : budget;
    size_t left = sent;
    for (int i = 0; i < plan.iov_count && left > 0; i++) {
        size_t now = plan.iov[i].iov_len < left ? plan.iov[i].iov_len : left;
        receive(viewer, plan.iov[i].iov_base, now);
        left -= now;
    }
    assert_int_equal(left, 0);
    (void)halley_plan_settle(&plan, sent, rest, &rest_count);
    for (int i = 0; i < rest_count; i++) {
        assert_true(viewer->rest_len + rest[i].iov_len <= REST_MAX);
        memcpy(viewer->rest + viewer->rest_len, rest[i].iov_base, rest[i].iov_len);
        viewer->rest_len += rest[i].iov_len;
    }
}

static struct stage *stage_create(uint64_t seed)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    assert_non_null(stage);
    stage->random = seed;
    stage->now_ms = UINT32_MAX - 20000;
    lanes_fresh(&stage->lanes, stage->now_ms);
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        stage->lanes.next[lane] = UINT32_MAX - 500 * (uint32_t)(lane + 1);
        stage->policies[lane] =
            (struct halley_lane_policy){.bounds = {.bytes = 4096u << lane, .ttl_ms = 500u << lane}};
    }
    for (unsigned i = 0; i < VIEWERS; i++) {
        struct viewer *viewer = &stage->viewers[i];
        viewer->encoding = (int)(i % HALLEY_ENCODINGS);
        viewer->speed = 1 + i * i * i;
        memcpy(viewer->cursor, stage->lanes.next, sizeof(viewer->cursor));
        memcpy(viewer->expected, stage->lanes.next, sizeof(viewer->expected));
    }
    return stage;
}

/* An allocation fails now and then where `failing` says so. */
static void play(struct stage *stage, unsigned steps, bool failing)
{
    for (unsigned i = 0; i < steps; i++) {
        stage->now_ms += below(stage, 10) ? below(stage, 8) : below(stage, 300);
        if (failing && below(stage, 4) == 0)
            alloc_fail_at(1 + below(stage, 3));
        publish(stage);
        struct viewer *viewer = &stage->viewers[below(stage, VIEWERS)];
        if (below(stage, 100) < viewer->speed)
            write_some(stage, viewer, below(stage, 3) ? below(stage, 200) : 100000);
        if (below(stage, 50) == 0)
            (void)halley_lanes_expire(&stage->lanes, stage->policies, stage->now_ms);
        int lane = (int)below(stage, HALLEY_LANES);
        if (stage->lanes.log[lane] && below(stage, 100) == 0)
            (void)halley_framelog_trim(stage->lanes.log[lane], below(stage, 4096));
        (void)alloc_disarm();
    }
    for (int lane = 0; lane < HALLEY_LANES; lane++) {
        if (stage->lanes.log[lane])
            assert_true(halley_framelog_check(stage->lanes.log[lane]));
    }
}

/* In the end all read all that is left: each frame was received or told of as skipped. */
static void finish(struct stage *stage)
{
    for (unsigned i = 0; i < VIEWERS; i++) {
        struct viewer *viewer = &stage->viewers[i];
        write_some(stage, viewer, 1000000);
        assert_int_equal(viewer->part_len, 0);
        assert_memory_equal(viewer->cursor, stage->lanes.next, sizeof(viewer->cursor));
        assert_memory_equal(viewer->expected, stage->lanes.next, sizeof(viewer->expected));
        assert_true(viewer->received > 0);
        assert_int_equal(viewer->received + viewer->skipped, stage->published);
    }
    assert_true(stage->viewers[0].skipped > 0); /* the slowest; else nothing was tried */
    halley_lanes_fini(&stage->lanes);
    free(stage);
}

static void viewers__get_whole_frames_in_order_or_are_told_how_many_they_miss(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct stage *stage = stage_create(seed);
        play(stage, 5000, false);
        assert_int_equal(stage->refused, 0);
        finish(stage);
    }
}

static void viewers__miss_nothing_else_while_memory_fails(void **state)
{
    (void)state;
    uint64_t refused = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct stage *stage = stage_create(seed);
        play(stage, 5000, true);
        refused += stage->refused;
        finish(stage);
    }
    assert_true(refused > 100);
}

int run_viewer_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(viewers__get_whole_frames_in_order_or_are_told_how_many_they_miss),
        cmocka_unit_test(viewers__miss_nothing_else_while_memory_fails),
    };
    return cmocka_run_group_tests_name("viewers", tests, NULL, NULL);
}
