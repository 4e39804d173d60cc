/* memory.c: the worst case of all bounds, for halley -t. */
#include "conf/conf.h"
#include "conf/units.h"
#include "conf/url.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum {
    VIEWER_BYTES = 350, /* the budget of an idle viewer: its struct, one room, its name */
    ROOM_BYTES = 1024,  /* a room on one worker: name, table, three logs without their frames */
    OPEN_MESSAGE_BYTES = 9216,  /* a wslay context */
    FRAME_OVERHEAD_BYTES = 512, /* around data */
    EVENT_BYTES = 640,          /* an event that waits, with the longest names */
    SESSION_BYTES = 320,        /* a session and its user's count, on the main thread */
    PENDING_BYTES = 96,         /* a question that waits for Redis' answer */
    RATES_BYTES = 32,           /* a viewer's table of rates with malloc's own, */
    RATE_BYTES = 8,             /* and each type in it */
    RATE_ENTRY_BYTES = 144,     /* a user or room whose rate is watched */
    SAMPLE_BYTES = 288,         /* a room whose messages limits.room_rate counts */
    MERGE_BYTES = 512,          /* an open window of a merged type, beside its newest message */
    MERGE_WAITING_BYTES = 48,   /* a send of one that waits for its ack */
    GRANT_BYTES = 4096,         /* what a ticket allows, where no two viewers have the same */
    INQUIRY_BYTES = 1024,       /* a handshake that waits for an answer about its ticket */
    MARK_BYTES = 192,           /* a used ticket */
    KICK_BYTES = 160,           /* a user that was kicked while tickets waited */
    REQUEST_BYTES = 32768,      /* libmicrohttpd's memory for one connection */
    MAILBOX_SLOT_BYTES = 8,
    ADDRESS_BYTES = 56,        /* struct peer, its share of the table, malloc */
    NETWORK_BYTES = 136,       /* struct halley_network, its share of the table, malloc */
    MISSING_BYTES = 8191 * 32, /* struct halley_networks */
    COUNTS_BYTES = 192, /* names of rooms to be written and told, once each, here and at a worker */
    HISTORY_ROOM_BYTES = 448, /* a room whose numbers are looked after, or asked for */
    HISTORY_CUT_BYTES =
        688, /* … and of which each lane waits for what a cut took, is late, and is checked */
    BROKER_CONNECTIONS = 3
};

/* Saturating: a sum of absurd bounds must read as absurd, not wrap to something small. */
static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void print_bytes(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    buf_printf(out, "%8.1f %-3s", value, units[unit]);
}

struct sum {
    struct buf *out;
    uint64_t total;
};

/* One line: what, how much, and the formula that follows as format. */
__attribute__((format(printf, 4, 5))) static void line(struct sum *sum, const char *what,
                                                       uint64_t bytes, const char *format, ...)
{
    char formula[256];
    va_list args;
    va_start(args, format);
    vsnprintf(formula, sizeof(formula), format, args);
    va_end(args);
    buf_printf(sum->out, "%-22s ", what);
    print_bytes(sum->out, bytes);
    buf_printf(sum->out, "  %s\n", formula);
    sum->total = plus(sum->total, bytes);
}

static uint32_t longest_data(const struct conf *conf)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < conf->type_count; i++) {
        if (conf->types[i].max_bytes > longest)
            longest = conf->types[i].max_bytes;
    }
    return longest;
}

static void viewers(struct sum *sum, const struct conf *conf, uint64_t connections)
{
    uint64_t workers = conf->server.workers;
    uint64_t frame = longest_data(conf) + FRAME_OVERHEAD_BYTES;
    line(sum, "viewers", times(connections, VIEWER_BYTES), "%" PRIu64 " connections x %d B",
         connections, VIEWER_BYTES);
    line(sum, "private queues", times(connections, conf->limits.private_bytes),
         "connections x limits.private_bytes");
    line(sum, "unsent rests of frames", times(connections, frame),
         "connections x (largest max_bytes + %d B)", FRAME_OVERHEAD_BYTES);
    line(sum, "send rates",
         conf->limited_types == 0
             ? 0
             : times(connections, RATES_BYTES + (uint64_t)conf->limited_types * RATE_BYTES),
         "connections x (%d B + %" PRIu32 " types with a rate x %d B)", RATES_BYTES,
         conf->limited_types, RATE_BYTES);
    line(sum, "sessions", times(connections, SESSION_BYTES), "connections x %d B", SESSION_BYTES);
    line(sum, "handshakes", times(connections, conf->limits.head_bytes),
         "connections x limits.head_bytes");
    line(sum, "addresses", times(times(workers, conf->limits.addresses), ADDRESS_BYTES),
         "%" PRIu64 " workers x limits.addresses x %d B", workers, ADDRESS_BYTES);
    if (conf->heartbeat.adaptive)
        line(sum, "networks",
             times(workers, plus(times(conf->heartbeat.networks, NETWORK_BYTES), MISSING_BYTES)),
             "%" PRIu64 " workers x (heartbeat.networks x %d B + %d B)", workers, NETWORK_BYTES,
             MISSING_BYTES);
    line(sum, "open messages",
         times(times(workers, conf->limits.open_messages),
               plus(conf->limits.message_bytes, OPEN_MESSAGE_BYTES)),
         "%" PRIu64 " workers x limits.open_messages x (limits.message_bytes + %d B)", workers,
         OPEN_MESSAGE_BYTES);
}

