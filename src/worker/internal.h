/* internal.h: what the files of the worker share.
 *
 *      listener.c  accepts, judges admission      turnaway.c refusals before there is a viewer
 *      welcome.c   handshake -> protocol, query
 *      viewer.c    states, the one close path     read.c     bytes in: head, frames, control frames
 *      intents.c   what viewers want              timers.c   heartbeat, deadlines
 *      tickets.c   who may come, what it may do
 *      room.c      rooms, members                 outbox.c   what only one viewer gets (control lane)
 *      sweep.c     who is served when             flush.c    what one viewer gets in a write
 *      write.c     bytes out, little of them unsent in the kernel
 *      narrow.c    and little of them on their way, where the link is thin
 *      users.c     all connections of one user
 *      pulse.c     intervals that networks allow  segment.c  TCP segments that frames are to fit
 *      events.c    what backends want to hear of viewers
 *      tide.c      numbers of rooms with history    resume.c  viewers that come back
 *      replay.c    what they missed               place.c    where in a lane they go on
 *      query.c     operators' questions           loop.c     handles, mailboxes, turns
 *      counts.c    who is online
 *      drain.c     sending viewers away
 *
 * Threads:   the worker's thread (checked at the entries).
 */
#pragma once

#include "auth/grant.h"
#include "base/bucket.h"
#include "base/check.h"
#include "base/map.h"
#include "base/minmax.h"
#include "base/network.h"
#include "base/peers.h"
#include "base/ring.h"
#include "base/wheel.h"
#include "halley/heartbeat.h"
#include "halley/lanes.h"
#include "halley/networks.h"
#include "policy/kicks.h"
#include "policy/merge.h"
#include "policy/narrow.h"
#include "protocol/adapter.h"
#include "worker/worker.h"
#include "ws/codec.h"
#include "ws/head.h"

#include <uv.h>

enum {
    TICK_MS = 100,         /* viewers' wheel, loop lag */
    RECEIVE_BYTES = 65536, /* one buffer per worker */
    READ_ROUNDS = 4,       /* reads of one viewer per event, then the others */
    EVENTS_PER_TURN = 512,
    ACCEPTS_PER_TURN = 128,
    CHOKE_MS = 20, /* a lane's messages wait so long at most for the sweep of one hot room */
    CLOSE_LINGER_MS = 3000, /* for the peer's close and FIN */
    VIEWER_UNANSWERED_MAX = UINT16_MAX,
    CONNECT_WAIT_MS = 45000,    /* Socket.IO 3+: CONNECT after the open packet */
    ACCEPT_PAUSE_MS = 100,      /* at the file limit */
    PONGS_AT_ONCE_BYTES = 4096, /* answered one by one; past it only the newest ping is */
    REFUSAL_RESERVE = 64,       /* connections past the limit that still get a written 503 */
    CONNECTION_ID_LEN = 20
};

enum viewer_state {
    VIEWER_HANDSHAKE, /* waits for a request head */
    VIEWER_CHECKING,  /* the head came; what was asked about its ticket is awaited */
    VIEWER_WAITING,   /* upgraded; Socket.IO 3+: waits for CONNECT */
    VIEWER_OPEN,
    VIEWER_CLOSING, /* a last answer or close frame is on its way out, or the peer's FIN awaited */
    VIEWER_DEAD     /* freed at the end of the turn */
};

/* Things that few viewers have at any time: allocated on demand, given back when empty. */
struct extras {
    struct buf head; /* VIEWER_HANDSHAKE: the part of a request head that came */
    struct buf rest; /* of a frame that was cut: goes first, before everything */
    size_t rest_sent;
    struct buf queue;  /* private queue: replies, notices, pings and pongs, close frame */
    size_t queue_sent; /* a frame begins there, unless it is an answer over HTTP */
    uint32_t queue_frames;
    uint32_t pong_at;  /* where in the queue the newest unsent pong stands */
    uint32_t pong_len; /* 0: there is none */
    struct buf rooms;  /* VIEWER_WAITING: query rooms, each with a length byte before it */
    char session[ROOM_NAME_MAX + 1]; /* VIEWER_WAITING for its ticket: of the query; or empty */
    struct inquiry *inquiry;         /* what waits for an answer about a ticket; tickets.h */
    const struct refusal *refused;   /* VIEWER_WAITING: how its CONNECT is answered; NULL: kindly */
    struct resume *resumes;          /* rooms into which it is on its way back; resume.h */
    size_t counted;                  /* bytes counted in memory_queues */
};

