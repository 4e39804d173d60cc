#include "worker/seat.h"

#include "base/clock.h"
#include "base/map.h"
#include "lib/conf_with.h"
#include "protocol/history_id.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LIMIT_MS = 5000 };

static void wake_node(void *ctx)
{
    const struct seat *seat = ctx;
    uint64_t one = 1;
    assert_int_equal(write(seat->wake_fd, &one, sizeof(one)), sizeof(one));
}

static int listen_somewhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 256), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

struct seat *seat_open(const char *const *overrides)
{
    static const char *const ours[] = {"type.chat.history=yes",     "limits.viewer_rate=10000",
                                       "limits.viewer_burst=10000", "limits.join_rate=10000",
                                       "limits.join_burst=10000",   NULL};
    struct seat *seat = calloc(1, sizeof(*seat));
    assert_non_null(seat);
    seat->lane = LANE_NORMAL;
    map_seed();
    seat->conf = conf_with(ours, overrides);
    seat->wake_fd = eventfd(0, EFD_CLOEXEC);
    seat->connections_limit = 10000;
    mailbox_init(&seat->mailbox);
    list_init(&seat->commands);
    int listener = listen_somewhere(&seat->port);
    struct worker_setup setup = {.conf = seat->conf,
                                 .listeners = &listener,
                                 .listener_count = 1,
                                 .connection_seed = 1,
                                 .connections = &seat->connections,
                                 .connections_limit = &seat->connections_limit,
                                 .handshakes = &seat->handshakes,
                                 .ramp = &seat->ramp,
                                 .farewells = &seat->farewells,
                                 .partings = 16,
                                 .node_mailbox = &seat->mailbox,
                                 .wake_node = wake_node,
                                 .ctx = seat};
    assert_int_equal(worker_create(&seat->worker, &setup), 0);
    return seat;
}

static struct command *command_of(enum command_kind kind, const char *room, struct bytes payload)
{
    struct command *command =
        command_create(kind, room ? bytes_str(room) : (struct bytes){0}, payload);
    assert_non_null(command);
    command->lane = LANE_NORMAL;
    return command;
}

static void drop_commands(struct seat *seat)
{
    struct link *link;
    mailbox_take(&seat->mailbox, &seat->commands);
    while ((link = list_shift(&seat->commands)))
        free(CONTAINER_OF(link, struct command, link));
}

void seat_close(struct seat *seat)
{
    worker_post(seat->worker, command_of(COMMAND_EXIT, NULL, (struct bytes){0}));
    worker_join(seat->worker);
    drop_commands(seat);
    mailbox_fini(&seat->mailbox);
    close(seat->wake_fd);
    conf_unref(seat->conf);
    free(seat);
}

struct command *seat_command(struct seat *seat, enum command_kind kind)
{
    for (;;) {
        struct link *link;
        mailbox_take(&seat->mailbox, &seat->commands);
        while ((link = list_shift(&seat->commands))) {
            struct command *command = CONTAINER_OF(link, struct command, link);
            if (command->kind == kind)
                return command;
            free(command);
        }
        uint64_t count;
        struct pollfd woken = {.fd = seat->wake_fd, .events = POLLIN};
        if (poll(&woken, 1, LIMIT_MS) != 1)
            fail_msg("the worker did not tell command %d", (int)kind);
        assert_int_equal(read(seat->wake_fd, &count, sizeof(count)), sizeof(count));
    }
}

uint32_t seat_count(struct seat *seat, enum command_kind kind)
{
    struct link *link;
    uint32_t count = 0;
    mailbox_take(&seat->mailbox, &seat->commands);
    while ((link = list_shift(&seat->commands))) {
        struct command *command = CONTAINER_OF(link, struct command, link);
        count += command->kind == kind;
        free(command);
    }
    return count;
}

void seat_live_at(struct seat *seat, const char *room,
                  const struct history_point points[LANE_COUNT])
{
    struct bytes payload =
        bytes_of((const char *)points, LANE_COUNT * sizeof(struct history_point));
    struct command *command = command_of(COMMAND_ROOM_LIVE, room, payload);
    command->online = UINT32_MAX;
    worker_post(seat->worker, command);
}

