#include "json/json.h"
#include "json/chars.h"

struct scanner {
    const unsigned char *at;
    const unsigned char *end;
    int max_depth;
};

static struct scanner scanner_of(struct bytes text, int max_depth)
{
    struct scanner scanner = {0};
    if (text.len > 0) {
        scanner.at = (const unsigned char *)text.data;
        scanner.end = scanner.at + text.len;
    }
    scanner.max_depth = max_depth > JSON_DEPTH_MAX ? JSON_DEPTH_MAX : max_depth;
    return scanner;
}

static void skip_space(struct scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool at_byte(const struct scanner *s, unsigned char byte)
{
    return s->at < s->end && *s->at == byte;
}

/* Returns the length of the escape at `at`, or 0. */
static size_t escape_length(const unsigned char *at, const unsigned char *end)
{
    if (end - at < 2)
        return 0;
    if (at[1] == 'u')
        return json_unicode_escape(at, end) >= 0 ? 6 : 0;
    return json_simple_escape(at[1]) ? 2 : 0;
}

/* From the opening quote to behind the closing one. */
static int scan_string(struct scanner *s)
{
    const unsigned char *at = s->at + 1;
    for (;;) {
        at = json_skip_plain(at, s->end);
        if (at == s->end)
            return JSON_ERR_SYNTAX;
        if (*at == '"') {
            s->at = at + 1;
            return JSON_OK;
        }
        if (*at == '\\') {
            size_t len = escape_length(at, s->end);
            if (len == 0)
                return JSON_ERR_SYNTAX;
            at += len;
            continue;
        }
        if (*at < 0x20)
            return JSON_ERR_SYNTAX;
        do { /* text in Chinese or Arabic is one long run of these */
            size_t len = json_utf8_sequence(at, s->end);
            if (len == 0)
                return JSON_ERR_UTF8;
            at += len;
        } while (at < s->end && *at >= 0x80);
    }
}

static bool scan_digits(struct scanner *s)
{
    const unsigned char *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > start;
}

static int scan_number(struct scanner *s)
{
    if (at_byte(s, '-'))
        s->at++;
    if (at_byte(s, '0'))
        s->at++;
    else if (!scan_digits(s))
        return JSON_ERR_SYNTAX;
    if (at_byte(s, '.')) {
        s->at++;
        if (!scan_digits(s))
            return JSON_ERR_SYNTAX;
    }
    if (at_byte(s, 'e') || at_byte(s, 'E')) {
        s->at++;
        if (at_byte(s, '+') || at_byte(s, '-'))
            s->at++;
        if (!scan_digits(s))
            return JSON_ERR_SYNTAX;
    }
    return JSON_OK;
}

static int scan_word(struct scanner *s, const char *word, size_t len)
{
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return JSON_ERR_SYNTAX;
    s->at += len;
    return JSON_OK;
}

/* Anything but an array or an object; at < end. */
static int scan_scalar(struct scanner *s)
{
    switch (*s->at) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true", 4);
    case 'f':
        return scan_word(s, "false", 5);
    case 'n':
        return scan_word(s, "null", 4);
    default:
        return scan_number(s);
    }
}

/* A member's name and its colon; *name (may be NULL) is the raw text between the quotes. */
static int scan_name(struct scanner *s, struct bytes *name)
{
    skip_space(s);
    if (!at_byte(s, '"'))
        return JSON_ERR_SYNTAX;
    const unsigned char *start = s->at + 1;
    int err = scan_string(s);
    if (err)
        return err;
    if (name)
        *name = bytes_of((const char *)start, (size_t)(s->at - start) - 1);
    skip_space(s);
    if (!at_byte(s, ':'))
        return JSON_ERR_SYNTAX;
    s->at++;
    return JSON_OK;
}

/* Which of the open containers are objects: one bit per level instead of one stack frame. */
struct nesting {
    uint64_t objects[JSON_DEPTH_MAX / 64];
    int depth;
};

static int nesting_open(struct nesting *n, int max_depth, bool object)
{
    if (n->depth >= max_depth)
        return JSON_ERR_DEPTH;
    uint64_t bit = (uint64_t)1 << (n->depth & 63);
    uint64_t *word = &n->objects[n->depth >> 6];
    *word = object ? *word | bit : *word & ~bit;
    n->depth++;
    return JSON_OK;
}

static bool nesting_in_object(const struct nesting *n)
{
    int level = n->depth - 1;
    return (n->objects[level >> 6] >> (level & 63)) & 1;
}

/* Opens the container at `at`; *empty when it is closed right away (the closing bracket is left to
 * the caller). */
static int open_container(struct scanner *s, struct nesting *n, bool *empty)
{
    bool object = *s->at == '{';
    int err = nesting_open(n, s->max_depth, object);
    if (err)
        return err;
    s->at++;
    skip_space(s);
    *empty = at_byte(s, object ? '}' : ']');
    return *empty || !object ? JSON_OK : scan_name(s, NULL);
}

/* Behind a value: closes what ends here. Stops before the next value, or when depth is back at
 * `outer`. */
