#include "base/sendbuf.h"
#include "base/test_base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SHORT_BYTES = 16384, CHUNK = 4096 };

struct pair {
    int from;
    int to;
};

static void open_pair(struct pair *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(listener, 1), 0);
    pair->to = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(pair->to, (struct sockaddr *)&address, len), 0);
    pair->from = accept(listener, NULL, NULL);
    assert_true(pair->from >= 0);
    assert_int_equal(fcntl(pair->from, F_SETFL, O_NONBLOCK), 0);
    close(listener);
}

static void close_pair(struct pair *pair)
{
    close(pair->from);
    close(pair->to);
}

/* Passes so many bytes on, and as many as the sockets hold. */
static void pass(struct pair *pair, size_t bytes)
{
    char chunk[CHUNK];
    memset(chunk, 'x', sizeof(chunk));
    for (size_t got = 0; got < bytes;) {
        while (send(pair->from, chunk, sizeof(chunk), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            ;
        ssize_t count = recv(pair->to, chunk, sizeof(chunk), 0);
        assert_true(count > 0);
        got += (size_t)count;
    }
}

static void sendbuf__is_as_large_as_it_was_set(void **state)
{
    (void)state;
    struct pair pair;
    open_pair(&pair);
    assert_int_equal(sendbuf_set(pair.from, SHORT_BYTES, 1 << 20), SHORT_BYTES);
    assert_int_equal(sendbuf_size(pair.from), SHORT_BYTES);
    pass(&pair, 8 << 20);
    assert_int_equal(sendbuf_size(pair.from), SHORT_BYTES);
    /* Less than was asked for would mean that the kernel has cut it. */
    assert_int_equal(sendbuf_set(pair.from, SHORT_BYTES + 1, 1 << 20), SHORT_BYTES + 2);
    close_pair(&pair);
}

static void sendbuf__given_back_is_tuned_by_the_kernel_again(void **state)
{
    (void)state;
    struct pair pair;
    open_pair(&pair);
    sendbuf_set(pair.from, SHORT_BYTES, 1 << 20);
    sendbuf_set(pair.from, 0, SHORT_BYTES);
    pass(&pair, 8 << 20);
    assert_true(sendbuf_size(pair.from) > 4 * SHORT_BYTES);
    close_pair(&pair);
}

static void sendbuf__past_what_the_kernel_lets_be_set_it_tells_so(void **state)
{
    (void)state;
    struct pair pair;
    unsigned long wmem_max = 0;
    FILE *file = fopen("/proc/sys/net/core/wmem_max", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &wmem_max), 1);
    fclose(file);
    open_pair(&pair);
    assert_int_equal(sendbuf_set(pair.from, (uint32_t)(2 * wmem_max + 65536), 1 << 20),
                     2 * wmem_max);
    assert_int_equal(sendbuf_size(pair.from), 2 * wmem_max);
    close_pair(&pair);
}

static void sendbuf__tells_what_is_held_and_how_far_the_peer_is(void **state)
{
    (void)state;
    struct pair pair;
    struct sendbuf sendbuf;
    open_pair(&pair);
    assert_true(sendbuf_read(pair.from, &sendbuf));
    assert_int_equal(sendbuf.held, 0);
    pass(&pair, 1 << 20);
    assert_true(sendbuf_read(pair.from, &sendbuf));
    assert_true(sendbuf.held >= CHUNK); /* the peer's buffer is full too */
    assert_in_range(sendbuf.min_rtt_us, 1, 1000000);
    assert_true(sendbuf.rtt_us >= sendbuf.min_rtt_us);
    assert_true(sendbuf.acked >= 1 << 20);
    close_pair(&pair);
}

static void sendbuf__of_no_socket_is_not_known(void **state)
{
    (void)state;
    struct sendbuf sendbuf;
    assert_false(sendbuf_read(-1, &sendbuf));
    assert_int_equal(sendbuf_size(-1), 0);
    assert_int_equal(sendbuf_set(-1, 0, 1 << 20), 0);
}

int run_sendbuf_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sendbuf__is_as_large_as_it_was_set),
        cmocka_unit_test(sendbuf__given_back_is_tuned_by_the_kernel_again),
        cmocka_unit_test(sendbuf__past_what_the_kernel_lets_be_set_it_tells_so),
        cmocka_unit_test(sendbuf__tells_what_is_held_and_how_far_the_peer_is),
        cmocka_unit_test(sendbuf__of_no_socket_is_not_known),
    };
    return cmocka_run_group_tests_name("sendbuf", tests, NULL, NULL);
}
