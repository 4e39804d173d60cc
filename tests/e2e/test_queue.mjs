#!/usr/bin/env node
// Queues: what viewers send goes into a Redis stream once, and only what Redis took is acked.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import {
    Halley,
    Native,
    Redis,
    assert,
    atEnd,
    check,
    equal,
    finish,
    freePort,
    halleyBin,
    pause,
    root,
    run,
    tempDir,
    until,
    within,
} from './lib.mjs';

const require = createRequire(import.meta.url);
const redis = await Redis.start({ appendOnly: true });
const set = {
    'type.gift.route': 'queue',
    'type.gift.queue': 'gifts',
    'type.vote.route': 'queue',
    'type.draft.route': 'queue',
    'type.draft.queue': 'moderation',
    'limits.viewer_rate': 10000,
    'limits.viewer_burst': 10000,
};
const halley = await Halley.start({ redis, workers: 2, set });
const port = halley.port;

// A stream's entries: [{id, room, type, …}].
async function entries(queue, client = redis) {
    const list = await client.command('XRANGE', `halley:queue:{${queue}}`, '-', '+');
    return list.map(([id, fields]) => {
        const entry = { id };
        for (let i = 0; i < fields.length; i += 2) entry[fields[i]] = fields[i + 1];
        return entry;
    });
}

const gift = (key, data, room = '42') => ({ op: 'send', room, type: 'gift', data, ...(key ? { key } : {}) });

// ---- what is appended and answered

await check('a send into a queue is acked with the id of its stream entry, whose fields are the documented ones', async () => {
    const viewer = await Native.in(port, '42', { user: 'alice' });
    const before = Date.now();
    const text = '{"gift": "rose", "n": 1.10, "big": 18446744073709551615}';
    const refSend = `{"op":"send","room":"42","type":"gift","key":"k1","ref":77,"data":${text}}`;
    await viewer.send(refSend);
    const ack = await viewer.next((m) => m.ref === 77, 'the ack');
    equal(ack.op, 'ack', 'op');
    const [entry, ...more] = await entries('gifts');
    equal(more.length, 0, 'further entries');
    equal(ack.id, entry.id, 'id of the ack');
    const { id, time, ...rest } = entry;
    equal(
        rest,
        { room: '42', type: 'gift', from: 'alice', data: text, key: 'k1', node: viewer.welcome.node },
        'the other fields',
    );
    assert(Number(time) >= before - 1000 && Number(time) <= Date.now() + 1000, `time ${time} is now`);
    viewer.destroy();
});

await check('a repeat of the key gets the first id, other content gets duplicate, another user is another key', async () => {
    const [a, b] = [await Native.in(port, '42', { user: 'bob' }), await Native.in(port, '42', { user: 'eve' })];
    const first = await a.request(gift('k2', { n: 1 }));
    const again = await a.request(gift('k2', { n: 1 }));
    equal([again.op, again.id], ['ack', first.id], 'the repeat');
    const other = await a.request(gift('k2', { n: 2 }));
    equal([other.op, other.code], ['error', 'duplicate'], 'other content');
    const room = await Native.in(port, '43', { user: 'bob' });
    equal((await room.request(gift('k2', { n: 1 }, '43'))).code, 'duplicate', 'another room is other content');
    const eve = await b.request(gift('k2', { n: 1 }));
    assert(eve.op === 'ack' && eve.id !== first.id, "another user's same key is a message of its own");
    const plain = [await a.request(gift(null, 1)), await a.request(gift(null, 1))];
    assert(plain[0].id !== plain[1].id, 'without a key nothing is a repeat');
    for (const v of [a, b, room]) v.destroy();
});

await check('users and keys with colons are not mixed up', async () => {
    const a = await Native.in(port, '42', { user: 'x:y' });
    const b = await Native.in(port, '42', { user: 'x' });
    const first = await a.request(gift('z', 1));
    const second = await b.request(gift('y:z', 1));
    assert(second.op === 'ack' && first.id !== second.id, 'two messages');
    a.destroy();
    b.destroy();
});

await check('without ref nothing but errors is answered; data may be left out; the queue is the type by default', async () => {
    const viewer = await Native.in(port, '42');
    await viewer.send({ op: 'send', room: '42', type: 'vote' });
    await until(async () => (await entries('vote')).length === 1, 'the vote stands in its stream');
    await viewer.alive();
    equal(viewer.received.filter((m) => m.op === 'ack').length, 0, 'acks');
    const [vote] = await entries('vote');
    equal([vote.data, vote.key, vote.from], ['', '', viewer.welcome.user], 'fields');
    viewer.destroy();
});

await check('the rules of every send hold: the room, the size, the key', async () => {
    const viewer = await Native.in(port, '42');
    const code = async (message) => (await viewer.request(message)).code;
    equal(await code(gift('k', 1, '99')), 'not-in-room', 'another room');
    equal(await code(gift('k', 'x'.repeat(17000))), 'too-large', 'long data');
    equal(await code(gift('no spaces', 1)), 'bad-message', 'a bad key');
    equal(await code({ op: 'send', room: '42', type: 'chat', data: 1, key: 'k' }), 'bad-message', 'a key on broadcast');
    viewer.destroy();
});

