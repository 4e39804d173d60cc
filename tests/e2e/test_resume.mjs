#!/usr/bin/env node
// Resume: who comes back with `after` gets exactly what it missed, in order; a node fills what it missed itself.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { Halley, Native, Redis, assert, atEnd, check, equal, finish, frame, pause, root, tempDir, until, within } from './lib.mjs';

const require = createRequire(import.meta.url);
const set = {
    'type.chat.history': 'yes',
    'type.gift.history': 'yes',
    'limits.join_rate': 1000,
    'limits.join_burst': 1000,
    'history.wait': '10s', // a busy machine ends no wait
};
const redis = await Redis.start();
const halley = await Halley.start({ redis, workers: 2, set });
const other = await Halley.start({ redis, workers: 2, set });
const alone = await Halley.start({ workers: 2, set });
const publishLua = fs.readFileSync(path.join(root, 'scripts/redis/publish.lua'), 'utf8');

const post = async (node, room, data, type = 'chat') => (await node.publish(room, { type, data })).json.id;
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const postAll = async (node, room, list, type) => {
    const ids = [];
    for (const data of list) ids.push(await post(node, room, data, type));
    return ids;
};
// Numbered and kept, but its PUBLISH goes nowhere: what a node loses on its way.
const lose = (room, data, type = 'chat', store = redis) => {
    const lane = type === 'gift' ? 'high' : 'normal';
    return store.command(
        'EVAL',
        publishLua,
        2,
        `halley:seq:{${room}}`,
        `halley:history:{${room}}:${lane}`,
        lane,
        'nowhere',
        JSON.stringify({ type, data }),
        500,
        300000,
        600000,
    );
};
const take = async (viewer, count) => {
    const got = [];
    for (let i = 0; i < count; i++) got.push((await viewer.message()).data);
    return got;
};
const join = (viewer, room, after) => viewer.request({ op: 'join', room, ...(after ? { after } : {}) });
// A lane that never had a message with a number is told of a cut from Redis.
const gapsOf = (viewer, room) => viewer.received.filter((m) => m.op === 'gap' && m.room === room && m.lane === 'normal');
const ready = (node) => until(async () => (await node.http('GET', '/readyz')).status === 200, 'ready again');
const holes = (node, result) => node.metric('halley_history_holes_total', `result="${result}"`);
const resumed = (node, from) => node.metric('halley_resumes_total', `from="${from}"`);

