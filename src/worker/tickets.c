#include "worker/tickets.h"

#include "auth/jwt.h"
#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOK_AGAIN_MS = 3600000 }; /* a ticket that runs out later is looked at once an hour */

static void pass_fini(struct worker *worker, struct pass *pass)
{
    grants_release(&worker->grants, pass->grant);
    buf_fini(&pass->join);
    pass->grant = NULL;
}

static void inquiry_fini(struct worker *worker, struct inquiry *inquiry)
{
    pass_fini(worker, &inquiry->pass);
    buf_fini(&inquiry->wishes.rooms);
}

/* It waits no longer. Kicks that came before the oldest one that still does concern nobody any more. */
static void stop_waiting(struct worker *worker, struct inquiry *inquiry)
{
    list_remove(&inquiry->link);
    metric_sub(&worker->metrics.tickets_waiting, 1);
    kicks_settle(&worker->kicks,
                 list_empty(&worker->asking)
                     ? UINT64_MAX
                     : CONTAINER_OF(worker->asking.next, struct inquiry, link)->first);
    metric_set(&worker->metrics.kicks, worker->kicks.users.count);
}

static void inquiry_drop(struct worker *worker, struct viewer *viewer)
{
    struct inquiry *inquiry = viewer->extras ? viewer->extras->inquiry : NULL;
    if (!inquiry)
        return;
    viewer->extras->inquiry = NULL;
    stop_waiting(worker, inquiry);
    inquiry_fini(worker, inquiry);
    free(inquiry);
}

void tickets_forget(struct worker *worker, struct viewer *viewer)
{
    inquiry_drop(worker, viewer);
    if (!viewer->terms)
        return;
    grants_release(&worker->grants, viewer->terms->grant);
    viewer->terms->grant = NULL;
    viewer->terms->expires_s = 0;
}

/* Keeps the inquiry on the viewer while the node is asked; it is moved out of the caller's. */
static struct inquiry *inquiry_keep(struct worker *worker, struct viewer *viewer,
                                    struct inquiry *inquiry)
{
    if (viewer->extras && viewer->extras->inquiry == inquiry)
        return inquiry; /* the second question of the same */
    struct inquiry *kept = malloc(sizeof(*kept));
    struct extras *extras = kept ? extras_of(worker, viewer) : NULL;
    if (!extras) {
        free(kept);
        return NULL;
    }
    *kept = *inquiry;
    kept->wishes.ticket = (struct bytes){0};
    inquiry->wishes.rooms = (struct buf){0};
    inquiry->pass = (struct pass){0};
    list_init(&kept->link);
    list_append(&worker->asking, &kept->link);
    extras->inquiry = kept;
    metric_add(&worker->metrics.tickets_waiting, 1);
    return kept;
}

/* Asks the node. Returns AUTH_OK when the answer is to be waited for. */
static enum auth_result ask(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                            struct command *command)
{
    const struct extras *extras = viewer->extras;
    bool full = metric_get(&worker->metrics.tickets_waiting) >= worker->conf->auth.pending;
    bool second = extras && extras->inquiry == inquiry;
    struct inquiry *kept =
        command && (second || !full) ? inquiry_keep(worker, viewer, inquiry) : NULL;
    if (!kept) {
        free(command);
        return full && !second ? AUTH_FULL : AUTH_NO_MEMORY;
    }
    kept->number = ++worker->inquiries;
    if (!second) {
        kept->asked_ms = worker->now_ms;
        kept->first = kept->number;
    }
    command->slot = viewer->slot;
    command->id = viewer->id;
    command->ref.value = kept->number;
    if (kept->use == TICKET_HANDSHAKE && !second)
        viewer_set_state(worker, viewer, VIEWER_CHECKING);
    uint32_t passed = worker->now_ms - kept->asked_ms;
    uint32_t left = worker->conf->auth.timeout_ms - least(passed, worker->conf->auth.timeout_ms);
    if (viewer->state == VIEWER_CHECKING ||
        (int32_t)(viewer->due_ms - worker->now_ms) > (int32_t)left)
        viewer_set_timer(worker, viewer, left);
    worker_tell_node(worker, command);
    return AUTH_OK;
}

