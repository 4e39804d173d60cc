#include "conf_test.h"

#include "base/log.h"
#include "conf/keys.h"
#include "conf/load.h"
#include "json/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void table__keeps_its_own_bounds(void **state)
{
    (void)state;
    assert_in_range(conf_key_count, 40, KEYS_MAX);
    for (size_t i = 0; i < conf_section_count; i++) {
        size_t count;
        const struct conf_key *first = conf_section_keys(conf_sections[i].name, &count);
        bool titled = conf_sections[i].titles != TITLES_PLAIN;
        assert_in_range(count, 1, titled ? TITLED_KEYS_MAX : SECTION_KEYS_MAX);
        for (size_t k = 0; k < count; k++) {
            assert_string_equal(first[k].section, conf_sections[i].name);
            assert_true(!titled || first[k].reload != RELOAD_RESTART);
            assert_true(!titled || first[k].kind != KEY_LIST);
            size_t len = strlen(first[k].sentence);
            assert_in_range(len, 10, 200);
            assert_int_equal(first[k].sentence[len - 1], '.');
        }
    }
    for (size_t i = 0; i < conf_key_count; i++)
        assert_non_null(conf_section_find(bytes_str(conf_keys[i].section)));
    for (size_t i = 0; i < conf_shipped_count; i++)
        assert_non_null(conf_key_find(conf_shipped[i].section, bytes_str(conf_shipped[i].key)));
}

static void choices__stand_in_the_order_of_their_enums(void **state)
{
    (void)state;
    for (int i = 0; i < LANE_COUNT; i++)
        assert_int_equal(conf_lane_find(bytes_str(lane_name((enum lane)i))), i);
    struct conf *conf = load_text("log { format = json level = error }", NULL);
    assert_non_null(conf);
    assert_int_equal(conf->log.format, LOG_FORMAT_JSON);
    assert_int_equal(conf->log.level, LOG_LEVEL_ERROR);
    conf_unref(conf);
}

static void ranges__hold_at_both_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < conf_key_count; i++) {
        const struct conf_key *key = &conf_keys[i];
        struct conf conf = {0};
        struct buf why = {0};
        char text[32];
        if (key->kind != KEY_UINT && key->kind != KEY_SIZE && key->kind != KEY_DURATION)
            continue;
        const char *unit = key->kind == KEY_DURATION ? "ms" : "";
        assert_true(key->size == 8 || key->max <= UINT32_MAX);
        for (int step = -1; step <= 1; step++) {
            snprintf(text, sizeof(text), "%" PRIu64 "%s", key->max + (uint64_t)step, unit);
            assert_int_equal(conf_key_set(key, &conf, 0, bytes_str(text), &why), step <= 0);
            if (step <= 0)
                assert_true(conf_key_number(key, &conf) == key->max + (uint64_t)step);
            if (key->min == 0)
                continue;
            snprintf(text, sizeof(text), "%" PRIu64 "%s", key->min + (uint64_t)step, unit);
            bool zero = key->or_zero && key->min + (uint64_t)step == 0;
            assert_int_equal(conf_key_set(key, &conf, 0, bytes_str(text), &why), step >= 0 || zero);
        }
        buf_fini(&why);
    }
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    *len = fread(text, 1, 1 << 20, file);
    fclose(file);
    return text;
}

/* Tests run in the root of the source. */
static void assert_file(const char *path, const struct buf *made)
{
    size_t len;
    char *text = read_file(path, &len);
    assert_int_equal(len, made->len);
    assert_memory_equal(text, made->data, len);
    free(text);
}

static void shipped_files__are_what_the_table_makes(void **state)
{
    (void)state;
    struct buf made = {0};
    conf_print_sample(&made);
    assert_file("conf/halley.conf", &made);
    buf_clear(&made);
    conf_print_docs(&made);
    assert_file("docs/config.md", &made);
    buf_fini(&made);
}