for (const [where, node] of [
    ['Redis', halley],
    ['memory:', alone],
]) {
    await check(`${where}: joined tells where each lane stands`, async () => {
        const viewer = await Native.open(node.port);
        equal((await join(viewer, 'a')).after, [], 'a silent room');
        const chat = await post(node, 'a', 1);
        const gift = await post(node, 'a', 2, 'gift');
        await take(viewer, 2);
        const late = await Native.open(node.port);
        equal((await join(late, 'a')).after, [gift, chat], 'the high lane first');
        late.destroy();
        viewer.destroy();
    });

    await check(`${where}: from the frame log, in order, then live`, async () => {
        // In a room of few the log goes when everybody has everything.
        const stays = await Promise.all(range(1, 10).map(() => Native.in(node.port, 'b')));
        const gone = await Native.in(node.port, 'b');
        const [, , third] = await postAll(node, 'b', [1, 2, 3]);
        await take(gone, 3);
        gone.destroy();
        await postAll(node, 'b', range(4, 8));
        for (const viewer of stays) await take(viewer, 8);
        const before = await resumed(node, 'log');
        const back = await Native.open(node.port);
        equal((await join(back, 'b', [third])).after, [third], 'after of joined: what follows comes');
        await post(node, 'b', 9);
        equal(await take(back, 6), range(4, 9), 'messages');
        assert((await resumed(node, 'log')) > before, 'from the log');
        for (const viewer of [back, ...stays]) viewer.destroy();
    });

    await check(`${where}: from history, where nobody was there meanwhile; two lanes`, async () => {
        const gone = await Native.in(node.port, 'c');
        const chat = await post(node, 'c', 'c1');
        const gift = await post(node, 'c', 'g1', 'gift');
        await take(gone, 2);
        gone.destroy();
        await until(async () => !(await node.http('GET', '/v1/rooms/c')).json.viewers, 'the room is empty');
        await postAll(node, 'c', ['c2', 'c3']);
        await postAll(node, 'c', ['g2', 'g3'], 'gift');
        const before = await resumed(node, 'history');
        const back = await Native.open(node.port);
        equal((await join(back, 'c', [gift, chat])).after, [gift, chat], 'after');
        await post(node, 'c', 'c4');
        const got = await take(back, 5);
        equal(got.filter((d) => d[0] === 'c'), ['c2', 'c3', 'c4'], 'chat');
        equal(got.filter((d) => d[0] === 'g'), ['g2', 'g3'], 'gifts');
        equal((await resumed(node, 'history')) - before, 2, 'lanes from history');
        back.destroy();
    });

    await check(`${where}: an empty list is all from the beginning`, async () => {
        const first = await Native.open(node.port);
        equal((await join(first, 'd')).after, [], 'a silent room');
        first.destroy();
        await postAll(node, 'd', [1, 2]);
        const back = await Native.open(node.port);
        equal((await join(back, 'd', [])).after, [], 'after');
        equal(await take(back, 2), [1, 2], 'messages');
        back.destroy();
    });

    await check(`${where}: another epoch is told by gap, before joined`, async () => {
        const viewer = await Native.in(node.port, 'e');
        const id = await post(node, 'e', 1);
        await take(viewer, 1);
        const back = await Native.open(node.port);
        const joined = await join(back, 'e', ['n.x7k2.5']);
        equal(joined.after, [id], 'after');
        const gap = back.received.find((m) => m.op === 'gap') || (await back.notice('gap'));
        equal(gap, { op: 'gap', room: 'e', lane: 'normal', after: 'n.x7k2.5' }, 'the gap');
        await post(node, 'e', 2);
        equal(await take(back, 1), [2], 'live');
        viewer.destroy();
        back.destroy();
    });

    await check(`${where}: a join with after in a room already held replays from there`, async () => {
        const viewer = await Native.in(node.port, 'f');
        const [first] = await postAll(node, 'f', range(1, 5));
        await take(viewer, 5);
        equal((await join(viewer, 'f', [first])).after, [first], 'after');
        equal(await take(viewer, 4), range(2, 5), 'again');
        await post(node, 'f', 6);
        equal(await take(viewer, 1), [6], 'live');
        viewer.destroy();
    });
}

await check('another node gives what the first one no longer can', async () => {
    const gone = await Native.in(halley.port, 'g');
    const id = await post(halley, 'g', 1);
    await take(gone, 1);
    gone.destroy();
    await postAll(halley, 'g', range(2, 20));
    const back = await Native.open(other.port);
    equal((await join(back, 'g', [id])).after, [id], 'after');
    equal(await take(back, 19), range(2, 20), 'messages');
    back.destroy();
});

await check('further back than history reaches: gap, then live', async () => {
    const brief = await Halley.start({ redis, workers: 1, set: { ...set, 'history.length': 5 } });
    const [first, ...ids] = await postAll(brief, 'h', range(1, 10));
    const back = await Native.open(brief.port);
    const joined = await join(back, 'h', [first]);
    equal((await back.notice('gap')).after, first, 'gap');
    equal(joined.after, [ids.at(-1)], 'where it goes on');
    const near = await Native.open(brief.port);
    equal((await join(near, 'h', [ids[3]])).after, [ids[3]], 'just within reach');
    equal(await take(near, 5), range(6, 10), 'all five');
    back.destroy();
    near.destroy();
    await brief.stop();
});

await check('whoever comes back too late is told so without another read of history', async () => {
    const brief = await Halley.start({ redis, workers: 1, set: { ...set, 'history.length': 5 } });
    const stays = await Native.in(brief.port, 'late');
    const [first] = await postAll(brief, 'late', range(1, 10));
    await take(stays, 10);
    const viewer = await Native.open(brief.port);
    for (let i = 0; i < 20; i++) {
        await join(viewer, 'late', [first]);
        equal((await viewer.notice('gap')).after, first, 'gap');
    }
    equal(await brief.metric('halley_history_reads_total', 'for="viewers"'), 1, 'reads');
    const [last] = await postAll(brief, 'late', [11]);
    equal(await take(viewer, 1), [11], 'live');
    const back = await Native.open(brief.port);
    equal((await join(back, 'late', [last.replace(/11$/, '8')])).op, 'joined', 'within reach');
    equal(await take(back, 3), [9, 10, 11], 'what it missed');
    for (const one of [back, viewer, stays]) one.destroy();
    await brief.stop();
});

