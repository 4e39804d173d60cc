#!/usr/bin/env node
// Merged types: likes of many viewers become one message per room and window, counted exactly, over two nodes and through a Redis that
// goes away. HALLEY_LIKES=1000000 sends so many (100,000 without it).

import { Halley, Native, Redis, assert, atEnd, check, checkBucket, equal, finish, pause, sanitized, until, within } from './lib.mjs';

const LIKES = Number(process.env.HALLEY_LIKES || (sanitized ? 20000 : 100000));
const VIEWERS = sanitized ? 200 : 2000;
const WINDOW_MS = 500;

const redis = await Redis.start();
const MERGED = {
    'type.like.route': 'broadcast',
    'type.like.merge': 'sum:n',
    'type.like.window': `${WINDOW_MS}ms`,
    'type.like.max_value': 100,
    'type.pos.route': 'broadcast',
    'type.pos.merge': 'latest',
    'type.pos.window': '300ms',
    'limits.viewer_rate': 100000,
    'limits.viewer_burst': 100000,
    'limits.refused_messages': 100000,
};
const start = (name, options = {}) =>
    Halley.start({ name, redis, workers: 2, ...options, set: { 'server.accept': 'spread', ...MERGED, ...options.set } });
const a = await start('a');
const b = await start('b');

let rooms = 0;
const freshRoom = () => `merge-${++rooms}`;
const LIKE = (room, n) => ({ op: 'send', room, type: 'like', ...(n === undefined ? {} : { data: { n } }) });
const likes = (viewer) => viewer.received.filter((m) => m.type === 'like');
const delta = (viewer) => likes(viewer).reduce((sum, m) => sum + m.data.delta, 0);
const totalOf = (room) => redis.command('HGET', `halley:total:{${room}}`, 'like').then(Number);

async function publishes() {
    const info = await redis.command('INFO', 'commandstats');
    return Number(/cmdstat_publish:calls=(\d+)/.exec(info)?.[1] || 0);
}

// The first of them need not wait: it arrives at once, the others with the end of a window.
const checkWindows = (count, windowMs, from, what) => {
    const most = 2 + Math.floor((performance.now() - from) / windowMs);
    assert(count <= most, `${what}: ${count} messages, ${most} may come in that time`);
};

await check('sum: one like after a rest arrives at once, as delta and total, without a sender', async () => {
    const room = freshRoom();
    const patient = { set: { 'type.like.window': '60s' } }; // longer than this check waits for anything
    const [one, two] = [await start('patient', patient), await start('patient too', patient)];
    const [viewer, other] = [await Native.in(one.port, room), await Native.in(two.port, room)];
    equal((await viewer.request(LIKE(room))).op, 'ack', 'answer');
    const message = await other.message('like');
    equal(message, { type: 'like', room, data: { delta: 1, total: 1 } }, 'what arrives');
    equal(await totalOf(room), 1, 'total on Redis');
    const ttl = await redis.command('PTTL', `halley:total:{${room}}`);
    assert(ttl > 86000000 && ttl <= 86400000, `the total expires after a day: ${ttl}`);
    await one.stop();
    await two.stop();
});

await check('sum: fields count; what is no such field is bad-message and counts nothing', async () => {
    const room = freshRoom();
    const viewer = await Native.in(a.port, room);
    for (const data of [{ n: -1 }, { n: 1.5 }, { n: '1' }, { n: null }, { n: 101 }, { n: 2 ** 60 }, [1], 7, null]) {
        const answer = await viewer.request({ op: 'send', room, type: 'like', data });
        equal(answer.code, 'bad-message', `answer to ${JSON.stringify(data)}`);
    }
    for (const data of [{ n: 7 }, { n: 0 }, {}, { n: 100, x: [] }, undefined])
        equal((await viewer.request({ op: 'send', room, type: 'like', data })).op, 'ack', JSON.stringify(data));
    await until(() => likes(viewer).at(-1)?.data.total === 109, 'a total of 7 + 0 + 1 + 100 + 1');
    equal(delta(viewer), 109, 'deltas');
    viewer.destroy();
});

await check('sum: a total that is as large as JSON readers take exactly stays there', async () => {
    const room = freshRoom();
    const viewer = await Native.in(a.port, room);
    await redis.command('HSET', `halley:total:{${room}}`, 'like', '9007199254740990');
    for (let i = 0; i < 3; i++) equal((await viewer.request(LIKE(room, 100))).op, 'ack', 'answer');
    await until(() => delta(viewer) === 300, 'all deltas');
    for (const message of likes(viewer)) equal(message.data.total, Number.MAX_SAFE_INTEGER, 'total');
    viewer.destroy();
});

