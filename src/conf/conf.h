/* conf.h: the configuration: one table of keys, parsed into one immutable snapshot.
 *
 * keys.def is the only place where a key is written down: type, range, default, reload policy and sentence. The parser, `-o`,
 * docs/config.md and conf/halley.conf are made from it.
 *
 * Path:      conf file, -o -> [conf] -> everything.
 * Threads:   a snapshot is immutable and counted; any thread may hold one.
 * Ownership: conf_ref / conf_unref.
 * Limits:    CONF_TYPES_MAX types; ranges per key.
 */
#pragma once

#include "auth/key.h"
#include "base/bytes.h"
#include "base/names.h"
#include "protocol/message.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CONF_TYPES_MAX = 256,
    CONF_TYPE_SLOTS = 512,
    CONF_LISTEN_MAX = 16,
    CONF_ADDRESS_MAX = 64,
    CONF_TEXT_MAX = 256,
    CONF_CONGESTION_MAX = 15 /* TCP_CA_NAME_MAX of Linux, less its end */
};

enum conf_accept { ACCEPT_IP_HASH, ACCEPT_SPREAD };
enum conf_overflow { OVERFLOW_DROP_OLDEST, OVERFLOW_DISCONNECT };
enum conf_route { ROUTE_NONE, ROUTE_BROADCAST, ROUTE_QUEUE };
enum conf_merge { MERGE_NONE, MERGE_LATEST, MERGE_SUM };
enum conf_auth { AUTH_OPEN, AUTH_JWT, AUTH_REDIS };

struct conf_lane {
    uint32_t interval_ms;
    uint32_t bytes;
    uint32_t ttl_ms;
    enum conf_overflow overflow;
};

struct conf_type {
    char name[TYPE_NAME_MAX + 1]; /* "*" is the default entry, always types[0] */
    enum lane lane;
    enum conf_route route;
    uint32_t max_bytes; /* of data */
    uint32_t rate;      /* messages a second and viewer; 0: no limit of its own */
    uint32_t burst;
    char merge[TYPE_NAME_MAX + 8]; /* none, latest or sum:<field> */
    uint32_t window_ms;
    uint32_t max_value;         /* of a viewer's field */
    enum conf_merge merge_kind; /* derived from merge */
    uint32_t
        name_hash; /* derived from the name: tells types apart whatever their index after a reload */
    char queue[ROOM_NAME_MAX + 1]; /* of route = queue; empty: the type's name */
    bool history;
};

/* The field that MERGE_SUM adds up. */
static inline const char *conf_type_field(const struct conf_type *type)
{
    return type->merge + sizeof("sum:") - 1;
}

/* A section key { }: where a key for tickets comes from. */
struct conf_ticket_key {
    char name[AUTH_KID_MAX + 1]; /* the kid */
    enum auth_alg alg;
    char secret[CONF_TEXT_MAX]; /* secret */
    char file[CONF_TEXT_MAX];
};

struct conf_list {
    uint32_t count;
    char items[CONF_LISTEN_MAX][CONF_ADDRESS_MAX];
};

