#include "node/notify.h"
#include "node/test_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where systemd would listen: an abstract address, told by NOTIFY_SOCKET. */
static int manager = -1;

static int set_up(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int len = snprintf(name, sizeof(name), "@halley-test-notify-%d", getpid());
    memcpy(address.sun_path + 1, name + 1, (size_t)len - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len);
    if (manager < 0 || bind(manager, (struct sockaddr *)&address, size) != 0)
        return -1;
    return setenv("NOTIFY_SOCKET", name, 1);
}

static int tear_down(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    return close(manager);
}

/* A datagram is queued before sd_notify() returns, so nothing has to be waited for. */
static void assert_told(const char *text)
{
    char told[256] = {0};
    ssize_t len = recv(manager, told, sizeof(told) - 1, 0);
    assert_true(len > 0);
    assert_string_equal(told, text);
}

static void notify__tells_each_state(void **state)
{
    (void)state;
    notify_ready("serving");
    assert_told("READY=1\nSTATUS=serving");
    notify_stopping("draining");
    assert_told("STOPPING=1\nSTATUS=draining");
    notify_status("12 viewers");
    assert_told("STATUS=12 viewers");
    notify_watchdog();
    assert_told("WATCHDOG=1");
}

static void notify_reloading__carries_the_time(void **state)
{
    (void)state;
    char told[256] = {0};
    notify_reloading();
    assert_true(recv(manager, told, sizeof(told) - 1, 0) > 0);
    unsigned long long usec = 0;
    assert_int_equal(sscanf(told, "RELOADING=1\nMONOTONIC_USEC=%llu", &usec), 1);
    assert_true(usec > 0);
}

static void notify__without_systemd_does_nothing(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("LISTEN_FDS");
    notify_ready("serving");
    notify_watchdog();
    assert_int_equal(notify_watchdog_ms(), 0);
    struct buf why = {0};
    int fds[2];
    assert_int_equal(notify_listen_fds(fds, 2, &why), 0);
    assert_int_equal(why.len, 0);
    buf_fini(&why);
}

static void notify_watchdog_ms__is_for_this_process_only(void **state)
{
    (void)state;
    char pid[16];
    setenv("WATCHDOG_USEC", "10000000", 1);
    assert_int_equal(notify_watchdog_ms(), 10000);
    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(notify_watchdog_ms(), 10000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_ms(), 0);
    unsetenv("WATCHDOG_PID");
    unsetenv("WATCHDOG_USEC");
}

static int tcp_socket(int listening)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return -1;
    return listening && listen(fd, 4) != 0 ? -1 : fd;
}

static void pass_sockets(const int *given, int count)
{
    char text[16];
    /* Out of the way first: a given socket may stand where another one goes. */
    int moved[4];
    for (int i = 0; i < count; i++)
        moved[i] = fcntl(given[i], F_DUPFD, 100);
    for (int i = 0; i < count; i++)
        dup2(moved[i], 3 + i);
    snprintf(text, sizeof(text), "%d", getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof(text), "%d", count);
    setenv("LISTEN_FDS", text, 1);
}

/* systemd passes sockets as 3, 4, …, where the test runner has files of its own: so each case is played in a child, which
 * exits 0 when it saw what it should. */
static void assert_child(int (*play)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(play());
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int play_two_listeners(void)
{
    int given[] = {tcp_socket(1), tcp_socket(1)};
    int fds[2] = {-1, -1};
    struct buf why = {0};
    pass_sockets(given, 2);
    if (notify_listen_fds(fds, 2, &why) != 2 || fds[0] != 3 || fds[1] != 4)
        return 1;
    for (int i = 0; i < 2; i++) {
        if (!(fcntl(fds[i], F_GETFL) & O_NONBLOCK) || !(fcntl(fds[i], F_GETFD) & FD_CLOEXEC))
            return 2;
    }
    return getenv("LISTEN_FDS") ? 3 : 0;
}

static int refused(const int *given, int count, int max, const char *reason)
{
    int fds[4] = {-1, -1, -1, -1};
    struct buf why = {0};
    pass_sockets(given, count);
    if (notify_listen_fds(fds, max, &why) != -1)
        return 1;
    buf_byte(&why, '\0');
    if (!why.data || !strstr(why.data, reason))
        return 2;
    buf_fini(&why);
    for (int i = 0; i < count; i++) {
        if (fcntl(3 + i, F_GETFD) != -1 || errno != EBADF)
            return 3;
    }
    return fds[0] == -1 ? 0 : 4;
}

static int play_too_many(void)
{
    int given[] = {tcp_socket(1), tcp_socket(1), tcp_socket(1)};
    return refused(given, 3, 2, "3 sockets were passed, at most 2 are allowed");
}

static int play_not_listening(void)
{
    int given[] = {tcp_socket(1), tcp_socket(0)};
    return refused(given, 2, 4, "socket 2 of 2 is not a listening TCP socket");
}

static int play_unix_socket(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 9;
    return refused(pair, 1, 4, "socket 1 of 1 is not a listening TCP socket");
}

static void notify_listen_fds__takes_listeners_over(void **state)
{
    (void)state;
    assert_child(play_two_listeners);
}

static void notify_listen_fds__refuses_what_is_no_listener_or_too_many(void **state)
{
    (void)state;
    assert_child(play_too_many);
    assert_child(play_not_listening);
    assert_child(play_unix_socket);
}

int run_notify_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(notify__tells_each_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notify_reloading__carries_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notify__without_systemd_does_nothing, set_up, tear_down),
        cmocka_unit_test(notify_watchdog_ms__is_for_this_process_only),
        cmocka_unit_test(notify_listen_fds__takes_listeners_over),
        cmocka_unit_test(notify_listen_fds__refuses_what_is_no_listener_or_too_many),
    };
    return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
