/* intent.h: what a viewer wants, whatever protocol it speaks; and what it is told.
 *
 * Path:      codec -> adapter -> [intent] -> worker; worker -> [reply, notice] -> adapter -> viewer's queue.
 * Threads:   plain values.
 * Ownership: an intent's spans borrow the parsed text or the intent itself.
 */
#pragma once

#include "auth/jwt.h"
#include "base/names.h"
#include "protocol/message.h"
#include "json/json.h"

enum intent_op {
    INTENT_NONE, /* nothing to do (an ignored packet) */
    INTENT_JOIN,
    INTENT_LEAVE,
    INTENT_SEND,
    INTENT_PACE,
    INTENT_REFRESH,
    INTENT_PING,        /* native {"op":"ping"}: answered by a pong reply */
    INTENT_ENGINE_PING, /* Engine.IO 3 `2…`: answered `3…` at once, data echoed (engine_data) */
    INTENT_ENGINE_PONG, /* Engine.IO 4 `3` */
    INTENT_CONNECT,     /* Engine.IO 4 `40`, `40{…}`: answered by the connected packet */
    INTENT_DISCONNECT,  /* Socket.IO `41`, Engine.IO `1`: close */
    INTENT_BAD /* refused: error_code and error_text say why; the connection lives, unless fatal */
};

/* How an answer finds its way: a native `ref` or a Socket.IO acknowledgement id. */
struct intent_ref {
    bool present;
    uint64_t value; /* 0..2^53-1 */
};

enum error_code {
    ERROR_BAD_MESSAGE,
    ERROR_BAD_NAME,
    ERROR_TOO_LARGE,
    ERROR_NOT_IN_ROOM,
    ERROR_FORBIDDEN,
    ERROR_UNKNOWN_TYPE,
    ERROR_RATE_LIMITED,
    ERROR_TOO_MANY_ROOMS,
    ERROR_UNAVAILABLE,
    ERROR_DUPLICATE
};
enum { ERROR_CODE_COUNT = 10 };

/* "bad-message", … as in the contract. */
const char *error_code_name(enum error_code code);

struct intent {
    enum intent_op op;
    struct intent_ref ref;
    struct bytes room;     /* a valid room name (JOIN, LEAVE, SEND) */
    struct bytes type;     /* a valid type name (SEND) */
    struct json_span data; /* SEND: kind JSON_ABSENT when none was given */
    struct bytes key;      /* SEND: idempotency key, 1-64 room characters, empty when none */
    bool has_after;        /* JOIN carried `after`: */
    struct history_point
        after[LANE_COUNT];    /* what the viewer has of each lane; epoch 0: not given */
    bool passive;             /* PACE: true "passive", false "active" */
    struct bytes ticket;      /* REFRESH, CONNECT: empty when none */
    struct bytes engine_data; /* ENGINE_PING: what follows the `2` */
    struct bytes
        namespace_; /* CONNECT or BAD on another Socket.IO namespace than "/": its name with the slash */
    enum error_code error_code;
    const char *error_text; /* static */
    bool unreadable;        /* BAD: JSON or packet that could not be read at all */
    uint16_t
        fatal_close; /* BAD: close with this code after the answer (0: live on); ENGINE protocol breaches */
    /* Unescaped names live here; room, type, key and ticket may point into it. */
    char room_text[ROOM_NAME_MAX];
    char type_text[TYPE_NAME_MAX];
    char key_text[64];
    char ticket_text
        [JWT_BYTES_MAX]; /* on the stack of whoever parses, and touched only by a ticket with escapes */
};

enum reply_kind {
    REPLY_JOINED, /* answer to join; without ref it is a notice */
    REPLY_ACK,    /* answer to leave, send, pace, refresh */
    REPLY_ERROR,
    REPLY_PONG /* answer to INTENT_PING */
};

/* An answer to one viewer. */
struct reply {
    enum reply_kind kind;
    struct intent_ref ref;
    struct bytes room;                      /* JOINED; ERROR: where it helps (optional) */
    struct bytes id;                        /* ACK: of the message that was taken; empty: none */
    bool has_after;                         /* JOINED: */
    struct history_point after[LANE_COUNT]; /* where each lane stands; n 0: nothing yet */
    bool online_known;
    uint64_t online;           /* JOINED */
    struct bytes online_rooms; /* PONG: `"42":1240,"43":7`, or empty */
    enum error_code error_code;
    const char *text;        /* ERROR: static sentence */
    uint32_t retry_after_ms; /* ERROR: 0 = left out */
    uint64_t time_ms;        /* PONG: Unix time */
    uint32_t interval_ms;    /* PONG: the next heartbeat interval */
    uint32_t frame_bytes;    /* PONG: when it has changed; 0 = left out */
};

enum notice_kind { NOTICE_SKIPPED, NOTICE_GAP, NOTICE_ONLINE, NOTICE_GOODBYE };

/* Something told to a viewer unasked. */
struct notice {
    enum notice_kind kind;
    struct bytes room; /* empty: of the messages to all */
    enum lane lane;
    struct bytes after;      /* GAP: id of the last message known to have come; empty: not known */
    bool no_join;            /* GAP: a join would bring nothing */
    uint32_t count;          /* SKIPPED, ONLINE */
    const char *reason;      /* GOODBYE: static word */
    uint32_t retry_after_ms; /* GOODBYE */
};
