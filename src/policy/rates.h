/* rates.h: how fast one viewer may send each type of message.
 *
 * A viewer that never sent a limited type has none of this: buckets appear when first used, in one allocation that has room for as many
 * types as the conf limits. An entry is found by its type's name (a hash of it), not by its index, so a reload that moves types about
 * leaves each debt with its type; entries of types that are limited no longer give way when room is needed.
 *
 * Path:      intents -> [rates].
 * Threads:   the worker's that owns the viewer.
 * Ownership: the caller owns *rates; free with rates_free().
 * Limits:    8 bytes for each type with a rate, 256 types at most.
 */
#pragma once

#include "conf/conf.h"

struct rates;

/* Takes one token of the type. Returns 0, or the milliseconds until one will be there (also when memory is out). A type without rate
 * costs nothing. now_ms: a monotonic clock modulo 2^32. */
uint32_t rates_take(struct rates **rates, const struct conf *conf, const struct conf_type *type,
                    uint32_t now_ms);

/* What it takes of memory; 0 for NULL. */
size_t rates_bytes(const struct rates *rates);

void rates_free(struct rates *rates); /* NULL is fine */
