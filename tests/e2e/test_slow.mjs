#!/usr/bin/env node
// Viewers that stop reading: the others go on, memory stays, and who reads again gets whole frames, a notice, then what is current.

import { Halley, Native, OP, Redis, WsRaw, assert, check, equal, finish, until } from './lib.mjs';

const redis = await Redis.start();
const halley = await Halley.start({
    redis,
    workers: 2,
    set: {
        'lane.normal.ttl': '2m',
        'limits.viewer_rate': 1000,
        'limits.viewer_burst': 1000,
        'presence.enabled': 'no', // every frame is accounted for
    },
});
const port = halley.port;
const pad = 'x'.repeat(1000);

// Publishes numbers from..to-1, in order: in steps of 60 KB, each when all `readers` (or the one) have received the one before, so
// that no viewer that reads falls behind a lane's 128 KB by the publisher's haste.
async function flood(room, from, to, readers, type = 'chat', channel = 'room') {
    for (let n = from; n < to; n += 60) {
        const end = Math.min(n + 60, to);
        await Promise.all(
            Array.from({ length: end - n }, (_, i) => redis[channel](room, { type, data: { n: n + i, pad } })),
        );
        await until(
            () => [readers].flat().every((reader) => lastNumber(reader) === end - 1),
            `message ${end - 1} at those who read`,
            20000,
            1,
        );
    }
}

function lastNumber(viewer) {
    const items = viewer.received;
    for (let i = items.length - 1; i >= 0; i--) if (items[i].type) return items[i].data.n;
    return -1;
}

// Numbers of the room messages and notices, in the order in which they came.
function order(viewer) {
    return viewer.received.filter((m) => m.type || m.op === 'skipped').map((m) => (m.op ? m : m.data.n));
}

async function readsUpTo(viewer, n, ms = 20000) {
    await until(() => viewer.received.some((m) => m.data?.n === n), `message ${n}`, ms);
}

await check(
    'a viewer that stops reading: the others get all in order; it gets whole frames, skipped, then current messages',
    async () => {
        const room = 'stall';
        const slow = await Native.in(port, room);
        const fast = await Promise.all(
            [3, 4, 5, 6].map((i) => Native.in(port, room, { localAddress: `127.0.0.${i}` })),
        );
        await flood(room, 0, 10, fast);
        await readsUpTo(slow, 9);
        const memory = halley.rssBytes();
        slow.ws.raw.pauseReading();
        const count = 5000; // 5 MB: far more than the kernel's buffers and the lane's 128 KB
        await flood(room, 10, count, fast);
        for (const viewer of fast) {
            await readsUpTo(viewer, count - 1, 20000);
            equal(
                order(viewer),
                Array.from({ length: count }, (_, n) => n),
                'what the others got',
            );
        }
        const grown = halley.rssBytes() - memory;
        assert(
            grown < 10e6 || process.env.HALLEY_BIN?.includes('san'),
            `less than 10 MB more memory, got ${Math.round(grown / 1e6)} MB`,
        );
        assert((await halley.metric('halley_viewers_blocked')) >= 1, 'halley_viewers_blocked shows it');

        slow.ws.raw.resumeReading();
        await readsUpTo(slow, count - 1);
        const notices = slow.received.filter((m) => m.op === 'skipped');
        const got = order(slow).filter((n) => typeof n === 'number');
        assert(
            got.every((n, i) => i === 0 || n > got[i - 1]),
            'numbers only rise',
        );
        const holes = got
            .map((n, i) => [got[i - 1], n])
            .slice(1)
            .filter(([a, b]) => b !== a + 1);
        assert(holes.length >= 1, 'something was skipped');
        equal(
            notices.map((m) => [m.room, m.lane, m.count]),
            holes.map(([a, b]) => [room, 'normal', b - a - 1]),
            'one notice per hole: room, lane, how many',
        );
        const missing = notices.reduce((sum, m) => sum + m.count, 0);
        const jumps = holes.slice(-1);
        assert(count - jumps[0][1] <= 128, `then at most the lane's bytes: from ${jumps[0][1]} on`);
        equal(
            await halley.metric('halley_dropped_total', 'reason="skipped"'),
            missing,
            'halley_dropped_total{reason="skipped"}',
        );

        await flood(room, count, count + 50, fast);
        await readsUpTo(slow, count + 49);
        equal(
            order(slow).slice(-50),
            Array.from({ length: 50 }, (_, i) => count + i),
            'current messages afterwards',
        );
        for (const viewer of [slow, ...fast]) viewer.destroy();
    },
    90000,
);

