#include "metrics/metrics.h"

#include "base/log.h"
#include "metrics/process.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#ifndef HALLEY_VERSION
#define HALLEY_VERSION "dev"
#endif

/* The names that the tables in metrics.h use for the kinds of metrics. */
enum metric_kind { COUNTER, GAUGE, HISTOGRAM };

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

/* One series of a plain metric, as a table of metrics.h tells it. */
struct row {
    enum metric_kind kind;
    const char *metric;
    const char *labels;
    const char *help;
    size_t offset; /* of the value in its block */
};

static const struct row worker_rows[] = {
#define X(name, kind, metric, labels, help)                                                        \
    {kind, metric, labels, help, offsetof(struct worker_metrics, name)},
    WORKER_VALUES(X)
#undef X
};

static const struct row node_rows[] = {
#define X(name, kind, metric, labels, help)                                                        \
    {kind, metric, labels, help, offsetof(struct node_metrics, name)},
    NODE_VALUES(X)
#undef X
};

enum { WORKER_ROWS = sizeof(worker_rows) / sizeof(worker_rows[0]) };
enum { NODE_ROWS = sizeof(node_rows) / sizeof(node_rows[0]) };

/* Metrics whose series are counted in arrays or read from the kernel: X(name, kind, metric, label
 * names, help). */
#define FAMILIES(X)                                                                                \
    X(FAMILY_WORKER_VIEWERS, GAUGE, "halley_worker_viewers", "worker",                             \
      "Viewers of each worker; unequal numbers are skew.")                                         \
    X(FAMILY_CLOSES, COUNTER, "halley_closes_total", "reason", "Connections closed, by reason.")   \
    X(FAMILY_HANDSHAKES, COUNTER, "halley_handshakes_total", "result",                             \
      "Handshakes answered, by result.")                                                           \
    X(FAMILY_DROPS, COUNTER, "halley_dropped_total", "lane, reason",                               \
      "Messages that did not reach a viewer or a worker.")                                         \
    X(FAMILY_SEGMENTS, GAUGE, "halley_viewers_by_segment", "bytes",                                \
      "Viewers by the size of a TCP segment to them: so many bytes at least, less than the next.") \
    X(FAMILY_ERRORS, COUNTER, "halley_errors_total", "code", "Error answers to viewers.")          \
    X(FAMILY_TICKETS, COUNTER, "halley_tickets_total", "result",                                   \
      "Tickets judged, by what came of them.")                                                     \
    X(FAMILY_MESSAGES, COUNTER, "halley_messages_total", "lane",                                   \
      "Messages received from the broker.")                                                        \
    X(FAMILY_SAMPLED, COUNTER, "halley_sampled_total", "type, lane",                               \
      "Messages that limits.room_rate kept from the viewers of their room, once per node.")        \
    X(FAMILY_FLUSH, HISTOGRAM, "halley_flush_seconds", "", "Time of one flush slice of a worker.") \
    X(FAMILY_LOOP_LAG, HISTOGRAM, "halley_loop_lag_seconds", "loop",                               \
      "How late a 100 ms tick of an event loop came.")                                             \
    X(FAMILY_RESIDENT, GAUGE, "halley_process_resident_memory_bytes", "",                          \
      "Resident memory of the process.")                                                           \
    X(FAMILY_VIRTUAL, GAUGE, "halley_process_virtual_memory_bytes", "",                            \
      "Virtual memory of the process.")                                                            \
    X(FAMILY_CPU, COUNTER, "halley_process_cpu_seconds_total", "mode", "CPU time of the process.") \
    X(FAMILY_THREADS, GAUGE, "halley_process_threads", "", "Threads of the process.")              \
    X(FAMILY_OPEN_FDS, GAUGE, "halley_process_open_fds", "",                                       \
      "Open files and sockets; before Linux 6.2 counted up to 10000 only.")                        \
    X(FAMILY_MAX_FDS, GAUGE, "halley_process_max_fds", "", "The file limit of the process.")       \
    X(FAMILY_START, GAUGE, "halley_process_start_time_seconds", "",                                \
      "When the process started, in seconds since 1970.")                                          \
    X(FAMILY_BUILD, GAUGE, "halley_build_info", "version", "Always 1; the version is the label.")

enum family {
#define X(name, kind, metric, labels, help) name,
    FAMILIES(X)
#undef X
        FAMILY_COUNT
};

