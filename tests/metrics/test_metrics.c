#include "base/clock.h"
#include "base/log.h"
#include "exposition.h"
#include "lib/alloc.h"
#include "metrics/metrics.h"
#include "metrics/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 3 };

static uint64_t main_ms; /* when main began, in Unix time */

struct fixture {
    struct node_metrics node;
    struct worker_metrics blocks[WORKERS];
    struct worker_metrics *workers[WORKERS];
    struct buf out;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    if (!fixture)
        return -1;
    for (size_t i = 0; i < WORKERS; i++)
        fixture->workers[i] = &fixture->blocks[i];
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    buf_fini(&fixture->out);
    free(fixture);
    return 0;
}

static const char *print(struct fixture *fixture)
{
    buf_clear(&fixture->out);
    metrics_print(&fixture->out, &fixture->node, fixture->workers, WORKERS);
    buf_byte(&fixture->out, '\0');
    assert_false(fixture->out.failed);
    return fixture->out.data;
}

static void assert_well_formed(const char *text)
{
    size_t line;
    const char *why = exposition_check(text, &line);
    if (why)
        fail_msg("line %zu: %s", line, why);
}

static void assert_series(const char *text, const char *series, double expected)
{
    double value;
    if (!exposition_value(text, series, &value))
        fail_msg("no series %s", series);
    if (value < expected || value > expected)
        fail_msg("%s is %f, expected %f", series, value, expected);
}

static void print__fresh_blocks_are_well_formed(void **state)
{
    assert_well_formed(print(*state));
}

static void print__no_workers_is_well_formed(void **state)
{
    struct fixture *fixture = *state;
    metrics_print(&fixture->out, &fixture->node, NULL, 0);
    buf_byte(&fixture->out, '\0');
    assert_well_formed(fixture->out.data);
    assert_series(fixture->out.data, "halley_writes_total", 0);
}

static void print__workers_are_added_up(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < WORKERS; i++) {
        metric_set(&fixture->blocks[i].viewers_native, i + 1);
        metric_add(&fixture->blocks[i].bytes_out, 1000);
        metric_add(&fixture->blocks[i].closes[CLOSE_TOO_SLOW], 2);
        metric_add(&fixture->blocks[i].handshakes[HANDSHAKE_GONE], 3);
        metric_add(&fixture->blocks[i].drops[DROP_MAILBOX][LANE_LOW], 4);
        metric_add(&fixture->blocks[i].errors[ERROR_DUPLICATE], 5);
    }
    const char *text = print(fixture);
    assert_well_formed(text);
    assert_series(text, "halley_viewers{protocol=\"native\"}", 6);
    assert_series(text, "halley_viewers{protocol=\"echo\"}", 0);
    assert_series(text, "halley_bytes_total{direction=\"out\"}", 3000);
    assert_series(text, "halley_bytes_total{direction=\"in\"}", 0);
    assert_series(text, "halley_closes_total{reason=\"too_slow\"}", 6);
    assert_series(text, "halley_closes_total{reason=\"kicked\"}", 0);
    assert_series(text, "halley_handshakes_total{result=\"gone\"}", 9);
    assert_series(text, "halley_dropped_total{lane=\"low\",reason=\"mailbox\"}", 12);
    assert_series(text, "halley_dropped_total{lane=\"high\",reason=\"mailbox\"}", 0);
    assert_series(text, "halley_errors_total{code=\"duplicate\"}", 15);
}

static void print__viewers_of_each_worker_cover_every_protocol(void **state)
{
    struct fixture *fixture = *state;
    metric_set(&fixture->blocks[1].viewers_native, 1);
    metric_set(&fixture->blocks[1].viewers_engineio3, 20);
    metric_set(&fixture->blocks[1].viewers_engineio4, 300);
    metric_set(&fixture->blocks[2].viewers_echo, 4000);
    const char *text = print(fixture);
    assert_series(text, "halley_worker_viewers{worker=\"0\"}", 0);
    assert_series(text, "halley_worker_viewers{worker=\"1\"}", 321);
    assert_series(text, "halley_worker_viewers{worker=\"2\"}", 4000);
}