static void sample__equals_the_defaults_and_names_every_key(void **state)
{
    (void)state;
    struct buf sample = {0}, built_in_json = {0}, sample_json = {0};
    conf_print_sample(&sample);
    struct conf *from_sample = load_text(text_of(&sample), NULL);
    assert_non_null(from_sample);
    struct conf *built_in = load_text(NULL, NULL);
    assert_non_null(built_in);
    conf_print_json(from_sample, &sample_json);
    conf_print_json(built_in, &built_in_json);
    assert_string_equal(text_of(&sample_json), text_of(&built_in_json));
    for (size_t i = 0; i < conf_key_count; i++) {
        char line[64];
        bool example = strcmp(conf_keys[i].section, "key") == 0;
        snprintf(line, sizeof(line), "\n%s    %s = ", example ? "# " : "", conf_keys[i].name);
        assert_non_null(strstr(sample.data, line));
    }
    conf_unref(from_sample);
    conf_unref(built_in);
    buf_fini(&sample);
    buf_fini(&sample_json);
    buf_fini(&built_in_json);
}

static void defaults__are_those_of_the_contract(void **state)
{
    (void)state;
    struct conf *conf = load_text(NULL, NULL);
    assert_non_null(conf);
    assert_int_equal(conf->server.listen.count, 2);
    assert_string_equal(conf->server.listen.items[0], "0.0.0.0:1314");
    assert_string_equal(conf->server.listen.items[1], "[::]:1314");
    assert_string_equal(conf->admin.listen, "127.0.0.1:7314");
    assert_string_equal(conf->broker.url, "memory:");
    assert_int_equal(conf->server.accept, ACCEPT_IP_HASH);
    assert_int_equal(conf->heartbeat.interval_ms, 25000);
    assert_int_equal(conf->heartbeat.timeout_ms, 60000);
    assert_int_equal(conf->tcp.notsent_lowat, 2048);
    static const struct conf_lane lanes[] = {{0, 256 << 10, 60000, OVERFLOW_DISCONNECT},
                                             {20, 128 << 10, 10000, OVERFLOW_DROP_OLDEST},
                                             {100, 32 << 10, 5000, OVERFLOW_DROP_OLDEST}};
    assert_memory_equal(conf->lanes, lanes, sizeof(lanes));
    static const struct {
        const char *name;
        enum lane lane;
        enum conf_route route;
        uint32_t max_bytes;
    } types[] = {
        {"*", LANE_NORMAL, ROUTE_NONE, 16 << 10},  {"system", LANE_HIGH, ROUTE_NONE, 16 << 10},
        {"gift", LANE_HIGH, ROUTE_NONE, 16 << 10}, {"chat", LANE_NORMAL, ROUTE_BROADCAST, 16 << 10},
        {"like", LANE_LOW, ROUTE_NONE, 16 << 10},  {"enter", LANE_LOW, ROUTE_NONE, 16 << 10}};
    assert_int_equal(conf->type_count, COUNT(types));
    for (size_t i = 0; i < COUNT(types); i++) {
        assert_string_equal(conf->types[i].name, types[i].name);
        assert_int_equal(conf->types[i].lane, types[i].lane);
        assert_int_equal(conf->types[i].route, types[i].route);
        assert_int_equal(conf->types[i].max_bytes, types[i].max_bytes);
    }
    conf_unref(conf);
}

static void json__is_json_and_hides_secrets(void **state)
{
    (void)state;
    struct buf out = {0};
    struct json_span whole;
    struct conf *conf = load_text(NULL, "admin.token=s3cret", "broker.url=redis://bob:s3cret@h:1",
                                  "lane.low.ttl=7s", "server.echo=yes", NULL);
    assert_non_null(conf);
    conf_print_json(conf, &out);
    assert_int_equal(json_check(buf_view(&out), 8, &whole), JSON_OK);
    assert_int_equal(whole.kind, JSON_OBJECT);
    const char *text = text_of(&out);
    assert_null(strstr(text, "s3cret"));
    assert_non_null(strstr(text, "\"token\":\"***\""));
    assert_non_null(strstr(text, "\"url\":\"redis://bob:***@h:1\""));
    assert_non_null(strstr(text, "\"ttl_ms\":7000"));
    assert_non_null(strstr(text, "\"echo\":true"));
    assert_non_null(strstr(text, "\"listen\":[\"0.0.0.0:1314\",\"[::]:1314\"]"));
    assert_non_null(
        strstr(text, "\"gift\":{\"lane\":\"high\",\"route\":\"none\",\"max_bytes\":16384,"));
    conf_unref(conf);
    buf_fini(&out);
}

