#include "conf_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What gethostname() says; NULL: the truth. */
static const char *host_name;

int __real_gethostname(char *name, size_t len);
int __wrap_gethostname(char *name, size_t len);

int __wrap_gethostname(char *name, size_t len)
{
    if (!host_name)
        return __real_gethostname(name, len);
    snprintf(name, len, "%s", host_name);
    return 0;
}

static void values__taken_from_every_kind(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { workers = 3\n share_port = yes\n accept = spread\n"
                                  "  listen = {\"127.0.0.1:0\", \"[::1]:5\"}\n node = \"n.1\" }\n"
                                  "heartbeat { interval = 5s }\n"
                                  "limits { message_bytes = 32m log_bytes = 64g rooms = 7 }\n"
                                  "lane low { overflow = disconnect ttl = 2m }\n",
                                  NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.workers, 3);
    assert_true(conf->server.share_port);
    assert_int_equal(conf->server.accept, ACCEPT_SPREAD);
    assert_int_equal(conf->server.listen.count, 2);
    assert_string_equal(conf->server.listen.items[0], "127.0.0.1:0");
    assert_string_equal(conf->server.listen.items[1], "[::1]:5");
    assert_string_equal(conf->server.node, "n.1");
    assert_int_equal(conf->heartbeat.interval_ms, 5000);
    assert_int_equal(conf->limits.message_bytes, 32 << 20);
    assert_true(conf->limits.log_bytes == UINT64_C(64) << 30);
    assert_int_equal(conf->limits.rooms, 7);
    assert_int_equal(conf->lanes[LANE_LOW].overflow, OVERFLOW_DISCONNECT);
    assert_int_equal(conf->lanes[LANE_LOW].ttl_ms, 120000);
    assert_int_equal(conf->lanes[LANE_LOW].bytes, 32768);
    assert_string_equal(test_warnings.data, "");
    conf_unref(conf);
}

static void section_twice__later_value_counts(void **state)
{
    (void)state;
    struct conf *conf = load_text("flush { slice = 10 }\nflush { slice = 20 }\n", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->flush.slice, 20);
    conf_unref(conf);
}

static void list__replaced_not_extended(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { listen = {\"127.0.0.1:1\", \"127.0.0.1:2\"}\n"
                                  "listen = 127.0.0.1:3 }",
                                  NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.listen.count, 1);
    assert_string_equal(conf->server.listen.items[0], "127.0.0.1:3");
    conf_unref(conf);
}

static void types__follow_the_star(void **state)
{
    (void)state;
    struct conf *conf = load_text("type \"*\" { max_bytes = 2k route = broadcast }\n"
                                  "type danmaku { lane = low }\ntype gift { route = none }",
                                  NULL);
    assert_non_null(conf);
    assert_int_equal(conf->type_count, 7);
    const struct conf_type *danmaku = &conf->types[6];
    assert_string_equal(danmaku->name, "danmaku");
    assert_int_equal(danmaku->lane, LANE_LOW);
    assert_int_equal(danmaku->route, ROUTE_BROADCAST);
    assert_int_equal(danmaku->max_bytes, 2048);
    const struct conf_type *gift = &conf->types[conf_type_find(conf, BYTES_LIT("gift"))];
    assert_int_equal(gift->lane, LANE_HIGH);
    assert_int_equal(gift->route, ROUTE_NONE);
    assert_int_equal(gift->max_bytes, 2048);
    conf_unref(conf);
}

static void type_without_keys__exists(void **state)
{
    (void)state;
    struct conf *conf = load_text("type empty { }", NULL);
    assert_non_null(conf);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("empty")), 6);
    conf_unref(conf);
}

