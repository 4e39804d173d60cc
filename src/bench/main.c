#include "bench/bench.h"
#include "bench/follower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool too_late(const struct bench_options *options, const struct bench_result *result)
{
    double p99_ns = (double)latency_quantile(&result->tallies[GROUP_READING].latency, 0.99);
    if (options->p99_limit <= 0 || p99_ns <= options->p99_limit * 1e6)
        return false;
    fprintf(stderr, "halley-bench: p99 is %.2f ms, above --p99-limit %.10g\n", p99_ns / 1e6,
            options->p99_limit);
    return true;
}

static int run_main(int argc, char **argv)
{
    struct bench_options options;
    int wrong = options_parse(argc, argv, &options);
    if (wrong)
        return wrong < 0 ? 0 : wrong;
    struct bench_result *result = malloc(sizeof(*result));
    if (!result) {
        fprintf(stderr, "halley-bench: out of memory\n");
        return EXIT_INTERNAL;
    }
    wrong = bench_run(&options, result);
    if (!wrong) {
        if (!options.quiet)
            report_text(&options, result);
        if (options.json && report_json(&options, result) < 0)
            wrong = EXIT_INTERNAL;
        else if (!result_clean(result) || too_late(&options, result))
            wrong = EXIT_BROKEN;
    }
    free(result);
    return wrong;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "floor") == 0)
        return floor_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "follow") == 0)
        return follow_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "tickets") == 0)
        return tickets_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "run") == 0)
        return run_main(argc - 1, argv + 1);
    return run_main(argc, argv);
}
