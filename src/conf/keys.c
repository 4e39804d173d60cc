#include "conf/keys.h"

#include "base/log.h"
#include "conf/checks.h"
#include "conf/units.h"

#include <string.h>

static const char *const choices_accept[] = {"ip-hash", "spread", NULL};
static const char *const choices_auth[] = {"open", "jwt", "redis", NULL};
static const char *const choices_alg[] = {"HS256", "RS256", "ES256", NULL};
static const char *const choices_overflow[] = {"drop-oldest", "disconnect", NULL};
static const char *const choices_route[] = {"none", "broadcast", "queue", NULL};
static const char *const choices_lane[] = {"high", "normal", "low", NULL};
static const char *const choices_log_format[] = {"text", "json", NULL};
static const char *const choices_log_level[] = {"debug", "info", "warn", "error", NULL};
_Static_assert(ACCEPT_SPREAD == 1 && OVERFLOW_DISCONNECT == 1 && ROUTE_QUEUE == 2, "choices");
_Static_assert(LANE_HIGH == 0 && LANE_NORMAL == 1 && LANE_LOW == 2 && AUTH_REDIS == 2, "choices");
_Static_assert(AUTH_JWT == 1 && AUTH_HS256 == 0 && AUTH_RS256 == 1 && AUTH_ES256 == 2, "choices");
_Static_assert(LOG_FORMAT_JSON == 1 && LOG_LEVEL_INFO == 1 && LOG_LEVEL_ERROR == 3, "choices");

#define KIB *(UINT64_C(1) << 10)
#define MIB *(UINT64_C(1) << 20)
#define GIB *(UINT64_C(1) << 30)
#define MS *UINT64_C(1)
#define SECONDS *UINT64_C(1000)
#define MINUTES *UINT64_C(60000)
#define HOURS *UINT64_C(3600000)

#define FIELD(in, field)                                                                           \
    .offset = offsetof(struct in, field), .size = sizeof(((struct in *)NULL)->field)
#define RANGE(kind_, in, field, min_, max_)                                                        \
    .kind = (kind_), .min = (min_), .max = (max_), FIELD(in, field)
#define CHECKED(kind_, in, field, check_, allowed_)                                                \
    .kind = (kind_), .check = (check_), .allowed = (allowed_), FIELD(in, field)
#define BOOL(in, field) .kind = KEY_BOOL, FIELD(in, field)
#define UINT(in, field, min_, max_) RANGE(KEY_UINT, in, field, min_, max_)
#define DURATION(in, field, min_, max_) RANGE(KEY_DURATION, in, field, min_, max_)
#define SIZE(in, field, min_, max_) RANGE(KEY_SIZE, in, field, min_, max_)
#define SIZE_OR_0(in, field, min_, max_) .or_zero = true, RANGE(KEY_SIZE, in, field, min_, max_)
#define ENUM(in, field, choices_) .kind = KEY_ENUM, .choices = (choices_), FIELD(in, field)
#define TEXT(in, field, check_, allowed_) CHECKED(KEY_TEXT, in, field, check_, allowed_)
#define LIST(in, field, check_, allowed_) CHECKED(KEY_LIST, in, field, check_, allowed_)
#define SECRET(in, field, check_, allowed_)                                                        \
    .secret = SECRET_WHOLE, CHECKED(KEY_TEXT, in, field, check_, allowed_)
#define SECRET_URL(in, field, check_, allowed_)                                                    \
    .secret = SECRET_PASSWORD, CHECKED(KEY_TEXT, in, field, check_, allowed_)

/* `conf` names the struct in keys.def, and VALUE expands to several initializers, so KEY takes any
 * number. */
#define SECTION(section_, titles_, sentence_)
#define SHIPPED(section_, title_, key_, value_)
#define KEY(section_, name_, value_, initial_, reload_, sentence_)                                 \
    {.section = #section_,                                                                         \
     .name = #name_,                                                                               \
     value_,                                                                                       \
     .initial = (initial_),                                                                        \
     .reload = RELOAD_##reload_,                                                                   \
     .sentence = (sentence_)},
