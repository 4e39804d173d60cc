#include "lib/alloc.h"

#include <stdatomic.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);

static _Atomic unsigned countdown;
static _Atomic size_t sized; /* 0: all sizes count */

void alloc_fail_at(unsigned n)
{
    alloc_fail_sized(0, n);
}

void alloc_fail_sized(size_t bytes, unsigned n)
{
    atomic_store(&countdown, 0);
    atomic_store(&sized, bytes);
    atomic_store(&countdown, n);
}

bool alloc_disarm(void)
{
    return atomic_exchange(&countdown, 0) > 0;
}

static bool fails_now(size_t bytes)
{
    size_t only = atomic_load(&sized);
    unsigned left = only == 0 || only == bytes ? atomic_load(&countdown) : 0;
    while (left > 0 && !atomic_compare_exchange_weak(&countdown, &left, left - 1))
        continue;
    return left == 1;
}

void *__wrap_malloc(size_t size)
{
    return fails_now(size) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now(count * size) ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *data, size_t size)
{
    return fails_now(size) ? NULL : __real_realloc(data, size);
}
