/* file.c: the conf file by libconfuse.
 *
 * libconfuse gives the grammar; every value is a string to it, so that units, ranges and messages
 * are ours. What it does not do well is done around it:
 *  - 3.3 counts lines wrongly as soon as there are comments, so scan.c blanks them first;
 *  - it drops a bare * and a missing } at the end without a word, so scan.c looks for these too;
 *  - it stops at the first unknown key. Such a key is made known, as one to complain about, and the
 *    text is read again.
 * When memory is out inside of its scanner it ends the process; nothing around it can help that.
 */
#include "conf/load.h"
#include "conf/scan.h"

#include <confuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libconfuse's callbacks carry no context of ours; its scanner is process-wide anyway. */
static struct load *active;

static void tell(struct load *load, int line, struct bytes reason)
{
    load_print_place(load, load->errors, line);
    load_print_clean(load->errors, reason);
    BUF_LIT(load->errors, "\n");
}

/* Appends `section.key: ` or `section.title.key: `. */
static void print_name(struct buf *out, const cfg_t *section, const char *key)
{
    buf_printf(out, "%s.", section->name);
    if (section->title)
        buf_printf(out, "%s.", section->title);
    buf_printf(out, "%s: ", key);
}

static struct load_unknown *find_unknown(struct load *load, const char *section, const char *name)
{
    for (size_t i = 0; i < load->unknown_count; i++) {
        struct load_unknown *unknown = &load->unknown[i];
        if (strcmp(unknown->section, section) == 0 && strcmp(unknown->name, name) == 0)
            return unknown;
    }
    return NULL;
}

static void tell_unknown(struct load *load, const cfg_t *section, const char *name)
{
    struct buf text = {0};
    print_name(&text, section, name);
    load_print_unknown_key(section->name, bytes_str(name), &text);
    tell(load, section->line, buf_view(&text));
    buf_fini(&text);
}

/* A lane or type whose title is none: told once for all keys of the section. */
static void tell_title(struct load *load, const cfg_t *section, int line, struct bytes reason)
{
    struct buf text = {0};
    if (load->refused_section == section)
        return;
    load->refused_section = section;
    buf_printf(&text, "%s \"%s\": ", section->name, section->title);
    buf_bytes(&text, reason);
    tell(load, line, buf_view(&text));
    buf_fini(&text);
}

/* Called for each value, for each item of a list, and at the end of a list once more. */
static int on_value(cfg_t *section, cfg_opt_t *option)
{
    struct load *load = active;
    const struct conf_key *key = conf_key_find(section->name, bytes_str(option->name));
    struct load_unknown *unknown = find_unknown(load, section->name, option->name);
    struct buf why = {0};
    struct load_slot slot;
    if (option->nvalues == 0)
        return 0;
    uint32_t index = option->nvalues - 1;
    struct bytes value = bytes_str(cfg_opt_getnstr(option, index));
    size_t before = load->errors->len;
    if (!key && unknown) {
        tell_unknown(load, section, option->name);
        unknown->told = true;
    } else if (!key) {
        /* `section|key = value` at the top level is another spelling of libconfuse's. */
        BUF_LIT(&why, "a key must stand inside the braces of its section");
        tell(load, section->line, buf_view(&why));
    } else if (!load_slot(load, key, bytes_str(section->title), &slot, &why)) {
        tell_title(load, section, section->line, buf_view(&why));
    } else {
        *slot.origin = section->line;
        if (!conf_key_set(key, slot.base, index, value, &why))
            load_tell(load, load->errors, &slot, &value, buf_view(&why));
    }
    /* The end of a list repeats the call for its last item: the same line is not told twice. */
    struct buf *errors = load->errors;
    size_t len = errors->len - before;
    if (len && before >= load->errors_start + len &&
        memcmp(errors->data + before - len, errors->data + before, len) == 0)
        errors->len = before;
    buf_fini(&why);
    return 0;
}

