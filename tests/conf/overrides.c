#include "conf_test.h"

#include "conf/load.h"

static void override__wins_over_file_and_last_wins(void **state)
{
    (void)state;
    struct conf *conf =
        load_text("server { workers = 3 }\nflush { slice = 50 }", "server.workers=5",
                  "lane.normal.interval=50ms", "server.workers=4", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.workers, 4);
    assert_int_equal(conf->flush.slice, 50);
    assert_int_equal(conf->lanes[LANE_NORMAL].interval_ms, 50);
    conf_unref(conf);
}

static void override__names_types(void **state)
{
    (void)state;
    struct conf *conf = load_text(NULL, "type.chat.lane=high", "type.fresh.route=broadcast",
                                  "type.*.max_bytes=8k", NULL);
    assert_non_null(conf);
    const struct conf_type *chat = &conf->types[conf_type_find(conf, BYTES_LIT("chat"))];
    assert_int_equal(chat->lane, LANE_HIGH);
    assert_int_equal(chat->route, ROUTE_BROADCAST);
    assert_int_equal(chat->max_bytes, 8192);
    uint16_t fresh = conf_type_find(conf, BYTES_LIT("fresh"));
    assert_int_equal(fresh, 6);
    assert_int_equal(conf->types[fresh].route, ROUTE_BROADCAST);
    assert_int_equal(conf->types[fresh].lane, LANE_NORMAL);
    conf_unref(conf);
}

static void override__list_replaces(void **state)
{
    (void)state;
    struct conf *conf = load_text("server { listen = {\"127.0.0.1:1\",\"127.0.0.1:2\"} }",
                                  "server.listen=127.0.0.1:3,[::1]:3,127.0.0.1:4", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.listen.count, 3);
    assert_string_equal(conf->server.listen.items[1], "[::1]:3");
    conf_unref(conf);
    conf = load_text(NULL, "server.listen=127.0.0.1:3", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.listen.count, 1);
    conf_unref(conf);
}

static void override__list_may_be_empty_where_its_default_is(void **state)
{
    (void)state;
    struct conf *conf = load_text("auth { origins = {\"a.example\", \"*.b.example\"} }", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->auth.origins.count, 2);
    conf_unref(conf);
    conf = load_text("auth { origins = {\"a.example\"} }", "auth.origins=", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->auth.origins.count, 0);
    conf_unref(conf);
    conf = load_text("auth { origins = {} }", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->auth.origins.count, 0);
    conf_unref(conf);
    assert_null(load_text(NULL, "auth.origins=https://a.example/", NULL));
    assert_null(load_text(NULL, "server.listen=", NULL));
}

static void override__value_may_hold_equals_and_be_empty(void **state)
{
    (void)state;
    struct conf *conf = load_text(NULL, "admin.token=a=b", "admin.listen=", NULL);
    assert_non_null(conf);
    assert_string_equal(conf->admin.token, "a=b");
    assert_string_equal(conf->admin.listen, "");
    conf_unref(conf);
}

static void override_errors__repeat_what_was_typed(void **state)
{
    (void)state;
    assert_refused(NULL,
                   "-o server.workers=900: must be 0 to 64\n"
                   "-o lane.normal.interval=5: must be 0 to 5s, with a unit: ms, s, m or h\n"
                   "-o type.gift.route=some: must be one of none, broadcast, queue\n",
                   "server.workers=900", "lane.normal.interval=5", "type.gift.route=some");
    assert_refused("server { workers = 99 }",
                   "t.conf:1: server.workers = \"99\": must be 0 to 64\n"
                   "-o server.wrokers: unknown key; did you mean workers?\n",
                   "server.wrokers=2");
}

static void override_errors__name_the_form(void **state)
{
    (void)state;
    assert_refused(NULL,
                   "-o workers: must be section.key=value, such as server.workers=2\n"
                   "-o server: must be server.key=value\n"
                   "-o lane.ttl: must be lane.name.key=value\n"
                   "-o lane.fast.ttl: unknown lane; there are high, normal and low\n",
                   "workers", "server=2", "lane.ttl=1s", "lane.fast.ttl=1s");
    assert_refused(
        NULL,
        "-o a?b: must be section.key=value, such as server.workers=2\n"
        "-o type.a?b.lane: a type must be \"*\" or 1 to 32 of a-z 0-9 _ -, not halley nor "
        "a name that Socket.IO reserves (such as connect)\n",
        "a\nb", "type.a\nb.lane=high");
    assert_refused(NULL, "-o serve.workers: unknown section; did you mean server?\n",
                   "serve.workers=2");
}

static void override_errors__hide_secrets(void **state)
{
    (void)state;
    assert_refused(NULL,
                   "-o admin.token=***: must be empty, or up to 255 printable ASCII characters "
                   "without spaces\n"
                   "-o broker.url=redis://a:***@h/0: a database number is not supported, because "
                   "pub/sub ignores it; keep environments apart with broker.prefix\n"
                   "-o admin.tokn: unknown key; did you mean token?\n",
                   "admin.token=my secret", "broker.url=redis://a:secret@h/0", "admin.tokn=secret");
}

static void override__blamed_when_it_breaks_what_belongs_together(void **state)
{
    (void)state;
    assert_refused(
        "type gift { lane = high }",
        "-o lane.high.bytes=8k: type.system.max_bytes = 16k and 512 bytes around it must "
        "fit lane.high.bytes = 8k; lower the one or raise the other\n"
        "-o lane.high.bytes=8k: type.gift.max_bytes = 16k and 512 bytes around it must "
        "fit lane.high.bytes = 8k; lower the one or raise the other\n",
        "lane.high.bytes=8k");
    assert_refused(NULL,
                   "-o admin.listen=0.0.0.0:1: beyond loopback admin.token must be set; or listen "
                   "on 127.0.0.1 or [::1]\n",
                   "admin.listen=0.0.0.0:1");
}

const struct CMUnitTest override_tests[] = {
    cmocka_unit_test(override__wins_over_file_and_last_wins),
    cmocka_unit_test(override__names_types),
    cmocka_unit_test(override__list_replaces),
    cmocka_unit_test(override__list_may_be_empty_where_its_default_is),
    cmocka_unit_test(override__value_may_hold_equals_and_be_empty),
    cmocka_unit_test(override_errors__repeat_what_was_typed),
    cmocka_unit_test(override_errors__name_the_form),
    cmocka_unit_test(override_errors__hide_secrets),
    cmocka_unit_test(override__blamed_when_it_breaks_what_belongs_together),
};
const size_t override_test_count = COUNT(override_tests);
