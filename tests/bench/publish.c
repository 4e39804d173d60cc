#include "bench/publish.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "suites.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A publisher against a listener of the test's own, which reads what is sent and answers by hand. */
struct fixture {
    int listener;
    int peer;
    char url[64];
    struct bench_options options;
    struct publisher *publisher;
};

static void accept_peer(struct fixture *fixture)
{
    struct pollfd poll_for = {.fd = fixture->listener, .events = POLLIN};
    assert_int_equal(poll(&poll_for, 1, 5000), 1);
    fixture->peer = accept(fixture->listener, NULL, NULL);
    assert_true(fixture->peer >= 0);
}

static void start(struct fixture *fixture, const char *scheme)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(any);
    *fixture = (struct fixture){.listener = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(bind(fixture->listener, (struct sockaddr *)&any, len), 0);
    assert_int_equal(listen(fixture->listener, 4), 0);
    assert_int_equal(getsockname(fixture->listener, (struct sockaddr *)&any, &len), 0);
    snprintf(fixture->url, sizeof(fixture->url), "%s127.0.0.1:%u", scheme, ntohs(any.sin_port));
    fixture->options = (struct bench_options){.publish = fixture->url,
                                              .prefix = "p",
                                              .publish_text = "[\"{room}\",{data}]",
                                              .publish_hello = "",
                                              .type = "chat",
                                              .lane = "normal",
                                              .room = "r",
                                              .rooms = 2,
                                              .size = STAMP_SIZE_MIN};
    fixture->publisher = publisher_create(&fixture->options);
    assert_non_null(fixture->publisher);
    accept_peer(fixture);
}

static void finish(struct fixture *fixture)
{
    publisher_destroy(fixture->publisher);
    close(fixture->peer);
    close(fixture->listener);
}

static void expect_bytes(struct fixture *fixture, struct bytes wanted)
{
    char got[1024] = {0};
    size_t len = 0;
    publisher_pump(fixture->publisher);
    while (len < wanted.len) {
        ssize_t more = recv(fixture->peer, got + len, wanted.len - len, 0);
        assert_true(more > 0);
        len += (size_t)more;
    }
    assert_memory_equal(got, wanted.data, wanted.len);
    assert_int_equal(recv(fixture->peer, got, sizeof(got), MSG_DONTWAIT), -1);
}

static void expect_sent(struct fixture *fixture, const char *text)
{
    expect_bytes(fixture, bytes_str(text));
}

static void answer(struct fixture *fixture, const char *text)
{
    struct pollfd poll_for = {.fd = publisher_fd(fixture->publisher), .events = POLLIN};
    assert_int_equal(send(fixture->peer, text, strlen(text), 0), strlen(text));
    assert_int_equal(poll(&poll_for, 1, 5000), 1);
    publisher_pump(fixture->publisher);
}

#define DATA(number, room)                                                                         \
    "{\"t\":\"0000000000000000009\",\"n\":\"000000000" number "\",\"r\":\"000000" room             \
    "\",\"pad\":\"\"}"

static void redis__publishes_on_the_rooms_channel(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "redis://");
    publisher_add(fixture.publisher, 3, 9);
    expect_sent(&fixture, "*3\r\n$7\r\nPUBLISH\r\n$12\r\np:room:{r.1}\r\n$90\r\n"
                          "{\"type\":\"chat\",\"data\":" DATA("1", "1") "}\r\n");
    fixture.options.lane = "high";
    publisher_add(fixture.publisher, 0, 9);
    expect_sent(&fixture, "*3\r\n$7\r\nPUBLISH\r\n$12\r\np:high:{r.0}\r\n$90\r\n"
                          "{\"type\":\"chat\",\"data\":" DATA("0", "0") "}\r\n");
    finish(&fixture);
}

/* Every other message of a room is high: of another type, on another channel, numbered apart. */
static void redis__publishes_a_share_on_the_high_channel(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "redis://");
    fixture.publisher->streams.high_every = 2;
    publisher_add(fixture.publisher, 0, 9);
    expect_sent(&fixture, "*3\r\n$7\r\nPUBLISH\r\n$12\r\np:high:{r.0}\r\n$90\r\n"
                          "{\"type\":\"gift\",\"data\":" DATA("0", "2") "}\r\n");
    publisher_add(fixture.publisher, 2, 9);
    expect_sent(&fixture, "*3\r\n$7\r\nPUBLISH\r\n$12\r\np:room:{r.0}\r\n$90\r\n"
                          "{\"type\":\"chat\",\"data\":" DATA("0", "0") "}\r\n");
    finish(&fixture);
}

static void redis__logs_in_first(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "redis://al:se:cret@");
    expect_sent(&fixture, "*3\r\n$4\r\nAUTH\r\n$2\r\nal\r\n$7\r\nse:cret\r\n");
    finish(&fixture);
    start(&fixture, "redis://:pw@");
    expect_sent(&fixture, "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n");
    finish(&fixture);
}

static void redis__counts_answers_however_they_are_cut(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "redis://");
    answer(&fixture, "+OK\r\n:1\r\n:2");
    assert_int_equal(publisher_counts(fixture.publisher).confirmed, 1);
    answer(&fixture, "7\r\n-ERR no\r\n");
    assert_int_equal(publisher_counts(fixture.publisher).confirmed, 2);
    assert_int_equal(publisher_counts(fixture.publisher).refused, 1);
    finish(&fixture);
}

