#include "bench/bench.h"
#include "bench/inner.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum kind { KIND_TEXT, KIND_NUMBER, KIND_HEADER, KIND_FLAG };

struct rule {
    const char *name;
    const char *argument;
    enum kind kind;
    size_t at;
    double low;
    double high;
    const char *help;
};

#define TEXT(name_, member_, argument_, help_)                                                     \
    {                                                                                              \
        .name = (name_), .argument = (argument_), .kind = KIND_TEXT,                               \
        .at = offsetof(struct bench_options, member_), .help = (help_)                             \
    }
#define NUMBER(name_, member_, argument_, low_, high_, help_)                                      \
    {                                                                                              \
        .name = (name_), .argument = (argument_), .kind = KIND_NUMBER,                             \
        .at = offsetof(struct bench_options, member_), .low = (low_), .high = (high_),             \
        .help = (help_)                                                                            \
    }

static const struct rule rules[] = {
    TEXT("url", url, "URL", "where viewers connect; {room} {index} {user} {ticket} are replaced"),
    TEXT("as", as, "NAME",
         "how they speak: halley (default), engineio3, engineio4, nchan, nats, mqtt, raw"),
    TEXT("hello", hello, "TEXT", "first text a viewer sends"),
    TEXT("welcome", welcome, "TEXT",
         "join only after a text that begins with this; empty: at once"),
    TEXT("join", join, "TEXT", "text that joins; {room} {index} {user} are replaced"),
    TEXT("ready", ready, "TEXT", "a viewer is ready when a text with this comes; empty: at once"),
    TEXT("subprotocol", subprotocol, "NAME", "Sec-WebSocket-Protocol"),
    TEXT("ticket-file", ticket_file, "FILE",
         "one ticket a line for {ticket}, dealt out in turn; `halley-bench tickets` makes them"),
    {.name = "header",
     .argument = "LINE",
     .kind = KIND_HEADER,
     .help = "header of the handshake, repeatable"},
    NUMBER("viewers", viewers, "N", 1, 5e6, "connections (default 100)"),
    NUMBER("processes", processes, "N", 0, BENCH_PROCESSES_MAX,
           "client processes (default: as few as the file limit allows)"),
    NUMBER("sources", sources, "N", 0, 65000, "source addresses (default: one per 20,000 viewers)"),
    TEXT("source", source, "ADDRESS",
         "first source address, IPv4; the others follow (default 127.0.0.1)"),
    NUMBER("user-length", user_length, "BYTES", 0, 64,
           "adds user=… of so many bytes to the query, 0: none (default 16)"),
    NUMBER("connect-rate", connect_rate, "N", 0, 1e6,
           "new connections a second, 0: as fast as it goes (default)"),
    NUMBER("connect-timeout", connect_timeout, "S", 0.1, 3600,
           "all viewers are ready within (default 60)"),
    TEXT("room", room, "NAME", "the room, or the first part of the rooms' names (default bench)"),
    NUMBER("rooms", rooms, "N", 1, 9999999,
           "rooms; viewers and messages are dealt out in turn (default 1)"),
    NUMBER("rooms-per-viewer", rooms_per_viewer, "N", 1, 1024,
           "rooms that each viewer joins (default 1)"),
    NUMBER("room-digits", room_digits, "N", 0, 7,
           "digits behind the rooms' names, 0: as many as needed (default)"),
    NUMBER("waves", waves, "N", 1, BENCH_WAVES_MAX,
           "all connect; then so many times less one: all drop and come back (default 1)"),
    TEXT("publish", publish, "URL",
         "redis://[user:password@]host[:port], http://[:token@]host:port, ws://host:port/path, "
         "nats://…, mqtt://…, floor, none (default)"),
    TEXT("publish-text", publish_text, "TEXT",
         "ws://: text of a message; {room} {data} are replaced (default {data})"),
    TEXT("publish-hello", publish_hello, "TEXT", "ws://: the publisher's first text"),
    TEXT("prefix", prefix, "NAME", "prefix of the Redis channels (default halley)"),
    TEXT("type", type, "NAME", "type of the messages (default chat; gift with --lane high)"),
    TEXT("lane", lane, "NAME", "normal (default) or high: which Redis channel"),
    NUMBER("high-every", high_every, "N", 0, 1e6,
           "one of so many messages of a room is high, the others normal; 0: see --lane (default)"),
    NUMBER("rate", rate, "N", 0, 1e7, "messages a second over all rooms (default 20)"),
    NUMBER("size", size, "BYTES", STAMP_SIZE_MIN, 1 << 20, "of each message's data (default 128)"),
    NUMBER("frame-bytes", frame_bytes, "BYTES", 0, 1 << 20,
           "--publish floor: size of its whole frame, 0: like Halley's (default)"),
    NUMBER("seconds", seconds, "S", 0, 86400, "measured time (default 10)"),
    NUMBER("warmup", warmup, "S", 0, 3600, "time before it (default 1)"),
    NUMBER("batch-ms", batch_ms, "MS", 0, 1000,
           "publish in batches at least so far apart (default 0)"),
    NUMBER("settle", settle, "S", 0, 3600,
           "rest between the last join and the first message (default 0.5)"),
    NUMBER("drain", drain, "S", 0, 3600, "wait so long for messages that are missing (default 3)"),
    NUMBER("stall", stall, "PERCENT", 0, 100, "viewers that stop reading for a while (default 0)"),
    NUMBER("stall-after", stall_after, "S", 0, 86400,
           "… so long after the first message (default 1)"),
    NUMBER("stall-seconds", stall_seconds, "S", 0, 86400, "… for so long (default 30)"),
    NUMBER("stall-rcvbuf", stall_rcvbuf, "BYTES", 0, 1 << 30,
           "their SO_RCVBUF, 0: the system's (default 4096)"),
    NUMBER("pid", pid, "PID", 0, 4194304,
           "the server's process, on this machine: its CPU and memory are measured"),
    NUMBER("leave-wait", leave_wait, "S", 0, 3600,
           "after all have left, wait so long for its memory to shrink (default 0)"),
    NUMBER("p99-limit", p99_limit, "MS", 0, 3.6e6,
           "exit code 1 when the readers' p99 is above, 0: no limit (default)"),
    TEXT("json", json, "FILE", "write the result there too"),
    TEXT("label", label, "TEXT", "name of the run in the report"),
    {.name = "quiet",
     .kind = KIND_FLAG,
     .at = offsetof(struct bench_options, quiet),
     .help = "no progress, no report"},
};

