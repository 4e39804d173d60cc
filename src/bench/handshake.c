#include "bench/handshake.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The example of RFC 6455 §1.3: all viewers send the same key, so the right answer is known without
 * SHA-1. */
#define HANDSHAKE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define HANDSHAKE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

void handshake_request(struct buf *out, const struct target *target)
{
    buf_printf(out, " HTTP/1.1\r\nHost: %s\r\n", target->authority);
    BUF_LIT(out, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: " HANDSHAKE_KEY "\r\n");
}

enum handshake_result handshake_answer(struct bytes received, size_t *head_len, char *why,
                                       size_t why_cap)
{
    const char *end = received.len ? memmem(received.data, received.len, "\r\n\r\n", 4) : NULL;
    if (!end && received.len < HANDSHAKE_HEAD_MAX)
        return HANDSHAKE_MORE;
    if (!end) {
        snprintf(why, why_cap, "the handshake's answer is above 8 KB");
        return HANDSHAKE_REFUSED;
    }
    *head_len = (size_t)(end - received.data) + 4;
    if (*head_len > 12 && memcmp(received.data, "HTTP/1.1 101", 12) == 0 &&
        memmem(received.data, *head_len, HANDSHAKE_ACCEPT, strlen(HANDSHAKE_ACCEPT)))
        return HANDSHAKE_OPEN;
    int line = 0;
    while (received.data[line] != '\r' && received.data[line] != '\n')
        line++;
    snprintf(why, why_cap, "handshake answered with: %.*s", line, received.data);
    return HANDSHAKE_REFUSED;
}

int handshake_connect(const struct target *target, const struct sockaddr_in *from, int rcvbuf)
{
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (rcvbuf > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
    /* The port is left to connect(), so that only the whole four-tuple must be unique. */
    if (from)
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if ((!from || bind(fd, (const struct sockaddr *)from, sizeof(*from)) == 0) &&
        (connect(fd, (const struct sockaddr *)&target->address, target->address_len) == 0 ||
         errno == EINPROGRESS))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}