static void tickets(struct sum *sum, const struct conf *conf, uint64_t connections)
{
    if (conf->auth.mode == AUTH_OPEN)
        return;
    line(sum, "rights of tickets", times(connections, GRANT_BYTES), "connections x %d B",
         GRANT_BYTES);
    if (conf->auth.mode == AUTH_REDIS || conf->auth.single_use) {
        line(sum, "tickets that wait",
             times(times(conf->server.workers, conf->auth.pending),
                   plus(conf->limits.head_bytes, INQUIRY_BYTES)),
             "%u workers x auth.pending x (limits.head_bytes + %d B)", conf->server.workers,
             INQUIRY_BYTES);
        line(sum, "kicks", times(times(conf->server.workers, conf->auth.kicks), KICK_BYTES),
             "%u workers x auth.kicks x %d B", conf->server.workers, KICK_BYTES);
    }
    if (conf->auth.single_use && strcmp(conf->broker.url, "memory:") == 0)
        line(sum, "used tickets", times(conf->auth.marks, MARK_BYTES), "auth.marks x %d B",
             MARK_BYTES);
}

static void rooms(struct sum *sum, const struct conf *conf)
{
    uint64_t workers = conf->server.workers;
    line(sum, "rooms", times(times(workers, conf->limits.rooms), ROOM_BYTES),
         "%" PRIu64 " workers x limits.rooms x %d B", workers, ROOM_BYTES);
    line(sum, "online counts", conf->presence.enabled ? times(conf->limits.rooms, COUNTS_BYTES) : 0,
         "limits.rooms x %d B", COUNTS_BYTES);
    line(sum, "frame logs", times(workers, conf->limits.log_bytes),
         "%" PRIu64 " workers x limits.log_bytes", workers);
    line(sum, "mailboxes",
         times(times(workers, times(LANE_COUNT, conf->limits.mailbox)),
               conf->broker.message_bytes + MAILBOX_SLOT_BYTES),
         "%" PRIu64 " workers x %d lanes x limits.mailbox x broker.message_bytes", workers,
         LANE_COUNT);
}

static void history(struct sum *sum, const struct conf *conf)
{
    if (conf->history_types == 0)
        return;
    line(sum, "history, rooms", times(conf->limits.rooms, HISTORY_ROOM_BYTES),
         "limits.rooms x %d B", HISTORY_ROOM_BYTES);
    if (strcmp(conf->broker.url, "memory:") != 0)
        line(sum, "history, after a cut", times(conf->limits.rooms, HISTORY_CUT_BYTES),
             "limits.rooms x %d B", HISTORY_CUT_BYTES);
    line(sum, "history, waiting", times(conf->history.waiting, conf->broker.message_bytes),
         "history.waiting x broker.message_bytes");
    line(sum, "history, replays", times(conf->server.workers, conf->history.replay_bytes),
         "%" PRIu32 " workers x history.replay_bytes", conf->server.workers);
    line(sum, "history, reads", times(conf->history.reads, conf->history.read_bytes),
         "history.reads x history.read_bytes");
}

static void rates(struct sum *sum, const struct conf *conf)
{
    uint64_t tables =
        (conf->limits.user_rate > 0 ? 1u : 0u) + (conf->limits.room_send_rate > 0 ? 1u : 0u);
    if (tables > 0)
        line(sum, "rates of users, rooms",
             times(tables, times(conf->limits.rate_entries, RATE_ENTRY_BYTES)),
             "%" PRIu64 " tables x limits.rate_entries x %d B", tables, RATE_ENTRY_BYTES);
}