/* On what terms a viewer is here, and what became of them: most idle viewers of an open gateway have none. Made when first needed, goes with
 * the viewer. */
struct terms {
    struct peer *peer;          /* its address; NULL where addresses have no bound of connections */
    struct grant *grant;        /* what its ticket allows; NULL: everything (auth.mode = open) */
    struct rates *rates;        /* of types with a rate; NULL until one is sent */
    uint32_t expires_s;         /* its ticket, Unix time; 0: never */
    struct bucket bad_rate;     /* limits.bad_messages */
    struct bucket refused_rate; /* limits.refused_messages */
    uint32_t skipped;           /* messages that it lost by lagging */
    struct narrow_flow
        *flow; /* what arrives while its writes wait; NULL until they were looked at */
};

struct viewer {
    int fd;
    uint8_t state : 3;    /* enum viewer_state; written by viewer_set_state() alone */
    bool listed : 1;      /* the node knows of it: user's connections, sessions */
    uint8_t protocol : 3; /* index of its adapter; 0: none (not upgraded yet, or echo) */
    bool echo : 1;
    bool blocked : 1;     /* the socket takes no more: on the blocked list until it is writable */
    bool paused : 1;      /* not read while its own answers wait */
    bool passive : 1;     /* control and high lanes only */
    bool hang_up : 1;     /* closing: close as soon as everything is written */
    bool shut : 1;        /* closing: our side is shut down, waiting for the peer */
    bool whole : 1;       /* on worker->dirty, and more than `marked` is to be looked at */
    bool has_session : 1; /* behind the user's name */
    bool narrowed : 1;    /* its send buffer is held short */
    uint16_t member_count;
    struct link link;  /* on worker->dirty or ->blocked, or on nothing */
    struct link timer; /* on worker->wheel */
    struct codec *codec;
    struct extras *extras;
    struct member *members;
    struct member *marked; /* on worker->dirty: its room has something for the viewer; or NULL */
    char *user; /* NULL: guest-<connection>; behind its NUL the session, where there is one */
    struct terms *terms; /* NULL: none */
    struct map_node user_node;
    uint64_t id : 48;
    uint64_t unanswered : 16; /* sends on their way through the broker that await their ack */
    uint32_t slot;
    uint32_t opened_ms;
    uint32_t due_ms; /* of the timer */
    uint32_t written_ms;
    struct halley_heartbeat beat;
    uint16_t segment; /* bytes of a TCP segment to it, as known now; 0: not yet */
    uint16_t base_ms; /* least round trip to it, looked at while its writes wait; 0: not yet */
    struct halley_pulse pulse;
    struct bucket message_rate;
    struct bucket join_rate;
    uint32_t all_cursor[HALLEY_LANES];
};

/* One viewer in one room. While the room waits for its subscription, the cursors' place holds the join's ref. */
struct member {
    struct viewer *viewer;
    struct room *room;
    struct member *next; /* of the same viewer */
    uint32_t index;      /* in room->members */
    union {
        uint32_t cursor[HALLEY_LANES];
        struct {
            uint32_t ref_high;
            uint32_t ref_low;
            uint32_t ref_present;
        } waiting;
    };
};

_Static_assert(sizeof(struct viewer) <= 184,
               "a viewer's byte budget: what one chunk of malloc holds");
_Static_assert(sizeof(struct member) <= 40, "a membership's byte budget");

/* A walk over viewers that may take several turns: circular, so a new message starts it over from where it is. */
struct sweep {
    struct link link; /* on worker->urgent or ->sweeping, or on nothing */
    bool urgent;      /* which of its activity's sweeps it is */
    uint32_t at;
    uint32_t left;                  /* viewers until all is out; a new message sets it back */
    uint32_t lap;                   /* viewers until everybody came by once; nothing sets it back */
    uint32_t started[HALLEY_LANES]; /* number of the next frame when the walk last started over */
    uint32_t lapped[HALLEY_LANES];  /* … when the lap began */
    uint32_t swept[HALLEY_LANES];   /* … up to which every viewer who takes bytes was served */
};

