/* names.h: which names are allowed, in one place.
 *
 * Threads: any.
 */
#pragma once

#include "base/bytes.h"

enum {
    ROOM_NAME_MAX = 64, /* bytes of A-Z a-z 0-9 _ . : - */
    USER_NAME_MAX = 64, /* bytes of printable ASCII but " and \ */
    TYPE_NAME_MAX = 32, /* bytes of a-z 0-9 _ - */
    MESSAGE_ID_MAX = 64 /* like users: printable ASCII but " and \ */
};

/* Rooms, and sessions too. */
bool name_is_room(struct bytes name);
bool name_is_user(struct bytes name);
bool name_is_message_id(struct bytes name);

/* Not the names that Socket.IO reserves, nor `halley`. */
bool name_is_type(struct bytes name);
