#!/usr/bin/env node
// The Redis broker against a real redis-server: delivery, subscriptions, a Redis that dies, comes back, or never answers.

import net from 'node:net';

import {
    Halley,
    Native,
    Redis,
    RedisClient,
    assert,
    atEnd,
    check,
    equal,
    finish,
    freePort,
    pause,
    until,
} from './lib.mjs';

const redis = await Redis.start();
const halley = await Halley.start({
    redis,
    workers: 2,
    set: { 'broker.linger': '1s', 'limits.viewer_rate': 10000, 'limits.viewer_burst': 10000 },
});
const port = halley.port;

// Viewers on both workers.
const spread = (count, room, options = {}) =>
    Promise.all(
        Array.from({ length: count }, (_, i) =>
            Native.in(port, room, { localAddress: `127.0.0.${10 + (i % 20)}`, ...options }),
        ),
    );

async function readyStatus(node = halley) {
    return (await node.http('GET', '/readyz')).status;
}

// ---- delivery

await check(
    'PUBLISH halley:room:{room} reaches every viewer of the room, on every worker, and nobody else',
    async () => {
        const viewers = await spread(12, '42');
        const outside = await Native.in(port, '43');
        equal(
            await redis.room('42', { type: 'chat', from: 'backend', id: 'x.1', data: { text: 'hello' } }),
            1,
            'subscribers: one connection per node',
        );
        for (const viewer of viewers) {
            const message = await viewer.message();
            equal(
                [message.type, message.room, message.from, message.id, message.data],
                ['chat', '42', 'backend', 'x.1', { text: 'hello' }],
                'message',
            );
        }
        await outside.alive();
        equal(outside.received.filter((m) => m.type).length, 0, 'messages in another room');
        for (const viewer of [...viewers, outside]) viewer.destroy();
    },
);

await check('PUBLISH halley:high:{room} and halley:all arrive', async () => {
    const [viewer] = await spread(1, '44');
    const loose = await Native.open(port, { localAddress: '127.0.0.99' });
    await redis.high('44', { type: 'gift', data: 'rose' });
    equal((await viewer.message('gift')).data, 'rose', 'data');
    await redis.publish('halley:all', { type: 'system', data: 'all' });
    for (const v of [viewer, loose]) {
        const message = await v.message('system');
        equal(['room' in message, message.data], [false, 'all'], 'message to all');
    }
    viewer.destroy();
    loose.destroy();
});

await check("a viewer's message and one over HTTP go through Redis: another subscriber sees them", async () => {
    const [viewer] = await spread(1, '45', { user: 'alice' });
    const other = await Halley.start({ redis, workers: 1 });
    const far = await Native.in(other.port, '45');
    await viewer.send({ op: 'send', room: '45', type: 'chat', data: 'by viewer' });
    await halley.publish('45', { type: 'chat', from: 'bot', data: 'by HTTP' });
    for (const v of [viewer, far]) {
        const got = [await v.message(), await v.message()].map((m) => [m.from, m.data]).sort();
        equal(
            got,
            [
                ['alice', 'by viewer'],
                ['bot', 'by HTTP'],
            ],
            'messages',
        );
        v.destroy();
    }
    await halley.publish(null, { type: 'system', data: 1 });
    equal(await other.stop().then((e) => e.code), 0, 'exit code of the second node');
});

await check(
    '2,000 messages of one room arrive in order at viewers on both workers',
    async () => {
        const viewers = await spread(8, '46');
        const count = 2000;
        for (let n = 0; n < count; n += 50) {
            await Promise.all(Array.from({ length: 50 }, (_, i) => redis.room('46', { type: 'chat', data: n + i })));
        }
        for (const viewer of viewers) {
            for (let n = 0; n < count; n++) equal((await viewer.message('chat', 10000)).data, n, 'next number');
            viewer.destroy();
        }
    },
    60000,
);

// ---- subscriptions

await check('a join is acked only after both channels are subscribed (20 fresh rooms)', async () => {
    const viewer = await Native.open(port);
    for (let i = 0; i < 20; i++) {
        const room = `sub-${i}`;
        await viewer.join(room);
        // The very next thing after the ack: nothing may be lost from here on.
        equal(await redis.room(room, { type: 'chat', data: i }), 1, `subscribers of room ${room} at its ack`);
        equal(
            await redis.high(room, { type: 'gift', data: i }),
            1,
            `subscribers of the high channel of ${room} at its ack`,
        );
        await viewer.message('chat');
        await viewer.message('gift');
        if (i % 2) await viewer.request({ op: 'leave', room });
    }
    viewer.destroy();
});

