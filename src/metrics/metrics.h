/* metrics.h: every counter and gauge, once, in tables.
 *
 * A worker writes its own block without locks or shared cache lines; the main thread reads them
 * with relaxed loads and adds them up. docs/metrics.md is made from the tables.
 *
 * Path:      worker, node -> [metrics] -> admin (/metrics).
 * Threads:   a block has one writer; any thread may read.
 * Limits:    fixed size.
 */
#pragma once

#include "auth/result.h"
#include "base/bytes.h"
#include "base/names.h"
#include "protocol/intent.h"

#include <stdatomic.h>

/* Close reasons: X(name, close code, log level, label, text). Code 0: no close frame is sent. */
#define CLOSE_REASONS(X)                                                                           \
    X(CLOSE_CLIENT, 1000, DEBUG, "client", "closed by the viewer")                                 \
    X(CLOSE_RESET, 0, DEBUG, "reset", "connection reset or ended without a close frame")           \
    X(CLOSE_WRITE_ERROR, 0, DEBUG, "write_error", "write failed")                                  \
    X(CLOSE_PROTOCOL, 1002, INFO, "protocol", "WebSocket protocol error")                          \
    X(CLOSE_BINARY, 1003, INFO, "binary", "binary message")                                        \
    X(CLOSE_NOT_UTF8, 1007, INFO, "not_utf8", "text is not UTF-8")                                 \
    X(CLOSE_POLICY, 1008, INFO, "policy", "too many bad messages")                                 \
    X(CLOSE_TOO_BIG, 1009, INFO, "too_big", "message longer than limits.message_bytes")            \
    X(CLOSE_INTERNAL, 1011, ERROR, "internal", "out of memory or an internal error")               \
    X(CLOSE_DRAIN, 1012, DEBUG, "drain", "this node stops or sheds load; come back")               \
    X(CLOSE_TRY_LATER, 1013, WARN, "try_later", "a limit of the node is reached")                  \
    X(CLOSE_TICKET_EXPIRED, 4001, DEBUG, "ticket_expired", "the ticket expired")                   \
    X(CLOSE_TOO_SLOW, 4008, INFO, "too_slow", "the viewer did not read fast enough")               \
    X(CLOSE_REPLACED, 4009, DEBUG, "replaced",                                                     \
      "replaced by a newer connection of the same session")                                        \
    X(CLOSE_USER_CONNECTIONS, 4012, INFO, "user_connections",                                      \
      "too many connections of the user (limits.user_connections)")                                \
    X(CLOSE_KICKED, 4010, INFO, "kicked", "kicked by an operator or backend")                      \
    X(CLOSE_HEARTBEAT, 4011, DEBUG, "heartbeat", "no sign of life")                                \
    X(CLOSE_FRAME_TIMEOUT, 1008, INFO, "frame_timeout", "a message stayed unfinished")             \
    X(CLOSE_NO_CONNECT, 1008, DEBUG, "no_connect", "no Socket.IO CONNECT within 45 s")             \
    X(CLOSE_REFUSED, 0, DEBUG, "refused", "handshake refused")                                     \
    X(CLOSE_HEAD_TIMEOUT, 0, DEBUG, "head_timeout", "handshake not finished in time")

enum close_reason {
#define X(name, code, level, label, text) name,
    CLOSE_REASONS(X)
#undef X
        CLOSE_REASON_COUNT
};