struct conf {
    struct {
        struct conf_list listen;
        char node[ROOM_NAME_MAX + 1];
        uint32_t workers;
        enum conf_accept accept;
        bool share_port;
        bool echo;
        uint32_t backlog;
        uint32_t ramp_ms;   /* 0: none */
        uint32_t ramp_rate; /* accepts of the node in the ramp's first second */
    } server;
    struct {
        uint32_t notsent_lowat; /* bytes */
        uint32_t user_timeout_ms;
        uint32_t sndbuf;                          /* bytes; 0: the kernel's own tuning */
        uint32_t send_delay_ms;                   /* 0: the kernel's own tuning */
        uint32_t keepalive_ms;                    /* 0: none */
        char congestion[CONF_CONGESTION_MAX + 1]; /* empty: the kernel's default */
    } tcp;
    struct {
        char listen[CONF_ADDRESS_MAX]; /* empty: no admin listener */
        char token[CONF_TEXT_MAX];     /* secret */
    } admin;
    struct {
        enum conf_auth mode;
        struct conf_list origins; /* patterns of ws/origin.h; none: all */
        uint32_t leeway_ms;
        uint32_t grace_ms;
        uint32_t timeout_ms;
        uint32_t pending; /* tickets that wait for an answer, per worker */
        bool single_use;
        uint32_t reuse_window_ms;
        uint32_t marks; /* used tickets that the node itself remembers */
        uint32_t kicks; /* users kicked while tickets wait, per worker */
    } auth;
    struct {
        char url[CONF_TEXT_MAX]; /* secret: the password is hidden in every print */
        char prefix[CONF_ADDRESS_MAX];
        uint32_t linger_ms;
        uint32_t connect_timeout_ms;
        uint32_t reply_timeout_ms;
        uint32_t silence_ms;    /* a subscriber connection quiet for so long is asked PING */
        uint32_t pending;       /* publishes that wait for Redis at most */
        uint32_t output_bytes;  /* unsent bytes per Redis connection at most */
        uint32_t message_bytes; /* longest payload taken from the broker or over HTTP */
        uint32_t session_ttl_ms;
        uint32_t total_ttl_ms; /* of running totals after the last message */
    } broker;
    struct {
        uint32_t slice; /* viewers flushed per loop turn */
    } flush;
    struct {
        uint32_t interval_ms;
        uint32_t timeout_ms;
        bool adaptive;
        uint32_t max_ms;
        uint32_t foreground_ms;
        uint32_t networks; /* of one worker */
    } heartbeat;
    struct {
        uint32_t connections; /* viewers of the node; 0: from the file limit */
        uint32_t rooms;       /* of the node */
        uint32_t rooms_per_viewer;
        uint32_t head_bytes;
        uint32_t head_timeout_ms;
        uint64_t message_bytes; /* from a viewer */
        uint32_t frame_timeout_ms;
        uint32_t open_messages; /* per worker */
        uint32_t json_depth;
        uint32_t viewer_rate; /* messages a second and viewer */
        uint32_t viewer_burst;
        uint32_t join_rate;
        uint32_t join_burst;
        uint32_t bad_messages;  /* a minute and viewer, past it 1008 */
        uint32_t private_bytes; /* private queue of a viewer */
        uint64_t log_bytes;     /* all frame logs of one worker */
        uint32_t mailbox;       /* messages that wait for one worker, per lane */
        uint32_t admin_requests;
        uint32_t user_connections; /* of one user on this node; 0: no bound */
        uint32_t refused_messages; /* a minute and viewer, past it 1008 */
        uint32_t user_rate;        /* messages a second and user on this node; 0: no limit */
        uint32_t user_burst;
        uint32_t room_send_rate; /* messages a second into a room from this node; 0: no limit */
        uint32_t room_send_burst;
        uint32_t rate_entries;        /* users, and rooms, whose rate is being watched */
        uint32_t address_connections; /* 0: no bound */
        uint32_t address_rate;        /* new connections a second; 0: no bound */
        uint32_t address_burst;
        uint32_t addresses;       /* entries of one worker */
        struct conf_list trusted; /* address ranges of base/network.h */
        uint32_t handshake_rate;  /* of the node, a second; 0: no bound */
        uint32_t handshake_burst;
        uint32_t merges;        /* open windows of merged types, up and down each */
        uint32_t merge_waiting; /* sends of merged types that wait for their ack, per worker */
        uint32_t room_rate;     /* messages a second of a room in normal and low; 0: all */
    } limits;
    struct {
        uint32_t timeout_ms; /* from SIGTERM to exit at the latest */
        uint32_t notice_ms;  /* handshakes are served for so long */
        uint32_t rate;       /* closes a second, over all workers */
    } drain;
    struct {
        bool enabled;
        uint32_t interval_ms;
        uint32_t timeout_ms;
        uint32_t rate; /* rooms a second */
    } presence;
    struct {
        int format; /* enum log_format */
        int level;  /* enum log_level */
    } log;
    struct {
        char join_event[TYPE_NAME_MAX + 1];
        char leave_event[TYPE_NAME_MAX + 1];
    } socketio;
    struct {
        uint32_t dedupe_ms;
        uint32_t max_length; /* entries of one stream */
    } queue;
    struct {
        uint32_t length; /* messages per room and lane */
        uint32_t ttl_ms;
        uint32_t dedupe_ms;
        uint64_t memory; /* of memory: */
        uint32_t wait_ms;
        uint32_t read_bytes; /* of one read */
        uint32_t reads;      /* under way */
        uint32_t replay_ms;
        uint64_t replay_bytes; /* per worker */
        uint32_t waiting;      /* messages behind holes, on the main thread */
    } history;
    struct {
        struct conf_list kinds;
        uint32_t mask; /* derived: bits 1 << EVENT_… (protocol/event.h) */
        uint32_t max_length;
        uint32_t batch;
        uint32_t interval_ms;
        uint32_t pending; /* events that wait for Redis at most */
    } events;
    struct conf_lane lanes[LANE_COUNT];
    uint32_t type_count;
    uint32_t limited_types;                 /* derived: how many have a rate */
    uint32_t history_types;                 /* derived: how many have history */
    struct conf_type types[CONF_TYPES_MAX]; /* [0] is "*"; the rest in file order */
    uint8_t type_slots[CONF_TYPE_SLOTS];    /* of conf_type_find(): indexes by hash, 0 is free */
    uint32_t ticket_key_count;
    struct conf_ticket_key ticket_keys[AUTH_KEYS_MAX]; /* in file order */
    struct auth_keys *auth_keys;                       /* owned: what was made of them */
    _Atomic uint32_t refs;
};

