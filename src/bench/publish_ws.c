#include "base/bytes.h"
#include "base/clock.h"
#include "bench/frames.h"
#include "bench/publish.h"

/* Publishes text frames over one WebSocket. The path's {room} is the first room, so several rooms
 * need a --publish-text that names them. */
#define PUBLISH_KEY "dGhlIHNhbXBsZSBub25jZQ=="

static const char *ws_check(const struct publisher *publisher)
{
    const struct bench_options *options = publisher->options;
    if (options->rooms > 1 && !strstr(options->publish_text, "{room}"))
        return "with several rooms --publish-text must hold {room}";
    if (!strstr(options->publish_text, "{data}"))
        return "--publish-text must hold {data}";
    return NULL;
}

static void expand(struct buf *out, const char *text, const char *room, struct bytes data)
{
    while (*text) {
        if (strncmp(text, "{room}", 6) == 0) {
            buf_text(out, room);
            text += 6;
        } else if (strncmp(text, "{data}", 6) == 0) {
            buf_bytes(out, data);
            text += 6;
        } else {
            buf_byte(out, *text++);
        }
    }
}

static void write_frame(struct publisher *publisher, struct buf *to, uint8_t opcode,
                        struct bytes text)
{
    frame_write_masked(to, opcode, text, (uint32_t)random_next(&publisher->random));
}

static void ws_open(struct publisher *publisher)
{
    char room[BENCH_ROOM_NAME];
    struct buf *out = &publisher->out;
    options_room(publisher->options, 0, room, sizeof(room));
    publisher->upgraded = false;
    BUF_LIT(out, "GET ");
    expand(out, publisher->target.path, room, BYTES_LIT(""));
    buf_printf(out, " HTTP/1.1\r\nHost: %s\r\n", publisher->target.authority);
    BUF_LIT(out, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: " PUBLISH_KEY "\r\n\r\n");
    if (*publisher->options->publish_hello)
        write_frame(publisher, &publisher->later, FRAME_TEXT,
                    bytes_str(publisher->options->publish_hello));
}

static void ws_add(struct publisher *publisher, const char *room, struct bytes data)
{
    struct buf *to = publisher->upgraded ? &publisher->out : &publisher->later;
    buf_clear(&publisher->body);
    expand(&publisher->body, publisher->options->publish_text, room, data);
    if (publisher->body.failed || publisher->body.len > UINT16_MAX || to->failed)
        publisher->counts.unsent++;
    else
        write_frame(publisher, to, FRAME_TEXT, buf_view(&publisher->body));
}

/* Returns NULL, with upgraded set once the head is all there, or why there is no WebSocket. */
static const char *read_answer(struct publisher *publisher)
{
    struct buf *in = &publisher->in;
    const char *end = memmem(in->data, in->len, "\r\n\r\n", 4);
    if (!end)
        return in->len > 8192 ? "the handshake's answer is above 8 KB" : NULL;
    if (in->len < 12 || memcmp(in->data, "HTTP/1.1 101", 12) != 0) {
        publisher_refused(publisher, in->data, strcspn(in->data, "\r\n"));
        return "the handshake was refused";
    }
    buf_consume(in, (size_t)(end - in->data) + 4);
    buf_bytes(&publisher->out, buf_view(&publisher->later));
    publisher->out.failed |= publisher->later.failed;
    buf_fini(&publisher->later);
    publisher->upgraded = true;
    return NULL;
}

struct control {
    struct publisher *publisher;
    bool closed;
};

/* Data frames are answers of a kind that only the server knows; Engine.IO's ping is a text. */
static void on_frame(void *ctx, const struct server_frame *frame)
{
    struct control *control = ctx;
    struct publisher *publisher = control->publisher;
    if (frame->opcode == FRAME_PING)
        write_frame(publisher, &publisher->out, FRAME_PONG, frame->payload);
    else if (frame->opcode == FRAME_TEXT && bytes_is(frame->payload, "2"))
        write_frame(publisher, &publisher->out, FRAME_TEXT, BYTES_LIT("3"));
    else if (frame->opcode == FRAME_CLOSE)
        control->closed = true;
}

static const char *ws_answers(struct publisher *publisher)
{
    if (!publisher->upgraded) {
        const char *wrong = read_answer(publisher);
        if (wrong || !publisher->upgraded)
            return wrong;
    }
    struct control control = {.publisher = publisher};
    const char *wrong =
        frame_reader_feed(&publisher->frames, buf_view(&publisher->in), on_frame, &control);
    buf_clear(&publisher->in);
    return wrong ? wrong : control.closed ? "the server closed with a close frame" : NULL;
}

const struct publisher_kind publisher_ws = {.scheme = "ws",
                                            .port = "80",
                                            .check = ws_check,
                                            .open = ws_open,
                                            .add = ws_add,
                                            .answers = ws_answers};
