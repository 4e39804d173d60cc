/* site.h: the part of a node that carries room messages, with a real Redis before it and a worker behind it whose rings and mailbox
 * the test reads in its place.
 *
 * What comes of the normal lane is written down, one word a message: `a#3` with number 3, `a` without one, `gap` or `gap#3` (after number 3); `(gap)`: nobody
 * needs to join again, `gap#3>5`: the next message is number 6.
 */
#pragma once

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/redis_server.h"
#include "node/internal.h"

enum { SITE_WORKERS = 2 };

struct site {
    struct redis_server redis;
    struct node *node;
    uv_timer_t limit;
    bool late;
    struct buf seen;
    uint32_t words;
    struct history_point stands[LANE_COUNT];     /* as told with the last COMMAND_ROOM_LIVE */
    uint32_t merged;                             /* COMMAND_MERGED that told of success */
    uint32_t lives;                              /* COMMAND_ROOM_LIVE that came */
    struct history_batch *batches[SITE_WORKERS]; /* the last COMMAND_HISTORY to each worker */
};

/* The shipped conf but for chat with history, 20 messages of it, and what else is given (up to NULL). */
struct site *site_open(const char *const *overrides);
void site_close(struct site *site);
/* The same for cmocka, with a history.wait of 10 s, so that a busy machine ends no wait; impatient: 300 ms. */
int site_set_up(void **state);
int site_set_up_impatient(void **state);
int site_tear_down(void **state);

/* One turn of the loop, and what came of it. */
void site_turn(struct site *site);
/* Runs until done() says so; fails the test after 10 s. */
void site_until(struct site *site, bool (*done)(const struct site *site));
void site_for(struct site *site, uint64_t ms);

/* The first worker's viewers want the room's messages; returns when they are told that they are in. */
void site_hold(struct site *site, const char *room);
/* The same in two steps. */
void site_begin_hold(struct site *site, const char *room);
void site_end_hold(struct site *site);
void site_release(struct site *site, const char *room);
void site_ask_history(struct site *site, uint32_t worker, const char *room);

/* Runs publish.lua; lost: what it publishes does not come here. */
void site_publish(struct site *site, const char *room, const char *data, bool lost);
/* The same for each letter of names; all of them come. */
void site_publish_all(struct site *site, const char *room, const char *names);
/* PUBLISH as somebody does who makes ids up; id: NULL or "<epoch>.<n>" of the normal lane, an empty epoch being the room's own. */
void site_forge(struct site *site, const char *room, const char *data, const char *id);
/* A viewer's send of type vote, merged in this way, whatever the conf says of it. */
void site_merge(struct site *site, const char *room, enum conf_merge kind, uint64_t delta,
                const char *newest);
/* May the node run scripts? */
void site_let_read(struct site *site, bool may);

/* halley_history_reads_total{for="holes"} and halley_history_misnumbered_total. */
uint64_t site_reads(const struct site *site);
uint64_t site_misnumbered(const struct site *site);

/* Waits until so much came, and nothing else; clears it. */
void site_expect(struct site *site, const char *text);