/* Whom a single-use ticket belongs to: the session, or the address (IPv6 by its /64, as devices change the rest). */
static void binder_of(const struct viewer *viewer, const char *session, struct buf *out)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (session[0]) {
        buf_printf(out, "session:%s", session);
        return;
    }
    (void)getpeername(viewer->fd, (struct sockaddr *)&address, &len);
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)&address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&address;
    const unsigned char *bytes = (const unsigned char *)&in4->sin_addr;
    size_t count = 4;
    if (address.ss_family == AF_INET6) {
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
        bytes = in6->sin6_addr.s6_addr + (mapped ? 12 : 0);
        count = mapped ? 4 : 8;
    }
    buf_text(out, "address:");
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%02x", bytes[i]);
}

static const char *session_of(const struct viewer *viewer, const struct inquiry *inquiry)
{
    if (inquiry->pass.session[0])
        return inquiry->pass.session;
    if (inquiry->use == TICKET_HANDSHAKE)
        return inquiry->wishes.session;
    if (inquiry->use == TICKET_CONNECT && viewer->extras && viewer->extras->session[0])
        return viewer->extras->session;
    return viewer_session(viewer);
}

static enum auth_result ask_to_bind(struct worker *worker, struct viewer *viewer,
                                    struct inquiry *inquiry)
{
    struct buf binder = {0};
    binder_of(viewer, session_of(viewer, inquiry), &binder);
    struct command *command =
        binder.failed
            ? NULL
            : command_create(COMMAND_TICKET_BIND, bytes_str(inquiry->digest), buf_view(&binder));
    buf_fini(&binder);
    if (command)
        command->until_s = inquiry->pass.expires_s;
    enum auth_result result = ask(worker, viewer, inquiry, command);
    if (result == AUTH_OK)
        viewer->extras->inquiry->binding = true;
    return result;
}

/* What the viewer gets for its ticket; the names are the viewer's from now on. Returns false when memory is out. */
static bool take_pass(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry)
{
    if (inquiry->use != TICKET_REFRESH &&
        !viewer_set_user(worker, viewer, inquiry->pass.user, session_of(viewer, inquiry)))
        return false;
    struct terms *terms = terms_of(worker, viewer);
    if (!terms)
        return false;
    grants_release(&worker->grants, terms->grant);
    terms->grant = inquiry->pass.grant;
    terms->expires_s = inquiry->pass.expires_s;
    inquiry->pass.grant = NULL;
    return true;
}

static bool has_room(const struct buf *rooms, struct bytes room)
{
    struct bytes list = buf_view(rooms);
    struct bytes name;
    while (auth_names_next(&list, &name)) {
        if (bytes_equal(name, room))
            return true;
    }
    return false;
}

static void add_rooms(struct buf *rooms, const struct buf *more)
{
    struct bytes list = buf_view(more);
    struct bytes name;
    while (auth_names_next(&list, &name)) {
        if (!has_room(rooms, name))
            buf_append(rooms, name.data - 1, name.len + 1);
    }
}

static void log_refusal(const struct viewer *viewer, const struct inquiry *inquiry,
                        enum auth_result result)
{
    static const char *const uses[] = {"handshake", "connect", "refresh"};
    char peer[64];
    if (!log_enabled(LOG_LEVEL_INFO))
        return;
    viewer_peer(viewer, peer, sizeof(peer));
    log_limited(LOG_LEVEL_INFO, "ticket refused", LOG_STR("reason", auth_result_label(result)),
                LOG_STR("why", auth_result_text(result)), LOG_STR("at", uses[inquiry->use]),
                LOG_STR("peer", peer));
}

