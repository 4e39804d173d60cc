/* log.h: one event a line on stderr, for journald and for people.
 *
 * Text form: `<6>info  event words key=value key="a value"`, with a time when stderr is not journald; JSON form: one
 * object a line. Fields are typed, so both forms are well-formed whatever the values hold.
 *
 *     log_info("listening", LOG_STR("address", text), LOG_UINT("workers", n));
 *
 * What a peer can cause goes through log_limited(): at most LOG_LIMIT_BURST lines per site and 10 s, then one that
 * tells how many were hidden.
 *
 * Threads:   any; a line is one write().
 * Limits:    a line is cut at 4,096 bytes.
 */
#pragma once

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    enum { LOG_FIELD_END, LOG_FIELD_BYTES, LOG_FIELD_INT, LOG_FIELD_UINT } kind;
    struct bytes text;
    uint64_t number;
};

#define LOG_BYTES(key_, text_)                                                                     \
    ((struct log_field){.key = (key_), .kind = LOG_FIELD_BYTES, .text = (text_)})
#define LOG_STR(key_, text_) LOG_BYTES((key_), bytes_str(text_))
#define LOG_UINT(key_, value_)                                                                     \
    ((struct log_field){.key = (key_), .kind = LOG_FIELD_UINT, .number = (uint64_t)(value_)})
#define LOG_INT(key_, value_)                                                                      \
    ((struct log_field){                                                                           \
        .key = (key_), .kind = LOG_FIELD_INT, .number = (uint64_t)(int64_t)(value_)})

/* May be called again at any time (reload). */
void log_configure(enum log_format format, enum log_level level);

bool log_enabled(enum log_level level);

/* Writes one line; fields end with an entry of kind LOG_FIELD_END. */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* One line of the log per line of text, each with the event and the field `what`. */
void log_lines(enum log_level level, const char *event, struct bytes text);

enum { LOG_LIMIT_BURST = 10, LOG_LIMIT_WINDOW_MS = 10000 };

struct log_limit {
    _Atomic uint64_t window_start_ms;
    _Atomic uint32_t shown;
    _Atomic uint32_t hidden;
};

/* Returns true when a line may be written now; *hidden says how many were not since the last one. */
bool log_limit_take(struct log_limit *limit, uint32_t *hidden);

#define LOG_AT(level_, event_, ...)                                                                \
    do {                                                                                           \
        if (log_enabled(level_))                                                                   \
            log_write((level_), (event_),                                                          \
                      (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}});                  \
    } while (0)

#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)

/* log_limited(LOG_LEVEL_WARN, "event", fields…): each place in the code has a limit of its own. */
#define log_limited(level_, event_, ...)                                                           \
    do {                                                                                           \
        static struct log_limit limit_;                                                            \
        uint32_t hidden_;                                                                          \
        if (log_enabled(level_) && log_limit_take(&limit_, &hidden_))                              \
            log_write((level_), (event_),                                                          \
                      (const struct log_field[]){                                                  \
                          __VA_ARGS__ __VA_OPT__(, ) LOG_UINT("hidden", hidden_), {0}});           \
    } while (0)