await check('a replay that ends by closing the last viewer of its room', async () => {
    const bound = 32 * 1024;
    const file = path.join(tempDir(), 'halley.conf');
    const keepReplays = (time) => fs.writeFileSync(file, `history { replay = ${time} }\n`);
    keepReplays('10m'); // until its queue is full
    const node = await Halley.start({ workers: 1, conf: file, set: { ...set, 'limits.private_bytes': bound } });
    const ids = await postAll(node, 'end', Array(200).fill('x'.repeat(4000)));
    const slow = await Native.open(node.port, { user: 'slow' });
    slow.ws.raw.pauseReading();
    slow.send({ op: 'join', room: 'end', after: [ids[0]], ref: 1 });
    const pending = async () => (await node.http('GET', '/v1/users/slow/connections')).json.connections[0]?.private_bytes;
    const fill = (data) => node.http('POST', '/v1/users/slow/messages', { body: { type: 'gift', data } });
    await until(() => node.metric('halley_viewers_blocked'), 'the replay is held up');
    const frame = 4 + JSON.stringify({ type: 'gift', data: '' }).length;
    for (let still = 0; still < 20; ) { // until the kernel takes no more either
        const left = bound - (await pending());
        still = left > 60 ? 0 : still + 1;
        if (left > 60) await fill('x'.repeat(Math.min(left, 8000 + frame) - frame));
        await pause(20); // a fill is accepted before it stands in the queue
    }
    equal(await node.metric('halley_closes_total', 'reason="too_slow"'), 0, 'not closed by what filled it');
    keepReplays('1s');
    node.child.kill('SIGHUP');
    await until(async () => (await node.metric('halley_closes_total', 'reason="too_slow"')) === 1, 'closed by the gap', 20000);
    equal(await resumed(node, 'gap'), 1, 'it was the gap');
    const after = await Native.in(node.port, 'end');
    await after.alive();
    for (const one of [after, slow]) one.destroy();
    await node.stop();
});

await check('of joins that wait for one subscription the last one is answered, with after or not', async () => {
    const viewer = await Native.open(halley.port);
    for (const [room, one, two] of [['both', { after: [] }, {}], ['htob', {}, { after: [] }]]) {
        const joins = [{ op: 'join', room, ...one, ref: 7001 }, { op: 'join', room, ...two, ref: 7002 }];
        viewer.ws.write(Buffer.concat(joins.map((join) => frame({ payload: JSON.stringify(join) })))); // at once
        const answers = [await viewer.next((m) => m.ref > 7000, 'an answer'), await viewer.next((m) => m.ref > 7000, 'the other one')];
        equal(answers.map((m) => [m.ref, m.op]), [[7001, 'error'], [7002, 'joined']], room);
    }
    viewer.destroy();
});

await check('a viewer that has more than its node waits for it, without a repeat', async () => {
    const viewer = await Native.in(halley.port, 'i');
    const id = await post(halley, 'i', 1);
    await take(viewer, 1);
    const [, lost] = await lose('i', 2); // the node does not know of it yet
    const back = await Native.open(halley.port);
    const answer = join(back, 'i', [lost]);
    await back.alive();
    await post(halley, 'i', 3);
    equal((await answer).after, [lost], 'after');
    equal(await take(back, 1), [3], 'the next one');
    equal(await take(viewer, 2), [2, 3], 'the other one');
    assert(id !== lost, 'two ids');
    viewer.destroy();
    back.destroy();
});

