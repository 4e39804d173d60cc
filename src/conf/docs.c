/* docs.c: conf/halley.conf and docs/config.md, made from the table of keys. */
#include "conf/keys.h"

#include <string.h>

enum { COLUMNS = 100 };

static const char *const reload_names[] = {"live", "new connections", "restart"};

/* The items of a list default stand with commas between; a file wants them quoted in braces. */
static void print_list(struct buf *out, const char *items)
{
    BUF_LIT(out, "{");
    while (*items) {
        size_t len = strcspn(items, ",");
        buf_printf(out, "\"%.*s\"", (int)len, items);
        items += len;
        if (*items == ',') {
            BUF_LIT(out, ", ");
            items++;
        }
    }
    BUF_LIT(out, "}");
}

static void print_setting(struct buf *out, const struct conf_key *key, const char *value)
{
    buf_printf(out, "    %s = ", key->name);
    if (key->kind == KEY_LIST)
        print_list(out, value);
    else if (key->kind == KEY_TEXT)
        buf_printf(out, "\"%s\"", value);
    else
        buf_text(out, value);
    BUF_LIT(out, "\n");
}

/* Wraps text into comment lines; markdown's backquotes are left out. */
static void print_comment(struct buf *out, const char *indent, const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t len = strcspn(text, " ");
        if (column == 0 || column + 1 + len > COLUMNS) {
            buf_printf(out, "%s%s#", column ? "\n" : "", indent);
            column = strlen(indent) + 1;
        }
        buf_byte(out, ' ');
        column += 1 + len;
        for (size_t i = 0; i < len; i++) {
            if (text[i] != '`')
                buf_byte(out, text[i]);
        }
        text += len;
        text += *text == ' ';
    }
    BUF_LIT(out, "\n");
}

static void print_key_comment(struct buf *out, const struct conf_key *key)
{
    struct buf text = {0};
    buf_printf(&text, "%s [", key->sentence);
    conf_key_print_allowed(key, &text);
    buf_printf(&text, "; %s]", reload_names[key->reload]);
    buf_byte(&text, '\0');
    out->failed |= text.failed;
    if (!text.failed)
        print_comment(out, "    ", text.data);
    buf_fini(&text);
}

/* One section of the sample. title NULL: a plain one. Keys without a value of that title are left
 * out, but for "*". */
static void sample_section(struct buf *out, const char *section, const char *title, bool comments)
{
    size_t count;
    const struct conf_key *keys = conf_section_keys(section, &count);
    bool fallback = title && strcmp(title, "*") == 0;
    buf_text(out, section);
    if (title)
        buf_printf(out, fallback ? " \"%s\"" : " %s", title);
    BUF_LIT(out, " {\n");
    for (size_t i = 0; i < count; i++) {
        const char *value = title && !fallback ? NULL : keys[i].initial;
        for (size_t s = 0; s < conf_shipped_count && title; s++) {
            if (strcmp(conf_shipped[s].section, section) == 0 &&
                strcmp(conf_shipped[s].title, title) == 0 &&
                strcmp(conf_shipped[s].key, keys[i].name) == 0)
                value = conf_shipped[s].value;
        }
        if (!value)
            continue;
        if (comments)
            print_key_comment(out, &keys[i]);
        print_setting(out, &keys[i], value);
    }
    BUF_LIT(out, "}\n");
}

static void sample_titled(struct buf *out, const char *section)
{
    const char *last = "";
    for (size_t i = 0; i < conf_shipped_count; i++) {
        const struct conf_shipped *shipped = &conf_shipped[i];
        if (strcmp(shipped->section, section) != 0 || strcmp(shipped->title, last) == 0)
            continue;
        bool first = *last == '\0' && strcmp(section, "lane") == 0;
        last = shipped->title;
        sample_section(out, section, last, first);
    }
}

