#include "ws/codec.h"

#include "base/check.h"

#include <stdlib.h>
#include <wslay/wslay.h>

enum {
    PROTOCOL_ERROR = 1002,
    NOT_UTF8 = 1007,
    TOO_BIG = 1009,
    OUT_OF_MEMORY = 1011,
    TRY_LATER = 1013,
    CLOSE_CODE_SHOWN = 1011, /* what wslay is shown in place of newer close codes */
    CONTROL_HEAD = 6,        /* of a masked control frame */
    CONTEXT_BYTES = 9000,    /* of a wslay event context with its queues, as malloc counts it */
    MESSAGE_KEPT_MAX = 4096, /* buffer that an idle context keeps for its next message */
    MESSAGE_START = 256
};

struct context {
    struct context *next; /* on the pool's idle list */
    wslay_event_context_ptr wslay;
    struct feed *feed; /* of the codec_feed() that is running */
    struct buf message;
    bool control; /* the frame that wslay is in the middle of */
};

struct codec {
    struct context *context; /* NULL while only the stash is needed */
    struct buf stash;        /* raw bytes of a frame that wslay was not given yet */
    uint64_t since_ms;
    uint64_t frame_left; /* payload bytes that wslay still waits for */
    bool frame_final;    /* FIN of that frame */
    bool message_open;   /* a data frame without FIN has passed */
    bool counted;        /* in pool->open */
};

struct codec_pool {
    struct codec_limits limits;
    struct context *idle;
    uint32_t idle_count;
    uint32_t open;
    size_t bytes;
};

/* What one codec_feed() works with. */
struct feed {
    struct codec_pool *pool;
    struct codec *codec;
    struct bytes in;    /* not yet looked at */
    struct bytes slice; /* what wslay may read now */
    const struct codec_events *events;
    void *ctx;
    uint64_t now_ms;
    int result;          /* set by a callback that ends the feed */
    bool closed;         /* the peer's close frame has come */
    uint16_t close_code; /* of that frame, where wslay was shown another one */
};

static void take(struct bytes *from, size_t n)
{
    from->data += n;
    from->len -= n;
}

static size_t min_size(size_t a, uint64_t b)
{
    return a < b ? a : (size_t)b;
}

/* Callbacks of wslay */

static void stop(struct context *context, int result)
{
    context->feed->result = result;
    wslay_event_shutdown_read(context->wslay);
}

static ssize_t on_recv(wslay_event_context_ptr wslay, uint8_t *data, size_t len, int flags,
                       void *user)
{
    (void)flags;
    struct bytes *slice = &((struct context *)user)->feed->slice;
    size_t n = min_size(len, slice->len);
    if (n == 0) {
        wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    memcpy(data, slice->data, n);
    take(slice, n);
    return (ssize_t)n;
}

/* Pongs and closes are the caller's: what wslay would send is thrown away. */
static ssize_t on_send(wslay_event_context_ptr wslay, const uint8_t *data, size_t len, int flags,
                       void *user)
{
    (void)wslay, (void)data, (void)flags, (void)user;
    return (ssize_t)len;
}

static void on_frame_start(wslay_event_context_ptr wslay,
                           const struct wslay_event_on_frame_recv_start_arg *frame, void *user)
{
    (void)wslay;
    ((struct context *)user)->control = ws_is_control(frame->opcode);
}

/* Doubles, but never past the longest message allowed, so that a message just under the limit
 * does not cost twice its size. */
static bool message_append(struct context *context, const void *data, size_t len)
{
    struct codec_pool *pool = context->feed->pool;
    struct buf *message = &context->message;
    size_t need = message->len + len;
    if (need > message->cap) {
        size_t cap = message->cap ? message->cap * 2 : MESSAGE_START;
        cap = min_size(cap, pool->limits.message_bytes);
        cap = cap < need ? need : cap;
        char *grown = realloc(message->data, cap);
        if (!grown)
            return false;
        pool->bytes += cap - message->cap;
        message->data = grown;
        message->cap = cap;
    }
    memcpy(message->data + message->len, data, len);
    message->len = need;
    return true;
}

/* wslay has unmasked the chunk and found no fault in its UTF-8. Control frames it keeps by
 * itself. */
static void on_chunk(wslay_event_context_ptr wslay,
                     const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *user)
{
    (void)wslay;
    struct context *context = user;
    if (context->control || chunk->data_length == 0)
        return;
    if (!message_append(context, chunk->data, chunk->data_length))
        stop(context, OUT_OF_MEMORY);
}

static int tell_close(struct feed *feed, const struct wslay_event_on_msg_recv_arg *message)
{
    struct bytes reason = {0};
    uint16_t code = message->status_code;
    if (message->msg_length > 2)
        reason = bytes_of((const char *)message->msg + 2, message->msg_length - 2);
    feed->closed = true;
    return feed->events->on_close(feed->ctx, feed->close_code ? feed->close_code : code, reason);
}

static void on_message(wslay_event_context_ptr wslay,
                       const struct wslay_event_on_msg_recv_arg *message, void *user)
{
    (void)wslay;
    struct context *context = user;
    struct feed *feed = context->feed;
    const struct codec_events *events = feed->events;
    struct bytes payload = bytes_of((const char *)message->msg, message->msg_length);
    int rc = 0;
    /* wslay ends the frame whose bytes found no memory before it sees that it shall not read on. */
    if (feed->result != 0)
        return;
    if (message->opcode == WS_PING)
        rc = events->on_ping(feed->ctx, payload);
    else if (message->opcode == WS_PONG)
        rc = events->on_pong(feed->ctx, payload);
    else if (message->opcode == WS_CLOSE)
        rc = tell_close(feed, message);
    else
        rc = events->on_message(feed->ctx, (enum ws_opcode)message->opcode,
                                buf_view(&context->message));
    if (rc != 0)
        stop(context, rc);
}

/* Contexts */

static struct context *context_create(struct codec_pool *pool)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .on_frame_recv_start_callback = on_frame_start,
        .on_frame_recv_chunk_callback = on_chunk,
        .on_msg_recv_callback = on_message,
    };
    struct context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    if (wslay_event_context_server_init(&context->wslay, &callbacks, context) != 0) {
        free(context);
        return NULL;
    }
    /* wslay's own buffering keeps a heap block and a queue entry per frame, and allocates what a
     * head announces. Its limit counts single frames, and pings too: the size is judged by
     * sequence_check(). */
    wslay_event_config_set_no_buffering(context->wslay, 1);
    wslay_event_config_set_max_recv_msg_length(context->wslay, INT64_MAX);
    pool->bytes += CONTEXT_BYTES + sizeof(*context);
    return context;
}

