#include "bench/bench.h"
#include "suites.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Runs the parser with stderr put away: what it says there is for people. */
static int parse(struct bench_options *out, int argc, const char *const *arguments)
{
    char *argv[16] = {(char *)(uintptr_t) "halley-bench"};
    for (int i = 0; i < argc; i++)
        argv[i + 1] = (char *)(uintptr_t)arguments[i];
    int saved = dup(STDERR_FILENO);
    assert_non_null(freopen("/dev/null", "w", stderr));
    int code = options_parse(argc + 1, argv, out);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    return code;
}

#define PARSE(out, ...)                                                                            \
    parse((out), sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),                           \
          (const char *[]){__VA_ARGS__})

static void parse__both_spellings_set_values(void **state)
{
    (void)state;
    struct bench_options options;
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--viewers=4000", "--rate", "0.5",
                           "--lane=high", "--quiet", "--header", "a: b"),
                     0);
    assert_string_equal(options.url, "ws://h/");
    assert_true(options.viewers == 4000 && options.rate == 0.5 && options.quiet);
    assert_string_equal(options.type, "gift");
    assert_int_equal(options.header_count, 1);
    assert_non_null(strstr(options.join, "\"op\":\"join\""));
    assert_true(options.processes >= 1 && options.sources == 1);
}

static void parse__what_is_out_of_range_or_unknown_is_refused(void **state)
{
    (void)state;
    struct bench_options options;
    assert_int_equal(PARSE(&options, "--viewers", "10"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--viewers=0"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--viewers=1x"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--rate=nan"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--size=10"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--lane=low"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--as=foo"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url=ws://h/", "--no-such"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url"), EXIT_USE);
    assert_int_equal(PARSE(&options, "ws://h/"), EXIT_USE);
}

static void group__stalling_viewers_are_spread_evenly(void **state)
{
    (void)state;
    struct bench_options options = {.stall = 10};
    uint32_t stalling = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        stalling += options_group(&options, i) == GROUP_STALLING;
        assert_int_equal(stalling, (i + 1) / 10);
    }
    options.stall = 0;
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(options_group(&options, i), GROUP_READING);
}

static void target__takes_an_address_apart(void **state)
{
    (void)state;
    struct target target;
    assert_int_equal(target_parse("redis://al:se:cret@127.0.0.1:7000", "redis", "6379", &target),
                     0);
    assert_string_equal(target.user, "al");
    assert_string_equal(target.password, "se:cret");
    assert_string_equal(target.host, "127.0.0.1");
    struct sockaddr_in *v4 = (struct sockaddr_in *)&target.address;
    assert_int_equal(ntohs(v4->sin_port), 7000);
    assert_int_equal(target_parse("ws://[::1]/ws?a={room}", "ws", "80", &target), 0);
    assert_string_equal(target.host, "::1");
    assert_string_equal(target.path, "/ws?a={room}");
    assert_int_equal(target.address.ss_family, AF_INET6);
    assert_int_equal(ntohs(((struct sockaddr_in6 *)&target.address)->sin6_port), 80);
}

static void tickets__are_read_one_a_line(void **state)
{
    (void)state;
    char path[] = "/tmp/halley-test-XXXXXX";
    struct bench_options options;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--ticket-file", path), EXIT_USE);
    assert_int_equal(write(fd, "first\n\nsecond", 13), 13);
    close(fd);
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--ticket-file", path), 0);
    assert_int_equal(options.tickets.count, 2);
    assert_string_equal(options.tickets.lines[0], "first");
    assert_string_equal(options.tickets.lines[1], "second");
    free(options.tickets.lines[0]); /* all lines stand in one text */
    free(options.tickets.lines);
    unlink(path);
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--ticket-file", path), EXIT_USE);
}

static void rooms__are_spread_over_viewers_and_named_with_fixed_width(void **state)
{
    (void)state;
    struct bench_options options;
    char name[BENCH_ROOM_NAME];
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--rooms", "12", "--rooms-per-viewer", "3",
                           "--room-digits", "5", "--room", "r"),
                     0);
    assert_int_equal(options_viewer_room(&options, 1, 0), 1);
    assert_int_equal(options_viewer_room(&options, 1, 2), 9);
    assert_int_equal(options_viewer_room(&options, 5, 2), 1);
    options_room(&options, 9, name, sizeof(name));
    assert_string_equal(name, "r.00009");
    assert_int_equal(
        PARSE(&options, "--url", "ws://h/", "--rooms", "12", "--rooms-per-viewer", "5"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--rooms-per-viewer", "2"), EXIT_USE);
    assert_int_equal(PARSE(&options, "--url", "ws://h/", "--rooms", "5000000", "--high-every", "9"),
                     EXIT_USE);
}

int suite_options(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__both_spellings_set_values),
        cmocka_unit_test(parse__what_is_out_of_range_or_unknown_is_refused),
        cmocka_unit_test(group__stalling_viewers_are_spread_evenly),
        cmocka_unit_test(target__takes_an_address_apart),
        cmocka_unit_test(tickets__are_read_one_a_line),
        cmocka_unit_test(rooms__are_spread_over_viewers_and_named_with_fixed_width),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
