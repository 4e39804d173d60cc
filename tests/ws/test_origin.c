#include "ws/origin.h"
#include "ws/test_ws.h"

static void origin__patterns_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"null",
                                       "example.com",
                                       "*.example.com",
                                       "https://example.com",
                                       "https://*.example.com:8443",
                                       "localhost:*",
                                       "capacitor://localhost",
                                       "http://[::1]:3000",
                                       "127.0.0.1:80",
                                       NULL};
    static const char *const bad[] = {"",
                                      "*",
                                      "*.",
                                      "a*.example.com",
                                      "*.*.example.com",
                                      "https://",
                                      "https://example.com/",
                                      "https://example.com/path",
                                      "://example.com",
                                      "1http://example.com",
                                      "example.com:",
                                      "example.com:0",
                                      "example.com:65536",
                                      "example.com:8o",
                                      ".example.com",
                                      "example..com",
                                      "example.com.",
                                      "user@example.com",
                                      "b\xc3\xbc"
                                      "cher.example",
                                      "[::1",
                                      NULL};
    for (int i = 0; good[i]; i++) {
        if (!origin_is_pattern(bytes_str(good[i])))
            fail_msg("refused: %s", good[i]);
    }
    for (int i = 0; bad[i]; i++) {
        if (origin_is_pattern(bytes_str(bad[i])))
            fail_msg("taken: %s", bad[i]);
    }
}

struct example {
    const char *pattern;
    const char *origin;
    bool matches;
};

static void origin__matches_by_scheme_host_and_port(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {"https://live.example.com", "https://live.example.com", true},
        {"https://live.example.com", "HTTPS://Live.Example.COM", true},
        {"https://live.example.com", "https://live.example.com:443", true},
        {"https://live.example.com:443", "https://live.example.com", true},
        {"https://live.example.com", "http://live.example.com", false},
        {"https://live.example.com", "https://live.example.com:8443", false},
        {"https://live.example.com", "https://live.example.com.evil.org", false},
        {"https://live.example.com", "https://evil-live.example.com", false},
        {"live.example.com", "http://live.example.com", true},
        {"live.example.com", "https://live.example.com", true},
        {"live.example.com", "https://live.example.com:3000", false},
        {"live.example.com:*", "https://live.example.com:3000", true},
        {"live.example.com:3000", "http://live.example.com:3000", true},
        {"live.example.com", "ftp://live.example.com", false},
        {"capacitor://localhost", "capacitor://localhost", true},
        {"capacitor://localhost:*", "capacitor://localhost", true},
        {"*.example.com", "https://a.example.com", true},
        {"*.example.com", "https://a.b.example.com", true},
        {"*.example.com", "https://example.com", false},
        {"*.example.com", "https://badexample.com", false},
        {"*.example.com", "https://.example.com", false},
        {"https://*.example.com:8443", "https://a.example.com:8443", true},
        {"https://*.example.com:8443", "https://a.example.com", false},
        {"http://[::1]:3000", "http://[::1]:3000", true},
        {"null", "null", true},
        {"null", "https://null", false},
        {"example.com", "null", false},
        {"example.com", "example.com", false},
        {"example.com", "", false},
        {"example.com", "https://example.com/", false},
        {"example.com", "https://*.example.com", false},
        {"*.example.com", "https://*.example.com", false},
        {"example.com", "https://user@example.com", false},
        {"example.com:*", "https://example.com:*", false},
    };
    for (size_t i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
        const struct example *e = &examples[i];
        if (origin_matches(bytes_str(e->pattern), bytes_str(e->origin)) != e->matches)
            fail_msg("%s against %s: expected %d", e->origin, e->pattern, e->matches);
    }
}

int run_origin_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origin__patterns_are_checked),
        cmocka_unit_test(origin__matches_by_scheme_host_and_port),
    };
    return cmocka_run_group_tests_name("origin", tests, NULL, NULL);
}