static void context_destroy(struct codec_pool *pool, struct context *context)
{
    if (!context)
        return;
    pool->bytes -= CONTEXT_BYTES + sizeof(*context) + context->message.cap;
    wslay_event_context_free(context->wslay);
    buf_fini(&context->message);
    free(context);
}

static struct context *context_take(struct codec_pool *pool)
{
    struct context *context = pool->idle;
    if (!context)
        return context_create(pool);
    pool->idle = context->next;
    pool->idle_count--;
    context->next = NULL;
    return context;
}

/* Only for contexts between two messages that have seen no error and no close. */
static void context_give_back(struct codec_pool *pool, struct context *context)
{
    if (pool->idle_count >= pool->limits.idle_contexts) {
        context_destroy(pool, context);
        return;
    }
    if (context->message.cap > MESSAGE_KEPT_MAX) {
        pool->bytes -= context->message.cap;
        buf_fini(&context->message);
    }
    buf_clear(&context->message);
    context->next = pool->idle;
    pool->idle = context;
    pool->idle_count++;
}

/* The close code for a context that has stopped reading by itself. */
static int failure_code(const struct context *context)
{
    uint16_t code = wslay_event_get_status_code_sent(context->wslay);
    return code == NOT_UTF8 || code == TOO_BIG ? code : PROTOCOL_ERROR;
}

/* Has wslay decode bytes of one frame. */
static int push(struct feed *feed, struct context *context, struct bytes bytes)
{
    context->feed = feed;
    feed->slice = bytes;
    int rc = wslay_event_recv(context->wslay);
    if (wslay_event_want_write(context->wslay))
        wslay_event_send(context->wslay);
    context->feed = NULL;
    feed->slice = (struct bytes){0}; /* it may be the caller's stack */
    if (feed->result != 0 || feed->closed)
        return feed->result;
    if (rc == WSLAY_ERR_NOMEM)
        return OUT_OF_MEMORY;
    if (rc != 0 || !wslay_event_get_read_enabled(context->wslay))
        return failure_code(context);
    return 0;
}

/* Heads of frames */

/* Whether a frame with this head may come now, and is not too long together with what its
 * message has already. */
static int sequence_check(const struct feed *feed, struct bytes view, const struct ws_head *head)
{
    const struct codec *codec = feed->codec;
    if (view.len == 0 || ws_is_control(head->opcode))
        return 0;
    if ((head->opcode == WS_CONTINUATION) != codec->message_open)
        return PROTOCOL_ERROR;
    uint64_t have = codec->message_open ? codec->context->message.len : 0;
    uint64_t limit = feed->pool->limits.message_bytes;
    if (head->sized && (have > limit || head->payload_len > limit - have))
        return TOO_BIG;
    return 0;
}

