/* welcome.h: from a request head to an upgraded viewer or a refusal.
 *
 * Path:      read (head) -> [welcome] -> tickets -> [welcome] -> viewer.
 * Threads:   the worker's thread.
 * Ownership: the caller owns the wishes; a handshake that waits for an answer about its ticket takes them over.
 * Limits:    those of the head.
 */
#pragma once

#include "worker/internal.h"

/* Length of Sec-WebSocket-Key: base64 of 16 bytes. */
enum { WELCOME_KEY_LEN = 24 };

/* What a request asks for. Names are decoded and checked; rooms are kept as length-prefixed names. */
struct wishes {
    const struct adapter *adapter; /* NULL: echo */
    struct buf rooms;
    char user[USER_NAME_MAX + 1];
    char session[ROOM_NAME_MAX + 1]; /* empty: none */
    char eio[4];
    char transport[16];
    char key[WELCOME_KEY_LEN];
    bool subprotocol;
    bool refuse_close;
    enum halley_hint hint;
    bool foreground;
    const char *wrong;   /* what is malformed; NULL: nothing */
    struct bytes ticket; /* borrows the head */
    bool encoded;        /* it stood in the query, where + and % have a meaning */
};

/* Answers 101 with the opening frames; the viewer is open, or waits for its CONNECT. The user and the rights that a ticket
 * gives are the viewer's already. */
void welcome_upgrade(struct worker *worker, struct viewer *viewer, const struct wishes *wishes);

/* Refuses a handshake for what became of its ticket, in the words of its protocol. */
void welcome_refuse_ticket(struct worker *worker, struct viewer *viewer,
                           const struct wishes *wishes, enum auth_result result);

/* The same in answer to a CONNECT, in the reply in hand: `44…`, then the close frame. */
void welcome_refuse_ticket_connect(struct worker *worker, struct viewer *viewer,
                                   enum auth_result result);

/* The answer to the CONNECT of a viewer that was refused already. */
void welcome_refuse_connect(struct worker *worker, struct viewer *viewer);
