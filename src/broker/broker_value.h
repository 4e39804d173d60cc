/* broker_value.h: what Redis answers to a command.
 *
 * Threads:   plain values.
 * Ownership: text and items borrow from the reply that they are part of, for the duration of the callback.
 */
#pragma once

#include "base/bytes.h"

enum broker_value_kind {
    BROKER_NIL,
    BROKER_STATUS, /* text, such as OK */
    BROKER_ERROR,  /* text */
    BROKER_INTEGER,
    BROKER_TEXT,
    BROKER_ARRAY /* items, count of them; each may be an array again */
};

struct broker_value {
    enum broker_value_kind kind;
    uint32_t count;
    int64_t integer;
    struct bytes text;
    const struct broker_value *items;
};
