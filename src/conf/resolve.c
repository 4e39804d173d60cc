/* resolve.c: what no key can say alone: values that come from the machine, and what belongs
 * together. */
#include "conf/address.h"
#include "conf/load.h"
#include "conf/types.h"
#include "conf/units.h"
#include "conf/url.h"
#include "protocol/event.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Room in a lane for the frame around a message's data: room, user, id, type, names of fields. */
enum { FRAME_OVERHEAD = 512, WORKERS_MAX = 64 };

static struct load_slot slot_of(struct load *load, const char *section, const char *title,
                                const char *name)
{
    struct load_slot slot = {0};
    struct buf why = {0};
    (void)load_slot(load, conf_key_find(section, bytes_str(name)), bytes_str(title), &slot, &why);
    buf_fini(&why);
    return slot;
}

static bool is_given(const struct load_slot *slot)
{
    return *slot->origin > 0 || *slot->origin <= ORIGIN_OVERRIDE;
}

/* What a type's section leaves out follows type "*". */
static void fill_types(struct load *load)
{
    struct conf *conf = load->conf;
    size_t count;
    const struct conf_key *keys = conf_section_keys("type", &count);
    for (uint32_t i = 1; i < conf->type_count; i++) {
        for (size_t k = 0; k < count; k++) {
            if (load->type_origin[i][k] == ORIGIN_NONE)
                memcpy((char *)&conf->types[i] + keys[k].offset,
                       (char *)&conf->types[0] + keys[k].offset, keys[k].size);
        }
    }
}

static void fill_workers(struct conf *conf)
{
    cpu_set_t cores;
    if (conf->server.workers != 0)
        return;
    int count = sched_getaffinity(0, sizeof(cores), &cores) == 0
                    ? CPU_COUNT(&cores)
                    : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1)
        count = 1;
    conf->server.workers = (uint32_t)(count > WORKERS_MAX ? WORKERS_MAX : count);
}

/* `myhost-1314`. Two nodes whose port the kernel chooses must not share a name, so they take their
 * process id. */
static void fill_node(struct conf *conf)
{
    char host[256] = "";
    char suffix[32];
    struct sockaddr_storage address;
    if (conf->server.node[0] != '\0')
        return;
    (void)conf_address_parse(bytes_str(conf->server.listen.items[0]), &address);
    unsigned port = conf_address_port(&address);
    if (port)
        snprintf(suffix, sizeof(suffix), "-%u", port);
    else
        snprintf(suffix, sizeof(suffix), "-pid%ld", (long)getpid());
    if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
        snprintf(host, sizeof(host), "node");
    for (char *c = host; *c; c++) {
        if (!name_is_room(bytes_of(c, 1)))
            *c = '-';
    }
    int room = ROOM_NAME_MAX - (int)strlen(suffix);
    snprintf(conf->server.node, sizeof(conf->server.node), "%.*s%s", room, host, suffix);
}

static void check_listen_twice(struct load *load)
{
    const struct conf_list *listen = &load->conf->server.listen;
    struct load_slot slot = slot_of(load, "server", NULL, "listen");
    struct sockaddr_storage a, b;
    for (uint32_t i = 0; i < listen->count; i++) {
        (void)conf_address_parse(bytes_str(listen->items[i]), &a);
        for (uint32_t j = 0; j < i && conf_address_port(&a) != 0; j++) {
            (void)conf_address_parse(bytes_str(listen->items[j]), &b);
            if (memcmp(&a, &b, sizeof(a)) == 0) {
                struct bytes value = bytes_str(listen->items[i]);
                load_tell(load, load->errors, &slot, &value,
                          BYTES_LIT("stands in the list twice; each address once"));
            }
        }
    }
}

static void check_admin(struct load *load)
{
    const struct conf *conf = load->conf;
    struct load_slot slot = slot_of(load, "admin", NULL, "listen");
    struct sockaddr_storage address;
    if (conf->admin.listen[0] == '\0' || conf->admin.token[0] != '\0' ||
        conf_address_parse(bytes_str(conf->admin.listen), &address) != 0 ||
        conf_address_is_loopback(&address))
        return;
    load_tell(
        load, load->errors, &slot, NULL,
        BYTES_LIT("beyond loopback admin.token must be set; or listen on 127.0.0.1 or [::1]"));
}

/* The place to complain about is the last of these that somebody gave. */
static struct load_slot blamed_for_size(struct load *load, const struct conf_type *type)
{
    const char *lane = lane_name(type->lane);
    struct load_slot own = slot_of(load, "type", type->name, "max_bytes");
    struct load_slot candidates[] = {
        own, slot_of(load, "type", "*", "max_bytes"), slot_of(load, "lane", lane, "bytes"),
        slot_of(load, "type", type->name, "lane"), slot_of(load, "type", "*", "lane")};
    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        if (is_given(&candidates[i]))
            return candidates[i];
    }
    return own;
}