static void type_find__finds_all_of_256(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 250; i++)
        buf_printf(&text, "type t%d { }\n", i);
    struct conf *conf = load_text(text_of(&text), NULL);
    assert_non_null(conf);
    assert_int_equal(conf->type_count, CONF_TYPES_MAX);
    for (uint32_t i = 1; i < conf->type_count; i++)
        assert_int_equal(conf_type_find(conf, bytes_str(conf->types[i].name)), i);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("t250")), 0);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("t1\0")), 0);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("*")), 0);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("")), 0);
    assert_int_equal(conf_type_find(conf, BYTES_LIT("a23456789012345678901234567890123")), 0);
    conf_unref(conf);
    text.len--;
    BUF_LIT(&text, "type more { }\n");
    assert_refused(text_of(&text), "t.conf:251: type \"more\": there may be at most 256 types\n");
    buf_fini(&text);
}

static void environment__fills_in(void **state)
{
    (void)state;
    setenv("CONF_TEST_TOKEN", "s3cret", 1);
    struct conf *conf = load_text("admin { token = \"${CONF_TEST_TOKEN}\" }", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->admin.token, "s3cret");
    conf_unref(conf);
}

static void comments__keep_lines_right(void **state)
{
    (void)state;
    assert_refused("#\n# two\n/* three\n four */ // rest\n\n#\nserver { workers = 900 } # '\n",
                   "t.conf:7: server.workers = \"900\": must be 0 to 64\n");
    assert_refused("flush { slice = 1 // slow \"\n}",
                   "t.conf:1: flush.slice = \"1\": must be 10 to "
                   "100000\n");
    struct conf *conf = load_text("broker { url = redis://h:1//x\n }", NULL);
    assert_null(conf);
    conf = load_text("broker { url = redis://h:1#x\n }", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->broker.url, "redis://h:1");
    conf_unref(conf);
}

static void problems__all_told(void **state)
{
    (void)state;
    assert_refused(
        "server {\n workers = 65\n accept = best\n echo = maybe\n}\n"
        "heartbeat { interval = 25 }\nlimits { head_bytes = 12x }\n",
        "t.conf:2: server.workers = \"65\": must be 0 to 64\n"
        "t.conf:3: server.accept = \"best\": must be one of ip-hash, spread\n"
        "t.conf:4: server.echo = \"maybe\": must be yes or no\n"
        "t.conf:6: heartbeat.interval = \"25\": must be 1s to 10m, with a unit: ms, s, m "
        "or h\n"
        "t.conf:7: limits.head_bytes = \"12x\": must be 1k to 64k, in bytes or with k, m "
        "or g\n");
}

static void list_items__each_told_once(void **state)
{
    (void)state;
    assert_refused("server { listen = {\"x\", \"127.0.0.1:1\", \"1.2.3.4\"} }",
                   "t.conf:1: server.listen = \"x\": must be an IPv4 address and port "
                   "(0.0.0.0:1314) or an IPv6 one ([::]:1314), ports 0 to 65535\n"
                   "t.conf:1: server.listen = \"1.2.3.4\": must be an IPv4 address and port "
                   "(0.0.0.0:1314) or an IPv6 one ([::]:1314), ports 0 to 65535\n");
    assert_refused("server {\n listen = {} }",
                   "t.conf:2: server.listen: must have at least one item\n");
    assert_refused("server {\n listen = {\"127.0.0.1:1\",\"127.0.0.1:1\"} }",
                   "t.conf:2: server.listen = \"127.0.0.1:1\": stands in the list twice; each "
                   "address once\n");
}

static void list__bounded(void **state)
{
    (void)state;
    struct buf text = {0};
    BUF_LIT(&text, "server { listen = {");
    for (int i = 0; i < CONF_LISTEN_MAX + 1; i++)
        buf_printf(&text, "%s\"127.0.0.1:%d\"", i ? "," : "", i);
    BUF_LIT(&text, "} }");
    assert_refused(text_of(&text),
                   "t.conf:1: server.listen = \"127.0.0.1:16\": must be a list of at "
                   "most 16\n");
    buf_fini(&text);
}

