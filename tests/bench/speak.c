#include "bench/bench.h"
#include "bench/frames.h"
#include "suites.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* One viewer against a server that follows a script: after the 101 it sends a frame, waits until the
 * viewer has said something new, sends the next one, and at the end waits for the viewer to go. */
enum { STEPS = 3 };

struct script {
    const char *as;
    struct buf steps[STEPS]; /* bytes on the wire; the first goes with the 101 */
    int waits[STEPS];        /* frames that the viewer must have sent before */
    const char *said;        /* what these frames hold, in one string; NULL: not looked at */
};

#define STAMP(number)                                                                              \
    "{\"t\":\"0000000000000000009\",\"n\":\"000000000" number "\",\"r\":\"0000000\",\"pad\":\"\"}"

static void add_frame(struct buf *out, uint8_t first, struct bytes payload)
{
    size_t at = out->len;
    frame_write_head(out, FRAME_BINARY, payload.len);
    out->data[at] = (char)first;
    buf_bytes(out, payload);
}

static void read_exactly(int fd, char *out, size_t len)
{
    if (recv(fd, out, len, MSG_WAITALL) != (ssize_t)len)
        _exit(2);
}

/* Appends the payload of one masked frame below 126 bytes. */
static void read_frame(int fd, struct buf *said)
{
    char head[6];
    read_exactly(fd, head, sizeof(head));
    size_t len = (size_t)(head[1] & 127);
    if (len > 125 || !buf_reserve(said, len))
        _exit(3);
    read_exactly(fd, said->data + said->len, len);
    for (size_t i = 0; i < len; i++)
        said->data[said->len + i] ^= head[2 + i % 4];
    said->len += len;
}

static void serve(int listener, const struct script *script)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    char head[1024];
    struct buf said = {0};
    int fd = accept(listener, NULL, NULL);
    ssize_t got = recv(fd, head, sizeof(head), 0);
    struct buf first = {0};
    buf_text(&first, answer);
    buf_bytes(&first, buf_view(&script->steps[0]));
    if (got <= 0 || send(fd, first.data, first.len, 0) != (ssize_t)first.len)
        _exit(4);
    int frames = 0;
    for (int i = 1; i < STEPS && script->steps[i].len; i++) {
        for (; frames < script->waits[i]; frames++)
            read_frame(fd, &said);
        for (size_t at = 0; at < script->steps[i].len;) {
            ssize_t sent = send(fd, script->steps[i].data + at, script->steps[i].len - at, 0);
            if (sent <= 0)
                _exit(5);
            at += (size_t)sent;
        }
    }
    buf_fini(&first);
    bool right = !script->said || bytes_is(buf_view(&said), script->said);
    while (recv(fd, head, sizeof(head), 0) > 0)
        continue;
    buf_fini(&said);
    _exit(right ? 0 : 6);
}

static struct bench_result *speak(const struct script *script)
{
    static struct bench_result result;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(any);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&any, len), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&any, &len), 0);
    int pid = fork();
    if (pid == 0)
        serve(listener, script);
    close(listener);
    char url[64];
    snprintf(url, sizeof(url), "--url=ws://127.0.0.1:%u/", ntohs(any.sin_port));
    char as[32];
    snprintf(as, sizeof(as), "--as=%s", script->as);
    struct bench_options options;
    char *argv[] = {(char *)(uintptr_t) "halley-bench",
                    url,
                    as,
                    (char *)(uintptr_t) "--viewers=1",
                    (char *)(uintptr_t) "--warmup=0",
                    (char *)(uintptr_t) "--settle=0",
                    (char *)(uintptr_t) "--seconds=0.2",
                    (char *)(uintptr_t) "--connect-timeout=10",
                    (char *)(uintptr_t) "--user-length=8",
                    (char *)(uintptr_t) "--quiet"};
    assert_int_equal(options_parse((int)(sizeof(argv) / sizeof(argv[0])), argv, &options), 0);
    assert_int_equal(bench_run(&options, &result), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return &result;
}

