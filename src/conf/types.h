/* types.h: the index behind conf_type_find(). Threads: used while a snapshot is built. */
#pragma once

#include "conf/conf.h"

/* Fills what is derived from conf->types: type_slots, name_hash, merge_kind, limited_types, history_types. */
void types_index(struct conf *conf);