const struct conf_key conf_keys[] = {
#include "conf/keys.def"
};
#undef SECTION
#undef SHIPPED
#undef KEY

#define KEY(...)
#define SHIPPED(section_, title_, key_, value_)
#define SECTION(section_, titles_, sentence_) {#section_, TITLES_##titles_, (sentence_)},
const struct conf_section conf_sections[] = {
#include "conf/keys.def"
};
#undef SECTION
#undef SHIPPED

#define SECTION(section_, titles_, sentence_)
#define SHIPPED(section_, title_, key_, value_) {#section_, #title_, #key_, (value_)},
const struct conf_shipped conf_shipped[] = {
#include "conf/keys.def"
};

const size_t conf_key_count = sizeof(conf_keys) / sizeof(conf_keys[0]);
const size_t conf_section_count = sizeof(conf_sections) / sizeof(conf_sections[0]);
const size_t conf_shipped_count = sizeof(conf_shipped) / sizeof(conf_shipped[0]);
_Static_assert(sizeof(conf_keys) / sizeof(conf_keys[0]) <= KEYS_MAX, "raise KEYS_MAX");
_Static_assert(sizeof(conf_sections) / sizeof(conf_sections[0]) <= SECTIONS_MAX,
               "raise SECTIONS_MAX");

const struct conf_section *conf_section_find(struct bytes name)
{
    for (size_t i = 0; i < conf_section_count; i++) {
        if (bytes_is(name, conf_sections[i].name))
            return &conf_sections[i];
    }
    return NULL;
}

const struct conf_key *conf_section_keys(const char *section, size_t *count)
{
    const struct conf_key *first = NULL;
    *count = 0;
    for (size_t i = 0; i < conf_key_count; i++) {
        if (strcmp(conf_keys[i].section, section) != 0)
            continue;
        if (!first)
            first = &conf_keys[i];
        ++*count;
    }
    return first;
}

const struct conf_key *conf_key_find(const char *section, struct bytes name)
{
    for (size_t i = 0; i < conf_key_count; i++) {
        if (strcmp(conf_keys[i].section, section) == 0 && bytes_is(name, conf_keys[i].name))
            return &conf_keys[i];
    }
    return NULL;
}

int conf_lane_find(struct bytes name)
{
    for (int i = 0; i < LANE_COUNT; i++) {
        if (bytes_is(name, choices_lane[i]))
            return i;
    }
    return -1;
}

struct conf_type *conf_type_add(struct conf *conf, struct bytes name)
{
    if (conf->type_count >= CONF_TYPES_MAX || name.len > TYPE_NAME_MAX)
        return NULL;
    struct conf_type *type = &conf->types[conf->type_count++];
    *type = (struct conf_type){0};
    memcpy(type->name, name.data, name.len);
    return type;
}

struct conf_ticket_key *conf_ticket_key_add(struct conf *conf, struct bytes name)
{
    if (conf->ticket_key_count >= AUTH_KEYS_MAX || name.len > AUTH_KID_MAX)
        return NULL;
    struct conf_ticket_key *key = &conf->ticket_keys[conf->ticket_key_count++];
    *key = (struct conf_ticket_key){0};
    memcpy(key->name, name.data, name.len);
    return key;
}

static void set_number(const struct conf_key *key, void *base, uint64_t value)
{
    char *at = (char *)base + key->offset;
    if (key->kind == KEY_BOOL) {
        bool flag = value != 0;
        memcpy(at, &flag, sizeof(flag));
    } else if (key->size == sizeof(uint64_t)) {
        memcpy(at, &value, sizeof(value));
    } else {
        uint32_t narrow = (uint32_t)value;
        memcpy(at, &narrow, sizeof(narrow));
    }
}

uint64_t conf_key_number(const struct conf_key *key, const void *base)
{
    const char *at = (const char *)base + key->offset;
    uint64_t value = 0;
    uint32_t narrow = 0;
    if (key->kind == KEY_BOOL)
        return *(const bool *)at;
    if (key->size == sizeof(value)) {
        memcpy(&value, at, sizeof(value));
        return value;
    }
    memcpy(&narrow, at, sizeof(narrow));
    return narrow;
}