static void end_handshake(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                          enum auth_result result)
{
    if (result != AUTH_OK) {
        welcome_refuse_ticket(worker, viewer, &inquiry->wishes, result);
        return;
    }
    add_rooms(&inquiry->wishes.rooms, &inquiry->pass.join);
    if (inquiry->wishes.rooms.failed || !take_pass(worker, viewer, inquiry))
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    else
        welcome_upgrade(worker, viewer, &inquiry->wishes);
}

static void end_connect(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                        enum auth_result result)
{
    if (result == AUTH_AWAY || result == AUTH_FULL || result == AUTH_NO_MEMORY) {
        viewer_close(worker, viewer, CLOSE_TRY_LATER); /* without a `44`, so that it comes back */
        return;
    }
    if (result != AUTH_OK) {
        welcome_refuse_ticket_connect(worker, viewer, result);
        return;
    }
    struct extras *extras = extras_of(worker, viewer);
    if (extras)
        add_rooms(&extras->rooms, &inquiry->pass.join);
    if (!extras || extras->rooms.failed || !take_pass(worker, viewer, inquiry)) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
    } else {
        extras->session[0] = '\0';
        intents_connected(worker, viewer);
    }
}

/* Rooms that the new ticket does not allow are left, and the viewer is told of each: in answer to a join that still waits, where there is one. */
static void leave_forbidden_rooms(struct worker *worker, struct viewer *viewer)
{
    struct member *next;
    for (struct member *member = viewer->members; member; member = next) {
        next = member->next;
        struct bytes room = bytes_of(member->room->name, member->room->name_len);
        if (grant_allows_room(viewer_terms(viewer)->grant, room))
            continue;
        struct reply reply = {.kind = REPLY_ERROR,
                              .ref = room_unanswered(member),
                              .room = room,
                              .error_code = ERROR_FORBIDDEN,
                              .text = "the new ticket does not allow this room: left"};
        reply_send(worker, viewer, &reply);
        room_leave(worker, member);
    }
}

static void end_refresh(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                        enum auth_result result)
{
    struct reply reply = {.kind = REPLY_ACK, .ref = inquiry->ref};
    if (result == AUTH_OK && take_pass(worker, viewer, inquiry)) {
        reply_send(worker, viewer, &reply);
        leave_forbidden_rooms(worker, viewer);
        uint32_t next = tickets_check(worker, viewer);
        if (next > 0 &&
            (int32_t)(viewer->due_ms - worker->now_ms) > (int32_t)least(next, INT32_MAX))
            viewer_set_timer(worker, viewer, next);
        return;
    }
    bool later = result == AUTH_AWAY || result == AUTH_FULL || result == AUTH_NO_MEMORY;
    reply.kind = REPLY_ERROR;
    reply.error_code = later ? ERROR_UNAVAILABLE : ERROR_FORBIDDEN;
    reply.text = later ? "tickets can't be checked now; the old one stands"
                       : "this ticket is not valid here; the old one stands";
    reply.retry_after_ms = later ? 1000 + worker_random(worker) % 2000 : 0;
    reply_send(worker, viewer, &reply);
}

/* The end of every ticket: counted, logged, carried out. What a viewer that is in hand is told goes with its other answers. */
static void settle(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                   enum auth_result result)
{
    bool begun = inquiry->use != TICKET_HANDSHAKE && worker->in_hand != viewer;
    metric_add(&worker->metrics.tickets[result], 1);
    if (result != AUTH_OK)
        log_refusal(viewer, inquiry, result);
    if (begun)
        reply_begin(worker, viewer);
    if (inquiry->use == TICKET_HANDSHAKE)
        end_handshake(worker, viewer, inquiry, result);
    else if (inquiry->use == TICKET_CONNECT)
        end_connect(worker, viewer, inquiry, result);
    else
        end_refresh(worker, viewer, inquiry, result);
    if (begun)
        reply_end(worker, viewer);
}

/* Was its user kicked while it waited? */
static enum auth_result judge_kicks(const struct worker *worker, const struct inquiry *inquiry)
{
    switch (kicks_judge(&worker->kicks, bytes_str(inquiry->pass.user), inquiry->first)) {
    case KICKS_KICKED:
        return AUTH_KICKED;
    case KICKS_UNKNOWN:
        return AUTH_FULL;
    default:
        return AUTH_OK;
    }
}

