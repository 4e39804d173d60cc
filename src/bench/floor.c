#include "base/bytes.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/frames.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* The same answer to everybody, to the key that halley-bench sends (RFC 6455 §1.3). */
static const char answer[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/* With --joins: what Halley says behind the 101, in the same write, and to a join. */
static const char welcome[] = "{\"op\":\"welcome\",\"connection\":\"0000000000000000\",\"user\":"
                              "\"u000000000000000\",\"node\":"
                              "\"floor:00000\",\"heartbeat\":{\"interval_ms\":25000,\"timeout_ms\":"
                              "60000},\"frame_bytes\":1396}";
static const char joined[] = "{\"op\":\"joined\",\"room\":\"bench\",\"ref\":1}";
static const char started[] = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/* One message in FAULT_EVERY goes wrong on demand, to see that the client notices. */
enum fault { FAULT_NONE, FAULT_DROP, FAULT_REPEAT, FAULT_SWAP, FAULT_STALL, FAULT_DIE, FAULTS };
static const char *const fault_names[FAULTS] = {"none", "drop", "repeat", "swap", "stall", "die"};
enum {
    FAULT_EVERY = 10,
    FAULT_AT = 5,
    FAULT_STALL_NS = 100 * 1000 * 1000,
    HEAD_MAX = 8192,
    EVENTS = 256,
    PEERS_MAX = 1 << 20
};

struct peer {
    bool open;
    bool live;
    uint32_t at; /* in floor.live */
    uint32_t
        viewer; /* its number, from the user name that halley-bench gives it; PEERS_MAX: none */
    struct buf head;
};

struct floor_loop {
    int epoll;
    int listener;
    struct peer *peers; /* by fd */
    size_t peers_max;
    int *live;
    uint32_t live_count;
    int *by_viewer; /* fd, 0: none */
    struct buf answer;
    struct buf joined; /* empty: what viewers say is ignored */
    enum fault fault;
    struct schedule schedule;
    uint64_t next; /* message; schedule_total() when at rest */
    /* Of the batch at hand and the one before it; only with several rooms. */
    uint64_t batch_ns;
    uint64_t not_before_ns;
    uint32_t rooms_each;
    size_t stamp_at; /* in frame */
    size_t size;
    size_t frame_bytes;
    char room[BENCH_ROOM_NAME];
    char type[64];
    struct buf payload;
    struct buf frame;
    uint64_t full; /* sends that found the socket full */
    /* SIGTERM and SIGINT, read like any other input: a handler could run between the look at `stop`
     * and the wait, and a thread sanitizer runs it later still. */
    int signals;
    bool stop;
    char scratch[65536];
};

static void leave(struct floor_loop *loop, int fd)
{
    struct peer *peer = &loop->peers[fd];
    if (peer->live) {
        int last = loop->live[--loop->live_count];
        loop->live[peer->at] = last;
        loop->peers[last].at = peer->at;
    }
    if (peer->viewer < PEERS_MAX && loop->by_viewer[peer->viewer] == fd)
        loop->by_viewer[peer->viewer] = 0;
    buf_fini(&peer->head);
    *peer = (struct peer){.viewer = PEERS_MAX};
    close(fd);
}

static void on_accept(struct floor_loop *loop)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(loop->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                fprintf(stderr,
                        "halley-bench floor: the file limit is reached; raise `ulimit -n`\n");
                loop->stop = true;
            }
            return;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        loop->peers[fd] = (struct peer){.open = true, .viewer = PEERS_MAX};
        if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            leave(loop, fd);
    }
}

/* Copies the value of key=… from a request line; it ends at `&` or blank. */
static void parameter(const char *head, const char *key, char *out, size_t cap)
{
    size_t key_len = strlen(key);
    out[0] = 0;
    for (const char *at = head; (at = strpbrk(at, "?& ")); at++) {
        if (*at == ' ' && at > head + 5)
            return;
        if (strncmp(at + 1, key, key_len) == 0 && at[1 + key_len] == '=') {
            const char *value = at + 2 + key_len;
            snprintf(out, cap, "%.*s", (int)strcspn(value, "& \r\n"), value);
            return;
        }
    }
}

static uint64_t number(const char *head, const char *key)
{
    char text[32];
    parameter(head, key, text, sizeof(text));
    return strtoull(text, NULL, 10);
}