await check('one subscription per node, however many viewers; it lingers, then is given back', async () => {
    const channel = 'halley:room:{linger}';
    const viewers = await spread(6, 'linger');
    equal(await redis.subscribers(channel), 1, 'subscribers with six viewers');
    for (const viewer of viewers) viewer.destroy();
    const left = Date.now();
    await until(async () => (await redis.subscribers(channel)) === 0, 'the subscription is given back', 6000);
    const lingered = Date.now() - left;
    assert(lingered >= 800, `broker.linger = 1s is waited for, got ${lingered} ms`);
    equal(await redis.subscribers('halley:high:{linger}'), 0, 'subscribers of the high channel');
});

await check('a viewer that comes back while the subscription lingers keeps it', async () => {
    const [first, other] = [...(await spread(1, 'back')), ...(await spread(1, 'empty'))];
    first.destroy();
    const [second] = await spread(1, 'back');
    // A room that is left for good, and later, is given back first.
    other.destroy();
    await until(async () => (await redis.subscribers('halley:room:{empty}')) === 0, 'the other subscription is given back', 10000);
    equal(await redis.subscribers('halley:room:{back}'), 1, 'subscribers after the linger time');
    await redis.room('back', { type: 'chat', data: 1 });
    await second.message();
    second.destroy();
});

// ---- payloads that are wrong

await check('wrong payloads are counted and dropped; the room goes on', async () => {
    const [viewer] = await spread(1, 'wrong');
    const dropped = () => halley.metric('halley_payloads_dropped_total', 'malformed');
    const wrong = [
        'hello',
        '',
        '{',
        '[]',
        '"x"',
        'null',
        '42',
        '{"data":1}',
        '{"type":7}',
        '{"type":""}',
        '{"type":"Bad Type"}',
        '{"type":"halley","data":1}',
        '{"type":"connect"}',
        '{"type":"chat","data":}',
        '{"type":"chat","data":1}x',
        '{"type":"chat","from":7}',
        '{"type":"chat","from":"a\\u0000b"}',
        '{"type":"chat","id":{}}',
        '{"type":"chat","data":01}',
        Buffer.from([
            0x7b, 0x22, 0x74, 0x79, 0x70, 0x65, 0x22, 0x3a, 0x22, 0x63, 0x68, 0x61, 0x74, 0x22, 0x2c, 0x22, 0x64, 0x61,
            0x74, 0x61, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d,
        ]),
        Buffer.from([0, 1, 2, 3, 255]),
        `{"type":"chat","data":${'['.repeat(20000)}${']'.repeat(20000)}}`,
    ];
    const before = await dropped();
    for (const payload of wrong) await redis.room('wrong', payload);
    await redis.high('wrong', 'not json');
    await redis.publish('halley:all', 'not json');
    await redis.room('wrong', { type: 'chat', data: 'right' });
    equal((await viewer.message()).data, 'right', 'the first message that arrives');
    await until(
        async () => (await dropped()) - before === wrong.length + 2,
        `halley_payloads_dropped_total counts ${wrong.length + 2}`,
    );
    viewer.destroy();
});

await check(
    "a payload over its type's max_bytes, and one over broker.message_bytes, are dropped and counted",
    async () => {
        const [viewer] = await spread(1, 'big');
        const dropped = async () =>
            (await halley.metric('halley_payloads_dropped_total', 'too_large')) +
            (await halley.metric('halley_dropped_total', 'too_large'));
        const before = await dropped();
        await redis.room('big', { type: 'chat', data: 'x'.repeat(20000) });
        await redis.room('big', { type: 'chat', data: 'x'.repeat(300000) });
        await redis.room('big', { type: 'chat', data: 'small' });
        equal((await viewer.message()).data, 'small', 'the first message that arrives');
        await until(async () => (await dropped()) > before + 1, 'both are counted');
        viewer.destroy();
    },
);

// ---- Redis dies and comes back

