/* conf_with.h: the built-in conf, with what a test sets in it. */
#pragma once

#include "conf/conf.h"

/* Settings as after -o (`type.chat.history=yes`); each list ends with NULL, or is NULL; 32 of them at most. Fails the test where the
 * conf is refused. The caller lets go of it with conf_unref(). */
struct conf *conf_with(const char *const *ours, const char *const *given);