static void print__node_values_and_lanes_are_shown(void **state)
{
    struct fixture *fixture = *state;
    metric_set(&fixture->node.rooms, 7);
    metric_set(&fixture->node.broker_lag_ms, 12);
    metric_add(&fixture->node.published_viewer, 2);
    metric_add(&fixture->node.by_lane[LANE_HIGH], 11);
    metric_add(&fixture->node.by_lane[LANE_LOW], 13);
    const char *text = print(fixture);
    assert_series(text, "halley_rooms", 7);
    assert_series(text, "halley_broker_lag_milliseconds", 12);
    assert_series(text, "halley_published_total{source=\"viewer\"}", 2);
    assert_series(text, "halley_messages_total{lane=\"high\"}", 11);
    assert_series(text, "halley_messages_total{lane=\"normal\"}", 0);
    assert_series(text, "halley_messages_total{lane=\"low\"}", 13);
}

static void print__gauge_below_zero_is_negative(void **state)
{
    struct fixture *fixture = *state;
    metric_sub(&fixture->blocks[0].memory_logs, 5);
    metric_add(&fixture->blocks[1].memory_logs, 2);
    const char *text = print(fixture);
    assert_well_formed(text);
    assert_series(text, "halley_memory_bytes{kind=\"logs\"}", -3);
}

static void print__largest_counter_is_exact(void **state)
{
    struct fixture *fixture = *state;
    metric_set(&fixture->blocks[0].bytes_in, UINT64_MAX);
    assert_non_null(strstr(print(fixture), "{direction=\"in\"} 18446744073709551615\n"));
}

static void histogram__bounds_are_inclusive_and_cumulative(void **state)
{
    struct fixture *fixture = *state;
    histogram_add(&fixture->blocks[0].flush, 0);
    histogram_add(&fixture->blocks[0].flush, 100);
    histogram_add(&fixture->blocks[1].flush, 101);
    histogram_add(&fixture->blocks[2].flush, 1000000);
    histogram_add(&fixture->blocks[2].flush, 2500000);
    const char *text = print(fixture);
    assert_well_formed(text);
    assert_series(text, "halley_flush_seconds_bucket{le=\"0.0001\"}", 2);
    assert_series(text, "halley_flush_seconds_bucket{le=\"0.00025\"}", 3);
    assert_series(text, "halley_flush_seconds_bucket{le=\"0.1\"}", 3);
    assert_series(text, "halley_flush_seconds_bucket{le=\"1.0\"}", 4);
    assert_series(text, "halley_flush_seconds_bucket{le=\"+Inf\"}", 5);
    assert_series(text, "halley_flush_seconds_count", 5);
    assert_series(text, "halley_flush_seconds_sum", 3.500201);
}

static void histogram__loops_are_told_apart(void **state)
{
    struct fixture *fixture = *state;
    histogram_add(&fixture->blocks[0].loop_lag, 3000);
    histogram_add(&fixture->blocks[1].loop_lag, 3000);
    histogram_add(&fixture->node.loop_lag, 7000);
    const char *text = print(fixture);
    assert_well_formed(text);
    assert_series(text, "halley_loop_lag_seconds_bucket{loop=\"worker\",le=\"0.005\"}", 2);
    assert_series(text, "halley_loop_lag_seconds_bucket{loop=\"main\",le=\"0.005\"}", 0);
    assert_series(text, "halley_loop_lag_seconds_count{loop=\"worker\"}", 2);
    assert_series(text, "halley_loop_lag_seconds_sum{loop=\"main\"}", 0.007);
}

static void print__process_is_known(void **state)
{
    const char *text = print(*state);
    double value;
    assert_true(exposition_value(text, "halley_process_resident_memory_bytes", &value));
    assert_true(value > 100000);
    assert_true(exposition_value(text, "halley_process_open_fds", &value));
    assert_true(value >= 3 && value < 1000);
    assert_true(exposition_value(text, "halley_process_max_fds", &value));
    assert_true(value >= 64);
    assert_true(exposition_value(text, "halley_process_threads", &value));
    assert_true(value >= 1);
    assert_true(exposition_value(text, "halley_process_cpu_seconds_total{mode=\"user\"}", &value));
    assert_non_null(strstr(text, "halley_build_info{version=\""));
}

static void process__start_is_past_and_stays(void **state)
{
    (void)state;
    struct process_stats first, second;
    process_read(&first);
    process_read(&second);
    assert_in_range(first.start_unix_ms, main_ms - 5000, main_ms + 100);
    assert_int_equal(first.start_unix_ms, second.start_unix_ms);
}

static void process__an_open_file_is_counted(void **state)
{
    (void)state;
    struct process_stats before, after;
    process_read(&before);
    FILE *file = fopen("/dev/null", "r");
    process_read(&after);
    assert_non_null(file);
    fclose(file);
    assert_int_equal(after.open_fds, before.open_fds + 1);
}