static void check_type_sizes(struct load *load)
{
    struct conf *conf = load->conf;
    for (uint32_t i = 0; i < conf->type_count; i++) {
        const struct conf_type *type = &conf->types[i];
        const struct conf_lane *lane = &conf->lanes[type->lane];
        struct buf why = {0};
        if ((uint64_t)type->max_bytes + FRAME_OVERHEAD <= lane->bytes)
            continue;
        struct load_slot slot = blamed_for_size(load, type);
        buf_printf(&why, "type.%s.max_bytes = ", type->name);
        units_print_size(&why, type->max_bytes);
        buf_printf(&why, " and %d bytes around it must fit lane.%s.bytes = ", FRAME_OVERHEAD,
                   lane_name(type->lane));
        units_print_size(&why, lane->bytes);
        BUF_LIT(&why, "; lower the one or raise the other");
        load_tell(load, load->errors, &slot, NULL, buf_view(&why));
        buf_fini(&why);
    }
}

static void fill_events(struct load *load)
{
    struct conf *conf = load->conf;
    struct load_slot slot = slot_of(load, "events", NULL, "kinds");
    struct broker_url url;
    const char *why;
    for (uint32_t i = 0; i < conf->events.kinds.count; i++) {
        for (int kind = 0; kind < EVENT_KINDS; kind++) {
            if (strcmp(conf->events.kinds.items[i], event_name((enum event_kind)kind)) == 0)
                conf->events.mask |= 1u << kind;
        }
    }
    if (conf->events.mask != 0 && broker_url_parse(conf->broker.url, &url, &why) == 0 &&
        url.scheme == BROKER_SCHEME_MEMORY)
        load_tell(load, load->errors, &slot, NULL,
                  BYTES_LIT("needs a Redis that keeps the stream: set broker.url = "
                            "\"redis://host:port\", or leave it empty"));
}

/* The embedded broker keeps nothing: what it took would be gone with the process. */
static void check_queues(struct load *load)
{
    struct broker_url url;
    const char *why;
    if (broker_url_parse(load->conf->broker.url, &url, &why) != 0 ||
        url.scheme != BROKER_SCHEME_MEMORY)
        return;
    for (uint32_t i = 0; i < load->conf->type_count; i++) {
        if (load->conf->types[i].route != ROUTE_QUEUE)
            continue;
        struct load_slot slot = slot_of(load, "type", load->conf->types[i].name, "route");
        if (!is_given(&slot))
            slot = slot_of(load, "type", "*", "route");
        load_tell(load, load->errors, &slot, NULL,
                  BYTES_LIT("queue needs a Redis that keeps it: set broker.url = "
                            "\"redis://host:port\", or use none or broadcast with memory:"));
        return;
    }
}

/* What is merged is no longer what was published and numbered. */
static void check_history(struct load *load)
{
    for (uint32_t i = 0; i < load->conf->type_count; i++) {
        const struct conf_type *type = &load->conf->types[i];
        if (!type->history || strcmp(type->merge, "none") == 0)
            continue;
        struct load_slot slot = slot_of(load, "type", type->name, "history");
        if (!is_given(&slot))
            slot = slot_of(load, "type", "*", "history");
        load_tell(load, load->errors, &slot, NULL,
                  BYTES_LIT("a type that is merged has no history: set merge = none or history = "
                            "no for it"));
        return;
    }
}

static void check_events(struct load *load)
{
    struct load_slot slot = slot_of(load, "socketio", NULL, "leave_event");
    struct load_slot join = slot_of(load, "socketio", NULL, "join_event");
    if (strcmp(load->conf->socketio.join_event, load->conf->socketio.leave_event) != 0)
        return;
    if (!is_given(&slot))
        slot = join;
    load_tell(load, load->errors, &slot, NULL,
              BYTES_LIT("socketio.join_event and socketio.leave_event must differ"));
}

static void check_auth(struct load *load)
{
    const struct conf *conf = load->conf;
    struct load_slot slot = slot_of(load, "auth", NULL, "mode");
    if (conf->auth.mode == AUTH_JWT && conf->ticket_key_count == 0)
        load_tell(
            load, load->errors, &slot, NULL,
            BYTES_LIT("needs a key that tickets are checked with: key main { secret = … }, or "
                      "alg = ES256 (RS256) and file = …"));
    if (conf->auth.mode == AUTH_REDIS && strcmp(conf->broker.url, "memory:") == 0)
        load_tell(load, load->errors, &slot, NULL,
                  BYTES_LIT("tickets stand in Redis, but broker.url is memory:; set broker.url to "
                            "redis://…, or auth.mode to jwt or open"));
}