await check(
    'the skipped notice comes at the hole, not before and not after',
    async () => {
        const room = 'hole';
        const slow = await Native.in(port, room);
        const pacer = await Native.in(port, room);
        slow.ws.raw.pauseReading();
        await flood(room, 0, 2000, pacer);
        slow.ws.raw.resumeReading();
        await until(() => slow.received.some((m) => m.op === 'skipped'), 'the notice', 10000);
        await readsUpTo(slow, 1999);
        const seen = order(slow);
        for (const [at, notice] of seen.entries()) {
            if (typeof notice === 'number') continue;
            equal(notice.count, seen[at + 1] - (seen[at - 1] ?? -1) - 1, 'a notice stands where its count is missing');
        }
        slow.destroy();
        pacer.destroy();
    },
    60000,
);

await check(
    'a Socket.IO viewer that stops reading is told by the event halley',
    async () => {
        const room = 'stall-sio';
        const texts = [];
        const slow = await WsRaw.open(port, `/socket.io/?transport=websocket&room=${room}`, {
            keep: false,
            onFrame: (f) => texts.push(f.payload.toString()),
        });
        await until(() => texts.some((t) => t.includes('"joined"')), 'joined');
        const pacer = await Native.in(port, room);
        slow.raw.pauseReading();
        await flood(room, 0, 2000, pacer);
        slow.raw.resumeReading();
        await until(
            () => texts.some((t) => t.startsWith('42["chat"') && t.includes('"n":1999,')),
            'the last message',
            10000,
        );
        const notices = texts.filter((t) => t.startsWith('42["halley",{"op":"skipped"'));
        assert(notices.length >= 1, 'a notice');
        const chats = texts.filter((t) => t.startsWith('42["chat"')).map((t) => JSON.parse(t.slice(2))[1].data.n);
        equal(
            notices.reduce((sum, t) => sum + JSON.parse(t.slice(2))[1].count, chats.length),
            2000,
            'skipped and delivered together',
        );
        slow.destroy();
        pacer.destroy();
    },
    60000,
);

await check(
    'a pong asked for while blocked comes before the backlog; so does a message of the high lane',
    async () => {
        const room = 'overtake';
        const slow = await Native.in(port, room);
        const events = [];
        const take = slow.ws.options.onFrame;
        slow.ws.options.onFrame = (f, ws) => {
            if (f.opcode === OP.pong) events.push('pong');
            else if (f.opcode === OP.text) {
                const m = JSON.parse(f.payload);
                events.push(m.type === 'gift' ? 'gift' : m.op || m.data.n);
            }
            take(f, ws);
        };
        const other = await Native.in(port, room);
        slow.ws.raw.pauseReading();
        await flood(room, 0, 2000, other);
        await until(async () => (await halley.metric('halley_viewers_blocked')) === 1, 'the viewer is blocked');
        await slow.ws.send({ opcode: OP.ping, payload: 'overtake' });
        await slow.send({ op: 'ping', ref: 55 });
        await redis.high(room, { type: 'gift', data: 'rose' });
        await other.message('gift'); // so the gateway has handled all three
        slow.ws.raw.resumeReading();
        await until(() => events.includes(1999), 'the last message', 10000);
        for (const what of ['pong', 'gift']) {
            const at = events.indexOf(what);
            assert(at >= 0, `${what} came`);
            const behind = events.slice(at).filter((e) => typeof e === 'number').length;
            assert(
                behind >= 50,
                `at least 50 older messages of the normal lane came behind the ${what}, got ${behind}`,
            );
        }
        assert(events.filter((e) => e === 'pong').length >= 2, 'both the WebSocket pong and the native pong came');
        slow.destroy();
        other.destroy();
    },
    60000,
);

