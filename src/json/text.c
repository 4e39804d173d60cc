#include "json/chars.h"
#include "json/json.h"

static size_t utf8_encode(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | (point >> 6));
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | (point >> 12));
        out[1] = (char)(0x80 | ((point >> 6) & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (point >> 18));
    out[1] = (char)(0x80 | ((point >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((point >> 6) & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* Decodes the escape at *at into out and steps over it, both halves of a surrogate pair at once.
 * Returns the bytes written, or 0 for a lone surrogate or no escape. */
static size_t decode_escape(const unsigned char **at, const unsigned char *end, char out[4])
{
    if (end - *at < 2)
        return 0;
    if ((*at)[1] != 'u') {
        out[0] = json_simple_escape((*at)[1]);
        *at += 2;
        return out[0] ? 1 : 0;
    }
    int32_t unit = json_unicode_escape(*at, end);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return 0;
    *at += 6;
    if (unit < 0xd800 || unit > 0xdbff)
        return utf8_encode((uint32_t)unit, out);
    int32_t low = json_unicode_escape(*at, end);
    if (low < 0xdc00 || low > 0xdfff)
        return 0;
    *at += 6;
    return utf8_encode(0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00), out);
}

ssize_t json_unescape(struct json_span value, char *out, size_t cap)
{
    if (value.kind != JSON_STRING || value.raw.len < 2)
        return -1;
    const unsigned char *at = (const unsigned char *)value.raw.data + 1;
    const unsigned char *end = at + value.raw.len - 2;
    size_t len = 0;
    while (at < end) {
        const unsigned char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t run = (size_t)((escape ? escape : end) - at);
        if (run > cap - len)
            return -1;
        if (run > 0)
            memcpy(out + len, at, run);
        len += run;
        at += run;
        if (!escape)
            break;
        char text[4];
        size_t n = decode_escape(&at, end, text);
        if (n == 0 || n > cap - len)
            return -1;
        memcpy(out + len, text, n);
        len += n;
    }
    return (ssize_t)len;
}

bool json_text(struct json_span value, char *scratch, size_t cap, struct bytes *out)
{
    if (value.kind != JSON_STRING || value.raw.len < 2)
        return false;
    struct bytes inside = bytes_of(value.raw.data + 1, value.raw.len - 2);
    if (!memchr(inside.data, '\\', inside.len)) {
        *out = inside;
        return true;
    }
    ssize_t len = json_unescape(value, scratch, cap);
    if (len < 0)
        return false;
    *out = bytes_of(scratch, (size_t)len);
    return true;
}

bool json_uint53(struct json_span value, uint64_t *out)
{
    enum { DIGITS_MAX = 16 };
    const uint64_t max = ((uint64_t)1 << 53) - 1;
    if (value.kind != JSON_NUMBER || value.raw.len == 0 || value.raw.len > DIGITS_MAX)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < value.raw.len; i++) {
        char c = value.raw.data[i];
        if (c < '0' || c > '9')
            return false;
        number = number * 10 + (uint64_t)(c - '0');
    }
    if (number > max)
        return false;
    *out = number;
    return true;
}

static void quote_ascii(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = "btn?fr"; /* 8 to 13; there is no letter for 11 */
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    if (c == '"' || c == '\\')
        text[1] = (char)c;
    else if (c >= 8 && c <= 13 && c != 11)
        text[1] = letters[c - 8];
    else {
        buf_append(out, text, 6);
        return;
    }
    buf_append(out, text, 2);
}

void json_quote(struct buf *out, struct bytes text)
{
    buf_byte(out, '"');
    const unsigned char *at = (const unsigned char *)text.data;
    const unsigned char *end = text.len > 0 ? at + text.len : at;
    while (at < end) {
        const unsigned char *stop = json_skip_plain(at, end);
        buf_append(out, at, (size_t)(stop - at));
        at = stop;
        if (at == end)
            break;
        if (*at < 0x80) {
            quote_ascii(out, *at++);
            continue;
        }
        size_t len = json_utf8_sequence(at, end);
        if (len > 0)
            buf_append(out, at, len);
        else
            BUF_LIT(out, "\xef\xbf\xbd");
        at += len > 0 ? len : 1;
    }
    buf_byte(out, '"');
}