/* Handshake results: X(name, HTTP status, label). */
#define HANDSHAKE_RESULTS(X)                                                                       \
    X(HANDSHAKE_OK, 101, "ok")                                                                     \
    X(HANDSHAKE_MALFORMED, 400, "malformed")                                                       \
    X(HANDSHAKE_TICKET, 401, "ticket")                                                             \
    X(HANDSHAKE_FORBIDDEN, 403, "forbidden")                                                       \
    X(HANDSHAKE_NOT_FOUND, 404, "not_found")                                                       \
    X(HANDSHAKE_METHOD, 405, "method")                                                             \
    X(HANDSHAKE_NO_UPGRADE, 426, "no_upgrade")                                                     \
    X(HANDSHAKE_TOO_LARGE, 431, "too_large")                                                       \
    X(HANDSHAKE_FULL, 503, "full")                                                                 \
    X(HANDSHAKE_ORIGIN, 403, "origin")                                                             \
    X(HANDSHAKE_ADDRESS_FULL, 429, "address_full")                                                 \
    X(HANDSHAKE_ADDRESS_RATE, 429, "address_rate")                                                 \
    X(HANDSHAKE_RATE, 503, "rate")                                                                 \
    X(HANDSHAKE_DRAINING, 503, "draining")                                                         \
    X(HANDSHAKE_TICKETS_AWAY, 503, "tickets_away")                                                 \
    X(HANDSHAKE_HEALTH, 200, "health")                                                             \
    X(HANDSHAKE_TIMEOUT, 0, "timeout")                                                             \
    X(HANDSHAKE_GONE, 0, "gone")

enum handshake_result {
#define X(name, status, label) name,
    HANDSHAKE_RESULTS(X)
#undef X
        HANDSHAKE_RESULT_COUNT
};

/* Why messages did not reach a viewer or a worker: X(name, label, text). Each is counted per lane.
 */
#define DROP_REASONS(X)                                                                            \
    X(DROP_SKIPPED, "skipped", "frames that lagging viewers skipped")                              \
    X(DROP_MAILBOX, "mailbox", "the mailbox of a worker was full (limits.mailbox)")                \
    X(DROP_TOO_LARGE, "too_large",                                                                 \
      "a frame longer than its lane's bytes, or data over its type's max_bytes")                   \
    X(DROP_NO_MEMORY, "no_memory", "no memory for the frame log")                                  \
    X(DROP_PRIVATE, "private",                                                                     \
      "a message to a user found the viewer's private queue full (limits.private_bytes)")          \
    X(DROP_LOG_BYTES, "log_bytes", "trimmed because limits.log_bytes was reached")

enum drop_reason {
#define X(name, label, text) name,
    DROP_REASONS(X)
#undef X
        DROP_REASON_COUNT
};

/* Plain per-worker values: X(name, kind, metric, labels, help). Several rows of one metric follow
 * each other. */
