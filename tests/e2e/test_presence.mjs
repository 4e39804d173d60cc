#!/usr/bin/env node
// Who is online: counts of a room over all nodes, in joined, pong, notices and over HTTP; nodes that die, stop, come back; a
// Redis that forgets.

import { createRequire } from 'node:module';

import { Halley, Native, OP, Redis, assert, check, equal, finish, pause, until, within } from './lib.mjs';

const require = createRequire(import.meta.url);
const { io } = require('socket.io-client');

const online = async (node, room) => (await node.http('GET', `/v1/rooms/${room}`)).json?.online;
const source = (i) => ({ localAddress: `127.0.0.${10 + (i % 40)}` }); // over all workers
const enter = (node, room, count) =>
    Promise.all(Array.from({ length: count }, (_, i) => Native.in(node.port, room, source(i))));

async function all(nodes, room, expected, ms) {
    const started = Date.now();
    for (const node of nodes)
        await until(
            async () => (await online(node, room)) === expected,
            `${expected} online in ${room} for ${node.name}`,
            ms,
            50,
        );
    return Date.now() - started;
}

// Resolves when the viewer is told the count by a notice.
const told = (viewer, room, count, ms = 15000) =>
    viewer.next((m) => m.op === 'online' && m.room === room && m.online === count, `the notice of ${count} online`, ms);

// What came until now is not looked at any more.
const forget = (...viewers) => viewers.forEach((viewer) => (viewer.received.length = 0));

// ---- one node, memory:

const alone = await Halley.start({ name: 'alone', workers: 2, set: { 'presence.interval': '1s' } });

await check('memory: joined, pong, the notice and GET tell the count of all workers', async () => {
    const first = await Native.open(alone.port, source(0));
    equal((await first.join('m1')).online, 1, 'online in the first joined');
    const others = await enter(alone, 'm1', 20);
    await told(first, 'm1', 21);
    equal((await first.alive()).online, { m1: 21 }, 'online in pong');
    equal(await online(alone, 'm1'), 21, 'online over HTTP');
    equal((await (await Native.open(alone.port, source(3))).join('m1')).online >= 21, true, 'online in a later joined');
    await first.join('m2');
    equal(Object.keys((await first.alive()).online).sort(), ['m1', 'm2'], 'rooms in pong');
    forget(first); // 2 may have been told before the others were in
    for (const viewer of others) viewer.destroy();
    await until(async () => (await online(alone, 'm1')) === 2, 'who left is not counted');
    await told(first, 'm1', 2);
});

await check('a room of one: a later join and leave come out right too', async () => {
    for (let i = 0; i < 5; i++) {
        const viewer = await Native.in(alone.port, 'brief');
        await viewer.request({ op: 'leave', room: 'brief' });
        equal((await viewer.join('brief')).online, 1, `online in joined ${i}`);
        await until(async () => (await online(alone, 'brief')) === 1, 'one online');
        viewer.destroy();
        await until(async () => !((await online(alone, 'brief')) > 0), 'nobody online');
    }
});

await check('notices: at most one an interval, only when something changed, none for passive viewers', async () => {
    const from = Date.now();
    const watcher = await Native.in(alone.port, 'busy', source(1));
    const passive = await Native.in(alone.port, 'busy', source(2));
    await passive.request({ op: 'pace', mode: 'passive' });
    const times = [];
    const counts = [];
    let stop = false;
    const watch = (async () => {
        while (!stop) {
            const notice = await watcher.notice('online', 10000).catch(() => null);
            if (!notice) return;
            times.push(Date.now());
            counts.push(notice.online);
        }
    })();
    const viewers = [];
    for (let i = 0; i < 45; i++) {
        viewers.push(await Native.in(alone.port, 'busy', source(i)));
        await pause(100);
    }
    const last = 47;
    await until(() => counts.at(-1) === last, `${last} told`, 10000);
    const seen = counts.length;
    await pause(2500);
    equal(counts.length, seen, 'notices while nothing changed');
    stop = true;
    // One may come late and the next in time: so by the time that passed until each, not between two.
    times.forEach((at, i) => assert(i <= (at - from) / 900, `${i + 1} notices within ${at - from} ms`));
    for (let i = 1; i < counts.length; i++) assert(counts[i] !== counts[i - 1], `told twice: ${counts}`);
    assert(seen >= 3, `about one a second for 4.5 s, got ${seen}`);
    equal(passive.received.filter((m) => m.op === 'online').length, 0, 'notices of a passive viewer');
    for (const viewer of viewers) viewer.destroy();
    watcher.destroy();
    await watch;
});