static void unknown_keys__all_told_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("server {\n wrokers = 2\n workers = 99 }\n"
                   "type gift {\n lanes = high\n routs = {5, 6} }\ntype chat { max_byts = x }\n"
                   "log { jwt = {} }",
                   "t.conf:2: server.wrokers: unknown key; did you mean workers?\n"
                   "t.conf:3: server.workers = \"99\": must be 0 to 64\n"
                   "t.conf:5: type.gift.lanes: unknown key; did you mean lane?\n"
                   "t.conf:6: type.gift.routs: unknown key; did you mean route?\n"
                   "t.conf:7: type.chat.max_byts: unknown key; did you mean max_bytes?\n"
                   "t.conf:8: log.jwt: unknown key; section log has: format, level\n");
}

static void unknown_keys__shown_safely_and_compared_with_care(void **state)
{
    (void)state;
    assert_refused("flush { sliceabc = 1 }",
                   "t.conf:1: flush.sliceabc: unknown key; section flush has: slice\n");
    assert_null(load_text("\"a\tb\" = 1", NULL));
    assert_non_null(strstr(test_errors.data, "t.conf:1: a?b: unknown section;"));
    assert_null(load_text("flush { \"a\nb\" = 1 }", NULL));
    assert_string_equal(test_errors.data,
                        "t.conf:2: flush.a?b: unknown key; section flush has: slice\n");
}

static void prefix__has_no_colon_and_fits(void **state)
{
    (void)state;
    static const char why[] = ": must be 1 to 32 of A-Z a-z 0-9 _ . -\n";
    static const char *const bad[] = {
        "broker.prefix=a:b", "broker.prefix=", "broker.prefix=a23456789012345678901234567890123"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_null(load_text(NULL, bad[i], NULL));
        assert_non_null(strstr(test_errors.data, why));
    }
    struct conf *conf = load_text(NULL, "broker.prefix=a2345678901234567890123456789._-", NULL);
    assert_non_null(conf);
    conf_unref(conf);
}

static void unknown_keys__bounded(void **state)
{
    (void)state;
    struct buf text = {0};
    BUF_LIT(&text, "flush {\n");
    for (int i = 0; i < 30; i++)
        buf_printf(&text, "unknown%d = 1\n", i);
    BUF_LIT(&text, "}\n");
    assert_null(load_text(text_of(&text), NULL));
    assert_non_null(strstr(test_errors.data, "t.conf:17: flush.unknown15: unknown key;"));
    assert_non_null(strstr(test_errors.data,
                           "t.conf:18: flush.unknown16: unknown key; section flush "
                           "has: slice (the file was not read further)\n"));
    assert_null(strstr(test_errors.data, "unknown17"));
    buf_fini(&text);
}

static void unknown_sections__told_with_the_nearest(void **state)
{
    (void)state;
    assert_refused("\nservre { workers = 1 }",
                   "t.conf:2: servre: unknown section; did you mean server? (the file was not read "
                   "further)\n");
    assert_null(load_text("workers = 3", NULL));
    assert_non_null(strstr(test_errors.data, "there is a key of this name within section server;"));
    assert_null(load_text("chronicle { ttl = 3 }", NULL));
    assert_non_null(
        strstr(test_errors.data, "t.conf:1: chronicle: unknown section; there are: server,"));
}

static void syntax__told_with_its_line(void **state)
{
    (void)state;
    assert_refused("server {\n workers 3\n}",
                   "t.conf:2: missing equal sign after option 'workers'\n");
    assert_refused("tcp {\n",
                   "t.conf:1: a section that begins here is not closed: a } is missing\n");
    assert_refused("tcp { } }", "t.conf:1: unexpected closing brace\n");
    assert_refused("\nserver { node = \"a\n\n}",
                   "t.conf:2: a string that begins here is not closed\n");
    assert_refused("\n/* a\n\n}", "t.conf:2: a comment that begins here is not closed\n");
    assert_refused("type * { }", "t.conf:1: * must be quoted: \"*\"\n");
    assert_refused("server|workers = 3",
                   "t.conf:1: a key must stand inside the braces of its section\n");
    assert_refused("lane { }", "t.conf:1: missing title for section 'lane'\n");
    assert_refused("flush { slice = 10 } flush \"a\" { }",
                   "t.conf:1: missing opening brace for section 'flush'\n");
    /* What one reading left behind in libconfuse's scanner must not reach the next. */
    conf_unref(load_text("", NULL));
}