#define WORKER_VALUES(X)                                                                           \
    X(viewers_native, GAUGE, "halley_viewers", "protocol=\"native\"", "Viewers connected.")        \
    X(viewers_engineio3, GAUGE, "halley_viewers", "protocol=\"engineio3\"", "")                    \
    X(viewers_engineio4, GAUGE, "halley_viewers", "protocol=\"engineio4\"", "")                    \
    X(viewers_echo, GAUGE, "halley_viewers", "protocol=\"echo\"", "")                              \
    X(handshaking, GAUGE, "halley_handshaking", "",                                                \
      "Connections whose handshake is not finished.")                                              \
    X(viewers_blocked, GAUGE, "halley_viewers_blocked", "",                                        \
      "Viewers whose socket takes no more bytes now.")                                             \
    X(viewers_narrowed, GAUGE, "halley_viewers_narrowed", "",                                      \
      "Viewers on thin links, whose send buffer is held short (tcp.send_delay).")                  \
    X(rooms, GAUGE, "halley_worker_rooms", "", "Rooms with viewers, added up over workers.")       \
    X(memberships, GAUGE, "halley_memberships", "", "Viewer-in-room pairs.")                       \
    X(accepted, COUNTER, "halley_accepted_total", "", "TCP connections accepted.")                 \
    X(accept_errors, COUNTER, "halley_accept_errors_total", "",                                    \
      "accept() failures, the file limit among them.")                                             \
    X(messages_in, COUNTER, "halley_viewer_messages_total", "", "Messages from viewers.")          \
    X(bytes_in, COUNTER, "halley_bytes_total", "direction=\"in\"",                                 \
      "Bytes read from and written to viewers.")                                                   \
    X(bytes_out, COUNTER, "halley_bytes_total", "direction=\"out\"", "")                           \
    X(delivered, COUNTER, "halley_delivered_total", "", "Room message frames written to viewers.") \
    X(writes, COUNTER, "halley_writes_total", "", "send calls that took bytes.")                   \
    X(write_frames, COUNTER, "halley_write_frames_total", "",                                      \
      "Frames in these, replies and heartbeats too; divided by writes: frames per write.")         \
    X(writes_partial, COUNTER, "halley_writes_partial_total", "",                                  \
      "Writes that the socket did not take whole.")                                                \
    X(appended, COUNTER, "halley_appended_total", "",                                              \
      "Messages put into frame logs, added up over workers.")                                      \
    X(rate_limited_viewer, COUNTER, "halley_rate_limited_total", "scope=\"viewer\"",               \
      "Viewer messages refused by a rate limit, by whose it is.")                                  \
    X(rate_limited_joins, COUNTER, "halley_rate_limited_total", "scope=\"joins\"", "")             \
    X(rate_limited_type, COUNTER, "halley_rate_limited_total", "scope=\"type\"", "")               \
    X(rate_limited_user, COUNTER, "halley_rate_limited_total", "scope=\"user\"", "")               \
    X(rate_limited_room, COUNTER, "halley_rate_limited_total", "scope=\"room\"", "")               \
    X(merge_waiting, GAUGE, "halley_merge_waiting", "",                                            \
      "Sends of merged types that wait for their ack.")                                            \
    X(bad_messages, COUNTER, "halley_bad_messages_total", "",                                      \
      "Viewer messages that were refused as malformed.")                                           \
    X(pings_out, COUNTER, "halley_heartbeats_total", "direction=\"out\"",                          \
      "Heartbeat pings sent and received.")                                                        \
    X(pings_in, COUNTER, "halley_heartbeats_total", "direction=\"in\"", "")                        \
    X(memory_viewers, GAUGE, "halley_memory_bytes", "kind=\"viewers\"", "Memory by kind.")         \
    X(memory_rooms, GAUGE, "halley_memory_bytes", "kind=\"rooms\"", "")                            \
    X(memory_logs, GAUGE, "halley_memory_bytes", "kind=\"logs\"", "")                              \
    X(memory_codec, GAUGE, "halley_memory_bytes", "kind=\"codec\"", "")                            \
    X(memory_queues, GAUGE, "halley_memory_bytes", "kind=\"queues\"", "")                          \
    X(memory_replays, GAUGE, "halley_memory_bytes", "kind=\"replays\"", "")                        \
    X(memory_addresses, GAUGE, "halley_memory_bytes", "kind=\"addresses\"", "")                    \
    X(memory_networks, GAUGE, "halley_memory_bytes", "kind=\"networks\"", "")                      \
    X(memory_tickets, GAUGE, "halley_memory_bytes", "kind=\"tickets\"", "")                        \
    X(addresses, GAUGE, "halley_addresses", "",                                                    \
      "Addresses that are kept count of (limits.addresses per worker).")                           \
    X(addresses_uncounted, COUNTER, "halley_addresses_uncounted_total", "",                        \
      "Connections let in without a look at their address: the table was full.")                   \
    X(networks, GAUGE, "halley_networks", "",                                                      \
      "Networks whose idle time is being learned (heartbeat.networks per worker).")                \
    X(network_scouts, COUNTER, "halley_network_losses_total", "kind=\"scout\"",                    \
      "Viewers that came back because a silent connection was forgotten: the scout of its "        \
      "network, "                                                                                  \
      "one that made the network fall back, one that others' survival outweighs.")                 \
    X(network_falls, COUNTER, "halley_network_losses_total", "kind=\"fell\"", "")                  \
    X(network_doubts, COUNTER, "halley_network_losses_total", "kind=\"doubted\"", "")              \
    X(tickets_waiting, GAUGE, "halley_tickets_waiting", "",                                        \
      "Tickets that wait for an answer about them (auth.pending).")                                \
    X(kicks, GAUGE, "halley_kicks_remembered", "",                                                 \
      "Users kicked while tickets wait that may turn out to be theirs (auth.kicks).")              \
    X(kicks_forgotten, COUNTER, "halley_kicks_forgotten_total", "",                                \
      "Of those the ones past auth.kicks: the tickets that waited then are answered 503.")         \
    X(tcp_known, COUNTER, "halley_tcp_viewers_total", "",                                          \
      "Viewers whose TCP options were looked at.")                                                 \
    X(tcp_without_sack, COUNTER, "halley_tcp_without_total", "option=\"sack\"",                    \
      "Those of them that do without: recovery from loss is slow there.")                          \
    X(tcp_without_timestamps, COUNTER, "halley_tcp_without_total", "option=\"timestamps\"", "")    \
    X(tcp_without_scaling, COUNTER, "halley_tcp_without_total", "option=\"window_scaling\"", "")   \
    X(events_dropped, COUNTER, "halley_events_not_told_total", "",                                 \
      "Events of viewers that a worker could not tell the node, which was overloaded.")            \
    X(resumed_log, COUNTER, "halley_resumes_total", "from=\"log\"",                                \
      "Lanes of rooms in which viewers that came back went on: from the frame log, from history, " \
      "or not without a gap.")                                                                     \
    X(resumed_history, COUNTER, "halley_resumes_total", "from=\"history\"", "")                    \
    X(resumed_gap, COUNTER, "halley_resumes_total", "from=\"gap\"", "")                            \
    X(resume_failed, COUNTER, "halley_resumes_failed_total", "",                                   \
      "Joins with after that were answered unavailable.")                                          \
    X(resumes, GAUGE, "halley_resumes", "", "Viewers, per room, that are on their way back.")      \
    X(ramp_pauses, COUNTER, "halley_ramp_pauses_total", "",                                        \
      "Times that accepting paused because of server.ramp.")                                       \
    X(loop_turns, COUNTER, "halley_loop_turns_total", "", "Turns of the workers' loops.")

