/* chars.h: characters of JSON texts, shared by the scanner and the text functions; only src/json
 * includes it.
 *
 * Threads: any; no state.
 */
#pragma once

#include "base/bytes.h"

#include <endian.h>

static inline bool json_is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* Returns the first byte that is not plain text of a string: a quote, a backslash, a control
 * character or no ASCII. Eight bytes a step: in each term the lowest marked byte is exact, borrows
 * only mark bytes above it. */
static inline const unsigned char *json_skip_plain(const unsigned char *at,
                                                   const unsigned char *end)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t highs = 0x8080808080808080u;
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        word = le64toh(word);
        uint64_t quotes = word ^ (ones * '"');
        uint64_t slashes = word ^ (ones * '\\');
        uint64_t marks = ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes) |
                         ((word - ones * 0x20) & ~word) | word;
        marks &= highs;
        if (marks)
            return at + (__builtin_ctzll(marks) >> 3);
        at += 8;
    }
    while (at < end && json_is_plain(*at))
        at++;
    return at;
}

/* Returns the length of the UTF-8 sequence of two to four bytes at `at`, or 0 (Unicode 15, table
 * 3-7: no overlong forms, no surrogates, nothing past U+10FFFF). */
static inline size_t json_utf8_sequence(const unsigned char *at, const unsigned char *end)
{
    size_t left = (size_t)(end - at);
    unsigned char lead = at[0];
    if (lead < 0xc2 || lead > 0xf4 || left < 2)
        return 0;
    if (lead < 0xe0)
        return (at[1] & 0xc0) == 0x80 ? 2 : 0;
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    if (at[1] < low || at[1] > high || left < 3 || (at[2] & 0xc0) != 0x80)
        return 0;
    if (lead < 0xf0)
        return 3;
    return left >= 4 && (at[3] & 0xc0) == 0x80 ? 4 : 0;
}

static inline int json_hex_value(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Reads `\uXXXX` at `at`; returns the code unit, or -1. */
static inline int32_t json_unicode_escape(const unsigned char *at, const unsigned char *end)
{
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return -1;
    int32_t unit = 0;
    for (int i = 2; i < 6; i++) {
        int digit = json_hex_value(at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* What a backslash and this character stand for, or 0. */
static inline char json_simple_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return (char)c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}
