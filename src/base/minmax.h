/* minmax.h: the smaller and the larger of two numbers.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stdint.h>

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}
