#!/usr/bin/env node
// One connection per session of a user, on whichever worker or node; and so many connections per user.

import { Halley, Native, Redis, RedisClient, WsRaw, assert, check, equal, finish, pause, until } from './lib.mjs';

const redis = await Redis.start();
const set = { 'limits.viewer_rate': 1000, 'limits.viewer_burst': 1000, 'broker.session_ttl': '3s' };
const nodes = await Promise.all(
    ['n1', 'n2'].map((name) => Halley.start({ name, redis, workers: 2, set: { ...set, 'server.node': name } })),
);
const [n1, n2] = nodes;
const alone = await Halley.start({ name: 'alone', workers: 2, set });

const come = (node, user, session, options = {}) =>
    Native.open(node.port, { ...(user ? { user } : {}), query: { session }, ...options });
const keyOf = (user, session) => `halley:session:${user}:${session}`;
const holder = async (user, session) => (await redis.command('GET', keyOf(user, session)))?.split(' ');
const replaced = async (viewer) => equal((await viewer.closing('4009')).code, 4009, 'close code');
const held = (viewer, user, session) =>
    until(async () => (await holder(user, session))?.[1] === viewer.welcome.connection, 'Redis knows the holder');
const gone = (user, session) => until(async () => !(await holder(user, session)), 'the key is deleted');

async function workersOf(node, user) {
    const { json } = await node.http('GET', `/v1/users/${encodeURIComponent(user)}/connections`);
    return json.connections.filter((c) => c.node === node.name || node === alone).map((c) => c.worker);
}

// ---- one node

for (const node of [alone, n1]) {
    await check(`${node.name}: a newer connection replaces the older one, on the same worker and on another`, async () => {
        const seen = new Set();
        let last = await come(node, 'ann', 's1', { localAddress: '127.0.0.30' });
        for (let i = 31; i < 40; i++) {
            const [before] = await workersOf(node, 'ann');
            const next = await come(node, 'ann', 's1', { localAddress: `127.0.0.${i}` });
            await replaced(last);
            const [after, ...more] = await workersOf(node, 'ann');
            equal(more, [], 'further connections');
            seen.add(before === after);
            last = next;
        }
        equal([...seen].sort(), [false, true], 'both cases were met');
        await last.alive();
        await last.bye();
    });

    await check(`${node.name}: other sessions, other users and guests are left alone`, async () => {
        const viewers = [
            await come(node, 'ann', 's1'),
            await come(node, 'ann', 's2'),
            await come(node, 'bob', 's1'),
            await come(node, null, 's1'),
            await come(node, null, 's1'),
            await Native.open(node.port, { user: 'ann' }),
            await Native.open(node.port, { user: 'ann' }),
        ];
        for (const viewer of viewers) await viewer.alive();
        for (const viewer of viewers) await viewer.bye();
    });
}

await check('a Socket.IO viewer that is replaced sees its transport close, without 41', async () => {
    for (const eio of [3, 4]) {
        const ws = await WsRaw.open(n1.port, `/socket.io/?EIO=${eio}&transport=websocket&user=sam&session=x`);
        await ws.nextText('the open packet');
        if (eio === 4) await ws.text('40');
        assert((await ws.nextText('40')).startsWith('40'), 'connected');
        await until(async () => (await holder('sam', 'x')) !== undefined, 'claimed');
        const next = await come(n2, 'sam', 'x');
        const close = await ws.closing('4009');
        equal(close.code, 4009, 'close code');
        const texts = ws.inbox.items.map((f) => String(f.payload));
        assert(!texts.includes('41'), `no 41, got ${texts}`);
        await next.bye();
        await gone('sam', 'x');
    }
});

// ---- two nodes

