#include "conf/types.h"

#include <string.h>

_Static_assert(CONF_TYPES_MAX <= 256, "slots are bytes");
_Static_assert(CONF_TYPE_SLOTS >= 2 * CONF_TYPES_MAX, "half of the slots stay free");
_Static_assert((CONF_TYPE_SLOTS & (CONF_TYPE_SLOTS - 1)) == 0, "a power of two");

/* FNV-1a. Only the operator names types, so nobody outside can fill one chain. */
static uint32_t hash_name(struct bytes name)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (unsigned char)name.data[i]) * 16777619u;
    return hash ^ hash >> 16;
}

static uint32_t slot_of_hash(uint32_t hash)
{
    return hash & (CONF_TYPE_SLOTS - 1);
}

static enum conf_merge merge_kind(const char *text)
{
    if (strcmp(text, "none") == 0)
        return MERGE_NONE;
    return strcmp(text, "latest") == 0 ? MERGE_LATEST : MERGE_SUM;
}

void types_index(struct conf *conf)
{
    memset(conf->type_slots, 0, sizeof(conf->type_slots));
    conf->limited_types = 0;
    conf->history_types = 0;
    for (uint32_t i = 0; i < conf->type_count; i++) {
        struct conf_type *type = &conf->types[i];
        type->name_hash = hash_name(bytes_str(type->name));
        type->merge_kind = merge_kind(type->merge);
        conf->limited_types += type->rate > 0;
        conf->history_types += type->history;
        if (i == 0)
            continue; /* "*" is nobody's name */
        uint32_t slot = slot_of_hash(type->name_hash);
        while (conf->type_slots[slot])
            slot = (slot + 1) & (CONF_TYPE_SLOTS - 1);
        conf->type_slots[slot] = (uint8_t)i;
    }
}

uint16_t conf_type_find(const struct conf *conf, struct bytes name)
{
    if (name.len == 0 || name.len > TYPE_NAME_MAX)
        return 0;
    uint32_t slot = slot_of_hash(hash_name(name));
    for (; conf->type_slots[slot]; slot = (slot + 1) & (CONF_TYPE_SLOTS - 1)) {
        uint8_t index = conf->type_slots[slot];
        if (bytes_is(name, conf->types[index].name))
            return index;
    }
    return 0;
}
