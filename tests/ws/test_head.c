#include "ws/head.h"
#include "ws/test_ws.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define FIRST "GET /ws HTTP/1.1\r\n"
#define HOST "Host: a\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEY_LINE "Sec-WebSocket-Key: " KEY "\r\n"

static const char proper[] =
    "GET /ws?room=42&user=bob HTTP/1.1\r\n"
    "Host: gateway.example:1314\r\n"
    "Origin: https://app.example\r\n" UPGRADE VERSION KEY_LINE "Authorization: Bearer abc.def \r\n"
    "Sec-WebSocket-Protocol: chat, halley.v1.json\r\n\r\n";

static struct head parsed(const char *text)
{
    struct head head = {0};
    int rc = head_parse(bytes_str(text), &head);
    if (rc != HEAD_DONE)
        print_error("%d for:\n%s\n", rc, text);
    assert_int_equal(rc, HEAD_DONE);
    assert_int_equal(head.length, strlen(text));
    return head;
}

/* The text is refused with `status` when, and only when, the byte at refused_at - 1 has come. */
static void assert_refused(struct bytes text, int status, size_t refused_at)
{
    struct head head;
    for (size_t len = 0; len <= text.len; len++) {
        int rc = head_parse(bytes_of(text.data, len), &head);
        int expected = len < refused_at ? HEAD_MORE : -status;
        if (rc != expected)
            print_error("%d at byte %zu of:\n%.*s\n", rc, len, (int)text.len, text.data);
        assert_int_equal(rc, expected);
    }
}

#define REFUSED_AT_END(text, status) assert_refused(BYTES_LIT(text), (status), sizeof(text) - 1)

static void proper_upgrade__all_parts_found(void **state)
{
    (void)state;
    struct head head = parsed(proper);
    assert_bytes(head.method, "GET");
    assert_bytes(head.path, "/ws");
    assert_bytes(head.query, "room=42&user=bob");
    assert_bytes(head.host, "gateway.example:1314");
    assert_bytes(head.origin, "https://app.example");
    assert_bytes(head.key, KEY);
    assert_bytes(head.bearer, "abc.def");
    assert_true(head.upgrade);
    assert_true(head.version_ok);
    assert_true(head.key_ok);
    assert_true(head.subprotocol_v1);
    assert_int_equal(head_upgrade_status(&head), 0);
}

static void every_prefix__asks_for_more(void **state)
{
    (void)state;
    struct head head;
    for (size_t len = 0; len < strlen(proper); len++)
        assert_int_equal(head_parse(bytes_of(proper, len), &head), HEAD_MORE);
}

static void bytes_behind_the_head__not_counted(void **state)
{
    (void)state;
    struct head head;
    assert_int_equal(head_parse(BYTES_LIT(FIRST HOST "\r\n\x81\x80zz"), &head), HEAD_DONE);
    assert_int_equal(head.length, strlen(FIRST HOST "\r\n"));
}

static void refused__out_parameter_untouched(void **state)
{
    (void)state;
    struct head head = {.length = 77};
    assert_int_equal(head_parse(BYTES_LIT(FIRST "\r\n"), &head), -400);
    assert_int_equal(head_parse(BYTES_LIT(FIRST), &head), HEAD_MORE);
    assert_int_equal(head.length, 77);
}

static void header_names_and_words__any_case(void **state)
{
    (void)state;
    struct head head =
        parsed(FIRST "hOST: a\r\nUPGRADE: WebSocket\r\nconnection: keep-alive , UPGRADE\r\n"
                     "sec-websocket-version:13\r\nSEC-WEBSOCKET-KEY:\t" KEY " \t\r\n"
                     "authorization: bearer x\r\n\r\n");
    assert_int_equal(head_upgrade_status(&head), 0);
    assert_bytes(head.bearer, "x");
}

static void lists_over_several_lines__joined(void **state)
{
    (void)state;
    struct head head =
        parsed(FIRST HOST "Upgrade: h2c\r\nUpgrade: ,websocket\r\nConnection: close\r\n"
                          "Connection: x, upgrade\r\nSec-WebSocket-Protocol: halley.v1.json\r\n"
                          "Sec-WebSocket-Protocol: other\r\n" VERSION KEY_LINE "\r\n");
    assert_int_equal(head_upgrade_status(&head), 0);
    assert_true(head.subprotocol_v1);
}