/* What the ways of speaking differ in. */
static const struct preset {
    const char *name;
    const char *hello;
    const char *welcome;
    const char *join;
    const char *ready;
} presets[] = {
    {"halley", "", "", "{\"op\":\"join\",\"room\":\"{room}\",\"ref\":1}", "\"op\":\"joined\""},
    {"engineio3", "", "40", "42[\"join\",\"{room}\"]", "\"op\":\"joined\""},
    {"engineio4", "40", "40", "42[\"join\",\"{room}\"]", "\"op\":\"joined\""},
    {"nchan", "", "", "", ""},
    {"nats", "", "", "", ""},
    {"mqtt", "", "", "", ""},
    {"raw", "", "", "", ""},
};

static void usage(void)
{
    printf("usage: halley-bench [run] --url ws://HOST:PORT/PATH [option]…\n"
           "       halley-bench floor --listen ADDRESS:PORT [option]…   (floor --help)\n"
           "       halley-bench follow --url URL [--url URL]… --room NAME [option]…   (follow "
           "--help)\n"
           "       halley-bench tickets HS256|RS256|ES256 [COUNT FOLDER]\n\n"
           "Opens viewers, publishes at a steady rate, and says what arrived, when, and what it "
           "cost the server.\n"
           "Exit codes: 0 all arrived in order, 1 not so, 64 usage, 69 server unreachable, 70 "
           "internal.\n\n");
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        printf("  --%s%s%-*s %s\n", rules[i].name, rules[i].argument ? " " : "",
               (int)(23 - strlen(rules[i].name)), rules[i].argument ? rules[i].argument : "",
               rules[i].help);
}

static int complain(const char *what, const char *name, const char *value)
{
    fprintf(stderr, "halley-bench: --%s%s%s: %s; see halley-bench --help\n", name, value ? " " : "",
            value ? value : "", what);
    return EXIT_USE;
}

static int set_number(const struct rule *rule, const char *value, struct bench_options *options)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    if (end == value || *end || errno || !isfinite(number) || number < rule->low ||
        number > rule->high) {
        char what[96];
        snprintf(what, sizeof(what), "a number from %.10g to %.10g is wanted", rule->low,
                 rule->high);
        return complain(what, rule->name, value);
    }
    memcpy((char *)options + rule->at, &number, sizeof(number));
    return 0;
}

static int set(const struct rule *rule, const char *value, struct bench_options *options)
{
    switch (rule->kind) {
    case KIND_TEXT:
        memcpy((char *)options + rule->at, &value, sizeof(value));
        return 0;
    case KIND_NUMBER:
        return set_number(rule, value, options);
    case KIND_HEADER:
        if (options->header_count == BENCH_HEADERS_MAX)
            return complain("at most 16 of them", rule->name, value);
        options->headers[options->header_count++] = value;
        return 0;
    case KIND_FLAG:
        *((bool *)((char *)options + rule->at)) = true;
        return 0;
    }
    return EXIT_INTERNAL;
}

static const struct rule *rule_of(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (strlen(rules[i].name) == len && memcmp(rules[i].name, name, len) == 0)
            return &rules[i];
    return NULL;
}