void tickets_kicked(struct worker *worker, struct bytes user)
{
    if (list_empty(&worker->asking))
        return;
    uint32_t lost = kicks_add(&worker->kicks, user, worker->inquiries, worker->conf->auth.kicks);
    if (lost > 0) {
        metric_add(&worker->metrics.kicks_forgotten, lost);
        log_limited(LOG_LEVEL_WARN, "too many users kicked while tickets wait: these get 503",
                    LOG_UINT("auth.kicks", worker->conf->auth.kicks));
    }
    metric_set(&worker->metrics.kicks, worker->kicks.users.count);
}

/* The same for one that waited: it is the viewer's no longer, whatever happens next. */
static void settle_kept(struct worker *worker, struct viewer *viewer, enum auth_result result)
{
    struct inquiry *inquiry = viewer->extras->inquiry;
    viewer->extras->inquiry = NULL;
    if (result == AUTH_OK)
        result = judge_kicks(worker, inquiry);
    stop_waiting(worker, inquiry);
    settle(worker, viewer, inquiry, result);
    inquiry_fini(worker, inquiry);
    free(inquiry);
    if (viewer->state != VIEWER_DEAD)
        extras_settle(worker, viewer);
}

/* What the claims say beside signature and times. */
static enum auth_result judge_claims(struct worker *worker, const struct viewer *viewer,
                                     const struct inquiry *inquiry,
                                     const struct auth_claims *claims, const struct grant *grant)
{
    const struct buf *rooms = NULL;
    struct bytes name;
    if (worker->conf->auth.single_use && claims->expires_s == 0)
        return AUTH_CLAIMS; /* a mark must end some time */
    if (inquiry->use == TICKET_REFRESH) {
        char user[USER_NAME_MAX + 1];
        bool same = bytes_is(viewer_user(worker, viewer, user), claims->user) &&
                    (!claims->session[0] || !viewer->has_session ||
                     strcmp(claims->session, viewer_session(viewer)) == 0);
        return same ? AUTH_OK : AUTH_OTHER_USER;
    }
    if (inquiry->use == TICKET_HANDSHAKE)
        rooms = &inquiry->wishes.rooms;
    else if (viewer->extras)
        rooms = &viewer->extras->rooms;
    struct bytes list = rooms ? buf_view(rooms) : (struct bytes){0};
    while (auth_names_next(&list, &name)) {
        if (!grant_allows_room(grant, name))
            return AUTH_ROOM;
    }
    return AUTH_OK;
}

/* Turns claims into what the viewer may get. */
static enum auth_result make_pass(struct worker *worker, const struct viewer *viewer,
                                  struct inquiry *inquiry, const struct auth_claims *claims)
{
    struct pass *pass = &inquiry->pass;
    pass->grant = grants_take(&worker->grants, claims);
    if (!pass->grant)
        return AUTH_NO_MEMORY;
    enum auth_result result = judge_claims(worker, viewer, inquiry, claims, pass->grant);
    pass->expires_s =
        claims->expires_s < UINT32_MAX ? (uint32_t)claims->expires_s : UINT32_MAX; /* until 2106 */
    memcpy(pass->user, claims->user, sizeof(pass->user));
    memcpy(pass->session, claims->session, sizeof(pass->session));
    buf_bytes(&pass->join, auth_names_of(claims, &claims->join));
    return pass->join.failed ? AUTH_NO_MEMORY : result;
}

/* The claims are known and their times are good. Settles, or asks whether the ticket may be used here. */
static enum auth_result go_on(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                              const struct auth_claims *claims, bool *waits)
{
    enum auth_result result = make_pass(worker, viewer, inquiry, claims);
    if (result == AUTH_OK && worker->conf->auth.single_use) {
        result = ask_to_bind(worker, viewer, inquiry);
        *waits = result == AUTH_OK;
    }
    return result;
}

