/* exposition.h: a strict parser of the Prometheus text format 0.0.4, for tests.
 *
 * Stricter than Prometheus: HELP and TYPE stand once before the samples of their metric, these
 * stand together, no series comes twice, histograms are cumulative and end in +Inf, every metric
 * has a help text.
 *
 * Ownership: borrows the text.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Returns NULL when the text is well-formed, or what is wrong in its line number *line. */
const char *exposition_check(const char *text, size_t *line);

/* The value of a series, written as in the text (`name{a="b"}`). Returns false when there is none.
 */
bool exposition_value(const char *text, const char *series, double *value);
