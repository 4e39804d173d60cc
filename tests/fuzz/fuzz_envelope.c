/* A payload of Redis or HTTP: what is taken holds valid names and JSON, and comes back the same when appended. */
#include "base/check.h"
#include "base/names.h"
#include "protocol/message.h"
#include "json/json.h"

enum { DEPTH = 32 };

static void require_same(const struct message_parts *a, const struct message_parts *b)
{
    REQUIRE(bytes_equal(a->type, b->type) && bytes_equal(a->from, b->from));
    REQUIRE(bytes_equal(a->id, b->id) && bytes_equal(a->data, b->data));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf out;
    struct bytes text = bytes_of((const char *)data, size);
    struct message_scratch scratch;
    struct message_parts parts;
    int err = envelope_parse(text, DEPTH, &scratch, &parts);
    /* Only the outermost kind is left open by json_check(). */
    struct json_span value = {0};
    bool object = json_check(text, DEPTH, &value) == JSON_OK && value.kind == JSON_OBJECT;
    REQUIRE(object == (err != ENVELOPE_ERR_JSON));
    if (err)
        return 0;
    REQUIRE(name_is_type(parts.type));
    REQUIRE(parts.from.len == 0 || name_is_user(parts.from));
    REQUIRE(parts.id.len == 0 || name_is_message_id(parts.id));
    buf_clear(&out);
    envelope_append(&out, &parts);
    REQUIRE(!out.failed);
    struct message_scratch scratch_again;
    struct message_parts again;
    REQUIRE(envelope_parse(buf_view(&out), DEPTH, &scratch_again, &again) == ENVELOPE_OK);
    require_same(&parts, &again);
    return 0;
}
