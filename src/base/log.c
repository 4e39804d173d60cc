#include "base/log.h"

#include "base/check.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static _Atomic int active_format = LOG_FORMAT_TEXT;
static _Atomic int active_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char level_priority[] = {'7', '6', '4', '3'};

/* A line under construction; what does not fit is cut. */
struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
};

static void put(struct line *line, const char *data, size_t len)
{
    size_t room = sizeof(line->text) - 1 - line->len;
    if (len > room)
        len = room;
    memcpy(line->text + line->len, data, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* JSON escapes are readable in the text form too; bytes that are no ASCII are shown as \u00XX, so that a line stays
 * valid JSON whatever a peer sent. */
static void put_quoted(struct line *line, struct bytes text)
{
    put(line, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        char escaped[8];
        if (c == '"' || c == '\\') {
            escaped[0] = '\\';
            escaped[1] = (char)c;
            put(line, escaped, 2);
        } else if (c < 0x20 || c >= 0x7f) {
            snprintf(escaped, sizeof(escaped), "\\u%04x", c);
            put(line, escaped, 6);
        } else {
            put(line, (const char *)&c, 1);
        }
        if (line->len > LINE_MAX_BYTES - 64)
            break;
    }
    put(line, "\"", 1);
}

static bool is_plain(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return text.len > 0;
}

static void put_value(struct line *line, const struct log_field *field, bool json)
{
    char number[24];
    switch (field->kind) {
    case LOG_FIELD_INT:
        snprintf(number, sizeof(number), "%" PRId64, (int64_t)field->number);
        put_text(line, number);
        break;
    case LOG_FIELD_UINT:
        snprintf(number, sizeof(number), "%" PRIu64, field->number);
        put_text(line, number);
        break;
    default:
        if (!json && is_plain(field->text))
            put(line, field->text.data, field->text.len);
        else
            put_quoted(line, field->text);
    }
}

static void put_time(struct line *line)
{
    uint64_t now = clock_unix_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    char text[32];
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + len, sizeof(text) - len, ".%03uZ", (unsigned)(now % 1000));
    put_text(line, text);
}

static void compose_text(struct line *line, enum log_level level, const char *event,
                         const struct log_field *fields)
{
    if (getenv("JOURNAL_STREAM")) {
        char prefix[3] = {'<', level_priority[level], '>'};
        put(line, prefix, sizeof(prefix));
    } else {
        put_time(line);
        put_text(line, " ");
        put_text(line, level_names[level]);
        put_text(line, " ");
    }
    put_text(line, event);
    for (; fields->kind != LOG_FIELD_END; fields++) {
        put_text(line, " ");
        put_text(line, fields->key);
        put_text(line, "=");
        put_value(line, fields, false);
    }
}

static void compose_json(struct line *line, enum log_level level, const char *event,
                         const struct log_field *fields)
{
    put_text(line, "{\"time\":\"");
    put_time(line);
    put_text(line, "\",\"level\":\"");
    put_text(line, level_names[level]);
    put_text(line, "\",\"event\":");
    put_quoted(line, bytes_str(event));
    for (; fields->kind != LOG_FIELD_END; fields++) {
        size_t before = line->len;
        put_text(line, ",");
        put_quoted(line, bytes_str(fields->key));
        put_text(line, ":");
        put_value(line, fields, true);
        if (line->len > LINE_MAX_BYTES - 32) {
            line->len = before; /* a field that does not fit is left out, the object stays whole */
            break;
        }
    }
    put_text(line, "}");
}

void log_configure(enum log_format format, enum log_level level)
{
    atomic_store_explicit(&active_format, format, memory_order_relaxed);
    atomic_store_explicit(&active_level, level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&active_level, memory_order_relaxed);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    struct line line = {.len = 0};
    if (atomic_load_explicit(&active_format, memory_order_relaxed) == LOG_FORMAT_JSON)
        compose_json(&line, level, event, fields);
    else
        compose_text(&line, level, event, fields);
    line.text[line.len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line.text, line.len);
    (void)written; /* nobody is left to tell */
}

void log_lines(enum log_level level, const char *event, struct bytes text)
{
    while (text.len > 0) {
        const char *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len;
        if (len > 0)
            LOG_AT(level, event, LOG_BYTES("what", bytes_of(text.data, len)));
        size_t step = end ? len + 1 : len;
        text = bytes_of(text.data + step, text.len - step);
    }
}

bool log_limit_take(struct log_limit *limit, uint32_t *hidden)
{
    uint64_t now = clock_ms() + 1;
    uint64_t start = atomic_load_explicit(&limit->window_start_ms, memory_order_relaxed);
    if (start == 0 || now - start >= LOG_LIMIT_WINDOW_MS) {
        if (atomic_compare_exchange_strong(&limit->window_start_ms, &start, now))
            atomic_store(&limit->shown, 0);
    }
    if (atomic_fetch_add(&limit->shown, 1) >= LOG_LIMIT_BURST) {
        atomic_fetch_add(&limit->hidden, 1);
        return false;
    }
    *hidden = atomic_exchange(&limit->hidden, 0);
    return true;
}

void check_failed(const char *what, const char *file, int line)
{
    log_error("broken invariant, aborting", LOG_STR("what", what), LOG_STR("file", file),
              LOG_INT("line", line));
    abort();
}