static void nul_byte__refused(void **state)
{
    (void)state;
    struct conf_override none = {0};
    struct buf errors = {0};
    char path[] = "/tmp/test_conf.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "\nflush\0{ }", 10), 10);
    close(fd);
    assert_null(conf_load(path, &none, 0, &errors, &test_warnings));
    unlink(path);
    assert_non_null(strstr(text_of(&errors), ":2: there is a NUL byte\n"));
    buf_fini(&errors);
}

static void titles__checked(void **state)
{
    (void)state;
    assert_refused("lane fast {\n ttl = 1s\n bytes = 8k }",
                   "t.conf:2: lane \"fast\": unknown lane; there are high, normal and low\n");
    assert_refused(
        "type connect { }",
        "t.conf:1: type \"connect\": a type must be \"*\" or 1 to 32 of a-z 0-9 _ -, not "
        "halley nor a name that Socket.IO reserves (such as connect)\n");
    assert_refused("type gift { }\ntype gift { }",
                   "t.conf:2: a second section with the name gift; put all of its keys into one\n");
    assert_refused("type gift { route = some }",
                   "t.conf:1: type.gift.route = \"some\": must be one of none, broadcast, queue\n");
}

static void queue_without_redis__refused(void **state)
{
    (void)state;
    static const char why[] = "queue needs a Redis that keeps it: set broker.url = "
                              "\"redis://host:port\", or use none or broadcast with memory:\n";
    char expected[256];
    snprintf(expected, sizeof(expected), "t.conf:1: type.gift.route = \"queue\": %s", why);
    assert_refused("type gift { route = queue }", expected);
    snprintf(expected, sizeof(expected), "t.conf:1: type.*.route = \"queue\": %s", why);
    assert_refused("type \"*\" { route = queue }", expected);
    struct conf *conf =
        load_text("type gift { route = queue }\ntype vote { route = queue queue = v }",
                  "broker.url=redis://h:1", NULL);
    assert_non_null(conf);
    const struct conf_type *gift = &conf->types[conf_type_find(conf, BYTES_LIT("gift"))];
    assert_int_equal(gift->route, ROUTE_QUEUE);
    assert_string_equal(gift->queue, "");
    assert_string_equal(conf->types[conf_type_find(conf, BYTES_LIT("vote"))].queue, "v");
    assert_int_equal(conf->queue.dedupe_ms, 600000);
    conf_unref(conf);
}

static void history__counted_and_not_of_merged_types(void **state)
{
    (void)state;
    static const char why[] = "a type that is merged has no history: set merge = none or history = "
                              "no for it\n";
    char expected[256];
    snprintf(expected, sizeof(expected), "t.conf:1: type.vote.history = \"yes\": %s", why);
    assert_refused("type vote { history = yes merge = latest }", expected);
    struct conf *conf = load_text("type vote { history = yes }\ntype chat { history = yes }", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->history_types, 2);
    conf_unref(conf);
}

static void values__shown_safely(void **state)
{
    (void)state;
    assert_refused(
        "server { node = \"a\nb\" }",
        "t.conf:2: server.node = \"a?b\": must be empty, or 1 to 64 of A-Z a-z 0-9 _ . : "
        "-\n");
    assert_refused("admin { token = \"my secret\" }",
                   "t.conf:1: admin.token = \"***\": must be empty, or up to 255 printable ASCII "
                   "characters without spaces\n");
    assert_refused("broker { url = \"redis://bob:hunter2@h:0\" }",
                   "t.conf:1: broker.url = \"redis://bob:***@h:0\": the port must be 1 to 65535\n");
    assert_refused("broker { url = \"bob:hunter2@h\" }",
                   "t.conf:1: broker.url = \"***@h\": must be memory: or "
                   "redis://[user:password@]host:port\n");
}