static void samples(struct sum *sum, const struct conf *conf)
{
    if (conf->limits.room_rate > 0)
        line(sum, "room rates", times(conf->limits.rooms, SAMPLE_BYTES), "limits.rooms x %d B",
             SAMPLE_BYTES);
}

static void merges(struct sum *sum, const struct conf *conf)
{
    uint64_t workers = conf->server.workers;
    uint64_t window = longest_data(conf) + FRAME_OVERHEAD_BYTES + MERGE_BYTES;
    bool merged = false;
    for (uint32_t i = 0; i < conf->type_count; i++)
        merged |= conf->types[i].merge_kind != MERGE_NONE;
    if (!merged)
        return;
    line(sum, "merge windows", times(times(workers + 2, conf->limits.merges), window),
         "(%" PRIu64 " workers + up + down) x limits.merges x (largest max_bytes + %d B)", workers,
         FRAME_OVERHEAD_BYTES + MERGE_BYTES);
    line(sum, "sends that wait",
         times(times(workers, conf->limits.merge_waiting), MERGE_WAITING_BYTES),
         "%" PRIu64 " workers x limits.merge_waiting x %d B", workers, MERGE_WAITING_BYTES);
}

static void broker(struct sum *sum, const struct conf *conf)
{
    struct broker_url url = {.scheme = BROKER_SCHEME_MEMORY};
    const char *why;
    (void)broker_url_parse(conf->broker.url, &url, &why);
    if (url.scheme == BROKER_SCHEME_MEMORY) {
        line(sum, "broker",
             times(conf->broker.pending, conf->broker.message_bytes + FRAME_OVERHEAD_BYTES),
             "broker.pending x broker.message_bytes");
        if (conf->history_types > 0)
            line(sum, "history", conf->history.memory, "history.memory");
        return;
    }
    line(sum, "broker output", times(BROKER_CONNECTIONS, conf->broker.output_bytes),
         "%d connections x broker.output_bytes", BROKER_CONNECTIONS);
    line(sum, "broker input", times(BROKER_CONNECTIONS, conf->broker.message_bytes),
         "%d connections x broker.message_bytes", BROKER_CONNECTIONS);
    line(sum, "events", times(conf->events.pending, EVENT_BYTES), "events.pending x %d B",
         EVENT_BYTES);
    line(sum, "broker questions",
         conf->broker.output_bytes + times(conf->broker.pending, PENDING_BYTES),
         "broker.output_bytes (scripts' arguments) + broker.pending x %d B", PENDING_BYTES);
}

void conf_print_memory(const struct conf *conf, uint32_t connections, struct buf *out)
{
    struct sum sum = {.out = out};
    BUF_LIT(out, "worst-case memory, if every bound were reached at once:\n");
    viewers(&sum, conf, connections);
    tickets(&sum, conf, connections);
    rooms(&sum, conf);
    rates(&sum, conf);
    history(&sum, conf);
    merges(&sum, conf);
    samples(&sum, conf);
    broker(&sum, conf);
    if (conf->admin.listen[0] != '\0')
        line(&sum, "admin requests",
             times(conf->limits.admin_requests, conf->broker.message_bytes + REQUEST_BYTES),
             "limits.admin_requests x (broker.message_bytes + %d B)", REQUEST_BYTES);
    buf_printf(out, "%-22s ", "sum");
    print_bytes(out, sum.total);
    BUF_LIT(out, "  without the kernel's socket buffers (net.ipv4.tcp_mem bounds those)\n");
}

void conf_print_drain(const struct conf *conf, uint32_t connections, struct buf *out)
{
    uint64_t rate = conf->drain.rate;
    uint64_t closing_ms = ((uint64_t)connections * 1000 + rate - 1) / rate;
    uint32_t timeout_ms = conf->drain.timeout_ms;
    uint64_t left_ms = timeout_ms > conf->drain.notice_ms ? timeout_ms - conf->drain.notice_ms : 0;
    BUF_LIT(out, "drain: ");
    units_print_duration(out, conf->drain.notice_ms);
    buf_printf(out,
               " of notice, then %" PRIu32 " viewers at %" PRIu64 " a second take %" PRIu64
               " s; drain.timeout = ",
               connections, rate, (closing_ms + 999) / 1000);
    units_print_duration(out, timeout_ms);
    if (closing_ms <= left_ms)
        BUF_LIT(out, " is long enough\n");
    else
        buf_printf(out,
                   " is too short: with more than %" PRIu64 " viewers the last ones are closed all "
                   "at once; raise drain.timeout or drain.rate\n",
                   left_ms * rate / 1000);
}
