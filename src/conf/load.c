#include "conf/load.h"

#include <stdlib.h>
#include <string.h>

void load_print_place(const struct load *load, struct buf *out, int line)
{
    buf_text(out, load->label);
    if (line > 0)
        buf_printf(out, ":%d", line);
    BUF_LIT(out, ": ");
}

void load_print_clean(struct buf *out, struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if ((unsigned char)c < 0x20 || c == 0x7f)
            c = '?';
        buf_byte(out, c);
    }
}

static void print_name(struct buf *out, const struct load_slot *slot)
{
    buf_printf(out, "%s.", slot->key->section);
    if (slot->title)
        buf_printf(out, "%s.", slot->title);
    buf_text(out, slot->key->name);
}

/* -o is repeated as it was typed; a file's value is quoted, so that an empty one shows. */
void load_tell(const struct load *load, struct buf *out, const struct load_slot *slot,
               const struct bytes *value, struct bytes reason)
{
    struct buf held = {0};
    bool typed = *slot->origin <= ORIGIN_OVERRIDE;
    if (!value && slot->key->kind != KEY_LIST)
        conf_key_print_value(slot->key, slot->base, &held);
    struct bytes given = value ? *value : buf_view(&held);
    if (typed)
        BUF_LIT(out, "-o ");
    else
        load_print_place(load, out, *slot->origin);
    print_name(out, slot);
    if (value || slot->key->kind != KEY_LIST) {
        buf_text(out, typed ? "=" : " = \"");
        conf_key_print_given(slot->key, given, out);
        buf_text(out, typed ? "" : "\"");
    }
    BUF_LIT(out, ": ");
    buf_bytes(out, reason);
    BUF_LIT(out, "\n");
    buf_fini(&held);
}