static void diff__names_what_needs_a_restart(void **state)
{
    (void)state;
    struct buf out = {0};
    struct conf *old = load_text("server { node = a }", NULL);
    struct conf *same = load_text("server { node = a }", "flush.slice=77", "lane.low.ttl=7s", NULL);
    struct conf *fresh = load_text("server { node = b }", "server.listen=0.0.0.0:1314",
                                   "broker.url=redis://h", "flush.slice=77", "tcp.sndbuf=1m", NULL);
    assert_true(old && same && fresh);
    conf_diff_restart(old, same, &out);
    assert_int_equal(out.len, 0);
    conf_diff_restart(old, fresh, &out);
    assert_string_equal(text_of(&out), "server.listen, server.node, tcp.sndbuf, broker.url");
    conf_unref(old);
    conf_unref(same);
    conf_unref(fresh);
    buf_fini(&out);
}

static void keep_restart__fresh_says_what_is_in_effect(void **state)
{
    (void)state;
    struct conf *running = load_text("server { node = a }", "limits.mailbox=64", NULL);
    struct conf *fresh =
        load_text("server { node = b }", "limits.mailbox=128", "flush.slice=77", NULL);
    assert_true(running && fresh);
    conf_keep_restart(running, fresh);
    assert_string_equal(fresh->server.node, "a");
    assert_int_equal(fresh->limits.mailbox, 64);
    assert_int_equal(fresh->flush.slice, 77);
    conf_unref(running);
    conf_unref(fresh);
}

static void references__counted(void **state)
{
    (void)state;
    struct conf *conf = load_text(NULL, NULL);
    assert_non_null(conf);
    assert_ptr_equal(conf_ref(conf), conf);
    conf_unref(conf);
    assert_int_equal(conf->flush.slice, 1000);
    conf_unref(conf);
    conf_unref(NULL);
}

static void memory__adds_up(void **state)
{
    (void)state;
    struct buf out = {0};
    struct conf *conf = load_text(NULL, "server.workers=2", NULL);
    assert_non_null(conf);
    conf_print_memory(conf, 1 << 20, &out);
    const char *text = text_of(&out);
    assert_non_null(
        strstr(text, "viewers                   350.0 MiB  1048576 connections x 350 B\n"));
    assert_non_null(
        strstr(text, "frame logs                512.0 MiB  2 workers x limits.log_bytes\n"));
    assert_non_null(strstr(text, "mailboxes                   6.0 GiB  2 workers x 3 lanes x"));
    assert_non_null(strstr(text, "\nsum  "));
    assert_non_null(strstr(text, "\nbroker  "));
    conf_unref(conf);
    conf = load_text(NULL, "broker.url=redis://h", "limits.mailbox=1048576",
                     "limits.message_bytes=64m", "admin.listen=", NULL);
    assert_non_null(conf);
    buf_clear(&out);
    conf_print_memory(conf, UINT32_MAX, &out);
    text = text_of(&out);
    assert_non_null(strstr(text, "broker output              48.0 MiB  3 connections x"));
    assert_null(strstr(text, "admin requests"));
    assert_null(strstr(text, "history"));
    conf_unref(conf);
    conf = load_text(NULL, "broker.url=redis://h", "type.chat.history=yes", "limits.rooms=1048576",
                     NULL);
    assert_non_null(conf);
    buf_clear(&out);
    conf_print_memory(conf, 1, &out);
    text = text_of(&out);
    assert_non_null(strstr(text, "history, rooms            448.0 MiB  limits.rooms x 448 B\n"));
    assert_non_null(strstr(text, "history, after a cut      688.0 MiB  limits.rooms x 688 B\n"));
    conf_unref(conf);
    buf_fini(&out);
}

const struct CMUnitTest table_tests[] = {
    cmocka_unit_test(table__keeps_its_own_bounds),
    cmocka_unit_test(choices__stand_in_the_order_of_their_enums),
    cmocka_unit_test(ranges__hold_at_both_ends),
    cmocka_unit_test(shipped_files__are_what_the_table_makes),
    cmocka_unit_test(sample__equals_the_defaults_and_names_every_key),
    cmocka_unit_test(defaults__are_those_of_the_contract),
    cmocka_unit_test(json__is_json_and_hides_secrets),
    cmocka_unit_test(diff__names_what_needs_a_restart),
    cmocka_unit_test(keep_restart__fresh_says_what_is_in_effect),
    cmocka_unit_test(references__counted),
    cmocka_unit_test(memory__adds_up),
};
const size_t table_test_count = COUNT(table_tests);
