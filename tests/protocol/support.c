#include "protocol/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

const struct adapter_limits test_limits = {
    .json_depth = 8,
    .join_event = BYTES_LIT("join"),
    .leave_event = BYTES_LIT("leave"),
};

static int allocations_left = -1;

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool allocation_fails(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left == 0)
        return true;
    allocations_left--;
    return false;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(old, size);
}

void fail_allocation(int n)
{
    allocations_left = n;
}

/* Takes one final, unmasked text frame off *rest. */
static struct bytes take_text_frame(struct bytes *rest)
{
    assert_true(rest->len >= 2);
    const unsigned char *head = (const unsigned char *)rest->data;
    assert_int_equal(head[0], 0x81);
    size_t head_len = head[1] == 126 ? 4 : head[1] == 127 ? 10 : 2;
    assert_true(rest->len >= head_len);
    size_t len = head_len == 2 ? head[1] : 0;
    for (size_t i = 2; i < head_len; i++)
        len = len << 8 | head[i];
    assert_true(len <= rest->len - head_len);
    struct bytes payload = bytes_of(rest->data + head_len, len);
    *rest = bytes_of(payload.data + len, rest->len - head_len - len);
    return payload;
}

void expect_frames(struct buf *out, const char *first, ...)
{
    assert_false(out->failed);
    struct bytes rest = buf_view(out);
    va_list args;
    va_start(args, first);
    for (const char *text = first; text; text = va_arg(args, const char *)) {
        struct bytes payload = take_text_frame(&rest);
        expect_bytes(payload, text);
    }
    va_end(args);
    assert_int_equal(rest.len, 0);
    buf_fini(out);
}

struct intent parse_text(const struct adapter *adapter, const char *text)
{
    static char *copy;
    size_t len = strlen(text);
    free(copy);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    struct intent intent;
    memset(&intent, 0xa5, sizeof(intent)); /* what a caller's stack may hold */
    adapter->parse(bytes_of(copy, len), &test_limits, &intent);
    return intent;
}

void expect_bytes(struct bytes got, const char *expected)
{
    if (!bytes_is(got, expected))
        fail_msg("got %.*s, expected %s", (int)got.len, got.len ? got.data : "", expected);
}

void expect_refused(const struct intent *intent, enum error_code code)
{
    assert_int_equal(intent->op, INTENT_BAD);
    assert_int_equal(intent->error_code, code);
    assert_non_null(intent->error_text);
    assert_false(intent->unreadable);
    for (const char *c = intent->error_text; *c; c++)
        assert_in_range(*c, 0x20, 0x7e);
}

void expect_unreadable(const struct intent *intent)
{
    assert_int_equal(intent->op, INTENT_BAD);
    assert_int_equal(intent->error_code, ERROR_BAD_MESSAGE);
    assert_non_null(intent->error_text);
    assert_true(intent->unreadable);
    for (const char *c = intent->error_text; *c; c++)
        assert_in_range(*c, 0x20, 0x7e);
}

struct message *make_message(enum message_kind kind, const char *room, const char *type,
                             const char *from, const char *id, const char *data)
{
    struct message_parts parts = {bytes_str(type), bytes_str(from), bytes_str(id), bytes_str(data)};
    struct message *message = message_create(kind, bytes_str(room), &parts);
    assert_non_null(message);
    return message;
}
