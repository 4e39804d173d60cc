/* kept.c: what publish.lua and queue.lua say of a message that is to be kept once. */
#include "node/internal.h"

struct kept kept_read(int result, const struct broker_value *value)
{
    struct kept kept = {KEPT_FAILED, result, {0}};
    struct bytes verdict = {0};
    if (result == BROKER_OK && value->kind == BROKER_ARRAY && value->count > 0) {
        verdict = value->items[0].text;
        kept.id = value->count > 1 ? value->items[1].text : kept.id;
    }
    if (bytes_is(verdict, "added")) {
        kept.verdict = KEPT_ADDED;
    } else if (bytes_is(verdict, "repeat")) {
        kept.verdict = KEPT_REPEAT;
    } else if (bytes_is(verdict, "other")) {
        kept.verdict = KEPT_OTHER;
        kept.result = PUBLISH_ERR_DUPLICATE;
    } else if (bytes_is(verdict, "full")) {
        kept.verdict = KEPT_FULL;
        kept.result = PUBLISH_ERR_QUEUE_FULL;
    } else if (result == BROKER_OK) {
        kept.result = BROKER_ERR_REFUSED;
    }
    return kept;
}