await check(
    'Redis killed and started again under load: no viewer closed, told of the gap, whole again 2 s later',
    async () => {
        const rooms = ['k1', 'k2', 'k3'];
        const groups = await Promise.all(rooms.map((room) => spread(10, room)));
        const viewers = groups.flat();
        const loose = await Native.open(port);
        let loading = true;
        let accepted = 0;
        const load = (async () => {
            for (let n = 0; loading; n++) {
                try {
                    await Promise.all(
                        rooms.map((room) =>
                            redis.client.command(
                                'PUBLISH',
                                `halley:room:{${room}}`,
                                JSON.stringify({ type: 'chat', data: `load ${n}` }),
                            ),
                        ),
                    );
                    accepted++;
                } catch {
                    await pause(5);
                }
            }
        })();
        await until(() => accepted > 200, '200 rounds of load');

        await redis.kill();
        await until(async () => (await readyStatus()) === 503, '/readyz says 503');
        equal((await halley.http('GET', '/healthz')).status, 200, '/healthz meanwhile');
        const refused = await halley.http('POST', '/v1/rooms/k1/messages', { body: { type: 'chat', data: 1 } });
        equal([refused.status, refused.json?.error], [503, 'unavailable'], 'a publish over HTTP');
        assert(
            Number(refused.headers['retry-after']) >= 1,
            `Retry-After in seconds, got ${refused.headers['retry-after']}`,
        );
        const all = await halley.http('POST', '/v1/messages', { body: { type: 'system', data: 1 } });
        equal(all.status, 503, 'a publish to all over HTTP');
        const answer = await viewers[0].request({ op: 'send', room: 'k1', type: 'chat', data: 1 });
        equal([answer.op, answer.code], ['error', 'unavailable'], "a viewer's send");
        const late = await Native.open(port);
        equal(late.welcome.op, 'welcome', 'a new viewer meanwhile');
        await late.send({ op: 'join', room: 'k1', ref: 999001 });
        await loose.alive();

        await redis.restart();
        await until(async () => (await readyStatus()) === 200, '/readyz says 200 again', 10000);
        await pause(2000);
        loading = false;
        await load;
        for (const room of rooms) await redis.room(room, { type: 'chat', data: `after ${room}` });
        await redis.publish('halley:all', { type: 'system', data: 'after all' });
        for (const [i, group] of groups.entries()) {
            for (const viewer of group) {
                await viewer.next(
                    (m) => m.type === 'chat' && m.data === `after ${rooms[i]}`,
                    'the message published 2 s after Redis is back',
                );
                await viewer.next(
                    (m) => m.type === 'system' && m.data === 'after all',
                    'the message to all after Redis is back',
                );
                const gaps = viewer.received.filter((m) => m.op === 'gap');
                assert(
                    gaps.some((m) => m.room === rooms[i]),
                    `a gap notice for room ${rooms[i]}, got ${JSON.stringify(gaps)}`,
                );
                for (const gap of gaps)
                    assert(
                        ['high', 'normal', 'low'].includes(gap.lane),
                        `a gap names its lane, got ${JSON.stringify(gap)}`,
                    );
                assert(
                    gaps.some((m) => !m.room) && gaps.every((m) => m.join === false),
                    `nobody needs to join again without history, got ${JSON.stringify(gaps)}`,
                );
                assert(!viewer.ws.close && !viewer.ws.raw.ended, 'the viewer is still connected');
            }
        }
        await late.next(
            (m) => m.ref === 999001 && m.op === 'joined',
            'the ack of the join that was asked while Redis was away',
        );
        await late.next((m) => m.data === 'after k1', 'its message');
        assert(!loose.ws.raw.ended, 'the viewer without a room is still connected');
        assert((await halley.metric('halley_broker_reconnects_total')) >= 1, 'halley_broker_reconnects_total counts');
        assert((await halley.metric('halley_gaps_total')) >= 3, 'halley_gaps_total counts');
        for (const viewer of [...viewers, loose, late]) viewer.destroy();
    },
    60000,
);

await check('a publish after Redis came back is accepted again, by HTTP and by viewers', async () => {
    const [viewer] = await spread(1, 'again');
    await halley.publish('again', { type: 'chat', data: 1 });
    await viewer.message();
    equal((await viewer.request({ op: 'send', room: 'again', type: 'chat', data: 2 })).op, 'ack', 'answer');
    await viewer.message();
    viewer.destroy();
});

await check(
    '2,000 rooms are subscribed again after a reconnect, with at most 512 channels per command',
    async () => {
        const node = await Halley.start({
            redis,
            workers: 1,
            set: {
                'limits.rooms_per_viewer': 1000,
                'limits.private_bytes': '256k', // a thousand answers at once
                'limits.join_rate': 10000,
                'limits.join_burst': 10000,
                'limits.viewer_rate': 10000,
                'limits.viewer_burst': 10000,
            },
        });
        const viewers = await Promise.all([Native.open(node.port), Native.open(node.port)]);
        const joins = [];
        for (let i = 0; i < 2000; i++) joins.push(viewers[i % 2].join(`many-${i}`, 20000));
        await Promise.all(joins);
        equal(await redis.subscribers('halley:room:{many-1999}'), 1, 'subscribers of the last room');
        // A slow-motion MONITOR: the commands that the reconnect sends.
        const monitor = await RedisClient.connect(redis.port);
        const widths = [];
        monitor.pending.push({ resolve() {}, reject() {} });
        monitor.take = (data) => {
            monitor.lines = (monitor.lines || '') + data.toString();
            const lines = monitor.lines.split('\r\n');
            monitor.lines = lines.pop();
            for (const line of lines) if (/"SUBSCRIBE"/i.test(line)) widths.push(line.split('" "').length - 1);
        };
        monitor.socket.write('MONITOR\r\n');
        await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
        await until(
            async () => (await readyStatus(node)) === 503 || (await node.metric('halley_broker_reconnects_total')) > 0,
            'the loss is seen',
        );
        await until(async () => (await readyStatus(node)) === 200, '/readyz says 200 again', 15000);
        equal(await redis.subscribers('halley:room:{many-0}'), 1, 'subscribers of the first room');
        equal(await redis.subscribers('halley:high:{many-1999}'), 1, 'subscribers of the last high channel');
        await until(
            () => widths.reduce((a, b) => a + b, 0) >= 4000,
            `MONITOR shows 4,000 channels subscribed again`,
            5000,
        );
        assert(Math.max(...widths) <= 512, `at most 512 channels per command, got ${Math.max(...widths)}`);
        await redis.room('many-1234', { type: 'chat', data: 'here' });
        await viewers[0].message('chat');
        monitor.close();
        for (const viewer of viewers) viewer.destroy();
        await node.stop();
    },
    60000,
);

