#include "bench/publish.h"
#include "base/bytes.h"
#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* What may wait for a socket that takes nothing. Past it messages are counted as unsent: the
 * publisher keeps its pace whatever the other side does. */
enum { UNSENT_MAX = 64 << 20, CONSUME_AT = 1 << 20, INPUT = 16384 };
enum { RETRY_NS = 100 * 1000 * 1000, CONNECT_LIMIT_US = 500 * 1000 };

static void build_body(struct publisher *publisher, struct bytes data)
{
    buf_clear(&publisher->body);
    BUF_LIT(&publisher->body, "{\"type\":\"");
    buf_text(&publisher->body, publisher->high ? "gift" : publisher->options->type);
    BUF_LIT(&publisher->body, "\",\"data\":");
    buf_bytes(&publisher->body, data);
    BUF_LIT(&publisher->body, "}");
}

void publisher_refused(struct publisher *publisher, const char *text, size_t len)
{
    if (publisher->counts.refused++ == 0)
        fprintf(stderr, "halley-bench: %s refused a message: %.*s\n", publisher->target.authority,
                (int)len, text);
}

static void resp_word(struct buf *out, const char *word)
{
    buf_printf(out, "$%zu\r\n%s\r\n", strlen(word), word);
}

static void redis_open(struct publisher *publisher)
{
    const struct target *target = &publisher->target;
    if (!target->password[0])
        return;
    BUF_LIT(&publisher->out, "*");
    buf_uint(&publisher->out, target->user[0] ? 3 : 2);
    BUF_LIT(&publisher->out, "\r\n$4\r\nAUTH\r\n");
    if (target->user[0])
        resp_word(&publisher->out, target->user);
    resp_word(&publisher->out, target->password);
}

static void redis_add(struct publisher *publisher, const char *room, struct bytes data)
{
    const struct bench_options *options = publisher->options;
    bool high = publisher->high || strcmp(options->lane, "high") == 0;
    const char *channel = high ? "high" : "room";
    build_body(publisher, data);
    struct buf *out = &publisher->out;
    size_t length = strlen(options->prefix) + strlen(channel) + strlen(room) + 4;
    buf_printf(out, "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s:%s:{%s}\r\n$%zu\r\n", length,
               options->prefix, channel, room, publisher->body.len);
    buf_bytes(out, buf_view(&publisher->body));
    BUF_LIT(out, "\r\n");
}

/* Only AUTH and PUBLISH are sent, so every answer is one line. */
static const char *redis_answers(struct publisher *publisher)
{
    struct buf *in = &publisher->in;
    size_t used = 0;
    char *end;
    while (in->len > used && (end = memchr(in->data + used, '\n', in->len - used))) {
        const char *line = in->data + used;
        if (*line == ':')
            publisher->counts.confirmed++;
        else if (*line == '-')
            publisher_refused(publisher, line, strcspn(line, "\r"));
        used = (size_t)(end - in->data) + 1;
    }
    buf_consume(in, used);
    return NULL;
}

static void http_head(struct publisher *publisher, const char *method_and_path, size_t body_len)
{
    const struct target *target = &publisher->target;
    buf_printf(&publisher->out, "%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n",
               method_and_path, target->authority, body_len);
    if (target->password[0])
        buf_printf(&publisher->out, "Authorization: Bearer %s\r\n", target->password);
    BUF_LIT(&publisher->out, "Content-Type: application/json\r\n\r\n");
}

static void http_add(struct publisher *publisher, const char *room, struct bytes data)
{
    char path[BENCH_ROOM_NAME + 32];
    snprintf(path, sizeof(path), "POST /v1/rooms/%s/messages", room);
    build_body(publisher, data);
    http_head(publisher, path, publisher->body.len);
    buf_bytes(&publisher->out, buf_view(&publisher->body));
}

/* Requests are pipelined; answers come in order, each with a Content-Length. */
static const char *http_answers(struct publisher *publisher)
{
    struct buf *in = &publisher->in;
    for (;;) {
        char *end = in->len ? memmem(in->data, in->len, "\r\n\r\n", 4) : NULL;
        if (!end)
            return NULL;
        *end = 0;
        const char *length = strcasestr(in->data, "content-length:");
        size_t body = length ? strtoul(length + 15, NULL, 10) : 0;
        *end = '\r';
        size_t whole = (size_t)(end - in->data) + 4 + body;
        if (in->len < whole)
            return NULL;
        if (in->len > 9 && in->data[9] == '2')
            publisher->counts.confirmed++;
        else
            publisher_refused(publisher, in->data, whole);
        buf_consume(in, whole);
    }
}

