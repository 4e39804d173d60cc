/* doctor_viewers.c: what the running node has seen of its viewers' TCP. */
#include "node/doctor_viewers.h"

#include "base/bytes.h"
#include "conf/address.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    WAIT_SECONDS = 2,
    ANSWER_MAX = 1 << 20,
    FEW_VIEWERS = 100, /* of fewer nothing can be said */
    MANY_PER_CENT = 10 /* without an option: that is not some old devices */
};

/* The value of one series; 0 where there is none. */
static double value_of(const char *metrics, const char *series)
{
    size_t len = strlen(series);
    for (const char *at = metrics; (at = strstr(at, series)); at += len) {
        if ((at == metrics || at[-1] == '\n') && at[len] == ' ')
            return strtod(at + len, NULL);
    }
    return 0;
}

int doctor_judge_viewers(const char *metrics, FILE *out)
{
    static const struct {
        const char *name;
        const char *series;
        const char *why;
    } options[] = {
        {"SACK", "halley_tcp_without_total{option=\"sack\"}",
         "they recover one loss per round trip"},
        {"timestamps", "halley_tcp_without_total{option=\"timestamps\"}",
         "their round trips are measured badly under loss"},
        {"window scaling", "halley_tcp_without_total{option=\"window_scaling\"}",
         "they get 64 KiB a trip at most"},
    };
    double all = value_of(metrics, "halley_tcp_viewers_total");
    int problems = 0;
    if (all < FEW_VIEWERS) {
        fprintf(out, "ok    viewers of the running node = %.0f  (too few to judge their TCP)\n",
                all);
        return 0;
    }
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        double share = 100 * value_of(metrics, options[i].series) / all;
        bool many = share > MANY_PER_CENT;
        fprintf(out, "%s  viewers without TCP %s = %.1f %% of %.0f", many ? "warn" : "ok  ",
                options[i].name, share, all);
        if (many)
            fprintf(
                out,
                "  (want few: %s; look for a firewall, a proxy or SYN cookies that strip options)",
                options[i].why);
        fputc('\n', out);
        problems += many;
    }
    return problems;
}

static int dial(const struct conf *conf)
{
    struct sockaddr_storage address;
    struct timeval wait = {.tv_sec = WAIT_SECONDS};
    if (conf->admin.listen[0] == '\0' ||
        conf_address_parse(bytes_str(conf->admin.listen), &address) != 0)
        return -1;
    socklen_t len =
        address.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)); /* connect() too */
    if (connect(fd, (struct sockaddr *)&address, len) == 0)
        return fd;
    close(fd);
    return -1;
}

int doctor_ask_viewers(const struct conf *conf, FILE *out)
{
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    char chunk[16384];
    struct buf answer = {0};
    int fd = dial(conf);
    ssize_t got = fd < 0 ? -1 : send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
    while (got > 0 && answer.len < ANSWER_MAX) {
        got = recv(fd, chunk, sizeof(chunk), 0);
        if (got > 0)
            buf_append(&answer, chunk, (size_t)got);
    }
    if (fd >= 0)
        close(fd);
    buf_byte(&answer, '\0');
    int problems = 0;
    if (got == 0 && !answer.failed && strstr(answer.data, " 200 "))
        problems = doctor_judge_viewers(answer.data, out);
    else
        fprintf(out, "ok    viewers' TCP options: not asked  (no node answers at admin.listen)\n");
    buf_fini(&answer);
    return problems;
}
