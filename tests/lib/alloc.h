/* alloc.h: allocations that fail when a test wants them to.
 *
 * Calls of malloc, calloc and realloc by the objects of the test's binary, in whatever thread; not those inside of shared libraries. CMake
 * wraps the three where it links alloc.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Makes the n-th allocation from now fail. 1: the next one; 0: none. */
void alloc_fail_at(unsigned n);

/* Of those of exactly so many bytes the n-th one: for code that allocates beside others. */
void alloc_fail_sized(size_t bytes, unsigned n);

/* True when the failure that was asked for has not come yet; asks for it no longer. */
bool alloc_disarm(void);
