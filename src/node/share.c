#include "node/share.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 16,
    OPEN_MS = 5000, /* one that has the name must answer within it */
    ANSWER_MS = 3000,
    RETRY_MS = 50,
    TEXT_MAX = 128
};

static const char hello[] = "halley-listeners 1";
static const char serving[] = "serving";

/* One Unix socket on the loop. */
struct share_end {
    uv_poll_t poll;
    int fd;
    struct share *share;
    struct share_end **place; /* where it is pointed to */
};

static void on_end_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void end_close(struct share_end *end)
{
    if (!end)
        return;
    *end->place = NULL;
    uv_close((uv_handle_t *)&end->poll, on_end_closed);
    close(end->fd); /* at once: the next question must not find this process */
}

/* Takes the descriptor over. */
static void end_open(struct share *share, int fd, struct share_end **place, uv_poll_cb on_ready)
{
    struct share_end *end = calloc(1, sizeof(*end));
    if (!end || uv_poll_init(share->loop, &end->poll, fd) != 0) {
        close(fd);
        free(end);
        return;
    }
    *end = (struct share_end){.poll = end->poll, .fd = fd, .share = share, .place = place};
    end->poll.data = end;
    *place = end;
    uv_poll_start(&end->poll, UV_READABLE, on_ready);
}

static int open_unix(int flags)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
}

/* Listens under the name. Returns the descriptor, or -errno. */
static int hold_name(const char *address)
{
    struct sockaddr_un name;
    uint32_t len = listen_name(address, &name);
    int fd = open_unix(SOCK_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&name, len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* Whether the other end runs under the same user: the kernel's own rule for SO_REUSEPORT. Root may in any case. */
static bool is_of_same_user(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

/* Connects to whoever holds the name and asks; flags: SOCK_NONBLOCK or 0. Returns the descriptor, or -errno. */
static int ask(const char *address, char question, int flags)
{
    struct sockaddr_un name;
    uint32_t len = listen_name(address, &name);
    int fd = open_unix(flags);
    if (fd < 0)
        return -errno;
    int error = 0;
    if (connect(fd, (struct sockaddr *)&name, len) != 0)
        error = -errno;
    else if (!is_of_same_user(fd))
        error = -EPERM;
    else if (send(fd, &question, 1, MSG_NOSIGNAL) != 1)
        error = -errno;
    if (!error)
        return fd;
    close(fd);
    return error;
}

/* Sends text with descriptors. */
static bool send_fds(int to, const char *text, const int *fds, uint32_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(LISTEN_GROUP_MAX * sizeof(int))];
    } control = {0};
    struct iovec run = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &run,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    return sendmsg(to, &message, MSG_NOSIGNAL) == (ssize_t)run.iov_len;
}

/* Receives what send_fds() sent, within ANSWER_MS. Returns how many descriptors came, 0 when it failed. */
static uint32_t receive_fds(int from, char text[TEXT_MAX], int fds[LISTEN_GROUP_MAX])
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(LISTEN_GROUP_MAX * sizeof(int))];
    } control;
    struct iovec run = {.iov_base = text, .iov_len = TEXT_MAX - 1};
    struct msghdr message = {.msg_iov = &run,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t len = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return 0;
    uint32_t count = (uint32_t)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(head), count * sizeof(int));
    return count;
}

/* The answer to "L": the Unix socket itself with the count of addresses, then each address's group. Returns 0, or -1: ask again. */
static int receive_gift(struct share *share, int from, struct listen_gift *gift)
{
    char text[TEXT_MAX];
    int fds[LISTEN_GROUP_MAX];
    unsigned addresses = 0;
    if (receive_fds(from, text, fds) != 1)
        return -1;
    share->fd = fds[0];
    if (strncmp(text, hello, sizeof(hello) - 1) != 0 ||
        sscanf(text + sizeof(hello) - 1, " %u", &addresses) != 1 || addresses == 0 ||
        addresses > CONF_LISTEN_MAX)
        return -1;
    for (gift->addresses = 0; gift->addresses < addresses; gift->addresses++) {
        uint32_t count = receive_fds(from, text, fds);
        if (count == 0 || (gift->addresses > 0 && count != gift->group))
            return -1;
        gift->group = count;
        memcpy(gift->sockets + (size_t)gift->addresses * count, fds, count * sizeof(int));
    }
    return 0;
}

