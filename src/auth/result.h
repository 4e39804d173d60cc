/* result.h: what may come of a ticket, once: enum, metric label, text for operators.
 *
 * Viewers are told `ticket-invalid` and no more; the reason is for metrics and logs.
 *
 * Threads: constants.
 */
#pragma once

/* X(name, label, text). */
#define AUTH_RESULTS(X)                                                                            \
    X(AUTH_OK, "ok", "accepted")                                                                   \
    X(AUTH_MISSING, "missing", "there is none")                                                    \
    X(AUTH_MALFORMED, "malformed", "not a ticket at all: its parts can't be read")                 \
    X(AUTH_ALGORITHM, "algorithm", "its algorithm is not the one of its key")                      \
    X(AUTH_UNKNOWN_KEY, "unknown_key", "no section key has its kid as its name")                   \
    X(AUTH_SIGNATURE, "signature", "the signature is wrong")                                       \
    X(AUTH_EXPIRED, "expired", "exp has passed")                                                   \
    X(AUTH_NOT_YET, "not_yet", "nbf has not come yet")                                             \
    X(AUTH_CLAIMS, "claims", "a claim is missing or not what it must be")                          \
    X(AUTH_ROOM, "room", "it does not allow a room that was asked for")                            \
    X(AUTH_OTHER_USER, "other_user", "a refresh with the ticket of another user or session")       \
    X(AUTH_UNKNOWN, "unknown", "Redis holds no such ticket")                                       \
    X(AUTH_USED, "used", "used already by another session or address, or too long ago")            \
    X(AUTH_KICKED, "kicked", "its user was kicked while it was checked")                           \
    X(AUTH_AWAY, "away", "Redis is away or answered too late")                                     \
    X(AUTH_FULL, "full", "auth.pending, auth.marks or auth.kicks is reached")                      \
    X(AUTH_NO_MEMORY, "no_memory", "the node is out of memory")

enum auth_result {
#define X(name, label, text) name,
    AUTH_RESULTS(X)
#undef X
        AUTH_RESULT_COUNT
};

const char *auth_result_label(enum auth_result result);
const char *auth_result_text(enum auth_result result);