/* What a room needs only while messages are on their way through it. The first message makes it, and it goes when everybody has
 * everything: most rooms are silent most of the time. The messages to all have one of their own, without a room. */
struct activity {
    struct room *room; /* NULL: the messages to all */
    struct halley_lanes lanes;
    struct sweep urgent; /* the high lane, for all members, before anything else */
    struct sweep rest;   /* all lanes */
    struct link timer;   /* on worker->gather until the next flush */
    struct link link;    /* on worker->active, in the end on worker->ended */
    uint32_t due_ms;     /* of the timer */
};

struct room {
    struct map_node node;
    struct activity *activity; /* NULL: nothing is on its way */
    union {
        struct member *one;   /* cap == 0 */
        struct member **list; /* else */
    } members;
    uint32_t count;
    uint32_t cap;
    uint32_t encoded[ENCODING_COUNT]; /* members per encoding */
    struct halley_lanes_rest rest;    /* while there is no activity */
    uint32_t online;                  /* on all nodes, as last told; ONLINE_UNKNOWN */
    bool live : 1;                    /* subscribed: members get messages */
    bool counted : 1;                 /* written down in worker->counts */
    bool told : 1;                    /* its members were told `online` */
    uint8_t name_len;
    char name[];
};

_Static_assert(offsetof(struct room, name) + 10 + sizeof(size_t) <= 96,
               "an idle room is to cost one allocation of 96 bytes");

enum { ONLINE_UNKNOWN = UINT32_MAX };

/* How viewers are being sent away: a walk over the slots, at the pace of the node. */
struct farewell {
    bool active;
    bool shed;  /* a share only */
    bool hurry; /* the time is up: all at once */
    bool last;  /* after it: until no connection is left */
    bool told;
    struct drain_order order;
    uint32_t at;     /* slot where the walk stands */
    uint32_t wanted; /* shed: viewers that are yet to be chosen … */
    uint32_t unseen; /* … among so many that the walk has not come by */
};

struct worker {
    struct worker_setup setup;
    struct conf *conf;
    struct halley_lane_policy policies[HALLEY_LANES];
    struct worker_metrics metrics;
    _Atomic uint64_t ticks;
    uint32_t now_ms;   /* modulo 2^32 */
    uint32_t now_tick; /* of TICK_MS, modulo 2^32 */
    uint64_t ticked_us;
    uint64_t random;

    uv_thread_t thread; /* the main thread's */
    pthread_t self;     /* set by the thread itself */
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t turn;
    uv_idle_t busy;
    uv_timer_t tick;
    uv_timer_t gather_timer;
    uv_poll_t viewers_poll;
    uv_poll_t *listeners;
    uv_timer_t accept_pause;
    uv_timer_t farewell_timer;
    struct farewell farewell;
    bool accepting;
    bool ramp_token;  /* taken for a connection that is yet to come */
    bool draining;    /* /healthz says 503 */
    bool refusing;    /* handshakes are answered 503 */
    bool handed_over; /* another process accepts */
    int epoll_fd;
    int spare_fd;
    struct peers peers;
    struct halley_networks *networks;
    struct halley_networks_policy networks_policy;
    struct network trusted[CONF_LISTEN_MAX]; /* limits.trusted, parsed */
    uint32_t trusted_count;
    struct parting *partings; /* a ring of worker_setup.partings: turnaway.c */
    uint32_t parting_first;
    uint32_t parting_count;

    struct mailbox mailbox;
    struct ring_queue lanes[LANE_COUNT];

    struct viewer **slots;
    uint32_t slot_cap;
    uint32_t free_slot; /* head of the free list kept in the slots themselves; INT32_MAX: none */
    uint32_t viewer_count;
    uint32_t peak_viewers; /* since memory was last given back */
    uint64_t terms_bytes;  /* of all viewers' terms, rates and flows */
    uint32_t sndbuf_most; /* to which the kernel cut a send buffer under this conf; 0: to nothing */
    struct grants grants;
    uint64_t inquiries; /* made so far: the number of the last one */
    struct link asking; /* those that wait for an answer, the oldest first */
    struct kicks kicks; /* users kicked meanwhile */
    uint64_t next_id;
    uint64_t
        promised_id; /* viewers up to this one came under an earlier conf, whose timeout they keep: */
    uint32_t promised_timeout_ms; /* the longest timeout that any of them was told */
    struct map users;
    struct buf found; /* of users_find() */
    struct link dirty;
    struct link blocked;
    struct link graveyard;
    struct wheel wheel;

