#include "conf/url.h"

#include "base/bytes.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char why_form[] = "must be memory: or redis://[user:password@]host:port";
static const char why_tls[] =
    "TLS to Redis (rediss://) is not supported; use redis:// inside a private network or a tunnel";
static const char why_database[] =
    "a database number is not supported, because pub/sub ignores it; "
    "keep environments apart with broker.prefix";
static const char why_login[] =
    "what stands before the @ must be user:password or :password, with a password";
static const char why_percent[] = "the user or password holds a % that is not followed by two hex "
                                  "digits (write %25 for a % itself; %00 is not allowed)";
static const char why_login_long[] = "user and password may have at most 127 bytes each";
static const char why_host[] =
    "the host must be a name, an IPv4 address, or an IPv6 address in [ ]";
static const char why_port[] = "the port must be 1 to 65535";

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Percent-decodes text into out with a NUL behind it. Returns what is wrong, or NULL. */
static const char *decode(struct bytes text, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c == '%') {
            bool whole = text.len - i > 2;
            int high = whole ? hex_digit(text.data[i + 1]) : -1;
            int low = whole ? hex_digit(text.data[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return why_percent;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (len + 1 >= cap)
            return why_login_long;
        out[len++] = c;
    }
    out[len] = '\0';
    return NULL;
}

static const char *parse_login(struct bytes login, struct broker_url *out)
{
    const char *colon = memchr(login.data, ':', login.len);
    if (!colon)
        return why_login;
    size_t user_len = (size_t)(colon - login.data);
    const char *why = decode(bytes_of(login.data, user_len), out->user, sizeof(out->user));
    if (!why)
        why = decode(bytes_of(colon + 1, login.len - user_len - 1), out->password,
                     sizeof(out->password));
    if (!why && out->password[0] == '\0')
        why = why_login;
    return why;
}

static const char *parse_port(struct bytes text, uint16_t *port)
{
    uint32_t value = 0;
    if (text.len == 0 || text.len > 5)
        return why_port;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return why_port;
        value = value * 10 + (uint32_t)(text.data[i] - '0');
    }
    if (value == 0 || value > UINT16_MAX)
        return why_port;
    *port = (uint16_t)value;
    return NULL;
}

static bool is_host_name(struct bytes host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.data[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && c != '-' && c != '_')
            return false;
    }
    return host.len > 0;
}

static const char *parse_host(struct bytes text, struct broker_url *out)
{
    struct bytes host = text;
    struct bytes port = {0};
    bool bracketed = text.len > 0 && text.data[0] == '[';
    const char *end =
        bracketed ? memchr(text.data, ']', text.len) : memchr(text.data, ':', text.len);
    if (bracketed && !end)
        return why_host;
    if (bracketed) {
        host = bytes_of(text.data + 1, (size_t)(end - text.data) - 1);
        end++;
    } else if (end) {
        host.len = (size_t)(end - text.data);
    }
    if (end && end < text.data + text.len) {
        if (*end != ':')
            return why_host;
        port = bytes_of(end + 1, text.len - (size_t)(end + 1 - text.data));
        const char *why =
            memchr(port.data, ':', port.len) ? why_host : parse_port(port, &out->port);
        if (why)
            return why;
    }
    if (host.len == 0 || host.len >= sizeof(out->host))
        return why_host;
    memcpy(out->host, host.data, host.len);
    out->host[host.len] = '\0';
    unsigned char address[sizeof(struct in6_addr)];
    bool good = bracketed ? inet_pton(AF_INET6, out->host, address) == 1 : is_host_name(host);
    return good ? NULL : why_host;
}

static const char *parse_redis(const char *text, struct broker_url *out)
{
    /* Taken from the last @, so that a password with a bare @ in it works as it was meant. */
    const char *at = strrchr(text, '@');
    const char *host = at ? at + 1 : text;
    size_t host_len = strcspn(host, "/?#");
    const char *tail = host + host_len;
    const char *why = NULL;
    if (at)
        why = parse_login(bytes_of(text, (size_t)(at - text)), out);
    if (!why)
        why = parse_host(bytes_of(host, host_len), out);
    if (!why && *tail == '/' && tail[1] != '\0')
        why = strspn(tail + 1, "0123456789") == strlen(tail + 1) ? why_database : why_form;
    if (!why && *tail != '\0' && *tail != '/')
        why = why_form;
    return why;
}

int broker_url_parse(const char *text, struct broker_url *out, const char **why)
{
    struct broker_url url = {.scheme = BROKER_SCHEME_MEMORY};
    const char *wrong = NULL;
    if (strncmp(text, "redis://", 8) == 0) {
        url.scheme = BROKER_SCHEME_REDIS;
        url.port = 6379;
        wrong = parse_redis(text + 8, &url);
    } else if (strncmp(text, "rediss:", 7) == 0) {
        wrong = why_tls;
    } else if (strcmp(text, "memory:") != 0) {
        wrong = why_form;
    }
    if (wrong) {
        *why = wrong;
        return -1;
    }
    *out = url;
    return 0;
}
