#include "auth/digest.h"

#include <openssl/sha.h>

void auth_digest(struct bytes ticket, char out[AUTH_DIGEST_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)ticket.data, ticket.len, digest);
    for (size_t i = 0; i < sizeof(digest); i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[AUTH_DIGEST_LEN] = '\0';
}