    struct merger merges; /* sends of merged types on their way to the main thread */
    uv_timer_t merge_timer;
    uint32_t merge_waiting; /* sends whose fate a viewer waits for */

    struct map rooms;
    struct link active;          /* activities of rooms */
    struct link ended;           /* activities of dead rooms, and … */
    struct map_node *dead_rooms; /* … these themselves are freed at the end of the turn */
    struct map tides;
    struct link resumes; /* not answered yet */
    struct link ripe;    /* … of them those to be looked at in this turn */
    struct link replays; /* the oldest first */
    size_t replay_bytes;
    struct link urgent;
    struct link sweeping;
    struct wheel gather;
    uint64_t log_bytes;
    struct sweep
        *choking[HALLEY_LANES]; /* the sweep that must end before more of this lane is appended */
    uint32_t choked_ms[HALLEY_LANES];
    struct activity all; /* messages to all */
    uint32_t open_encoded[ENCODING_COUNT];

    struct codec_pool *codecs;
    struct adapter_limits adapter_limits;
    char *receive;
    struct buf scratch[ENCODING_COUNT]; /* frames under construction */
    struct buf counts; /* rooms whose count changed since the last tick: counts.c */
    struct buf online; /* counts for the pong in hand */
    struct buf reply;  /* what the viewer in hand is told, before it is sent in one write */
    struct viewer *in_hand;
    uint32_t expired_ms; /* last sweep for old frames */
};

/* At the entries of what only the worker's own thread may do. */
static inline void require_own_thread(const struct worker *worker)
{
    REQUIRE(pthread_equal(pthread_self(), worker->self));
}

/* The viewer's protocol; NULL before the upgrade and for echo. */
static inline const struct adapter *viewer_adapter(const struct viewer *viewer)
{
    static const struct adapter *const adapters[] = {NULL, &adapter_native, &adapter_engineio3,
                                                     &adapter_engineio4};
    return adapters[viewer->protocol];
}

/* Number of the next frame in each lane. */
static inline const uint32_t *room_next(const struct room *room)
{
    return room->activity ? room->activity->lanes.next : room->rest.next;
}

static inline struct member *room_at(const struct room *room, uint32_t index)
{
    return room->cap ? room->members.list[index] : room->members.one;
}

/* The viewer's terms; where it has none, some that grant everything. */
static inline const struct terms *viewer_terms(const struct viewer *viewer)
{
    static const struct terms none;
    return viewer->terms ? viewer->terms : &none;
}

/* viewer.c */
struct terms *terms_of(struct worker *worker, struct viewer *viewer); /* NULL: out of memory */
/* peer: what the connection is counted in, or NULL; the viewer gives it back. */
struct viewer *viewer_create(struct worker *worker, int fd, struct peer *peer);
void viewer_set_state(struct worker *worker, struct viewer *viewer, enum viewer_state state);
/* The one way out: counts, logs, leaves all rooms, sends the close frame that belongs to the reason. */
void viewer_close(struct worker *worker, struct viewer *viewer, enum close_reason reason);
/* As viewer_close(), for what is not a WebSocket (yet) or has its last words in the queue already: writes them, then closes. */
void viewer_finish(struct worker *worker, struct viewer *viewer, enum close_reason reason);
/* Closes without a word: for a stream that broke inside a frame, where a close frame would be read as its data. */
void viewer_abort(struct worker *worker, struct viewer *viewer, enum close_reason reason);
void viewer_destroy(struct worker *worker, struct viewer *viewer);
void viewer_bury(struct worker *worker); /* frees dead viewers and rooms at the end of the turn */
/* The first step of every close: nothing more is sent to or for the viewer but its last bytes. */
void viewer_begin_closing(struct worker *worker, struct viewer *viewer, enum close_reason reason);
void viewer_rearm(struct worker *worker,
                  struct viewer *viewer); /* have epoll tell again what is ready */
