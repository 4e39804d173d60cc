#include "lanes/model.h"
#include "lanes/test_lanes.h"

/* Which encodings somebody reads just now, as in a room whose viewers come and go. */
static void random_lengths(struct model *model, uint32_t readers, uint32_t len[HALLEY_ENCODINGS])
{
    uint32_t kind = model_random(model, 100);
    uint32_t most = kind < 80 ? 200 : kind < 97 ? 1500 : model->bounds.bytes + 2;
    for (uint32_t e = 0; e < HALLEY_ENCODINGS; e++)
        len[e] = readers & 1u << e ? model_random(model, most + 1) : 0;
}

static void random_step(struct model *model, uint32_t *readers)
{
    uint32_t len[HALLEY_ENCODINGS];
    uint32_t what = model_random(model, 200);
    model->step++;
    model->now_ms += model_random(model, 20);
    if (what < 170) {
        random_lengths(model, *readers, len);
        (void)model_append(model, len[0], len[1]);
    } else if (what < 180) {
        model_expire(model);
    } else if (what < 184) {
        model_trim(model, model_random(model, 4) ? model_random(model, model->bounds.bytes) : 0);
    } else if (what < 192) {
        *readers = model_random(model, 1 << HALLEY_ENCODINGS);
    } else if (what < 194) {
        model->now_ms += model->bounds.ttl_ms - model_random(model, 30); /* nearly all is old now */
    } else if (what < 195) {
        model->now_ms += model->bounds.ttl_ms + 1;
        model_expire(model);
    } else if (what < 198) { /* another conf was loaded */
        model->bounds.bytes = 1u << (6 + model_random(model, 8));
        model->bounds.ttl_ms = 100 + model_random(model, 3000);
    }
}

static void run_model(struct model *model, unsigned steps)
{
    uint32_t readers = 3;
    for (unsigned i = 0; i < steps; i++) {
        random_step(model, &readers);
        model_check(model);
    }
}

static void framelog__is_a_plain_array_of_frames(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct model *model = model_create(seed, (uint32_t)seed * 1000, 8192, 2000);
        run_model(model, 1000);
        model_destroy(model);
    }
}

static void framelog__goes_on_when_numbers_and_clock_wrap(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 106; seed++) {
        struct model *model = model_create(seed, UINT32_MAX - 300, 4096, 2000);
        model->now_ms = UINT32_MAX - 3000;
        run_model(model, 1000);
        assert_true(model->head < 2000 && model->now_ms < 1000000000);
        model_destroy(model);
    }
}

static void framelog__goes_on_when_offsets_wrap(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* 8 GiB are copied here, which takes half a minute then, and there is one thread */
#endif
    enum { BIG = MODEL_FRAME_MAX };
    struct model *model = model_create(200, 0, BIG, 2000);
    /* Almost 4 GiB, in frames that fill the log, so that the next bytes cross 2^32 in both. */
    for (uint32_t i = 0; i < 16383; i++)
        assert_int_equal(model_append(model, BIG, i % 2 ? BIG : 0), HALLEY_FRAMELOG_OK);
    for (uint32_t i = 0; i < 8192; i++)
        assert_int_equal(model_append(model, 0, BIG), HALLEY_FRAMELOG_OK);
    model_check(model);
    model->bounds.bytes = 8192;
    assert_int_equal(model_append(model, 8000, 8000), HALLEY_FRAMELOG_OK);
    model_trim(model, 8192);
    model_check(model);
    for (uint32_t i = 0; i < 600; i++) {
        model->step = i;
        uint32_t len = model_random(model, 1000);
        assert_int_equal(model_append(model, len, 1000 - len), HALLEY_FRAMELOG_OK);
        model_check(model);
    }
    run_model(model, 200);
    model_destroy(model);
}

int run_framelog_property_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(framelog__is_a_plain_array_of_frames),
        cmocka_unit_test(framelog__goes_on_when_numbers_and_clock_wrap),
        cmocka_unit_test(framelog__goes_on_when_offsets_wrap),
    };
    return cmocka_run_group_tests_name("framelog against a model", tests, NULL, NULL);
}
