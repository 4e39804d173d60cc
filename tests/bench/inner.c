#include "bench/inner.h"
#include "suites.h"

#include <stdlib.h>

/* What a sink saw, one event a line. */
static void note(void *ctx, const struct inner_event *event)
{
    static const char *const names[] = {"other", "joined", "message", "ping", "refused"};
    struct buf *log = ctx;
    buf_printf(log, "%s %zu %.*s\n", names[event->kind], event->wire, (int)event->data.len,
               event->data.data);
}

/* Feeds the stream in pieces of `step` bytes, each in memory of its own so that a sanitizer sees reads
 * past its end. */
static const char *feed(const struct inner *inner, struct bytes stream, size_t step,
                        struct buf *log)
{
    struct buf held = {0};
    const char *wrong = NULL;
    for (size_t at = 0; at < stream.len && !wrong; at += step) {
        size_t len = stream.len - at < step ? stream.len - at : step;
        char *piece = malloc(len);
        assert_non_null(piece);
        memcpy(piece, stream.data + at, len);
        wrong = inner_feed(inner, &held, bytes_of(piece, len), note, log);
        free(piece);
    }
    buf_fini(&held);
    return wrong;
}

static void expect_events(const struct inner *inner, struct bytes stream, const char *events)
{
    for (size_t step = 1; step <= stream.len; step++) {
        struct buf log = {0};
        assert_null(feed(inner, stream, step, &log));
        buf_byte(&log, 0);
        assert_string_equal(log.data, events);
        buf_fini(&log);
    }
}

static void expect_wrong(const struct inner *inner, struct bytes stream, const char *part)
{
    const size_t steps[] = {1, 7, stream.len};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct buf log = {0};
        const char *wrong = feed(inner, stream, steps[i], &log);
        assert_non_null(wrong);
        assert_non_null(strstr(wrong, part));
        buf_fini(&log);
    }
}

static void expect_written(struct buf *out, struct bytes wanted)
{
    assert_int_equal(out->len, wanted.len);
    assert_memory_equal(out->data, wanted.data, wanted.len);
    buf_fini(out);
}

static void nats__reads_the_same_however_it_is_cut(void **state)
{
    (void)state;
    expect_events(&inner_nats,
                  BYTES_LIT("INFO {\"server_id\":\"x\"}\r\nPONG\r\nMSG bench 1 5\r\nhello\r\n"
                            "PING\r\n+OK\r\nMSG bench 1 reply.to 2\r\n\r\n\r\nMSG b 1 0\r\n\r\n"
                            "-ERR 'Slow Consumer'\r\n"),
                  "joined 6 \nmessage 22 hello\nping 6 \nmessage 28 \r\n\nmessage 13 \n"
                  "refused 22 -ERR 'Slow Consumer'\n");
}

static void nats__damage_is_told(void **state)
{
    (void)state;
    expect_wrong(&inner_nats, BYTES_LIT("HELLO\r\n"), "not of NATS");
    expect_wrong(&inner_nats, BYTES_LIT("MSG bench\r\n"), "without a length");
    expect_wrong(&inner_nats, BYTES_LIT("MSG bench 1 \r\n"), "without a length");
    expect_wrong(&inner_nats, BYTES_LIT("MSG bench 1 5x\r\n"), "without a length");
    expect_wrong(&inner_nats, BYTES_LIT("MSG bench 1 99999999999999999999\r\n"), "without");
    expect_wrong(&inner_nats, BYTES_LIT("MSG bench 1 2\r\nhello\r\n"), "longer than announced");
}

static void nats__writes_what_the_protocol_wants(void **state)
{
    (void)state;
    struct buf out = {0};
    inner_nats.login(&out, &(struct inner_login){.client = "v\"1", .user = "", .password = ""});
    inner_nats.subscribe(&out, "bench.3");
    inner_nats.publish(&out, "bench.3", BYTES_LIT("a\r\nb"));
    expect_written(&out, BYTES_LIT("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":"
                                   "false,\"name\":\"v\\\"1\"}\r\nSUB bench.3 1\r\nPING\r\n"
                                   "PUB bench.3 4\r\na\r\nb\r\n"));
    inner_nats.login(&out, &(struct inner_login){.client = "", .user = "al", .password = "p\\w"});
    expect_written(&out, BYTES_LIT("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":"
                                   "false,\"name\":\"\",\"user\":\"al\",\"pass\":\"p\\\\w\"}\r\n"));
}

