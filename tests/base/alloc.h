/* alloc.h: makes the n-th allocation from now fail, for calls of calloc and realloc (see wrap.txt). */
#pragma once

/* 1: the next one; 0: none. */
void alloc_fail_at(unsigned n);