/* A key of tickets exists only where somebody has one: an example that is commented out. */
static void sample_ticket_key(struct buf *out, const char *section)
{
    struct buf text = {0};
    size_t count;
    const struct conf_key *keys = conf_section_keys(section, &count);
    for (size_t i = 0; i < count; i++) {
        print_key_comment(&text, &keys[i]);
        print_setting(&text, &keys[i], keys[i].initial);
    }
    buf_printf(out, "# %s main {\n", section);
    for (struct bytes rest = buf_view(&text); rest.len > 0;) {
        size_t len = (size_t)((const char *)memchr(rest.data, '\n', rest.len) - rest.data) + 1;
        BUF_LIT(out, "# ");
        buf_append(out, rest.data, len);
        rest = bytes_of(rest.data + len, rest.len - len);
    }
    BUF_LIT(out, "# }\n");
    out->failed |= text.failed;
    buf_fini(&text);
}

void conf_print_sample(struct buf *out)
{
    BUF_LIT(
        out,
        "# halley.conf: every key with its default, as the daemon has it without a file.\n"
        "# A file needs only the keys that it changes. Made by `halley --print-sample`; "
        "docs/config.md\n# explains. In [ ]: what is allowed, and when a change takes effect: "
        "live (on SIGHUP), new\n# connections (from then on), or restart. Durations have a unit "
        "(ms, s, m, h), sizes may have\n# one (k, m, g).\n");
    for (size_t i = 0; i < conf_section_count; i++) {
        const struct conf_section *section = &conf_sections[i];
        BUF_LIT(out, "\n");
        print_comment(out, "", section->sentence);
        if (section->titles == TITLES_TYPES)
            sample_section(out, section->name, "*", true);
        if (section->titles == TITLES_PLAIN)
            sample_section(out, section->name, NULL, true);
        else if (section->titles == TITLES_KEYS)
            sample_ticket_key(out, section->name);
        else
            sample_titled(out, section->name);
    }
}

static const char docs_head[] =
    "# Configuration\n"
    "\n"
    "Made by `halley --print-docs`; do not edit.\n"
    "\n"
    "`halley -c FILE` reads a conf file. Without `-c` the built-in conf is used: it is\n"
    "`conf/halley.conf`, and it is the defaults below. A file needs only the keys that it "
    "changes.\n"
    "`-o section.key=value` overrides a key of the file, may be repeated, and the last one "
    "counts:\n"
    "`-o server.workers=2`, `-o lane.normal.interval=50ms`, `-o type.gift.lane=high`,\n"
    "`-o 'type.*.max_bytes=16k'`. A list is given with commas and replaces:\n"
    "`-o server.listen=127.0.0.1:1314,[::1]:1314`.\n"
    "\n"
    "`halley -t` checks the conf, prints the worst-case memory of all bounds, and exits with 0, or "
    "with\n"
    "78 after saying what is wrong: file, line, key, value and what is allowed.\n"
    "\n"
    "## Syntax\n"
    "\n"
    "- `section { key = value }`; lanes and types have a name: `lane high { … }`, "
    "`type gift { … "
    "}`,\n"
    "  `type \"*\" { … }`. A plain section may stand several times, a named one once.\n"
    "- Durations have a unit: `20ms`, `10s`, `5m`, `2h`; only `0` goes without. Sizes are bytes, "
    "or have\n"
    "  one: `64k`, `2m`, `1g` (powers of 1,024). Switches are `yes` or `no`.\n"
    "- Texts are quoted, lists stand in braces: `listen = {\"0.0.0.0:1314\", \"[::]:1314\"}`.\n"
    "- `\"${NAME}\"` is the environment variable NAME; `\"${NAME:-text}\"` falls back to a text.\n"
    "- `#` and `//` begin comments that end with the line; `/* … */` may span several.\n"
    "- An unknown key or section is an error.\n"
    "\n"
    "## Reload\n"
    "\n"
    "SIGHUP (`systemctl reload halley`) reads the file again, with the `-o` of the command line on "
    "top. A\n"
    "file with an error changes nothing, and the log says what is wrong with it. When it is good, "
    "each key\n"
    "takes effect as its row says:\n"
    "\n"
    "- **live**: at once, for all viewers;\n"
    "- **new connections**: for viewers that connect from then on;\n"
    "- **restart**: not before the daemon is started again; the log names such keys when they "
    "changed.\n"
    "\n"
    "## Examples\n"
    "\n"
    "Several nodes over one Redis, the password from the environment:\n"
    "\n"
    "```\n"
    "broker {\n"
    "    url = \"redis://halley:${REDIS_PASSWORD}@10.0.0.5:6379\"\n"
    "    prefix = live\n"
    "}\n"
    "```\n"
    "\n"
    "Gifts before everything, and a type of our own that viewers may send:\n"
    "\n"
    "```\n"
    "type gift { lane = high }\n"
    "type danmaku {\n"
    "    lane = low\n"
    "    route = broadcast\n"
    "    max_bytes = 512\n"
    "}\n"
    "```\n"
    "\n"
    "Backends publish over HTTP from other hosts:\n"
    "\n"
    "```\n"
    "admin {\n"
    "    listen = \"10.0.0.7:7314\"\n"
    "    token = \"${HALLEY_ADMIN_TOKEN}\"\n"
    "}\n"
    "```\n";