static void mqtt__reads_the_same_however_it_is_cut(void **state)
{
    (void)state;
    /* CONNACK, SUBACK, PUBLISH of QoS 0 and 1, PINGRESP, an empty message, a SUBACK that refuses. */
    expect_events(&inner_mqtt,
                  BYTES_LIT("\x20\x02\0\0"
                            "\x90\x03\0\x01\0"
                            "\x30\x0c\0\x05"
                            "benchhello"
                            "\x32\x0b\0\x05"
                            "bench\0\x07hi"
                            "\xd0\0"
                            "\x30\x03\0\x01"
                            "b"
                            "\x90\x03\0\x01\x80"),
                  "joined 5 \nmessage 14 hello\nmessage 13 hi\nmessage 5 \n"
                  "refused 5 SUBSCRIBE refused\n");
}

static void mqtt__long_packet_comes_whole(void **state)
{
    (void)state;
    struct buf stream = {0};
    struct buf data = {0};
    for (size_t i = 0; i < 20000; i++)
        buf_byte(&data, (char)('a' + i % 26));
    inner_mqtt.publish(&stream, "bench", buf_view(&data));
    /* 20,007 bytes behind a length of three digits: 0x27 0x9c 0x01. */
    assert_memory_equal(stream.data, "\x30\xa7\x9c\x01\0\x05", 6);
    struct buf log = {0};
    assert_null(feed(&inner_mqtt, buf_view(&stream), 1000, &log));
    struct buf wanted = {0};
    buf_printf(&wanted, "message 20011 %.*s\n", (int)data.len, data.data);
    assert_true(bytes_equal(buf_view(&log), buf_view(&wanted)));
    buf_fini(&wanted);
    buf_fini(&log);
    buf_fini(&data);
    buf_fini(&stream);
}

static void mqtt__refusals_say_why(void **state)
{
    (void)state;
    expect_events(&inner_mqtt, BYTES_LIT("\x20\x02\0\x05"), "refused 4 not authorised\n");
    expect_events(&inner_mqtt, BYTES_LIT("\x20\x02\0\x77"),
                  "refused 4 CONNECT refused for an unknown reason\n");
}

static void mqtt__damage_is_told(void **state)
{
    (void)state;
    expect_wrong(&inner_mqtt, BYTES_LIT("\x30\x80\x80\x80\x80\x01"), "more than four bytes");
    expect_wrong(&inner_mqtt, BYTES_LIT("\x20\x03\0\0\0"), "CONNACK");
    expect_wrong(&inner_mqtt, BYTES_LIT("\x90\x02\0\x01"), "SUBACK");
    expect_wrong(&inner_mqtt,
                 BYTES_LIT("\x30\x03\0\x05"
                           "b"),
                 "shorter than its topic");
    expect_wrong(&inner_mqtt, BYTES_LIT("\x30\x01\0"), "shorter than its topic");
}

static void mqtt__writes_what_the_protocol_wants(void **state)
{
    (void)state;
    struct buf out = {0};
    inner_mqtt.login(&out, &(struct inner_login){.client = "v1", .user = "", .password = ""});
    inner_mqtt.subscribe(&out, "b.3");
    expect_written(&out, BYTES_LIT("\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02v1"
                                   "\x82\x08\0\x01\0\x03"
                                   "b.3\0"));
    inner_mqtt.login(&out, &(struct inner_login){.client = "", .user = "al", .password = "pw"});
    expect_written(&out, BYTES_LIT("\x10\x14\0\x04MQTT\x04\xc2\0\0\0\0\0\x02"
                                   "al\0\x02pw"));
}

static void feed__endless_packet_is_refused(void **state)
{
    (void)state;
    struct buf stream = {0};
    assert_true(buf_reserve(&stream, INNER_PACKET_MAX + 100));
    buf_text(&stream, "MSG bench 1 999999999\r\n");
    memset(stream.data + stream.len, 'x', INNER_PACKET_MAX);
    stream.len += INNER_PACKET_MAX;
    struct buf log = {0};
    const char *wrong = feed(&inner_nats, buf_view(&stream), 1 << 20, &log);
    assert_non_null(wrong);
    assert_non_null(strstr(wrong, "above 4 MB"));
    buf_fini(&stream);
    buf_fini(&log);
}

static void of__finds_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(inner_of("mqtt"), &inner_mqtt);
    assert_ptr_equal(inner_of("nats"), &inner_nats);
    assert_null(inner_of("halley"));
}

int suite_inner(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nats__reads_the_same_however_it_is_cut),
        cmocka_unit_test(nats__damage_is_told),
        cmocka_unit_test(nats__writes_what_the_protocol_wants),
        cmocka_unit_test(mqtt__reads_the_same_however_it_is_cut),
        cmocka_unit_test(mqtt__long_packet_comes_whole),
        cmocka_unit_test(mqtt__refusals_say_why),
        cmocka_unit_test(mqtt__damage_is_told),
        cmocka_unit_test(mqtt__writes_what_the_protocol_wants),
        cmocka_unit_test(feed__endless_packet_is_refused),
        cmocka_unit_test(of__finds_by_name),
    };
    return cmocka_run_group_tests_name("inner", tests, NULL, NULL);
}
