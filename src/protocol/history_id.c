#include "protocol/history_id.h"

#include <stdio.h>

static const uint64_t NUMBER_MAX = (1ull << 53) - 1;

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : -1;
}

uint64_t history_epoch_read(struct bytes text)
{
    uint64_t epoch = 0;
    if (text.len == 0 || text.len > EPOCH_TEXT_MAX || text.data[0] == '0')
        return 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = digit_of(text.data[i]);
        if (digit < 0)
            return 0;
        epoch = epoch * 36 + (uint64_t)digit; /* 36^12 fits 63 bits */
    }
    return epoch;
}

struct bytes history_epoch_write(uint64_t epoch, char out[EPOCH_TEXT_MAX + 1])
{
    char reversed[EPOCH_TEXT_MAX];
    size_t len = 0;
    for (; epoch > 0 && len < EPOCH_TEXT_MAX; epoch /= 36)
        reversed[len++] = "0123456789abcdefghijklmnopqrstuvwxyz"[epoch % 36];
    for (size_t i = 0; i < len; i++)
        out[i] = reversed[len - 1 - i];
    out[len] = '\0';
    return bytes_of(out, len);
}

static bool read_number(struct bytes text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 16 || (text.data[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return value <= NUMBER_MAX;
}

bool history_id_parse(struct bytes id, enum lane *lane, struct history_point *point)
{
    if (id.len < 5 || id.data[1] != '.')
        return false;
    const char *dot = memchr(id.data + 2, '.', id.len - 2);
    if (!dot)
        return false;
    struct history_point found;
    found.epoch = history_epoch_read(bytes_of(id.data + 2, (size_t)(dot - id.data - 2)));
    if (found.epoch == 0 ||
        !read_number(bytes_of(dot + 1, id.len - (size_t)(dot + 1 - id.data)), &found.n))
        return false;
    for (int i = 0; i < LANE_COUNT; i++) {
        if (lane_name((enum lane)i)[0] != id.data[0])
            continue;
        *lane = (enum lane)i;
        *point = found;
        return true;
    }
    return false;
}

struct bytes history_id_format(enum lane lane, struct history_point point,
                               char out[HISTORY_ID_MAX + 1])
{
    char epoch[EPOCH_TEXT_MAX + 1];
    (void)history_epoch_write(point.epoch, epoch);
    int len = snprintf(out, HISTORY_ID_MAX + 1, "%c.%s.%llu", lane_name(lane)[0], epoch,
                       (unsigned long long)point.n);
    return bytes_of(out, (size_t)len);
}
