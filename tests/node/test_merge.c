/* Sends of merged types on their way up, while a reload changes how they are merged. */
#include "node/site.h"
#include "node/test_node.h"

static int set_up(void **state)
{
    /* Not merged on its way down, so that each batch is seen as it was published. */
    static const char *const overrides[] = {"type.vote.lane=normal", NULL};
    *state = site_open(overrides);
    site_hold(*state, "r");
    return 0;
}

static bool three_answered(const struct site *site)
{
    return site->merged >= 3;
}

static void sums_then_newest__are_both_published(void **state)
{
    struct site *site = *state;
    site_merge(site, "r", MERGE_SUM, 1, NULL); /* leaves at once */
    site_merge(site, "r", MERGE_LATEST, 0, "x");
    site_merge(site, "r", MERGE_SUM, 2, NULL); /* of a worker that was not told yet */
    site_expect(site, "\"delta\":1,\"total\":1 \"delta\":2,\"total\":3 x");
    site_until(site, three_answered);
}

static void newest_then_sums__are_both_published_once(void **state)
{
    struct site *site = *state;
    site_merge(site, "r", MERGE_LATEST, 0, "a");
    site_merge(site, "r", MERGE_SUM, 5, NULL);
    site_merge(site, "r", MERGE_LATEST, 0, "b");
    site_expect(site, "a \"delta\":5,\"total\":5 b");
    site_until(site, three_answered);
}

static void newest_while_redis_is_away__is_published_after_the_sum(void **state)
{
    struct site *site = *state;
    (void)redis_ask(&site->redis, "CLIENT KILL TYPE normal SKIPME yes");
    site_merge(site, "r", MERGE_LATEST, 0, "a"); /* its answer is lost: it is put back */
    site_merge(site, "r", MERGE_SUM, 5, NULL);
    site_merge(site, "r", MERGE_SUM, 2, NULL);
    site_expect(site, "\"delta\":7,\"total\":7 a");
    site_until(site, three_answered);
}

int run_merge_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, site_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(sums_then_newest__are_both_published),
        CASE(newest_then_sums__are_both_published_once),
        CASE(newest_while_redis_is_away__is_published_after_the_sum),
    };
#undef CASE
    return cmocka_run_group_tests_name("merge", tests, NULL, NULL);
}