/* How many bytes of a frame must be there before wslay is given any. Control frames go whole:
 * wslay 1.1.1 checks the UTF-8 of a close reason wrongly when it comes in pieces. */
static size_t bytes_wanted(const struct codec *codec, const struct ws_head *head)
{
    if (!head->complete)
        return head->length;
    uint64_t total = head->length + head->payload_len;
    if (ws_is_control(head->opcode) || (!codec->message_open && total <= CODEC_STASH_MAX))
        return (size_t)total;
    return head->length;
}

/* Feeding */

static int stash_more(struct feed *feed, size_t n)
{
    struct buf *stash = &feed->codec->stash;
    size_t before = stash->cap;
    buf_append(stash, feed->in.data, n);
    feed->pool->bytes += stash->cap - before;
    if (stash->failed)
        return OUT_OF_MEMORY;
    take(&feed->in, n);
    return 0;
}

static void stash_free(struct codec_pool *pool, struct codec *codec)
{
    pool->bytes -= codec->stash.cap;
    buf_fini(&codec->stash);
}

static void data_frame_pushed(struct codec *codec)
{
    if (codec->frame_left > 0)
        return;
    codec->message_open = !codec->frame_final;
    if (codec->frame_final)
        buf_clear(&codec->context->message);
}

static int push_data(struct feed *feed, const struct ws_head *head, struct bytes bytes)
{
    struct codec *codec = feed->codec;
    int rc = push(feed, codec->context, bytes);
    if (rc != 0 || feed->closed)
        return rc;
    codec->frame_left = head->length + head->payload_len - bytes.len;
    codec->frame_final = head->final;
    data_frame_pushed(codec);
    return 0;
}