/* Takes `--name value`, `--name=value` or `--flag` at argv[*at]. */
static int take(int argc, char **argv, int *at, struct bench_options *options)
{
    const char *name = argv[*at];
    if (strncmp(name, "--", 2) != 0)
        return complain("options begin with --", "", name);
    name += 2;
    const char *equals = strchr(name, '=');
    const struct rule *rule = rule_of(name, equals ? (size_t)(equals - name) : strlen(name));
    if (!rule)
        return complain("no such option", name, NULL);
    const char *value = equals ? equals + 1 : NULL;
    if (!value && rule->kind != KIND_FLAG) {
        if (*at + 1 >= argc)
            return complain("a value is missing", rule->name, NULL);
        value = argv[++*at];
    }
    return set(rule, value, options);
}

static uint64_t file_limit(void)
{
    struct rlimit limit = {0};
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

static int apply_preset(struct bench_options *options)
{
    const struct inner *inner = inner_of(options->as);
    if (inner && (options->hello || options->join || options->ready))
        return complain("speaks by itself: no --hello, --join, --ready", "as", options->as);
    if (inner && !options->subprotocol)
        options->subprotocol = inner->subprotocol;
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(options->as, presets[i].name) != 0)
            continue;
        options->hello = options->hello ? options->hello : presets[i].hello;
        options->welcome = options->welcome ? options->welcome : presets[i].welcome;
        options->join = options->join ? options->join : presets[i].join;
        options->ready = options->ready ? options->ready : presets[i].ready;
        return 0;
    }
    return complain("halley, engineio3, engineio4, nchan, nats, mqtt or raw is wanted", "as",
                    options->as);
}

static int check_rooms(struct bench_options *options)
{
    if (strlen(options->room) > 64)
        return complain("at most 64 bytes", "room", options->room);
    if (fmod(options->rooms, options->rooms_per_viewer) != 0)
        return complain("a divisor of --rooms is wanted", "rooms-per-viewer", NULL);
    if (options->high_every > 0 && options->rooms > 4999999)
        return complain("at most 4999999 with --high-every", "rooms", NULL);
    return 0;
}

/* What one option says about another. */
static int check(struct bench_options *options)
{
    if (!options->url)
        return complain("is needed", "url", NULL);
    if (check_rooms(options))
        return EXIT_USE;
    if (options->ticket_file && tickets_load(options->ticket_file, &options->tickets) != 0)
        return EXIT_USE;
    if (strcmp(options->lane, "high") != 0 && strcmp(options->lane, "normal") != 0)
        return complain("normal or high is wanted", "lane", options->lane);
    if (!options->type)
        options->type = strcmp(options->lane, "high") == 0 ? "gift" : "chat";
    if (options->user_length > 0 && options->user_length < 8)
        return complain("0, or at least 8 bytes so that each viewer has a name of its own",
                        "user-length", NULL);
    double room_for = (double)file_limit() - 64;
    double needed = ceil(options->viewers / room_for);
    if (options->processes == 0)
        options->processes = needed;
    if (options->processes < needed || needed > BENCH_PROCESSES_MAX)
        return complain(
            "too few for the file limit; raise `ulimit -n` or give more processes (at most 64)",
            "processes", NULL);
    if (options->sources == 0)
        options->sources = ceil(options->viewers / 20000);
    return apply_preset(options);
}

int options_parse(int argc, char **argv, struct bench_options *out)
{
    *out = (struct bench_options){.as = "halley",
                                  .room = "bench",
                                  .publish = "none",
                                  .publish_text = "{data}",
                                  .publish_hello = "",
                                  .prefix = "halley",
                                  .lane = "normal",
                                  .source = "127.0.0.1",
                                  .label = "",
                                  .viewers = 100,
                                  .rooms = 1,
                                  .rooms_per_viewer = 1,
                                  .waves = 1,
                                  .user_length = 16,
                                  .connect_timeout = 60,
                                  .rate = 20,
                                  .size = 128,
                                  .seconds = 10,
                                  .warmup = 1,
                                  .settle = 0.5,
                                  .drain = 3,
                                  .stall_after = 1,
                                  .stall_seconds = 30,
                                  .stall_rcvbuf = 4096};
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], "--help") == 0) {
            usage();
            return -1;
        }
        int wrong = take(argc, argv, &at, out);
        if (wrong)
            return wrong;
    }
    return check(out);
}

void options_room(const struct bench_options *options, uint32_t room, char *out, size_t cap)
{
    if (options->rooms > 1)
        snprintf(out, cap, "%s.%0*u", options->room, (int)options->room_digits, room);
    else
        snprintf(out, cap, "%s", options->room);
}

enum group options_group(const struct bench_options *options, uint32_t viewer)
{
    double share = options->stall / 100;
    return floor((viewer + 1) * share) > floor(viewer * share) ? GROUP_STALLING : GROUP_READING;
}
