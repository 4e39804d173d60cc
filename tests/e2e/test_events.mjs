#!/usr/bin/env node
// The stream of events: connects, joins, leaves and closes, batched, bounded, and none unless the conf asks.

import { Halley, Native, Redis, WsRaw, assert, check, equal, finish, halleyBin, run, until } from './lib.mjs';

const redis = await Redis.start();
const start = (name, set, options = {}) =>
    Halley.start({
        name,
        redis,
        workers: 2,
        set: { 'server.node': name, 'limits.viewer_rate': 10000, 'limits.viewer_burst': 10000, ...set },
        ...options,
    });
const all = { 'events.kinds': 'connect,join,leave,close' };

async function events(match = () => true) {
    const list = await redis.command('XRANGE', 'halley:events', '-', '+');
    return list
        .map(([, fields]) => {
            const event = {};
            for (let i = 0; i < fields.length; i += 2) event[fields[i]] = fields[i + 1];
            return event;
        })
        .filter(match);
}
const of = (connection) => (event) => event.connection === connection;
const kinds = async (connection) => (await events(of(connection))).map((e) => e.event);
const clear = () => redis.command('DEL', 'halley:events');

await check('none are told as shipped', async () => {
    const quiet = await start('quiet', {});
    const viewer = await Native.in(quiet.port, '42', { user: 'amy' });
    await viewer.bye();
    await quiet.stop();
    equal(await redis.command('EXISTS', 'halley:events'), 0, 'the stream');
});

const n1 = await start('n1', all);

await check('a viewer connects, joins, leaves, closes: four entries in this order, with the documented fields', async () => {
    const before = Date.now();
    const viewer = await Native.open(n1.port, { user: 'amy', query: { session: 'tab' } });
    await viewer.join('42');
    equal((await viewer.request({ op: 'leave', room: '42' })).op, 'ack', 'leave');
    await viewer.bye();
    const id = viewer.welcome.connection;
    await until(async () => (await kinds(id)).length === 4, 'four events');
    const [connect, join, leave, close] = await events(of(id));
    const common = { node: 'n1', user: 'amy', connection: id, session: 'tab' };
    const without = ({ time, peer, open_ms, ...rest }) => rest;
    equal(without(connect), { event: 'connect', ...common, protocol: 'native' }, 'connect');
    equal(without(join), { event: 'join', node: 'n1', user: 'amy', connection: id, room: '42', session: 'tab' }, 'join');
    equal(without(leave), { event: 'leave', node: 'n1', user: 'amy', connection: id, room: '42', session: 'tab' }, 'leave');
    equal(without(close), { event: 'close', ...common, protocol: 'native', reason: 'client', code: '1000' }, 'close');
    assert(/^127\.0\.0\.1:\d+$/.test(connect.peer), `peer ${connect.peer}`);
    for (const e of [connect, join, leave, close])
        assert(Number(e.time) >= before - 1000 && Number(e.time) <= Date.now() + 1000, `time ${e.time}`);
    assert(Number(close.open_ms) >= 0 && Number(close.open_ms) < 60000, `open_ms ${close.open_ms}`);
});

await check('a viewer that goes leaves its rooms first; joining twice is one join; what was refused is none', async () => {
    const viewer = await Native.open(n1.port, { rooms: ['a', 'b'] });
    await viewer.join('a');
    await viewer.join('b');
    await viewer.request({ op: 'leave', room: 'nowhere' });
    viewer.ws.raw.reset();
    const id = viewer.welcome.connection;
    await until(async () => (await kinds(id)).length >= 6, 'six events');
    equal((await kinds(id)).map((k) => k), ['connect', 'join', 'join', 'leave', 'leave', 'close'], 'events');
    equal((await events(of(id))).at(-1).reason, 'reset', 'reason');
    const seen = (await events()).length;
    await WsRaw.open(n1.port, '/nothing').catch(() => {});
    await n1.http('GET', '/metrics');
    equal((await events()).length, seen, 'no event of a refused handshake');
});

