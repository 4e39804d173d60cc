#include "node/listen.h"

#include "base/address.h"
#include "base/log.h"
#include "base/sendbuf.h"
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
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
    if (seconds == 0)
        return;
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

/* What this conf leaves to the kernel, and the process that had the socket before may have set. */
static void forget_options(int fd, const struct conf *conf)
{
    char congestion[CONF_ADDRESS_MAX];
    socklen_t len = sizeof(congestion);
    int fresh = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fresh < 0)
        return;
    if (conf->tcp.congestion[0] == '\0' &&
        getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, congestion, &len) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, len);
    uint32_t size = sendbuf_size(fresh);
    if (conf->tcp.sndbuf == 0 && sendbuf_set(fd, size, size) > 0)
        (void)sendbuf_set(fd, 0, size);
    close(fresh);
}

/* Accepted sockets inherit all of these (docs/design). What a kernel lacks is told once and done without. With `all` zeros of the conf
 * are set too: the kernel takes them for its own defaults. */
static void set_options(int fd, const struct conf *conf, bool all)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if ((all || conf->tcp.notsent_lowat > 0) &&
        set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)conf->tcp.notsent_lowat) != 0)
        log_warn("TCP_NOTSENT_LOWAT is not supported: lanes wait behind what the kernel holds");
    if (all || conf->tcp.user_timeout_ms > 0)
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)conf->tcp.user_timeout_ms);
    if (conf->tcp.sndbuf > 0)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)conf->tcp.sndbuf);
    if (all || conf->tcp.keepalive_ms > 0)
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

