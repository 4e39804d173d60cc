/* message.h: one room message, as every worker and adapter sees it; the JSON envelope of Redis and HTTP.
 *
 * Path:      broker -> [message] -> policy -> dispatch -> worker -> adapter.
 * Threads:   immutable after creation; the reference count is atomic, so workers share one copy.
 * Ownership: counted: message_ref / message_unref.
 * Limits:    names by names.h; data by the type's max_bytes (checked by the caller).
 */
#pragma once

#include "base/bytes.h"

#include <stdatomic.h>

enum lane { LANE_HIGH, LANE_NORMAL, LANE_LOW };
enum { LANE_COUNT = 3 };

/* "high", "normal", "low". */
const char *lane_name(enum lane lane);

enum message_kind {
    MESSAGE_ROOM,
    MESSAGE_ALL,    /* for every viewer: no room */
    MESSAGE_USER,   /* for all connections of a user: no room */
    MESSAGE_ONLINE, /* a notice in the low lane's order: how many are in the room, on all nodes */
    MESSAGE_GAP /* a notice in the lane's order: messages of this lane and room may be missing here; room empty: of halley:all */
};

/* A number of a message with history (history_id.h), or where a lane of a room stands: its last message. */
struct history_point {
    uint64_t epoch; /* 0: none, not known */
    uint64_t n;     /* 0: before the first message; up to 2^53-1 */
};

struct message {
    _Atomic uint32_t refs;
    enum message_kind kind;
    enum lane lane;
    uint16_t type_index;        /* into the conf's type table, for counters */
    uint32_t room_hash;         /* map_hash() of room */
    uint32_t online;            /* MESSAGE_ONLINE */
    bool silent;                /* MESSAGE_ONLINE: for workers only, viewers are not told */
    bool no_join;               /* MESSAGE_GAP: a join with `after` would bring nothing now */
    struct history_point point; /* the policy's to set; GAP: behind it the lane goes on */
    struct bytes room;          /* all of these point into this allocation */
    struct bytes user;          /* MESSAGE_USER: whom it is for */
    struct bytes type;
    struct bytes from; /* empty: not known */
    struct bytes id;   /* empty: none */
    struct bytes data; /* raw JSON value; empty: the message has no data */
    char bytes[];
};

/* The parts of a message, borrowed, before a message is made of them. */
struct message_parts {
    struct bytes type;
    struct bytes from;
    struct bytes id;
    struct bytes data;
};

/* Returns a message with one reference and copies of everything, or NULL when memory is out. Lane and type_index are
 * left for the policy to set before it is shared. */
struct message *message_create(enum message_kind kind, struct bytes room,
                               const struct message_parts *parts);
/* The same for a MESSAGE_USER. */
struct message *message_create_for(struct bytes user, const struct message_parts *parts);
struct message *message_ref(struct message *message);
void message_unref(struct message *message); /* NULL is fine */

/* Scratch that names are unescaped into; the parts point into it. */
struct message_scratch {
    char type[64];
    char from[96];
    char id[96];
};

enum {
    ENVELOPE_OK = 0,
    ENVELOPE_ERR_JSON = -5201, /* not one JSON object, or nested too deep */
    ENVELOPE_ERR_TYPE = -5202, /* type missing, no string, or not a type name */
    ENVELOPE_ERR_FROM = -5203, /* from is there and no user name (null counts as absent) */
    ENVELOPE_ERR_ID = -5204    /* id is there and no message id (null counts as absent) */
};

/* Parses `{"type":…,"data":…,"from":…,"id":…}`; unknown members are ignored. Parts borrow text and scratch. */
int envelope_parse(struct bytes text, int max_depth, struct message_scratch *scratch,
                   struct message_parts *parts);

/* What an ENVELOPE_ERR_* means, for logs and answers. */
const char *envelope_error(int error);

/* Appends the envelope of parts (all names valid, data raw JSON or empty). */
void envelope_append(struct buf *out, const struct message_parts *parts);