static void close_reasons__facts_come_from_the_table(void **state)
{
    (void)state;
    assert_int_equal(close_reason_code(CLOSE_HEARTBEAT), 4011);
    assert_int_equal(close_reason_code(CLOSE_RESET), 0);
    assert_string_equal(close_reason_label(CLOSE_TOO_BIG), "too_big");
    assert_string_equal(close_reason_text(CLOSE_CLIENT), "closed by the viewer");
    assert_int_equal(close_reason_level(CLOSE_INTERNAL), LOG_LEVEL_ERROR);
    for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
        assert_non_null(close_reason_label((enum close_reason)i));
        assert_true(strlen(close_reason_text((enum close_reason)i)) <= 123);
    }
}

static void print__without_memory_only_fails(void **state)
{
    struct fixture *fixture = *state;
    unsigned n = 1;
    do {
        buf_fini(&fixture->out);
        alloc_fail_at(n++);
        metrics_print(&fixture->out, &fixture->node, fixture->workers, WORKERS);
    } while (fixture->out.failed);
    alloc_fail_at(0);
    assert_true(n > 5); /* the buffer grew so often, and each time failed once */
}

static void assert_documented(const char *text, const char *docs)
{
    for (const char *at = strstr(text, "# TYPE "); at; at = strstr(at + 1, "# TYPE ")) {
        char wanted[128];
        size_t len = strcspn(at + 7, " ");
        snprintf(wanted, sizeof(wanted), "| `%.*s` |", (int)len, at + 7);
        if (!strstr(docs, wanted))
            fail_msg("%s is not documented", wanted);
    }
}

static void docs__every_metric_has_a_line(void **state)
{
    struct fixture *fixture = *state;
    struct buf docs = {0};
    metrics_print_docs(&docs);
    buf_byte(&docs, '\0');
    assert_false(docs.failed);
    assert_documented(print(fixture), docs.data);
    assert_non_null(strstr(docs.data, "| `too_slow` | 4008 |"));
    assert_non_null(strstr(docs.data, "| `mailbox` |"));
    assert_non_null(strstr(docs.data, "| `no_upgrade` | 426 |"));
    buf_fini(&docs);
}

/* The parser above is worth no more than what it refuses. */
static void exposition__broken_texts_are_refused(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "a 1\n",
        "# HELP a text\na 1\n",
        "# HELP a text\n# TYPE a counter\na 1\na 2\n",
        "# HELP a text\n# TYPE a counter\na 1",
        "# HELP a text\n# TYPE a counter\na -1\n",
        "# HELP a text\n# TYPE a counter\na  1\n",
        "# HELP a text\n# TYPE a counter\na{b=\"c} 1\n",
        "# HELP a text\n# TYPE a counter\na{b=c} 1\n",
        "# HELP a text\n# TYPE a counter\nb 1\n",
        "# HELP a \n# TYPE a counter\na 1\n",
        "# HELP a text\n# TYPE a counter\na 1\n# HELP a text\n# TYPE a counter\na{x=\"\"} 1\n",
        "# HELP a text\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n",
        "# HELP a text\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 2\n",
        "# HELP a text\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 3\n",
    };
    size_t line;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        if (!exposition_check(broken[i], &line))
            fail_msg("accepted: %s", broken[i]);
    }
}

int main(void)
{
    main_ms = clock_unix_ms();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(print__fresh_blocks_are_well_formed, setup, teardown),
        cmocka_unit_test_setup_teardown(print__no_workers_is_well_formed, setup, teardown),
        cmocka_unit_test_setup_teardown(print__workers_are_added_up, setup, teardown),
        cmocka_unit_test_setup_teardown(print__viewers_of_each_worker_cover_every_protocol, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(print__node_values_and_lanes_are_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(print__gauge_below_zero_is_negative, setup, teardown),
        cmocka_unit_test_setup_teardown(print__largest_counter_is_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(histogram__bounds_are_inclusive_and_cumulative, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(histogram__loops_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(print__process_is_known, setup, teardown),
        cmocka_unit_test(process__start_is_past_and_stays),
        cmocka_unit_test(process__an_open_file_is_counted),
        cmocka_unit_test(close_reasons__facts_come_from_the_table),
        cmocka_unit_test_setup_teardown(print__without_memory_only_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(docs__every_metric_has_a_line, setup, teardown),
        cmocka_unit_test(exposition__broken_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