await check(
    'overflow = disconnect in the high lane: too slow closes with 4008; the others stay',
    async () => {
        const room = 'high';
        const slow = await Native.in(port, room);
        const fast = await Native.in(port, room, { localAddress: '127.0.0.9' });
        slow.ws.raw.pauseReading();
        for (let n = 0; n < 2000 && (await halley.metric('halley_closes_total', 'reason="too_slow"')) === 0; n += 200)
            await flood(room, n, n + 200, fast, 'gift', 'high');
        await until(
            async () => (await halley.metric('halley_closes_total', 'reason="too_slow"')) === 1,
            'halley_closes_total{reason="too_slow"} = 1',
            10000,
        );
        slow.ws.raw.resumeReading();
        const closed = await slow.closing('the end of the slow viewer', 10000);
        assert(
            closed === null || closed.code === 4008,
            `close code 4008 where one still gets through, got ${closed?.code}`,
        );
        const got = order(slow);
        assert(
            got.every((n, i) => typeof n === 'number' && n === i),
            'what it got is whole and without holes',
        );
        await fast.alive();
        equal(
            order(fast),
            order(fast).map((_, i) => i),
            'the fast viewer got all in order',
        );
        assert(!fast.ws.raw.ended, 'the fast viewer stays');
        fast.destroy();
    },
    60000,
);

await check(
    'lane.ttl: what is older than it is not sent to who reads again',
    async () => {
        const node = await Halley.start({ redis, workers: 1, set: { 'lane.normal.ttl': '1s' } });
        const slow = await Native.in(node.port, 'ttl');
        const pacer = await Native.in(node.port, 'ttl');
        slow.ws.raw.pauseReading();
        await flood('ttl', 0, 1500, pacer);
        await until(async () => (await node.metric('halley_viewers_blocked')) === 1, 'the viewer is blocked');
        await new Promise((resolve) => setTimeout(resolve, 2500));
        slow.ws.raw.resumeReading();
        await slow.notice('skipped', 10000);
        await flood('ttl', 1500, 1501, pacer);
        await readsUpTo(slow, 1500);
        const got = slow.received.filter((m) => m.type).map((m) => m.data.n);
        equal(got.at(-1), 1500, 'the last message');
        assert(got.at(-2) < 1499, `what waited longer than a second is left out: before 1500 came ${got.at(-2)}`);
        slow.destroy();
        pacer.destroy();
        await node.stop();
    },
    60000,
);

await check(
    '200 viewers stop reading under a flood: memory stays bounded, a healthy one is on time',
    async () => {
        const room = 'crowd';
        const crowd = await Promise.all(
            Array.from({ length: 200 }, (_, i) =>
                WsRaw.open(port, `/ws?room=${room}`, { localAddress: `127.0.2.${1 + (i % 200)}`, keep: false }),
            ),
        );
        const healthy = await Native.in(port, room);
        await until(async () => (await halley.metric('halley_memberships')) >= 201, 'all have joined');
        const memory = halley.rssBytes();
        for (const ws of crowd) ws.raw.pauseReading();
        const started = Date.now();
        await flood(room, 0, 2000, healthy);
        await readsUpTo(healthy, 1999, 20000);
        equal(
            order(healthy),
            Array.from({ length: 2000 }, (_, n) => n),
            'what the healthy viewer got',
        );
        const grown = halley.rssBytes() - memory;
        assert(
            grown < 10e6 || process.env.HALLEY_BIN?.includes('san'),
            `less than 10 MB more memory, got ${Math.round(grown / 1e6)} MB after ${Date.now() - started} ms`,
        );
        for (const ws of crowd) ws.destroy();
        healthy.destroy();
        await until(async () => (await halley.viewers()) === 0, 'all gone', 10000);
    },
    90000,
);

await finish();