for (const [version, module] of [['2.5.0', 'socket.io-client-2'], ['4', 'socket.io-client']]) {
    await check(`Socket.IO ${version}: the acknowledgement tells the id, or why not`, async () => {
        const client = require(module);
        const io = client.io || client;
        const socket = io(`http://127.0.0.1:${port}`, {
            transports: ['websocket'],
            forceNew: true,
            query: { user: `sio-${version}`, room: '42' },
        });
        const undo = atEnd(() => socket.close());
        const emit = (event, argument) =>
            within(new Promise((resolve) => socket.emit(event, argument, resolve)), 5000, `the ack of ${event}`);
        await within(new Promise((resolve) => socket.on('connect', resolve)), 5000, 'connect');
        equal((await emit('join', { room: '42' })).ok, true, 'join');
        const first = await emit('send', { room: '42', type: 'gift', data: { n: 1 }, key: 's1' });
        const again = await emit('send', { room: '42', type: 'gift', data: { n: 1 }, key: 's1' });
        const other = await emit('send', { room: '42', type: 'gift', data: { n: 2 }, key: 's1' });
        assert(/^\d+-\d+$/.test(first.id), `an id, got ${JSON.stringify(first)}`);
        equal(first, { ok: true, id: first.id }, 'the first');
        equal(again, { ok: true, id: first.id }, 'the repeat');
        equal([other.ok, other.code], [false, 'duplicate'], 'other content');
        await undo();
    });
}

// ---- bounds and failures

await check('past queue.max_length sends get unavailable, nothing is trimmed, repeats are still known', async () => {
    const small = await Halley.start({
        redis,
        workers: 1,
        set: { ...set, 'type.vote.queue': 'small', 'queue.max_length': 2 },
    });
    const viewer = await Native.in(small.port, '42', { user: 'max' });
    const vote = (key) => viewer.request({ op: 'send', room: '42', type: 'vote', data: 1, key });
    const [one, two, three] = [await vote('1'), await vote('2'), await vote('3')];
    equal([one.op, two.op, three.op, three.code], ['ack', 'ack', 'error', 'unavailable'], 'answers');
    assert(three.retry_after_ms > 0, 'when to come again');
    equal((await vote('1')).id, one.id, 'a repeat');
    equal((await entries('small')).map((e) => e.key), ['1', '2'], 'keys in the stream');
    equal(await small.metric('halley_queued_total', 'result="full"'), 1, 'the metric');
    await redis.command('XDEL', 'halley:queue:{small}', one.id);
    equal((await vote('3')).op, 'ack', 'after a consumer deleted one');
    viewer.destroy();
    await small.stop();
});

await check('a key is remembered for queue.dedupe', async () => {
    const brief = await Halley.start({
        redis,
        workers: 1,
        set: { ...set, 'type.vote.queue': 'brief', 'queue.dedupe': '1s' },
    });
    const viewer = await Native.in(brief.port, '42', { user: 'max' });
    const vote = () => viewer.request({ op: 'send', room: '42', type: 'vote', data: 1, key: 'k' });
    const first = await vote();
    equal((await vote()).id, first.id, 'at once');
    const [left] = [await redis.command('PTTL', 'halley:dedupe:{brief}:3:max:k')];
    assert(left > 0 && left <= 1000, `expires in ${left} ms`);
    await until(async () => (await redis.command('EXISTS', 'halley:dedupe:{brief}:3:max:k')) === 0, 'expired');
    assert((await vote()).id !== first.id, 'afterwards it is a new message');
    viewer.destroy();
    await brief.stop();
});

await check('while Redis is away sends get unavailable; it comes back without the script', async () => {
    const own = await Redis.start({ appendOnly: true });
    const node = await Halley.start({ redis: own, workers: 1, set });
    const viewer = await Native.in(node.port, '42', { user: 'amy' });
    equal((await viewer.request(gift('a', 1))).op, 'ack', 'before');
    await own.kill();
    const away = await viewer.request(gift('b', 1));
    equal([away.op, away.code], ['error', 'unavailable'], 'while away');
    await own.restart();
    await until(async () => (await node.http('GET', '/readyz')).status === 200, 'ready again');
    equal((await viewer.request(gift('b', 1))).op, 'ack', 'afterwards');
    equal((await entries('gifts', own)).map((e) => e.key), ['a', 'b'], 'keys');
    viewer.destroy();
    await node.stop();
    await own.kill();
});

await check('route = queue with memory: is exit 78 and says what to do', async () => {
    const result = await run(halleyBin, ['-t', '-o', 'type.gift.route=queue', '-o', `admin.listen=`]);
    equal(result.code, 78, 'exit code');
    assert(
        /type\.gift\.route.*queue needs a Redis.*broker\.url/.test(result.stderr + result.stdout),
        `the text, got ${result.stderr}${result.stdout}`,
    );
});

// ---- 5,000 sends while Redis dies