await check('Socket.IO viewers get the notice as event halley, and online in the acknowledgement of a join', async () => {
    const socket = io(`http://127.0.0.1:${alone.port}`, { transports: ['websocket'], forceNew: true });
    const notices = [];
    socket.on('halley', (notice) => notices.push(notice));
    const answer = await within(
        new Promise((resolve) => socket.on('connect', () => socket.emit('join', 'sio', resolve))),
        5000,
        'the acknowledgement',
    );
    equal(answer, { ok: true, room: 'sio', online: 1 }, 'acknowledgement');
    const viewer = await Native.in(alone.port, 'sio');
    await until(() => notices.some((n) => n.op === 'online' && n.room === 'sio' && n.online === 2), 'the notice');
    viewer.destroy();
    socket.close();
});

await check('presence.enabled = no leaves online out', async () => {
    const without = await Halley.start({ set: { 'presence.enabled': 'no' } });
    const viewer = await Native.open(without.port);
    const joined = await viewer.join('none');
    equal('online' in joined, false, 'online in joined');
    equal('online' in (await viewer.alive()), false, 'online in pong');
    equal(await online(without, 'none'), undefined, 'online over HTTP');
    await without.stop();
});

// Nodes with conf of their own.
async function nodesAlone() {
    await check('broker.linger = 0: who leaves and is back at once counts, whenever the room is given up meanwhile', async () => {
        const node = await Halley.start({ name: 'brisk', workers: 2, set: { 'broker.linger': 0, 'limits.join_rate': 1000, 'limits.join_burst': 1000 } });
        const rooms = Array.from({ length: 40 }, (_, i) => `brisk${i}`);
        const viewers = await Promise.all(rooms.map((room, i) => Native.in(node.port, room, source(i))));
        // The node gives rooms up in each of its ticks of 500 ms, workers tell their counts every 100 ms: often enough for every order to occur.
        const wrong = [];
        await Promise.all(
            viewers.map(async (viewer, i) => {
                for (let n = 0; n < 20; n++) {
                    await viewer.request({ op: 'leave', room: rooms[i] });
                    await pause(10 + ((n * 7 + i * 3) % 50));
                    await viewer.join(rooms[i]);
                    await pause(250);
                    await until(async () => (await online(node, rooms[i])) === 1, 'one online', 5000, 100).catch(() => wrong.push(rooms[i]));
                }
            }),
        );
        equal(wrong, [], 'rooms whose only viewer is not counted');
        // Given up in the end, all of them.
        for (const viewer of viewers) viewer.destroy();
        await until(async () => (await node.metric('halley_rooms')) === 0, 'no room is held any more');
        await node.stop();
    });

    await check('a viewer who was refused a room (limits.rooms) and gets in at last counts', async () => {
        const node = await Halley.start({
            name: 'full',
            workers: 1,
            set: { 'broker.linger': 0, 'limits.rooms': 1, 'limits.join_rate': 100000, 'limits.join_burst': 100000, 'limits.viewer_rate': 100000, 'limits.viewer_burst': 100000 },
        });
        const wrong = [];
        const [holder, waiter] = [await Native.open(node.port), await Native.open(node.port)];
        for (let round = 0; round < 12; round++) {
            await holder.join('held');
            let refused = 0;
            const enter = (async () => {
                for (;;) {
                    const answers = await Promise.all(Array.from({ length: 8 }, () => waiter.request({ op: 'join', room: 'wanted' })));
                    if (answers.some((answer) => answer.op === 'joined')) return;
                    refused += answers.length;
                }
            })();
            await until(() => refused > 0, 'refused');
            await pause(100 + 37 * round);
            await holder.request({ op: 'leave', room: 'held' });
            await within(enter, 5000, 'the room that is free now');
            const one = until(async () => (await online(node, 'wanted')) === 1, 'one online', 5000, 100);
            await one.catch(async () => wrong.push(await online(node, 'wanted')));
            await waiter.request({ op: 'leave', room: 'wanted' });
            await until(async () => (await node.metric('halley_rooms')) === 0, 'no room is held');
        }
        equal(wrong, [], 'counts of the one who got in');
        await node.stop();
    });
}

