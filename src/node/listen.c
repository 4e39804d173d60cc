#include "node/listen.h"

#include "base/address.h"
#include "base/log.h"
#include "conf/address.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { NET = SKF_NET_OFF };

static int set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value));
}

static void probe_idle(int fd, int seconds)
{
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

/* Accepted sockets inherit all of these (docs/design). What a kernel lacks is told once and done without. */
static void set_options(int fd, const struct conf *conf)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (conf->tcp.notsent_lowat > 0 &&
        set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)conf->tcp.notsent_lowat) != 0)
        log_warn("TCP_NOTSENT_LOWAT is not supported: lanes wait behind what the kernel holds");
    if (conf->tcp.user_timeout_ms > 0)
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)conf->tcp.user_timeout_ms);
    if (conf->tcp.sndbuf > 0)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)conf->tcp.sndbuf);
    if (conf->tcp.keepalive_ms > 0)
        probe_idle(fd, (int)((conf->tcp.keepalive_ms + 999) / 1000));
    const char *congestion = conf->tcp.congestion;
    if (congestion[0] &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)) != 0)
        log_warn("tcp.congestion is not available: the kernel's default stays; modprobe loads one, "
                 "net.ipv4.tcp_allowed_congestion_control lets it be used",
                 LOG_STR("congestion", congestion), LOG_STR("why", strerror(errno)));
}

/* Picks socket (hash of the source address) * workers >> 16: the multiplication's high bits, another mixing than IPVS's `sh`. IPv6 counts by /64. The
 * program belongs to the port's group; its result is the index in order of listen(). */
static int attach_ip_hash(int fd, uint32_t workers)
{
    const uint32_t golden = 0x9e3779b1;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)NET + 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 2, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)NET + 12), /* IPv4: source */
        BPF_JUMP(BPF_JMP | BPF_JA, 5, 0, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)NET + 8), /* IPv6: upper half of the source */
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x85ebca6b),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)NET + 12),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, golden),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, workers),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

/* The program counts only its own process's sockets, but belongs to the port: beside another daemon it would leave one of them without viewers. */
static void hash_addresses(const struct conf *conf, int fd, uint32_t workers)
{
    if (conf->server.share_port)
        log_info("server.share_port: the kernel spreads viewers by connection, server.accept = "
                 "ip-hash is for a port of one's own");
    else if (attach_ip_hash(fd, workers) != 0)
        log_warn(
            "ip-hash is not supported by this kernel: the kernel spreads viewers by connection",
            LOG_STR("why", strerror(errno)));
}

static int open_socket(const struct sockaddr_storage *address, socklen_t len, bool share)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (address->ss_family == AF_INET6)
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if ((share && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) ||
        bind(fd, (const struct sockaddr *)address, len) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

/* With SO_REUSEPORT a second daemon of the same user would silently take its share of the viewers. An abstract socket is the lock (it goes with
 * its process); a bind without SO_REUSEPORT then finds whoever else listens there. */
static int take_port(const struct sockaddr_storage *address, socklen_t len, const char *text,
                     int *lock)
{
    *lock = -1;
    if (conf_address_port(address) == 0)
        return 0;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int name_len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "halley/listen/%s", text);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&name,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)name_len)) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    int probe = open_socket(address, len, false);
    if (probe < 0) {
        close(fd);
        return probe;
    }
    close(probe);
    *lock = fd;
    return 0;
}

static void explain(struct buf *error, const char *text, int code)
{
    buf_printf(error, "server.listen = %s: %s", text, strerror(-code));
    if (code == -EADDRINUSE)
        BUF_LIT(error, " (another daemon listens there; server.share_port = yes would share the "
                       "port with it)");
    else if (code == -EACCES)
        BUF_LIT(error, " (a port below 1024 needs CAP_NET_BIND_SERVICE)");
    else if (code == -EADDRNOTAVAIL)
        BUF_LIT(error, " (no interface of this host has that address)");
}