void seat_live(struct seat *seat, const char *room, uint64_t epoch, uint64_t n)
{
    const struct history_point points[LANE_COUNT] = {[LANE_NORMAL] = {epoch, n}};
    seat_live_at(seat, room, points);
}

static struct message *make_message(const struct seat *seat, const char *room,
                                    struct history_point at, size_t bytes)
{
    char id[HISTORY_ID_MAX + 1];
    struct buf data = {0};
    struct message_parts parts = {.type = BYTES_LIT("chat")};
    buf_printf(&data, "\"%d", (int)at.n);
    if (data.len + 1 < bytes && buf_reserve(&data, bytes)) {
        memset(data.data + data.len, '.', bytes - 1 - data.len);
        data.len = bytes - 1;
    }
    buf_byte(&data, '"');
    parts.data = buf_view(&data);
    if (at.epoch != 0)
        parts.id = history_id_format(seat->lane, at, id);
    struct message *message = message_create(MESSAGE_ROOM, bytes_str(room), &parts);
    assert_non_null(message);
    buf_fini(&data);
    message->lane = seat->lane;
    message->type_index = conf_type_find(seat->conf, BYTES_LIT("chat"));
    message->point = at.epoch != 0 ? at : (struct history_point){0};
    return message;
}

void seat_deliver(struct seat *seat, const char *room, uint64_t epoch, uint64_t n)
{
    seat_deliver_large(seat, room, epoch, n, 0);
}

void seat_deliver_large(struct seat *seat, const char *room, uint64_t epoch, uint64_t n,
                        size_t bytes)
{
    struct message *message = make_message(seat, room, (struct history_point){epoch, n}, bytes);
    assert_true(worker_deliver(seat->worker, message));
    message_unref(message);
    worker_wake(seat->worker);
}

static void deliver_gap(struct seat *seat, const char *room, bool no_join,
                        struct history_point point)
{
    const struct message_parts none = {0};
    struct message *gap = message_create(MESSAGE_GAP, bytes_str(room), &none);
    assert_non_null(gap);
    gap->lane = seat->lane;
    gap->no_join = no_join;
    gap->point = point;
    assert_true(worker_deliver(seat->worker, gap));
    message_unref(gap);
    worker_wake(seat->worker);
}

void seat_gap(struct seat *seat, const char *room, bool no_join)
{
    deliver_gap(seat, room, no_join, (struct history_point){0});
}

void seat_gap_to(struct seat *seat, const char *room, uint64_t epoch, uint64_t n)
{
    deliver_gap(seat, room, false, (struct history_point){epoch, n});
}

static void post_batch(struct seat *seat, const char *room, struct history_batch *batch)
{
    struct command *command = command_of(COMMAND_HISTORY, room, (struct bytes){0});
    command->lane = seat->lane;
    atomic_init(&batch->refs, 1);
    command->object = batch;
    worker_post(seat->worker, command);
}

void seat_history(struct seat *seat, const char *room, uint64_t epoch, uint64_t first,
                  uint64_t last, size_t bytes)
{
    uint32_t count = (uint32_t)(last + 1 - first);
    struct history_batch *batch = calloc(1, sizeof(*batch) + count * sizeof(struct message *));
    assert_non_null(batch);
    batch->last = (struct history_point){epoch, last};
    batch->asked_ms = clock_ms();
    batch->first = first;
    batch->count = count;
    for (uint32_t i = 0; i < count; i++)
        batch->messages[i] =
            make_message(seat, room, (struct history_point){epoch, first + i}, bytes);
    post_batch(seat, room, batch);
}

void seat_history_failed(struct seat *seat, const char *room)
{
    struct history_batch *batch = calloc(1, sizeof(*batch));
    assert_non_null(batch);
    batch->error = -1;
    post_batch(seat, room, batch);
}

/* ---- viewers */

