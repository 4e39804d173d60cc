/* history_id.h: ids of messages with history, `<lane letter>.<epoch>.<n>`: `n.x7k2.1042`.
 *
 * n counts from 1 without holes per room and lane, so a hole shows a lost message. The epoch is of the room: another one shows that
 * the history before it is lost.
 *
 * Path:      publish script -> id -> broker -> [history id] -> node, worker; viewer (`after`) -> [history id] -> worker.
 * Threads:   plain values.
 */
#pragma once

#include "protocol/message.h"

#include <stdbool.h>

enum {
    EPOCH_TEXT_MAX = 12, /* base 36, 0-9 a-z, without leading zeros */
    HISTORY_ID_MAX = 2 + EPOCH_TEXT_MAX + 1 + 16
};

/* Reads an id. Returns false for what is none, and leaves the rest as it was. */
bool history_id_parse(struct bytes id, enum lane *lane, struct history_point *point);

/* Writes the id of a point whose epoch is known; the text lies in out. */
struct bytes history_id_format(enum lane lane, struct history_point point,
                               char out[HISTORY_ID_MAX + 1]);

/* The epoch alone. read returns 0 for what is none. */
uint64_t history_epoch_read(struct bytes text);
struct bytes history_epoch_write(uint64_t epoch, char out[EPOCH_TEXT_MAX + 1]);