static void redis__comes_back_and_counts_what_was_not_sent(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "redis://");
    close(fixture.peer);
    struct pollfd poll_for = {.fd = publisher_fd(fixture.publisher), .events = POLLIN};
    assert_int_equal(poll(&poll_for, 1, 5000), 1);
    publisher_pump(fixture.publisher);
    assert_int_equal(publisher_fd(fixture.publisher), -1);
    publisher_add(fixture.publisher, 0, 9);
    assert_int_equal(publisher_counts(fixture.publisher).unsent, 1);
    uint64_t until = clock_ms() + 5000;
    while (publisher_fd(fixture.publisher) < 0) {
        assert_true(clock_ms() < until);
        publisher_pump(fixture.publisher);
    }
    accept_peer(&fixture);
    answer(&fixture, ":1\r\n");
    assert_int_equal(publisher_counts(fixture.publisher).confirmed, 1);
    finish(&fixture);
}

static void http__posts_to_the_room(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "http://:secret@");
    publisher_add(fixture.publisher, 2, 9);
    char expected[512];
    snprintf(expected, sizeof(expected),
             "POST /v1/rooms/r.0/messages HTTP/1.1\r\nHost: %s\r\nContent-Length: 90\r\n"
             "Authorization: Bearer secret\r\nContent-Type: application/json\r\n\r\n"
             "{\"type\":\"chat\",\"data\":" DATA("1", "0") "}",
             strstr(fixture.url, "127."));
    expect_sent(&fixture, expected);
    answer(&fixture, "HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\n{\"id\"");
    assert_int_equal(publisher_counts(fixture.publisher).confirmed, 0);
    answer(&fixture, ":1}HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(publisher_counts(fixture.publisher).confirmed, 1);
    assert_int_equal(publisher_counts(fixture.publisher).refused, 1);
    finish(&fixture);
}

static void nats__publishes_on_the_subject_and_answers_pings(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "nats://");
    expect_sent(&fixture, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,"
                          "\"name\":\"\"}\r\n");
    publisher_add(fixture.publisher, 3, 9);
    expect_sent(&fixture, "PUB r.1 67\r\n" DATA("1", "1") "\r\n");
    answer(&fixture, "INFO {}\r\nPI");
    answer(&fixture, "NG\r\n-ERR 'no'\r\n");
    expect_sent(&fixture, "PONG\r\n");
    assert_int_equal(publisher_counts(fixture.publisher).refused, 1);
    answer(&fixture, "what\r\n");
    assert_int_equal(publisher_fd(fixture.publisher), -1);
    finish(&fixture);
}

static void mqtt__publishes_on_the_topic(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "mqtt://al:pw@");
    expect_bytes(&fixture, BYTES_LIT("\x10\x14\0\x04MQTT\x04\xc2\0\0\0\0\0\x02"
                                     "al\0\x02pw"));
    publisher_add(fixture.publisher, 3, 9);
    expect_bytes(&fixture, BYTES_LIT("\x30\x48\0\x03r.1" DATA("1", "1")));
    finish(&fixture);
}

/* Takes a masked text frame below 126 bytes off the connection. */
static void expect_frame(struct fixture *fixture, const char *text)
{
    char got[256];
    size_t len = strlen(text);
    publisher_pump(fixture->publisher);
    assert_int_equal(recv(fixture->peer, got, 6 + len, MSG_WAITALL), 6 + len);
    assert_int_equal((unsigned char)got[0], 0x81);
    assert_int_equal((unsigned char)got[1], 0x80 | len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(got[6 + i] ^ got[2 + i % 4], text[i]);
}

static void ws__waits_for_the_handshake_and_sends_templates(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "ws://");
    const char *sent = "GET / HTTP/1.1\r\nHost: ";
    char head[512];
    publisher_add(fixture.publisher, 2, 9);
    publisher_pump(fixture.publisher);
    ssize_t len = recv(fixture.peer, head, sizeof(head) - 1, 0);
    assert_true(len > 0);
    head[len] = 0;
    assert_memory_equal(head, sent, strlen(sent));
    assert_string_equal(head + len - 4, "\r\n\r\n");
    answer(&fixture, "HTTP/1.1 101 Switching Protocols\r\n");
    assert_false(publisher_wants_write(fixture.publisher));
    answer(&fixture, "\r\n\x81\x01"
                     "2");
    expect_frame(&fixture, "[\"r.0\"," DATA("1", "0") "]");
    expect_frame(&fixture, "3");
    answer(&fixture, "\x88\x02\x03\xe8");
    assert_int_equal(publisher_fd(fixture.publisher), -1);
    finish(&fixture);
}

static void ws__refused_handshake_is_told(void **state)
{
    (void)state;
    struct fixture fixture;
    start(&fixture, "ws://");
    answer(&fixture, "HTTP/1.1 404 Not Found\r\n\r\n");
    assert_int_equal(publisher_fd(fixture.publisher), -1);
    assert_int_equal(publisher_counts(fixture.publisher).refused, 1);
    finish(&fixture);
}

static void ws__several_rooms_need_a_template(void **state)
{
    (void)state;
    struct bench_options options = {
        .publish = "ws://127.0.0.1:1", .publish_text = "{data}", .publish_hello = "", .rooms = 2};
    assert_null(publisher_create(&options));
}

int suite_publish(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis__publishes_on_the_rooms_channel),
        cmocka_unit_test(redis__publishes_a_share_on_the_high_channel),
        cmocka_unit_test(redis__logs_in_first),
        cmocka_unit_test(redis__counts_answers_however_they_are_cut),
        cmocka_unit_test(redis__comes_back_and_counts_what_was_not_sent),
        cmocka_unit_test(http__posts_to_the_room),
        cmocka_unit_test(nats__publishes_on_the_subject_and_answers_pings),
        cmocka_unit_test(mqtt__publishes_on_the_topic),
        cmocka_unit_test(ws__waits_for_the_handshake_and_sends_templates),
        cmocka_unit_test(ws__refused_handshake_is_told),
        cmocka_unit_test(ws__several_rooms_need_a_template),
    };
    return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
