#include "base/names.h"

static bool is_alnum(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool name_is_room(struct bytes name)
{
    if (name.len == 0 || name.len > ROOM_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        if (!is_alnum(c) && c != '_' && c != '.' && c != ':' && c != '-')
            return false;
    }
    return true;
}

static bool is_printable_name(struct bytes name, size_t max)
{
    if (name.len == 0 || name.len > max)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
            return false;
    }
    return true;
}

bool name_is_user(struct bytes name)
{
    return is_printable_name(name, USER_NAME_MAX);
}

bool name_is_message_id(struct bytes name)
{
    return is_printable_name(name, MESSAGE_ID_MAX);
}

static bool is_reserved_type(struct bytes name)
{
    /* What Socket.IO clients of any version emit locally. Names with capitals (newListener, removeListener) fail the
     * grammar already. */
    static const char *const reserved[] = {"connect",    "disconnect",    "error",
                                           "connecting", "connect_error", "connect_timeout",
                                           "ping",       "pong",          "halley"};
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (bytes_is(name, reserved[i]))
            return true;
    }
    return name.len >= 9 && memcmp(name.data, "reconnect", 9) == 0;
}

bool name_is_type(struct bytes name)
{
    if (name.len == 0 || name.len > TYPE_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return false;
    }
    return !is_reserved_type(name);
}
