/* A viewer's message on /ws: whatever it is, the intent holds only what lies in it, and the answer is JSON. */
#include "fuzz_protocol.h"

static size_t no_head(struct bytes payload)
{
    (void)payload;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf out;
    static const struct adapter_limits limits = {.json_depth = 32};
    struct bytes text = bytes_of((const char *)data, size);
    struct intent intent;
    adapter_native.parse(text, &limits, &intent);
    fuzz_require_intent(&intent, text);
    REQUIRE(intent.fatal_close == 0 && intent.namespace_.len == 0);
    /* What a worker takes for a request is JSON for others too. */
    if (!intent.unreadable)
        REQUIRE(json_check(text, 32, NULL) == JSON_OK);
    fuzz_answer(&adapter_native, &intent, &out, no_head);
    return 0;
}
