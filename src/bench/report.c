#include "bench/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Figures that text and JSON both show. */
struct figures {
    uint64_t delivered; /* measured messages of both groups */
    double frames_per_read;
    double cpu_us;    /* server and ksoftirqd, per delivered message */
    double server_us; /* the server alone */
    double ksoftirqd_us;
    double server_share; /* of one core */
    double user_share;   /* of the server's time; ticks, so only over seconds */
    double client_share; /* of one core */
    double connect_us;   /* server and ksoftirqd, per viewer */
    double bytes_per_viewer;
    double slab_per_viewer;
    double segments;
};

static double ratio(double over, double under)
{
    return under > 0 ? over / under : 0;
}

static double grown(uint64_t from, uint64_t to)
{
    return (double)to - (double)from;
}

/* A server that has ended counts for nothing. */
static double spent(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) : 0;
}

static struct figures figures_of(const struct bench_options *options,
                                 const struct bench_result *result)
{
    const struct probe *begin = &result->begin;
    const struct probe *end = &result->end;
    const struct probe *opening = &result->opening;
    const struct probe *opened = &result->opened;
    double server = options->pid > 0 ? spent(begin->cpu_ns, end->cpu_ns) : 0;
    double ksoftirqd = grown(begin->ksoftirqd_ns, end->ksoftirqd_ns);
    double user = spent(begin->user_ns, end->user_ns);
    double elapsed_ns = grown(begin->time_ns, end->time_ns);
    struct figures figures = {0};
    uint64_t reads = 0;
    for (int group = 0; group < GROUPS; group++) {
        figures.delivered += result->tallies[group].measured;
        reads += result->tallies[group].reads;
    }
    figures.frames_per_read = ratio((double)figures.delivered, (double)reads);
    /* A server that is behind still works off the warm-up, so what it did meanwhile counts whole. */
    double messages = grown(begin->delivered, end->delivered);
    figures.server_us = ratio(server / 1000, messages);
    figures.ksoftirqd_us = ratio(ksoftirqd / 1000, messages);
    figures.cpu_us = options->pid > 0 ? figures.server_us + figures.ksoftirqd_us : 0;
    figures.server_share = ratio(server, elapsed_ns);
    figures.user_share = ratio(user, user + spent(begin->system_ns, end->system_ns));
    figures.client_share = ratio(grown(begin->client_ns, end->client_ns), elapsed_ns);
    if (options->pid > 0)
        figures.connect_us = (grown(opening->cpu_ns, opened->cpu_ns) +
                              grown(opening->ksoftirqd_ns, opened->ksoftirqd_ns)) /
                             1000 / options->viewers;
    figures.bytes_per_viewer =
        grown(result->fresh.pss_bytes, result->connected.pss_bytes) / options->viewers;
    figures.slab_per_viewer =
        grown(result->fresh.slab_bytes, result->connected.slab_bytes) / options->viewers;
    figures.segments = ratio(grown(begin->tcp_segments, end->tcp_segments), messages);
    return figures;
}

static double quantile_ms(const struct tally *tally, double quantile)
{
    return (double)latency_quantile(&tally->latency, quantile) / 1e6;
}

static double megabytes(uint64_t bytes)
{
    return (double)bytes / 1e6;
}

static void text_group(const struct bench_result *result, int group)
{
    const struct tally *tally = &result->tallies[group];
    static const char *const titles[GROUPS] = {"viewers that read", "viewers that stall",
                                               "messages of the high lane"};
    printf("%s\n", titles[group]);
    printf("  delivered   %" PRIu64, tally->measured);
    if (result->expected[group])
        printf(" of %" PRIu64 " (%.3f %%)", result->expected[group],
               100 * ratio((double)tally->measured, (double)result->expected[group]));
    printf(" messages to %" PRIu64 " viewers, %.1f bytes a frame\n", result->viewers[group],
           ratio((double)tally->bytes, (double)tally->measured));
    printf("  order       lost %" PRIu64 ", duplicates %" PRIu64 ", out of order %" PRIu64
           ", wrong room %" PRIu64 " (warm-up too)\n",
           tally->order.lost, tally->order.duplicates, tally->order.out_of_order,
           tally->wrong_room);
    printf("  latency ms  p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f\n",
           quantile_ms(tally, 0.5), quantile_ms(tally, 0.9), quantile_ms(tally, 0.99),
           quantile_ms(tally, 0.999), (double)tally->latency.max / 1e6);
    if (tally->skip_notices || tally->gap_notices || group == GROUP_STALLING)
        printf("  notices     %" PRIu64 " skipped (%" PRIu64 " messages), %" PRIu64 " gap; %" PRIu64
               " viewers were told, for %" PRIu64 " lost = told, %" PRIu64 " are current\n",
               tally->skip_notices, tally->skipped, tally->gap_notices, tally->told,
               tally->accounted, tally->current);
}