static bool is_ticket_id(struct bytes id)
{
    static const char ours[] = "used:"; /* <prefix>:ticket:used:… are the marks */
    for (size_t i = 0; i < id.len; i++) {
        if (id.data[i] < 0x21 || id.data[i] > 0x7e)
            return false;
    }
    return id.len > 0 && id.len <= TICKET_ID_MAX &&
           !(id.len >= sizeof(ours) - 1 && memcmp(id.data, ours, sizeof(ours) - 1) == 0);
}

static enum auth_result look_up(struct worker *worker, struct viewer *viewer,
                                struct inquiry *inquiry, struct bytes ticket, bool *waits)
{
    if (!is_ticket_id(ticket))
        return AUTH_MALFORMED;
    enum auth_result result = ask(worker, viewer, inquiry,
                                  command_create(COMMAND_TICKET_FIND, (struct bytes){0}, ticket));
    *waits = result == AUTH_OK;
    return result;
}

/* A ticket comes in, decoded. Unless it waits it is settled when this returns. */
static void present(struct worker *worker, struct viewer *viewer, struct inquiry *inquiry,
                    struct bytes ticket)
{
    const struct conf *conf = worker->conf;
    struct auth_claims claims;
    enum auth_result result = AUTH_MISSING;
    bool waits = false;
    if (conf->auth.single_use)
        auth_digest(ticket, inquiry->digest);
    if (ticket.len > 0 && conf->auth.mode == AUTH_REDIS) {
        result = look_up(worker, viewer, inquiry, ticket, &waits);
    } else if (ticket.len > 0) {
        result = jwt_read(conf->auth_keys, ticket, clock_unix_ms(), conf->auth.leeway_ms, &claims);
        if (result == AUTH_OK)
            result = go_on(worker, viewer, inquiry, &claims, &waits);
    }
    if (!waits)
        settle(worker, viewer, inquiry, result);
    inquiry_fini(worker, inquiry);
}

/* The CONNECT brings the ticket. */
static void wait_for_connect(struct worker *worker, struct viewer *viewer,
                             const struct wishes *wishes)
{
    struct extras *extras = wishes->session[0] ? extras_of(worker, viewer) : NULL;
    if (wishes->session[0] && !extras) {
        viewer_close(worker, viewer, CLOSE_INTERNAL);
        return;
    }
    if (extras)
        memcpy(extras->session, wishes->session, sizeof(extras->session));
    welcome_upgrade(worker, viewer, wishes);
}

void tickets_handshake(struct worker *worker, struct viewer *viewer, struct wishes *wishes)
{
    char decoded[JWT_BYTES_MAX];
    struct bytes ticket = wishes->ticket;
    struct inquiry inquiry = {.use = TICKET_HANDSHAKE, .wishes = *wishes};
    wishes->rooms = (struct buf){0};
    if (wishes->ticket.len == 0 && wishes->adapter && wishes->adapter->connect_expected) {
        wait_for_connect(worker, viewer, &inquiry.wishes);
        inquiry_fini(worker, &inquiry);
        return;
    }
    if (wishes->encoded) {
        ssize_t len = query_decode(ticket, decoded, sizeof(decoded));
        ticket = bytes_of(decoded, len < 0 ? 0 : (size_t)len);
        if (len < 0) {
            settle(worker, viewer, &inquiry, AUTH_MALFORMED);
            inquiry_fini(worker, &inquiry);
            return;
        }
    }
    present(worker, viewer, &inquiry, ticket);
}

void tickets_connect(struct worker *worker, struct viewer *viewer, struct bytes ticket)
{
    struct inquiry inquiry = {.use = TICKET_CONNECT};
    const struct extras *extras = viewer->extras;
    if (extras && extras->inquiry)
        return; /* a second CONNECT while the first one waits */
    if (extras && extras->refused)
        welcome_refuse_connect(worker, viewer);
    else if (viewer_terms(viewer)->grant || worker->conf->auth.mode == AUTH_OPEN)
        intents_connected(worker, viewer);
    else
        present(worker, viewer, &inquiry, ticket);
}

