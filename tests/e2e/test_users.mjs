#!/usr/bin/env node
// Messages to a user, kicks and "why does Bob get nothing?", over two nodes and all of their workers, and on one node alone.

import { createRequire } from 'node:module';

import { Halley, Native, RawSocket, Redis, assert, atEnd, check, equal, finish, requestHead, until, within } from './lib.mjs';

const require = createRequire(import.meta.url);
const redis = await Redis.start();
const set = { 'limits.viewer_rate': 1000, 'limits.viewer_burst': 1000 };
const nodes = await Promise.all(['n1', 'n2'].map((name) => Halley.start({ name, redis, workers: 2, set: { ...set, 'server.node': name } })));
const [n1, n2] = nodes;

const toUser = (node, user, body) => node.http('POST', `/v1/users/${encodeURIComponent(user)}/messages`, { body });
const ask = async (node, user) => {
    const answer = await node.http('GET', `/v1/users/${encodeURIComponent(user)}/connections`);
    equal(answer.status, 200, 'status');
    return answer.json;
};
const kick = (node, user) => node.http('DELETE', `/v1/users/${encodeURIComponent(user)}/connections`);

// The user's viewers on both workers of each node: addresses decide the worker.
const spread = (user, count = 3, where = nodes) =>
    Promise.all(
        where.flatMap((node) =>
            Array.from({ length: count }, (_, i) => Native.open(node.port, { user, localAddress: `127.0.0.${20 + i}` })),
        ),
    );

async function socketio(node, user) {
    const socket = require('socket.io-client').io(`http://127.0.0.1:${node.port}`, {
        transports: ['websocket'],
        forceNew: true,
        query: { user },
    });
    atEnd(() => socket.close());
    await within(new Promise((resolve) => socket.on('connect', resolve)), 5000, 'connect');
    return socket;
}

const destroy = (viewers) => viewers.forEach((v) => v.destroy());

// ---- messages

await check('a message to a user reaches all of his connections on all nodes and workers, and nobody else', async () => {
    const alice = await spread('alice', 4);
    const bob = await spread('bob', 1);
    const sio = await socketio(n2, 'alice');
    const event = within(new Promise((resolve) => sio.on('chat', resolve)), 5000, 'the event chat');
    const workers = new Set((await ask(n1, 'alice')).connections.map((c) => `${c.node} ${c.worker}`));
    equal(workers.size, 4, 'workers that hold one of them');
    await redis.publish('halley:users', '{"user":"alice","type":"chat","from":"shop","data":{"n":1.10}}');
    for (const viewer of alice) {
        const message = await viewer.message('chat');
        equal(message.$text, '{"type":"chat","from":"shop","data":{"n":1.10}}', 'the text, without room');
    }
    equal(await event, { from: 'shop', data: { n: 1.1 } }, 'the Socket.IO event');
    for (const viewer of bob) {
        await viewer.alive();
        equal(viewer.received.filter((m) => m.type).length, 0, "messages at another user's");
    }
    destroy([...alice, ...bob]);
    sio.close();
});

await check('POST /v1/users/<user>/messages does the same, and refuses what a room refuses', async () => {
    const viewers = await spread('carol smith', 2);
    const answer = await toUser(n2, 'carol smith', { type: 'system', data: 'hi', from: 'ops' });
    equal([answer.status, answer.json.warnings], [202, []], 'answer');
    for (const viewer of viewers) {
        const message = await viewer.message('system');
        equal([message.data, message.from, 'room' in message], ['hi', 'ops', false], 'message');
    }
    for (const [status, user, body] of [
        [400, 'carol', '{'],
        [400, 'carol', ''],
        [400, 'ca"rol', { type: 'chat' }],
        [422, 'carol', { type: 'nothing' }],
        [413, 'carol', { type: 'chat', data: 'x'.repeat(17000) }],
    ])
        equal((await toUser(n1, user, body)).status, status, `status of ${JSON.stringify(body).slice(0, 40)}`);
    destroy(viewers);
});

await check('guests are reached by the name that welcome told them', async () => {
    const [guest, other] = [await Native.open(n2.port), await Native.open(n2.port)];
    await toUser(n1, guest.welcome.user, { type: 'chat', data: 'you' });
    equal((await guest.message('chat')).data, 'you', 'data');
    await other.alive();
    equal(other.received.filter((m) => m.type).length, 0, 'messages at another guest');
    destroy([guest, other]);
});

