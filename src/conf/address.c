#include "conf/address.h"

#include "conf/units.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

int conf_address_parse(struct bytes text, struct sockaddr_storage *out)
{
    char host[INET6_ADDRSTRLEN];
    uint64_t port;
    const char *colon = text.data ? memrchr(text.data, ':', text.len) : NULL;
    if (!colon || memchr(text.data, '\0', text.len))
        return -1;
    size_t host_len = (size_t)(colon - text.data);
    struct bytes port_text = bytes_of(colon + 1, text.len - host_len - 1);
    if (port_text.len > 5 || units_parse_uint(port_text, &port) != 0 || port > UINT16_MAX)
        return -1;
    bool v6 = host_len >= 2 && text.data[0] == '[' && text.data[host_len - 1] == ']';
    const char *start = v6 ? text.data + 1 : text.data;
    if (v6)
        host_len -= 2;
    if (host_len >= sizeof(host))
        return -1;
    memcpy(host, start, host_len);
    host[host_len] = '\0';

    struct sockaddr_storage address = {0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(v6 ? AF_INET6 : AF_INET, host,
                  v6 ? (void *)&in6->sin6_addr : (void *)&in4->sin_addr) != 1)
        return -1;
    address.ss_family = v6 ? AF_INET6 : AF_INET;
    if (v6)
        in6->sin6_port = htons((uint16_t)port);
    else
        in4->sin_port = htons((uint16_t)port);
    *out = address;
    return 0;
}

bool conf_address_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
}

uint16_t conf_address_port(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)address)->sin_port);
}
