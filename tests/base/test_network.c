#include "base/network.h"
#include "base/test_base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void network__takes_addresses_and_prefixes_only(void **state)
{
    (void)state;
    static const char *const good[] = {
        "192.0.2.1", "192.0.2.0/24", "0.0.0.0/0",    "10.0.0.0/9", "2001:db8::/32",
        "::1",       "::/0",         "192.0.2.1/32", "::1/128",    NULL};
    static const char *const bad[] = {
        "",        "/8",        "192.0.2.1/24", "192.0.2.0/33",  "10.0.0.0/6",  "2001:db8::/8",
        "::1/129", "10.0.0.0/", "host",         "10.0.0.0/0008", "10.0.0.0/8 ", "1.2.3",
        NULL};
    struct network network;
    for (int i = 0; good[i]; i++) {
        if (!network_parse(bytes_str(good[i]), &network))
            fail_msg("refused: %s", good[i]);
    }
    for (int i = 0; bad[i]; i++) {
        if (network_parse(bytes_str(bad[i]), &network))
            fail_msg("taken: %s", bad[i]);
    }
}

static bool has(const char *range, const char *text)
{
    struct network network;
    struct sockaddr_storage address = {0};
    assert_true(network_parse(bytes_str(range), &network));
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&address)->sin_addr) == 1)
        address.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&address)->sin6_addr) == 1)
        address.ss_family = AF_INET6;
    return network_has(&network, &address);
}

static void network__has_what_shares_its_prefix(void **state)
{
    (void)state;
    assert_true(has("192.0.2.1", "192.0.2.1"));
    assert_true(has("192.0.2.1", "::ffff:192.0.2.1"));
    assert_false(has("192.0.2.1", "192.0.2.2"));
    assert_true(has("10.128.0.0/9", "10.129.3.4"));
    assert_false(has("10.128.0.0/9", "10.127.3.4"));
    assert_true(has("0.0.0.0/0", "8.8.8.8"));
    assert_false(has("0.0.0.0/0", "2001:db8::1"));
    assert_true(has("2001:db8::/32", "2001:db8:1::1"));
    assert_false(has("2001:db8::/32", "2001:db9::1"));
    assert_true(has("::/0", "8.8.8.8"));
    assert_false(has("::/0", "no address"));
}

int run_network_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network__takes_addresses_and_prefixes_only),
        cmocka_unit_test(network__has_what_shares_its_prefix),
    };
    return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