static int close_containers(struct scanner *s, struct nesting *n, int outer)
{
    while (n->depth > outer) {
        bool object = nesting_in_object(n);
        skip_space(s);
        if (at_byte(s, ',')) {
            s->at++;
            return object ? scan_name(s, NULL) : JSON_OK;
        }
        if (!at_byte(s, object ? '}' : ']'))
            return JSON_ERR_SYNTAX;
        s->at++;
        n->depth--;
    }
    return JSON_OK;
}

static int scan_container(struct scanner *s, int outer)
{
    struct nesting nesting = {.depth = outer};
    do {
        skip_space(s);
        if (s->at == s->end)
            return JSON_ERR_SYNTAX;
        int err;
        if (*s->at == '{' || *s->at == '[') {
            bool empty;
            err = open_container(s, &nesting, &empty);
            if (!err && !empty)
                continue;
        } else {
            err = scan_scalar(s);
        }
        if (!err)
            err = close_containers(s, &nesting, outer);
        if (err)
            return err;
    } while (nesting.depth > outer);
    return JSON_OK;
}

static enum json_kind kind_of(unsigned char first)
{
    switch (first) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

/* One value inside of `outer` open containers. */
static int scan_value(struct scanner *s, int outer, struct json_span *value)
{
    skip_space(s);
    if (s->at == s->end)
        return JSON_ERR_SYNTAX;
    const unsigned char *start = s->at;
    int err = *start == '{' || *start == '[' ? scan_container(s, outer) : scan_scalar(s);
    if (err)
        return err;
    value->kind = kind_of(*start);
    value->raw = bytes_of((const char *)start, (size_t)(s->at - start));
    return JSON_OK;
}

static int expect_end(struct scanner *s)
{
    skip_space(s);
    return s->at == s->end ? JSON_OK : JSON_ERR_SYNTAX;
}

int json_check(struct bytes text, int max_depth, struct json_span *value)
{
    struct scanner s = scanner_of(text, max_depth);
    struct json_span span;
    int err = scan_value(&s, 0, &span);
    if (!err)
        err = expect_end(&s);
    if (!err && value)
        *value = span;
    return err;
}

/* Gives the value to the field of that name (raw: between the quotes), if one is asked for. */
static void store_member(struct json_field *fields, size_t count, struct bytes raw,
                         struct json_span value)
{
    char scratch[64];
    struct json_span span = {JSON_STRING, bytes_of(raw.data - 1, raw.len + 2)};
    struct bytes name;
    if (!json_text(span, scratch, sizeof(scratch), &name))
        return; /* nobody asks for a name that long, or for one that is no text */
    for (size_t i = 0; i < count; i++) {
        const char *wanted = fields[i].name;
        if ((name.len == 0 || wanted[0] == name.data[0]) && bytes_is(name, wanted)) {
            fields[i].value = value;
            return;
        }
    }
}

/* Opens the outermost container, which must be of the given kind; *empty when it closes right away.
 */
static int open_outermost(struct scanner *s, char open, char close, bool *empty)
{
    skip_space(s);
    if (!at_byte(s, (unsigned char)open))
        return JSON_ERR_SYNTAX;
    if (s->max_depth < 1)
        return JSON_ERR_DEPTH;
    s->at++;
    skip_space(s);
    *empty = at_byte(s, (unsigned char)close);
    if (*empty)
        s->at++;
    return JSON_OK;
}

/* Behind an element of the outermost container; *more when another one follows. */
static int next_outermost(struct scanner *s, char close, bool *more)
{
    skip_space(s);
    *more = at_byte(s, ',');
    if (!*more && !at_byte(s, (unsigned char)close))
        return JSON_ERR_SYNTAX;
    s->at++;
    return JSON_OK;
}

int json_object(struct bytes text, int max_depth, struct json_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fields[i].value = (struct json_span){0};
    struct scanner s = scanner_of(text, max_depth);
    bool empty;
    int err = open_outermost(&s, '{', '}', &empty);
    bool more = !err && !empty;
    while (more) {
        struct bytes name;
        struct json_span value;
        err = scan_name(&s, &name);
        if (!err)
            err = scan_value(&s, 1, &value);
        if (err)
            return err;
        store_member(fields, count, name, value);
        err = next_outermost(&s, '}', &more);
        if (err)
            return err;
    }
    return err ? err : expect_end(&s);
}

int json_array(struct bytes text, int max_depth, struct json_span *elements, size_t *count)
{
    struct scanner s = scanner_of(text, max_depth);
    bool empty;
    int err = open_outermost(&s, '[', ']', &empty);
    bool more = !err && !empty;
    size_t found = 0;
    while (more) {
        struct json_span value;
        err = scan_value(&s, 1, &value);
        if (err)
            return err;
        if (found < *count)
            elements[found] = value;
        found++;
        err = next_outermost(&s, ']', &more);
        if (err)
            return err;
    }
    if (!err)
        err = expect_end(&s);
    if (err)
        return err;
    err = found > *count ? JSON_ERR_COUNT : JSON_OK;
    *count = found;
    return err;
}
