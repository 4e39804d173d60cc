/* seat.h: a real worker on its own thread, with viewers over real sockets; the test sits in the place of the node.
 *
 * What the worker tells the node is taken by seat_command(), what the node tells it is posted by the calls below.
 */
#pragma once

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/worker.h"

struct seat {
    struct conf *conf;
    struct worker *worker;
    struct mailbox mailbox;
    struct link commands; /* taken and not looked at yet */
    enum lane lane;       /* of what is delivered and read, LANE_NORMAL at first */
    int wake_fd;
    int port;
    _Atomic uint32_t connections;
    _Atomic uint32_t connections_limit;
    _Atomic uint32_t handshakes;
    _Atomic uint32_t ramp;
    _Atomic uint64_t farewells;
};

/* The shipped conf but for chat with history, and what else is given (up to NULL). */
struct seat *seat_open(const char *const *overrides);
void seat_close(struct seat *seat);

/* Waits for a command of this kind (others are let go of meanwhile); fails the test after 5 s. Free it with free(). */
struct command *seat_command(struct seat *seat, enum command_kind kind);
/* How many commands of this kind the worker told until now, all of which are let go of. */
uint32_t seat_count(struct seat *seat, enum command_kind kind);

/* The room is subscribed; its normal lane stands at n of the epoch (0: nothing is known of it). */
void seat_live(struct seat *seat, const char *room, uint64_t epoch, uint64_t n);
void seat_live_at(struct seat *seat, const char *room,
                  const struct history_point points[LANE_COUNT]);
/* A message of the room's normal lane; its data is the number. epoch 0: without number. */
void seat_deliver(struct seat *seat, const char *room, uint64_t epoch, uint64_t n);
void seat_deliver_large(struct seat *seat, const char *room, uint64_t epoch, uint64_t n,
                        size_t bytes);
/* The node's notice that messages may be missing here. */
void seat_gap(struct seat *seat, const char *room, bool no_join);
/* Behind it the lane goes on after number n. */
void seat_gap_to(struct seat *seat, const char *room, uint64_t epoch, uint64_t n);
/* Answers COMMAND_ASK_HISTORY: messages first to last of the normal lane, of `bytes` each at least. */
void seat_history(struct seat *seat, const char *room, uint64_t epoch, uint64_t first,
                  uint64_t last, size_t bytes);
void seat_history_failed(struct seat *seat, const char *room);

/* A viewer in the native protocol. */
struct guest {
    int fd;
    size_t len;
    char bytes[1 << 16];
};

struct guest *guest_open(const struct seat *seat);
void guest_close(struct guest *guest);
void guest_say(struct guest *guest, const char *text);
/* The next message as text, until the next call; fails the test after 5 s. */
const char *guest_hear(struct guest *guest);
/* `{"op":"join","room":…,"after":["n.<epoch>.<n>"]}`; epoch 0: without after. */
void guest_join(struct guest *guest, const char *room, uint64_t epoch, uint64_t n);
/* Hears one after the other, as words: `joined`, `gap`, `error`, or the data of a message. */
void guest_expect(struct guest *guest, const char *words);