static unsigned two_bytes(const char *at)
{
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

/* bytes is a whole control frame. wslay 1.1.1 refuses the close codes that were registered after
 * RFC 6455 (1012 to 1014), so it is shown another one in their place, and the caller is told the
 * true one. */
static int push_control(struct feed *feed, const struct ws_head *head, struct bytes bytes)
{
    char shown[CONTROL_HEAD + WS_CONTROL_MAX];
    if (head->opcode == WS_CLOSE && head->payload_len >= 2) {
        const char *code_at = bytes.data + CONTROL_HEAD;
        unsigned code = two_bytes(code_at) ^ two_bytes(bytes.data + 2);
        if (code >= 1012 && code <= 1014) {
            unsigned patched = two_bytes(code_at) ^ code ^ CLOSE_CODE_SHOWN;
            memcpy(shown, bytes.data, bytes.len);
            shown[CONTROL_HEAD] = (char)(patched >> 8);
            shown[CONTROL_HEAD + 1] = (char)(patched & 0xff);
            bytes.data = shown;
            feed->close_code = (uint16_t)code;
        }
    }
    return push(feed, feed->codec->context, bytes);
}

/* Starts the next frame, from the stash where its first bytes are, else from the input. Returns
 * when the frame has been given to wslay, as far as it is there, or the input has been used up. */
static int feed_frame(struct feed *feed)
{
    struct codec *codec = feed->codec;
    struct ws_head head;
    struct bytes view;
    if (codec->stash.len == 0 && !codec->message_open)
        codec->since_ms = feed->now_ms;
    for (;;) {
        view = codec->stash.len > 0 ? buf_view(&codec->stash) : feed->in;
        if (!ws_head_read(view, &head))
            return PROTOCOL_ERROR;
        int rc = sequence_check(feed, view, &head);
        if (rc != 0)
            return rc;
        size_t wanted = bytes_wanted(codec, &head);
        if (head.complete && view.len >= wanted)
            break;
        if (feed->in.len == 0)
            return 0;
        rc = stash_more(feed, min_size(feed->in.len, wanted - codec->stash.len));
        if (rc != 0)
            return rc;
    }
    if (!codec->context && !(codec->context = context_take(feed->pool)))
        return OUT_OF_MEMORY;
    view.len = min_size(view.len, head.length + head.payload_len);
    bool stashed = codec->stash.len > 0;
    int rc =
        ws_is_control(head.opcode) ? push_control(feed, &head, view) : push_data(feed, &head, view);
    if (stashed)
        buf_clear(&codec->stash);
    else
        take(&feed->in, view.len);
    return rc;
}

static int feed_payload(struct feed *feed)
{
    struct codec *codec = feed->codec;
    size_t n = min_size(feed->in.len, codec->frame_left);
    int rc = push(feed, codec->context, bytes_of(feed->in.data, n));
    take(&feed->in, n);
    codec->frame_left -= n;
    if (rc == 0)
        data_frame_pushed(codec);
    return rc;
}

/* Judges the text of a frame that waits in the stash, as far as it has come, with a context that
 * is thrown away. */
static int judge_stash(struct feed *feed)
{
    struct bytes view = buf_view(&feed->codec->stash);
    struct ws_head head;
    ws_head_read(view, &head);
    if (head.opcode != WS_TEXT || !head.complete || view.len == head.length)
        return 0;
    struct context *context = context_create(feed->pool);
    if (!context)
        return OUT_OF_MEMORY;
    int rc = push(feed, context, view);
    context_destroy(feed->pool, context);
    return rc;
}

/* Gives back what the codec does not need between two feeds. Returns 0, or why what it needs
 * can't be had. */
static int settle(struct feed *feed)
{
    struct codec_pool *pool = feed->pool;
    struct codec *codec = feed->codec;
    bool attached = codec->message_open || codec->frame_left > 0;
    if (!attached && codec->context) {
        context_give_back(pool, codec->context);
        codec->context = NULL;
    }
    if (!attached && codec->counted) {
        codec->counted = false;
        pool->open--;
    }
    if (attached && !codec->counted) {
        if (pool->open >= pool->limits.open_messages)
            return TRY_LATER;
        codec->counted = true;
        pool->open++;
    }
    if (codec->stash.len == 0) {
        stash_free(pool, codec);
        return 0;
    }
    return judge_stash(feed);
}

static void codec_clear(struct codec_pool *pool, struct codec *codec)
{
    context_destroy(pool, codec->context);
    codec->context = NULL;
    stash_free(pool, codec);
    if (codec->counted)
        pool->open--;
    codec->counted = false;
}

/* Leaves *slot with the codec when something is unfinished, else empty. */
static int keep(struct codec_pool *pool, struct codec **slot, struct codec *codec)
{
    if (!codec->context && codec->stash.len == 0) {
        codec_detach(pool, slot);
        return 0;
    }
    if (*slot)
        return 0;
    struct codec *kept = malloc(sizeof(*kept));
    if (!kept)
        return OUT_OF_MEMORY;
    pool->bytes += sizeof(*kept);
    *kept = *codec;
    *slot = kept;
    return 0;
}

static void drop(struct codec_pool *pool, struct codec **slot, struct codec *codec)
{
    if (*slot)
        codec_detach(pool, slot);
    else
        codec_clear(pool, codec);
}

int codec_feed(struct codec_pool *pool, struct codec **slot, struct bytes bytes_in, uint64_t now_ms,
               const struct codec_events *events, void *ctx)
{
    /* A feed of whole frames, which is nearly every one, allocates nothing. */
    struct codec passing = {0};
    struct feed feed = {.pool = pool,
                        .codec = *slot ? *slot : &passing,
                        .in = bytes_in,
                        .events = events,
                        .ctx = ctx,
                        .now_ms = now_ms};
    int rc = 0;
    while (rc == 0 && !feed.closed && feed.in.len > 0)
        rc = feed.codec->frame_left > 0 ? feed_payload(&feed) : feed_frame(&feed);
    if (rc == 0 && !feed.closed)
        rc = settle(&feed);
    if (rc == 0 && !feed.closed)
        rc = keep(pool, slot, feed.codec);
    if (rc != 0 || feed.closed)
        drop(pool, slot, feed.codec);
    return rc;
}

uint64_t codec_since_ms(const struct codec *codec)
{
    return codec->since_ms;
}

void codec_restart_clock(struct codec *codec, uint64_t now_ms)
{
    codec->since_ms = now_ms;
}

void codec_detach(struct codec_pool *pool, struct codec **slot)
{
    struct codec *codec = *slot;
    if (!codec)
        return;
    codec_clear(pool, codec);
    pool->bytes -= sizeof(*codec);
    free(codec);
    *slot = NULL;
}

/* Pool */

struct codec_pool *codec_pool_create(const struct codec_limits *limits)
{
    struct codec_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->limits = *limits;
    pool->bytes = sizeof(*pool);
    return pool;
}

static void trim_to(struct codec_pool *pool, uint32_t count)
{
    while (pool->idle_count > count)
        context_destroy(pool, context_take(pool));
}

void codec_pool_destroy(struct codec_pool *pool)
{
    if (!pool)
        return;
    trim_to(pool, 0);
    REQUIRE(pool->open == 0);
    free(pool);
}

void codec_pool_set_limits(struct codec_pool *pool, const struct codec_limits *limits)
{
    pool->limits = *limits;
    trim_to(pool, limits->idle_contexts);
}

void codec_pool_trim(struct codec_pool *pool)
{
    trim_to(pool, 0);
}

uint32_t codec_pool_open(const struct codec_pool *pool)
{
    return pool->open;
}

size_t codec_pool_bytes(const struct codec_pool *pool)
{
    return pool->bytes;
}
