/* load.h: from text and -o to a checked snapshot; the inside of conf_load().
 *
 * Path:      conf.c -> [load] (libconfuse, -o) -> resolve (what belongs together) -> snapshot.
 * Threads:   one at a time (the main thread): libconfuse's scanner and its callbacks' context are
 *            process-wide.
 * Ownership: struct load lives for one call and borrows everything; the snapshot is the caller's.
 * Limits:    LOAD_TEXT_MAX bytes of text, LOAD_UNKNOWN_MAX unknown keys told in one go.
 */
#pragma once

#include "conf/keys.h"

enum { LOAD_TEXT_MAX = 1 << 20, LOAD_UNKNOWN_MAX = 16, LOAD_NAME_MAX = 64 };

/* Where a value came from: a line (> 0), an -o (ORIGIN_OVERRIDE - its index), or neither. */
enum { ORIGIN_NONE = 0, ORIGIN_SHIPPED = -1, ORIGIN_OVERRIDE = -2 };

/* A key that the file has and we have not. */
struct load_unknown {
    const char *section;
    char name[LOAD_NAME_MAX];
    bool told;
};

struct load {
    struct conf *conf;
    const char *label; /* the file's path, or what stands in its place */
    const struct conf_override *overrides;
    size_t override_count;
    struct buf *errors;
    struct buf *warnings;
    size_t errors_start; /* what stood in errors before */
    int origin[KEYS_MAX];
    int lane_origin[LANE_COUNT][TITLED_KEYS_MAX];
    int type_origin[CONF_TYPES_MAX][TITLED_KEYS_MAX];
    int ticket_key_origin[AUTH_KEYS_MAX][TITLED_KEYS_MAX];
    struct load_unknown unknown[LOAD_UNKNOWN_MAX];
    size_t unknown_count;
    const void *refused_section; /* a titled section whose bad title was told already */
};

/* One key in one place: its struct and its origin. */
struct load_slot {
    const struct conf_key *key;
    const char *title; /* NULL in plain sections */
    void *base;
    int *origin;
};

/* Makes a snapshot of text (NULL data: the shipped conf) and the overrides. label names the text
 * in messages. As conf_load(). */
struct conf *load_conf(const char *label, struct bytes text, const struct conf_override *overrides,
                       size_t count, struct buf *errors, struct buf *warnings);

/* Fills the slot of a key; a lane or type that is not there gives false with the reason in *why. A
 * new type or key of tickets is added. */
bool load_slot(struct load *load, const struct conf_key *key, struct bytes title,
               struct load_slot *slot, struct buf *why);

/* Sets every value to its default and forgets errors; each reading of the text begins here. */
void load_reset(struct load *load);

/* Takes the text into load->conf: file.c. The result is in load->errors. */
void load_file(struct load *load, struct bytes text);

/* Reads a file, at most one byte more than max, which the caller refuses. Returns 0 or an errno. */
int load_read(const char *path, size_t max, struct buf *out);

/* Appends `label:line: `, or `label: ` when line is 0. */
void load_print_place(const struct load *load, struct buf *out, int line);

/* Appends text with control characters as `?`: names come from files, and a problem is one line. */
void load_print_clean(struct buf *out, struct bytes text);

/* Appends one line about a value: where it was given, name, value, and the reason. `value` NULL:
 * what the slot holds. */
void load_tell(const struct load *load, struct buf *out, const struct load_slot *slot,
               const struct bytes *value, struct bytes reason);

/* Appends the sentence for a key or section that is unknown: the nearest one, or what there is. */
void load_print_unknown_key(const char *section, struct bytes name, struct buf *out);
void load_print_unknown_section(struct bytes name, struct buf *out);

/* Makes conf->auth_keys of the key sections: ticket_keys.c. */
void load_ticket_keys(struct load *load);

/* Fills what depends on the machine, lets types follow "*", checks what belongs together:
 * resolve.c. */
void load_resolve(struct load *load);