await check('latest: the newest of a window arrives, with its sender; all of them are acked', async () => {
    const room = freshRoom();
    const [viewer, other] = [await Native.in(a.port, room, { user: 'alice' }), await Native.in(b.port, room)];
    const acks = [];
    const from = performance.now();
    for (let i = 0; i < 50; i++)
        acks.push(viewer.request({ op: 'send', room, type: 'pos', data: { at: i } }).then((answer) => answer.op));
    equal([...new Set(await Promise.all(acks))], ['ack'], 'answers');
    const last = await other.next((m) => m.type === 'pos' && m.data.at === 49, 'the newest');
    equal(last.from, 'alice', 'from');
    checkWindows(other.received.filter((m) => m.type === 'pos').length + 1, 300, from, '50 sends');
    viewer.destroy();
    other.destroy();
});

await check('down: plain messages of backends count as delta; what is malformed is dropped and counted', async () => {
    const room = freshRoom();
    const viewer = await Native.in(a.port, room);
    const bad = await a.metric('halley_payloads_dropped_total', 'malformed');
    const from = performance.now();
    for (let i = 0; i < 200; i++) await redis.room(room, { type: 'like', data: { n: 3 } });
    await redis.room(room, { type: 'like', data: { n: 'x' } });
    await redis.room(room, { type: 'like' });
    await redis.room(room, { type: 'like', data: { delta: 5, total: 1000 } });
    await until(() => delta(viewer) === 606, 'deltas of 200 x 3 + 1 + 5');
    checkWindows(likes(viewer).length, WINDOW_MS, from, '201 messages of backends');
    equal(likes(viewer).at(-1).data.total, 1000, 'the largest total');
    equal((await a.metric('halley_payloads_dropped_total', 'malformed')) - bad, 1, 'dropped');
    viewer.destroy();
});

await check('rates hold per viewer: what is past them is told and counts nothing', async () => {
    const slow = await start('slow', { set: { 'type.like.rate': 1, 'type.like.burst': 10 } });
    const room = freshRoom();
    const viewer = await Native.in(slow.port, room);
    const from = performance.now();
    const answers = await Promise.all(Array.from({ length: 30 }, () => viewer.request(LIKE(room, 2))));
    const acked = answers.filter((m) => m.op === 'ack').length;
    equal(answers.filter((m) => m.code === 'rate-limited').length, 30 - acked, 'the others');
    checkBucket(acked, { tried: 30, burst: 10, rate: 1, from }, '10 and one a second');
    await until(async () => (await totalOf(room)) === 2 * acked, 'total');
    await slow.stop();
});

await check('a rate of users holds over connections for merged types too', async () => {
    const strict = await start('strict', { set: { 'limits.user_rate': 1, 'limits.user_burst': 10 } });
    const room = freshRoom();
    const viewers = [];
    for (let i = 0; i < 6; i++) viewers.push(await Native.in(strict.port, room, { user: 'mallory' }));
    const from = performance.now();
    const answers = await Promise.all(viewers.flatMap((v) => Array.from({ length: 5 }, () => v.request(LIKE(room)))));
    const acked = answers.filter((m) => m.op === 'ack').length;
    checkBucket(acked, { tried: 30, burst: 10, rate: 1, from }, '10 and one a second');
    assert(answers.find((m) => m.code === 'rate-limited').retry_after_ms > 0, 'retry_after_ms');
    await until(async () => (await totalOf(room)) === acked, 'total');
    await strict.stop();
});

await check('Redis away: what is sent meanwhile is kept, acked late and counted once', async () => {
    const room = freshRoom();
    const [viewer, other] = [await Native.in(a.port, room), await Native.in(b.port, room)];
    equal((await viewer.request(LIKE(room))).op, 'ack', 'before');
    await redis.kill();
    await until(async () => (await a.metric('halley_broker_ready')) === 0, 'the node to notice');
    const acks = Array.from({ length: 500 }, () => viewer.request(LIKE(room, 2), 20000));
    await viewer.alive();
    await pause(2 * WINDOW_MS);
    equal(viewer.received.filter((m) => m.op === 'ack' || m.op === 'error').length, 0, 'answers while it is away');
    await redis.restart();
    for (const answer of await Promise.all(acks)) equal(answer.op, 'ack', 'answer once it is back');
    equal(await totalOf(room), 1000, 'total on the new, empty Redis');
    // The other node may have subscribed again too late for that message; the next total heals it.
    for (const node of [a, b]) await node.waitReady();
    equal((await viewer.request(LIKE(room, 5))).op, 'ack', 'one more');
    for (const v of [viewer, other]) await until(() => likes(v).at(-1)?.data.total === 1005, 'the total at a viewer');
    viewer.destroy();
    other.destroy();
});