/* An empty list reaches no callback of its own. */
static void check_empty_lists(struct load *load, const cfg_t *section)
{
    for (size_t i = 0; section->opts[i].name; i++) {
        const cfg_opt_t *option = &section->opts[i];
        if ((option->flags & CFGF_LIST) == 0 || (option->flags & CFGF_MODIFIED) == 0 ||
            option->nvalues != 0)
            continue;
        struct load_unknown *unknown = find_unknown(load, section->name, option->name);
        if (unknown) {
            tell_unknown(load, section, option->name);
            unknown->told = true;
            continue;
        }
        const struct conf_key *key = conf_key_find(section->name, bytes_str(option->name));
        if (key && key->initial[0] == '\0')
            continue; /* as it is without the line */
        struct buf text = {0};
        print_name(&text, section, option->name);
        BUF_LIT(&text, "must have at least one item");
        tell(load, section->line, buf_view(&text));
        buf_fini(&text);
    }
}

/* At the closing brace. A section without keys must still make its type, or complain about its
 * title. */
static int on_section(cfg_t *root, cfg_opt_t *option)
{
    struct load *load = active;
    const cfg_t *section = cfg_opt_getnsec(option, option->nvalues - 1);
    struct buf why = {0};
    struct load_slot slot;
    size_t count;
    const struct conf_key *first = conf_section_keys(section->name, &count);
    if (section->title && !load_slot(load, first, bytes_str(section->title), &slot, &why))
        tell_title(load, section, root->line, buf_view(&why));
    check_empty_lists(load, section);
    buf_fini(&why);
    return 0;
}

/* Remembers a key so that the next reading gets past it; false when there is no place to. */
static bool remember_unknown(struct load *load, const char *section, const char *name)
{
    size_t len = strlen(name);
    const struct conf_section *known = conf_section_find(bytes_str(section));
    if (!known || load->unknown_count == LOAD_UNKNOWN_MAX || len >= LOAD_NAME_MAX ||
        find_unknown(load, section, name))
        return false;
    struct load_unknown *unknown = &load->unknown[load->unknown_count++];
    *unknown = (struct load_unknown){.section = known->name};
    memcpy(unknown->name, name, len);
    return true;
}

static void print_unknown(struct buf *out, const cfg_t *cfg, const char *name)
{
    if (strcmp(cfg->name, "root") == 0) {
        buf_printf(out, "%s: ", name);
        load_print_unknown_section(bytes_str(name), out);
    } else {
        print_name(out, cfg, name);
        load_print_unknown_key(cfg->name, bytes_str(name), out);
    }
    BUF_LIT(out, " (the file was not read further)");
}

/* The format is our only way to tell one error from another. */
__attribute__((format(printf, 2, 0))) static void on_error(cfg_t *cfg, const char *format,
                                                           va_list args)
{
    struct load *load = active;
    struct buf out = {0};
    if (strcmp(format, "no such option '%s'") == 0) {
        const char *name = va_arg(args, const char *);
        if (remember_unknown(load, cfg->name, name))
            return;
        print_unknown(&out, cfg, name);
    } else if (strcmp(format, "found duplicate title '%s'") == 0) {
        buf_printf(&out, "a second section with the name %s; put all of its keys into one",
                   va_arg(args, const char *));
    } else {
        char text[512];
        vsnprintf(text, sizeof(text), format, args);
        buf_text(&out, text);
    }
    tell(load, cfg->line, buf_view(&out));
    buf_fini(&out);
}

/* libconfuse's description of our table, in one allocation: the root, then the keys of each
 * section. */
struct options {
    cfg_opt_t root[SECTIONS_MAX + 1];
    cfg_opt_t keys[SECTIONS_MAX][SECTION_KEYS_MAX + LOAD_UNKNOWN_MAX + 1];
};