static const struct publisher_kind publisher_redis = {.scheme = "redis",
                                                      .port = "6379",
                                                      .open = redis_open,
                                                      .add = redis_add,
                                                      .answers = redis_answers};
static const struct publisher_kind publisher_http = {
    .scheme = "http", .port = "80", .add = http_add, .answers = http_answers};
/* By the viewers' URL. */
static const struct publisher_kind publisher_floor = {
    .scheme = "ws", .port = "80", .answers = http_answers};

static const struct publisher_kind *const kinds[] = {
    &publisher_redis, &publisher_http, &publisher_ws, &publisher_nats, &publisher_mqtt};

static int connect_to(struct publisher *publisher)
{
    const struct target *target = &publisher->target;
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    /* The limit for sending bounds connect() as well. */
    struct timeval limit = {.tv_usec = CONNECT_LIMIT_US};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)&target->address, target->address_len) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    publisher->fd = fd;
    return 0;
}

/* Chooses the kind by the URL's scheme. */
static const struct publisher_kind *kind_of(const char *url)
{
    if (strcmp(url, "floor") == 0)
        return &publisher_floor;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t len = strlen(kinds[i]->scheme);
        if (strncmp(url, kinds[i]->scheme, len) == 0 && url[len] == ':')
            return kinds[i];
    }
    fprintf(stderr,
            "halley-bench: --publish %s: redis://…, http://…, ws://…, nats://…, mqtt://…, floor or "
            "none is wanted\n",
            url);
    return NULL;
}

/* Returns 0, or -1 after saying why. */
static int open_publisher(struct publisher *publisher)
{
    const char *url = publisher->options->publish;
    if (strcmp(url, "none") == 0)
        return 0;
    const struct publisher_kind *kind = kind_of(url);
    if (!kind)
        return -1;
    publisher->kind = kind;
    const char *wrong = kind->check ? kind->check(publisher) : NULL;
    if (wrong) {
        fprintf(stderr, "halley-bench: --publish %s: %s\n", url, wrong);
        return -1;
    }
    if (kind == &publisher_floor)
        url = publisher->options->url;
    if (target_parse(url, kind->scheme, kind->port, &publisher->target) < 0)
        return -1;
    if (connect_to(publisher) < 0) {
        fprintf(stderr, "halley-bench: --publish %s: connect: %s\n", url, strerror(errno));
        return -1;
    }
    if (kind->open)
        kind->open(publisher);
    return 0;
}

struct publisher *publisher_create(const struct bench_options *options)
{
    struct publisher *publisher = calloc(1, sizeof(*publisher));
    if (!publisher) {
        fprintf(stderr, "halley-bench: out of memory\n");
        return NULL;
    }
    publisher->options = options;
    publisher->streams.rooms = (uint64_t)options->rooms;
    publisher->streams.high_every = (uint64_t)options->high_every;
    publisher->fd = -1;
    publisher->random = random_seed() | 1;
    if (open_publisher(publisher) < 0) {
        publisher_destroy(publisher);
        return NULL;
    }
    return publisher;
}

void publisher_destroy(struct publisher *publisher)
{
    if (!publisher)
        return;
    if (publisher->fd >= 0)
        close(publisher->fd);
    buf_fini(&publisher->out);
    buf_fini(&publisher->in);
    buf_fini(&publisher->data);
    buf_fini(&publisher->body);
    buf_fini(&publisher->later);
    frame_reader_fini(&publisher->frames);
    free(publisher);
}

bool publisher_start(struct publisher *publisher, const struct schedule *schedule)
{
    if (!publisher->kind)
        return true;
    if (publisher->kind->add)
        return false;
    const struct bench_options *options = publisher->options;
    char room[BENCH_ROOM_NAME];
    char path[512];
    options_room(options, 0, room, sizeof(room));
    snprintf(path, sizeof(path),
             "POST /start?start=%" PRIu64 "&rate=%.9g&warmup=%" PRIu64 "&count=%" PRIu64
             "&pause=%" PRIu64 "&size=%.0f&frame=%.0f&room=%s&type=%s&rooms=%" PRIu64
             "&each=%u&batch=%.0f",
             schedule->start_ns, schedule->rate, schedule->warmup, schedule->count,
             schedule->pause_ns, options->size, options->frame_bytes, room, options->type,
             schedule->rooms, options_rooms_per_viewer(options), options->batch_ms * 1e6);
    http_head(publisher, path, 0);
    publisher->counts.published = schedule_total(schedule);
    return true;
}