static void fini(struct script *script)
{
    for (int i = 0; i < STEPS; i++)
        buf_fini(&script->steps[i]);
}

static void expect_delivered(const struct bench_result *result, uint64_t messages, uint64_t bytes)
{
    const struct tally *tally = &result->tallies[GROUP_READING];
    assert_string_equal(result->failure, "");
    assert_true(result_clean(result));
    assert_int_equal(tally->measured, messages);
    assert_int_equal(tally->bytes, bytes);
}

static void nats__packets_are_read_across_frames(void **state)
{
    (void)state;
    struct script script = {.as = "nats",
                            .waits = {0, 1, 2},
                            .said =
                                "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,"
                                "\"name\":\"u0000000\"}\r\nSUB bench 1\r\nPING\r\nPONG\r\n"};
    add_frame(&script.steps[0], 0x82, BYTES_LIT("INFO {}\r\n"));
    /* The confirmation in two frames, a message in two fragments, two messages in one frame. */
    add_frame(&script.steps[1], 0x82, BYTES_LIT("PO"));
    add_frame(&script.steps[1], 0x82, BYTES_LIT("NG\r\nMSG bench 1 67\r\n"));
    add_frame(&script.steps[1], 0x02, BYTES_LIT("{\"t\":\"00000"));
    add_frame(&script.steps[1], 0x80,
              BYTES_LIT("00000000000009\",\"n\":\"0000000000\",\"r\":"
                        "\"0000000\",\"pad\":\"\"}\r\n"));
    add_frame(&script.steps[1], 0x82,
              BYTES_LIT("PING\r\nMSG bench 1 67\r\n" STAMP("1") "\r\nMSG bench 1 67\r\n" STAMP(
                  "2") "\r\n"));
    /* More in one frame than the reader keeps of others. */
    struct buf large = {0};
    for (int i = 3; i < 1003; i++)
        buf_printf(&large,
                   "MSG bench 1 67\r\n{\"t\":\"0000000000000000009\",\"n\":\"%010d\",\"r\":"
                   "\"0000000\",\"pad\":\"\"}\r\n",
                   i);
    assert_true(large.len > FRAME_KEPT_MAX);
    add_frame(&script.steps[2], 0x82, buf_view(&large));
    /* 85 bytes a message, and the headers of the three frames that end one: 2 + 4 + 10. */
    expect_delivered(speak(&script), 1003, 1003 * 85 + 2 + 4 + 10);
    buf_fini(&large);
    fini(&script);
}

static void mqtt__viewer_joins_and_counts(void **state)
{
    (void)state;
    struct script script = {.as = "mqtt", .waits = {0, 1, 1}};
    add_frame(&script.steps[1], 0x82, BYTES_LIT("\x20\x02\0\0\x90\x03\0\x01\0"));
    add_frame(&script.steps[2], 0x82,
              BYTES_LIT("\x30\x4a\0\x05"
                        "bench" STAMP("0")));
    expect_delivered(speak(&script), 1, 76 + 2);
    fini(&script);
}

static void engineio4__joins_after_the_welcome(void **state)
{
    (void)state;
    struct script script = {.as = "engineio4", .waits = {0, 2, 3}};
    add_frame(&script.steps[0], 0x81, BYTES_LIT("0{\"sid\":\"a40b\"}"));
    /* The answer to a ping shows that the join was not sent yet. */
    add_frame(&script.steps[0], 0x89, BYTES_LIT("early?"));
    add_frame(&script.steps[1], 0x81, BYTES_LIT("40{\"sid\":\"x\"}"));
    add_frame(&script.steps[2], 0x81, BYTES_LIT("42[\"message\",{\"op\":\"joined\"}]"));
    script.said = "40early?42[\"join\",\"bench\"]";
    expect_delivered(speak(&script), 0, 0);
    fini(&script);
}

int suite_speak(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nats__packets_are_read_across_frames),
        cmocka_unit_test(mqtt__viewer_joins_and_counts),
        cmocka_unit_test(engineio4__joins_after_the_welcome),
    };
    return cmocka_run_group_tests_name("speak", tests, NULL, NULL);
}
