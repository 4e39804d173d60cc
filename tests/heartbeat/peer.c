#include "heartbeat/peer.h"

#include "base/clock.h"

static void note_ping(struct peer *peer, uint64_t now)
{
    uint64_t since = now - peer->last_ping_ms;
    peer->shortest_ms = since < peer->shortest_ms ? since : peer->shortest_ms;
    peer->longest_ms = since > peer->longest_ms ? since : peer->longest_ms;
    peer->last_ping_ms = now;
    peer->pings++;
    if (peer->first_asked_ms > 0)
        return;
    uint64_t silence = now - peer->heard_ms;
    peer->first_asked_ms = now;
    if (silence > peer->longest_silence_ms)
        peer->longest_silence_ms = silence;
    if (silence < peer->shortest_silence_ms)
        peer->shortest_silence_ms = silence;
}

/* Returns when the gateway looks again. */
static uint64_t look(struct peer *peer, struct halley_heartbeat *beat, uint64_t now)
{
    uint32_t clock = peer->clock_start + (uint32_t)now;
    uint32_t random = (uint32_t)(random_next(&peer->seed) >> 32);
    struct halley_heartbeat_verdict verdict =
        halley_heartbeat_check(beat, &peer->policy, clock, random);
    peer->looks++;
    if (verdict.action == HALLEY_HEARTBEAT_PING)
        note_ping(peer, now);
    peer->dead = verdict.action == HALLEY_HEARTBEAT_DEAD;
    uint32_t late = peer->looks_late_ms;
    return now + verdict.next_ms + (late ? (random_next(&peer->seed) >> 32) % (late + 1) : 0);
}

static void hear(struct peer *peer, struct halley_heartbeat *beat, uint64_t now)
{
    halley_heartbeat_heard(beat, peer->clock_start + (uint32_t)now);
    peer->heard_ms = now;
    peer->first_asked_ms = 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void peer_play(struct peer *peer, uint64_t end_ms)
{
    struct halley_heartbeat beat;
    uint64_t next_look = 1;
    uint64_t next_send = peer->sends_every_ms ? peer->sends_every_ms : UINT64_MAX;
    uint64_t next_answer = UINT64_MAX;
    uint64_t now = 0;
    peer->shortest_ms = peer->shortest_silence_ms = UINT64_MAX;
    halley_heartbeat_init(&beat, peer->clock_start);
    while (!peer->dead && now < end_ms) {
        now = least(least(next_look, next_send), least(next_answer, end_ms));
        if (now == next_send || now == next_answer) {
            if (now < peer->dies_at_ms)
                hear(peer, &beat, now);
            if (now == next_answer)
                next_answer = UINT64_MAX;
            if (now == next_send)
                next_send = now < peer->dies_at_ms ? now + peer->sends_every_ms : UINT64_MAX;
        }
        if (now != next_look)
            continue;
        uint64_t pings = peer->pings;
        next_look = look(peer, &beat, now);
        if (peer->pings > pings && peer->answers_after_ms != UINT32_MAX)
            next_answer = least(next_answer, now + peer->answers_after_ms);
    }
    peer->ended_ms = now;
}
