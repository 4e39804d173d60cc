/* claims.h: what a ticket says: the same JSON object in a JWT and in Redis.
 *
 *     sub      user name, required          rooms    rooms that the viewer may be in: names or `prefix*`; absent: all
 *     exp      end, seconds since 1970      join     rooms entered at connect; allowed without being in `rooms`
 *     nbf      begin                        send     types that the viewer may send, of those that the conf lets viewers send;
 *     session  of the viewer                         absent: all of them
 *
 * Other members are ignored.
 *
 * Path:      jwt, Redis -> [claims] -> grant, worker.
 * Threads:   plain values.
 * Ownership: everything is copied into the struct.
 * Limits:    AUTH_LIST_MAX names in a list, AUTH_RIGHTS_MAX bytes of all names together.
 */
#pragma once

#include "auth/result.h"
#include "base/bytes.h"
#include "base/names.h"

enum { AUTH_LIST_MAX = 64, AUTH_RIGHTS_MAX = 4096 };

/* Names one after the other, each with a length byte before it. */
struct auth_names {
    bool given;
    uint16_t len;
    uint16_t at; /* in text */
};

struct auth_claims {
    uint64_t expires_s; /* 0: never */
    uint64_t begins_s;
    struct auth_names rooms;
    struct auth_names join;
    struct auth_names send;
    char user[USER_NAME_MAX + 1];
    char session[ROOM_NAME_MAX + 1]; /* empty: none */
    size_t text_len;
    char text[AUTH_RIGHTS_MAX];
};

/* Returns AUTH_OK, AUTH_MALFORMED (not one JSON object) or AUTH_CLAIMS (a claim is missing or wrong). */
enum auth_result auth_claims_read(struct bytes json, struct auth_claims *out);

/* Returns AUTH_OK, AUTH_EXPIRED or AUTH_NOT_YET. now_ms: Unix time; leeway_ms: by how much clocks may differ. */
enum auth_result auth_claims_judge(const struct auth_claims *claims, uint64_t now_ms,
                                   uint64_t leeway_ms);

/* The list's bytes. */
static inline struct bytes auth_names_of(const struct auth_claims *claims,
                                         const struct auth_names *names)
{
    return bytes_of(claims->text + names->at, names->len);
}

/* Takes the next name off a list; false at its end. */
static inline bool auth_names_next(struct bytes *list, struct bytes *name)
{
    if (list->len == 0)
        return false;
    size_t len = (unsigned char)list->data[0];
    *name = bytes_of(list->data + 1, len);
    *list = bytes_of(list->data + 1 + len, list->len - 1 - len);
    return true;
}