/* Sizes of TCP segments as networks have them, each the least of its class: loopback, jumbo frames, Ethernet with and without
 * timestamps, PPPoE, tunnels, mobile carriers, IPv6's least, dial-up. */
enum { SEGMENT_CLASSES = 16 };
extern const uint16_t segment_floors[SEGMENT_CLASSES];
unsigned segment_class(uint32_t bytes);

/* Histogram bounds in microseconds; the last bucket is +Inf. */
enum { HISTOGRAM_BUCKETS = 12 };
extern const uint32_t histogram_bounds_us[HISTOGRAM_BUCKETS - 1];

struct histogram {
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_us;
};

struct worker_metrics {
#define X(name, kind, metric, labels, help) _Atomic uint64_t name;
    WORKER_VALUES(X)
#undef X
    _Atomic uint64_t closes[CLOSE_REASON_COUNT];
    _Atomic uint64_t handshakes[HANDSHAKE_RESULT_COUNT];
    _Atomic uint64_t drops[DROP_REASON_COUNT][LANE_COUNT];
    _Atomic uint64_t errors[ERROR_CODE_COUNT];  /* error answers to viewers */
    _Atomic uint64_t segments[SEGMENT_CLASSES]; /* viewers now, by segment_class() */
    _Atomic uint64_t tickets[AUTH_RESULT_COUNT];
    struct histogram flush;    /* time of one flush slice */
    struct histogram loop_lag; /* how late a 100 ms tick came */
};

