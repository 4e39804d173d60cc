#include "base/bytes.h"
#include "bench/bench.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *text, const char *why)
{
    fprintf(stderr, "halley-bench: %s: %s\n", text, why);
    return -1;
}

static bool copy(char *out, size_t cap, const char *from, size_t len)
{
    if (len >= cap)
        return false;
    memcpy(out, from, len);
    out[len] = 0;
    return true;
}

/* Splits `user:password@` off and returns what follows. */
static const char *take_user(const char *at, const char *end, struct target *out)
{
    const char *sign = memchr(at, '@', (size_t)(end - at));
    if (!sign)
        return at;
    const char *colon = memchr(at, ':', (size_t)(sign - at));
    if (!copy(out->user, sizeof(out->user), at, (size_t)((colon ? colon : sign) - at)))
        return NULL;
    if (colon && !copy(out->password, sizeof(out->password), colon + 1, (size_t)(sign - colon - 1)))
        return NULL;
    return sign + 1;
}

/* Splits host and port; `port` keeps its default when there is none. */
static bool take_host(const char *at, const char *end, struct target *out, char *port,
                      size_t port_cap)
{
    if (!copy(out->authority, sizeof(out->authority), at, (size_t)(end - at)))
        return false;
    const char *host_end = end;
    const char *colon = memrchr(at, ':', (size_t)(end - at));
    if (*at == '[') {
        host_end = memchr(at, ']', (size_t)(end - at));
        if (!host_end)
            return false;
        colon = host_end + 1 < end && host_end[1] == ':' ? host_end + 1 : NULL;
        at++;
    } else if (colon) {
        host_end = colon;
    }
    if (colon && !copy(port, port_cap, colon + 1, (size_t)(end - colon - 1)))
        return false;
    return host_end > at && copy(out->host, sizeof(out->host), at, (size_t)(host_end - at));
}

static int resolve(const char *text, const char *port, struct target *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    int wrong = getaddrinfo(out->host, port, &hints, &found);
    if (wrong)
        return fail(text, gai_strerror(wrong));
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int target_parse(const char *text, const char *scheme, const char *port, struct target *out)
{
    struct target target = {.path = "/"};
    size_t scheme_len = strlen(scheme);
    if (strncmp(text, scheme, scheme_len) != 0 || strncmp(text + scheme_len, "://", 3) != 0) {
        char why[96];
        snprintf(why, sizeof(why), "the address must look like %s://host:port", scheme);
        return fail(text, why);
    }
    const char *at = text + scheme_len + 3;
    const char *end = at + strcspn(at, "/?");
    if (*end == '/' && !copy(target.path, sizeof(target.path), end, strlen(end)))
        return fail(text, "the path is longer than 1,023 bytes");
    at = take_user(at, end, &target);
    char digits[8];
    snprintf(digits, sizeof(digits), "%s", port);
    if (!at || !take_host(at, end, &target, digits, sizeof(digits)))
        return fail(text, "the host or port can't be read");
    if (resolve(text, digits, &target) < 0)
        return -1;
    *out = target;
    return 0;
}
