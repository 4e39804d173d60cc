/* harness.h: a broker on a loop of its own with a record of its callbacks. */
#pragma once

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/broker.h"
#include "lib/redis_server.h"

#include <stdio.h>

enum event_kind { ON_MESSAGE, ON_SUBSCRIBED, ON_READY, ON_GAP, ON_PUBLISHED };

struct event {
    enum event_kind kind;
    int channel;   /* of a message */
    int64_t value; /* ready, lanes, the token, a message's length */
    int result;    /* of a publish */
    char room[ROOM_NAME_MAX + 1];
    char payload[32]; /* its beginning */
};

struct harness {
    uv_loop_t loop;
    uv_timer_t limit;
    struct conf *conf;
    struct broker *broker;
    struct event *events;
    size_t count;
    size_t cap;
    bool hold[2]; /* may_read() answers false: normal, high */
    bool ready;
    bool closed;
    bool late;
    uint64_t subscribed; /* how many on_subscribed came */
    uint64_t messages;
    uint64_t published;
    bool close_on_message;
};

/* A loop and a conf with the shipped broker keys; the broker comes with harness_open(). */
void harness_init(struct harness *h, const char *url);
void harness_open(struct harness *h);
void harness_close(struct harness *h); /* the broker, the loop and the record */

/* Runs the loop until done() says so; fails the test after 20 s. */
void harness_until(struct harness *h, bool (*done)(struct harness *h));
void harness_turns(struct harness *h, int turns);
/* Runs the loop for so long; only where nothing must happen. */
void harness_for(struct harness *h, uint64_t ms);

bool is_ready(struct harness *h);
bool is_away(struct harness *h);

/* Index of the n-th event (n from 0) of a kind for a room (NULL: any), or -1. */
int event_find(const struct harness *h, enum event_kind kind, const char *room, int n);
void events_clear(struct harness *h);
