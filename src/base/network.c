#include "base/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

enum { V4_BITS = 96 }; /* before an IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2) */

static void map_ipv4(const void *address, uint8_t out[16])
{
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, address, 4);
}

/* Whether a and b are equal in their first `bits` bits. */
static bool same_prefix(const uint8_t a[16], const uint8_t b[16], unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool parse_bits(struct bytes text, unsigned most, unsigned *bits)
{
    *bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        *bits = *bits * 10 + (unsigned)(text.data[i] - '0');
    }
    return text.len > 0 && text.len <= 3 && *bits <= most;
}

bool network_parse(struct bytes text, struct network *out)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t raw[16];
    const char *slash = text.len ? memchr(text.data, '/', text.len) : NULL;
    size_t len = slash ? (size_t)(slash - text.data) : text.len;
    if (len == 0 || len >= sizeof(host) || memchr(text.data, '\0', len))
        return false;
    memcpy(host, text.data, len);
    host[len] = '\0';
    bool v4 = inet_pton(AF_INET, host, raw) == 1;
    if (v4)
        map_ipv4(raw, out->address);
    else if (inet_pton(AF_INET6, host, out->address) != 1)
        return false;
    unsigned most = v4 ? 32 : 128;
    unsigned bits = most;
    if (slash && !parse_bits(bytes_of(slash + 1, text.len - len - 1), most, &bits))
        return false;
    out->bits = (uint8_t)(bits + (v4 ? V4_BITS : 0));
    for (unsigned i = out->bits; i < 128; i++) {
        if (out->address[i / 8] & 0x80u >> i % 8)
            return false;
    }
    return true;
}

bool network_has(const struct network *network, const struct sockaddr_storage *address)
{
    uint8_t raw[16];
    if (address->ss_family == AF_INET)
        map_ipv4(&((const struct sockaddr_in *)address)->sin_addr, raw);
    else if (address->ss_family == AF_INET6)
        memcpy(raw, &((const struct sockaddr_in6 *)address)->sin6_addr, sizeof(raw));
    else
        return false;
    return same_prefix(network->address, raw, network->bits);
}
