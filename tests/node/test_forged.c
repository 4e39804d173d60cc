/* Numbers that somebody made up: whoever may publish must not silence a lane with them. */
#include "node/site.h"
#include "node/test_node.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static void huge_number__moves_nothing(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_forge(site, "r", "forged", ".999999999");
    site_publish_all(site, "r", "bcd");
    site_expect(site, "a#1 forged b#2 c#3 d#4");
    assert_int_equal(site_misnumbered(site), 1);
    assert_in_range(site_reads(site), 1, 1);
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
    /* and Redis goes on counting in the same epoch */
    assert_string_equal(redis_ask(&site->redis, "HGET halley:seq:{r} normal"), "4");
    site_publish(site, "r", "e", true);
    site_publish_all(site, "r", "f");
    site_expect(site, "e#5 f#6");
}

static void small_jump__moves_nothing_either(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_forge(site, "r", "forged", ".5");
    site_expect(site, "a#1 forged");
    site_publish_all(site, "r", "b");
    site_forge(site, "r", "forged", ".5"); /* until the read there is such a number: a repeat */
    site_publish_all(site, "r", "cdef");
    site_expect(site, "b#2 c#3 d#4 e#5 f#6");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
}

static void other_epoch__moves_nothing(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_forge(site, "r", "forged", "zzzzzzzzzz.1");
    site_publish_all(site, "r", "bc");
    site_expect(site, "a#1 forged b#2 c#3");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
}

static void forgery_in_a_room_without_history__moves_nothing(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_forge(site, "r", "forged", "zzzzzzzzzz.77");
    site_publish_all(site, "r", "ab");
    site_expect(site, "forged a#1 b#2");
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
}

static void very_next_number__takes_the_place_of_one_message(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_forge(site, "r", "forged", ".2");
    site_publish_all(site, "r", "bc");
    site_expect(site, "a#1 forged#2 c#3");
    assert_int_equal(site_misnumbered(site), 0);
    assert_int_equal(metric_get(&site->node->metrics.history_repeats_dropped), 1);
}

static bool all_came(const struct site *site)
{
    return site->words >= 400;
}

/* Takes the forged ones out: only the order of the true ones matters. */
static void drop_forged(struct site *site)
{
    struct buf left = {0};
    char *at;
    buf_byte(&site->seen, '\0');
    for (char *word = strtok_r(site->seen.data, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
        if (strcmp(word, "f") != 0)
            buf_printf(&left, left.len > 0 ? " %s" : "%s", word);
        else
            site->words--;
    }
    buf_fini(&site->seen);
    site->seen = left;
}

static void flood_of_forgeries__costs_few_reads_and_loses_nothing(void **state)
{
    struct site *site = *state;
    struct buf expected = {0};
    char id[32];
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    uint64_t since = clock_ms();
    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof(id), ".%d", 1000000 - i);
        site_forge(site, "r", "f", id);
        site_publish(site, "r", "t", false);
        buf_printf(&expected, i > 0 ? " t#%d" : "t#%d", i + 2);
        site_turn(site);
    }
    site_until(site, all_came);
    uint64_t passed = clock_ms() - since;
    drop_forged(site);
    buf_byte(&expected, '\0');
    site_expect(site, expected.data);
    assert_in_range(site_reads(site), 1, passed / 200 + 2);
    assert_int_equal(site_misnumbered(site), 200);
    assert_int_equal(metric_get(&site->node->metrics.gaps), 0);
    buf_fini(&expected);
}

static void forgery_while_history_is_out_of_reach__silences_nobody(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    site_expect(site, "a#1");
    site_let_read(site, false);
    site_forge(site, "r", "forged", ".999999");
    site_publish_all(site, "r", "b");
    site_expect(site, "gap#1 forged b#2");
    site_for(site, 320); /* the pause after it */
    site_let_read(site, true);
    site_publish_all(site, "r", "c");
    site_expect(site, "c#3");
}

static void far_jump_while_history_is_out_of_reach__has_ids_again_after(void **state)
{
    struct site *site = *state;
    site_hold(site, "r");
    site_publish_all(site, "r", "a");
    for (int i = 0; i < 30; i++)
        site_publish(site, "r", "x", true);
    site_expect(site, "a#1");
    site_let_read(site, false);
    site_publish_all(site, "r", "bc");
    site_expect(site, "gap#1 b c");
    site_publish_all(site, "r", "d");
    site_expect(site, "d"); /* at once: it is no use to wait again so soon */
    site_let_read(site, true);
    site_for(site, 320);
    site->node->conf->history.wait_ms = 10000; /* what is read from here on is had */
    site_publish_all(site, "r", "ef");
    site_expect(site, "e#35 f#36");
}

int run_forged_tests(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, site_set_up, site_tear_down)
#define IMPATIENT(name) cmocka_unit_test_setup_teardown(name, site_set_up_impatient, site_tear_down)
    const struct CMUnitTest tests[] = {
        CASE(huge_number__moves_nothing),
        CASE(small_jump__moves_nothing_either),
        CASE(other_epoch__moves_nothing),
        CASE(forgery_in_a_room_without_history__moves_nothing),
        CASE(very_next_number__takes_the_place_of_one_message),
        CASE(flood_of_forgeries__costs_few_reads_and_loses_nothing),
        IMPATIENT(forgery_while_history_is_out_of_reach__silences_nobody),
        IMPATIENT(far_jump_while_history_is_out_of_reach__has_ids_again_after),
    };
#undef IMPATIENT
#undef CASE
    return cmocka_run_group_tests_name("forged", tests, NULL, NULL);
}