static void admin_beyond_loopback__needs_a_token(void **state)
{
    (void)state;
    assert_refused("admin {\n listen = \"0.0.0.0:7314\" }",
                   "t.conf:2: admin.listen = \"0.0.0.0:7314\": beyond loopback admin.token must be "
                   "set; or listen on 127.0.0.1 or [::1]\n");
    static const char *const good[] = {
        "admin { listen = \"0.0.0.0:7314\" token = x }", "admin { listen = \"\" }",
        "admin { listen = \"127.9.9.9:0\" }", "admin { listen = \"[::1]:7314\" }"};
    for (size_t i = 0; i < COUNT(good); i++) {
        struct conf *conf = load_text(good[i], NULL);
        assert_non_null(conf);
        conf_unref(conf);
    }
}

static void type_sizes__must_fit_their_lane(void **state)
{
    (void)state;
    assert_refused("\ntype gift { max_bytes = 256k }",
                   "t.conf:2: type.gift.max_bytes = \"256k\": type.gift.max_bytes = 256k and 512 "
                   "bytes around it must fit lane.high.bytes = 256k; lower the one or raise the "
                   "other\n");
    assert_refused("\nlane low { bytes = 16k }",
                   "t.conf:2: lane.low.bytes = \"16k\": type.like.max_bytes = 16k and 512 bytes "
                   "around it must fit lane.low.bytes = 16k; lower the one or raise the other\n"
                   "t.conf:2: lane.low.bytes = \"16k\": type.enter.max_bytes = 16k and 512 bytes "
                   "around it must fit lane.low.bytes = 16k; lower the one or raise the other\n");
    struct conf *conf = load_text("lane low { bytes = 16896 }", NULL);
    assert_non_null(conf);
    conf_unref(conf);
}

static void events__must_differ(void **state)
{
    (void)state;
    assert_refused("socketio { join_event = enterRoom\n leave_event = enterRoom }",
                   "t.conf:2: socketio.leave_event = \"enterRoom\": socketio.join_event and "
                   "socketio.leave_event must differ\n");
    assert_null(load_text("socketio { join_event = newListener }", NULL));
    assert_null(load_text("socketio { join_event = send }", NULL));
    struct conf *conf = load_text("socketio { join_event = enterRoom }", NULL);
    assert_non_null(conf);
    conf_unref(conf);
}

