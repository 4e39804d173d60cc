/* print.c: a snapshot as JSON, and what a reload cannot change. */
#include "conf/keys.h"
#include "json/json.h"

#include <string.h>

static void print_list(const struct conf_list *list, struct buf *out)
{
    buf_byte(out, '[');
    for (uint32_t i = 0; i < list->count; i++) {
        buf_text(out, i ? "," : "");
        json_quote(out, bytes_str(list->items[i]));
    }
    buf_byte(out, ']');
}

static void print_text(const struct conf_key *key, const void *base, struct buf *out)
{
    struct buf shown = {0};
    conf_key_print_value(key, base, &shown);
    if (key->secret != NOT_SECRET) {
        struct buf hidden = {0};
        conf_key_print_given(key, buf_view(&shown), &hidden);
        buf_fini(&shown);
        shown = hidden;
    }
    out->failed |= shown.failed;
    json_quote(out, buf_view(&shown));
    buf_fini(&shown);
}

/* Durations are milliseconds and say so in their name; sizes are bytes. */
static void print_key(const struct conf_key *key, const void *base, struct buf *out)
{
    buf_printf(out, "\"%s%s\":", key->name, key->kind == KEY_DURATION ? "_ms" : "");
    switch (key->kind) {
    case KEY_BOOL:
        buf_text(out, conf_key_number(key, base) ? "true" : "false");
        break;
    case KEY_UINT:
    case KEY_DURATION:
    case KEY_SIZE:
        buf_uint(out, conf_key_number(key, base));
        break;
    case KEY_LIST:
        print_list((const struct conf_list *)(const void *)((const char *)base + key->offset), out);
        break;
    case KEY_ENUM:
    case KEY_TEXT:
        print_text(key, base, out);
        break;
    }
}

static void print_keys(const char *section, const void *base, struct buf *out)
{
    size_t count;
    const struct conf_key *keys = conf_section_keys(section, &count);
    buf_byte(out, '{');
    for (size_t i = 0; i < count; i++) {
        buf_text(out, i ? "," : "");
        print_key(&keys[i], base, out);
    }
    buf_byte(out, '}');
}

static uint32_t titled_count(const struct conf_section *section, const struct conf *conf)
{
    if (section->titles == TITLES_LANES)
        return LANE_COUNT;
    return section->titles == TITLES_TYPES ? conf->type_count : conf->ticket_key_count;
}

/* The i-th one's title, and the struct that holds its values. */
static const char *titled_at(const struct conf_section *section, const struct conf *conf,
                             uint32_t i, const void **base)
{
    if (section->titles == TITLES_LANES) {
        *base = &conf->lanes[i];
        return lane_name((enum lane)i);
    }
    if (section->titles == TITLES_TYPES) {
        *base = &conf->types[i];
        return conf->types[i].name;
    }
    *base = &conf->ticket_keys[i];
    return conf->ticket_keys[i].name;
}

static void print_section(const struct conf_section *section, const struct conf *conf,
                          struct buf *out)
{
    buf_printf(out, "\"%s\":", section->name);
    if (section->titles == TITLES_PLAIN) {
        print_keys(section->name, conf, out);
        return;
    }
    buf_byte(out, '{');
    for (uint32_t i = 0; i < titled_count(section, conf); i++) {
        const void *base;
        const char *title = titled_at(section, conf, i, &base);
        buf_printf(out, "%s\"%s\":", i ? "," : "", title);
        print_keys(section->name, base, out);
    }
    buf_byte(out, '}');
}

void conf_print_json(const struct conf *conf, struct buf *out)
{
    buf_byte(out, '{');
    for (size_t i = 0; i < conf_section_count; i++) {
        buf_text(out, i ? "," : "");
        print_section(&conf_sections[i], conf, out);
    }
    buf_byte(out, '}');
}

/* No key of a lane or type needs a restart; the tests see to that. */
void conf_diff_restart(const struct conf *old, const struct conf *fresh, struct buf *out)
{
    const char *comma = "";
    for (size_t i = 0; i < conf_key_count; i++) {
        const struct conf_key *key = &conf_keys[i];
        if (key->reload != RELOAD_RESTART || conf_key_equal(key, old, fresh))
            continue;
        buf_printf(out, "%s%s.%s", comma, key->section, key->name);
        comma = ", ";
    }
}

void conf_keep_restart(const struct conf *running, struct conf *fresh)
{
    for (size_t i = 0; i < conf_key_count; i++) {
        const struct conf_key *key = &conf_keys[i];
        if (key->reload == RELOAD_RESTART)
            memcpy((char *)fresh + key->offset, (const char *)running + key->offset, key->size);
    }
}