static void text_server(const struct bench_options *options, const struct bench_result *result,
                        const struct figures *figures)
{
    if (options->pid <= 0)
        return;
    printf("server CPU    %.2f µs per delivered message (ksoftirqd %.2f of it), %.0f %% of a core, "
           "%.0f %% of it user\n",
           figures->cpu_us, figures->ksoftirqd_us, 100 * figures->server_share,
           100 * figures->user_share);
    printf("              %.1f µs per viewer that connected and joined\n", figures->connect_us);
    printf("server memory fresh %.2f MB, with viewers %.2f MB (%.0f bytes a viewer), peak %.2f MB",
           megabytes(result->fresh.pss_bytes), megabytes(result->connected.pss_bytes),
           figures->bytes_per_viewer, megabytes(result->peak.pss_bytes));
    if (options->leave_wait > 0)
        printf(", %.1f s after all left %.2f MB", result->left_seconds,
               megabytes(result->left.pss_bytes));
    printf("\n");
}

void report_text(const struct bench_options *options, const struct bench_result *result)
{
    struct figures figures = figures_of(options, result);
    if (options->label[0])
        printf("== %s\n", options->label);
    printf("viewers       %.0f ready in %.2f s (%.0f/s), %u closed later\n", options->viewers,
           result->connect_seconds, ratio(options->viewers, result->connect_seconds),
           result->closed);
    if (result->failure[0])
        printf("first failure %s\n", result->failure);
    printf("published     %" PRIu64 " messages (%.6g/s, %.0f bytes of data), confirmed %" PRIu64
           ", refused %" PRIu64 ", unsent %" PRIu64 ", at most %.2f ms late\n",
           result->publish.published, options->rate, options->size, result->publish.confirmed,
           result->publish.refused, result->publish.unsent,
           (double)result->publish.late_max_ns / 1e6);
    for (int group = 0; group < GROUPS; group++)
        if (result->viewers[group])
            text_group(result, group);
    printf("reads         %.3f frames per read, %.2f TCP segments per message (whole machine)\n",
           figures.frames_per_read, figures.segments);
    text_server(options, result, &figures);
    printf("client CPU    %.0f %% of a core\n", 100 * figures.client_share);
    if (result->connected.slab_bytes)
        printf("kernel        %.0f bytes of socket slabs a viewer (both ends on this machine)\n",
               figures.slab_per_viewer);
}

static void json_text(FILE *file, const char *key, const char *text)
{
    fprintf(file, "\"%s\":\"", key);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(file, "\\%c", *at);
        else if (*at < 32)
            fprintf(file, "\\u%04x", *at);
        else
            fputc(*at, file);
    }
    fprintf(file, "\",");
}

static void json_number(FILE *file, const char *key, double value)
{
    fprintf(file, "\"%s\":%.15g,", key, value);
}

/* Pairs of a bucket's upper end and its count: enough to draw the distribution. */
static void json_histogram(FILE *file, const struct latency *histogram)
{
    const char *comma = "";
    fprintf(file, "\"histogram_ns\":[");
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        if (!histogram->buckets[i])
            continue;
        fprintf(file, "%s[%" PRIu64 ",%" PRIu64 "]", comma, latency_bucket_end(i),
                histogram->buckets[i]);
        comma = ",";
    }
    fprintf(file, "]");
}

static void json_group(FILE *file, const char *name, const struct bench_result *result, int group)
{
    const struct tally *tally = &result->tallies[group];
    fprintf(file, "\"%s\":{", name);
    json_number(file, "viewers", (double)result->viewers[group]);
    json_number(file, "expected", (double)result->expected[group]);
    json_number(file, "delivered", (double)tally->measured);
    json_number(file, "bytes", (double)tally->bytes);
    json_number(file, "reads", (double)tally->reads);
    json_number(file, "lost", (double)tally->order.lost);
    json_number(file, "duplicates", (double)tally->order.duplicates);
    json_number(file, "out_of_order", (double)tally->order.out_of_order);
    json_number(file, "wrong_room", (double)tally->wrong_room);
    json_number(file, "skip_notices", (double)tally->skip_notices);
    json_number(file, "skipped", (double)tally->skipped);
    json_number(file, "gap_notices", (double)tally->gap_notices);
    json_number(file, "told", (double)tally->told);
    json_number(file, "accounted", (double)tally->accounted);
    json_number(file, "current", (double)tally->current);
    json_number(file, "p50_ms", quantile_ms(tally, 0.5));
    json_number(file, "p90_ms", quantile_ms(tally, 0.9));
    json_number(file, "p99_ms", quantile_ms(tally, 0.99));
    json_number(file, "p999_ms", quantile_ms(tally, 0.999));
    json_number(file, "max_ms", (double)tally->latency.max / 1e6);
    json_histogram(file, &tally->latency);
    fprintf(file, "},");
}

