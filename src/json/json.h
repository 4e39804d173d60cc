/* json.h: a strict scanner that finds values and leaves their bytes alone.
 *
 * Messages carry `data` byte for byte, and parse-and-dump libraries do not (docs/design/2026-11-gateway.md), so this
 * one validates (RFC 8259, UTF-8, nesting) and gives back spans of the text that was put in.
 *
 * Path:      frames, Redis payloads, HTTP bodies -> [json] -> protocol, node.
 * Threads:   any; no state.
 * Ownership: spans borrow the scanned text.
 * Limits:    nesting by `max_depth` (arrays and objects count, the outermost is depth 1); no
 *            recursion, so depth costs no stack.
 */
#pragma once

#include "base/bytes.h"

#include <stdbool.h>
#include <sys/types.h>

enum json_kind {
    JSON_ABSENT,
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* One value: its raw text (a string's includes the quotes). kind JSON_ABSENT: no such member. */
struct json_span {
    enum json_kind kind;
    struct bytes raw;
};

/* A member looked for at the top level of an object. */
struct json_field {
    const char *name;
    struct json_span value;
};

enum {
    JSON_OK = 0,
    JSON_ERR_SYNTAX = -5101, /* not one JSON value of the asked kind, or bytes behind it */
    JSON_ERR_DEPTH = -5102,  /* nested deeper than max_depth */
    JSON_ERR_UTF8 = -5103,   /* text is not UTF-8 */
    JSON_ERR_COUNT = -5104   /* more array elements than the caller takes */
};

enum { JSON_DEPTH_MAX = 1024 };

/* Checks that `text` is exactly one JSON value (white space around it allowed); gives the value without that white
 * space in *value (may be NULL). max_depth 1..JSON_DEPTH_MAX. */
int json_check(struct bytes text, int max_depth, struct json_span *value);

/* Checks that `text` is exactly one JSON object and fills the values of the named members; others are validated and
 * skipped. A member that stands twice counts as it stands last. Names are compared after unescaping.
 * On error the fields' values are unspecified. */
int json_object(struct bytes text, int max_depth, struct json_field *fields, size_t count);

/* Checks that `text` is exactly one JSON array and gives the spans of its elements.
 * *count: in, room in elements; out, how many there are. More than that: JSON_ERR_COUNT, and then too all of the text
 * has been checked and the first elements are given. */
int json_array(struct bytes text, int max_depth, struct json_span *elements, size_t *count);

/* Unescapes a JSON_STRING span into out (cap bytes, no terminating NUL), surrogate pairs included.
 * Returns the length, or -1 when it does not fit, holds a lone surrogate, or is no string. */
ssize_t json_unescape(struct json_span value, char *out, size_t cap);

/* The text of a JSON_STRING span: the span's inside where it holds no escape (so of any length), else unescaped into
 * scratch. Returns false where json_unescape() fails. */
bool json_text(struct json_span value, char *scratch, size_t cap, struct bytes *out);

/* Returns true and the value when the span is an integer 0..2^53-1 without sign, fraction or exponent. */
bool json_uint53(struct json_span value, uint64_t *out);

/* Appends text as a JSON string with quotes; `"`, `\` and control characters are escaped, UTF-8 passes. Bytes that are no
 * UTF-8 become U+FFFD. */
void json_quote(struct buf *out, struct bytes text);