/* What the main thread counts: X(name, kind, metric, labels, help). */
#define NODE_VALUES(X)                                                                             \
    X(rooms, GAUGE, "halley_rooms", "",                                                            \
      "Rooms that this node is subscribed to, lingering ones too.")                                \
    X(published_http, COUNTER, "halley_published_total", "source=\"http\"",                        \
      "Messages published through this node.")                                                     \
    X(published_viewer, COUNTER, "halley_published_total", "source=\"viewer\"", "")                \
    X(publish_refused, COUNTER, "halley_publish_refused_total", "",                                \
      "Publishes answered with unavailable.")                                                      \
    X(queued, COUNTER, "halley_queued_total", "result=\"added\"",                                  \
      "Sends of viewers to queues, by what became of them.")                                       \
    X(queue_repeats, COUNTER, "halley_queued_total", "result=\"repeat\"", "")                      \
    X(queue_duplicates, COUNTER, "halley_queued_total", "result=\"duplicate\"", "")                \
    X(queue_full, COUNTER, "halley_queued_total", "result=\"full\"", "")                           \
    X(queue_failed, COUNTER, "halley_queued_total", "result=\"unavailable\"", "")                  \
    X(user_messages, COUNTER, "halley_user_messages_total", "",                                    \
      "Messages to users received from the broker, whether the user is here or not.")              \
    X(orders_kick, COUNTER, "halley_orders_total", "op=\"kick\"",                                  \
      "Orders and questions received from other nodes and backends.")                              \
    X(orders_connections, COUNTER, "halley_orders_total", "op=\"connections\"", "")                \
    X(orders_answer, COUNTER, "halley_orders_total", "op=\"answer\"", "")                          \
    X(orders_replace, COUNTER, "halley_orders_total", "op=\"replace\"", "")                        \
    X(events_added, COUNTER, "halley_events_total", "result=\"added\"",                            \
      "Events of viewers for the stream <prefix>:events, by what became of them.")                 \
    X(events_dropped, COUNTER, "halley_events_total", "result=\"dropped\"", "")                    \
    X(sessions, GAUGE, "halley_sessions", "", "Sessions whose newest connection is here.")         \
    X(history_added, COUNTER, "halley_history_published_total", "result=\"added\"",                \
      "Publishes of types with history, by what became of them.")                                  \
    X(history_repeats, COUNTER, "halley_history_published_total", "result=\"repeat\"", "")         \
    X(history_duplicates, COUNTER, "halley_history_published_total", "result=\"duplicate\"", "")   \
    X(history_failed, COUNTER, "halley_history_published_total", "result=\"unavailable\"", "")     \
    X(history_rooms, GAUGE, "halley_history_rooms", "", "Rooms whose numbers are looked after.")   \
    X(history_waiting, GAUGE, "halley_history_waiting", "",                                        \
      "Messages that wait behind a hole (history.waiting).")                                       \
    X(history_late_lanes, GAUGE, "halley_history_late_lanes", "",                                  \
      "Lanes of rooms that are behind since a cut from Redis: history is read again and again.")   \
    X(history_checks, GAUGE, "halley_history_checks", "",                                          \
      "Rooms whose counters are being read after a cut from Redis.")                               \
    X(history_holes_filled, COUNTER, "halley_history_holes_total", "result=\"filled\"",            \
      "Holes in the numbers of a lane, and cuts from Redis, by what became of them.")              \
    X(history_holes_left, COUNTER, "halley_history_holes_total", "result=\"gap\"", "")             \
    X(history_filled, COUNTER, "halley_history_filled_total", "",                                  \
      "Messages that were missed and read from history.")                                          \
    X(history_repeats_dropped, COUNTER, "halley_history_repeats_total", "",                        \
      "Messages that came a second time and were dropped.")                                        \
    X(history_misnumbered, COUNTER, "halley_history_misnumbered_total", "",                        \
      "Messages whose number history does not have, another message had, or that could not be "    \
      "looked up: passed on without id.")                                                          \
    X(history_reads_fill, COUNTER, "halley_history_reads_total", "for=\"holes\"",                  \
      "Reads of history.")                                                                         \
    X(history_reads_resume, COUNTER, "halley_history_reads_total", "for=\"viewers\"", "")          \
    X(payload_bad, COUNTER, "halley_payloads_dropped_total", "reason=\"malformed\"",               \
      "Broker payloads that were dropped.")                                                        \
    X(payload_too_large, COUNTER, "halley_payloads_dropped_total", "reason=\"too_large\"", "")     \
    X(payload_no_room, COUNTER, "halley_payloads_dropped_total", "reason=\"no_viewers\"", "")      \
    X(frames_long, COUNTER, "halley_long_frames_total", "",                                        \
      "Messages that do not fit one TCP segment of nearly all viewers "                            \
      "(halley_common_segment_bytes).")                                                            \
    X(common_segment, GAUGE, "halley_common_segment_bytes", "",                                    \
      "The segment size that 99 in 100 viewers have at least; 0: no viewers.")                     \
    X(dispatched, COUNTER, "halley_dispatched_total", "",                                          \
      "Messages handed to workers, counted once per worker.")                                      \
    X(gaps, COUNTER, "halley_gaps_total", "",                                                      \
      "Rooms and lanes told that they may have missed something.")                                 \
    X(presence_batches, COUNTER, "halley_presence_batches_total", "",                              \
      "Batches of rooms whose counts were written to and read from Redis.")                        \
    X(presence_rooms, COUNTER, "halley_presence_rooms_total", "", "Rooms in these.")               \
    X(presence_failed, COUNTER, "halley_presence_failed_total", "",                                \
      "Batches that Redis did not answer; they are sent again.")                                   \
    X(presence_waiting, GAUGE, "halley_presence_waiting_bytes", "",                                \
      "Names of rooms whose changed counts wait to be written (presence.rate) or told.")           \
    X(presence_told, COUNTER, "halley_presence_told_total", "",                                    \
      "Counts told to the viewers of a room.")                                                     \
    X(presence_lost, COUNTER, "halley_presence_lost_total", "",                                    \
      "Times that Redis had forgotten this node, and was told all counts again.")                  \
    X(admin_refused, COUNTER, "halley_admin_refused_total", "",                                    \
      "Admin requests answered 503 because of limits.admin_requests.")                             \
    X(rate_entries, GAUGE, "halley_rate_entries", "",                                              \
      "Users and rooms whose rate is being watched.")                                              \
    X(merges_up, GAUGE, "halley_merges", "way=\"up\"", "Open windows of merged types.")            \
    X(merges_down, GAUGE, "halley_merges", "way=\"down\"", "")                                     \
    X(merged_up, COUNTER, "halley_merged_total", "way=\"up\"",                                     \
      "Messages of merged types: sends of viewers, payloads of the broker.")                       \
    X(merged_down, COUNTER, "halley_merged_total", "way=\"down\"", "")                             \
    X(merge_batches, COUNTER, "halley_merge_batches_total", "",                                    \
      "Merged messages that the broker took from this node.")                                      \
    X(merge_lost, COUNTER, "halley_merge_lost_total", "",                                          \
      "Sends of merged types that were refused or given up: limits.merges, or Redis said no.")     \
    X(merge_unmerged, COUNTER, "halley_merge_passed_total", "",                                    \
      "Payloads of merged types that passed as they were because of limits.merges.")               \
    X(ticket_marks, GAUGE, "halley_ticket_marks", "",                                              \
      "Used tickets that this node remembers (auth.marks).")                                       \
    X(reloads, COUNTER, "halley_reloads_total", "result=\"ok\"", "Reloads of the conf file.")      \
    X(reloads_failed, COUNTER, "halley_reloads_total", "result=\"failed\"", "")                    \
    X(workers, GAUGE, "halley_workers", "", "Worker threads.")                                     \
    X(draining, GAUGE, "halley_draining", "", "1 from the moment that the node is told to stop.")  \
    X(connections_limit, GAUGE, "halley_connections_limit", "",                                    \
      "limits.connections as it came out.")                                                        \
    X(broker_ready, GAUGE, "halley_broker_ready", "",                                              \
      "1 while the broker is connected and all subscriptions stand.")                              \
    X(broker_reconnects, COUNTER, "halley_broker_reconnects_total", "",                            \
      "Connections to the broker that were made again.")                                           \
    X(broker_received, COUNTER, "halley_broker_received_total", "",                                \
      "Payloads received from the broker.")                                                        \
    X(broker_received_bytes, COUNTER, "halley_broker_received_bytes_total", "", "Their bytes.")    \
    X(broker_published, COUNTER, "halley_broker_published_total", "",                              \
      "Publishes that the broker confirmed.")                                                      \
    X(broker_publish_failed, COUNTER, "halley_broker_publish_failed_total", "",                    \
      "Publishes that failed.")                                                                    \
    X(broker_calls, COUNTER, "halley_broker_commands_total", "result=\"ok\"",                      \
      "Other commands and scripts sent to Redis.")                                                 \
    X(broker_call_failed, COUNTER, "halley_broker_commands_total", "result=\"failed\"", "")        \
    X(broker_subscriptions, GAUGE, "halley_broker_subscriptions", "", "Rooms subscribed.")         \
    X(broker_pending, GAUGE, "halley_broker_pending", "",                                          \
      "Publishes and commands that wait for an answer.")                                           \
    X(broker_lag_ms, GAUGE, "halley_broker_lag_milliseconds", "", "Age of the oldest of them.")    \
    X(broker_protocol_errors, COUNTER, "halley_broker_protocol_errors_total", "",                  \
      "Replies that could not be read.")

