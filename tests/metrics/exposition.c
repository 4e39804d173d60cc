#include "exposition.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_CAP = 96, SERIES_CAP = 256, SERIES_MAX = 1024, METRICS_MAX = 256 };

struct checker {
    char metric[NAME_CAP]; /* of the last HELP */
    char type[16];         /* of the last TYPE; empty: not seen yet */
    size_t metric_count;
    char metrics[METRICS_MAX][NAME_CAP];
    size_t series_count;
    char series[SERIES_MAX][SERIES_CAP];
    /* The histogram series whose buckets are being read. */
    double bucket_bound;
    double bucket_count;
    bool bucket_infinite;
    bool buckets_open;
};

static size_t name_length(const char *text)
{
    size_t len = 0;
    if (!isalpha((unsigned char)text[0]) && text[0] != '_')
        return 0;
    while (isalnum((unsigned char)text[len]) || text[len] == '_')
        len++;
    return len;
}

static const char *check_help(struct checker *checker, const char *line)
{
    size_t len = name_length(line);
    if (len == 0 || len >= NAME_CAP || line[len] != ' ')
        return "HELP without a metric name";
    if (strlen(line + len) < 4)
        return "HELP without a text";
    if (strchr(line + len, '\\'))
        return "HELP with a backslash";
    if (checker->metric[0] && checker->type[0] == '\0')
        return "HELP before had no TYPE";
    snprintf(checker->metric, NAME_CAP, "%.*s", (int)len, line);
    checker->type[0] = '\0';
    for (size_t i = 0; i < checker->metric_count; i++) {
        if (strcmp(checker->metrics[i], checker->metric) == 0)
            return "metric stands twice";
    }
    if (checker->metric_count == METRICS_MAX)
        return "too many metrics for this parser";
    memcpy(checker->metrics[checker->metric_count++], checker->metric, NAME_CAP);
    return NULL;
}

static const char *check_type(struct checker *checker, const char *line)
{
    size_t len = strlen(checker->metric);
    if (len == 0 || strncmp(line, checker->metric, len) != 0 || line[len] != ' ')
        return "TYPE of another metric than the HELP before it";
    if (checker->type[0])
        return "TYPE stands twice";
    const char *type = line + len + 1;
    if (strcmp(type, "counter") != 0 && strcmp(type, "gauge") != 0 &&
        strcmp(type, "histogram") != 0)
        return "unknown TYPE";
    snprintf(checker->type, sizeof(checker->type), "%s", type);
    return NULL;
}

/* Walks `{name="value",…}` and returns what follows, or NULL. Gives the value of `le`, if
 * there is one. */
static const char *walk_labels(const char *at, char *le, size_t le_cap)
{
    do {
        at++;
        size_t len = name_length(at);
        if (len == 0 || at[len] != '=' || at[len + 1] != '"')
            return NULL;
        const char *value = at + len + 2;
        const char *end = value;
        while (*end && *end != '"' && *end != '\\')
            end++;
        if (*end != '"')
            return NULL;
        if (len == 2 && memcmp(at, "le", 2) == 0)
            snprintf(le, le_cap, "%.*s", (int)(end - value), value);
        at = end + 1;
    } while (*at == ',');
    return *at == '}' ? at + 1 : NULL;
}

static const char *check_bucket(struct checker *checker, const char *le, double value)
{
    if (le[0] == '\0')
        return "bucket without le";
    bool infinite = strcmp(le, "+Inf") == 0;
    double bound = infinite ? 0 : strtod(le, NULL);
    if (checker->buckets_open) {
        if (checker->bucket_infinite)
            return "bucket behind +Inf";
        if (!infinite && bound <= checker->bucket_bound)
            return "bounds do not rise";
        if (value < checker->bucket_count)
            return "buckets are not cumulative";
    }
    checker->buckets_open = true;
    checker->bucket_bound = bound;
    checker->bucket_count = value;
    checker->bucket_infinite = infinite;
    return NULL;
}

static const char *check_histogram(struct checker *checker, const char *suffix, const char *le,
                                   double value)
{
    if (strcmp(suffix, "_bucket") == 0)
        return check_bucket(checker, le, value);
    if (le[0])
        return "le outside of a bucket";
    if (strcmp(suffix, "_sum") == 0)
        return checker->buckets_open && checker->bucket_infinite ? NULL : "sum before +Inf";
    if (strcmp(suffix, "_count") != 0)
        return "unknown histogram series";
    if (!checker->buckets_open || value < checker->bucket_count || value > checker->bucket_count)
        return "count differs from the +Inf bucket";
    checker->buckets_open = false;
    return NULL;
}

static const char *add_series(struct checker *checker, const char *line, size_t len)
{
    char series[SERIES_CAP];
    if (len >= SERIES_CAP || checker->series_count == SERIES_MAX)
        return "series too long, or too many for this parser";
    snprintf(series, sizeof(series), "%.*s", (int)len, line);
    for (size_t i = 0; i < checker->series_count; i++) {
        if (strcmp(checker->series[i], series) == 0)
            return "series stands twice";
    }
    memcpy(checker->series[checker->series_count++], series, SERIES_CAP);
    return NULL;
}

static const char *check_sample(struct checker *checker, const char *line)
{
    size_t name = name_length(line);
    size_t metric = strlen(checker->metric);
    if (name == 0)
        return "line is no sample";
    if (checker->type[0] == '\0')
        return "sample without HELP and TYPE";
    if (name < metric || strncmp(line, checker->metric, metric) != 0)
        return "sample of another metric than the TYPE before it";
    char le[32] = "";
    const char *at = line + name;
    if (*at == '{')
        at = walk_labels(at, le, sizeof(le));
    if (!at || *at != ' ')
        return "labels are malformed";
    char *end;
    double value = strtod(at + 1, &end);
    if (end == at + 1 || *end || isspace((unsigned char)at[1]))
        return "value is no number";
    const char *why = add_series(checker, line, (size_t)(at - line));
    if (why)
        return why;
    if (strcmp(checker->type, "counter") == 0 && value < 0)
        return "counter below zero";
    char suffix[NAME_CAP];
    snprintf(suffix, sizeof(suffix), "%.*s", (int)(name - metric), line + metric);
    if (strcmp(checker->type, "histogram") == 0)
        return check_histogram(checker, suffix, le, value);
    return suffix[0] ? "sample of another metric than the TYPE before it" : NULL;
}

static const char *check_line(struct checker *checker, const char *line)
{
    if (strncmp(line, "# HELP ", 7) == 0)
        return check_help(checker, line + 7);
    if (strncmp(line, "# TYPE ", 7) == 0)
        return check_type(checker, line + 7);
    return check_sample(checker, line);
}

const char *exposition_check(const char *text, size_t *line)
{
    static struct checker checker; /* too big for a stack */
    memset(&checker, 0, sizeof(checker));
    *line = 0;
    while (*text) {
        char one[1024];
        const char *end = strchr(text, '\n');
        ++*line;
        if (!end)
            return "last line has no line feed";
        if ((size_t)(end - text) >= sizeof(one))
            return "line too long for this parser";
        snprintf(one, sizeof(one), "%.*s", (int)(end - text), text);
        const char *why = check_line(&checker, one);
        if (why)
            return why;
        text = end + 1;
    }
    return checker.buckets_open ? "histogram without a count" : NULL;
}

bool exposition_value(const char *text, const char *series, double *value)
{
    size_t len = strlen(series);
    for (const char *at = text; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        if (strncmp(at, series, len) == 0 && at[len] == ' ') {
            *value = strtod(at + len + 1, NULL);
            return true;
        }
    }
    return false;
}
