#include "ws/test_ws.h"
#include "ws/viewer.h"

#include <stdlib.h>

/* The n-th allocation fails, n = 1…, in wslay too: so malloc itself is replaced, which
 * sanitizers do not allow. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int run_codec_memory_tests(void)
{
    return 0;
}

#else

static unsigned long fail_at; /* counts down to the allocation that fails; 0: none does */
static bool failed;

/* Seen by the shared libraries too, whatever -fvisibility says. */
#define REPLACES_LIBC __attribute__((visibility("default")))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool fails_now(void)
{
    if (fail_at == 0 || --fail_at > 0)
        return false;
    failed = true;
    return true;
}

REPLACES_LIBC void *malloc(size_t size)
{
    return fails_now() ? NULL : __libc_malloc(size);
}

REPLACES_LIBC void *calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __libc_calloc(count, size);
}

REPLACES_LIBC void *realloc(void *old, size_t size)
{
    return fails_now() ? NULL : __libc_realloc(old, size);
}

static int count_message(void *ctx, enum ws_opcode opcode, struct bytes payload)
{
    (void)opcode;
    assert_true(payload.len > 0); /* a message without its bytes is never told */
    ++*(int *)ctx;
    return 0;
}

static int count_control(void *ctx, struct bytes payload)
{
    (void)payload;
    ++*(int *)ctx;
    return 0;
}

static int count_close(void *ctx, uint16_t code, struct bytes reason)
{
    (void)code, (void)reason;
    ++*(int *)ctx;
    return 0;
}

/* Feeds the stream while the n-th allocation fails. Returns false when there was no n-th
 * allocation. */
static bool feed_failing(struct codec_pool *pool, struct bytes stream, size_t piece,
                         unsigned long nth)
{
    static const struct codec_events events = {count_message, count_control, count_control,
                                               count_close};
    struct codec *slot = NULL;
    int count = 0;
    int rc = 0;
    failed = false;
    fail_at = nth;
    for (size_t at = 0; at < stream.len && rc == 0; at += piece) {
        size_t n = piece < stream.len - at ? piece : stream.len - at;
        rc = codec_feed(pool, &slot, bytes_of(stream.data + at, n), 0, &events, &count);
    }
    fail_at = 0;
    assert_int_equal(rc, failed ? 1011 : 0);
    if (!failed)
        assert_int_equal(count, 5);
    codec_detach(pool, &slot);
    codec_pool_trim(pool);
    return failed;
}

static void nth_allocation_fails__1011_and_nothing_kept(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 50, 100000};
    static char payload[3000];
    struct codec_limits limits = {100000, 4, 4};
    struct codec_pool *pool = codec_pool_create(&limits);
    size_t empty = codec_pool_bytes(pool);
    struct buf stream = {0};
    frame_append(&stream, FIN | WS_BINARY, bytes_of(payload, sizeof(payload)));
    frame_text(&stream, WS_TEXT, "first part");
    frame_text(&stream, FIN | WS_PING, "ping");
    frame_text(&stream, FIN | WS_CONTINUATION, "last part");
    frame_text(&stream, FIN | WS_TEXT, "a frame that waits in the stash for its last byte");
    frame_close(&stream, FIN | WS_CLOSE, 1000, BYTES_LIT("bye"));
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        unsigned long nth = 1;
        while (feed_failing(pool, buf_view(&stream), pieces[i], nth)) {
            assert_int_equal(codec_pool_bytes(pool), empty);
            assert_int_equal(codec_pool_open(pool), 0);
            nth++;
        }
        assert_true(nth > 10);
    }
    buf_fini(&stream);
    codec_pool_destroy(pool);
}

static void pool_create_without_memory__null(void **state)
{
    (void)state;
    struct codec_limits limits = {100, 1, 1};
    fail_at = 1;
    assert_null(codec_pool_create(&limits));
    fail_at = 0;
}

int run_codec_memory_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nth_allocation_fails__1011_and_nothing_kept),
        cmocka_unit_test(pool_create_without_memory__null),
    };
    return cmocka_run_group_tests_name("ws codec memory", tests, NULL, NULL);
}

#endif