static void words_that_only_look_alike__no_upgrade(void **state)
{
    (void)state;
    struct head head = parsed(FIRST HOST "Upgrade: websockets\r\nConnection: upgrade\r\n\r\n");
    assert_false(head.upgrade);
    head = parsed(FIRST HOST "Upgrade: websocket\r\nConnection: up grade\r\n\r\n");
    assert_false(head.upgrade);
    head = parsed(FIRST HOST "Sec-WebSocket-Protocol: Halley.v1.json\r\n\r\n");
    assert_false(head.subprotocol_v1);
    head = parsed(FIRST HOST "Authorization: Basic abc\r\n\r\n");
    assert_bytes(head.bearer, "");
}

static void target_forms__split_at_first_question_mark(void **state)
{
    (void)state;
    struct head head = parsed("GET /a?b?c=/%20 HTTP/1.1\r\n" HOST "\r\n");
    assert_bytes(head.path, "/a");
    assert_bytes(head.query, "b?c=/%20");
    head = parsed("GET /? HTTP/1.1\r\n" HOST "\r\n");
    assert_bytes(head.path, "/");
    assert_bytes(head.query, "");
    head = parsed("GET / HTTP/1.1\r\n" HOST "\r\n");
    assert_bytes(head.query, "");
}

static void bad_request_line__refused_at_its_byte(void **state)
{
    (void)state;
    REFUSED_AT_END(" ", 400);
    REFUSED_AT_END("\r", 400);
    REFUSED_AT_END("G(", 400);
    REFUSED_AT_END("GET\t", 400);
    REFUSED_AT_END("\x16", 400); /* a TLS client */
    assert_refused(BYTES_LIT("G\0"), 400, 2);
    REFUSED_AT_END("GET h", 400);
    REFUSED_AT_END("GET *", 400);
    REFUSED_AT_END("GET  ", 400);
    REFUSED_AT_END("GET /a#", 400);
    REFUSED_AT_END("GET /\x7f", 400);
    REFUSED_AT_END("GET /\xc3", 400);
    REFUSED_AT_END("GET /\r", 400);
    REFUSED_AT_END("GET / \r", 400);
    REFUSED_AT_END("GET / h", 400);
    REFUSED_AT_END("GET / HTTP/x", 400);
    REFUSED_AT_END("GET / HTTP/1.0", 400);
    REFUSED_AT_END("GET / HTTP/1.1\n", 400);
    REFUSED_AT_END("GET / HTTP/1.1 ", 400);
    REFUSED_AT_END("GET / HTTP/1.1\r\r", 400);
}

static void other_major_version__505(void **state)
{
    (void)state;
    REFUSED_AT_END("GET / HTTP/2", 505);
    REFUSED_AT_END("GET / HTTP/0", 505);
}

static void bad_lines__refused_at_their_byte(void **state)
{
    (void)state;
    REFUSED_AT_END(FIRST "Host ", 400);
    REFUSED_AT_END(FIRST ":", 400);
    REFUSED_AT_END(FIRST " ", 400);
    REFUSED_AT_END(FIRST "\n", 400);
    REFUSED_AT_END(FIRST HOST " ", 400);
    REFUSED_AT_END(FIRST HOST "\t", 400);
    REFUSED_AT_END(FIRST "Host: a\n", 400);
    REFUSED_AT_END(FIRST "Host: a\rb", 400);
    REFUSED_AT_END(FIRST "X: \x01", 400);
    REFUSED_AT_END(FIRST "X: \x7f", 400);
    assert_refused(BYTES_LIT(FIRST "X: \0"), 400, strlen(FIRST "X: ") + 1);
    assert_refused(BYTES_LIT(FIRST "X\0"), 400, strlen(FIRST "X") + 1);
    REFUSED_AT_END(FIRST "X\r", 400);
    REFUSED_AT_END(FIRST HOST "\r\r", 400);
}

