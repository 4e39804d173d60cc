#include "conf_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET "0123456789abcdef0123456789abcdef"
#define PUBLIC_KEY                                                                                 \
    "-----BEGIN PUBLIC KEY-----\n"                                                                 \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"                           \
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"                               \
    "-----END PUBLIC KEY-----\n"

static char folder[64];

/* A file of the test; the name of the last one is kept. */
static const char *write_file(const char *text)
{
    static char path[96];
    snprintf(path, sizeof(path), "%s/key", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/halley-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(write_file(""));
    return rmdir(folder);
}

static struct conf *load_file_key(const char *alg, const char *text)
{
    char conf[512];
    snprintf(conf, sizeof(conf), "auth { mode = jwt }\nkey a-1 {\n alg = %s\n file = \"%s\"\n}\n",
             alg, write_file(text));
    return load_text(conf, NULL);
}

static void keys__are_made_of_secrets_and_files(void **state)
{
    (void)state;
    setenv("HALLEY_TEST_SECRET", SECRET "!", 1);
    struct conf *conf =
        load_text("auth { mode = jwt }\nkey b { secret = \"" SECRET "\" }\n"
                  "key \"2026-11\" { secret = \"${HALLEY_TEST_SECRET}\" }\n",
                  "key.c.secret=base64:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T", NULL);
    assert_non_null(conf);
    assert_int_equal(auth_keys_count(conf->auth_keys), 3);
    assert_string_equal(conf->ticket_keys[0].name, "b");
    assert_string_equal(conf->ticket_keys[1].secret, SECRET "!");
    assert_non_null(auth_keys_find(conf->auth_keys, bytes_str("2026-11")));
    assert_non_null(auth_keys_find(conf->auth_keys, bytes_str("c")));
    conf_unref(conf);
    conf = load_file_key("ES256", PUBLIC_KEY);
    assert_non_null(conf);
    const struct auth_key *key = auth_keys_find(conf->auth_keys, bytes_str("a-1"));
    assert_non_null(key);
    assert_int_equal(auth_key_alg(key), AUTH_ES256);
    conf_unref(conf);
    conf = load_file_key("HS256", SECRET "\n");
    assert_non_null(conf);
    conf_unref(conf);
}

static void keys__are_checked_in_open_mode_too(void **state)
{
    (void)state;
    assert_refused(
        "key a { secret = short }",
        "t.conf:1: key.a.secret = \"***\": a secret must have 32 to 1024 bytes; `openssl "
        "rand -base64 32` makes one, to be given as base64:…\n");
}

static void bad_keys__are_told_with_file_and_line(void **state)
{
    (void)state;
    assert_refused(
        "key a {\n alg = ES256\n secret = \"" SECRET "\" }",
        "t.conf:3: key.a.secret = \"***\": only HS256 has a secret; RS256 and ES256 take "
        "the public key from file\n");
    assert_refused("key a {\n secret = \"" SECRET "\"\n file = x }",
                   "t.conf:3: key.a.file = \"x\": secret is set too; one of them\n");
    assert_refused("key a { }",
                   "t.conf: key.a.secret = \"\": one of secret and file must be set\n");
    assert_refused("key a { alg = RS256 }",
                   "t.conf: key.a.file = \"\": must name a file with the public key in PEM\n");
    assert_refused("key a {\n file = \"/no/such/file\" }",
                   "t.conf:2: key.a.file = \"/no/such/file\": No such file or directory\n");
    assert_refused("key a {\n alg = HS512 }",
                   "t.conf:2: key.a.alg = \"HS512\": must be one of HS256, RS256, ES256\n");
    assert_refused(
        "key \"a b\" {\n secret = x }",
        "t.conf:2: key \"a b\": the name of a key is the kid of its tickets: 1 to 64 of A-Z "
        "a-z 0-9 _ -\n");
    assert_null(load_file_key("ES256", "no key"));
    assert_non_null(strstr(test_errors.data, "t.conf:4: key.a-1.file = \"/tmp/halley-test-"));
    assert_non_null(strstr(test_errors.data, "holds no public key in PEM"));
    assert_null(load_file_key("RS256", PUBLIC_KEY));
    assert_non_null(strstr(test_errors.data, "RS256 needs an RSA key"));
}

static void key_file__that_is_no_file_hangs_nobody(void **state)
{
    (void)state;
    char path[96];
    char conf[256];
    snprintf(path, sizeof(path), "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(conf, sizeof(conf), "key a { alg = ES256 file = \"%s\" }", path);
    assert_null(load_text(conf, NULL));
    assert_non_null(strstr(test_errors.data, "holds no public key"));
    unlink(path);
    assert_null(load_text("key a { file = \"/dev/zero\" }", NULL));
    assert_non_null(strstr(test_errors.data, "larger than 64 KiB"));
}

static void key_file__counts_from_the_folder_of_the_conf(void **state)
{
    (void)state;
    char path[96];
    struct buf errors = {0};
    struct buf warnings = {0};
    /* The tests run in the root of the repository. */
    const struct conf_override typed = {"key.b.file=src/LAYERS"};
    write_file(SECRET);
    snprintf(path, sizeof(path), "%s/t.conf", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("auth { mode = jwt }\nkey a { file = \"key\" }\n", file);
    fclose(file);
    struct conf *conf = conf_load(path, &typed, 1, &errors, &warnings);
    unlink(path);
    assert_string_equal(text_of(&errors), "");
    assert_non_null(conf);
    assert_string_equal(conf->ticket_keys[0].file, "key");
    conf_unref(conf);
    assert_null(load_text("key a {\n file = \"key\" }", NULL)); /* t.conf, beside us */
    assert_non_null(strstr(test_errors.data, "No such file"));
    buf_fini(&errors);
    buf_fini(&warnings);
}

static void keys__are_bounded(void **state)
{
    (void)state;
    struct buf text = {0};
    for (int i = 0; i <= AUTH_KEYS_MAX; i++)
        buf_printf(&text, "key k%d { secret = \"" SECRET "\" }\n", i);
    assert_null(load_text(text_of(&text), NULL));
    assert_non_null(strstr(test_errors.data, "there may be at most 16 keys"));
    buf_fini(&text);
}

static void mode__needs_what_it_checks_with(void **state)
{
    (void)state;
    assert_refused(
        "auth {\n mode = jwt }",
        "t.conf:2: auth.mode = \"jwt\": needs a key that tickets are checked with: key main "
        "{ secret = … }, or alg = ES256 (RS256) and file = …\n");
    assert_refused(
        "auth {\n mode = redis }",
        "t.conf:2: auth.mode = \"redis\": tickets stand in Redis, but broker.url is memory:; "
        "set broker.url to redis://…, or auth.mode to jwt or open\n");
    struct conf *conf = load_text("auth { mode = redis }", "broker.url=redis://h", NULL);
    assert_non_null(conf);
    assert_null(strstr(test_warnings.data, "whoever reaches")); /* only open warns */
    conf_unref(conf);
}

static void json__hides_the_secret(void **state)
{
    (void)state;
    struct buf out = {0};
    struct conf *conf = load_text("key a { secret = \"" SECRET "\" }", NULL);
    assert_non_null(conf);
    conf_print_json(conf, &out);
    const char *text = text_of(&out);
    assert_null(strstr(text, "0123456789"));
    assert_non_null(
        strstr(text, "\"key\":{\"a\":{\"alg\":\"HS256\",\"secret\":\"***\",\"file\":\"\"}}"));
    conf_unref(conf);
    buf_fini(&out);
}

const struct CMUnitTest ticket_key_tests[] = {
    cmocka_unit_test_setup_teardown(keys__are_made_of_secrets_and_files, setup, teardown),
    cmocka_unit_test(keys__are_checked_in_open_mode_too),
    cmocka_unit_test_setup_teardown(bad_keys__are_told_with_file_and_line, setup, teardown),
    cmocka_unit_test_setup_teardown(key_file__that_is_no_file_hangs_nobody, setup, teardown),
    cmocka_unit_test_setup_teardown(key_file__counts_from_the_folder_of_the_conf, setup, teardown),
    cmocka_unit_test(keys__are_bounded),
    cmocka_unit_test(mode__needs_what_it_checks_with),
    cmocka_unit_test(json__hides_the_secret),
};
const size_t ticket_key_test_count = COUNT(ticket_key_tests);