await check('a kick tells its reason; Socket.IO viewers are told of too', async () => {
    const ws = await WsRaw.open(n1.port, '/socket.io/?EIO=4&transport=websocket&user=sio&room=r');
    await ws.nextText('the open packet');
    await ws.text('40');
    await until(async () => (await events((e) => e.user === 'sio' && e.event === 'join')).length === 1, 'joined');
    await n1.http('DELETE', '/v1/users/sio/connections');
    await until(async () => (await events((e) => e.user === 'sio' && e.event === 'close')).length === 1, 'closed');
    const close = (await events((e) => e.user === 'sio')).at(-1);
    equal([close.reason, close.code, close.protocol], ['kicked', '4010', 'engineio4'], 'close');
});

await check('only the kinds that the conf names are told', async () => {
    const some = await start('some', { 'events.kinds': 'close' });
    const viewer = await Native.in(some.port, '42');
    await viewer.bye();
    await until(async () => (await kinds(viewer.welcome.connection)).length === 1, 'one event');
    equal(await kinds(viewer.welcome.connection), ['close'], 'events');
    await some.stop();
});

await check('2,000 viewers come and go: every event is there, in batches', async () => {
    await clear();
    const before = await n1.metric('halley_events_total', 'result="added"');
    for (let i = 0; i < 2000; i += 100) {
        const viewers = await Promise.all(
            Array.from({ length: 100 }, (_, k) => Native.open(n1.port, { user: `u${i + k}`, rooms: ['crowd'], localAddress: `127.0.0.${2 + (k % 20)}` })),
        );
        await Promise.all(viewers.map((v) => v.next((m) => m.op === 'joined', 'joined')));
        for (const viewer of viewers) viewer.destroy();
    }
    await until(async () => (await n1.metric('halley_events_total', 'result="added"')) - before === 8000, '8,000 events', 20000);
    const list = await events();
    for (const kind of ['connect', 'join', 'leave', 'close'])
        equal(list.filter((e) => e.event === kind).length, 2000, kind);
    equal(await n1.metric('halley_events_total', 'result="dropped"'), 0, 'dropped');
}, 60000);

await check('the stream is kept near events.max_length', async () => {
    await clear();
    const short = await start('short', { 'events.kinds': 'connect', 'events.max_length': 100 });
    for (let i = 0; i < 10; i++) {
        const viewers = await Promise.all(Array.from({ length: 100 }, () => Native.open(short.port)));
        for (const viewer of viewers) viewer.destroy();
    }
    await until(async () => (await short.metric('halley_events_total', 'result="added"')) === 1000, '1,000 events');
    const length = await redis.command('XLEN', 'halley:events');
    assert(length >= 100 && length < 400, `entries: ${length}`);
    await short.stop();
});

await check('while Redis is away events wait up to events.pending, the rest is dropped and counted', async () => {
    const own = await Redis.start();
    const node = await start('bound', { 'events.kinds': 'connect', 'events.pending': 50 }, { redis: own });
    await own.kill();
    await until(async () => (await node.http('GET', '/readyz')).status === 503, 'not ready');
    const viewers = [];
    for (let i = 0; i < 80; i++) viewers.push(await Native.open(node.port));
    await until(async () => (await node.metric('halley_events_total', 'result="dropped"')) === 30, '30 are dropped');
    await own.restart();
    await until(async () => (await node.metric('halley_events_total', 'result="added"')) === 50, '50 have waited', 10000);
    equal(await own.command('XLEN', 'halley:events'), 50, 'entries');
    for (const viewer of viewers) viewer.destroy();
    await node.stop();
    await own.kill();
});

await check('a node that stops tells of the viewers that it sent away', async () => {
    await clear();
    const last = await start('last', { 'events.kinds': 'close', 'events.interval': '10s' });
    await Promise.all(Array.from({ length: 30 }, () => Native.open(last.port)));
    equal((await last.stop()).code, 0, 'exit code');
    const list = await events((e) => e.node === 'last');
    equal([list.length, new Set(list.map((e) => e.reason)).size, list[0]?.reason], [30, 1, 'drain'], 'closes');
});

await check('events.kinds with memory: is exit 78; unknown kinds are told', async () => {
    const memory = await run(halleyBin, ['-t', '-o', 'events.kinds=join']);
    equal(memory.code, 78, 'exit code');
    assert(/events\.kinds.*needs a Redis/.test(memory.stderr + memory.stdout), memory.stderr + memory.stdout);
    const odd = await run(halleyBin, ['-t', '-o', 'events.kinds=dance', '-o', 'broker.url=redis://127.0.0.1:1']);
    equal(odd.code, 78, 'exit code');
});

await finish();
