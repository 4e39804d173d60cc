#include "ws/origin.h"

#include <strings.h>

enum { PORT_NONE = -1, PORT_ANY = -2, HOST_MAX = 253, SCHEME_MAX = 16 };

struct origin {
    struct bytes scheme; /* empty: none was given */
    struct bytes host;
    int port;
    bool below; /* pattern: `*.` stood before host */
};

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool same(struct bytes a, struct bytes b)
{
    return a.len == b.len && strncasecmp(a.data, b.data, a.len) == 0;
}

static bool parse_scheme(struct bytes *rest, struct bytes *scheme)
{
    const char *slashes = rest->len > 2 ? memmem(rest->data, rest->len, "://", 3) : NULL;
    *scheme = bytes_of(rest->data, 0);
    if (!slashes)
        return true;
    scheme->len = (size_t)(slashes - rest->data);
    *rest = bytes_of(slashes + 3, rest->len - scheme->len - 3);
    for (size_t i = 0; i < scheme->len; i++) {
        char c = scheme->data[i];
        if (!is_letter(c) && (i == 0 || (!is_digit(c) && c != '+' && c != '-' && c != '.')))
            return false;
    }
    return scheme->len > 0 && scheme->len <= SCHEME_MAX;
}

static bool parse_port(struct bytes text, bool pattern, int *port)
{
    if (pattern && bytes_is(text, "*")) {
        *port = PORT_ANY;
        return true;
    }
    int number = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.data[i]))
            return false;
        number = number * 10 + (text.data[i] - '0');
        if (number > 65535)
            return false;
    }
    *port = number;
    return text.len > 0 && number > 0;
}

/* Names as they stand in a serialized origin: ASCII, international ones in their xn-- form; `[…]` is IPv6. */
static bool is_host(struct bytes host)
{
    bool v6 = host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    size_t label = 0;
    for (size_t i = v6; i < host.len - v6; i++) {
        char c = host.data[i];
        if (v6 ? !is_letter(c) && !is_digit(c) && c != ':' && c != '.'
               : !is_letter(c) && !is_digit(c) && c != '-' && c != '_' && c != '.')
            return false;
        if (!v6 && c == '.' && label == 0)
            return false;
        label = c == '.' ? 0 : label + 1;
    }
    return host.len > 0 && host.len <= HOST_MAX && (v6 || label > 0);
}

static bool parse(struct bytes text, bool pattern, struct origin *out)
{
    if (!parse_scheme(&text, &out->scheme) || (!pattern && out->scheme.len == 0))
        return false;
    out->port = PORT_NONE;
    const char *colon = text.len ? memrchr(text.data, ':', text.len) : NULL;
    const char *bracket = text.len ? memrchr(text.data, ']', text.len) : NULL;
    if (colon && (!bracket || colon > bracket)) {
        size_t host = (size_t)(colon - text.data);
        if (!parse_port(bytes_of(colon + 1, text.len - host - 1), pattern, &out->port))
            return false;
        text.len = host;
    }
    out->below = pattern && text.len > 2 && text.data[0] == '*' && text.data[1] == '.';
    out->host = out->below ? bytes_of(text.data + 2, text.len - 2) : text;
    return is_host(out->host);
}

static int own_port(struct bytes scheme)
{
    if (same(scheme, BYTES_LIT("https")))
        return 443;
    return same(scheme, BYTES_LIT("http")) ? 80 : PORT_NONE;
}

static bool host_matches(const struct origin *pattern, struct bytes host)
{
    if (!pattern->below)
        return same(pattern->host, host);
    if (host.len <= pattern->host.len + 1)
        return false;
    size_t before = host.len - pattern->host.len;
    return host.data[before - 1] == '.' &&
           same(pattern->host, bytes_of(host.data + before, pattern->host.len));
}

bool origin_is_pattern(struct bytes text)
{
    struct origin pattern;
    return bytes_is(text, "null") || parse(text, true, &pattern);
}

bool origin_matches(struct bytes pattern_text, struct bytes origin_text)
{
    struct origin pattern;
    struct origin origin;
    if (bytes_is(pattern_text, "null") || bytes_is(origin_text, "null"))
        return bytes_equal(pattern_text, origin_text);
    if (!parse(pattern_text, true, &pattern) || !parse(origin_text, false, &origin))
        return false;
    int own = own_port(origin.scheme);
    bool scheme = pattern.scheme.len > 0 ? same(pattern.scheme, origin.scheme) : own != PORT_NONE;
    int wanted = pattern.port == PORT_NONE ? own : pattern.port;
    int port = origin.port == PORT_NONE ? own : origin.port;
    return scheme && (wanted == PORT_ANY || wanted == port) && host_matches(&pattern, origin.host);
}