// ---- three nodes, a real Redis, shipped times

async function trio() {
    const redis = await Redis.start();
    const start = (name) => Halley.start({ name, redis, workers: 2, set: { 'server.node': name, 'broker.linger': '1s' } });
    return { redis, start, nodes: await Promise.all(['n1', 'n2', 'n3'].map((name) => start(name))) };
}

async function nodesThatEnd() {
    const { start, nodes } = await trio();

    await check('three nodes: each knows the sum, within the interval and a tick', async () => {
        const viewers = [];
        for (const [i, node] of nodes.entries()) viewers.push(...(await enter(node, 'sum', 3 + i)));
        const took = await all(nodes, 'sum', 12, 8000);
        console.log(`# all nodes had the sum after ${took} ms`);
        for (const viewer of [viewers[0], viewers[4], viewers[9]]) {
            await told(viewer, 'sum', 12);
            equal((await viewer.alive()).online, { sum: 12 }, 'online in pong');
        }
        equal((await (await Native.open(nodes[2].port)).join('sum')).online, 12, 'online in joined, the newest not yet in it');
        for (const viewer of viewers) viewer.destroy();
    });

    await check(
        'kill -9 of one of three nodes: right again within 15 s, by notice, pong and HTTP',
        async () => {
            const kept = [...(await enter(nodes[0], 'kill', 5)), ...(await enter(nodes[1], 'kill', 4))];
            await enter(nodes[2], 'kill', 7);
            await all(nodes, 'kill', 16, 10000);
            await told(kept[0], 'kill', 16);
            await told(kept[8], 'kill', 16);
            forget(kept[0], kept[8]); // 9 may have been told before the others were in
            nodes[2].told = true;
            nodes[2].child.kill('SIGKILL');
            const killed = Date.now();
            await Promise.all([told(kept[0], 'kill', 9), told(kept[8], 'kill', 9)]);
            const took = Date.now() - killed;
            console.log(`# told after ${took} ms`);
            assert(took < 15000, `told after ${took} ms`);
            equal((await kept[0].alive()).online, { kill: 9 }, 'online in pong');
            equal(await online(nodes[1], 'kill'), 9, 'online over HTTP');
            nodes[2] = await start('n3');
            await enter(nodes[2], 'kill', 2);
            await all(nodes, 'kill', 11, 10000);
            for (const viewer of kept) viewer.destroy();
        },
        60000,
    );

    await check(
        'a node that is killed and comes back under its name: its earlier viewers do not count',
        async () => {
            const kept = await enter(nodes[0], 'again', 3);
            await enter(nodes[1], 'again', 4);
            await all([nodes[0]], 'again', 7, 10000);
            nodes[1].told = true;
            nodes[1].child.kill('SIGKILL');
            await nodes[1].exit;
            nodes[1] = await start('n2');
            const back = await enter(nodes[1], 'again', 1);
            const took = await all([nodes[0], nodes[1]], 'again', 4, 6000);
            console.log(`# right ${took} ms after it was back`);
            for (const viewer of [...kept, ...back]) viewer.destroy();
        },
        40000,
    );

    await check(
        'a node that stops in order is not counted any more at once',
        async () => {
            const kept = await enter(nodes[0], 'stop', 3);
            await enter(nodes[2], 'stop', 5);
            await all([nodes[0], nodes[2]], 'stop', 8, 10000);
            await nodes[2].stop();
            const took = await all([nodes[0]], 'stop', 3, 4000);
            console.log(`# right ${took} ms after its end`);
            nodes[2] = await start('n3');
            for (const viewer of kept) viewer.destroy();
        },
        40000,
    );
}

