#include "admin/internal.h"

#include <arpa/inet.h>
#include <strings.h>

static bool secret_equal(struct bytes given, struct bytes wanted)
{
    /* volatile: the compiler may not leave the loop early. The length may be guessed, the content
     * may not. */
    volatile unsigned char difference = given.len != wanted.len;
    for (size_t i = 0; i < given.len; i++) {
        unsigned char a = (unsigned char)given.data[i];
        unsigned char b = (unsigned char)wanted.data[i % wanted.len];
        difference = (unsigned char)(difference | (a ^ b));
    }
    return difference == 0;
}

bool guard_token_valid(const char *authorization, const char *token)
{
    static const char scheme[] = "Bearer ";
    if (!authorization || token[0] == '\0')
        return false;
    if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
        return false;
    const char *given = authorization + sizeof(scheme) - 1;
    given += strspn(given, " ");
    return secret_equal(bytes_str(given), bytes_str(token));
}

bool guard_host_is_local(const char *host)
{
    char name[INET6_ADDRSTRLEN + 1];
    unsigned char binary[sizeof(struct in6_addr)];
    bool bracketed = host[0] == '[';
    host += bracketed;
    size_t len = strcspn(host, bracketed ? "]" : ":");
    if (len == 0 || len >= sizeof(name))
        return false;
    memcpy(name, host, len);
    name[len] = '\0';
    host += len;
    if (bracketed && *host++ != ']')
        return false;
    if (*host == ':')
        host += 1 + strspn(host + 1, "0123456789");
    if (*host != '\0')
        return false;
    if (bracketed)
        return inet_pton(AF_INET6, name, binary) == 1;
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, binary) == 1;
}
