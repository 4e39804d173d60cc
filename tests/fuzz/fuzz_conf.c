/* fuzz_conf.c: a conf file. What is taken must print as conf text and JSON, and be found by name. */
#include "base/check.h"
#include "conf/load.h"
#include "json/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct conf *conf)
{
    struct buf out = {0};
    struct json_span whole;
    conf_print_json(conf, &out);
    REQUIRE(out.failed || json_check(buf_view(&out), 8, &whole) == JSON_OK);
    buf_clear(&out);
    conf_print_memory(conf, 65536, &out);
    for (uint32_t i = 1; i < conf->type_count; i++)
        REQUIRE(conf_type_find(conf, bytes_str(conf->types[i].name)) == i);
    REQUIRE(conf->server.workers >= 1 && name_is_room(bytes_str(conf->server.node)));
    buf_clear(&out);
    conf_diff_restart(conf, conf, &out);
    REQUIRE(out.len == 0);
    buf_fini(&out);
}

/* The first line, when it begins with "#-o ", is an override as well. */
static void load(const uint8_t *data, size_t size, struct buf *errors, struct buf *warnings)
{
    char text[128] = "";
    struct conf_override override = {text};
    size_t count = 0;
    if (size > 4 && memcmp(data, "#-o ", 4) == 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = (end ? (size_t)(end - data) : size) - 4;
        memcpy(text, data + 4, len < sizeof(text) ? len : sizeof(text) - 1);
        count = 1;
    }
    struct conf *conf = load_conf("fuzz.conf", bytes_of((const char *)data, size), &override, count,
                                  errors, warnings);
    if (conf)
        use(conf);
    REQUIRE((conf == NULL) == (errors->len > 0 || errors->failed));
    conf_unref(conf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf errors = {0};
    struct buf warnings = {0};
    load(data, size, &errors, &warnings);
    /* One problem a line, whatever the file holds. */
    REQUIRE(errors.len == 0 || errors.data[errors.len - 1] == '\n');
    buf_fini(&errors);
    buf_fini(&warnings);
    return 0;
}