static const struct row families[] = {
#define X(name, kind, metric, labels, help) {kind, metric, labels, help, 0},
    FAMILIES(X)
#undef X
};

struct close_fact {
    uint16_t code;
    int level;
    const char *label;
    const char *text;
};

static const struct close_fact close_facts[] = {
#define X(name, code, level, label, text) {code, LOG_LEVEL_##level, label, text},
    CLOSE_REASONS(X)
#undef X
};

struct handshake_fact {
    int status;
    const char *label;
};

static const struct handshake_fact handshake_facts[] = {
#define X(name, status, label) {status, label},
    HANDSHAKE_RESULTS(X)
#undef X
};

struct drop_fact {
    const char *label;
    const char *text;
};

static const struct drop_fact drop_facts[] = {
#define X(name, label, text) {label, text},
    DROP_REASONS(X)
#undef X
};

/* Flush slices are tens of microseconds to milliseconds; loops that are late by 100 ms are in
 * trouble. */
const uint32_t histogram_bounds_us[HISTOGRAM_BUCKETS - 1] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 1000000,
};

const uint16_t segment_floors[SEGMENT_CLASSES] = {
    0, 536, 1000, 1160, 1208, 1240, 1300, 1340, 1360, 1388, 1400, 1428, 1440, 1448, 1460, 8948,
};

unsigned segment_class(uint32_t bytes)
{
    unsigned class = SEGMENT_CLASSES - 1;
    while (class > 0 && bytes < segment_floors[class])
        class --;
    return class;
}

void histogram_add(struct histogram *histogram, uint64_t us)
{
    size_t bucket = 0;
    while (bucket < HISTOGRAM_BUCKETS - 1 && us > histogram_bounds_us[bucket])
        bucket++;
    metric_add(&histogram->buckets[bucket], 1);
    metric_add(&histogram->sum_us, us);
}

uint16_t close_reason_code(enum close_reason reason)
{
    return close_facts[reason].code;
}

const char *close_reason_label(enum close_reason reason)
{
    return close_facts[reason].label;
}

const char *close_reason_text(enum close_reason reason)
{
    return close_facts[reason].text;
}

int close_reason_level(enum close_reason reason)
{
    return close_facts[reason].level;
}

/* What is being printed, so that the helpers below take one argument. */
struct printer {
    struct buf *out;
    const struct node_metrics *node;
    struct worker_metrics *const *workers;
    size_t count;
};

static void print_head(struct buf *out, const struct row *row)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", row->metric, row->help, row->metric,
               kind_names[row->kind]);
}

/* A gauge that one worker lowers before another raises it may be below zero in between, and is
 * shown so. */
static void print_value(struct buf *out, enum metric_kind kind, uint64_t value)
{
    if (kind == GAUGE && value > INT64_MAX) {
        BUF_LIT(out, "-");
        value = 0 - value;
    }
    buf_uint(out, value);
    BUF_LIT(out, "\n");
}

static void print_row(struct buf *out, const struct row *row, uint64_t value)
{
    buf_text(out, row->metric);
    if (row->labels[0])
        buf_printf(out, "{%s}", row->labels);
    BUF_LIT(out, " ");
    print_value(out, row->kind, value);
}

static bool begins_metric(const struct row *rows, size_t i)
{
    return i == 0 || strcmp(rows[i].metric, rows[i - 1].metric) != 0;
}

static uint64_t value_at(const void *block, size_t offset)
{
    return metric_get((const _Atomic uint64_t *)(const void *)((const char *)block + offset));
}

/* Adds up the value at an offset over all workers. */
static uint64_t sum_at(const struct printer *printer, size_t offset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < printer->count; i++)
        sum += value_at(printer->workers[i], offset);
    return sum;
}

static void print_rows(const struct printer *printer)
{
    for (size_t i = 0; i < WORKER_ROWS; i++) {
        if (begins_metric(worker_rows, i))
            print_head(printer->out, &worker_rows[i]);
        print_row(printer->out, &worker_rows[i], sum_at(printer, worker_rows[i].offset));
    }
    for (size_t i = 0; i < NODE_ROWS; i++) {
        if (begins_metric(node_rows, i))
            print_head(printer->out, &node_rows[i]);
        print_row(printer->out, &node_rows[i], value_at(printer->node, node_rows[i].offset));
    }
}

