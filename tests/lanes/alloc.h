/* alloc.h: makes the n-th allocation from now fail, for calls of malloc and calloc (wrap.txt). */
#pragma once

#include <stdbool.h>

/* 1: the next one; 0: none. */
void alloc_fail_at(unsigned n);

/* True when the failure that was asked for has not come yet; asks for it no longer. */
bool alloc_disarm(void);
