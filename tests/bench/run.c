#include "base/clock.h"
#include "bench/bench.h"
#include "lib/free_port.h"
#include "suites.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The client measures the floor, which does one message in ten wrong on demand. */
enum { VIEWERS = 20, MESSAGES = 40 };

static bool can_connect(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool connected = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0;
    close(fd);
    return connected;
}

static int start_floor(uint16_t port, const char *fault, bool joins)
{
    int pid = fork();
    if (pid == 0) {
        char address[32];
        snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        char *argv[] = {(char *)(uintptr_t) "floor",
                        (char *)(uintptr_t) "--listen",
                        address,
                        (char *)(uintptr_t) "--fault",
                        (char *)(uintptr_t)fault,
                        (char *)(uintptr_t) "--joins",
                        NULL};
        _exit(floor_main(joins ? 6 : 5, argv));
    }
    uint64_t until = clock_ms() + 5000;
    while (!can_connect(port)) {
        assert_true(clock_ms() < until);
        usleep(2000);
    }
    return pid;
}

/* What a test measures in another way than all others. */
struct change {
    const char *ready; /* not "": the floor is asked to answer joins */
    double rooms;
    double rooms_per_viewer;
    double waves;
    double batch_ms;
    double settle;
};

static struct bench_result *measure_changed(const char *fault, const struct change *change)
{
    static struct bench_result result;
    uint16_t port = (uint16_t)free_port();
    int pid = start_floor(port, fault, *change->ready != 0);
    char url[64];
    snprintf(url, sizeof(url), "ws://127.0.0.1:%u/", port);
    struct bench_options options = {.url = url,
                                    .as = "raw",
                                    .hello = "",
                                    .welcome = "",
                                    .join = *change->ready ? "{\"join\":\"{room}\"}" : "",
                                    .ready = change->ready,
                                    .room = "bench",
                                    .publish = "floor",
                                    .prefix = "",
                                    .type = "chat",
                                    .lane = "normal",
                                    .source = "127.0.0.1",
                                    .label = "",
                                    .viewers = VIEWERS,
                                    .processes = 2,
                                    .rooms = change->rooms,
                                    .rooms_per_viewer = change->rooms_per_viewer,
                                    .waves = change->waves,
                                    .batch_ms = change->batch_ms,
                                    .settle = change->settle,
                                    .sources = 1,
                                    .user_length = 16,
                                    .connect_timeout = 10,
                                    .rate = 200,
                                    .size = 128,
                                    .seconds = 0.2,
                                    .drain = 1,
                                    .pid = pid,
                                    .quiet = true};
    int code = bench_run(&options, &result);
    kill(pid, SIGTERM);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(code, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return &result;
}

static struct bench_result *measure(const char *fault)
{
    struct change none = {.ready = "", .rooms = 1};
    struct bench_result *result = measure_changed(fault, &none);
    assert_int_equal(result->expected[GROUP_READING], VIEWERS * MESSAGES);
    return result;
}

static void run__clean_server_is_clean(void **state)
{
    (void)state;
    struct bench_result *result = measure("none");
    struct tally *tally = &result->tallies[GROUP_READING];
    assert_true(result_clean(result));
    assert_int_equal(tally->measured, VIEWERS * MESSAGES);
    assert_int_equal(tally->latency.count, VIEWERS * MESSAGES);
    /* {"type":"chat","room":"bench","data":…128…} behind a header of 4 bytes. */
    assert_int_equal(tally->bytes, VIEWERS * MESSAGES * (4 + 37 + 128 + 1));
    assert_true(result->end.cpu_ns > result->begin.cpu_ns);
    assert_true(result->fresh.pss_bytes > 0);
}

static void run__lossy_server_is_caught(void **state)
{
    (void)state;
    struct bench_result *result = measure("drop");
    assert_false(result_clean(result));
    assert_int_equal(result->tallies[GROUP_READING].order.lost, VIEWERS * MESSAGES / 10);
    assert_int_equal(result->tallies[GROUP_READING].measured, VIEWERS * MESSAGES * 9 / 10);
}

static void run__repeating_server_is_caught(void **state)
{
    (void)state;
    struct bench_result *result = measure("repeat");
    assert_false(result_clean(result));
    assert_int_equal(result->tallies[GROUP_READING].order.duplicates, VIEWERS * MESSAGES / 10);
    assert_int_equal(result->tallies[GROUP_READING].measured, VIEWERS * MESSAGES);
}

static void run__reordering_server_is_caught(void **state)
{
    (void)state;
    struct bench_result *result = measure("swap");
    assert_false(result_clean(result));
    assert_int_equal(result->tallies[GROUP_READING].order.out_of_order, VIEWERS * MESSAGES / 10);
    assert_int_equal(result->tallies[GROUP_READING].order.lost, 0);
}

static void run__stalling_server_shows_in_the_latency_of_what_waited(void **state)
{
    (void)state;
    struct bench_result *result = measure("stall");
    struct tally *tally = &result->tallies[GROUP_READING];
    assert_true(result_clean(result));
    /* Four pauses of 100 ms in 200 ms: nearly every message is late, though few were held up themselves. */
    assert_true(latency_quantile(&tally->latency, 0.5) > 50000000);
    assert_true(tally->latency.max >= 100000000);
}

static void run__server_that_dies_is_caught(void **state)
{
    (void)state;
    struct bench_result *result = measure("die");
    assert_false(result_clean(result));
    assert_int_equal(result->closed, VIEWERS);
    assert_int_equal(result->tallies[GROUP_READING].order.lost, VIEWERS * (MESSAGES - 6));
}

/* Each message goes to one viewer, which tells its three rooms apart. */
static void run__each_room_has_its_own_viewer_and_numbers(void **state)
{
    (void)state;
    struct change change = {
        .ready = "", .rooms = 3 * VIEWERS, .rooms_per_viewer = 3, .batch_ms = 10};
    struct bench_result *result = measure_changed("none", &change);
    assert_true(result_clean(result));
    assert_int_equal(result->expected[GROUP_READING], MESSAGES);
    assert_int_equal(result->tallies[GROUP_READING].measured, MESSAGES);
    assert_int_equal(result->tallies[GROUP_READING].current, VIEWERS);
}

/* Twenty rooms with half of the viewers each: whoever gets what is another's, tells. */
static void run__rooms_shared_by_many_get_all_their_messages(void **state)
{
    (void)state;
    struct change change = {.ready = "", .rooms = VIEWERS, .rooms_per_viewer = VIEWERS / 2.0};
    struct bench_result *result = measure_changed("none", &change);
    assert_true(result_clean(result));
    assert_int_equal(result->expected[GROUP_READING], VIEWERS / 2 * MESSAGES);
    assert_int_equal(result->tallies[GROUP_READING].measured, VIEWERS / 2 * MESSAGES);
}

static void run__all_drop_and_come_back(void **state)
{
    (void)state;
    struct change change = {.ready = "\"op\":\"joined\"", .rooms = 1, .waves = 3, .settle = 0.1};
    struct bench_result *result = measure_changed("none", &change);
    assert_true(result_clean(result));
    /* The messages come after the last wave, so every viewer of it must be there. */
    assert_int_equal(result->tallies[GROUP_READING].measured, VIEWERS * MESSAGES);
    for (int wave = 0; wave < 3; wave++) {
        assert_true(result->waves[wave].seconds > 0);
        assert_true(result->waves[wave].to.cpu_ns > result->waves[wave].from.cpu_ns);
    }
    assert_true(result->drop.to.cpu_ns > result->drop.from.cpu_ns);
}

static void clean__says_no_to_every_kind_of_damage(void **state)
{
    (void)state;
    static struct bench_result result;
    assert_true(result_clean(&result));
    struct tally *reading = &result.tallies[GROUP_READING];
    struct tally *stalling = &result.tallies[GROUP_STALLING];
    uint64_t *const damage[] = {&reading->order.lost,         &reading->order.duplicates,
                                &reading->order.out_of_order, &reading->wrong_room,
                                &stalling->order.lost,        &stalling->order.duplicates};
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        *damage[i] = 1;
        assert_false(result_clean(&result));
        *damage[i] = 0;
    }
    result.closed = 1;
    assert_false(result_clean(&result));
    result.closed = 0;
    /* Who stopped reading may lose what it is told about. */
    stalling->order.lost = stalling->skipped = 7;
    assert_true(result_clean(&result));
}

int suite_run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run__clean_server_is_clean),
        cmocka_unit_test(run__lossy_server_is_caught),
        cmocka_unit_test(run__repeating_server_is_caught),
        cmocka_unit_test(run__reordering_server_is_caught),
        cmocka_unit_test(run__server_that_dies_is_caught),
        cmocka_unit_test(run__each_room_has_its_own_viewer_and_numbers),
        cmocka_unit_test(run__rooms_shared_by_many_get_all_their_messages),
        cmocka_unit_test(run__all_drop_and_come_back),
        cmocka_unit_test(clean__says_no_to_every_kind_of_damage),
        cmocka_unit_test(run__stalling_server_shows_in_the_latency_of_what_waited),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