/* One series of a family with a single label. */
static void print_labelled(struct buf *out, enum family family, const char *label, uint64_t value)
{
    const struct row *row = &families[family];
    buf_printf(out, "%s{%s=\"%s\"} ", row->metric, row->labels, label);
    print_value(out, row->kind, value);
}

static void print_worker_viewers(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_WORKER_VIEWERS]);
    for (size_t i = 0; i < printer->count; i++) {
        uint64_t viewers = 0;
        for (size_t r = 0; r < WORKER_ROWS; r++) {
            if (strcmp(worker_rows[r].metric, "halley_viewers") == 0)
                viewers += value_at(printer->workers[i], worker_rows[r].offset);
        }
        char label[24];
        snprintf(label, sizeof(label), "%zu", i);
        print_labelled(printer->out, FAMILY_WORKER_VIEWERS, label, viewers);
    }
}

static void print_closes(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_CLOSES]);
    for (size_t i = 0; i < CLOSE_REASON_COUNT; i++) {
        size_t offset = offsetof(struct worker_metrics, closes) + i * sizeof(uint64_t);
        print_labelled(printer->out, FAMILY_CLOSES, close_facts[i].label, sum_at(printer, offset));
    }
}

static void print_handshakes(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_HANDSHAKES]);
    for (size_t i = 0; i < HANDSHAKE_RESULT_COUNT; i++) {
        size_t offset = offsetof(struct worker_metrics, handshakes) + i * sizeof(uint64_t);
        print_labelled(printer->out, FAMILY_HANDSHAKES, handshake_facts[i].label,
                       sum_at(printer, offset));
    }
}

static void print_tickets(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_TICKETS]);
    for (size_t i = 0; i < AUTH_RESULT_COUNT; i++) {
        size_t offset = offsetof(struct worker_metrics, tickets) + i * sizeof(uint64_t);
        print_labelled(printer->out, FAMILY_TICKETS, auth_result_label((enum auth_result)i),
                       sum_at(printer, offset));
    }
}

static void print_drops(const struct printer *printer)
{
    const struct row *family = &families[FAMILY_DROPS];
    print_head(printer->out, family);
    for (size_t reason = 0; reason < DROP_REASON_COUNT; reason++) {
        for (size_t lane = 0; lane < LANE_COUNT; lane++) {
            size_t offset = offsetof(struct worker_metrics, drops) +
                            (reason * LANE_COUNT + lane) * sizeof(uint64_t);
            buf_printf(printer->out, "%s{lane=\"%s\",reason=\"%s\"} ", family->metric,
                       lane_name((enum lane)lane), drop_facts[reason].label);
            print_value(printer->out, COUNTER, sum_at(printer, offset));
        }
    }
}

static void print_segments(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_SEGMENTS]);
    for (size_t i = 0; i < SEGMENT_CLASSES; i++) {
        char label[8];
        snprintf(label, sizeof(label), "%u", segment_floors[i]);
        size_t offset = offsetof(struct worker_metrics, segments) + i * sizeof(uint64_t);
        print_labelled(printer->out, FAMILY_SEGMENTS, label, sum_at(printer, offset));
    }
}

static void print_errors(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_ERRORS]);
    for (size_t i = 0; i < ERROR_CODE_COUNT; i++) {
        size_t offset = offsetof(struct worker_metrics, errors) + i * sizeof(uint64_t);
        print_labelled(printer->out, FAMILY_ERRORS, error_code_name((enum error_code)i),
                       sum_at(printer, offset));
    }
}

static void print_messages(const struct printer *printer)
{
    print_head(printer->out, &families[FAMILY_MESSAGES]);
    for (size_t i = 0; i < LANE_COUNT; i++)
        print_labelled(printer->out, FAMILY_MESSAGES, lane_name((enum lane)i),
                       metric_get(&printer->node->by_lane[i]));
}

void sampled_count(struct sampled_types *sampled, const char *type, enum lane lane)
{
    uint32_t at = 0;
    while (at < sampled->count &&
           (sampled->rows[at].lane != lane || strcmp(sampled->rows[at].type, type) != 0))
        at++;
    if (at >= SAMPLED_TYPES - 1) {
        at = SAMPLED_TYPES - 1;
        type = "others";
    }
    if (at >= sampled->count) {
        sampled->count = at + 1;
        snprintf(sampled->rows[at].type, sizeof(sampled->rows[at].type), "%s", type);
        sampled->rows[at].lane = lane;
    }
    sampled->rows[at].messages++;
}