/* Builds the frame that Halley would send for the same message. */
static void build(struct floor_loop *loop, uint64_t message)
{
    struct stamp stamp = {.time_ns = schedule_due_ns(&loop->schedule, message), .number = message};
    size_t size = loop->size;
    for (int again = 0; again < 2; again++) {
        buf_clear(&loop->payload);
        buf_printf(&loop->payload, "{\"type\":\"%s\",\"room\":\"%s\",\"data\":", loop->type,
                   loop->room);
        stamp_write(&loop->payload, &stamp, size);
        BUF_LIT(&loop->payload, "}");
        buf_clear(&loop->frame);
        frame_write_head(&loop->frame, FRAME_TEXT, loop->payload.len);
        buf_bytes(&loop->frame, buf_view(&loop->payload));
        if (loop->frame_bytes == 0 || loop->frame.len >= loop->frame_bytes)
            return;
        size += loop->frame_bytes - loop->frame.len;
    }
}

static void on_start(struct floor_loop *loop, const char *head)
{
    char rate[32];
    parameter(head, "rate", rate, sizeof(rate));
    loop->schedule = (struct schedule){.start_ns = number(head, "start"),
                                       .rate = strtod(rate, NULL),
                                       .warmup = number(head, "warmup"),
                                       .count = number(head, "count"),
                                       .pause_ns = number(head, "pause"),
                                       .rooms = number(head, "rooms")};
    if (!(loop->schedule.rate > 0))
        loop->schedule = (struct schedule){.rate = 1};
    loop->size = (size_t)number(head, "size");
    if (loop->size > 1 << 20)
        loop->size = 1 << 20;
    loop->frame_bytes = (size_t)number(head, "frame");
    parameter(head, "room", loop->room, sizeof(loop->room));
    parameter(head, "type", loop->type, sizeof(loop->type));
    loop->rooms_each = (uint32_t)number(head, "each");
    loop->batch_ns = number(head, "batch");
    loop->not_before_ns = 0;
    loop->next = 0;
    build(loop, 0);
    const char *stamp = memmem(loop->frame.data, loop->frame.len, "{\"t\":", 5);
    loop->stamp_at = stamp ? (size_t)(stamp - loop->frame.data) : 0;
}

static bool send_buf(int fd, const struct buf *out)
{
    return send(fd, out->data, out->len, MSG_NOSIGNAL) == (ssize_t)out->len;
}

/* Takes the viewer in; `user` is u and its number. */
static void become_live(struct floor_loop *loop, int fd, const char *user)
{
    struct peer *peer = &loop->peers[fd];
    peer->live = true;
    peer->at = loop->live_count;
    loop->live[loop->live_count++] = fd;
    unsigned long viewer = *user == 'u' ? strtoul(user + 1, NULL, 10) : PEERS_MAX;
    if (viewer >= PEERS_MAX)
        return;
    peer->viewer = (uint32_t)viewer;
    loop->by_viewer[viewer] = fd;
}

static void on_head(struct floor_loop *loop, int fd, size_t got)
{
    struct peer *peer = &loop->peers[fd];
    buf_append(&peer->head, loop->scratch, got);
    buf_byte(&peer->head, 0);
    if (peer->head.failed || peer->head.len > HEAD_MAX) {
        leave(loop, fd);
        return;
    }
    peer->head.len--;
    if (!memmem(peer->head.data, peer->head.len, "\r\n\r\n", 4))
        return;
    bool start = strncmp(peer->head.data, "POST /start?", 12) == 0;
    char user[72];
    parameter(peer->head.data, "user", user, sizeof(user));
    if (start)
        on_start(loop, peer->head.data);
    buf_fini(&peer->head);
    bool sent =
        start ? send(fd, started, strlen(started), MSG_NOSIGNAL) > 0 : send_buf(fd, &loop->answer);
    if (!sent)
        leave(loop, fd);
    else if (!start)
        become_live(loop, fd, user);
}

