/* A viewer's message on /socket.io/, read by both versions of Engine.IO. */
#include "fuzz_protocol.h"

/* `42`, `43<id>`: where the JSON begins. */
static size_t packet_head(struct bytes payload)
{
    size_t at = 0;
    while (at < payload.len && payload.data[at] >= '0' && payload.data[at] <= '9')
        at++;
    return at;
}

/* `44/name,`: a comma ends the name, so it holds none. */
static size_t refusal_head(struct bytes payload)
{
    const char *comma = memchr(payload.data, ',', payload.len);
    REQUIRE(comma);
    return (size_t)(comma - payload.data) + 1;
}

static void check(const struct adapter *adapter, struct bytes text)
{
    static struct buf out;
    static const struct adapter_limits limits = {
        .json_depth = 32, .join_event = BYTES_LIT("join"), .leave_event = BYTES_LIT("exit")};
    struct intent intent;
    adapter->parse(text, &limits, &intent);
    fuzz_require_intent(&intent, text);
    fuzz_answer(adapter, &intent, &out, packet_head);
    if (intent.namespace_.len > 0) {
        REQUIRE(intent.op == INTENT_BAD);
        adapter->append_namespace_refused(&out, intent.namespace_);
        REQUIRE(out.len > 0);
        fuzz_require_frames(&out, refusal_head);
    }
    if (intent.op == INTENT_ENGINE_PING) {
        adapter->append_engine_pong(&out, intent.engine_data);
        struct bytes rest = buf_view(&out);
        struct bytes pong = fuzz_take_frame(&rest);
        REQUIRE(pong.len == text.len && rest.len == 0 && pong.data[0] == '3');
        buf_clear(&out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes text = bytes_of((const char *)data, size);
    check(&adapter_engineio3, text);
    check(&adapter_engineio4, text);
    return 0;
}