static bool parse_bool(struct bytes text, uint64_t *out)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_is(text, words[i])) {
            *out = i % 2;
            return true;
        }
    }
    return false;
}

static bool parse_choice(const struct conf_key *key, struct bytes text, uint64_t *out)
{
    for (size_t i = 0; key->choices[i]; i++) {
        if (bytes_is(text, key->choices[i])) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool parse_number(const struct conf_key *key, struct bytes text, uint64_t *out)
{
    switch (key->kind) {
    case KEY_BOOL:
        return parse_bool(text, out);
    case KEY_ENUM:
        return parse_choice(key, text, out);
    case KEY_UINT:
        if (units_parse_uint(text, out) != 0)
            return false;
        break;
    case KEY_DURATION:
        if (conf_parse_duration_ms(text, out) != 0)
            return false;
        break;
    case KEY_SIZE:
        if (conf_parse_size(text, out) != 0)
            return false;
        break;
    case KEY_TEXT:
    case KEY_LIST:
        return false;
    }
    return (*out >= key->min && *out <= key->max) || (key->or_zero && *out == 0);
}

/* Copies text into the field of cap bytes when it fits and the key's check likes it; the rest of
 * the field is zeroed. */
static bool set_text(const struct conf_key *key, char *field, size_t cap, struct bytes text,
                     struct buf *why)
{
    char copy[CONF_TEXT_MAX] = "";
    const char *reason = NULL;
    if (text.len >= cap || text.len >= sizeof(copy) || memchr(text.data, '\0', text.len)) {
        buf_printf(why, "must be %s, at most %zu bytes", key->allowed, cap - 1);
        return false;
    }
    memcpy(copy, text.data, text.len);
    if (!key->check(copy, &reason)) {
        if (reason)
            buf_text(why, reason);
        else
            buf_printf(why, "must be %s", key->allowed);
        return false;
    }
    memcpy(field, copy, cap < sizeof(copy) ? cap : sizeof(copy));
    return true;
}

static bool set_item(const struct conf_key *key, void *base, uint32_t index, struct bytes text,
                     struct buf *why)
{
    struct conf_list *list = (struct conf_list *)(void *)((char *)base + key->offset);
    if (index >= CONF_LISTEN_MAX) {
        buf_printf(why, "must be a list of at most %d", CONF_LISTEN_MAX);
        return false;
    }
    if (!set_text(key, list->items[index], CONF_ADDRESS_MAX, text, why))
        return false;
    list->count = index + 1;
    return true;
}

bool conf_key_set(const struct conf_key *key, void *base, uint32_t index, struct bytes text,
                  struct buf *why)
{
    uint64_t value;
    if (key->kind == KEY_LIST)
        return set_item(key, base, index, text, why);
    if (key->kind == KEY_TEXT)
        return set_text(key, (char *)base + key->offset, key->size, text, why);
    if (!parse_number(key, text, &value)) {
        BUF_LIT(why, "must be ");
        conf_key_print_allowed(key, why);
        if (key->kind == KEY_DURATION)
            BUF_LIT(why, ", with a unit: ms, s, m or h");
        if (key->kind == KEY_SIZE)
            BUF_LIT(why, ", in bytes or with k, m or g");
        return false;
    }
    set_number(key, base, value);
    return true;
}

bool conf_key_set_all(const struct conf_key *key, void *base, struct bytes text, struct buf *why)
{
    if (key->kind != KEY_LIST)
        return conf_key_set(key, base, 0, text, why);
    if (text.len == 0 && key->initial[0] == '\0') {
        ((struct conf_list *)(void *)((char *)base + key->offset))->count = 0;
        return true;
    }
    for (uint32_t index = 0;; index++) {
        const char *comma = text.len ? memchr(text.data, ',', text.len) : NULL;
        struct bytes item = bytes_of(text.data, comma ? (size_t)(comma - text.data) : text.len);
        if (!set_item(key, base, index, item, why))
            return false;
        if (!comma)
            return true;
        text = bytes_of(comma + 1, text.len - item.len - 1);
    }
}

static void print_number(const struct conf_key *key, uint64_t value, struct buf *out)
{
    if (key->kind == KEY_DURATION)
        units_print_duration(out, value);
    else if (key->kind == KEY_SIZE)
        units_print_size(out, value);
    else
        buf_uint(out, value);
}

void conf_key_print_allowed(const struct conf_key *key, struct buf *out)
{
    if (key->kind == KEY_BOOL) {
        BUF_LIT(out, "yes or no");
    } else if (key->kind == KEY_ENUM) {
        if (key->choices[1])
            BUF_LIT(out, "one of ");
        for (size_t i = 0; key->choices[i]; i++) {
            buf_text(out, i ? ", " : "");
            buf_text(out, key->choices[i]);
        }
    } else if (key->allowed) {
        buf_text(out, key->allowed);
    } else {
        buf_text(out, key->or_zero ? "0, or " : "");
        print_number(key, key->min, out);
        BUF_LIT(out, " to ");
        print_number(key, key->max, out);
    }
}

void conf_key_print_value(const struct conf_key *key, const void *base, struct buf *out)
{
    if (key->kind == KEY_TEXT)
        buf_text(out, (const char *)base + key->offset);
    else if (key->kind == KEY_BOOL)
        buf_text(out, conf_key_number(key, base) ? "yes" : "no");
    else if (key->kind == KEY_ENUM)
        buf_text(out, key->choices[conf_key_number(key, base)]);
    else
        print_number(key, conf_key_number(key, base), out);
}

static void print_clean(struct buf *out, struct bytes text)
{
    enum { SHOWN = 80 };
    for (size_t i = 0; text.data && i < text.len && i < SHOWN; i++) {
        char c = text.data[i];
        if ((unsigned char)c < 0x20 || c == 0x7f)
            c = '?';
        buf_byte(out, c);
    }
    if (text.len > SHOWN)
        BUF_LIT(out, "...");
}

/* Hides everything between :// and the last @ but a user name. Without :// the text is no URL that
 * we know, so all before the @ goes. */
static void print_without_password(struct buf *out, struct bytes text)
{
    const char *at = text.data ? memrchr(text.data, '@', text.len) : NULL;
    if (!at) {
        print_clean(out, text);
        return;
    }
    size_t login_len = (size_t)(at - text.data);
    const char *slashes = memmem(text.data, login_len, "://", 3);
    if (slashes) {
        const char *user = slashes + 3;
        const char *colon = memchr(user, ':', (size_t)(at - user));
        print_clean(out, bytes_of(text.data, (size_t)((colon ? colon + 1 : user) - text.data)));
    }
    BUF_LIT(out, "***");
    print_clean(out, bytes_of(at, text.len - login_len));
}

void conf_key_print_given(const struct conf_key *key, struct bytes text, struct buf *out)
{
    if (key->secret == SECRET_WHOLE)
        buf_text(out, text.len ? "***" : "");
    else if (key->secret == SECRET_PASSWORD)
        print_without_password(out, text);
    else
        print_clean(out, text);
}

bool conf_key_equal(const struct conf_key *key, const void *a, const void *b)
{
    if (key->kind != KEY_LIST && key->kind != KEY_TEXT)
        return conf_key_number(key, a) == conf_key_number(key, b);
    const char *at_a = (const char *)a + key->offset;
    const char *at_b = (const char *)b + key->offset;
    if (key->kind == KEY_TEXT)
        return strcmp(at_a, at_b) == 0;
    const struct conf_list *list_a = (const struct conf_list *)(const void *)at_a;
    const struct conf_list *list_b = (const struct conf_list *)(const void *)at_b;
    if (list_a->count != list_b->count)
        return false;
    for (uint32_t i = 0; i < list_a->count; i++) {
        if (strcmp(list_a->items[i], list_b->items[i]) != 0)
            return false;
    }
    return true;
}