static void warnings__do_not_stop(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { listen = {\"127.0.0.1:1\", \"[::]:2\"} }\n"
                                  "tcp { user_timeout = 60s }\nlane high { bytes = 1m }\n"
                                  "type gift { lane = high max_bytes = 128k }",
                                  NULL);
    assert_non_null(conf);
    conf_unref(conf);
    assert_string_equal(
        test_warnings.data,
        "t.conf: auth.mode = \"open\": whoever reaches [::]:2 is let in, under any user name; for "
        "tests only, or behind something that checks users\n"
        "t.conf:2: tcp.user_timeout = \"1m\": should be longer than heartbeat.timeout = 1m: it "
        "also "
        "ends viewers that live and merely stall, before the heartbeat judges\n"
        "t.conf:4: type.gift.max_bytes = \"128k\": has no effect past broker.message_bytes = 64k: "
        "longer messages are dropped before their type is known\n");
}

static void adaptive_heartbeat__minds_spread_not_shared_ports(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { workers = 2 share_port = yes node = a "
                                  "listen = \"127.0.0.1:0\" }\nheartbeat { adaptive = yes }",
                                  NULL);
    assert_non_null(conf);
    conf_unref(conf);
    assert_string_equal(test_warnings.data, "");
    conf = load_text("server { workers = 2 accept = spread listen = \"127.0.0.1:0\" }\n"
                     "heartbeat { adaptive = yes }",
                     NULL);
    assert_non_null(conf);
    conf_unref(conf);
    assert_non_null(strstr(test_warnings.data, "t.conf:2: heartbeat.adaptive"));
}

static bool ends_with(struct bytes text, struct bytes end)
{
    return text.len >= end.len &&
           bytes_equal(bytes_of(text.data + text.len - end.len, end.len), end);
}

static void node__made_from_host_and_port(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { listen = \"127.0.0.1:4242\" }", NULL);
    assert_non_null(conf);
    assert_true(name_is_room(bytes_str(conf->server.node)));
    assert_true(ends_with(bytes_str(conf->server.node), BYTES_LIT("-4242")));
    assert_in_range(conf->server.workers, 1, 64);
    conf_unref(conf);
    conf = load_text("server { listen = \"127.0.0.1:0\" }", NULL);
    assert_non_null(conf);
    char suffix[32];
    snprintf(suffix, sizeof(suffix), "-pid%ld", (long)getpid());
    assert_true(ends_with(bytes_str(conf->server.node), bytes_str(suffix)));
    conf_unref(conf);
}

static void node__fits_the_names_of_rooms(void **state)
{
    (void)state;
    host_name = "my host_1.example.com";
    struct conf *conf = load_text("server { listen = \"127.0.0.1:4242\" }", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->server.node, "my-host_1.example.com-4242");
    conf_unref(conf);
    host_name = "a234567890123456789012345678901234567890123456789012345678901234567890";
    conf = load_text("server { listen = \"127.0.0.1:4242\" }", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->server.node,
                        "a2345678901234567890123456789012345678901234567890123456789-4242");
    conf_unref(conf);
    host_name = "";
    conf = load_text("server { listen = \"127.0.0.1:4242\" }", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->server.node, "node-4242");
    conf_unref(conf);
    host_name = NULL;
}

static void file__read_or_refused(void **state)
{
    (void)state;
    struct buf errors = {0};
    assert_null(conf_load("/nonexistent/halley.conf", NULL, 0, &errors, &test_warnings));
    assert_string_equal(text_of(&errors),
                        "/nonexistent/halley.conf: cannot be read: No such file or directory\n");
    buf_clear(&errors);
    assert_null(conf_load("/", NULL, 0, &errors, &test_warnings));
    assert_string_equal(text_of(&errors), "/: cannot be read: Is a directory\n");
    buf_clear(&errors);
    assert_null(conf_load("/dev/zero", NULL, 0, &errors, &test_warnings));
    assert_string_equal(text_of(&errors), "/dev/zero: larger than 1 MiB: this is no conf file\n");
    buf_fini(&errors);
}

const struct CMUnitTest file_tests[] = {
    cmocka_unit_test(values__taken_from_every_kind),
    cmocka_unit_test(section_twice__later_value_counts),
    cmocka_unit_test(list__replaced_not_extended),
    cmocka_unit_test(types__follow_the_star),
    cmocka_unit_test(type_without_keys__exists),
    cmocka_unit_test(type_find__finds_all_of_256),
    cmocka_unit_test(environment__fills_in),
    cmocka_unit_test(comments__keep_lines_right),
    cmocka_unit_test(problems__all_told),
    cmocka_unit_test(list_items__each_told_once),
    cmocka_unit_test(list__bounded),
    cmocka_unit_test(unknown_keys__all_told_with_the_nearest),
    cmocka_unit_test(unknown_keys__shown_safely_and_compared_with_care),
    cmocka_unit_test(prefix__has_no_colon_and_fits),
    cmocka_unit_test(unknown_keys__bounded),
    cmocka_unit_test(unknown_sections__told_with_the_nearest),
    cmocka_unit_test(syntax__told_with_its_line),
    cmocka_unit_test(nul_byte__refused),
    cmocka_unit_test(titles__checked),
    cmocka_unit_test(queue_without_redis__refused),
    cmocka_unit_test(history__counted_and_not_of_merged_types),
    cmocka_unit_test(values__shown_safely),
    cmocka_unit_test(admin_beyond_loopback__needs_a_token),
    cmocka_unit_test(type_sizes__must_fit_their_lane),
    cmocka_unit_test(events__must_differ),
    cmocka_unit_test(warnings__do_not_stop),
    cmocka_unit_test(adaptive_heartbeat__minds_spread_not_shared_ports),
    cmocka_unit_test(node__made_from_host_and_port),
    cmocka_unit_test(node__fits_the_names_of_rooms),
    cmocka_unit_test(file__read_or_refused),
};
const size_t file_test_count = COUNT(file_tests);