void tickets_refresh(struct worker *worker, struct viewer *viewer, const struct intent *intent)
{
    struct inquiry inquiry = {.use = TICKET_REFRESH, .ref = intent->ref};
    if (worker->conf->auth.mode == AUTH_OPEN) { /* tickets are accepted and ignored */
        struct reply ack = {.kind = REPLY_ACK, .ref = intent->ref};
        reply_send(worker, viewer, &ack);
    } else if (viewer->extras && viewer->extras->inquiry) {
        struct reply busy = {.kind = REPLY_ERROR,
                             .ref = intent->ref,
                             .error_code = ERROR_RATE_LIMITED,
                             .text = "another refresh waits for its answer",
                             .retry_after_ms = worker->conf->auth.timeout_ms};
        reply_send(worker, viewer, &busy);
    } else {
        present(worker, viewer, &inquiry, intent->ticket);
    }
}

/* The claims of an opaque ticket came. */
static void on_found(struct worker *worker, struct viewer *viewer, struct bytes json)
{
    const struct conf *conf = worker->conf;
    struct auth_claims claims;
    bool waits = false;
    enum auth_result result = auth_claims_read(json, &claims);
    if (result == AUTH_OK)
        result = auth_claims_judge(&claims, clock_unix_ms(), conf->auth.leeway_ms);
    if (result == AUTH_OK)
        result = go_on(worker, viewer, viewer->extras->inquiry, &claims, &waits);
    if (!waits)
        settle_kept(worker, viewer, result);
}

void tickets_answered(struct worker *worker, const struct command *command)
{
    struct viewer *viewer = viewer_find(worker, command->slot, command->id);
    struct inquiry *inquiry = viewer && viewer->extras ? viewer->extras->inquiry : NULL;
    if (!inquiry || inquiry->number != command->ref.value)
        return; /* gone, or its time had run out */
    if (command->result == AUTH_OK && !inquiry->binding)
        on_found(worker, viewer, command_payload(command));
    else
        settle_kept(worker, viewer, (enum auth_result)command->result);
}

static void close_expired(struct worker *worker, struct viewer *viewer)
{
    struct notice goodbye = {.kind = NOTICE_GOODBYE,
                             .reason = "ticket-expired",
                             .retry_after_ms = 500 + worker_random(worker) % 1500};
    if (viewer->state == VIEWER_OPEN)
        reply_notice(worker, viewer, &goodbye);
    viewer_close(worker, viewer, CLOSE_TICKET_EXPIRED);
}

uint32_t tickets_left_ms(const struct worker *worker, const struct viewer *viewer)
{
    const struct conf *conf = worker->conf;
    uint32_t expires_s = viewer_terms(viewer)->expires_s;
    if (expires_s == 0 || conf->auth.mode == AUTH_OPEN)
        return UINT32_MAX;
    uint64_t now = clock_unix_ms();
    uint64_t end = expires_s * UINT64_C(1000) + conf->auth.grace_ms;
    if (now >= end)
        return 0;
    return end - now < LOOK_AGAIN_MS ? (uint32_t)(end - now) : LOOK_AGAIN_MS;
}

uint32_t tickets_check(struct worker *worker, struct viewer *viewer)
{
    const struct conf *conf = worker->conf;
    uint32_t next = UINT32_MAX;
    if (viewer->extras && viewer->extras->inquiry) {
        uint32_t passed = worker->now_ms - viewer->extras->inquiry->asked_ms;
        if (passed >= conf->auth.timeout_ms) {
            bool handshake = viewer->state == VIEWER_CHECKING;
            settle_kept(worker, viewer, AUTH_AWAY);
            return handshake || viewer->state >= VIEWER_CLOSING ? 0 : 1;
        }
        next = conf->auth.timeout_ms - passed;
    }
    uint32_t left = tickets_left_ms(worker, viewer);
    if (left > 0)
        return least(next, left);
    close_expired(worker, viewer);
    return 0;
}