static void warn_open(struct load *load)
{
    const struct conf_list *listen = &load->conf->server.listen;
    struct load_slot slot = slot_of(load, "auth", NULL, "mode");
    for (uint32_t i = 0; i < listen->count && load->conf->auth.mode == AUTH_OPEN; i++) {
        struct sockaddr_storage address;
        struct buf why = {0};
        if (conf_address_parse(bytes_str(listen->items[i]), &address) != 0 ||
            conf_address_is_loopback(&address))
            continue;
        buf_printf(&why,
                   "whoever reaches %s is let in, under any user name; for tests only, or behind "
                   "something that checks users",
                   listen->items[i]);
        load_tell(load, load->warnings, &slot, NULL, buf_view(&why));
        buf_fini(&why);
        return;
    }
}

static void warn_times(struct load *load)
{
    const struct conf *conf = load->conf;
    struct load_slot slot = slot_of(load, "tcp", NULL, "user_timeout");
    if (conf->tcp.user_timeout_ms == 0 || conf->tcp.user_timeout_ms > conf->heartbeat.timeout_ms)
        return;
    struct buf why = {0};
    BUF_LIT(&why, "should be longer than heartbeat.timeout = ");
    units_print_duration(&why, conf->heartbeat.timeout_ms);
    BUF_LIT(&why, ": it also ends viewers that live and merely stall, before the heartbeat judges");
    load_tell(load, load->warnings, &slot, NULL, buf_view(&why));
    buf_fini(&why);
}

/* What is learned of a network is right only where its viewers come back to the worker that missed them. */
static void warn_adaptive(struct load *load)
{
    const struct conf *conf = load->conf;
    struct load_slot adaptive = slot_of(load, "heartbeat", NULL, "adaptive");
    struct load_slot max = slot_of(load, "heartbeat", NULL, "max");
    if (!conf->heartbeat.adaptive)
        return;
    if (is_given(&adaptive) && conf->server.workers > 1 && conf->server.accept == ACCEPT_SPREAD)
        load_tell(load, load->warnings, &adaptive, NULL,
                  BYTES_LIT("has no effect with several workers unless server.accept = ip-hash: a "
                            "viewer comes back to any worker"));
    if (is_given(&max) && conf->heartbeat.max_ms <= conf->heartbeat.interval_ms)
        load_tell(load, load->warnings, &max, NULL,
                  BYTES_LIT("has no effect: it is not above heartbeat.interval"));
}

static void warn_drain(struct load *load)
{
    const struct conf *conf = load->conf;
    struct load_slot slot = slot_of(load, "drain", NULL, "notice");
    struct buf why = {0};
    if (conf->drain.notice_ms == 0 || conf->drain.notice_ms < conf->drain.timeout_ms)
        return;
    BUF_LIT(&why, "leaves no time to close viewers before drain.timeout = ");
    units_print_duration(&why, conf->drain.timeout_ms);
    BUF_LIT(&why, ": all would be closed at once; raise drain.timeout");
    load_tell(load, load->warnings, &slot, NULL, buf_view(&why));
    buf_fini(&why);
}

/* The default name has host and port, which two that share a port have in common. */
static void warn_shared_name(struct load *load)
{
    struct load_slot slot = slot_of(load, "server", NULL, "node");
    if (load->conf->server.share_port && !is_given(&slot))
        load_tell(load, load->warnings, &slot, NULL,
                  BYTES_LIT("is not set: with server.share_port = yes give each process a name of "
                            "its own"));
}

static void warn_sizes(struct load *load)
{
    struct conf *conf = load->conf;
    for (uint32_t i = 0; i < conf->type_count; i++) {
        struct buf why = {0};
        if (conf->types[i].max_bytes <= conf->broker.message_bytes)
            continue;
        struct load_slot slot = slot_of(load, "type", conf->types[i].name, "max_bytes");
        BUF_LIT(&why, "has no effect past broker.message_bytes = ");
        units_print_size(&why, conf->broker.message_bytes);
        BUF_LIT(&why, ": longer messages are dropped before their type is known");
        load_tell(load, load->warnings, &slot, NULL, buf_view(&why));
        buf_fini(&why);
    }
}

void load_resolve(struct load *load)
{
    fill_types(load);
    check_listen_twice(load);
    check_admin(load);
    check_type_sizes(load);
    check_events(load);
    check_queues(load);
    fill_events(load);
    check_history(load);
    check_auth(load);
    load_ticket_keys(load);
    if (load->errors->len > load->errors_start)
        return;
    fill_workers(load->conf);
    warn_shared_name(load);
    fill_node(load->conf);
    types_index(load->conf);
    warn_open(load);
    warn_times(load);
    warn_adaptive(load);
    warn_drain(load);
    warn_sizes(load);
}
