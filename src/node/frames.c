/* frames.c: do messages fit one TCP segment of those who get them? */
#include "node/internal.h"

#include "base/log.h"
#include "protocol/adapter.h"

enum {
    FEW = 100,         /* one viewer in so many may have smaller segments than the common ones */
    AROUND_BYTES = 128 /* what a frame may have beyond its payload: frame head, room, quotes */
};

void frames_update(struct node *node)
{
    uint64_t viewers[SEGMENT_CLASSES] = {0};
    uint64_t total = 0;
    for (uint32_t w = 0; w < node->worker_count; w++) {
        const struct worker_metrics *metrics = worker_metrics(node->workers[w]);
        for (unsigned i = 0; i < SEGMENT_CLASSES; i++) {
            uint64_t here = metric_get(&metrics->segments[i]);
            viewers[i] += here;
            total += here;
        }
    }
    uint32_t common = 0;
    uint64_t smaller = 0;
    /* The first class is no size that a working network has. */
    for (unsigned i = 1; i < SEGMENT_CLASSES && total > 0 && common == 0; i++) {
        smaller += viewers[i];
        if (smaller > (total - viewers[0]) / FEW)
            common = segment_floors[i];
    }
    metric_set(&node->metrics.common_segment, common);
}

struct frame_size frames_measure(const struct node *node, enum message_kind kind, struct bytes name,
                                 struct bytes payload)
{
    struct message_scratch scratch;
    struct message_parts parts;
    struct frame_size size = {0};
    size.common = (uint32_t)metric_get(&node->metrics.common_segment);
    if (size.common == 0 || payload.len + AROUND_BYTES <= size.common ||
        envelope_parse(payload, (int)node->conf->limits.json_depth, &scratch, &parts) !=
            ENVELOPE_OK)
        return size;
    struct message *message = kind == MESSAGE_USER ? message_create_for(name, &parts)
                                                   : message_create(kind, name, &parts);
    if (!message)
        return size;
    struct buf frame = {0};
    adapter_native.append_message(&frame, message);
    size.bytes = (uint32_t)frame.len;
    buf_fini(&frame);
    message_unref(message);
    return size;
}

void frames_judge(struct node *node, enum message_kind kind, struct bytes name, struct bytes type,
                  struct bytes payload)
{
    struct frame_size size = frames_measure(node, kind, name, payload);
    if (!frame_is_long(&size))
        return;
    metric_add(&node->metrics.frames_long, 1);
    log_limited(LOG_LEVEL_INFO, "message does not fit one TCP segment of nearly all viewers",
                dispatch_whose(kind, name), LOG_BYTES("type", type),
                LOG_UINT("frame_bytes", size.bytes), LOG_UINT("segment_bytes", size.common));
}

void frames_warn(const struct frame_size *size, struct buf *out)
{
    if (!frame_is_long(size))
        return;
    buf_printf(out,
               "\"the frame has %u bytes, a TCP segment to 99 in 100 viewers here takes %u: it "
               "arrives in pieces, and one lost piece delays it\"",
               size->bytes, size->common);
}