void viewer_set_adapter(struct viewer *viewer, const struct adapter *adapter);
struct viewer *viewer_find(struct worker *worker, uint32_t slot, uint64_t id);
/* It is upgraded and waits for its CONNECT: a kick finds it, if its user is known. */
int viewer_awaits_connect(struct worker *worker, struct viewer *viewer);
int viewer_opened(struct worker *worker,
                  struct viewer *viewer); /* gets messages from now on; indexes the user */
void viewer_connection_id(const struct worker *worker, const struct viewer *viewer,
                          char out[CONNECTION_ID_LEN + 1]);
struct bytes viewer_user(const struct worker *worker, const struct viewer *viewer,
                         char out[USER_NAME_MAX + 1]);
/* Sets who it is, in place of who it was (auth.mode was reloaded before its CONNECT); session may be empty. Returns false when memory is out. A
 * guest's session is nobody's and not kept. */
bool viewer_set_user(struct worker *worker, struct viewer *viewer, const char *user,
                     const char *session);
const char *viewer_session(const struct viewer *viewer); /* empty: none */
void viewer_peer(const struct viewer *viewer, char *out, size_t cap);

/* read.c */
void viewer_on_event(struct worker *worker, struct viewer *viewer, uint32_t events);
void viewer_feed(struct worker *worker, struct viewer *viewer, struct bytes bytes_in);

/* timers.c */
void viewer_on_timer(struct worker *worker, struct viewer *viewer);
void viewer_set_timer(struct worker *worker, struct viewer *viewer, uint32_t in_ms);

/* pulse.c */
void pulse_take_conf(struct worker *worker, const struct conf *earlier); /* NULL: the first one */
/* The viewer's protocol and user are set; session: may be empty. Before its opening frames. */
void pulse_begin(struct worker *worker, struct viewer *viewer, struct bytes session,
                 enum halley_hint hint, bool brief);
void pulse_end(struct worker *worker, struct viewer *viewer);
void pulse_heard(struct worker *worker, struct viewer *viewer);  /* before the beat is told */
void pulse_pinged(struct worker *worker, struct viewer *viewer); /* the first since it was heard */
/* Looks whether an Engine.IO viewer is overdue as long as a native one is when it is asked; returns ms until the next look. */
uint32_t pulse_watch(struct worker *worker, struct viewer *viewer,
                     const struct halley_heartbeat_policy *beat);
void pulse_cut(struct worker *worker, struct viewer *viewer); /* its connection was reset */
/* What a native viewer is to go by from now on. */
uint32_t pulse_next(struct worker *worker, struct viewer *viewer);
void pulse_tick(struct worker *worker);

/* segment.c */
enum { LONG_HEAD_BYTES = 4 }; /* head of a frame of 126 to 65,535 bytes (RFC 6455 §5.2) */
void segment_begin(struct worker *worker, struct viewer *viewer);
void segment_end(struct worker *worker, struct viewer *viewer);
/* Asks the kernel again: the first answer is capped by half the window that the peer's SYN announced. Returns whether it has changed. */
bool segment_changed(struct worker *worker, struct viewer *viewer);
/* The longest message that goes to the viewer in one TCP segment with its frame head; 0: not known. */
uint32_t segment_frame_bytes(const struct viewer *viewer);

/* welcome.c, see also welcome.h */
void welcome(struct worker *worker, struct viewer *viewer, const struct head *head);
void welcome_refuse(struct worker *worker, struct viewer *viewer, enum handshake_result result,
                    const char *code, const char *message);
/* To who has not even asked yet: the node stops. */
void welcome_refuse_draining(struct worker *worker, struct viewer *viewer);
void welcome_opening(const struct worker *worker, const struct viewer *viewer,
                     struct opening *opening, char *connection, char *user);

/* intents.c */
int intents_on_message(void *ctx, enum ws_opcode opcode, struct bytes payload);
void intents_join_query(struct worker *worker, struct viewer *viewer, struct bytes room);
void intents_connected(struct worker *worker, struct viewer *viewer);
void intents_published(struct worker *worker, const struct command *command);