static void describe_section(const struct load *load, size_t section, struct options *options)
{
    const char *name = conf_sections[section].name;
    cfg_opt_t *option = options->keys[section];
    size_t count;
    const struct conf_key *keys = conf_section_keys(name, &count);
    for (size_t i = 0; i < count; i++, option++) {
        *option = keys[i].kind == KEY_LIST
                      ? (cfg_opt_t)CFG_STR_LIST(keys[i].name, NULL, CFGF_NODEFAULT)
                      : (cfg_opt_t)CFG_STR(keys[i].name, NULL, CFGF_NODEFAULT);
        option->validcb = on_value;
    }
    for (size_t i = 0; i < load->unknown_count; i++) {
        if (strcmp(load->unknown[i].section, name) != 0)
            continue;
        /* A list takes single values too. */
        *option = (cfg_opt_t)CFG_STR_LIST(load->unknown[i].name, NULL, CFGF_NODEFAULT);
        option->validcb = on_value;
        option++;
    }
    *option = (cfg_opt_t)CFG_END();
}

static cfg_t *describe(const struct load *load)
{
    struct options *options = calloc(1, sizeof(*options));
    cfg_t *cfg = NULL;
    if (!options)
        return NULL;
    for (size_t i = 0; i < conf_section_count; i++) {
        bool titled = conf_sections[i].titles != TITLES_PLAIN;
        describe_section(load, i, options);
        options->root[i] =
            (cfg_opt_t)CFG_SEC(conf_sections[i].name, options->keys[i],
                               titled ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : CFGF_NONE);
        options->root[i].validcb = on_section;
    }
    options->root[conf_section_count] = (cfg_opt_t)CFG_END();
    cfg = cfg_init(options->root, CFGF_NONE); /* copies the options */
    free(options);
    return cfg;
}

static void read_once(struct load *load, char *text, size_t len)
{
    FILE *stream = fmemopen(text, len, "r");
    cfg_t *cfg = stream ? describe(load) : NULL;
    size_t before = load->errors->len;
    size_t unknown = load->unknown_count;
    if (cfg) {
        active = load;
        cfg_set_error_function(cfg, on_error);
        int result = cfg_parse_fp(cfg, stream);
        if (result != CFG_SUCCESS && load->errors->len == before && load->unknown_count == unknown)
            tell(load, cfg->line, BYTES_LIT("cannot be read (out of memory?)"));
        active = NULL;
        cfg_free(cfg);
    } else {
        tell(load, 0, BYTES_LIT("out of memory while reading the conf"));
    }
    if (stream)
        fclose(stream);
}

/* Reads until no further unknown key turns up; the errors of the last reading count. */
static void read_all(struct load *load, char *text, size_t len)
{
    size_t known;
    do {
        known = load->unknown_count;
        for (size_t i = 0; i < known; i++)
            load->unknown[i].told = false;
        load_reset(load);
        read_once(load, text, len);
    } while (load->unknown_count > known);
    for (size_t i = 0; i < load->unknown_count; i++) {
        const struct load_unknown *unknown = &load->unknown[i];
        if (!unknown->told) {
            struct buf out = {0};
            buf_printf(&out, "%s.%s: unknown key", unknown->section, unknown->name);
            tell(load, 0, buf_view(&out));
            buf_fini(&out);
        }
    }
}

void load_file(struct load *load, struct bytes text)
{
    load_reset(load);
    if (text.len == 0)
        return;
    if (text.len > LOAD_TEXT_MAX) {
        tell(load, 0, BYTES_LIT("larger than 1 MiB: this is no conf file"));
        return;
    }
    char *copy = malloc(text.len);
    if (!copy) {
        tell(load, 0, BYTES_LIT("out of memory while reading the conf"));
        return;
    }
    memcpy(copy, text.data, text.len);
    int line;
    const char *wrong = scan_comments(copy, text.len, &line);
    if (wrong)
        tell(load, line, bytes_str(wrong));
    else
        read_all(load, copy, text.len);
    free(copy);
}