static void print_sampled(const struct printer *printer)
{
    const struct sampled_types *sampled = &printer->node->sampled;
    print_head(printer->out, &families[FAMILY_SAMPLED]);
    for (uint32_t i = 0; i < sampled->count; i++) {
        buf_printf(printer->out, "%s{type=\"%s\",lane=\"%s\"} ", families[FAMILY_SAMPLED].metric,
                   sampled->rows[i].type, lane_name(sampled->rows[i].lane));
        print_value(printer->out, COUNTER, sampled->rows[i].messages);
    }
}

/* Microseconds as seconds, without the zeros at the end that say nothing. */
static void print_seconds(struct buf *out, uint64_t us)
{
    buf_printf(out, "%" PRIu64 ".%06u", us / 1000000, (unsigned)(us % 1000000));
    while (!out->failed && out->data[out->len - 1] == '0' && out->data[out->len - 2] != '.')
        out->len--;
}

/* A histogram added up, not atomic any more. */
struct histogram_sum {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t sum_us;
};

static void sum_histogram(struct histogram_sum *sum, const struct histogram *histogram)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        sum->buckets[i] += metric_get(&histogram->buckets[i]);
    sum->sum_us += metric_get(&histogram->sum_us);
}

/* labels: empty, or `name="value"`. */
static void print_histogram(struct buf *out, enum family family, const char *labels,
                            const struct histogram_sum *sum)
{
    const char *metric = families[family].metric;
    const char *comma = labels[0] ? "," : "";
    uint64_t count = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += sum->buckets[i];
        buf_printf(out, "%s_bucket{%s%sle=\"", metric, labels, comma);
        if (i < HISTOGRAM_BUCKETS - 1)
            print_seconds(out, histogram_bounds_us[i]);
        else
            BUF_LIT(out, "+Inf");
        buf_printf(out, "\"} %" PRIu64 "\n", count);
    }
    const char *open = labels[0] ? "{" : "";
    const char *close = labels[0] ? "}" : "";
    buf_printf(out, "%s_sum%s%s%s ", metric, open, labels, close);
    print_seconds(out, sum->sum_us);
    buf_printf(out, "\n%s_count%s%s%s %" PRIu64 "\n", metric, open, labels, close, count);
}

static void print_histograms(const struct printer *printer)
{
    struct histogram_sum flush = {0};
    struct histogram_sum worker_lag = {0};
    struct histogram_sum main_lag = {0};
    for (size_t i = 0; i < printer->count; i++) {
        sum_histogram(&flush, &printer->workers[i]->flush);
        sum_histogram(&worker_lag, &printer->workers[i]->loop_lag);
    }
    sum_histogram(&main_lag, &printer->node->loop_lag);
    print_head(printer->out, &families[FAMILY_FLUSH]);
    print_histogram(printer->out, FAMILY_FLUSH, "", &flush);
    print_head(printer->out, &families[FAMILY_LOOP_LAG]);
    print_histogram(printer->out, FAMILY_LOOP_LAG, "loop=\"worker\"", &worker_lag);
    print_histogram(printer->out, FAMILY_LOOP_LAG, "loop=\"main\"", &main_lag);
}

static void print_single(struct buf *out, enum family family, uint64_t value)
{
    print_head(out, &families[family]);
    buf_printf(out, "%s %" PRIu64 "\n", families[family].metric, value);
}

static void print_cpu(struct buf *out, const char *mode, uint64_t us)
{
    buf_printf(out, "%s{mode=\"%s\"} ", families[FAMILY_CPU].metric, mode);
    print_seconds(out, us);
    BUF_LIT(out, "\n");
}

static void print_process(struct buf *out)
{
    struct process_stats stats;
    process_read(&stats);
    print_single(out, FAMILY_RESIDENT, stats.resident_bytes);
    print_single(out, FAMILY_VIRTUAL, stats.virtual_bytes);
    print_head(out, &families[FAMILY_CPU]);
    print_cpu(out, "user", stats.cpu_user_us);
    print_cpu(out, "system", stats.cpu_system_us);
    print_single(out, FAMILY_THREADS, stats.threads);
    print_single(out, FAMILY_OPEN_FDS, stats.open_fds);
    print_single(out, FAMILY_MAX_FDS, stats.max_fds);
    print_head(out, &families[FAMILY_START]);
    buf_printf(out, "%s ", families[FAMILY_START].metric);
    print_seconds(out, stats.start_unix_ms * 1000);
    BUF_LIT(out, "\n");
    print_head(out, &families[FAMILY_BUILD]);
    print_labelled(out, FAMILY_BUILD, HALLEY_VERSION, 1);
}

