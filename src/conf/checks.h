/* checks.h: what the text keys may hold. Used by the table of keys only.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stdbool.h>

#define ALLOWED_LISTEN                                                                             \
    "an IPv4 address and port (0.0.0.0:1314) or an IPv6 one ([::]:1314), ports 0 to 65535"
#define ALLOWED_NODE "empty, or 1 to 64 of A-Z a-z 0-9 _ . : -"
#define ALLOWED_EVENT_KIND "connect, join, leave, close"
#define ALLOWED_QUEUE "empty, or 1 to 64 of A-Z a-z 0-9 _ . : -"
#define ALLOWED_ADMIN "empty, or an address and port such as 127.0.0.1:7314 or [::1]:7314"
#define ALLOWED_TOKEN "empty, or up to 255 printable ASCII characters without spaces"
#define ALLOWED_URL "memory: or redis://[user:password@]host:port"
#define ALLOWED_PREFIX "1 to 32 of A-Z a-z 0-9 _ . -"
#define ALLOWED_SECRET "empty, or 32 to 255 bytes, or base64: and an encoding of 32 bytes or more"
#define ALLOWED_FILE "empty, or the path of a file"
#define ALLOWED_EVENT                                                                              \
    "1 to 32 of A-Z a-z 0-9 _ -, not send, pace or refresh, nor a name that Socket.IO reserves "   \
    "(such as connect)"

#define ALLOWED_ORIGIN                                                                             \
    "null, or a host such as live.example.com or *.example.com, perhaps with a scheme before "     \
    "(https://) and a port or :* behind"

#define ALLOWED_NETWORK "an address (10.0.0.5, 2001:db8::5) or a range of them (10.0.0.0/24)"
#define ALLOWED_CONGESTION "empty, or the name of a congestion control: 1 to 15 of a-z 0-9 _ -"
#define ALLOWED_MERGE "none, latest, or sum: and a field of 1 to 32 of A-Z a-z 0-9 _ -"

/* Each returns whether text may be the value; *why may be set to a better reason than the ALLOWED_
 * text. */
bool check_listen(const char *text, const char **why);
bool check_node(const char *text, const char **why);
bool check_event_kind(const char *text, const char **why);
bool check_queue(const char *text, const char **why);
bool check_admin_listen(const char *text, const char **why);
bool check_token(const char *text, const char **why);
bool check_url(const char *text, const char **why);
bool check_any(const char *text, const char **why);
bool check_prefix(const char *text, const char **why);
bool check_network(const char *text, const char **why);
bool check_origin(const char *text, const char **why);
bool check_congestion(const char *text, const char **why);
bool check_event(const char *text, const char **why);
bool check_merge(const char *text, const char **why);
