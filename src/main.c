#include "base/log.h"
#include "metrics/metrics.h"
#include "node/doctor.h"
#include "node/node.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { OVERRIDES_MAX = 256 };

enum { OPTION_DOCTOR = 256, OPTION_SAMPLE, OPTION_DOCS, OPTION_METRICS_DOCS };

enum action { ACTION_RUN, ACTION_TEST, ACTION_DOCTOR };

struct arguments {
    enum action action;
    struct node_options options;
    struct conf_override overrides[OVERRIDES_MAX];
};

static const char USAGE[] =
    "usage: halley [-c FILE] [-o key=value]... [-t] [-V] [--doctor]\n"
    "  -c FILE       conf file; without it the built-in conf, which is conf/halley.conf as "
    "shipped\n"
    "  -o key=value  override a key (server.workers=2, type.gift.lane=high), repeatable\n"
    "  -t            check the conf, print the worst-case memory and exit\n"
    "  -V            print the version and exit\n"
    "  --doctor      check the kernel's settings against the conf and say what to set\n"
    "  --print-sample, --print-docs, --print-metrics-docs\n"
    "                print conf/halley.conf, docs/config.md, docs/metrics.md\n"
    "exit codes: 0 ok, 1 --doctor found something, 64 usage, 69 a port or service is unavailable, "
    "70 internal, 78 conf error\n";

static void print(struct buf *text)
{
    fwrite(text->data, 1, text->len, stdout);
    buf_fini(text);
}

static _Noreturn void print_and_exit(void (*write_text)(struct buf *out))
{
    struct buf text = {0};
    write_text(&text);
    print(&text);
    exit(EXIT_OK);
}

/* Options that print something and end are carried out at once. */
static void read_arguments(int argc, char **argv, struct arguments *arguments)
{
    static const struct option longs[] = {
        {"doctor", no_argument, NULL, OPTION_DOCTOR},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {"print-sample", no_argument, NULL, OPTION_SAMPLE},
        {"print-docs", no_argument, NULL, OPTION_DOCS},
        {"print-metrics-docs", no_argument, NULL, OPTION_METRICS_DOCS},
        {0}};
    int option;
    arguments->options.overrides = arguments->overrides;
    while ((option = getopt_long(argc, argv, "c:o:tVh", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            arguments->options.conf_path = optarg;
            break;
        case 'o':
            if (arguments->options.override_count == OVERRIDES_MAX) {
                fprintf(stderr, "halley: more than %d times -o: put the keys into a file (-c)\n",
                        OVERRIDES_MAX);
                exit(EXIT_USAGE);
            }
            arguments->overrides[arguments->options.override_count++].text = optarg;
            break;
        case 't':
            arguments->action = ACTION_TEST;
            break;
        case 'V':
            printf("halley %s\n", HALLEY_VERSION);
            exit(EXIT_OK);
        case 'h':
            fputs(USAGE, stdout);
            exit(EXIT_OK);
        case OPTION_DOCTOR:
            arguments->action = ACTION_DOCTOR;
            break;
        case OPTION_SAMPLE:
            print_and_exit(conf_print_sample);
        case OPTION_DOCS:
            print_and_exit(conf_print_docs);
        case OPTION_METRICS_DOCS:
            print_and_exit(metrics_print_docs);
        default:
            fputs(USAGE, stderr);
            exit(EXIT_USAGE);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "halley: what is %s?\n%s", argv[optind], USAGE);
        exit(EXIT_USAGE);
    }
}

static int test(const struct conf *conf)
{
    struct buf text = {0};
    uint32_t connections = node_connections(conf, node_raise_file_limit());
    conf_print_memory(conf, connections, &text);
    conf_print_drain(conf, connections, &text);
    print(&text);
    printf("conf ok\n");
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    static struct arguments arguments;
    struct buf error = {0};
    struct buf warnings = {0};
    read_arguments(argc, argv, &arguments);
    const struct node_options *options = &arguments.options;
    struct conf *conf = conf_load(options->conf_path, options->overrides, options->override_count,
                                  &error, &warnings);
    if (!conf) {
        fwrite(error.data, 1, error.len, stderr);
        buf_fini(&error);
        buf_fini(&warnings);
        return EXIT_CONF;
    }
    log_configure((enum log_format)conf->log.format, (enum log_level)conf->log.level);
    log_lines(LOG_LEVEL_WARN, "conf warning", buf_view(&warnings));
    int code;
    if (arguments.action == ACTION_TEST)
        code = test(conf);
    else if (arguments.action == ACTION_DOCTOR)
        code = doctor_run(conf, stdout) > 0 ? 1 : EXIT_OK;
    else
        code = node_run(conf, options);
    conf_unref(conf);
    buf_fini(&error);
    buf_fini(&warnings);
    return code;
}