/* One `-o key=value`. */
struct conf_override {
    const char *text;
};

/* Reads the file at path (NULL: the built-in conf, which is the shipped conf/halley.conf), applies the overrides in order,
 * checks every range and what belongs together (tcp.user_timeout above heartbeat.timeout is advised, types' max_bytes must fit
 * their lane, admin.listen beyond loopback needs admin.token, broker.url must be known, …).
 * Returns a snapshot with one reference; or NULL with a text in *error (what, file, line, key, value given, allowed range),
 * one problem a line. Warnings that do not stop are appended to *warnings the same way. */
struct conf *conf_load(const char *path, const struct conf_override *overrides, size_t count,
                       struct buf *error, struct buf *warnings);

struct conf *conf_ref(struct conf *conf);
void conf_unref(struct conf *conf); /* NULL is fine */

/* Index of the entry for a type name; 0 (the "*" entry) when it is not listed. */
uint16_t conf_type_find(const struct conf *conf, struct bytes name);

/* Effective conf as JSON, secrets hidden: {"server":{"listen":[…],…},…,"lane":{…},"type":{…}}. */
void conf_print_json(const struct conf *conf, struct buf *out);

/* docs/config.md and conf/halley.conf, from the table. */
void conf_print_docs(struct buf *out);
void conf_print_sample(struct buf *out);

/* The worst-case memory of the bounds added up, one line each and the sum (halley -t). connections: what limits.connections came to. */
void conf_print_memory(const struct conf *conf, uint32_t connections, struct buf *out);

/* Whether a drain of so many viewers fits drain.timeout, in a line (halley -t). */
void conf_print_drain(const struct conf *conf, uint32_t connections, struct buf *out);

/* Names of keys that differ between two snapshots and take effect only after a restart, comma-separated, into out. */
void conf_diff_restart(const struct conf *old, const struct conf *fresh, struct buf *out);

/* Gives fresh, which nobody shares yet, the running values of those keys, so that it says what is in effect. */
void conf_keep_restart(const struct conf *running, struct conf *fresh);

/* Units: `20ms`, `10s`, `5m`, `2h` (bare numbers are refused but 0); `64k`, `2m`, `1g` or bare bytes. Return 0 or -1. */
int conf_parse_duration_ms(struct bytes text, uint64_t *out);
int conf_parse_size(struct bytes text, uint64_t *out);
