/* adapter.h: the protocols that viewers speak, each a table of functions.
 *
 * Pure: bytes in, intents out; messages, replies and notices in, ready WebSocket frames out. All frames are complete, unmasked,
 * FIN set.
 *
 * Path:      codec -> [adapter] -> intent; message, reply, notice -> [adapter] -> frame.
 * Threads:   any; tables are constant.
 * Ownership: writes into the caller's buf; parse borrows the text.
 */
#pragma once

#include "protocol/intent.h"

/* How a message looks on the wire. Engine.IO 3 and 4 share their event frames. */
enum encoding { ENCODING_NATIVE, ENCODING_SOCKETIO };
enum { ENCODING_COUNT = 2 };

/* Who proves that it lives, and how (contract: Heartbeat). */
enum heartbeat_style {
    HEARTBEAT_NATIVE, /* client pings in JSON; the gateway sends a WebSocket ping to whom it has not heard for interval + 5 s */
    HEARTBEAT_CLIENT, /* Engine.IO 3: client sends `2`; dead after interval + timeout since the last byte */
    HEARTBEAT_SERVER /* Engine.IO 4: the gateway sends `2` each interval, the client answers `3` within timeout */
};

struct adapter_limits {
    int json_depth;          /* of a whole client packet */
    struct bytes join_event; /* Socket.IO event names for join and leave (socketio.join_event, …) */
    struct bytes leave_event;
};

/* What the opening frames tell. */
struct opening {
    struct bytes connection; /* id of the connection: sid of Engine.IO */
    struct bytes user;
    struct bytes node;
    uint32_t interval_ms;
    uint32_t timeout_ms;
    uint32_t frame_bytes; /* native welcome; 0 = not known, left out */
    uint64_t max_payload; /* Engine.IO 4: limits.message_bytes */
};

struct adapter {
    const char *name; /* metric label: "native", "engineio3", "engineio4" */
    enum encoding encoding;
    enum heartbeat_style heartbeat;
    bool
        binary_closes; /* a binary frame closes with 1003 (native), else it is answered by an error */
    bool connect_expected; /* nothing but the open packet before INTENT_CONNECT (Engine.IO 4) */

    /* One text message of the viewer. Always fills *intent (INTENT_BAD for what is wrong). */
    void (*parse)(struct bytes text, const struct adapter_limits *limits, struct intent *intent);
    /* Frames that follow the 101 in the same write: welcome; open packet and `40`; open packet. */
    void (*append_opening)(struct buf *out, const struct opening *opening);
    /* Engine.IO 4: `40{"sid":…}`, the answer to INTENT_CONNECT. NULL elsewhere. */
    void (*append_connected)(struct buf *out, const struct opening *opening);
    void (*append_message)(struct buf *out, const struct message *message); /* notices too */
    void (*append_reply)(struct buf *out, const struct reply *reply);
    void (*append_notice)(struct buf *out, const struct notice *notice);
    /* HEARTBEAT_NATIVE: WebSocket ping; HEARTBEAT_SERVER: `2`; NULL where the client pings. */
    void (*append_ping)(struct buf *out);
    /* Engine.IO 3: `3` and the echoed data. NULL elsewhere. */
    void (*append_engine_pong)(struct buf *out, struct bytes data);
    /* The answer in place of `40` to who may not come in: `44"reason"`, `44{"message":"reason"}`. NULL for native. */
    void (*append_connect_refused)(struct buf *out, const char *reason);
    /* Engine.IO 3: what append_opening writes, but for the `40`. NULL elsewhere. */
    void (*append_open)(struct buf *out, const struct opening *opening);
    /* Socket.IO `44…` on a namespace other than "/". NULL for native. */
    void (*append_namespace_refused)(struct buf *out, struct bytes namespace_);
    /* Frames before the close frame when the viewer is kicked: Socket.IO `41`; NULL for native. */
    void (*append_kicked)(struct buf *out);
};

extern const struct adapter adapter_native;
extern const struct adapter adapter_engineio3;
extern const struct adapter adapter_engineio4;

/* The adapter whose append_message makes this encoding. */
const struct adapter *adapter_of_encoding(enum encoding encoding);