await check('a newer connection on another node replaces the older one; the order goes to its node alone', async () => {
    const spy = await RedisClient.connect(redis.port);
    const heard = [];
    spy.take = (data) => heard.push(String(data));
    spy.socket.write('PSUBSCRIBE halley:*\r\n');
    await until(() => heard.join('').includes('psubscribe'), 'the spy listens');
    const a = await come(n1, 'ann', 's1');
    await held(a, 'ann', 's1');
    const b = await come(n2, 'ann', 's1');
    await replaced(a);
    await held(b, 'ann', 's1');
    equal((await holder('ann', 's1'))[0], 'n2', 'the node in Redis');
    const c = await come(n1, 'ann', 's1');
    await replaced(b);
    await until(() => heard.join('').includes('halley:node:n2'), 'the second order');
    const channels = [...heard.join('').matchAll(/pmessage\r\n\$\d+\r\nhalley:\*\r\n\$\d+\r\n(\S+)/g)].map((m) => m[1]);
    equal(channels, ['halley:node:n1', 'halley:node:n2'], 'channels');
    await c.alive();
    await c.bye();
    await gone('ann', 's1');
    spy.close();
});

await check('the key is deleted only by who holds it', async () => {
    const a = await come(n1, 'ann', 's1');
    await held(a, 'ann', 's1');
    const b = await come(n2, 'ann', 's1');
    await replaced(a);
    await until(async () => (await n1.metric('halley_sessions')) === 0, 'n1 has let go');
    equal((await holder('ann', 's1'))[1], b.welcome.connection, 'the holder');
    await b.bye();
    await gone('ann', 's1');
});

await check('who comes back to the same node at once keeps the session, 50 times', async () => {
    let viewer = await come(n1, 'ann', 'back', { localAddress: '127.0.0.50' });
    for (let i = 0; i < 50; i++) {
        viewer.ws.raw.reset();
        viewer = await come(n1, 'ann', 'back', { localAddress: `127.0.0.${51 + (i % 9)}` });
    }
    await held(viewer, 'ann', 'back');
    await until(async () => (await n1.viewers()) === 1, 'the others have gone');
    await viewer.alive();
    equal((await holder('ann', 'back'))[1], viewer.welcome.connection, 'the holder');
    await viewer.bye();
    await gone('ann', 'back');
});

await check('200 connections of one session fight over two nodes: one is left, and Redis knows it', async () => {
    const all = [];
    for (let i = 0; i < 200; i += 10)
        all.push(
            ...(await Promise.all(
                Array.from({ length: 10 }, (_, k) => come(nodes[k % 2], 'war', 's', { localAddress: `127.0.0.${60 + k}` })),
            )),
        );
    const count = async () => (await n1.http('GET', '/v1/users/war/connections')).json.count;
    await until(async () => (await count()) === 1, 'one connection is left', 10000);
    const [id] = (await n2.http('GET', '/v1/users/war/connections')).json.connections.map((c) => c.connection);
    await until(async () => (await holder('war', 's'))?.[1] === id, 'the key names it');
    const left = all.find((v) => v.welcome.connection === id);
    await left.alive();
    await left.bye();
    for (const viewer of all) viewer.destroy();
    await gone('war', 's');
});

await check("no user can meet another's session, whatever their names are made of", async () => {
    const a = await come(n1, 'x:y', 'z');
    const b = await come(n2, 'x', 'y:z');
    const c = await come(n2, 'x%3Ay', 'z');
    await held(a, 'x%3Ay', 'z');
    await held(b, 'x', 'y:z');
    await held(c, 'x%253Ay', 'z');
    for (const viewer of [a, b, c]) {
        await viewer.alive();
        await viewer.bye();
    }
});

// ---- time, and what gets lost

await check('a held key is renewed, and set again when it is lost', async () => {
    const a = await come(n1, 'ann', 'long');
    await held(a, 'ann', 'long');
    await pause(3500); // longer than broker.session_ttl
    await held(a, 'ann', 'long');
    await until(async () => (await redis.command('PTTL', keyOf('ann', 'long'))) > 1000, 'it has time left');
    await redis.command('DEL', keyOf('ann', 'long'));
    await held(a, 'ann', 'long');
    await a.bye();
    await gone('ann', 'long');
});