void metrics_print(struct buf *out, const struct node_metrics *node,
                   struct worker_metrics *const *workers, size_t count)
{
    const struct printer printer = {out, node, workers, count};
    print_rows(&printer);
    print_worker_viewers(&printer);
    print_closes(&printer);
    print_handshakes(&printer);
    print_drops(&printer);
    print_segments(&printer);
    print_errors(&printer);
    print_tickets(&printer);
    print_messages(&printer);
    print_sampled(&printer);
    print_histograms(&printer);
    print_process(out);
}

/* The rows of one metric make one line of the document, their labels side by side. */
static void doc_rows(struct buf *out, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count;) {
        const struct row *first = &rows[i];
        buf_printf(out, "| `%s` | %s | ", first->metric, kind_names[first->kind]);
        do {
            if (rows[i].labels[0])
                buf_printf(out, "%s`%s`", &rows[i] == first ? "" : ", ", rows[i].labels);
            i++;
        } while (i < count && !begins_metric(rows, i));
        buf_printf(out, " | %s |\n", first->help);
    }
}

static void doc_families(struct buf *out)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        const struct row *family = &families[i];
        const char *tick = family->labels[0] ? "`" : "";
        buf_printf(out, "| `%s` | %s | %s%s%s | %s |\n", family->metric, kind_names[family->kind],
                   tick, family->labels, tick, family->help);
    }
}

static void doc_labels(struct buf *out)
{
    BUF_LIT(out, "\n## Close reasons\n\n"
                 "`halley_closes_total{reason}`. Code 0: no close frame is sent.\n\n"
                 "| reason | close code | meaning |\n| --- | --- | --- |\n");
    for (size_t i = 0; i < CLOSE_REASON_COUNT; i++)
        buf_printf(out, "| `%s` | %u | %s |\n", close_facts[i].label, close_facts[i].code,
                   close_facts[i].text);
    BUF_LIT(out, "\n## Handshake results\n\n"
                 "`halley_handshakes_total{result}`. Status 0: nothing is answered.\n\n"
                 "| result | HTTP status |\n| --- | --- |\n");
    for (size_t i = 0; i < HANDSHAKE_RESULT_COUNT; i++)
        buf_printf(out, "| `%s` | %d |\n", handshake_facts[i].label, handshake_facts[i].status);
    BUF_LIT(out, "\n## Ticket results\n\n"
                 "`halley_tickets_total{result}`.\n\n"
                 "| result | meaning |\n| --- | --- |\n");
    for (int i = 0; i < AUTH_RESULT_COUNT; i++)
        buf_printf(out, "| `%s` | %s |\n", auth_result_label((enum auth_result)i),
                   auth_result_text((enum auth_result)i));
    BUF_LIT(out, "\n## Drop reasons\n\n"
                 "`halley_dropped_total{lane,reason}`.\n\n"
                 "| reason | meaning |\n| --- | --- |\n");
    for (size_t i = 0; i < DROP_REASON_COUNT; i++)
        buf_printf(out, "| `%s` | %s |\n", drop_facts[i].label, drop_facts[i].text);
}

void metrics_print_docs(struct buf *out)
{
    BUF_LIT(
        out,
        "# Metrics\n\n"
        "Made from the tables in `src/metrics` by `halley --print-metrics-docs`; edit those.\n"
        "`GET /metrics` on `admin.listen` answers in the Prometheus text format 0.0.4.\n\n"
        "Useful quotients: `rate(halley_write_frames_total[1m]) / rate(halley_writes_total[1m])`"
        " is the number of frames per write,\n"
        "`max(halley_worker_viewers) / avg(halley_worker_viewers)` the skew of the workers.\n\n"
        "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    doc_rows(out, worker_rows, WORKER_ROWS);
    doc_rows(out, node_rows, NODE_ROWS);
    doc_families(out);
    doc_labels(out);
}
