/* merge_down.c: messages of merged types on their way down: one per room, type and window, however many nodes and backends publish. */
#include "node/internal.h"

#include "base/log.h"

struct down {
    struct merge_entry base;
    struct merge_sum sum;   /* MERGE_SUM */
    struct message *newest; /* MERGE_LATEST */
};

/* Makes the message of a window, as the conf now has its type. NULL: out of memory. */
static struct message *make(const struct node *node, const struct merge_entry *entry,
                            const struct merge_sum *sum)
{
    struct buf data = {0};
    uint16_t index = conf_type_find(node->conf, merge_type(entry));
    merge_append(&data, sum);
    struct message_parts parts = {.type = merge_type(entry), .data = buf_view(&data)};
    struct message *message = data.failed
                                  ? NULL
                                  : message_create(entry->room_len ? MESSAGE_ROOM : MESSAGE_ALL,
                                                   merge_room(entry), &parts);
    buf_fini(&data);
    if (message) {
        message->lane = node->conf->types[index].lane;
        message->type_index = index;
    }
    return message;
}

static void send_window(struct node *node, struct down *down)
{
    bool sums = !down->newest || down->sum.delta > 0 || down->sum.has_total;
    struct message *message = sums ? make(node, &down->base, &down->sum) : NULL;
    if (message)
        dispatch_deliver(node, message);
    if (down->newest) /* both: a reload changed the type's kind */
        dispatch_deliver(node, down->newest);
    message_unref(message);
    message_unref(down->newest);
    down->newest = NULL;
    down->sum = (struct merge_sum){0};
    down->base.count = 0;
}

static void drop_malformed(struct node *node, const struct message *message)
{
    metric_add(&node->metrics.payload_bad, 1);
    log_limited(
        LOG_LEVEL_WARN, "payload dropped: data of a type that is added up must be an object",
        LOG_BYTES("room", message->room), LOG_BYTES("type", message->type),
        LOG_STR("expected", "{\"delta\":37,\"total\":123456} or the field that is added up"));
}

void merge_down_put(struct node *node, const struct conf_type *type, struct message *message)
{
    struct merge_sum sum = {0};
    uint64_t now = uv_now(&node->loop);
    metric_add(&node->metrics.merged_down, 1);
    if (type->merge_kind == MERGE_SUM &&
        merge_read_sum(message->data, conf_type_field(type), &sum) != 0) {
        drop_malformed(node, message);
        return;
    }
    struct merge_entry *entry = merger_find(&node->downs, message->room, message->type);
    bool first = !entry;
    if (first)
        entry = merger_open(&node->downs, message->room, message->type, node->conf->limits.merges,
                            now, type->window_ms);
    if (!entry) { /* the viewers get it all the same, only less gathered */
        metric_add(&node->metrics.merge_unmerged, 1);
        dispatch_deliver(node, message);
        return;
    }
    struct down *down = CONTAINER_OF(entry, struct down, base);
    entry->count++;
    if (type->merge_kind == MERGE_SUM) {
        merge_add(&down->sum, &sum);
    } else {
        message_unref(down->newest);
        down->newest = message_ref(message);
    }
    if (first)
        send_window(node, down);
    merges_start_ticking(node);
}

void merge_down_tick(struct node *node, uint64_t now)
{
    struct merge_entry *entry;
    while ((entry = merger_next(&node->downs, now))) {
        const struct conf_type *type =
            &node->conf->types[conf_type_find(node->conf, merge_type(entry))];
        if (entry->count == 0) {
            merger_close(&node->downs, entry);
            continue;
        }
        send_window(node, CONTAINER_OF(entry, struct down, base));
        merger_reopen(&node->downs, entry, now, type->window_ms);
    }
    metric_set(&node->metrics.merges_down, node->downs.entries.count);
}

void merge_down_init(struct node *node)
{
    merger_init(&node->downs, sizeof(struct down), uv_now(&node->loop));
}

static void on_dropped(void *ctx, struct merge_entry *entry)
{
    (void)ctx;
    message_unref(CONTAINER_OF(entry, struct down, base)->newest);
}

void merge_down_fini(struct node *node)
{
    merger_fini(&node->downs, on_dropped, NULL);
}