static void on_input(struct floor_loop *loop, int fd)
{
    if (!loop->peers[fd].open)
        return;
    ssize_t got = recv(fd, loop->scratch, sizeof(loop->scratch), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        leave(loop, fd);
    else if (!loop->peers[fd].live)
        on_head(loop, fd, (size_t)got);
    else if (loop->joined.len > 0 && !send_buf(fd, &loop->joined))
        leave(loop, fd);
}

/* The loop that everything is compared with: one send() of ready bytes per viewer. A viewer whose
 * socket is full misses the message, one that took a part is dropped. */
static void send_to(struct floor_loop *loop, int fd)
{
    ssize_t sent = send(fd, loop->frame.data, loop->frame.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)loop->frame.len)
        return;
    if (sent < 0 && errno == EAGAIN)
        loop->full++;
    else
        leave(loop, fd);
}

static void send_all(struct floor_loop *loop, uint64_t message)
{
    build(loop, message);
    if (loop->frame.failed)
        return;
    for (uint32_t i = loop->live_count; i-- > 0;)
        send_to(loop, loop->live[i]);
}

/* With several rooms the frame is built once and only its numbers change. Its room's name is always
 * the first one's. */
static void send_room(struct floor_loop *loop, uint64_t message)
{
    struct stream stream;
    struct stamp stamp = {.time_ns = schedule_due_ns(&loop->schedule, message),
                          .number = schedule_stream(&loop->schedule, message, &stream),
                          .room = stream.room};
    if (loop->frame.failed || loop->stamp_at == 0)
        return;
    stamp_patch(loop->frame.data + loop->stamp_at, &stamp);
    uint64_t stride = loop->schedule.rooms / loop->rooms_each;
    for (uint64_t viewer = stream.room % stride; viewer < PEERS_MAX && loop->by_viewer[viewer];
         viewer += stride)
        send_to(loop, loop->by_viewer[viewer]);
}

static void send_due(struct floor_loop *loop, uint64_t now)
{
    uint64_t total = schedule_total(&loop->schedule);
    while (loop->next < total && schedule_due_ns(&loop->schedule, loop->next) <= now)
        send_room(loop, loop->next++);
    loop->not_before_ns = now + loop->batch_ns;
}

static void send_next(struct floor_loop *loop)
{
    uint64_t message = loop->next++;
    enum fault fault = message % FAULT_EVERY == FAULT_AT ? loop->fault : FAULT_NONE;
    if (fault == FAULT_DROP)
        return;
    if (fault == FAULT_DIE)
        loop->stop = true;
    if (fault == FAULT_STALL)
        nanosleep(&(struct timespec){.tv_nsec = FAULT_STALL_NS}, NULL);
    if (fault == FAULT_SWAP)
        send_all(loop, loop->next++);
    send_all(loop, message);
    if (fault == FAULT_REPEAT)
        send_all(loop, message);
}

static void turn(struct floor_loop *loop)
{
    struct epoll_event events[EVENTS];
    uint64_t now = clock_ns();
    bool busy = loop->next < schedule_total(&loop->schedule);
    uint64_t due = busy ? schedule_due_ns(&loop->schedule, loop->next) : 0;
    if (due < loop->not_before_ns)
        due = loop->not_before_ns;
    uint64_t wait = due > now ? due - now : 0;
    struct timespec timeout = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)};
    int count = epoll_pwait2(loop->epoll, events, EVENTS, busy ? &timeout : NULL, NULL);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == loop->listener)
            on_accept(loop);
        else if (events[i].data.fd == loop->signals)
            loop->stop = true;
        else
            on_input(loop, events[i].data.fd);
    }
    busy = loop->next < schedule_total(&loop->schedule);
    now = clock_ns();
    if (!busy || now < schedule_due_ns(&loop->schedule, loop->next) || now < loop->not_before_ns)
        return;
    if (loop->schedule.rooms > 1 && loop->rooms_each > 0 &&
        loop->rooms_each <= loop->schedule.rooms)
        send_due(loop, now);
    else
        send_next(loop);
}

static int listen_on(struct floor_loop *loop, const char *address)
{
    char url[300];
    struct target target;
    snprintf(url, sizeof(url), "ws://%s", address);
    if (target_parse(url, "ws", "1315", &target) < 0)
        return EXIT_USE;
    int on = 1;
    loop->listener =
        socket(target.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (loop->listener < 0)
        return EXIT_INTERNAL;
    setsockopt(loop->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(loop->listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (bind(loop->listener, (const struct sockaddr *)&target.address, target.address_len) < 0 ||
        listen(loop->listener, 4096) < 0) {
        fprintf(stderr, "halley-bench floor: --listen %s: %s\n", address, strerror(errno));
        return EXIT_UNREACHABLE;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = loop->listener};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->listener, &event) < 0 ? EXIT_INTERNAL : 0;
}

static int watch_signals(struct floor_loop *loop)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    loop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = loop->signals};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->signals, &event) < 0 ? EXIT_INTERNAL : 0;
}

