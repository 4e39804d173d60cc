/* redis_publisher.h: what is asked of Redis on its publishing connection: publishes, commands, scripts, pipelined.
 *
 * Answers come in the order of the questions. A script goes with its text the first time on each connection, and by its
 * SHA-1 after that: a Redis that was restarted forgot all scripts, and its connection ended with it, so what is asked is
 * carried out in order. Only where scripts are taken away from a running Redis (SCRIPT FLUSH) is one that it does not know
 * (NOSCRIPT) sent once more with its text, behind what was asked meanwhile.
 *
 * Path:      redis -> [publisher] -> redis_conn; redis_conn (replies) -> [publisher] -> on_published, broker_reply.
 * Threads:   the broker's loop.
 * Ownership: owns the questions that wait; borrows connection and broker.
 * Limits:    broker.pending questions; broker.output_bytes of unsent bytes, and of scripts' arguments kept until their
 *            answer.
 */
#pragma once

#include "broker/redis_conn.h"
#include "broker/redis_pending.h"

enum { REDIS_SCRIPTS_KNOWN = 16 }; /* more than there are; past them the text goes each time */

struct redis_publisher {
    struct broker *broker;
    struct redis_conn *conn;
    struct redis_pending pending;
    size_t kept_bytes; /* arguments of scripts that wait for their answer */
    const struct broker_script *known[REDIS_SCRIPTS_KNOWN]; /* sent with text on this connection */
    uint32_t known_count;
    uint64_t published;
    uint64_t publish_failed;
    uint64_t calls;
    uint64_t call_failed;
};

/* Each appends and returns 0, or leaves everything as it was and returns BROKER_ERR_…. Sending is the caller's. */
int redis_publisher_publish(struct redis_publisher *publisher, struct bytes channel,
                            struct bytes payload, uint64_t token);
int redis_publisher_call(struct redis_publisher *publisher, const struct bytes *args,
                         uint32_t count, broker_reply on_reply, void *owner, uint64_t token);
int redis_publisher_eval(struct redis_publisher *publisher, const struct broker_script *script,
                         const struct bytes *keys, uint32_t key_count, const struct bytes *args,
                         uint32_t arg_count, broker_reply on_reply, void *owner, uint64_t token);

/* The answer to the oldest question. Returns 0, or UV_EPROTO when there was none or it makes no sense. */
int redis_publisher_reply(struct redis_publisher *publisher, const struct broker_value *reply);

/* The connection came up: Redis may know no script. */
void redis_publisher_up(struct redis_publisher *publisher);

/* Answers everything that waits with BROKER_ERR_AWAY. */
void redis_publisher_lost(struct redis_publisher *publisher);

void redis_publisher_fini(struct redis_publisher *publisher);
