/* tickets.h: what becomes of a viewer's ticket: at the handshake, at Socket.IO's CONNECT, at a refresh.
 *
 * A JWT is judged on the spot. What must be asked (the claims of an opaque ticket; whether a single-use one was used) goes to the
 * main thread as a command, and the viewer waits with an inquiry on its extras: bounded by auth.pending, and by auth.timeout
 * on the viewer's own timer.
 *
 * Path:      welcome, intents -> [tickets] -> node (COMMAND_TICKET_…) -> [tickets] -> welcome, intents.
 * Threads:   the worker's thread.
 * Ownership: an inquiry is the viewer's and dies with it; an answer that comes later finds nobody.
 * Limits:    auth.pending inquiries and auth.kicks kicks per worker.
 */
#pragma once

#include "auth/digest.h"
#include "worker/welcome.h"

/* The shape of an opaque ticket: printable ASCII without spaces. Names of our own marks are none. */
enum { TICKET_ID_MAX = 256 };

enum ticket_use { TICKET_HANDSHAKE, TICKET_CONNECT, TICKET_REFRESH };

/* What a good ticket gives. */
struct pass {
    struct grant *grant; /* a reference */
    uint32_t expires_s;  /* Unix seconds; 0: never */
    char user[USER_NAME_MAX + 1];
    char session[ROOM_NAME_MAX + 1];
    struct buf join; /* rooms to enter, as in struct wishes */
};

struct inquiry {
    enum ticket_use use;
    bool binding;          /* the last question: may this session or address use it? */
    struct link link;      /* on worker->asking */
    uint64_t first;        /* number of its first question; 0: none was asked */
    uint64_t number;       /* of the last one: the answer carries it */
    uint32_t asked_ms;     /* since when it waits */
    struct intent_ref ref; /* REFRESH */
    struct wishes wishes;  /* HANDSHAKE: what it goes on with */
    struct pass pass;
    char digest[AUTH_DIGEST_LEN + 1]; /* of the ticket; only when it is for single use */
};

/* A handshake under tickets: upgrades, refuses, or waits. The wishes are taken over where it waits. */
void tickets_handshake(struct worker *worker, struct viewer *viewer, struct wishes *wishes);

/* Engine.IO 4's CONNECT, in whatever mode: connects, refuses, or waits. */
void tickets_connect(struct worker *worker, struct viewer *viewer, struct bytes ticket);

void tickets_refresh(struct worker *worker, struct viewer *viewer, const struct intent *intent);

/* COMMAND_TICKET_ANSWER */
void tickets_answered(struct worker *worker, const struct command *command);

/* The user is kicked: so is whoever waits for an answer and turns out to be this user. */
void tickets_kicked(struct worker *worker, struct bytes user);

/* On the viewer's timer: an answer that is late, a ticket that ran out. Returns ms until the next look (UINT32_MAX: none is
 * needed), 0 when the viewer is gone or was dealt with. */
uint32_t tickets_check(struct worker *worker, struct viewer *viewer);

/* ms until the viewer's ticket and auth.grace are over; UINT32_MAX: never. */
uint32_t tickets_left_ms(const struct worker *worker, const struct viewer *viewer);

/* The viewer closes: its inquiry and its rights go. */
void tickets_forget(struct worker *worker, struct viewer *viewer);
