#include "lib/redis_server.h"

#include "broker/redis_wire.h"
#include "lib/free_port.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void exec_redis(int out, int port, const char *password)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", port);
    /* The server must not outlive a test that was killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--requirepass", password, "--maxmemory", "64mb", (char *)NULL);
    _exit(127);
}

/* False: the server has ended before it served; last: the last line that it said. */
static bool wait_served(int out, char *last, int size)
{
    FILE *log = fdopen(out, "r");
    bool served = false;
    assert_non_null(log);
    while (!served && fgets(last, size, log))
        served = strstr(last, "Ready to accept connections");
    fclose(log);
    return served;
}

static bool run_redis(struct redis_server *server, char *last, int size)
{
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        exec_redis(pipe_fds[1], server->port, server->password);
    close(pipe_fds[1]);
    if (wait_served(pipe_fds[0], last, size))
        return true;
    waitpid(server->pid, NULL, 0);
    return false;
}

void redis_start(struct redis_server *server, int port, const char *password)
{
    char last[512] = "nothing: is it installed?";
    int tries = port ? 1 : 5; /* another test may take a free port first */
    *server = (struct redis_server){0};
    snprintf(server->password, sizeof(server->password), "%s", password);
    do {
        server->port = port ? port : free_port();
    } while (!run_redis(server, last, sizeof(last)) && --tries > 0);
    if (tries == 0)
        fail_msg("redis-server did not start on port %d; it said last: %s", server->port, last);
    struct sockaddr_in address = loopback(server->port);
    server->control = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(server->control, (struct sockaddr *)&address, sizeof(address)), 0);
    if (*password)
        assert_string_equal(redis_ask(server, "AUTH %s", password), "OK");
}

void redis_stop(struct redis_server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    close(server->control);
    server->pid = 0;
}

void redis_halt(struct redis_server *server)
{
    int status = 0;
    assert_int_equal(kill(server->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(server->pid, &status, WUNTRACED), server->pid);
    assert_true(WIFSTOPPED(status));
}

void redis_resume(struct redis_server *server)
{
    assert_int_equal(kill(server->pid, SIGCONT), 0);
}

static void send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        assert_true(n > 0);
        data += n;
        len -= (size_t)n;
    }
}

/* Sends the command and reads its reply as text. */
static const char *ask(struct redis_server *server, struct bytes command)
{
    static char text[65536];
    static char chunk[65536];
    struct wire wire;
    send_all(server->control, command.data, command.len);
    assert_int_equal(wire_init(&wire, 1 << 24), 0);
    int result;
    while ((result = wire_next(&wire)) == 0) {
        ssize_t n = recv(server->control, chunk, sizeof(chunk), 0);
        assert_true(n > 0);
        assert_int_equal(wire_feed(&wire, chunk, (size_t)n), 0);
    }
    assert_int_equal(result, 1);
    const struct broker_value *top = wire.reply;
    if (top->kind == BROKER_INTEGER)
        snprintf(text, sizeof(text), "%lld", (long long)top->integer);
    else
        snprintf(text, sizeof(text), "%.*s", (int)top->text.len,
                 top->text.data ? top->text.data : "");
    wire_fini(&wire);
    return text;
}

const char *redis_ask(struct redis_server *server, const char *format, ...)
{
    static char text[65536];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text) - 2, format, args);
    va_end(args);
    memcpy(text + len, "\r\n", 2);
    return ask(server, bytes_of(text, (size_t)len + 2));
}

const char *redis_do(struct redis_server *server, const struct bytes *args, uint32_t count)
{
    struct buf command = {0};
    wire_command_start(&command, count);
    for (uint32_t i = 0; i < count; i++)
        wire_command_arg(&command, args[i]);
    const char *text = ask(server, buf_view(&command));
    buf_fini(&command);
    return text;
}
