#include "base/clock.h"
#include "base/log.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { CAPTURE_BYTES = 65536 };

static int saved_stderr = -1;
static char captured[CAPTURE_BYTES];

static void capture_start(void)
{
    int memory = memfd_create("stderr", MFD_CLOEXEC);
    assert_true(memory >= 0);
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(saved_stderr >= 0);
    assert_true(dup2(memory, STDERR_FILENO) >= 0);
    close(memory);
}

/* Puts stderr back, before anything is asserted; the lines stand in `captured`. */
static size_t capture_stop(void)
{
    lseek(STDERR_FILENO, 0, SEEK_SET);
    ssize_t len = read(STDERR_FILENO, captured, sizeof(captured) - 1);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    assert_true(len >= 0);
    captured[len] = '\0';
    return (size_t)len;
}

static unsigned count_lines(void)
{
    unsigned lines = 0;
    for (const char *at = captured; *at; at++)
        lines += *at == '\n';
    return lines;
}

static int set_up(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    return 0;
}

static void log_text__has_time_level_event_and_fields(void **state)
{
    (void)state;
    capture_start();
    log_info("listening", LOG_STR("address", "127.0.0.1:1314"), LOG_UINT("workers", 2),
             LOG_INT("code", -98), LOG_STR("why", "no \"good\" a=b"), LOG_STR("empty", ""),
             LOG_STR("equals", "a=b"));
    capture_stop();
    assert_string_equal(captured + strlen("2026-01-01T00:00:00.000Z"),
                        " info listening address=127.0.0.1:1314 workers=2 code=-98"
                        " why=\"no \\\"good\\\" a=b\" empty=\"\" equals=\"a=b\"\n");
    assert_int_equal(captured[10], 'T');
    assert_int_equal(captured[23], 'Z');
}

static void log_text__under_journald_has_a_priority_and_no_time(void **state)
{
    (void)state;
    setenv("JOURNAL_STREAM", "8:1", 1);
    capture_start();
    log_info("a");
    log_warn("b");
    log_error("c");
    capture_stop();
    unsetenv("JOURNAL_STREAM");
    assert_string_equal(captured, "<6>a\n<4>b\n<3>c\n");
}

static void log_json__is_one_object_a_line(void **state)
{
    (void)state;
    log_configure(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
    capture_start();
    log_warn("bad message", LOG_BYTES("text", bytes_of("a\"\\\n\0\xc3\xa9", 7)),
             LOG_UINT("bytes", UINT64_MAX), LOG_INT("code", INT64_MIN));
    capture_stop();
    static const char start[] = "{\"time\":\"";
    assert_memory_equal(captured, start, sizeof(start) - 1);
    assert_string_equal(captured + strlen("{\"time\":\"2026-01-01T00:00:00.000Z"),
                        "\",\"level\":\"warn\",\"event\":\"bad message\","
                        "\"text\":\"a\\\"\\\\\\u000a\\u0000\\u00c3\\u00a9\","
                        "\"bytes\":18446744073709551615,\"code\":-9223372036854775808}\n");
}

static void log__levels_below_the_configured_one_are_silent(void **state)
{
    (void)state;
    capture_start();
    log_debug("hidden");
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    log_warn("hidden");
    log_configure(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG);
    log_debug("shown");
    capture_stop();
    assert_null(strstr(captured, "hidden"));
    assert_non_null(strstr(captured, " debug shown\n"));
}

/* What a peer sends may not break a line into two, whatever its length. */
static void log__a_line_is_cut_and_stays_one(void **state)
{
    (void)state;
    static char text[10000];
    static const unsigned char fillers[] = {'x', ' ', '\n', '"', 0xff};
    for (size_t f = 0; f < sizeof(fillers); f++) {
        for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
            for (size_t len = 3900; len < 4150; len++) {
                log_configure((enum log_format)format, LOG_LEVEL_INFO);
                memset(text, fillers[f], len);
                capture_start();
                log_info("cut", LOG_BYTES("a", bytes_of(text, len)), LOG_UINT("b", UINT64_MAX),
                         LOG_UINT("c", UINT64_MAX), LOG_UINT("d", UINT64_MAX));
                size_t written = capture_stop();
                assert_true(written <= 4096);
                assert_int_equal(count_lines(), 1);
                assert_int_equal(captured[written - 1], '\n');
                if (format == LOG_FORMAT_JSON) {
                    assert_non_null(strstr(captured, "\"a\":\""));
                    assert_int_equal(captured[written - 2], '}');
                    assert_true(captured[written - 3] == '"' || captured[written - 3] == '5');
                }
            }
        }
    }
}

static void log_limit__tells_how_many_were_hidden(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    uint32_t hidden = 77;
    for (int i = 0; i < LOG_LIMIT_BURST; i++) {
        assert_true(log_limit_take(&limit, &hidden));
        assert_int_equal(hidden, 0);
    }
    for (int i = 0; i < 3; i++)
        assert_false(log_limit_take(&limit, &hidden));
    /* The window began long ago. */
    limit.window_start_ms = clock_ms() + 1 - LOG_LIMIT_WINDOW_MS;
    assert_true(log_limit_take(&limit, &hidden));
    assert_int_equal(hidden, 3);
    assert_true(log_limit_take(&limit, &hidden));
    assert_int_equal(hidden, 0);
}

static void log_limited__each_place_has_its_own_limit(void **state)
{
    (void)state;
    capture_start();
    for (int i = 0; i < 1000; i++)
        log_limited(LOG_LEVEL_WARN, "first", LOG_INT("i", i));
    log_limited(LOG_LEVEL_WARN, "second");
    capture_stop();
    assert_int_equal(count_lines(), LOG_LIMIT_BURST + 1);
    assert_non_null(strstr(captured, "first i=9 hidden=0\n"));
    assert_non_null(strstr(captured, "second hidden=0\n"));
}

int run_log_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(log_text__has_time_level_event_and_fields, set_up),
        cmocka_unit_test_setup(log_text__under_journald_has_a_priority_and_no_time, set_up),
        cmocka_unit_test_setup(log_json__is_one_object_a_line, set_up),
        cmocka_unit_test_setup(log__levels_below_the_configured_one_are_silent, set_up),
        cmocka_unit_test_setup(log__a_line_is_cut_and_stays_one, set_up),
        cmocka_unit_test_setup(log_limit__tells_how_many_were_hidden, set_up),
        cmocka_unit_test_setup(log_limited__each_place_has_its_own_limit, set_up),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