// ---- a Redis that is there and says nothing

await check(
    'a Redis that accepts and never answers is treated as away: viewers are served, publishes refused',
    async () => {
        const silentPort = await freePort();
        const sockets = new Set();
        const silent = net.createServer((socket) => {
            sockets.add(socket);
            socket.on('error', () => {});
            socket.on('close', () => sockets.delete(socket));
            socket.resume();
        });
        await new Promise((resolve) => silent.listen(silentPort, '127.0.0.1', resolve));
        const undo = atEnd(() => {
            for (const socket of sockets) socket.destroy();
            return new Promise((resolve) => silent.close(resolve));
        });
        const node = await Halley.start({
            ready: false,
            workers: 1,
            set: { 'broker.url': `redis://127.0.0.1:${silentPort}`, 'broker.reply_timeout': '300ms' },
        });
        await until(async () => (await node.http('GET', '/healthz')).status === 200, '/healthz says 200', 10000);
        await until(() => sockets.size > 0, 'the daemon connects');
        equal(await readyStatus(node), 503, '/readyz');
        const viewer = await Native.open(node.port);
        await viewer.alive();
        equal(
            (await node.http('POST', '/v1/rooms/a/messages', { body: { type: 'chat', data: 1 } })).status,
            503,
            'a publish',
        );
        // It gives up on the silent connections and tries again.
        const first = [...sockets];
        await until(() => first.some((socket) => !sockets.has(socket)), 'a silent connection is given up', 5000);
        await viewer.alive();
        viewer.destroy();
        equal((await node.stop()).code, 0, 'exit code');
        await undo();
    },
);

await check(
    'a Redis that stops answering (SIGSTOP) is noticed; after SIGCONT all is well again',
    async () => {
        const node = await Halley.start({
            redis,
            workers: 1,
            set: { 'broker.silence': '1s', 'broker.reply_timeout': '500ms' },
        });
        const viewer = await Native.in(node.port, 'stopped');
        redis.child.kill('SIGSTOP');
        try {
            await until(async () => (await readyStatus(node)) === 503, '/readyz says 503', 8000);
            equal(
                (await viewer.request({ op: 'send', room: 'stopped', type: 'chat', data: 1 })).code,
                'unavailable',
                'a send',
            );
        } finally {
            redis.child.kill('SIGCONT');
        }
        await until(async () => (await readyStatus(node)) === 200, '/readyz says 200 again', 10000);
        await redis.room('stopped', { type: 'chat', data: 'back' });
        await viewer.next((m) => m.data === 'back', 'a message');
        viewer.destroy();
        await node.stop();
    },
    40000,
);

// ---- other URLs

await check('a password in broker.url is used; a wrong one is never ready and says so', async () => {
    const guarded = await Redis.start({ password: 'open:sesame'.replace(':', '-') });
    const node = await Halley.start({ redis: guarded, workers: 1 });
    const viewer = await Native.in(node.port, 'pw');
    await guarded.room('pw', { type: 'chat', data: 1 });
    await viewer.message();
    const wrong = await Halley.start({
        ready: false,
        workers: 1,
        set: { 'broker.url': `redis://:nope@127.0.0.1:${guarded.port}` },
    });
    await wrong.waitLog(/WRONGPASS|invalid password|NOAUTH|refused/i, 5000);
    equal(await readyStatus(wrong), 503, '/readyz with a wrong password');
    assert(!wrong.log.includes('nope'), 'the password is not in the log');
    viewer.destroy();
    await wrong.stop();
    await node.stop();
});

await check('broker.prefix keeps environments apart', async () => {
    const node = await Halley.start({ redis, workers: 1, set: { 'broker.prefix': 'staging' } });
    const viewer = await Native.in(node.port, 'p');
    await redis.room('p', { type: 'chat', data: 'production' });
    await redis.publish('staging:room:{p}', { type: 'chat', data: 'staging' });
    equal((await viewer.message()).data, 'staging', 'the first message');
    viewer.destroy();
    await node.stop();
});

await finish();