// Between node and Redis: passes everything on until `cut` answers are to be lost.
async function lossyProxy() {
    const net = await import('node:net');
    const self = { lose: false, sockets: new Set() };
    const server = net.createServer((client) => {
        const upstream = net.connect(redis.port, '127.0.0.1');
        self.sockets.add(client);
        client.on('data', (data) => {
            if (self.lose && data.includes('EVAL')) {
                self.lose = false; // Redis carries it out, nobody hears of it
                upstream.removeAllListeners('data');
                upstream.once('data', () => client.destroy());
            }
            upstream.write(data);
        });
        upstream.on('data', (data) => client.write(data));
        for (const [one, two] of [[client, upstream], [upstream, client]]) {
            one.on('error', () => {});
            one.on('close', () => two.destroy());
        }
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    atEnd(() => {
        server.close();
        for (const socket of self.sockets) socket.destroy();
    });
    self.url = `redis://127.0.0.1:${server.address().port}`;
    return self;
}

await check('a batch whose answer was lost is sent again and counts once', async () => {
    const proxy = await lossyProxy();
    const node = await start('lossy', { redis: proxy });
    const room = freshRoom();
    const viewer = await Native.in(node.port, room);
    let sent = 0;
    for (let round = 0; round < 5; round++) {
        proxy.lose = true;
        const acks = Array.from({ length: 20 }, () => viewer.request(LIKE(room), 20000));
        for (const answer of await Promise.all(acks)) equal(answer.op, 'ack', 'answer');
        sent += 20;
        equal(proxy.lose, false, 'an answer was lost');
        equal(await totalOf(room), sent, `total after ${round + 1} lost answers`);
    }
    await node.stop();
});

await check('a node that is stopped sends what it has gathered', async () => {
    const node = await start('leaving');
    const room = freshRoom();
    const [viewer, other] = [await Native.in(node.port, room), await Native.in(b.port, room)];
    await viewer.request(LIKE(room));
    for (let i = 0; i < 100; i++) await viewer.send(LIKE(room));
    await viewer.alive();
    await node.stop();
    await until(() => delta(other) === 101, 'all likes at a viewer of another node');
    equal(await totalOf(room), 101, 'total');
    other.destroy();
});

await check('without Redis: totals are the process’s own', async () => {
    const node = await start('alone', { redis: null });
    const room = freshRoom();
    const [viewer, other] = [await Native.in(node.port, room), await Native.in(node.port, room)];
    const from = performance.now();
    const acks = await Promise.all(Array.from({ length: 300 }, () => viewer.request(LIKE(room, 2))));
    equal([...new Set(acks.map((m) => m.op))], ['ack'], 'answers');
    await until(() => likes(other).at(-1)?.data.total === 600, 'total');
    equal(delta(other), 600, 'deltas');
    checkWindows(likes(other).length, WINDOW_MS, from, '300 likes');
    await node.stop();
});

await check(`${LIKES} likes of ${VIEWERS} viewers over two nodes: exact at every viewer, one publish per node and window`, async () => {
    const room = freshRoom();
    const viewers = [];
    for (let i = 0; i < VIEWERS; i += 100)
        viewers.push(
            ...(await Promise.all(Array.from({ length: 100 }, (_, j) => Native.in(j % 2 ? a.port : b.port, room)))),
        );
    const before = await publishes();
    const batches = (await a.metric('halley_merge_batches_total')) + (await b.metric('halley_merge_batches_total'));
    const each = LIKES / VIEWERS;
    const from = Date.now();
    for (let i = 0; i < each; i++) {
        await Promise.all(viewers.map((v) => v.send(`{"op":"send","room":"${room}","type":"like"}`)));
        if (i % 10 === 9) await viewers[i % VIEWERS].alive(60000); // no faster than they are read
    }
    await Promise.all(viewers.map((v) => v.alive(60000)));
    const sentMs = Date.now() - from;
    await until(() => viewers.every((v) => likes(v).at(-1)?.data.total === LIKES), 'the final total at everyone', 20000);
    const skipped = viewers.filter((v) => v.received.some((m) => m.op === 'skipped'));
    const wrong = viewers.filter((v) => !skipped.includes(v) && delta(v) !== LIKES);
    equal(wrong.length, 0, `viewers whose deltas are not ${LIKES}, such as ${wrong[0] && delta(wrong[0])}`);
    const windows = Math.ceil((Date.now() - from) / WINDOW_MS) + 1;
    const published = (await publishes()) - before;
    const sent = (await a.metric('halley_merge_batches_total')) + (await b.metric('halley_merge_batches_total')) - batches;
    const got = Math.max(...viewers.map((v) => likes(v).length));
    console.log(
        `# ${LIKES} likes in ${sentMs} ms: ${published} publishes on Redis, ${sent} batches, at most ${got} messages to a viewer, ` +
            `${windows} windows x 2 nodes; ${skipped.length} viewers skipped`,
    );
    equal(published, sent, 'publishes and batches');
    assert(published <= 2 * windows, `${published} publishes in ${windows} windows of two nodes`);
    assert(got <= windows, `${got} messages to a viewer in ${windows} windows`);
    for (const v of viewers) v.destroy();
}, 220000);

await finish();
