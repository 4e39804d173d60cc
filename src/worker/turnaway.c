/* turnaway.c: a refusal before anything is allocated for the viewer: a ready answer, written to the fresh socket.
 *
 * The request may still be on its way. A socket that is closed then answers it with a reset, and many clients forget what they
 * have received when a reset comes (RFC 9112 §9.6). So a socket whose request was not seen whole says that nothing more follows
 * (FIN) and stays open for PARTING_MS, unread and unwatched: in a ring of fixed size, where a newer one pushes the oldest out.
 */
#include "worker/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PARTING_MS = 1000, ANSWER_MAX = 512 };

struct parting {
    int fd;
    uint32_t since_ms;
};

struct answer {
    const char *status;
    const char *code;
    const char *message;
    uint32_t retry_most_s; /* Retry-After is drawn from 1 to this */
};

static const struct answer *answer_of(enum handshake_result result)
{
    static const struct answer address_full = {
        "429 Too Many Requests", "rate-limited",
        "too many connections from this address (limits.address_connections)", 10};
    static const struct answer address_rate = {
        "429 Too Many Requests", "rate-limited",
        "too many new connections from this address (limits.address_rate)", 10};
    static const struct answer rate = {
        "503 Service Unavailable", "unavailable",
        "too many new connections at this node (limits.handshake_rate)", 5};
    static const struct answer full = {"503 Service Unavailable", "unavailable",
                                       "this node can take no more", 5};
    static const struct answer draining = {"503 Service Unavailable", "unavailable",
                                           "this node stops; come back to another one", 5};
    switch (result) {
    case HANDSHAKE_DRAINING:
        return &draining;
    case HANDSHAKE_ADDRESS_FULL:
        return &address_full;
    case HANDSHAKE_ADDRESS_RATE:
        return &address_rate;
    case HANDSHAKE_RATE:
        return &rate;
    default:
        return &full;
    }
}

static size_t print_answer(struct worker *worker, enum handshake_result result,
                           char out[ANSWER_MAX])
{
    const struct answer *answer = answer_of(result);
    size_t body = sizeof("{\"error\":\"\",\"message\":\"\"}") - 1 + strlen(answer->code) +
                  strlen(answer->message);
    int len = snprintf(out, ANSWER_MAX,
                       "HTTP/1.1 %s\r\nRetry-After: %u\r\nConnection: close\r\n"
                       "Content-Type: application/json\r\nContent-Length: %zu\r\n"
                       "Cache-Control: no-store\r\n\r\n{\"error\":\"%s\",\"message\":\"%s\"}",
                       answer->status, 1 + worker_random(worker) % answer->retry_most_s, body,
                       answer->code, answer->message);
    return (size_t)len;
}

static void send_answer(struct worker *worker, int fd, enum handshake_result result)
{
    char text[ANSWER_MAX];
    size_t len = print_answer(worker, result, text);
    (void)send(fd, text, len,
               MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE); /* one segment with the FIN */
    (void)shutdown(fd, SHUT_WR);
    metric_add(&worker->metrics.handshakes[result], 1);
}

/* What came meanwhile is read first: closing over unread bytes is a reset too. */
static void end_parting(struct worker *worker)
{
    struct parting *oldest = &worker->partings[worker->parting_first];
    worker->parting_first = (worker->parting_first + 1) % worker->setup.partings;
    worker->parting_count--;
    for (int rounds = 0; rounds < READ_ROUNDS; rounds++) {
        if (recv(oldest->fd, worker->receive, RECEIVE_BYTES, MSG_DONTWAIT) < RECEIVE_BYTES)
            break;
    }
    close(oldest->fd);
}

static void begin_parting(struct worker *worker, int fd)
{
    uint32_t most = worker->setup.partings;
    if (worker->parting_count == most)
        end_parting(worker);
    uint32_t index = (worker->parting_first + worker->parting_count) % most;
    worker->partings[index] = (struct parting){.fd = fd, .since_ms = worker->now_ms};
    worker->parting_count++;
}

void turn_away(struct worker *worker, int fd, enum handshake_result result, bool linger)
{
    ssize_t got = recv(fd, worker->receive, RECEIVE_BYTES, MSG_DONTWAIT);
    struct bytes request = bytes_of(worker->receive, got > 0 ? (size_t)got : 0);
    send_answer(worker, fd, result);
    bool whole = request.len >= 4 && memcmp(request.data + request.len - 4, "\r\n\r\n", 4) == 0;
    if (whole || !linger)
        close(fd);
    else
        begin_parting(worker, fd);
}

int turn_away_init(struct worker *worker)
{
    worker->partings = calloc(worker->setup.partings, sizeof(struct parting));
    return worker->partings ? 0 : UV_ENOMEM;
}

void turn_away_tick(struct worker *worker)
{
    while (worker->parting_count > 0 &&
           worker->now_ms - worker->partings[worker->parting_first].since_ms >= PARTING_MS)
        end_parting(worker);
}

void turn_away_fini(struct worker *worker)
{
    while (worker->parting_count > 0)
        end_parting(worker);
    free(worker->partings);
    worker->partings = NULL;
}
