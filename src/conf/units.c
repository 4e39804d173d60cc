#include "conf/units.h"

#include "conf/conf.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
static const struct unit sizes[] = {{"", 1},        {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30},
                                    {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}};

enum {
    DURATION_UNITS = sizeof(durations) / sizeof(durations[0]),
    SIZE_UNITS = sizeof(sizes) / sizeof(sizes[0]),
    SIZE_UNITS_PRINTED = 4
};

int units_parse_uint(struct bytes text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.len == 0)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(c - '0'), &value))
            return -1;
    }
    *out = value;
    return 0;
}

static int parse_with_unit(struct bytes text, const struct unit *units, size_t count, uint64_t *out)
{
    size_t digits = 0;
    while (digits < text.len && text.data[digits] >= '0' && text.data[digits] <= '9')
        digits++;
    struct bytes name = bytes_of(text.data + digits, text.len - digits);
    uint64_t number;
    if (units_parse_uint(bytes_of(text.data, digits), &number) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        if (bytes_is(name, units[i].name)) {
            if (__builtin_mul_overflow(number, units[i].factor, &value))
                return -1;
            *out = value;
            return 0;
        }
    }
    return -1;
}

int conf_parse_duration_ms(struct bytes text, uint64_t *out)
{
    if (bytes_is(text, "0")) {
        *out = 0;
        return 0;
    }
    return parse_with_unit(text, durations, DURATION_UNITS, out);
}

int conf_parse_size(struct bytes text, uint64_t *out)
{
    return parse_with_unit(text, sizes, SIZE_UNITS, out);
}

static void print_with_unit(struct buf *out, uint64_t value, const struct unit *units, size_t count)
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++) {
        if (value != 0 && value % units[i].factor == 0)
            best = i;
    }
    buf_uint(out, value / units[best].factor);
    if (value != 0)
        buf_text(out, units[best].name);
}

void units_print_duration(struct buf *out, uint64_t ms)
{
    print_with_unit(out, ms, durations, DURATION_UNITS);
}

void units_print_size(struct buf *out, uint64_t bytes)
{
    print_with_unit(out, bytes, sizes, SIZE_UNITS_PRINTED);
}