await check('Socket.IO: join takes an object with after, the acknowledgement and joined have it', async () => {
    for (const module of ['socket.io-client-2', 'socket.io-client']) {
        const room = `sio-${module}`;
        const ids = await postAll(halley, room, range(1, 4));
        const client = require(module);
        const socket = (client.io || client)(`http://127.0.0.1:${halley.port}`, {
            transports: ['websocket'],
            forceNew: true,
        });
        const undo = atEnd(() => socket.close());
        await within(new Promise((resolve) => socket.on('connect', resolve)), 5000, 'connect');
        const got = [];
        const done = new Promise((resolve) => socket.on('chat', (m) => got.push(m.data) === 4 && resolve()));
        const ack = await within(
            new Promise((resolve) => socket.emit('join', { room, after: [ids[0]] }, resolve)),
            5000,
            'the acknowledgement',
        );
        equal([ack.ok, ack.after], [true, [ids[0]]], 'the acknowledgement');
        await post(halley, room, 5);
        await within(done, 5000, 'the messages');
        equal(got, range(2, 5), 'messages');
        await undo();
    }
});

await check('malformed after is bad-message', async () => {
    const viewer = await Native.open(halley.port);
    for (const after of [['1700000000-0'], ['n.x.y'], 'n.x.1', [1]])
        equal((await join(viewer, 'j', after)).code, 'bad-message', JSON.stringify(after));
    viewer.destroy();
});

// ---- holes

await check('a message lost between Redis and the node is filled in before the next one, in order', async () => {
    const viewer = await Native.in(halley.port, 'k');
    const before = [await holes(halley, 'filled'), await holes(halley, 'gap')];
    await post(halley, 'k', 1);
    await lose('k', 2);
    await lose('k', 3);
    await post(halley, 'k', 4);
    equal(await take(viewer, 4), range(1, 4), 'messages');
    equal(viewer.received.filter((m) => m.op === 'gap').length, 0, 'gaps');
    assert((await halley.metric('halley_history_filled_total')) >= 2, 'the metric');
    equal([await holes(halley, 'filled'), await holes(halley, 'gap')], [before[0] + 1, before[1]], 'holes filled and left');
    viewer.destroy();
});

await check('what is lost in a cut from Redis is filled in at once, without a gap', async () => {
    const viewer = await Native.in(halley.port, 'l');
    await post(halley, 'l', 1);
    await post(halley, 'l', 'g1', 'gift');
    await take(viewer, 2);
    await lose('l', 2);
    await lose('l', 'g2', 'gift');
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
    equal((await take(viewer, 2)).sort(), [2, 'g2'], 'messages');
    await ready(halley);
    await post(halley, 'l', 3);
    equal(await take(viewer, 1), [3], 'live');
    equal(gapsOf(viewer, 'l'), [], 'gaps');
    viewer.destroy();
});

await check('a message that comes twice is passed on once', async () => {
    const viewer = await Native.in(halley.port, 'm');
    const id = await post(halley, 'm', 1);
    await redis.room('m', { type: 'chat', data: 1, id });
    await post(halley, 'm', 2);
    equal(await take(viewer, 2), [1, 2], 'messages');
    assert((await halley.metric('halley_history_repeats_total')) >= 1, 'the metric');
    viewer.destroy();
});

await check('Redis emptied: gap with the last id, then live, and resume in the new epoch', async () => {
    const viewer = await Native.in(halley.port, 'n');
    const before = await holes(halley, 'gap');
    const id = await post(halley, 'n', 1);
    await take(viewer, 1);
    await redis.command('FLUSHALL');
    const [two] = await postAll(halley, 'n', [2, 3]);
    equal(await viewer.notice('gap'), { op: 'gap', room: 'n', lane: 'normal', after: id }, 'the gap');
    equal(await take(viewer, 2), [2, 3], 'live');
    equal((await holes(halley, 'gap')) - before, 1, 'holes left');
    const back = await Native.open(halley.port);
    equal((await join(back, 'n', [two])).after, [two], 'after');
    equal(await take(back, 1), [3], 'resumed');
    viewer.destroy();
    back.destroy();
});