/* What limits.room_rate held back, by type and its lane. Types have names that the conf may change, so rows appear when first used. */
enum { SAMPLED_TYPES = 64 };
struct sampled_types {
    uint32_t count;
    struct {
        char type[TYPE_NAME_MAX + 1];
        enum lane lane;
        uint64_t messages;
    } rows[SAMPLED_TYPES]; /* the last one is for all types beyond */
};

struct node_metrics {
#define X(name, kind, metric, labels, help) _Atomic uint64_t name;
    NODE_VALUES(X)
#undef X
    struct histogram loop_lag; /* of the main thread */
    /* Messages received from the broker, by lane: halley_messages_total{lane=}. */
    _Atomic uint64_t by_lane[LANE_COUNT];
    struct sampled_types
        sampled; /* halley_sampled_total{type=,lane=}; the main thread prints, too */
};

/* One writer per block: no read-modify-write instruction is needed. */
static inline void metric_add(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void metric_sub(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) - n,
                          memory_order_relaxed);
}

static inline void metric_set(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, n, memory_order_relaxed);
}

static inline uint64_t metric_get(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void sampled_count(struct sampled_types *sampled, const char *type, enum lane lane);

void histogram_add(struct histogram *histogram, uint64_t us);

/* The facts of a close reason. */
uint16_t close_reason_code(enum close_reason reason);
const char *close_reason_label(enum close_reason reason);
const char *close_reason_text(enum close_reason reason);
int close_reason_level(enum close_reason reason); /* enum log_level */

/* Appends everything in Prometheus text format 0.0.4: workers added up (and
 * halley_worker_viewers{worker="n"} for skew), process memory and CPU (halley_process_…) read from
 * /proc. */
void metrics_print(struct buf *out, const struct node_metrics *node,
                   struct worker_metrics *const *workers, size_t count);

/* docs/metrics.md, from the tables. */
void metrics_print_docs(struct buf *out);