static struct floor_loop *create(void)
{
    struct rlimit limit = {.rlim_max = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max > PEERS_MAX)
        limit.rlim_max = PEERS_MAX;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct floor_loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return NULL;
    loop->listener = -1;
    loop->signals = -1;
    loop->schedule.rate = 1;
    loop->peers_max = (size_t)limit.rlim_max;
    loop->peers = calloc(loop->peers_max, sizeof(*loop->peers));
    loop->live = calloc(loop->peers_max, sizeof(*loop->live));
    loop->by_viewer = calloc(PEERS_MAX, sizeof(*loop->by_viewer));
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    buf_text(&loop->answer, answer);
    return loop;
}

static void destroy(struct floor_loop *loop)
{
    if (!loop)
        return;
    for (size_t fd = 0; loop->peers && fd < loop->peers_max; fd++)
        if (loop->peers[fd].open)
            leave(loop, (int)fd);
    if (loop->listener >= 0)
        close(loop->listener);
    if (loop->signals >= 0)
        close(loop->signals);
    if (loop->epoll >= 0)
        close(loop->epoll);
    buf_fini(&loop->payload);
    buf_fini(&loop->frame);
    buf_fini(&loop->answer);
    buf_fini(&loop->joined);
    free(loop->by_viewer);
    free(loop->peers);
    free(loop->live);
    free(loop);
}

static void append_text_frame(struct buf *out, const char *text)
{
    frame_write_head(out, FRAME_TEXT, strlen(text));
    buf_text(out, text);
}

static void answer_joins(struct floor_loop *loop)
{
    append_text_frame(&loop->answer, welcome);
    append_text_frame(&loop->joined, joined);
}

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: halley-bench floor --listen ADDRESS:PORT [--fault "
        "none|drop|repeat|swap|stall|die] [--joins]\n\n"
        "The bare loop: answers WebSocket handshakes, ignores what viewers say, and sends one "
        "ready frame per\n"
        "message to each of them. `halley-bench --as raw --url ws://ADDRESS:PORT/ --publish floor` "
        "tells it when,\n"
        "how often and how much. --joins: viewers are welcomed and their joins answered, as Halley "
        "does.\n"
        "--fault: one message in %d is lost, repeated, swapped with the "
        "next, or late.\n",
        FAULT_EVERY);
    return code;
}

static int parse(int argc, char **argv, const char **listen_address, enum fault *fault, bool *joins)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--help") == 0)
            return -1;
        if (strcmp(argv[i], "--joins") == 0)
            *joins = true;
        else if (value && strcmp(argv[i], "--listen") == 0)
            *listen_address = argv[++i];
        else if (value && strcmp(argv[i], "--fault") == 0)
            for (*fault = 0, i++; *fault < FAULTS && strcmp(value, fault_names[*fault]) != 0;)
                ++*fault;
        else
            return EXIT_USE;
    }
    return *listen_address && *fault < FAULTS ? 0 : EXIT_USE;
}

int floor_main(int argc, char **argv)
{
    const char *listen_address = NULL;
    enum fault fault = FAULT_NONE;
    bool joins = false;
    int code = parse(argc, argv, &listen_address, &fault, &joins);
    if (code)
        return usage(code < 0 ? 0 : code);
    struct floor_loop *loop = create();
    if (!loop || !loop->peers || !loop->live || !loop->by_viewer || loop->epoll < 0) {
        fprintf(stderr, "halley-bench floor: out of memory\n");
        destroy(loop);
        return EXIT_INTERNAL;
    }
    loop->fault = fault;
    if (joins)
        answer_joins(loop);
    code = watch_signals(loop);
    if (!code)
        code = listen_on(loop, listen_address);
    while (!code && !loop->stop)
        turn(loop);
    if (loop->full)
        fprintf(stderr, "halley-bench floor: %" PRIu64 " sends found a full socket\n", loop->full);
    destroy(loop);
    return code;
}