void publisher_add(struct publisher *publisher, uint64_t message, uint64_t due_ns)
{
    uint64_t now = clock_ns();
    if (now > due_ns && now - due_ns > publisher->counts.late_max_ns)
        publisher->counts.late_max_ns = now - due_ns;
    publisher->counts.published++;
    if (publisher->fd < 0 || publisher->out.len - publisher->written > UNSENT_MAX) {
        publisher->counts.unsent++;
        return;
    }
    struct stream stream;
    struct stamp stamp = {.time_ns = due_ns,
                          .number = schedule_stream(&publisher->streams, message, &stream)};
    publisher->high = stream.high;
    stamp.room = stream.room + (stream.high ? (uint32_t)publisher->options->rooms : 0);
    char room[BENCH_ROOM_NAME];
    options_room(publisher->options, stream.room, room, sizeof(room));
    buf_clear(&publisher->data);
    stamp_write(&publisher->data, &stamp, (size_t)publisher->options->size);
    publisher->kind->add(publisher, room, buf_view(&publisher->data));
}

/* Messages that are due while the other side is away count as unsent. */
static void gone(struct publisher *publisher, const char *why)
{
    fprintf(stderr, "halley-bench: --publish %s: %s\n", publisher->target.authority, why);
    close(publisher->fd);
    publisher->fd = -1;
    publisher->written = 0;
    buf_clear(&publisher->out);
    buf_clear(&publisher->in);
    buf_clear(&publisher->later);
    frame_reader_fini(&publisher->frames);
    publisher->frames = (struct frame_reader){0};
    publisher->retry_ns = clock_ns() + RETRY_NS;
}

static void reconnect(struct publisher *publisher)
{
    if (!publisher->kind->add || clock_ns() < publisher->retry_ns)
        return;
    if (connect_to(publisher) < 0) {
        publisher->retry_ns = clock_ns() + RETRY_NS;
        return;
    }
    fprintf(stderr, "halley-bench: --publish %s: connected again\n", publisher->target.authority);
    if (publisher->kind->open)
        publisher->kind->open(publisher);
}

static void write_out(struct publisher *publisher)
{
    struct buf *out = &publisher->out;
    if (out->failed) {
        gone(publisher, "out of memory");
        return;
    }
    while (out->len > publisher->written) {
        ssize_t sent = send(publisher->fd, out->data + publisher->written,
                            out->len - publisher->written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            gone(publisher, strerror(errno));
            return;
        }
        publisher->written += (size_t)sent;
    }
    if (publisher->written == out->len || publisher->written > CONSUME_AT) {
        buf_consume(out, publisher->written);
        publisher->written = 0;
    }
}

static void read_in(struct publisher *publisher)
{
    while (publisher->fd >= 0) {
        struct buf *in = &publisher->in;
        if (!buf_reserve(in, INPUT)) {
            gone(publisher, "out of memory");
            return;
        }
        /* One byte stays free for the zero that ends the text. */
        ssize_t got = recv(publisher->fd, in->data + in->len, INPUT - 1, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            gone(publisher, got ? strerror(errno) : "the other side closed the connection");
            return;
        }
        in->len += (size_t)got;
        in->data[in->len] = 0;
        const char *wrong = publisher->kind->answers(publisher);
        if (wrong) {
            gone(publisher, wrong);
            return;
        }
    }
}

void publisher_pump(struct publisher *publisher)
{
    if (!publisher->kind)
        return;
    if (publisher->fd < 0)
        reconnect(publisher);
    if (publisher->fd >= 0)
        write_out(publisher);
    read_in(publisher);
}

int publisher_fd(const struct publisher *publisher)
{
    return publisher->fd;
}

bool publisher_wants_write(const struct publisher *publisher)
{
    return publisher->out.len > publisher->written;
}

struct publish_counts publisher_counts(const struct publisher *publisher)
{
    return publisher->counts;
}
