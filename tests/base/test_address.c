#include "base/address.h"
#include "base/test_base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct sockaddr_storage ipv4(const char *host, uint16_t port)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&address;
    in4->sin_family = AF_INET;
    in4->sin_port = htons(port);
    assert_int_equal(inet_pton(AF_INET, host, &in4->sin_addr), 1);
    return address;
}

static struct sockaddr_storage ipv6(const char *host, uint16_t port)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    assert_int_equal(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
    return address;
}

static void assert_printed(struct sockaddr_storage address, const char *expected)
{
    char text[ADDRESS_TEXT_MAX];
    address_print(&address, text, sizeof(text));
    assert_string_equal(text, expected);
}

static void address_print__writes_host_and_port_as_urls_do(void **state)
{
    (void)state;
    assert_printed(ipv4("192.0.2.1", 1314), "192.0.2.1:1314");
    assert_printed(ipv4("0.0.0.0", 0), "0.0.0.0:0");
    assert_printed(ipv4("255.255.255.255", 65535), "255.255.255.255:65535");
    assert_printed(ipv6("2001:db8::1", 1314), "[2001:db8::1]:1314");
    assert_printed(ipv6("::", 0), "[::]:0");
    assert_printed(ipv6("::ffff:192.0.2.1", 80), "[::ffff:192.0.2.1]:80");
}

static void address_print__has_room_for_the_longest(void **state)
{
    (void)state;
    assert_printed(ipv6("1111:2222:3333:4444:5555:6666:7777:8888", 65535),
                   "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
    assert_true(ADDRESS_TEXT_MAX >= INET6_ADDRSTRLEN + strlen("[]:65535"));
}

static void address_print__knows_no_other_family(void **state)
{
    (void)state;
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    assert_printed(address, "?");
    address.ss_family = AF_UNSPEC;
    assert_printed(address, "?");
}

static void address_print__cuts_at_the_cap(void **state)
{
    (void)state;
    struct sockaddr_storage address = ipv4("192.0.2.1", 1314);
    for (size_t cap = 1; cap <= 16; cap++) {
        char text[17];
        char expected[17];
        memset(text, '#', sizeof(text));
        address_print(&address, text, cap);
        snprintf(expected, sizeof(expected), "%.*s", (int)cap - 1, "192.0.2.1:1314");
        assert_string_equal(text, expected);
        assert_int_equal(text[cap], '#');
    }
}

int run_address_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_print__writes_host_and_port_as_urls_do),
        cmocka_unit_test(address_print__has_room_for_the_longest),
        cmocka_unit_test(address_print__knows_no_other_family),
        cmocka_unit_test(address_print__cuts_at_the_cap),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
