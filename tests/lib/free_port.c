#include "lib/free_port.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static bool can_listen(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool can = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return can;
}

int free_port(void)
{
    enum { FIRST = 10000, COUNT = 22000, TRIES = 200 };
    for (int i = 0; i < TRIES; i++) {
        uint32_t random = 0;
        assert_int_equal(getrandom(&random, sizeof(random), 0), sizeof(random));
        int port = FIRST + (int)(random % COUNT);
        if (can_listen(port))
            return port;
    }
    fail_msg("no free port in %d tries", TRIES);
    return 0;
}