static void contradicting_lines__refused_at_their_end(void **state)
{
    (void)state;
    REFUSED_AT_END(FIRST "\r\n", 400);
    REFUSED_AT_END(FIRST HOST HOST, 400);
    REFUSED_AT_END(FIRST "Host: a b\r\n", 400);
    REFUSED_AT_END(FIRST VERSION "Sec-WebSocket-Version: 8\r\n", 400);
    REFUSED_AT_END(FIRST "Origin: a\r\nOrigin: b\r\n", 400);
    REFUSED_AT_END(FIRST "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400);
    REFUSED_AT_END(FIRST "Content-Length: 1\r\n", 400);
    REFUSED_AT_END(FIRST "Content-Length: 0, 0\r\n", 400);
    REFUSED_AT_END(FIRST "Transfer-Encoding: chunked\r\n", 400);
}

static void harmless_repeats__accepted(void **state)
{
    (void)state;
    struct head head =
        parsed(FIRST HOST UPGRADE VERSION VERSION KEY_LINE
               "Content-Length: 0\r\nOrigin: a\r\nOrigin: a\r\nX: \xff\r\nX:\r\n\r\n");
    assert_int_equal(head_upgrade_status(&head), 0);
}

static void lines_past_the_limit__431(void **state)
{
    (void)state;
    struct buf text = {0};
    struct head head;
    buf_text(&text, FIRST HOST);
    for (int i = 1; i < HEAD_LINES_MAX; i++)
        buf_text(&text, "X: y\r\n");
    assert_int_equal(head_parse(buf_view(&text), &head), HEAD_MORE);
    size_t full = text.len;
    buf_text(&text, "\r\n");
    assert_int_equal(head_parse(buf_view(&text), &head), HEAD_DONE);
    text.len = full;
    buf_text(&text, "X");
    assert_int_equal(head_parse(buf_view(&text), &head), -431);
    buf_fini(&text);
}

static int status_of(const char *text)
{
    struct head head = parsed(text);
    return head_upgrade_status(&head);
}

static void upgrade_status__by_what_is_wrong(void **state)
{
    (void)state;
    assert_int_equal(status_of("POST /ws HTTP/1.1\r\n" HOST UPGRADE VERSION KEY_LINE "\r\n"), 405);
    assert_int_equal(status_of("get /ws HTTP/1.1\r\n" HOST UPGRADE VERSION KEY_LINE "\r\n"), 405);
    assert_int_equal(status_of(FIRST HOST "\r\n"), 426);
    assert_int_equal(status_of(FIRST HOST UPGRADE KEY_LINE "\r\n"), 426);
    assert_int_equal(status_of(FIRST HOST UPGRADE KEY_LINE "Sec-WebSocket-Version: 8\r\n\r\n"),
                     426);
    assert_int_equal(status_of(FIRST HOST "Upgrade: websocket\r\n" VERSION KEY_LINE "\r\n"), 426);
    assert_int_equal(status_of(FIRST HOST UPGRADE VERSION "\r\n"), 400);
    assert_int_equal(status_of(FIRST HOST UPGRADE VERSION KEY_LINE KEY_LINE "\r\n"), 400);
    assert_int_equal(status_of(FIRST HOST UPGRADE VERSION KEY_LINE "\r\n"), 0);
}

static void keys__only_base64_of_16_bytes(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "x",
                                        "dGhlIHNhbXBsZSBub25jZQ=",
                                        "dGhlIHNhbXBsZSBub25jZ===",
                                        "dGhlIHNhbXBsZSBub25jZQQ=",
                                        "dGhlIHNhbXBsZSBub25jZQ==A",
                                        "dGhl-HNhbXBsZSBub25jZQ==",
                                        "dGhlIHNhbXBsZSBub25jZQQQ"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct buf text = {0};
        buf_printf(&text, FIRST HOST UPGRADE VERSION "Sec-WebSocket-Key: %s\r\n\r\n", wrong[i]);
        buf_byte(&text, '\0');
        assert_int_equal(status_of(text.data), 400);
        buf_fini(&text);
    }
    assert_int_equal(
        status_of(FIRST HOST UPGRADE VERSION "Sec-WebSocket-Key: AAAAAAAAAA/+AAAAAAAAAA==\r\n\r\n"),
        0);
}

int run_head_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proper_upgrade__all_parts_found),
        cmocka_unit_test(every_prefix__asks_for_more),
        cmocka_unit_test(bytes_behind_the_head__not_counted),
        cmocka_unit_test(refused__out_parameter_untouched),
        cmocka_unit_test(header_names_and_words__any_case),
        cmocka_unit_test(lists_over_several_lines__joined),
        cmocka_unit_test(words_that_only_look_alike__no_upgrade),
        cmocka_unit_test(target_forms__split_at_first_question_mark),
        cmocka_unit_test(bad_request_line__refused_at_its_byte),
        cmocka_unit_test(other_major_version__505),
        cmocka_unit_test(bad_lines__refused_at_their_byte),
        cmocka_unit_test(contradicting_lines__refused_at_their_end),
        cmocka_unit_test(harmless_repeats__accepted),
        cmocka_unit_test(lines_past_the_limit__431),
        cmocka_unit_test(upgrade_status__by_what_is_wrong),
        cmocka_unit_test(keys__only_base64_of_16_bytes),
    };
    return cmocka_run_group_tests_name("ws head", tests, NULL, NULL);
}
