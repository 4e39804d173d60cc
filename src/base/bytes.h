/* bytes.h: a borrowed run of bytes, and a growable buffer.
 *
 * Threads:   plain values; the owner's thread.
 * Ownership: struct bytes borrows (until whatever it points into changes); struct buf owns its memory.
 * Limits:    the caller bounds what it appends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const char *data;
    size_t len;
};

#define BYTES_LIT(s) ((struct bytes){"" s "", sizeof(s) - 1})

static inline struct bytes bytes_of(const char *data, size_t len)
{
    return (struct bytes){data, len};
}

static inline struct bytes bytes_str(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool bytes_is(struct bytes a, const char *text)
{
    return bytes_equal(a, bytes_str(text));
}

/* Grows on demand. After a failed allocation `failed` stays set and appends do nothing, so a writer checks once
 * at the end. */
struct buf {
    char *data;
    size_t len;
    size_t cap;
    bool failed;
};

/* Makes room for `more` bytes behind len. Returns false (and sets failed) when memory is out. */
bool buf_reserve(struct buf *buf, size_t more);

void buf_append(struct buf *buf, const void *data, size_t len);

static inline void buf_bytes(struct buf *buf, struct bytes text)
{
    buf_append(buf, text.data, text.len);
}

static inline void buf_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

#define BUF_LIT(buf, s) buf_append((buf), "" s "", sizeof(s) - 1)

void buf_byte(struct buf *buf, char byte);
void buf_uint(struct buf *buf, uint64_t value);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Removes the first n bytes (n <= len). */
void buf_consume(struct buf *buf, size_t n);

/* Forgets the content and the failure, keeps the memory. */
static inline void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

static inline struct bytes buf_view(const struct buf *buf)
{
    return (struct bytes){buf->data, buf->len};
}

/* Frees the memory; the buffer can be used again. */
void buf_fini(struct buf *buf);