static void fill(struct guest *guest)
{
    struct pollfd readable = {.fd = guest->fd, .events = POLLIN};
    if (poll(&readable, 1, LIMIT_MS) != 1)
        fail_msg("a viewer heard nothing for %d ms", LIMIT_MS);
    ssize_t n = recv(guest->fd, guest->bytes + guest->len, sizeof(guest->bytes) - guest->len, 0);
    assert_true(n > 0);
    guest->len += (size_t)n;
}

static void drop(struct guest *guest, size_t len)
{
    memmove(guest->bytes, guest->bytes + len, guest->len - len);
    guest->len -= len;
}

struct guest *guest_open(const struct seat *seat)
{
    static const char head[] = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)seat->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct guest *guest = calloc(1, sizeof(*guest));
    assert_non_null(guest);
    guest->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(guest->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(guest->fd, head, sizeof(head) - 1, MSG_NOSIGNAL), sizeof(head) - 1);
    char *end;
    while (!(end = memmem(guest->bytes, guest->len, "\r\n\r\n", 4)))
        fill(guest);
    assert_memory_equal(guest->bytes, "HTTP/1.1 101", 12);
    drop(guest, (size_t)(end + 4 - guest->bytes));
    assert_non_null(strstr(guest_hear(guest), "\"op\":\"welcome\""));
    return guest;
}

void guest_close(struct guest *guest)
{
    close(guest->fd);
    free(guest);
}

/* A masked text frame (RFC 6455 §5.2); a mask of zeros leaves the text as it is. */
void guest_say(struct guest *guest, const char *text)
{
    char frame[512];
    size_t len = strlen(text);
    size_t head = len < 126 ? 6 : 8;
    assert_true(len < sizeof(frame) - 8);
    memset(frame, 0, head);
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | (len < 126 ? len : 126));
    if (len >= 126) {
        frame[2] = (char)(len >> 8);
        frame[3] = (char)len;
    }
    memcpy(frame + head, text, len);
    assert_int_equal(send(guest->fd, frame, head + len, MSG_NOSIGNAL), head + len);
}

const char *guest_hear(struct guest *guest)
{
    static char text[1 << 16];
    const unsigned char *bytes = (const unsigned char *)guest->bytes;
    while (guest->len < 4)
        fill(guest);
    assert_int_equal(bytes[0], 0x81);
    size_t head = bytes[1] < 126 ? 2 : 4;
    assert_true(bytes[1] <= 126);
    size_t len = bytes[1] < 126 ? bytes[1] : (size_t)bytes[2] << 8 | bytes[3];
    while (guest->len < head + len)
        fill(guest);
    memcpy(text, guest->bytes + head, len);
    text[len] = '\0';
    drop(guest, head + len);
    return text;
}

void guest_join(struct guest *guest, const char *room, uint64_t epoch, uint64_t n)
{
    char text[256];
    char id[HISTORY_ID_MAX + 1];
    struct history_point at = {epoch, n};
    if (epoch != 0) {
        struct bytes after = history_id_format(LANE_NORMAL, at, id);
        snprintf(text, sizeof(text),
                 "{\"op\":\"join\",\"room\":\"%s\",\"ref\":1,\"after\":[\"%.*s\"]}", room,
                 (int)after.len, after.data);
    } else {
        snprintf(text, sizeof(text), "{\"op\":\"join\",\"room\":\"%s\",\"ref\":1}", room);
    }
    guest_say(guest, text);
}

static void word_of(const char *message, struct buf *out)
{
    const char *op = strstr(message, "\"op\":\"");
    const char *word = op ? op + 6 : strstr(message, "\"data\":\"");
    assert_non_null(word);
    word += op ? 0 : 8;
    buf_bytes(out, bytes_of(word, strcspn(word, ".\"")));
}

void guest_expect(struct guest *guest, const char *words)
{
    struct buf heard = {0};
    uint32_t count = 1;
    for (const char *at = words; *at; at++)
        count += *at == ' ';
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            buf_byte(&heard, ' ');
        word_of(guest_hear(guest), &heard);
    }
    buf_byte(&heard, '\0');
    assert_string_equal(heard.data, words);
    buf_fini(&heard);
}
