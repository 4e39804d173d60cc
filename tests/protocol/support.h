/* support.h: frames read back, requests parsed, memory that runs out; and the groups of this binary. */
#pragma once

#include "protocol/adapter.h"

/* Expects that out holds exactly these text frames (NULL ends the list), then empties it. */
void expect_frames(struct buf *out, const char *first, ...);

/* The limits that tests parse with. */
extern const struct adapter_limits test_limits;

/* Parses a copy of text of exactly its size; the copy lives until the next call. */
struct intent parse_text(const struct adapter *adapter, const char *text);

void expect_bytes(struct bytes got, const char *expected);
void expect_refused(const struct intent *intent, enum error_code code);
void expect_unreadable(const struct intent *intent);

/* The n-th allocation from now on fails, and all after it; negative: none. */
void fail_allocation(int n);

/* A message made of texts; NULL stands for what it does not have. */
struct message *make_message(enum message_kind kind, const char *room, const char *type,
                             const char *from, const char *id, const char *data);

int run_message_tests(void);
int run_native_tests(void);
int run_socketio_tests(void);