await check('a message to a guest does not cost a look at every viewer', async () => {
    const count = 3000;
    const messages = 4000;
    const start = (name) => Halley.start({ redis, workers: 1, set: { ...set, 'server.node': name } });
    const [busy, calm] = [await start('busy'), await start('calm')];
    const others = [];
    try {
        while (others.length < count)
            others.push(...(await Promise.all(Array.from({ length: 100 }, (_, i) => RawSocket.connect(busy.port, { localAddress: `127.0.1.${i + 1}` })))));
        for (const other of others) other.socket.write(requestHead('/ws').text);
        const viewers = await Promise.all([busy, calm].map((node) => Native.in(node.port, 'guests')));
        await until(async () => (await busy.metric('halley_viewers', 'protocol="native"')) > count, 'all in', 20000);
        // Both nodes get the same messages at the same time; one of them holds nobody but its viewer.
        const used = [busy, calm].map((node) => node.cpu());
        for (let i = 0; i < messages; i++) redis.publish('halley:users', '{"user":"guest-00000000000000000000","type":"chat"}');
        redis.room('guests', { type: 'chat', data: 'behind them' });
        for (const viewer of viewers) equal((await viewer.message('chat', 30000)).data, 'behind them', 'the message behind');
        const [full, empty] = [busy, calm].map((node, i) => node.cpu() - used[i]);
        console.log(`# ${messages} messages to a guest: ${full.toFixed(2)} s of CPU with ${count} viewers, ${empty.toFixed(2)} s with one`);
        assert(full <= 3 * empty + 0.1, `${full.toFixed(2)} s of CPU with ${count} viewers, ${empty.toFixed(2)} s with one`);
        for (const viewer of viewers) viewer.destroy();
    } finally {
        for (const other of others) other.destroy();
        await Promise.all([busy.stop(), calm.stop()]);
    }
});

await check('500 messages to one user arrive in order at each of his connections', async () => {
    const viewers = await spread('dora', 2);
    for (let i = 0; i < 500; i++) redis.publish('halley:users', { user: 'dora', type: 'gift', data: i });
    for (const viewer of viewers)
        for (let i = 0; i < 500; i++) equal((await viewer.message('gift')).data, i, 'next');
    destroy(viewers);
});

await check('a passive viewer gets those of the high lane only', async () => {
    const viewer = await Native.open(n1.port, { user: 'pam' });
    equal((await viewer.request({ op: 'pace', mode: 'passive' })).op, 'ack', 'pace');
    await toUser(n2, 'pam', { type: 'chat', data: 1 });
    await toUser(n2, 'pam', { type: 'gift', data: 2 });
    equal((await viewer.message()).type, 'gift', 'the first that comes');
    viewer.destroy();
});

await check('a viewer who does not read is bounded: normal ones are dropped and counted, high ones close with 4008', async () => {
    const before = await n1.metric('halley_dropped_total', 'reason="private"');
    const slow = await Native.open(n1.port, { user: 'slow' });
    slow.ws.raw.pauseReading();
    const data = 'x'.repeat(8000);
    await until(
        async () => {
            for (let i = 0; i < 50; i++) await redis.publish('halley:users', { user: 'slow', type: 'chat', data });
            return (await n1.metric('halley_dropped_total', 'reason="private"')) > before;
        },
        'messages are dropped',
        20000,
    );
    const [seen] = (await ask(n2, 'slow')).connections;
    assert(seen.skipped > 0 && seen.private_bytes <= 32 * 1024, `skipped ${seen.skipped}, private ${seen.private_bytes}`);
    await until(
        async () => {
            for (let i = 0; i < 10; i++) await redis.publish('halley:users', { user: 'slow', type: 'gift', data });
            return (await ask(n2, 'slow')).count === 0;
        },
        'closed as too slow',
        20000,
    );
    assert((await n1.metric('halley_closes_total', 'reason="too_slow"')) >= 1, 'close reason too_slow');
    slow.destroy();
});

await check('payloads that make no sense are counted and logged, and hurt nobody', async () => {
    const before = await n1.metric('halley_payloads_dropped_total', 'reason="malformed"');
    const bad = ['oops', '[]', '{}', '{"type":"chat"}', '{"user":7,"type":"chat"}', '{"user":"a"}', '{"user":"a","op":"fly"}'];
    const worse = ['{"user":"a","op":"connections","node":"no name!","query":"1"}', `{"user":"${'x'.repeat(65)}","type":"chat"}`];
    for (const text of [...bad, ...worse]) await redis.publish('halley:users', text);
    const orders = ['oops', '{}', '{"op":"answer"}', '{"op":"fly"}', '{"op":"answer","query":7}'];
    for (const text of orders) await redis.publish('halley:node:n1', text);
    await redis.publish('halley:node:n1', '{"op":"answer","query":"ffff","count":1,"connections":[1]}');
    const expected = before + bad.length + worse.length + orders.length;
    await until(
        async () => (await n1.metric('halley_payloads_dropped_total', 'reason="malformed"')) === expected,
        `${expected} malformed payloads`,
    );
    assert(/payload dropped: malformed room=\(users\)/.test(n1.log), 'a log line');
});

// ---- questions

