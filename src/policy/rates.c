#include "policy/rates.h"

#include "base/bucket.h"

#include <stdlib.h>

enum { NO_MEMORY_WAIT_MS = 1000 };

struct entry {
    uint32_t type; /* conf_type.name_hash */
    struct bucket bucket;
};

struct rates {
    uint16_t count;
    uint16_t cap;
    struct entry entries[];
};

static bool is_limited(const struct conf *conf, uint32_t name_hash)
{
    for (uint32_t i = 0; i < conf->type_count; i++) {
        if (conf->types[i].name_hash == name_hash)
            return conf->types[i].rate > 0;
    }
    return false;
}

/* A larger one, or one for an earlier conf's types: keeps what is still limited, which leaves room for one more. */
static struct rates *make_room(const struct rates *from, const struct conf *conf)
{
    uint16_t cap = (uint16_t)conf->limited_types;
    struct rates *rates = malloc(sizeof(*rates) + cap * sizeof(struct entry));
    if (!rates)
        return NULL;
    rates->count = 0;
    rates->cap = cap;
    for (uint16_t i = 0; from && i < from->count; i++) {
        if (is_limited(conf, from->entries[i].type))
            rates->entries[rates->count++] = from->entries[i];
    }
    return rates;
}

static struct entry *find(struct rates *rates, uint32_t type)
{
    for (uint16_t i = 0; rates && i < rates->count; i++) {
        if (rates->entries[i].type == type)
            return &rates->entries[i];
    }
    return NULL;
}

uint32_t rates_take(struct rates **rates, const struct conf *conf, const struct conf_type *type,
                    uint32_t now_ms)
{
    if (type->rate == 0)
        return 0;
    struct entry *entry = find(*rates, type->name_hash);
    if (!entry) {
        if (!*rates || (*rates)->count == (*rates)->cap) {
            struct rates *larger = make_room(*rates, conf);
            if (!larger)
                return NO_MEMORY_WAIT_MS;
            free(*rates);
            *rates = larger;
        }
        entry = &(*rates)->entries[(*rates)->count++];
        *entry = (struct entry){.type = type->name_hash};
    }
    return bucket_take(&entry->bucket, now_ms, type->rate, 1000, type->burst);
}

size_t rates_bytes(const struct rates *rates)
{
    return rates ? sizeof(*rates) + rates->cap * sizeof(struct entry) : 0;
}

void rates_free(struct rates *rates)
{
    free(rates);
}