/* Returns 0 with the sockets; -EAGAIN when whoever has the name went away meanwhile, or another -errno. */
static int take_over(struct share *share, struct listen_gift *gift)
{
    int from = ask(share->address, 'L', 0);
    if (from < 0)
        return from;
    struct timeval limit = {.tv_sec = ANSWER_MS / 1000};
    setsockopt(from, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int result = receive_gift(share, from, gift);
    close(from);
    if (result == 0)
        return 0;
    if (share->fd >= 0)
        close(share->fd);
    share->fd = -1;
    gift->addresses = 0;
    return -EAGAIN;
}

static void explain(struct buf *error, const char *address, int code)
{
    buf_printf(error, "server.listen = %s: ", address);
    if (code == -ECONNREFUSED)
        BUF_LIT(error, "another daemon listens there, and does not share: set server.share_port = "
                       "yes for both, or stop it");
    else if (code == -EPERM)
        BUF_LIT(error, "another user's daemon listens there: processes that share a port must run "
                       "under the same user");
    else if (code == -EAGAIN)
        BUF_LIT(error, "the daemon that listens there does not give its sockets; it may hang");
    else
        buf_printf(error, "can't reach the daemon that listens there: %s", strerror(-code));
}

int share_open(struct share *share, const char *address, struct listen_gift *gift,
               struct buf *error)
{
    struct sockaddr_un name;
    *share = (struct share){.fd = -1};
    if (listen_name(address, &name) == 0)
        return 0; /* port 0: nobody else can be there */
    snprintf(share->address, sizeof(share->address), "%s", address);
    uint64_t until = clock_ms() + OPEN_MS;
    for (;;) {
        int code = hold_name(address);
        if (code >= 0) {
            share->fd = code;
            return 0;
        }
        if (code == -EADDRINUSE)
            code = take_over(share, gift);
        if (code == 0) {
            share->others = true;
            log_info("sharing the sockets of a running process", LOG_STR("address", address),
                     LOG_UINT("sockets", gift->group));
            return 0;
        }
        if (clock_ms() >= until || code == -EPERM) {
            explain(error, address, code);
            return -1;
        }
        usleep(RETRY_MS * 1000);
    }
}

static void give(struct share *share, int to)
{
    const struct listen_set *set = share->set;
    char text[TEXT_MAX];
    if (!set || share->fd < 0)
        return;
    snprintf(text, sizeof(text), "%s %u", hello, set->addresses);
    bool sent = send_fds(to, text, &share->fd, 1);
    for (uint32_t a = 0; sent && a < set->addresses; a++)
        sent = send_fds(to, set->bound[a], set->sockets + (size_t)a * set->group, set->group);
    share->others |= sent;
    log_info("sockets given to another process", LOG_STR("address", share->address),
             LOG_STR("result", sent ? "ok" : strerror(errno)));
}

static void on_question(uv_poll_t *poll, int status, int events)
{
    struct share_end *end = poll->data;
    struct share *share = end->share;
    char question = '\0';
    (void)events;
    if (status == 0 && recv(end->fd, &question, 1, 0) < 0 && errno == EAGAIN)
        return;
    if (question == 'L')
        give(share, end->fd);
    else if (question == 'S' && share->serving)
        (void)send(end->fd, serving, sizeof(serving) - 1, MSG_NOSIGNAL);
    end_close(end);
}

static void on_offer(uv_poll_t *poll, int status, int events)
{
    struct share_end *offer = poll->data;
    struct share *share = offer->share;
    (void)status;
    (void)events;
    int fd = accept4(offer->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!is_of_same_user(fd)) {
        log_limited(LOG_LEVEL_WARN, "another user asks for the viewers' sockets: refused",
                    LOG_STR("address", share->address));
        close(fd);
        return;
    }
    struct share_end **place = &share->talks[share->next_talk++ % SHARE_TALKS_MAX];
    end_close(*place);
    end_open(share, fd, place, on_question);
}

static void offer(struct share *share)
{
    if (share->fd >= 0)
        end_open(share, share->fd, &share->offer, on_offer);
    if (!share->offer)
        share->fd = -1;
}

static void withdraw(struct share *share)
{
    if (share->offer)
        end_close(share->offer);
    else if (share->fd >= 0)
        close(share->fd);
    share->fd = -1;
}

void share_start(struct share *share, uv_loop_t *loop, const struct listen_set *set,
                 void (*on_other)(void *ctx), void *ctx)
{
    share->loop = loop;
    share->set = set;
    share->on_other = on_other;
    share->ctx = ctx;
    share->serving = true;
    offer(share);
}

static void on_answer(uv_poll_t *poll, int status, int events)
{
    struct share_end *end = poll->data;
    struct share *share = end->share;
    char text[TEXT_MAX];
    (void)events;
    ssize_t len = status == 0 ? recv(end->fd, text, sizeof(text), 0) : 0;
    if (len < 0 && errno == EAGAIN)
        return;
    end_close(end);
    if (len == sizeof(serving) - 1 && memcmp(text, serving, sizeof(serving) - 1) == 0)
        share->on_other(share->ctx);
}

bool share_ask(struct share *share)
{
    share->serving = false;
    if (share->asking)
        return true;
    if (!share->others || share->address[0] == '\0')
        return false;
    withdraw(share); /* or the question would come back to this process */
    int fd = ask(share->address, 'S', SOCK_NONBLOCK);
    if (fd >= 0) {
        end_open(share, fd, &share->asking, on_answer);
        return true;
    }
    if (fd != -ECONNREFUSED)
        return true;                       /* busy: the next time */
    share->fd = hold_name(share->address); /* for one that starts later */
    share->others = share->fd == -EADDRINUSE;
    if (share->fd < 0)
        share->fd = -1;
    offer(share);
    return share->others;
}

void share_stop(struct share *share)
{
    if (!share->loop)
        return;
    share->set = NULL;
    end_close(share->asking);
    withdraw(share);
    for (int i = 0; i < SHARE_TALKS_MAX; i++)
        end_close(share->talks[i]);
}