await check('an order that got lost is made up for by the next renewal; an older claim is overruled', async () => {
    const a = await come(n1, 'ann', 'lost');
    await held(a, 'ann', 'lost');
    await redis.command('SET', keyOf('ann', 'lost'), `n9 ${'0'.repeat(20)} 1000`);
    await held(a, 'ann', 'lost');
    await redis.command('SET', keyOf('ann', 'lost'), `n9 ${'0'.repeat(20)} ${Date.now() + 100000}`);
    await replaced(a);
    equal((await holder('ann', 'lost'))[0], 'n9', 'the newer one keeps it');
    await redis.command('SET', keyOf('bob', 'odd'), 'nonsense');
    const b = await come(n2, 'bob', 'odd');
    await held(b, 'bob', 'odd');
    await b.bye();
});

await check('a claim that Redis refused for a while does not take the session from a newer connection', async () => {
    await redis.command('HSET', keyOf('ann', 'late'), 'no', 'text');
    const a = await come(n1, 'ann', 'late');
    await n1.waitLog(/redis refuses a command/);
    await pause(10); // times of coming are told apart by milliseconds
    await redis.command('DEL', keyOf('ann', 'late'));
    const b = await come(n2, 'ann', 'late');
    await replaced(a);
    await held(b, 'ann', 'late');
    await b.alive();
    await b.bye();
    await gone('ann', 'late');
});

await check('while Redis is away a session is kept apart within the node; afterwards over all nodes', async () => {
    const a = await come(n1, 'ann', 'away');
    await held(a, 'ann', 'away');
    await redis.kill();
    for (const node of nodes) await until(async () => (await node.http('GET', '/readyz')).status === 503, 'not ready');
    const b = await come(n2, 'ann', 'away');
    const c = await come(n2, 'ann', 'away');
    await replaced(b);
    await a.alive();
    await redis.restart();
    await replaced(a);
    await held(c, 'ann', 'away');
    await c.alive();
    await c.bye();
    await gone('ann', 'away');
});

await check('a node that is killed leaves a key that expires, and stands in nobody\'s way', async () => {
    const third = await Halley.start({ name: 'n3', redis, workers: 1, set: { ...set, 'server.node': 'n3' } });
    const a = await come(third, 'ann', 'dead');
    await held(a, 'ann', 'dead');
    third.told = true;
    third.child.kill('SIGKILL');
    await third.exit;
    const b = await come(n1, 'ann', 'dead');
    await held(b, 'ann', 'dead');
    await b.alive();
    await b.bye();
    await gone('ann', 'dead');
});

// ---- limits.user_connections

await check('limits.user_connections: the newest past it is closed with 4012, others stay; who leaves makes room', async () => {
    const node = await Halley.start({ workers: 2, set: { ...set, 'limits.user_connections': 3 } });
    const at = (i) => ({ localAddress: `127.0.0.${70 + i}` });
    const three = [];
    for (let i = 0; i < 3; i++) three.push(await Native.open(node.port, { user: 'max', ...at(i) }));
    for (let i = 3; i < 6; i++) {
        const extra = await Native.open(node.port, { user: 'max', ...at(i) });
        equal((await extra.closing('4012')).code, 4012, 'close code');
    }
    for (const viewer of three) await viewer.alive();
    for (const user of ['other', undefined]) {
        const viewer = await Native.open(node.port, { ...(user ? { user } : {}) });
        await viewer.alive();
        viewer.destroy();
    }
    await three.pop().bye();
    await until(async () => (await node.http('GET', '/v1/users/max/connections')).json.count === 2, 'one has left');
    const third = await come(node, 'max', 'tab', at(6));
    await third.alive();
    const again = await come(node, 'max', 'tab', at(7));
    await replaced(third);
    await again.alive();
    const other = await come(node, 'max', 'other-tab', at(8));
    equal((await other.closing('4012')).code, 4012, 'close code of another session');
    equal(await node.metric('halley_closes_total', 'reason="user_connections"'), 4, 'the metric');
    for (const viewer of [...three, again]) viewer.destroy();
    await node.stop();
});

await finish();
