/* redis_server.h: a real redis-server that ends with the test. */
#pragma once

#include "base/bytes.h"

#include <sys/types.h>

struct redis_server {
    pid_t pid;
    int port;
    int control; /* a blocking connection to it */
    char password[32];
};

/* Starts a redis-server (on the given port, or a free one when it is 0) and waits until it serves. */
void redis_start(struct redis_server *server, int port, const char *password);
void redis_stop(struct redis_server *server);

/* It answers nobody from here on, until it is resumed. */
void redis_halt(struct redis_server *server);
void redis_resume(struct redis_server *server);

/* Sends a command of words, split at blanks, and returns the reply as text (static until the next call). */
const char *redis_ask(struct redis_server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Sends a command whose words may hold anything. */
const char *redis_do(struct redis_server *server, const struct bytes *args, uint32_t count);
