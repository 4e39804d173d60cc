/* units.h: durations and sizes as people write them.
 *
 * Threads:   any; no state. conf_parse_duration_ms() and conf_parse_size() are declared in conf.h.
 */
#pragma once

#include "base/bytes.h"

/* Decimal digits only, no sign. Returns 0 or -1. */
int units_parse_uint(struct bytes text, uint64_t *out);

/* Appends the value with the largest unit that divides it: 0, 20ms, 75s, 2h; 512, 64k, 1g. */
void units_print_duration(struct buf *out, uint64_t ms);
void units_print_size(struct buf *out, uint64_t bytes);