/* One address: a socket for each worker, all listening, then the program. */
static int open_address(struct listen_set *set, const struct conf *conf, uint32_t index,
                        struct buf *error)
{
    const char *text = conf->server.listen.items[index];
    struct sockaddr_storage address;
    socklen_t len;
    if (conf_address_parse(bytes_str(text), &address) != 0) {
        buf_printf(error, "server.listen = %s: not host:port with a literal address", text);
        return -1;
    }
    len = address.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int code = conf->server.share_port ? 0 : take_port(&address, len, text, &set->locks[index]);
    for (uint32_t worker = 0; code == 0 && worker < set->workers; worker++) {
        int fd = open_socket(&address, len, true);
        if (fd < 0) {
            code = fd;
            break;
        }
        set->fds[(size_t)worker * set->addresses + index] = fd;
        set_options(fd, conf);
        if (listen(fd, (int)conf->server.backlog) != 0)
            code = -errno;
        getsockname(fd, (struct sockaddr *)&address,
                    &len); /* port 0: the others take the one that was chosen */
    }
    if (code == -EAFNOSUPPORT && conf->server.listen.count > 1) {
        log_warn("address family not supported, address left out", LOG_STR("address", text));
        return 1;
    }
    if (code != 0) {
        explain(error, text, code);
        return -1;
    }
    address_print(&address, set->bound[index], sizeof(set->bound[index]));
    if (conf->server.accept == ACCEPT_IP_HASH && set->workers > 1)
        hash_addresses(conf, set->fds[index], set->workers);
    return 0;
}

static void close_all(struct listen_set *set)
{
    for (size_t i = 0; i < (size_t)set->workers * set->addresses; i++) {
        if (set->fds[i] >= 0)
            close(set->fds[i]);
    }
    listen_release(set);
}

/* Sockets from systemd: each worker polls a copy of each; who is first accepts. */
static int take_passed(struct listen_set *set, const struct conf *conf, const int *passed)
{
    for (uint32_t a = 0; a < set->addresses; a++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof(address);
        getsockname(passed[a], (struct sockaddr *)&address, &len);
        address_print(&address, set->bound[a], sizeof(set->bound[a]));
        set_options(passed[a], conf);
        for (uint32_t worker = 0; worker < set->workers; worker++) {
            int fd = worker == 0 ? passed[a] : dup(passed[a]);
            if (fd < 0)
                return -1;
            set->fds[(size_t)worker * set->addresses + a] = fd;
        }
    }
    log_info("listening on sockets from systemd: the kernel spreads viewers by connection");
    return 0;
}

/* Addresses of a family that this host lacks leave a hole in the table: it is closed here. */
static void drop_address(struct listen_set *set, uint32_t index)
{
    for (uint32_t worker = 0, to = 0; worker < set->workers; worker++) {
        for (uint32_t a = 0; a < set->addresses; a++) {
            if (a != index)
                set->fds[to++] = set->fds[(size_t)worker * set->addresses + a];
        }
    }
    for (uint32_t a = index; a + 1 < set->addresses; a++) {
        memcpy(set->bound[a], set->bound[a + 1], sizeof(set->bound[a]));
        set->locks[a] = set->locks[a + 1];
    }
    set->locks[--set->addresses] = -1;
}

int listen_open(struct listen_set *set, const struct conf *conf, uint32_t workers,
                const int *passed, uint32_t passed_count, struct buf *error)
{
    *set = (struct listen_set){
        .workers = workers, .addresses = passed_count ? passed_count : conf->server.listen.count};
    for (int i = 0; i < CONF_LISTEN_MAX; i++)
        set->locks[i] = -1;
    set->fds = malloc(sizeof(int) * workers * set->addresses);
    if (!set->fds) {
        buf_text(error, "out of memory");
        return -1;
    }
    for (size_t i = 0; i < (size_t)workers * set->addresses; i++)
        set->fds[i] = -1;
    if (passed_count > 0) {
        if (take_passed(set, conf, passed) == 0)
            return 0;
        buf_text(error, "out of file descriptors");
        close_all(set);
        return -1;
    }
    uint32_t missing[CONF_LISTEN_MAX];
    uint32_t missing_count = 0;
    for (uint32_t a = 0; a < set->addresses; a++) {
        int result = open_address(set, conf, a, error);
        if (result > 0)
            missing[missing_count++] = a;
        if (result < 0) {
            close_all(set);
            return -1;
        }
    }
    while (missing_count > 0)
        drop_address(set, missing[--missing_count]);
    if (set->addresses > 0)
        return 0;
    buf_text(error, "server.listen: this host supports none of the addresses");
    close_all(set);
    return -1;
}

void listen_release(struct listen_set *set)
{
    for (uint32_t a = 0; a < CONF_LISTEN_MAX; a++) {
        if (set->locks[a] >= 0)
            close(set->locks[a]);
        set->locks[a] = -1;
    }
    free(set->fds);
    set->fds = NULL;
}
