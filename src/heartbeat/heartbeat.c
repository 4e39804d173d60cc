#include "halley/heartbeat.h"

#include "base/minmax.h"

void halley_heartbeat_init(struct halley_heartbeat *beat, uint32_t now_ms)
{
    *beat = (struct halley_heartbeat){.heard_ms = now_ms, .pinged_ms = now_ms};
}

/* The wait until `full` ms after `since`, shortened by a random part of `jitter`; 0 when no more than that is left. */
static uint32_t wait_jittered(uint32_t since, uint32_t full, uint32_t jitter, uint32_t now_ms,
                              uint32_t random)
{
    uint32_t passed = now_ms - since;
    if (passed + jitter >= full)
        return 0;
    return full - passed - (jitter ? random % jitter : 0);
}

static uint32_t wait_plain(uint32_t since, uint32_t full, uint32_t now_ms)
{
    uint32_t passed =
        (int32_t)(now_ms - since) < 0 ? 0 : now_ms - since; /* asked_ms may be 1 ms ahead */
    return passed >= full ? 0 : full - passed;
}

static struct halley_heartbeat_verdict verdict(enum halley_heartbeat_action action,
                                               uint32_t next_ms)
{
    return (struct halley_heartbeat_verdict){action, next_ms ? next_ms : 1};
}

/* dead_in: what is left of the timeout when a ping is unanswered already. The next ping may be due before or after that. */
static struct halley_heartbeat_verdict ping(struct halley_heartbeat *beat, uint32_t now_ms,
                                            uint32_t dead_in, uint32_t due_in)
{
    beat->pinged_ms = now_ms;
    if (beat->asked_ms == 0)
        beat->asked_ms =
            now_ms | 1; /* a millisecond does not matter, a flag of its own does: one per viewer */
    return verdict(HALLEY_HEARTBEAT_PING, least(dead_in, due_in));
}

static struct halley_heartbeat_verdict check_client(const struct halley_heartbeat *beat,
                                                    const struct halley_heartbeat_policy *policy,
                                                    uint32_t now_ms)
{
    uint32_t wait = wait_plain(beat->heard_ms, policy->interval_ms + policy->timeout_ms, now_ms);
    return verdict(wait ? HALLEY_HEARTBEAT_WAIT : HALLEY_HEARTBEAT_DEAD, wait);
}

static struct halley_heartbeat_verdict check_server(struct halley_heartbeat *beat,
                                                    const struct halley_heartbeat_policy *policy,
                                                    uint32_t now_ms, uint32_t dead_in,
                                                    uint32_t random)
{
    uint32_t jitter = policy->interval_ms / 10;
    uint32_t wait = wait_jittered(beat->pinged_ms, policy->interval_ms, jitter, now_ms, random);
    if (wait == 0)
        return ping(beat, now_ms, dead_in, policy->interval_ms);
    return verdict(HALLEY_HEARTBEAT_WAIT, beat->asked_ms != 0 ? least(wait, dead_in) : wait);
}

static struct halley_heartbeat_verdict check_native(struct halley_heartbeat *beat,
                                                    const struct halley_heartbeat_policy *policy,
                                                    uint32_t now_ms, uint32_t dead_in,
                                                    uint32_t random)
{
    uint32_t patience = policy->interval_ms + HALLEY_HEARTBEAT_GRACE_MS;
    if (beat->asked_ms !=
        0) /* it may answer just behind this look, so the next one comes in time for another ping */
        return verdict(HALLEY_HEARTBEAT_WAIT, least(dead_in, patience));
    /* Half of the grace stays, so that a client that pings each interval is never asked, however long the interval is. */
    uint32_t jitter = least(policy->interval_ms / 10, HALLEY_HEARTBEAT_GRACE_MS / 2);
    uint32_t wait = wait_jittered(beat->heard_ms, patience, jitter, now_ms, random);
    if (wait == 0)
        return ping(beat, now_ms, dead_in, patience);
    return verdict(HALLEY_HEARTBEAT_WAIT, wait);
}

struct halley_heartbeat_verdict halley_heartbeat_check(struct halley_heartbeat *beat,
                                                       const struct halley_heartbeat_policy *policy,
                                                       uint32_t now_ms, uint32_t random)
{
    uint32_t dead_in = policy->timeout_ms;
    if (beat->asked_ms != 0) {
        dead_in = wait_plain(beat->asked_ms, policy->timeout_ms, now_ms);
        if (dead_in == 0)
            return verdict(HALLEY_HEARTBEAT_DEAD, 0);
    }
    switch (policy->style) {
    case HALLEY_HEARTBEAT_CLIENT:
        return check_client(beat, policy, now_ms);
    case HALLEY_HEARTBEAT_SERVER:
        return check_server(beat, policy, now_ms, dead_in, random);
    default:
        return check_native(beat, policy, now_ms, dead_in, random);
    }
}
