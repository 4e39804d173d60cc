/* keys.h: the table of keys that keys.def writes down, and what can be done with any key alike.
 *
 * Path:      keys.def -> [keys] -> load (file, -o), print (JSON, differences), docs.
 * Threads:   constant tables; any.
 * Ownership: a key's value lives in the struct that the caller passes as base: struct conf for
 *            plain sections, struct conf_lane, conf_type and conf_ticket_key for titled ones.
 */
#pragma once

#include "conf/conf.h"

enum key_kind { KEY_BOOL, KEY_UINT, KEY_DURATION, KEY_SIZE, KEY_ENUM, KEY_TEXT, KEY_LIST };
enum key_secret { NOT_SECRET, SECRET_WHOLE, SECRET_PASSWORD };
enum key_reload { RELOAD_LIVE, RELOAD_NEW, RELOAD_RESTART };
enum section_titles { TITLES_PLAIN, TITLES_LANES, TITLES_TYPES, TITLES_KEYS };

struct conf_key {
    const char *section;
    const char *name;
    enum key_kind kind;
    enum key_secret secret;
    enum key_reload reload;
    bool or_zero; /* 0 is allowed beside min to max */
    size_t offset;
    size_t size;
    uint64_t min;
    uint64_t max;
    const char *const *choices; /* KEY_ENUM: names in the order of the values, NULL at the end */
    /* KEY_TEXT, KEY_LIST (one item): may set *why to something better than `allowed`. */
    bool (*check)(const char *text, const char **why);
    const char *allowed;
    const char *initial; /* conf text; the items of a list with commas between */
    const char *sentence;
};

struct conf_section {
    const char *name;
    enum section_titles titles;
    const char *sentence;
};

struct conf_shipped {
    const char *section;
    const char *title;
    const char *key;
    const char *value;
};

/* Bounds that arrays are sized by; the tests compare them with the tables. */
enum { KEYS_MAX = 160, SECTIONS_MAX = 24, SECTION_KEYS_MAX = 48, TITLED_KEYS_MAX = 16 };

extern const struct conf_key conf_keys[];
extern const size_t conf_key_count;
extern const struct conf_section conf_sections[];
extern const size_t conf_section_count;
extern const struct conf_shipped conf_shipped[];
extern const size_t conf_shipped_count;

const struct conf_section *conf_section_find(struct bytes name);

/* The keys of a section stand together: its first key, and how many there are. */
const struct conf_key *conf_section_keys(const char *section, size_t *count);

const struct conf_key *conf_key_find(const char *section, struct bytes name);

/* Index of a lane's name, or -1. */
int conf_lane_find(struct bytes name);

/* Appends a type that is not there yet, all zero, and returns it; NULL when there are
 * CONF_TYPES_MAX. */
struct conf_type *conf_type_add(struct conf *conf, struct bytes name);

/* The same for a key of tickets; NULL when there are AUTH_KEYS_MAX. */
struct conf_ticket_key *conf_ticket_key_add(struct conf *conf, struct bytes name);

/* Sets the value from conf text. For lists, sets item `index` and the count to index + 1. Returns
 * false with the reason (`must be 1 to 64`) appended to *why; the value is then unchanged. */
bool conf_key_set(const struct conf_key *key, void *base, uint32_t index, struct bytes text,
                  struct buf *why);

/* The same for a whole list with commas between its items, which may be empty where its default is; other kinds as above. */
bool conf_key_set_all(const struct conf_key *key, void *base, struct bytes text, struct buf *why);

/* The number behind BOOL, UINT, DURATION, SIZE and ENUM. */
uint64_t conf_key_number(const struct conf_key *key, const void *base);

/* What the key may be: `1 to 64`, `one of yes, no`. */
void conf_key_print_allowed(const struct conf_key *key, struct buf *out);

/* Appends the value as conf text without quotes (`75s`), secrets as they are. Not for lists. */
void conf_key_print_value(const struct conf_key *key, const void *base, struct buf *out);

/* Appends text that was given for the key with its secret part replaced, control characters as
 * `?`, cut at 80 bytes. */
void conf_key_print_given(const struct conf_key *key, struct bytes text, struct buf *out);

bool conf_key_equal(const struct conf_key *key, const void *a, const void *b);
