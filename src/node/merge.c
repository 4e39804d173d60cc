/* merge.c: the clock of the windows of merged types, up and down. It ticks only while one is open. */
#include "node/internal.h"

static void on_tick(uv_timer_t *timer)
{
    struct node *node = timer->data;
    uint64_t now = uv_now(&node->loop);
    if (node->merge_stopping)
        merger_end_all(&node->ups);
    merge_up_tick(node, now);
    merge_down_tick(node, now);
    bool over = node->ups.entries.count == 0 &&
                (node->merge_stopping || node->downs.entries.count == 0); /* nobody is left below */
    if (!over)
        return;
    uv_timer_stop(timer);
    if (node->merge_stopping)
        node_merged(node);
}

void merges_start_ticking(struct node *node)
{
    if (node->phase != PHASE_ENDING && !uv_is_active((uv_handle_t *)&node->merge_timer))
        uv_timer_start(&node->merge_timer, on_tick, MERGE_TICK_MS, MERGE_TICK_MS);
}

void merges_stop(struct node *node)
{
    node->merge_stopping = true;
    merges_start_ticking(node);
}

void merges_init(struct node *node)
{
    uv_timer_init(&node->loop, &node->merge_timer);
    node->merge_timer.data = node;
    merge_up_init(node);
    merge_down_init(node);
}

void merges_fini(struct node *node)
{
    merge_up_fini(node);
    merge_down_fini(node);
}