await check('Redis that lost its last writes begins another epoch: gap, never silence', async () => {
    const viewer = await Native.in(halley.port, 'o');
    await postAll(halley, 'o', range(1, 5));
    await take(viewer, 5);
    await redis.command('HSET', 'halley:seq:{o}', 'normal', 3);
    await redis.command('XTRIM', 'halley:history:{o}:normal', 'MAXLEN', 0);
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await viewer.next((m) => m.op === 'gap' && m.room === 'o' && m.lane === 'normal', 'the gap');
    await ready(halley);
    await postAll(halley, 'o', [6, 7]);
    equal(await take(viewer, 2), [6, 7], 'live');
    viewer.destroy();
});

await check('history that is gone while its counter lives on: who has more than the node is in, without another publish', async () => {
    const node = await Halley.start({ redis, workers: 1, set: { ...set, 'history.wait': '200ms' } });
    const stays = await Native.in(node.port, 'q');
    await post(node, 'q', 1);
    await take(stays, 1);
    const [, lost] = await lose('q', 2);
    await redis.command('DEL', 'halley:history:{q}:normal');
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await stays.next((m) => m.op === 'gap' && m.room === 'q' && m.lane === 'normal', 'the gap');
    const back = await Native.open(node.port);
    let answer = await join(back, 'q', [lost]);
    if (answer.code === 'unavailable') {
        await pause(answer.retry_after_ms);
        answer = await join(back, 'q', [lost]);
    }
    equal(answer.after, [lost], 'after');
    equal((await join(stays, 'q', [lost.replace(/2$/, '1')])).after, [lost], 'of the one that stayed');
    const gaps = gapsOf(back, 'q').length;
    await post(node, 'q', 3);
    equal(await take(back, 1), [3], 'live');
    equal(await take(stays, 1), [3], 'live for the other one');
    equal(gapsOf(back, 'q').length, gaps, 'gaps before it');
    back.destroy();
    stays.destroy();
    await node.stop();
});

await check('an empty list gets all since the room began, also where the node could not read its counters', async () => {
    const node = await Halley.start({ redis, workers: 1, set });
    await lose('r', 1);
    await lose('r', 2);
    equal(await redis.command('ACL', 'SETUSER', 'default', '-hmget'), 'OK');
    try {
        const viewer = await Native.open(node.port);
        const answers = [];
        await until(async () => {
            const answer = await join(viewer, 'r', []);
            answers.push(answer.code ?? answer.op);
            if (answer.code === 'unavailable') await pause(answer.retry_after_ms);
            return answer.op === 'joined';
        }, 'joined', 20000);
        equal(await take(viewer, 2), [1, 2], `messages, after ${answers}`);
        const silent = await Native.open(node.port);
        equal((await join(silent, 's', [])).after, [], 'a room without any');
        viewer.destroy();
        silent.destroy();
    } finally {
        await redis.command('ACL', 'SETUSER', 'default', '+hmget');
    }
    await node.stop();
});

await check('while Redis is away a resume gets unavailable; later the same after works', async () => {
    const own = await Redis.start({ appendOnly: true });
    const node = await Halley.start({ redis: own, workers: 1, set: { ...set, 'lane.normal.ttl': '100ms', 'history.wait': '300ms' } });
    const stays = await Native.in(node.port, 'p');
    const [first] = await postAll(node, 'p', range(1, 5));
    await take(stays, 5);
    await until(async () => (await node.http('GET', '/v1/rooms/p')).json.log_bytes === 0, 'the log is empty');
    await own.kill();
    await until(async () => (await node.http('GET', '/readyz')).status === 503, 'away');
    const back = await Native.open(node.port);
    const refused = await join(back, 'p', [first]);
    equal([refused.op, refused.code], ['error', 'unavailable'], 'while away');
    assert(refused.retry_after_ms > 0, 'when to come again');
    equal(await node.metric('halley_resumes_failed_total'), 1, 'halley_resumes_failed_total');
    equal((await back.request({ op: 'leave', room: 'p' })).code, 'not-in-room', 'it is not in');
    await own.restart();
    await ready(node);
    equal((await join(back, 'p', [first])).after, [first], 'afterwards');
    equal(await take(back, 4), range(2, 5), 'messages');
    equal(gapsOf(stays, 'p'), [], 'gaps of who stayed');
    equal(await node.metric('halley_resumes_failed_total'), 1, 'and it is not counted again');
    back.destroy();
    stays.destroy();
    await node.stop();
});

await finish();