await check(
    '5,000 sends with retries and duplicates over two nodes while Redis is killed 4 times: each acked key stands there once',
    async () => {
        const store = await Redis.start({ appendOnly: true });
        const nodes = await Promise.all([1, 2].map(() => Halley.start({ redis: store, workers: 2, set })));
        const users = 20;
        const keys = 250;
        const acked = new Map(); // "user key" to id
        const counts = { sends: 0, unavailable: 0, repeats: 0, lost: 0 };
        let done = 0;

        const viewerOf = async (user) => {
            for (;;) {
                try {
                    const node = nodes[Math.floor(Math.random() * nodes.length)];
                    const viewer = await Native.open(node.port, { user });
                    const joined = await viewer.request({ op: 'join', room: '42' }, 20000);
                    if (joined.op === 'joined') return viewer;
                    viewer.destroy();
                } catch {
                    await pause(50);
                }
            }
        };
        const note = (user, key, answer) => {
            const name = `${user} ${key}`;
            const known = acked.get(name);
            if (known) counts.repeats++;
            assert(!known || known === answer.id, `${name} was acked as ${known} and as ${answer.id}`);
            acked.set(name, answer.id);
        };
        const attempt = async (viewer, user, key) => {
            counts.sends++;
            const answer = await viewer.request(gift(key, { user, key }), 20000);
            if (answer.op === 'ack') note(user, key, answer);
            else equal(answer.code, 'unavailable', 'the only error that may come');
            if (answer.op !== 'ack') counts.unavailable++;
            return answer.op === 'ack';
        };
        const sendAll = async (user) => {
            let viewer = await viewerOf(user);
            for (let n = 0; n < keys; n++) {
                const key = `k${n}`;
                for (;;) {
                    const dice = Math.random();
                    if (dice < 0.02) {
                        // Sent, and gone before the answer: nobody knows what became of it.
                        await viewer.send({ ...gift(key, { user, key }), ref: 1e9 + n }).catch(() => {});
                        viewer.destroy();
                        counts.lost++;
                        viewer = await viewerOf(user);
                    }
                    const tries = [attempt(viewer, user, key)];
                    if (dice > 0.9) tries.push(attempt(viewer, user, key));
                    if ((await Promise.all(tries)).some(Boolean)) break;
                    await pause(10 + Math.random() * 40);
                }
                done++;
            }
            viewer.destroy();
        };
        const killer = async () => {
            for (let kill = 1; kill <= 4; kill++) {
                await until(() => done > (users * keys * kill) / 5, `a part of the sends done (${kill})`, 60000);
                await store.kill();
                await pause(100 + Math.random() * 200);
                await store.restart();
            }
        };
        await Promise.all([killer(), ...Array.from({ length: users }, (_, i) => sendAll(`user${i}`))]);

        const stream = await entries('gifts', store);
        const seen = new Map();
        for (const entry of stream) {
            const name = `${entry.from} ${entry.key}`;
            assert(!seen.has(name), `${name} stands in the stream twice`);
            seen.set(name, entry.id);
        }
        equal(acked.size, users * keys, 'acked keys');
        for (const [name, id] of acked) equal(seen.get(name), id, `the entry of ${name}`);
        equal(stream.length, users * keys, 'entries');
        assert(counts.unavailable > 0 && counts.repeats > 0 && counts.lost > 0, 'the test did hurt');
        console.log(`# ${JSON.stringify(counts)}, ${stream.length} entries, ${acked.size} acked`);
        for (const node of nodes) await node.stop();
        await store.kill();
    },
    120000,
);

// ---- moderation, as the documents show it

await check('the moderation example of docs/protocol.md publishes what passes, and only that', async () => {
    const page = fs.readFileSync(path.join(root, 'docs/protocol.md'), 'utf8');
    const example = /```python\n(#[^\n]*moderat[\s\S]*?)```/.exec(page);
    assert(example, 'a Python example about moderation in docs/protocol.md');
    const file = path.join(tempDir(), 'moderate.py');
    fs.writeFileSync(file, example[1].replace('127.0.0.1:6379', `127.0.0.1:${redis.port}`));
    const child = spawn('/usr/bin/python3', [file], { stdio: ['ignore', 'inherit', 'inherit'] });
    const undo = atEnd(() => child.kill());
    const [a, b] = [await Native.in(port, '42', { user: 'ann' }), await Native.in(port, '42', { user: 'ben' })];
    const draft = (text) => a.request({ op: 'send', room: '42', type: 'draft', data: { text } });
    for (const text of ['hello', 'a bad word', 'bye']) equal((await draft(text)).op, 'ack', text);
    for (const expected of ['hello', 'bye']) {
        const message = await b.message('chat');
        equal([message.from, message.data], ['ann', { text: expected }], 'what passed');
    }
    await until(async () => (await entries('moderation')).length === 0, 'the stream is empty again');
    await b.alive();
    equal(b.received.filter((m) => m.type).length, 0, 'further messages');
    await undo();
    a.destroy();
    b.destroy();
});

await finish();
