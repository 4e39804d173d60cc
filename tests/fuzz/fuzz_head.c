/* fuzz_head.c: request heads. Whatever the bytes, a prefix may only ask for more or be refused
 * the way the whole is, and what is found lies within the head. */
#include "ws/head.h"

#include "base/check.h"

#include <stdlib.h>

/* Every prefix is tried up to here; of longer inputs, as many spread over the length. */
enum { PREFIXES = 256, DECODED_MAX = 64 };

static void check_span(struct bytes head, struct bytes span)
{
    if (span.len == 0)
        return;
    REQUIRE(span.data >= head.data);
    REQUIRE(span.data + span.len <= head.data + head.len);
}

static void check_query(struct bytes query)
{
    struct bytes rest = query;
    struct bytes name;
    struct bytes value;
    char decoded[DECODED_MAX];
    while (query_next(&rest, &name, &value)) {
        check_span(query, name);
        check_span(query, value);
        ssize_t len = query_decode(value, decoded, sizeof(decoded));
        REQUIRE(len <= (ssize_t)sizeof(decoded) && len <= (ssize_t)value.len);
    }
}

static void check_head(struct bytes text, const struct head *head)
{
    struct bytes whole = bytes_of(text.data, head->length);
    REQUIRE(head->length <= text.len);
    REQUIRE(head->path.len > 0 && head->path.data[0] == '/');
    check_span(whole, head->method);
    check_span(whole, head->path);
    check_span(whole, head->query);
    check_span(whole, head->host);
    check_span(whole, head->key);
    check_span(whole, head->origin);
    check_span(whole, head->bearer);
    check_query(head->query);
    char accept[WS_ACCEPT_LEN];
    if (head_upgrade_status(head) == 0)
        head_accept(head->key, accept);
}

/* Each prefix stands in a heap block of its own, so that reads past it are seen. */
static int parse_copy(struct bytes text)
{
    struct head head;
    char *copy = malloc(text.len ? text.len : 1);
    if (!copy)
        abort();
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    int rc = head_parse(bytes_of(copy, text.len), &head);
    if (rc == HEAD_DONE)
        check_head(bytes_of(copy, text.len), &head);
    free(copy);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes text = bytes_of((const char *)data, size);
    int whole = parse_copy(text);
    REQUIRE(whole == HEAD_DONE || whole == HEAD_MORE || (whole <= -400 && whole >= -599));
    size_t step = size / PREFIXES + 1;
    for (size_t len = 0; len < size; len += step) {
        int rc = parse_copy(bytes_of(text.data, len));
        REQUIRE(rc == HEAD_MORE || rc == whole);
    }
    return 0;
}
