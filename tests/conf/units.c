#include "conf_test.h"

#include "conf/address.h"
#include "conf/units.h"

#include <string.h>

static void durations__parsed_with_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"0", 0},       {"0s", 0},       {"20ms", 20}, {"10s", 10000},
        {"5m", 300000}, {"2h", 7200000}, {"007ms", 7}, {"18446744073709551615ms", UINT64_MAX}};
    static const char *const bad[] = {"",
                                      "10",
                                      "00",
                                      "s",
                                      "1.5s",
                                      "-1s",
                                      "1 s",
                                      "1S",
                                      "1sm",
                                      "1d",
                                      "10k",
                                      "+1s",
                                      "0x1s",
                                      "18446744073709551616ms",
                                      "18446744073709551615s"};
    uint64_t value;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(conf_parse_duration_ms(bytes_str(good[i].text), &value), 0);
        assert_true(value == good[i].ms);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(conf_parse_duration_ms(bytes_str(bad[i]), &value), -1);
}

static void sizes__parsed_with_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},       {"512", 512},    {"64k", 65536},
                {"64K", 65536}, {"2m", 2 << 20}, {"1g", 1 << 30}};
    static const char *const bad[] = {"", "k", "64kb", "1.5m", "-1", "64 k", "1t", "17179869184g"};
    uint64_t value;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(conf_parse_size(bytes_str(good[i].text), &value), 0);
        assert_true(value == good[i].bytes);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(conf_parse_size(bytes_str(bad[i]), &value), -1);
}

static void printing__takes_the_largest_unit_that_divides(void **state)
{
    (void)state;
    struct buf out = {0};
    static const uint64_t times[] = {0, 20, 1000, 75000, 60000, 7200000, 1500};
    for (size_t i = 0; i < COUNT(times); i++) {
        units_print_duration(&out, times[i]);
        BUF_LIT(&out, " ");
    }
    static const uint64_t sizes[] = {0, 1000, 1024, 1 << 20, 1 << 30, 1536 << 10};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        units_print_size(&out, sizes[i]);
        BUF_LIT(&out, " ");
    }
    assert_string_equal(text_of(&out), "0 20ms 1s 75s 1m 2h 1500ms 0 1000 1k 1m 1g 1536k ");
    buf_fini(&out);
}

static void addresses__are_literals_with_ports(void **state)
{
    (void)state;
    static const char *const good[] = {"0.0.0.0:1314", "[::]:0", "[2001:db8::1]:65535"};
    static const char *const bad[] = {"",
                                      ":1",
                                      "localhost:1",
                                      "1.2.3.4",
                                      "1.2.3.4:",
                                      "1.2.3.4:65536",
                                      "1.2.3.4:-1",
                                      "1.2.3:1",
                                      "::1:5",
                                      "[::1]",
                                      "[::1]5",
                                      "[1.2.3.4]:5",
                                      "[]:5",
                                      "[::1%lo]:5",
                                      "1.2.3.4 :5",
                                      "1.2.3.4: 5",
                                      "1.2.3.4:1x",
                                      "[::1:5",
                                      "[:5",
                                      "1.2.3.4:000001"};
    struct sockaddr_storage address;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(conf_address_parse(bytes_str(good[i]), &address), 0);
    assert_int_equal(conf_address_port(&address), 65535);
    assert_int_equal(address.ss_family, AF_INET6);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(conf_address_parse(bytes_str(bad[i]), &address), -1);
}

static void loopback__recognised(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {{"127.0.0.1:1", true},          {"127.255.0.9:1", true}, {"128.0.0.1:1", false},
                 {"0.0.0.0:1", false},           {"[::1]:1", true},       {"[::]:1", false},
                 {"[::ffff:127.0.0.1]:1", false}};
    struct sockaddr_storage address;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(conf_address_parse(bytes_str(cases[i].text), &address), 0);
        assert_int_equal(conf_address_is_loopback(&address), cases[i].loopback);
    }
}

const struct CMUnitTest units_tests[] = {
    cmocka_unit_test(durations__parsed_with_units),
    cmocka_unit_test(sizes__parsed_with_units),
    cmocka_unit_test(printing__takes_the_largest_unit_that_divides),
    cmocka_unit_test(addresses__are_literals_with_ports),
    cmocka_unit_test(loopback__recognised),
};
const size_t units_test_count = COUNT(units_tests);