/* merge.c */
struct send {
    struct viewer *viewer;
    const struct intent *intent;
    const struct conf_type *type;
    uint64_t amount; /* MERGE_SUM: what it adds */
};
void merge_init(struct worker *worker);
/* Takes a send of a merged type. Returns false when a bound is reached or memory is out. */
bool merge_send(struct worker *worker, const struct send *send);
void merge_settled(struct worker *worker, const struct command *command);
void merge_post_all(struct worker *worker); /* before the worker stops */
void merge_fini(struct worker *worker);

/* outbox.c: between reply_begin and reply_end, answers to one viewer gather in worker->reply. */
struct buf *reply_begin(struct worker *worker, struct viewer *viewer);
void reply_end(struct worker *worker, struct viewer *viewer);
void reply_send(struct worker *worker, struct viewer *viewer, const struct reply *reply);
void reply_notice(struct worker *worker, struct viewer *viewer, const struct notice *notice);
struct extras *extras_of(struct worker *worker, struct viewer *viewer); /* NULL: out of memory */
void extras_settle(struct worker *worker,
                   struct viewer *viewer); /* counts; frees them when empty */
void extras_free(struct worker *worker, struct viewer *viewer);
/* Appends to the private queue. Returns false (and closes the viewer) past limits.private_bytes or without memory. */
bool outbox_append(struct worker *worker, struct viewer *viewer, struct bytes frames,
                   uint32_t count, bool bounded);
/* Queues a pong; an older one that is still unsent goes (RFC 6455 §5.5.3). */
void outbox_pong(struct worker *worker, struct viewer *viewer, struct bytes frame);
size_t outbox_pending(const struct viewer *viewer);

/* room.c */
struct room *room_find(const struct worker *worker, struct bytes name, uint32_t hash);
struct member *room_member(const struct viewer *viewer, const struct room *room);
enum join_result { JOIN_LIVE, JOIN_WAITS, JOIN_HELD, JOIN_NO_MEMORY };
enum join_result room_join(struct worker *worker, struct viewer *viewer, struct bytes name,
                           struct intent_ref ref);
/* The ref of a join that is not answered yet. Whoever has the viewer leave answers it. */
struct intent_ref room_unanswered(const struct member *member);
void room_leave(struct worker *worker, struct member *member);
void room_leave_all(struct worker *worker, struct viewer *viewer);
/* online, points: of COMMAND_ROOM_LIVE. */
void room_live(struct worker *worker, struct bytes name, uint32_t online, struct bytes points);
void room_refused(struct worker *worker, struct bytes name);
void room_deliver(struct worker *worker, const struct message *message);
void rooms_expire(struct worker *worker);

/* The room's activity, made where there is none; NULL: out of memory. */
struct activity *room_activity(struct worker *worker, struct room *room);
/* Nothing is on its way any more: what only a busy room needs goes. */
void room_settle(struct worker *worker, struct activity *activity);

/* counts.c */
void counts_touch(struct worker *worker, struct room *room); /* before its count changes */
void counts_begin(struct worker *worker, struct room *room); /* it lives: who waited counts */
void counts_flush(struct worker *worker);                    /* each tick */
void counts_fill_joined(const struct room *room, struct reply *reply);
/* `"42":1240,"43":7` for the viewer's rooms, as far as it is known; valid until the next call. */
struct bytes counts_print(struct worker *worker, const struct viewer *viewer);
/* A MESSAGE_ONLINE came. Returns whether the members are to be told. */
bool counts_take_online(struct room *room, const struct message *message);

/* flush.c */
void flush_mark(struct worker *worker,
                struct viewer *viewer); /* on the dirty list, unless blocked */
/* The same, for what one room has for the viewer: only that room is looked at, unless more is marked until then. */
void flush_mark_member(struct worker *worker, struct member *member);
/* Writes what the viewer has to get. urgent: of the other lanes only what fits a segment beside the high one. */
void flush_viewer(struct worker *worker, struct viewer *viewer, bool urgent);
void flush_marked(struct worker *worker, struct viewer *viewer); /* one of the dirty list */
void flush_writable(struct worker *worker, struct viewer *viewer);
void flush_check_blocked(struct worker *worker);