/* Returns whether the source address decides. */
static bool choose_accept(const struct conf *conf, int fd, uint32_t group)
{
    int none = 0;
    if (conf->server.accept !=
        ACCEPT_IP_HASH) { /* the one that was replaced may have thought otherwise */
        (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &none, sizeof(none));
        return false;
    }
    if (attach_ip_hash(fd, group) == 0)
        return true;
    log_warn("ip-hash is not supported by this kernel: the kernel spreads viewers by connection",
             LOG_STR("why", strerror(errno)));
    return false;
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

uint32_t listen_name(const char *address, struct sockaddr_un *name)
{
    struct sockaddr_storage parsed;
    if (conf_address_parse(bytes_str(address), &parsed) != 0 || conf_address_port(&parsed) == 0)
        return 0;
    *name = (struct sockaddr_un){.sun_family = AF_UNIX};
    int len = snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "halley/listen/%s", address);
    return (uint32_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static void print_bound(int fd, char *out, size_t cap)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    getsockname(fd, (struct sockaddr *)&address, &len);
    address_print(&address, out, cap);
}

void listen_first(const struct conf *conf, const struct listen_gift *gift, char *out, size_t cap)
{
    struct sockaddr_storage address = {0};
    if (gift->addresses > 0)
        print_bound(gift->sockets[0], out, cap);
    else if (conf_address_parse(bytes_str(conf->server.listen.items[0]), &address) == 0)
        address_print(&address, out, cap);
    else
        out[0] = '\0';
}

/* Whether somebody listens there, whom a bind with SO_REUSEPORT would not notice. Returns 0, or why not to. */
static int probe_port(const struct sockaddr_storage *address, socklen_t len)
{
    int fd = open_socket(address, len, false);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

/* With SO_REUSEPORT a second daemon of the same user would silently take its share of the viewers. A bound name is the lock (it goes
 * with its process); the probe then finds whoever else listens there. */
static int take_port(const struct sockaddr_storage *address, socklen_t len, const char *text,
                     int *lock)
{
    struct sockaddr_un name;
    uint32_t name_len = listen_name(text, &name);
    *lock = -1;
    if (name_len == 0)
        return 0;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = bind(fd, (struct sockaddr *)&name, name_len) != 0 ? -errno : 0;
    if (!error)
        error = probe_port(address, len);
    if (error) {
        close(fd);
        return error;
    }
    *lock = fd;
    return 0;
}

static void explain(struct buf *error, const char *text, int code)
{
    buf_printf(error, "server.listen = %s: %s", text,
               strerror(code == -EBUSY ? EADDRINUSE : -code));
    if (code == -EADDRINUSE)
        BUF_LIT(error, " (another daemon listens there; server.share_port = yes, for both, would "
                       "share the port with it)");
    else if (code == -EBUSY)
        BUF_LIT(error, " (another process listens there than the one whose sockets are taken over; "
                       "stop that one first, or wait until it has gone)");
    else if (code == -EACCES)
        BUF_LIT(error, " (a port below 1024 needs CAP_NET_BIND_SERVICE)");
    else if (code == -EADDRNOTAVAIL)
        BUF_LIT(error, " (no interface of this host has that address)");
}

static int open_group(struct listen_set *set, const struct conf *conf, uint32_t index,
                      struct sockaddr_storage *address, socklen_t len)
{
    for (uint32_t i = 0; i < set->group; i++) {
        int fd = open_socket(address, len, true);
        if (fd < 0)
            return fd;
        set->sockets[(size_t)index * set->group + i] = fd;
        set_options(fd, conf, false);
        if (listen(fd, (int)conf->server.backlog) != 0)
            return -errno;
        getsockname(fd, (struct sockaddr *)address,
                    &len); /* port 0: the others take the one that was chosen */
    }
    return 0;
}

static const int *given_group(const struct listen_gift *gift, uint32_t given)
{
    return gift->sockets + (size_t)given * gift->group;
}

/* Which address of the gift is meant; gift->addresses: none. */
static uint32_t find_given(const struct listen_gift *gift, const char *text)
{
    struct sockaddr_storage address;
    char wanted[CONF_ADDRESS_MAX];
    char bound[CONF_ADDRESS_MAX];
    if (conf_address_parse(bytes_str(text), &address) != 0)
        return gift->addresses;
    address_print(&address, wanted, sizeof(wanted));
    for (uint32_t g = 0; g < gift->addresses; g++) {
        print_bound(given_group(gift, g)[0], bound, sizeof(bound));
        if (strcmp(bound, wanted) == 0)
            return g;
    }
    return gift->addresses;
}

static void leave_given(const struct listen_gift *gift, uint32_t given)
{
    char bound[CONF_ADDRESS_MAX];
    print_bound(given_group(gift, given)[0], bound, sizeof(bound));
    log_warn("the running process listens on an address that server.listen lacks here: nobody "
             "will when that one has stopped",
             LOG_STR("address", bound));
    for (uint32_t i = 0; i < gift->group; i++)
        close(given_group(gift, given)[i]);
}

/* One address: its group, all listening, then the program. With `alone` nobody else may listen there: a second group of one port would take connections
 * that are reset when it closes. Returns 1 when this host does not have the address family. */
static int open_address(struct listen_set *set, const struct conf *conf, uint32_t index, bool alone,
                        struct buf *error)
{
    const char *text = conf->server.listen.items[index];
    struct sockaddr_storage address;
    if (conf_address_parse(bytes_str(text), &address) != 0) {
        buf_printf(error, "server.listen = %s: not host:port with a literal address", text);
        return -1;
    }
    socklen_t len =
        address.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    address_print(&address, set->bound[index], sizeof(set->bound[index]));
    bool shares = conf->server.share_port;
    int code = shares ? 0 : take_port(&address, len, set->bound[index], &set->locks[index]);
    int probed = shares ? probe_port(&address, len) : 0;
    if (alone && probed == -EADDRINUSE)
        code = -EBUSY;
    if (code == 0)
        code = open_group(set, conf, index, &address, len);
    if (code == -EAFNOSUPPORT && conf->server.listen.count > 1) {
        log_warn("address family not supported, address left out", LOG_STR("address", text));
        return 1;
    }
    if (code != 0) {
        explain(error, text, code);
        return -1;
    }
    address_print(&address, set->bound[index], sizeof(set->bound[index]));
    if (probed != 0) {
        set->steady = false;
        log_warn("a program that is no Halley listens on this port too: the kernel spreads "
                 "viewers over both",
                 LOG_STR("address", text));
    } else if (set->group > 1) {
        set->steady &= choose_accept(conf, set->sockets[(size_t)index * set->group], set->group);
    }
    return 0;
}

static void close_all(struct listen_set *set)
{
    for (size_t i = 0; set->sockets && i < (size_t)set->addresses * set->group; i++) {
        if (set->sockets[i] >= 0)
            close(set->sockets[i]);
    }
    listen_release(set);
}

/* Addresses of a family that this host lacks leave a hole in the table: it is closed here. */
static void drop_address(struct listen_set *set, uint32_t index)
{
    for (uint32_t a = index; a + 1 < set->addresses; a++) {
        memcpy(set->bound[a], set->bound[a + 1], sizeof(set->bound[a]));
        memcpy(set->sockets + (size_t)a * set->group, set->sockets + (size_t)(a + 1) * set->group,
               set->group * sizeof(int));
        set->locks[a] = set->locks[a + 1];
    }
    set->locks[--set->addresses] = -1;
}

/* An address of the gift becomes one of ours. */
static void take_address(struct listen_set *set, const struct conf *conf, uint32_t index,
                         const struct listen_gift *gift, uint32_t given)
{
    int *group = set->sockets + (size_t)index * set->group;
    memcpy(group, given_group(gift, given), set->group * sizeof(int));
    print_bound(group[0], set->bound[index], sizeof(set->bound[index]));
    for (uint32_t i = 0; i < set->group; i++) {
        set_options(group[i], conf, !gift->fixed); /* systemd's unit may set some too */
        if (!gift->fixed)
            forget_options(group[i], conf);
        (void)listen(group[i], (int)conf->server.backlog); /* a new backlog takes effect */
    }
    if (set->group > 1)
        set->steady &= choose_accept(conf, group[0], set->group);
}

/* All of them, as systemd passed them: its unit says where viewers come in. */
static void take_all(struct listen_set *set, const struct conf *conf,
                     const struct listen_gift *gift)
{
    for (uint32_t a = 0; a < set->addresses; a++)
        take_address(set, conf, a, gift, a);
    for (uint32_t i = 0; i < conf->server.listen.count; i++) {
        if (find_given(gift, conf->server.listen.items[i]) == gift->addresses)
            log_warn("systemd passed no socket of this address: nobody listens there",
                     LOG_STR("server.listen", conf->server.listen.items[i]),
                     LOG_STR("do", "add it to the socket unit, or take it out of server.listen"));
    }
}

/* What the running process has and this conf too is taken, what this conf lacks is left to that process alone, the others are opened. */
static int open_addresses(struct listen_set *set, const struct conf *conf,
                          const struct listen_gift *gift, struct buf *error)
{
    uint64_t taken = 0;
    for (uint32_t a = set->addresses; a-- > 0;) {
        uint32_t given = find_given(gift, conf->server.listen.items[a]);
        bool ours = given < gift->addresses && !(taken & 1ull << given);
        if (ours)
            take_address(set, conf, a, gift, given);
        taken |= ours ? 1ull << given : 0;
        int result = ours ? 0 : open_address(set, conf, a, gift->addresses > 0, error);
        if (result < 0)
            return -1;
        if (result > 0)
            drop_address(set, a);
    }
    for (uint32_t g = 0; g < gift->addresses; g++) {
        if (!(taken & 1ull << g))
            leave_given(gift, g);
    }
    if (set->addresses > 0)
        return 0;
    buf_text(error, "server.listen: this host supports none of the addresses");
    return -1;
}

/* Worker w gets the sockets w, w + workers, …; where there are more workers than sockets several poll copies of one. */
static int share_out(struct listen_set *set)
{
    for (uint32_t w = 0; w < set->workers; w++) {
        int *out = set->fds + (size_t)w * set->slots;
        for (uint32_t a = 0; a < set->addresses; a++) {
            const int *group = set->sockets + (size_t)a * set->group;
            for (uint32_t i = w; i < set->group; i += set->workers)
                *out++ = group[i];
            if (w >= set->group && (*out++ = dup(group[w % set->group])) < 0)
                return -1;
        }
    }
    return 0;
}

static int *fds_create(size_t count)
{
    int *fds = malloc(sizeof(int) * count);
    for (size_t i = 0; fds && i < count; i++)
        fds[i] = -1;
    return fds;
}

int listen_open(struct listen_set *set, const struct conf *conf, uint32_t workers,
                const struct listen_gift *gift, struct buf *error)
{
    *set =
        (struct listen_set){.workers = workers,
                            .group = gift->addresses > 0 ? gift->group : workers,
                            .addresses = gift->fixed ? gift->addresses : conf->server.listen.count};
    for (int i = 0; i < CONF_LISTEN_MAX; i++)
        set->locks[i] = -1;
    set->steady = set->group >= workers;
    set->slots = set->addresses * ((set->group + workers - 1) / workers);
    set->sockets = fds_create((size_t)set->addresses * set->group);
    set->fds = fds_create((size_t)workers * set->slots);
    if (!set->sockets || !set->fds) {
        buf_text(error, "out of memory");
    } else if (gift->fixed) {
        take_all(set, conf, gift);
    } else if (open_addresses(set, conf, gift, error) != 0) {
        close_all(set);
        return -1;
    }
    if (error->len == 0 && share_out(set) != 0)
        buf_text(error, "out of file descriptors");
    set->steady |= workers == 1;
    if (error->len == 0)
        return 0;
    close_all(set);
    return -1;
}

uint32_t listen_count(const struct listen_set *set, uint32_t worker)
{
    uint32_t count = 0;
    while (count < set->slots && listen_of(set, worker)[count] >= 0)
        count++;
    return count;
}

void listen_release(struct listen_set *set)
{
    for (uint32_t a = 0; a < CONF_LISTEN_MAX; a++) {
        if (set->locks[a] >= 0)
            close(set->locks[a]);
        set->locks[a] = -1;
    }
    free(set->fds);
    free(set->sockets);
    set->fds = set->sockets = NULL;
}
