#include "base/names.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char room_bytes[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-";
static const char type_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";

/* Every single byte is allowed exactly when it stands in `allowed`. */
static void assert_alphabet(bool (*check)(struct bytes name), const char *allowed)
{
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        char around[] = {'a', byte, 'a'};
        bool expected = c != 0 && strchr(allowed, c) != NULL;
        assert_int_equal(check(bytes_of(&byte, 1)), expected);
        assert_int_equal(check(bytes_of(around, sizeof(around))), expected);
    }
}

static void assert_longest(bool (*check)(struct bytes name), size_t max)
{
    char name[128];
    memset(name, 'a', sizeof(name));
    assert_false(check(bytes_of(name, 0)));
    assert_false(check(bytes_of(NULL, 0)));
    assert_true(check(bytes_of(name, 1)));
    assert_true(check(bytes_of(name, max)));
    assert_false(check(bytes_of(name, max + 1)));
}

static void name_is_room__takes_its_alphabet_and_64_bytes(void **state)
{
    (void)state;
    assert_alphabet(name_is_room, room_bytes);
    assert_longest(name_is_room, ROOM_NAME_MAX);
}

static void name_is_type__takes_its_alphabet_and_32_bytes(void **state)
{
    (void)state;
    assert_alphabet(name_is_type, type_bytes);
    assert_longest(name_is_type, TYPE_NAME_MAX);
}

static void name_is_user__takes_printable_ascii_but_quotes_and_backslash(void **state)
{
    (void)state;
    char printable[128];
    size_t len = 0;
    for (char c = 0x20; c < 0x7f; c++) {
        if (c != '"' && c != '\\')
            printable[len++] = c;
    }
    printable[len] = '\0';
    assert_alphabet(name_is_user, printable);
    assert_longest(name_is_user, USER_NAME_MAX);
    assert_alphabet(name_is_message_id, printable);
    assert_longest(name_is_message_id, MESSAGE_ID_MAX);
}

static void name_is_type__refuses_what_socketio_reserves(void **state)
{
    (void)state;
    static const char *const reserved[] = {
        "connect",          "disconnect",        "error",     "connecting",
        "connect_error",    "connect_timeout",   "reconnect", "reconnecting",
        "reconnect_error",  "reconnect_attempt", "ping",      "pong",
        "reconnect_failed", "newListener",       "halley",    "removeListener",
    };
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        assert_false(name_is_type(bytes_str(reserved[i])));
    static const char *const near[] = {"connected", "errors", "pings", "halley2",
                                       "chat",      "recon",  "gift",  "disconnected"};
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++)
        assert_true(name_is_type(bytes_str(near[i])));
}

int run_names_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_is_room__takes_its_alphabet_and_64_bytes),
        cmocka_unit_test(name_is_type__takes_its_alphabet_and_32_bytes),
        cmocka_unit_test(name_is_user__takes_printable_ascii_but_quotes_and_backslash),
        cmocka_unit_test(name_is_type__refuses_what_socketio_reserves),
    };
    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
