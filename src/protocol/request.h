/* request.h: from the members of a viewer's request to an intent, for all adapters. Only src/protocol includes it.
 *
 * Path:      native.c, socketio.c -> [request] -> intent.
 * Threads:   any; no state.
 * Ownership: an intent borrows the parsed text.
 */
#pragma once

#include "protocol/intent.h"

/* Members of a request. Those of Socket.IO end before FIELD_OP: its event is the op, its acknowledgement id the ref. */
enum intent_field {
    FIELD_ROOM,
    FIELD_TYPE,
    FIELD_DATA,
    FIELD_KEY,
    FIELD_AFTER,
    FIELD_MODE,
    FIELD_TICKET,
    FIELD_OP,
    FIELD_REF
};
enum { FIELD_COUNT_SOCKETIO = FIELD_OP, FIELD_COUNT_NATIVE = FIELD_REF + 1 };

/* Sets the fields' names; count is one of FIELD_COUNT_*. */
void request_fields_init(struct json_field *fields, size_t count);

/* Empties an intent (INTENT_NONE); the room for unescaped names is left as it is. */
void intent_clear(struct intent *intent);

/* Makes it INTENT_BAD; text is static. A ref that is set stays. */
void intent_refuse(struct intent *intent, enum error_code code, const char *text);

/* The same for what could not be read at all. */
void intent_refuse_unreadable(struct intent *intent, const char *text);

/* The same for a JSON_ERR_*; syntax is the text for JSON_ERR_SYNTAX. */
void intent_refuse_json(struct intent *intent, int error, const char *syntax);

/* Fills the intent for op (JOIN, LEAVE, SEND, PACE, REFRESH, PING) from the members, or refuses it. */
void request_to_intent(struct intent *intent, enum intent_op op, const struct json_field *fields);

/* Reads a ticket; absent is no error and leaves it empty. Returns false when it cannot be read. */
bool request_read_ticket(struct intent *intent, struct json_span value);