/* Levenshtein distance, or a large number for names that are too long to be a slip of ours. */
static size_t distance(struct bytes a, const char *b)
{
    enum { LONGEST = 32, FAR = 99 };
    size_t row[LONGEST + 1];
    size_t b_len = strlen(b);
    if (a.len > LONGEST || b_len > LONGEST)
        return FAR;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a.data[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[b_len];
}

/* Near enough to be a slip: two letters at most, and less than half of what was written. */
static bool is_near(struct bytes name, size_t far)
{
    return far <= 2 && 2 * far < name.len;
}

void load_print_unknown_key(const char *section, struct bytes name, struct buf *out)
{
    size_t count;
    const struct conf_key *keys = conf_section_keys(section, &count);
    const struct conf_key *nearest = &keys[0];
    for (size_t i = 1; i < count; i++) {
        if (distance(name, keys[i].name) < distance(name, nearest->name))
            nearest = &keys[i];
    }
    BUF_LIT(out, "unknown key; ");
    if (is_near(name, distance(name, nearest->name))) {
        buf_printf(out, "did you mean %s?", nearest->name);
        return;
    }
    buf_printf(out, "section %s has: ", section);
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", keys[i].name);
}

void load_print_unknown_section(struct bytes name, struct buf *out)
{
    const struct conf_section *nearest = &conf_sections[0];
    for (size_t i = 1; i < conf_section_count; i++) {
        if (distance(name, conf_sections[i].name) < distance(name, nearest->name))
            nearest = &conf_sections[i];
    }
    BUF_LIT(out, "unknown section; ");
    if (is_near(name, distance(name, nearest->name))) {
        buf_printf(out, "did you mean %s?", nearest->name);
        return;
    }
    for (size_t i = 0; i < conf_section_count; i++) {
        if (conf_key_find(conf_sections[i].name, name))
            buf_printf(out, "there is a key of this name within section %s; ",
                       conf_sections[i].name);
    }
    BUF_LIT(out, "there are: ");
    for (size_t i = 0; i < conf_section_count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", conf_sections[i].name);
}

static bool lane_slot(struct load *load, size_t index, struct bytes title, struct load_slot *slot,
                      struct buf *why)
{
    int lane = conf_lane_find(title);
    if (lane < 0) {
        BUF_LIT(why, "unknown lane; there are high, normal and low");
        return false;
    }
    slot->title = lane_name((enum lane)lane);
    slot->base = &load->conf->lanes[lane];
    slot->origin = &load->lane_origin[lane][index];
    return true;
}

static bool type_slot(struct load *load, size_t index, struct bytes title, struct load_slot *slot,
                      struct buf *why)
{
    struct conf *conf = load->conf;
    uint32_t at = 0;
    if (!bytes_is(title, "*") && !name_is_type(title)) {
        BUF_LIT(why, "a type must be \"*\" or 1 to 32 of a-z 0-9 _ -, not halley nor a name that "
                     "Socket.IO reserves (such as connect)");
        return false;
    }
    while (at < conf->type_count && !bytes_is(title, conf->types[at].name))
        at++;
    if (at == conf->type_count && !conf_type_add(conf, title)) {
        buf_printf(why, "there may be at most %d types", CONF_TYPES_MAX);
        return false;
    }
    slot->title = conf->types[at].name;
    slot->base = &conf->types[at];
    slot->origin = &load->type_origin[at][index];
    return true;
}

static bool ticket_key_slot(struct load *load, size_t index, struct bytes title,
                            struct load_slot *slot, struct buf *why)
{
    struct conf *conf = load->conf;
    uint32_t at = 0;
    if (!auth_kid_ok(title)) {
        BUF_LIT(why, "the name of a key is the kid of its tickets: 1 to 64 of A-Z a-z 0-9 _ -");
        return false;
    }
    while (at < conf->ticket_key_count && !bytes_is(title, conf->ticket_keys[at].name))
        at++;
    if (at == conf->ticket_key_count && !conf_ticket_key_add(conf, title)) {
        buf_printf(why, "there may be at most %d keys; remove those whose tickets have all expired",
                   AUTH_KEYS_MAX);
        return false;
    }
    slot->title = conf->ticket_keys[at].name;
    slot->base = &conf->ticket_keys[at];
    slot->origin = &load->ticket_key_origin[at][index];
    return true;
}

bool load_slot(struct load *load, const struct conf_key *key, struct bytes title,
               struct load_slot *slot, struct buf *why)
{
    size_t count;
    enum section_titles titles = conf_section_find(bytes_str(key->section))->titles;
    size_t index = (size_t)(key - conf_section_keys(key->section, &count));
    *slot = (struct load_slot){.key = key};
    if (titles == TITLES_LANES)
        return lane_slot(load, index, title, slot, why);
    if (titles == TITLES_TYPES)
        return type_slot(load, index, title, slot, why);
    if (titles == TITLES_KEYS)
        return ticket_key_slot(load, index, title, slot, why);
    slot->base = load->conf;
    slot->origin = &load->origin[key - conf_keys];
    return true;
}

void load_reset(struct load *load)
{
    struct conf *conf = load->conf;
    struct buf why = {0};
    struct load_slot slot;
    memset(load->origin, 0, sizeof(load->origin));
    memset(load->lane_origin, 0, sizeof(load->lane_origin));
    memset(load->type_origin, 0, sizeof(load->type_origin));
    memset(load->ticket_key_origin, 0, sizeof(load->ticket_key_origin));
    load->errors->len = load->errors_start;
    load->refused_section = NULL;
    conf->type_count = 0;
    conf->ticket_key_count = 0;
    (void)conf_type_add(conf, bytes_str("*"));
    for (size_t i = 0; i < conf_key_count; i++) {
        const struct conf_key *key = &conf_keys[i];
        if (strcmp(key->section, "key") == 0)
            continue; /* there is none until somebody names it; zero is the default of all its keys */
        struct bytes title = bytes_str(strcmp(key->section, "lane") == 0 ? "high" : "*");
        if (load_slot(load, key, title, &slot, &why))
            (void)conf_key_set_all(key, slot.base, bytes_str(key->initial), &why);
    }
    for (size_t i = 0; i < conf_shipped_count; i++) {
        const struct conf_shipped *shipped = &conf_shipped[i];
        const struct conf_key *key = conf_key_find(shipped->section, bytes_str(shipped->key));
        if (load_slot(load, key, bytes_str(shipped->title), &slot, &why) &&
            conf_key_set_all(key, slot.base, bytes_str(shipped->value), &why))
            *slot.origin = ORIGIN_SHIPPED;
    }
    /* Defaults that their own ranges refuse show up here; the tests load them all. */
    buf_bytes(load->errors, buf_view(&why));
    buf_fini(&why);
}

/* Takes apart `section.key` or `section.title.key`. Returns false with the reason in *why. */
static bool parse_override(struct load *load, struct bytes name, struct load_slot *slot,
                           struct buf *why)
{
    const char *dot = memchr(name.data, '.', name.len);
    struct bytes first = bytes_of(name.data, dot ? (size_t)(dot - name.data) : name.len);
    const struct conf_section *section = conf_section_find(first);
    if (!section) {
        load_print_unknown_section(first, why);
        return false;
    }
    struct bytes rest = dot ? bytes_of(dot + 1, name.len - first.len - 1) : bytes_of(NULL, 0);
    const char *second = rest.len ? memchr(rest.data, '.', rest.len) : NULL;
    struct bytes title = {0};
    if (section->titles != TITLES_PLAIN) {
        title = bytes_of(rest.data, second ? (size_t)(second - rest.data) : 0);
        rest = second ? bytes_of(second + 1, rest.len - title.len - 1) : bytes_of(NULL, 0);
    }
    if (rest.len == 0) {
        buf_printf(why, "must be %s%s.key=value", section->name,
                   section->titles == TITLES_PLAIN ? "" : ".name");
        return false;
    }
    const struct conf_key *key = conf_key_find(section->name, rest);
    if (!key) {
        load_print_unknown_key(section->name, rest, why);
        return false;
    }
    return load_slot(load, key, title, slot, why);
}

static void apply_override(struct load *load, size_t index)
{
    const char *text = load->overrides[index].text;
    const char *equals = strchr(text, '=');
    struct bytes name = bytes_of(text, equals ? (size_t)(equals - text) : strlen(text));
    struct buf why = {0};
    struct load_slot slot;
    if (!equals) {
        BUF_LIT(load->errors, "-o ");
        load_print_clean(load->errors, name);
        BUF_LIT(load->errors, ": must be section.key=value, such as server.workers=2\n");
    } else if (!parse_override(load, name, &slot, &why)) {
        /* Without the value: what was meant may have been a secret. */
        BUF_LIT(load->errors, "-o ");
        load_print_clean(load->errors, name);
        BUF_LIT(load->errors, ": ");
        buf_bytes(load->errors, buf_view(&why));
        BUF_LIT(load->errors, "\n");
    } else {
        struct bytes value = bytes_str(equals + 1);
        *slot.origin = ORIGIN_OVERRIDE - (int)index;
        if (!conf_key_set_all(slot.key, slot.base, value, &why))
            load_tell(load, load->errors, &slot, &value, buf_view(&why));
    }
    buf_fini(&why);
}

struct conf *load_conf(const char *label, struct bytes text, const struct conf_override *overrides,
                       size_t count, struct buf *errors, struct buf *warnings)
{
    struct load load = {.label = label,
                        .overrides = overrides,
                        .override_count = count,
                        .errors = errors,
                        .warnings = warnings,
                        .errors_start = errors->len};
    load.conf = calloc(1, sizeof(*load.conf));
    if (!load.conf) {
        BUF_LIT(errors, "out of memory while reading the conf\n");
        return NULL;
    }
    atomic_init(&load.conf->refs, 1);
    load_file(&load, text);
    for (size_t i = 0; i < count; i++)
        apply_override(&load, i);
    if (errors->len == load.errors_start && !errors->failed)
        load_resolve(&load);
    if (errors->len == load.errors_start && !errors->failed)
        return load.conf;
    conf_unref(load.conf);
    return NULL;
}
