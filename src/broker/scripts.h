/* scripts.h: the Lua scripts of scripts/redis, one constant per file, made by CMake.
 *
 * What each takes and returns stands at its head. Backends may run the same files.
 */
#pragma once

#include "broker/broker.h"

extern const struct broker_script script_merge;
extern const struct broker_script script_history;
extern const struct broker_script script_publish;
extern const struct broker_script script_nodes;
extern const struct broker_script script_presence;
extern const struct broker_script script_queue;
extern const struct broker_script script_session_release;
extern const struct broker_script script_session_renew;
