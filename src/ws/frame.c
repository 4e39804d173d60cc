#include "ws/frame.h"

enum { CLOSE_CODE_BYTES = 2, REASON_MAX = WS_CONTROL_MAX - CLOSE_CODE_BYTES, MASK_BYTES = 4 };

static size_t head_length(uint64_t payload_len)
{
    if (payload_len < 126)
        return 2;
    return payload_len <= UINT16_MAX ? 4 : 10;
}

size_t ws_frame_head(unsigned char head[WS_HEAD_MAX], enum ws_opcode opcode, uint64_t payload_len)
{
    size_t len = head_length(payload_len);
    head[0] = (unsigned char)(0x80u | (unsigned)opcode);
    if (len == 2) {
        head[1] = (unsigned char)payload_len;
        return len;
    }
    head[1] = len == 4 ? 126 : 127;
    for (size_t at = len; at > 2; payload_len >>= 8)
        head[--at] = (unsigned char)(payload_len & 0xff);
    return len;
}

void ws_frame_append(struct buf *out, enum ws_opcode opcode, struct bytes payload)
{
    unsigned char head[WS_HEAD_MAX];
    size_t len = ws_frame_head(head, opcode, payload.len);
    /* One reservation for both, so that a failure never leaves a head without its payload. */
    if (payload.len > SIZE_MAX - len || !buf_reserve(out, len + payload.len)) {
        out->failed = true;
        return;
    }
    buf_append(out, head, len);
    buf_bytes(out, payload);
}

/* The longest prefix of at most `max` bytes that does not end inside a UTF-8 sequence. */
static size_t utf8_cut(struct bytes text, size_t max)
{
    if (text.len <= max)
        return text.len;
    while (max > 0 && ((unsigned char)text.data[max] & 0xc0) == 0x80)
        max--;
    return max;
}

void ws_frame_close(struct buf *out, uint16_t code, const char *reason)
{
    if (code == 0) {
        ws_frame_append(out, WS_CLOSE, (struct bytes){0});
        return;
    }
    char payload[WS_CONTROL_MAX];
    struct bytes text = bytes_str(reason);
    size_t len = utf8_cut(text, REASON_MAX);
    payload[0] = (char)(code >> 8);
    payload[1] = (char)(code & 0xff);
    if (len > 0)
        memcpy(payload + CLOSE_CODE_BYTES, text.data, len);
    ws_frame_append(out, WS_CLOSE, bytes_of(payload, CLOSE_CODE_BYTES + len));
}

/* While the frame is open the first byte of the room tells how long the room is. */
size_t ws_frame_begin(struct buf *out, size_t likely_len)
{
    size_t mark = out->len;
    size_t room = head_length(likely_len);
    if (buf_reserve(out, room)) {
        out->data[mark] = (char)room;
        out->len += room;
    }
    return mark;
}

void ws_frame_end(struct buf *out, size_t mark, enum ws_opcode opcode)
{
    if (out->failed)
        return;
    unsigned char head[WS_HEAD_MAX];
    size_t room = (size_t)out->data[mark];
    size_t payload_len = out->len - mark - room;
    size_t len = ws_frame_head(head, opcode, payload_len);
    if (len > room && !buf_reserve(out, len - room))
        return;
    if (len != room && payload_len > 0)
        memmove(out->data + mark + len, out->data + mark + room, payload_len);
    memcpy(out->data + mark, head, len);
    out->len = mark + len + payload_len;
}

static uint64_t big_endian(const char *data, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++)
        value = value << 8 | (unsigned char)data[i];
    return value;
}

/* The length of the frame for a viewer at the start of row; 0: no whole one stands there. */
static size_t whole_frame(struct bytes row)
{
    if (row.len < 2)
        return 0;
    unsigned first = (unsigned char)row.data[0];
    unsigned second = (unsigned char)row.data[1];
    unsigned opcode = first & 0x0f;
    if ((first & 0x70) || (second & 0x80) || opcode > WS_PONG ||
        (opcode > WS_BINARY && !ws_is_control(opcode)))
        return 0;
    size_t head = second < 126 ? 2 : second == 126 ? 4 : 10;
    if (row.len < head)
        return 0;
    uint64_t payload = head == 2 ? second : big_endian(row.data + 2, head - 2);
    return payload <= row.len - head ? head + (size_t)payload : 0;
}

static struct bytes behind(struct bytes row, size_t taken)
{
    return bytes_of(row.data + taken, row.len - taken);
}

size_t ws_frames_cut(struct bytes row, size_t room)
{
    size_t taken = 0;
    size_t next = whole_frame(row);
    do {
        taken += next;
        next = whole_frame(behind(row, taken));
    } while (next > 0 && taken + next <= room);
    return taken;
}

size_t ws_frames_end(struct bytes row, size_t at)
{
    size_t end = 0;
    while (end < at) {
        size_t next = whole_frame(behind(row, end));
        if (next == 0)
            return row.len;
        end += next;
    }
    return end;
}

static bool read_length(struct bytes view, unsigned len7, struct ws_head *head)
{
    size_t extended = len7 == 126 ? 2 : len7 == 127 ? 8 : 0;
    head->length = 2 + extended + MASK_BYTES;
    if (view.len < 2 + extended)
        return true;
    head->payload_len = extended ? big_endian(view.data + 2, extended) : len7;
    uint64_t least = extended == 8 ? UINT16_MAX + 1 : extended == 2 ? 126 : 0;
    head->sized = true;
    head->complete = view.len >= head->length;
    return head->payload_len >= least && head->payload_len <= INT64_MAX;
}

bool ws_head_read(struct bytes view, struct ws_head *head)
{
    *head = (struct ws_head){.length = 2};
    if (view.len == 0)
        return true;
    unsigned first = (unsigned char)view.data[0];
    head->final = first & 0x80;
    head->opcode = first & 0x0f;
    bool control = ws_is_control(head->opcode);
    bool reserved = head->opcode > WS_PONG || (head->opcode > WS_BINARY && !control);
    if ((first & 0x70) || reserved || (control && !head->final))
        return false;
    if (view.len == 1)
        return true;
    unsigned second = (unsigned char)view.data[1];
    unsigned len7 = second & 0x7f;
    if (!(second & 0x80) || (control && len7 > WS_CONTROL_MAX))
        return false;
    if (head->opcode == WS_CLOSE && len7 == 1)
        return false;
    return read_length(view, len7, head);
}
