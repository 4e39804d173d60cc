#include "conf/checks.h"

#include "base/names.h"
#include "base/network.h"
#include "conf/address.h"
#include "conf/conf.h"
#include "conf/url.h"
#include "protocol/event.h"
#include "ws/origin.h"

#include <string.h>

enum { PREFIX_MAX = 32 };

bool check_listen(const char *text, const char **why)
{
    struct sockaddr_storage address;
    (void)why;
    return conf_address_parse(bytes_str(text), &address) == 0;
}

bool check_admin_listen(const char *text, const char **why)
{
    return *text == '\0' || check_listen(text, why);
}

bool check_node(const char *text, const char **why)
{
    (void)why;
    return *text == '\0' || name_is_room(bytes_str(text));
}

bool check_event_kind(const char *text, const char **why)
{
    (void)why;
    for (int kind = 0; kind < EVENT_KINDS; kind++) {
        if (strcmp(text, event_name((enum event_kind)kind)) == 0)
            return true;
    }
    return false;
}

bool check_queue(const char *text, const char **why)
{
    (void)why;
    return *text == '\0' || name_is_room(bytes_str(text));
}

bool check_token(const char *text, const char **why)
{
    (void)why;
    for (; *text; text++) {
        if (*text < 0x21 || *text > 0x7e)
            return false;
    }
    return true;
}

/* Judged when it is used: resolve knows more. */
bool check_any(const char *text, const char **why)
{
    (void)text;
    (void)why;
    return true;
}

bool check_url(const char *text, const char **why)
{
    struct broker_url url;
    return broker_url_parse(text, &url, why) == 0;
}

bool check_prefix(const char *text, const char **why)
{
    size_t len = strlen(text);
    (void)why;
    return len <= PREFIX_MAX && !strchr(text, ':') && name_is_room(bytes_of(text, len));
}

bool check_congestion(const char *text, const char **why)
{
    (void)why;
    return strlen(text) <= CONF_CONGESTION_MAX &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0';
}

bool check_network(const char *text, const char **why)
{
    struct network network;
    (void)why;
    return network_parse(bytes_str(text), &network);
}

bool check_origin(const char *text, const char **why)
{
    (void)why;
    return origin_is_pattern(bytes_str(text));
}

/* Old apps have events such as joinRoom, so capitals are allowed; reserved names are compared
 * without case, which refuses a few harmless ones too. */
bool check_event(const char *text, const char **why)
{
    static const char *const taken[] = {"send",        "pace",           "refresh",
                                        "newlistener", "removelistener", NULL};
    char lower[TYPE_NAME_MAX + 1] = "";
    size_t len = strlen(text);
    (void)why;
    if (len > TYPE_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        lower[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    for (size_t i = 0; taken[i]; i++) {
        if (strcmp(lower, taken[i]) == 0)
            return false;
    }
    return name_is_type(bytes_of(lower, len));
}

/* `total` is what a merged message says itself. */
bool check_merge(const char *text, const char **why)
{
    if (strcmp(text, "none") == 0 || strcmp(text, "latest") == 0)
        return true;
    if (strncmp(text, "sum:", 4) != 0)
        return false;
    const char *field = text + 4;
    size_t len = strspn(field, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    if (strcmp(field, "total") == 0) {
        *why = "must not be sum:total: merged messages have a total of their own";
        return false;
    }
    return len >= 1 && len <= TYPE_NAME_MAX && field[len] == '\0';
}