async function forgets({ nodes }, room, how) {
    const viewers = [];
    for (const node of nodes) viewers.push(...(await enter(node, room, 4)));
    await all(nodes, room, 12, 10000);
    await told(viewers[0], room, 12);
    forget(viewers[0]);
    await how();
    // It is believed only when every node has told its counts again: nobody is told a wrong one.
    const more = await enter(nodes[0], room, 1);
    await all(nodes, room, 13, 15000);
    await told(viewers[0], room, 13);
    await told(viewers[11], room, 13);
    const wrong = viewers[0].received.filter((m) => m.op === 'online' && m.room === room && m.online < 12);
    equal(wrong, [], 'counts that were told in between');
    for (const viewer of [...viewers, ...more]) viewer.destroy();
}

async function redisThatForgets(group) {
    const { redis, nodes } = group;

    await check('an emptied Redis: right again within 15 s, nobody is told too little', () => forgets(group, 'flush', () => redis.client.command('FLUSHALL')), 60000);

    await check(
        'a Redis that restarts without its data: right again within 15 s',
        () =>
            forgets(group, 'restart', async () => {
                await redis.kill();
                await redis.restart();
                await Promise.all(nodes.map((node) => node.waitReady()));
            }),
        60000,
    );

    await check('a room that all left is forgotten by Redis', async () => {
        const viewers = await enter(nodes[0], 'empty', 3);
        await until(async () => (await redis.client.command('EXISTS', 'halley:online:{empty}')) === 1, 'the hash');
        assert((await redis.client.command('PTTL', 'halley:online:{empty}')) > 0, 'the hash expires by itself');
        for (const viewer of viewers) viewer.destroy();
        await until(async () => (await redis.client.command('EXISTS', 'halley:online:{empty}')) === 0, 'no hash');
    });
}

// What mostly waits waits at the same time; what counts or measures does so alone.
const group = await trio();
await Promise.all([nodesAlone(), nodesThatEnd(), redisThatForgets(group)]);
const { nodes } = group;

await check(
    '10,000 joins at once cost Redis a few batches and a viewer one notice a room',
    async () => {
        const viewers = await Promise.all(
            Array.from({ length: 320 }, (_, i) => Native.open(nodes[0].port, source(i))),
        );
        const before = await nodes[0].metrics();
        const started = Date.now();
        await Promise.all(
            viewers.map((viewer) => Promise.all(Array.from({ length: 32 }, (_, r) => viewer.join(`storm${r}`)))),
        );
        const joined = Date.now() - started;
        await all([nodes[0]], 'storm31', 320, 3000);
        const took = (Date.now() - started) / 1000;
        const after = await nodes[0].metrics();
        const batches = after.get('halley_presence_batches_total') - before.get('halley_presence_batches_total');
        const notices = viewers[0].received.filter((m) => m.op === 'online');
        console.log(`# ${viewers.length * 32} joins in ${joined} ms: ${batches} batches, ${notices.length} notices to a viewer`);
        assert(batches <= 10 * (took + 1), `${batches} batches in ${took} s`);
        for (let r = 0; r < 32; r++) {
            const of = notices.filter((m) => m.room === `storm${r}`).length;
            assert(of <= took / 5 + 1, `${of} notices of one room in ${took} s`);
        }
        for (const viewer of viewers) viewer.destroy();
    },
    60000,
);

await finish();
