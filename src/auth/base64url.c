#include "auth/base64url.h"

/* Value of a character of the URL alphabet, or 64. */
static unsigned value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0') + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : 64;
}

static unsigned value_of_any(char c)
{
    if (c == '+')
        return 62;
    return c == '/' ? 63 : value_of(c);
}

static ssize_t decode(struct bytes text, unsigned (*value)(char), unsigned char *out, size_t cap)
{
    size_t len = text.len / 4 * 3 + (text.len % 4 ? text.len % 4 - 1 : 0);
    uint32_t bits = 0;
    unsigned held = 0; /* bits that are not written yet */
    size_t at = 0;
    if (text.len % 4 == 1 || len > cap)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        unsigned six = value(text.data[i]);
        if (six > 63)
            return -1;
        bits = bits << 6 | six;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[at++] = (unsigned char)(bits >> held);
        }
    }
    return (bits & ((1u << held) - 1)) == 0 ? (ssize_t)at : -1;
}

ssize_t base64url_decode(struct bytes text, unsigned char *out, size_t cap)
{
    return decode(text, value_of, out, cap);
}

ssize_t base64_decode_any(struct bytes text, unsigned char *out, size_t cap)
{
    while (text.len > 0 && text.data[text.len - 1] == '=')
        text.len--;
    return decode(text, value_of_any, out, cap);
}
