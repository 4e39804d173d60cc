/* types.h: the index behind conf_type_find(). Threads: used while a snapshot is built. */
#pragma once

#include "conf/conf.h"

/* Fills conf->type_slots from conf->types. */
void types_index(struct conf *conf);