/* sweep.c */
void sweep_init(struct activity *activity); /* room and lanes are set */
/* After an append: sweep at once, or when the lane's interval has passed. */
void sweep_schedule(struct worker *worker, struct activity *activity);
void sweep_on_gather(struct worker *worker);
/* So many viewers came into the circle that sweeps walk: without them counted it would end before its first ones. */
void sweep_grew(struct activity *activity, uint32_t more);
bool sweep_is_walking(const struct activity *activity);
/* A burst: half a lane's bytes wait for viewers that could take them. They are swept at once, and the lane's mailbox rests until it
 * is done (normal and low: CHOKE_MS at most), or the log would run over viewers that are not slow at all. */
void sweep_choke(struct worker *worker, struct activity *activity, int lane);
bool sweep_is_choked(struct worker *worker, int lane);
void sweep_stop(struct worker *worker, struct activity *activity);
bool sweep_turn(struct worker *worker); /* one slice; true when more is left */

/* write.c: gives `bytes` bytes in `count` runs to the kernel, as far as it takes them with little unsent (tcp.notsent_lowat). Returns how many it
 * took, or -1 and errno; less than all means that the socket is full and epoll will tell when it is not. */
ssize_t write_runs(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                   size_t bytes);

/* What a write consists of, so that it can be cut where frames end: the rest of a frame, the viewer's private queue, then the plan's segments, the
 * first `high` bytes of them of the high lane. No frame of queue and high lane that fits a TCP segment goes in two. */
struct write_cuts {
    const struct halley_plan *plan;
    size_t rest;
    struct bytes queue;
    size_t high;
};
ssize_t write_cut(struct worker *worker, struct viewer *viewer, struct iovec *runs, int count,
                  size_t bytes, const struct write_cuts *cuts);

/* narrow.c: the send buffers of viewers whose writes wait follow what their links carry (tcp.send_delay). */
void narrow_tick(struct worker *worker);
/* The viewer was put on the blocked list, or taken from it. */
void narrow_blocked(struct worker *worker, struct viewer *viewer, bool blocked);
/* At the pace of heartbeats: who does not wait has the kernel's own buffer again. */
void narrow_rest(struct worker *worker, struct viewer *viewer);
void narrow_end(struct worker *worker, struct viewer *viewer);

/* turnaway.c */
int turn_away_init(struct worker *worker);
void turn_away_fini(struct worker *worker);
void turn_away_tick(struct worker *worker);
/* Writes the HTTP answer that belongs to the result and lets go of the socket; linger: without losing the answer, else at once. */
void turn_away(struct worker *worker, int fd, enum handshake_result result, bool linger);

/* listener.c */
int listeners_start(struct worker *worker);
void listeners_stop(struct worker *worker);
/* Answers 503 to what still waits for accept, then stops: closing a listener resets its queue. */
void listeners_finish(struct worker *worker);

/* drain.c */
void drain_obey(struct worker *worker, const struct drain_order *order);
void drain_on_timer(uv_timer_t *timer);

/* users.c */
struct found {
    uint32_t slot;
    uint64_t id;
};
/* The viewers of a user, open ones and those that wait for their CONNECT, to be looked up one by one with viewer_find() (one may close the others). Valid until the
 * next call; none where memory is out. */
const struct found *users_find(struct worker *worker, struct bytes user, size_t *count);
/* Tells the node of a viewer that has a session, or whose user's connections are bounded; and that it has gone. */
void users_enlist(struct worker *worker, struct viewer *viewer);
void users_delist(struct worker *worker, struct viewer *viewer);
void user_deliver(struct worker *worker, const struct message *message);

/* events.c: each is nothing unless the conf asks for that kind. */
void events_connect(struct worker *worker, const struct viewer *viewer);
void events_join(struct worker *worker, const struct viewer *viewer, struct bytes room);
void events_leave(struct worker *worker, const struct viewer *viewer, struct bytes room);
void events_close(struct worker *worker, const struct viewer *viewer, enum close_reason reason);

/* query.c */
void query_answer(struct worker *worker, struct worker_query *query);

/* loop.c */
void worker_tell_node(struct worker *worker, struct command *command);
void worker_take_commands(struct worker *worker);
uint32_t worker_random(struct worker *worker);