static void docs_default(struct buf *out, const struct conf_key *key)
{
    const char *comma = "";
    if (strcmp(key->section, "lane") == 0) {
        for (size_t i = 0; i < conf_shipped_count; i++) {
            const struct conf_shipped *shipped = &conf_shipped[i];
            if (strcmp(shipped->section, "lane") != 0 || strcmp(shipped->key, key->name) != 0)
                continue;
            buf_printf(out, "%s%s `%s`", comma, shipped->title, shipped->value);
            comma = ", ";
        }
    } else if (key->kind == KEY_LIST) {
        BUF_LIT(out, "`");
        print_list(out, key->initial);
        BUF_LIT(out, "`");
    } else if (key->initial[0] == '\0') {
        BUF_LIT(out, "empty");
    } else {
        buf_printf(out, "`%s`", key->initial);
    }
}

/* In a table of markdown `*` and `_` of a text such as `A-Z _ . -` would be markup. */
static void docs_escaped(struct buf *out, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("*_|[]", text.data[i]))
            buf_byte(out, '\\');
        buf_byte(out, text.data[i]);
    }
}

static void docs_row(struct buf *out, const struct conf_key *key)
{
    struct buf allowed = {0};
    conf_key_print_allowed(key, &allowed);
    buf_printf(out, "| `%s` | ", key->name);
    docs_default(out, key);
    BUF_LIT(out, " | ");
    docs_escaped(out, buf_view(&allowed));
    buf_printf(out, " | %s | %s |\n", reload_names[key->reload], key->sentence);
    out->failed |= allowed.failed;
    buf_fini(&allowed);
}

static void docs_shipped_types(struct buf *out)
{
    const char *last = "";
    BUF_LIT(out, "\nShipped types:");
    for (size_t i = 0; i < conf_shipped_count; i++) {
        const struct conf_shipped *shipped = &conf_shipped[i];
        if (strcmp(shipped->section, "type") != 0)
            continue;
        bool same = strcmp(shipped->title, last) == 0;
        if (!same)
            buf_printf(out, "%s `%s` with", *last ? ";" : "", shipped->title);
        buf_printf(out, "%s `%s = %s`", same ? "," : "", shipped->key, shipped->value);
        last = shipped->title;
    }
    BUF_LIT(out, ".\n");
}

void conf_print_docs(struct buf *out)
{
    buf_text(out, docs_head);
    for (size_t i = 0; i < conf_section_count; i++) {
        const struct conf_section *section = &conf_sections[i];
        size_t count;
        const struct conf_key *keys = conf_section_keys(section->name, &count);
        buf_printf(out, "\n## %s\n\n%s\n\n| key | default | allowed | reload | what it does |\n",
                   section->name, section->sentence);
        BUF_LIT(out, "| --- | --- | --- | --- | --- |\n");
        for (size_t k = 0; k < count; k++)
            docs_row(out, &keys[k]);
        if (section->titles == TITLES_TYPES)
            docs_shipped_types(out);
    }
}