await check('GET …/connections tells of both nodes: rooms, lag per lane, skipped, rtt, last in and out', async () => {
    const viewers = await spread('tess', 2);
    for (const viewer of viewers) await viewer.join('42');
    for (const node of nodes) {
        const answer = await ask(node, 'tess');
        equal([answer.user, answer.count, answer.nodes, answer.complete], ['tess', 4, 2, true], 'the whole');
        equal(answer.connections.map((c) => c.node).sort(), ['n1', 'n1', 'n2', 'n2'], 'nodes');
        for (const c of answer.connections) {
            for (const key of ['connection', 'worker', 'protocol', 'peer', 'age_ms', 'last_in_ms', 'last_out_ms', 'rtt_ms', 'skipped'])
                assert(key in c, `a connection has ${key}`);
            equal(c.rooms.map((r) => r.room), ['42'], 'rooms');
            equal(Object.keys(c.rooms[0].lag), ['high', 'normal', 'low'], 'lag per lane');
        }
        const ids = answer.connections.map((c) => c.connection).sort();
        equal(ids, viewers.map((v) => v.welcome.connection).sort(), 'connections');
    }
    // The soonest of some: all of them would wait for the second, if one did that needs not.
    const took = [];
    for (let i = 0; i < 6; i++) {
        const start = performance.now();
        equal((await ask(nodes[i % 2], 'tess')).complete, true, 'complete');
        took.push(Math.round(performance.now() - start));
    }
    assert(Math.min(...took) < 900, `complete answers do not wait for the second, took ${took} ms`);
    equal(await ask(n1, 'nobody').then((a) => [a.count, a.nodes, a.complete]), [0, 2, true], 'nobody');
    destroy(viewers);
});

await check('a node that does not answer costs a second and is told', async () => {
    const viewers = await spread('nora', 1);
    n2.child.kill('SIGSTOP');
    try {
        const took = [];
        for (let i = 0; i < 2; i++) {
            const start = performance.now();
            const answer = await ask(n1, 'nora');
            took.push(Math.round(performance.now() - start));
            equal([answer.count, answer.nodes, answer.complete], [1, 1, false], 'answer');
        }
        assert(Math.min(...took) >= 950 && Math.min(...took) < 2500, `a second, took ${took} ms`);
    } finally {
        n2.child.kill('SIGCONT');
    }
    await until(async () => (await ask(n1, 'nora')).complete, 'complete again');
    destroy(viewers);
});

await check('100 questions at once are all answered', async () => {
    const viewers = await spread('quinn', 1);
    const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(nodes[i % 2], 'quinn')));
    for (const answer of answers) equal([answer.count, answer.complete], [2, true], 'answer');
    destroy(viewers);
});

// ---- kicks

await check('a kick closes all connections on all nodes with 4010 (Socket.IO: 41 first); others stay', async () => {
    const kim = await spread('kim', 3);
    const eve = await spread('eve', 1);
    const sio = await socketio(n1, 'kim');
    const gone = within(new Promise((resolve) => sio.on('disconnect', resolve)), 5000, 'disconnect');
    const answer = await kick(n2, 'kim');
    equal([answer.status, answer.json], [200, { user: 'kim', kicked: 7, nodes: 2, complete: true }], 'answer');
    for (const viewer of kim) equal((await viewer.closing('4010')).code, 4010, 'close code');
    equal(await gone, 'io server disconnect', 'the reason that a Socket.IO client sees');
    for (const viewer of eve) await viewer.alive();
    equal((await ask(n1, 'kim')).count, 0, 'connections afterwards');
    destroy(eve);
});

await check('a backend kicks over Redis', async () => {
    const ken = await spread('ken', 2);
    equal(await redis.publish('halley:users', { op: 'kick', user: 'ken' }), 2, 'nodes');
    for (const viewer of ken) equal((await viewer.closing('4010')).code, 4010, 'close code');
});

// ---- Redis away, and none at all

await check('while Redis is away a node answers for itself; afterwards users get a gap, then messages', async () => {
    const viewers = await spread('ray', 1);
    await redis.kill();
    await until(async () => (await n1.http('GET', '/readyz')).status === 503, 'not ready');
    const answer = await ask(n1, 'ray');
    equal([answer.count, answer.nodes, answer.complete], [1, 1, false], 'answer');
    equal((await toUser(n1, 'ray', { type: 'chat' })).status, 503, 'status of a message');
    await redis.restart();
    for (const node of nodes) await until(async () => (await node.http('GET', '/readyz')).status === 200, 'ready');
    for (const viewer of viewers) assert(!('room' in (await viewer.notice('gap'))), 'a gap without room');
    await toUser(n1, 'ray', { type: 'chat', data: 'again' });
    for (const viewer of viewers) equal((await viewer.message('chat')).data, 'again', 'data');
    destroy(viewers);
});

await check('with memory: the node alone', async () => {
    const alone = await Halley.start({ workers: 2, set });
    const bob = await spread('bob', 4, [alone]);
    equal((await toUser(alone, 'bob', { type: 'chat', data: 1 })).status, 202, 'status');
    for (const viewer of bob) equal((await viewer.message('chat')).data, 1, 'data');
    const answer = await ask(alone, 'bob');
    equal([answer.count, answer.nodes, answer.complete, answer.connections.length], [4, 1, true, 4], 'answer');
    equal((await kick(alone, 'bob')).json, { user: 'bob', kicked: 4, nodes: 1, complete: true }, 'kick');
    for (const viewer of bob) equal((await viewer.closing('4010')).code, 4010, 'close code');
    await alone.stop();
});

await finish();