static void json_options(FILE *file, const struct bench_options *options)
{
    json_text(file, "label", options->label);
    json_text(file, "url", options->url);
    json_text(file, "as", options->as);
    json_text(file, "lane", options->lane);
    json_number(file, "viewers", options->viewers);
    json_number(file, "rooms", options->rooms);
    json_number(file, "rooms_per_viewer", options_rooms_per_viewer(options));
    json_number(file, "rate", options->rate);
    json_number(file, "size", options->size);
    json_number(file, "seconds", options->seconds);
}

static void json_figures(FILE *file, const struct figures *figures)
{
    json_number(file, "delivered", (double)figures->delivered);
    json_number(file, "frames_per_read", figures->frames_per_read);
    json_number(file, "cpu_us_per_message", figures->cpu_us);
    json_number(file, "server_us_per_message", figures->server_us);
    json_number(file, "ksoftirqd_us_per_message", figures->ksoftirqd_us);
    json_number(file, "server_core_share", figures->server_share);
    json_number(file, "server_user_share", figures->user_share);
    json_number(file, "client_core_share", figures->client_share);
    json_number(file, "cpu_us_per_viewer_opened", figures->connect_us);
    json_number(file, "pss_bytes_per_viewer", figures->bytes_per_viewer);
    json_number(file, "slab_bytes_per_viewer", figures->slab_per_viewer);
    json_number(file, "tcp_segments_per_message", figures->segments);
}

static void json_result(FILE *file, const struct bench_result *result)
{
    json_number(file, "connect_seconds", result->connect_seconds);
    json_number(file, "elapsed_seconds", result->elapsed_seconds);
    json_number(file, "closed", result->closed);
    json_number(file, "close_code", result->close_code);
    json_text(file, "failure", result->failure);
    json_number(file, "published", (double)result->publish.published);
    json_number(file, "confirmed", (double)result->publish.confirmed);
    json_number(file, "refused", (double)result->publish.refused);
    json_number(file, "unsent", (double)result->publish.unsent);
    json_number(file, "publisher_late_max_ms", (double)result->publish.late_max_ns / 1e6);
    json_number(file, "pss_fresh_bytes", (double)result->fresh.pss_bytes);
    json_number(file, "pss_connected_bytes", (double)result->connected.pss_bytes);
    json_number(file, "pss_peak_bytes", (double)result->peak.pss_bytes);
    json_number(file, "pss_left_bytes", (double)result->left.pss_bytes);
    json_number(file, "left_seconds", result->left_seconds);
}

/* What the client counted by itself, to be compared with what the server says that it wrote: every
 * stamped message, whether it was due or not. */
static double counted(const struct bench_result *result)
{
    uint64_t sum = 0;
    for (int group = 0; group < GROUPS; group++) {
        const struct tally *tally = &result->tallies[group];
        sum += tally->messages + tally->order.duplicates + tally->wrong_room + tally->stale;
    }
    return (double)sum;
}

static void json_wave(FILE *file, const struct bench_options *options, const struct wave *wave)
{
    double cpu = spent(wave->from.cpu_ns, wave->to.cpu_ns);
    double ksoftirqd = grown(wave->from.ksoftirqd_ns, wave->to.ksoftirqd_ns);
    double segments = grown(wave->from.tcp_segments, wave->to.tcp_segments);
    fprintf(file, "{");
    json_number(file, "cpu_us_per_viewer", (cpu + ksoftirqd) / 1000 / options->viewers);
    json_number(file, "ksoftirqd_us_per_viewer", ksoftirqd / 1000 / options->viewers);
    json_number(file, "tcp_segments_per_viewer", segments / options->viewers);
    json_number(file, "pss_bytes", (double)wave->memory.pss_bytes);
    fprintf(file, "\"seconds\":%.6g}", wave->seconds);
}

static void json_waves(FILE *file, const struct bench_options *options,
                       const struct bench_result *result)
{
    fprintf(file, "\"waves\":[");
    for (int i = 0; i < (int)options->waves; i++) {
        fprintf(file, "%s", i ? "," : "");
        json_wave(file, options, &result->waves[i]);
    }
    fprintf(file, "],\"drop\":");
    json_wave(file, options, &result->drop);
    fprintf(file, ",");
}

int report_json(const struct bench_options *options, const struct bench_result *result)
{
    struct figures figures = figures_of(options, result);
    FILE *file = fopen(options->json, "we");
    if (!file) {
        fprintf(stderr, "halley-bench: --json %s: %s\n", options->json, strerror(errno));
        return -1;
    }
    fprintf(file, "{");
    json_options(file, options);
    json_figures(file, &figures);
    json_result(file, result);
    json_group(file, "reading", result, GROUP_READING);
    json_group(file, "stalling", result, GROUP_STALLING);
    json_group(file, "high", result, GROUP_HIGH);
    json_number(file, "counted", counted(result));
    json_waves(file, options, result);
    fprintf(file, "\"clean\":%s}\n", result_clean(result) ? "true" : "false");
    if (fclose(file) != 0) {
        fprintf(stderr, "halley-bench: --json %s: %s\n", options->json, strerror(errno));
        return -1;
    }
    return 0;
}
