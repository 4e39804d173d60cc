#!/usr/bin/env node
// Types with history: every publish gets a number, is kept, and is carried out once per key, over HTTP, by viewers and by backends
// that run scripts/redis/publish.lua.

import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { Halley, Native, Redis, assert, atEnd, check, equal, finish, root, run, tempDir, until, within } from './lib.mjs';

const set = {
    'type.chat.history': 'yes',
    'type.gift.history': 'yes',
    'history.length': 5,
    'limits.viewer_rate': 10000,
    'limits.viewer_burst': 10000,
};
const redis = await Redis.start();
const halley = await Halley.start({ redis, workers: 2, set });
const alone = await Halley.start({ workers: 2, set });
const publishLua = fs.readFileSync(path.join(root, 'scripts/redis/publish.lua'), 'utf8');

const post = (node, room, message) =>
    node.http('POST', `/v1/rooms/${room}/messages`, { body: message });
const parse = (id) => {
    const match = /^([hnl])\.([1-9a-z][0-9a-z]*)\.([1-9]\d*)$/.exec(id);
    assert(match, `an id, got ${JSON.stringify(id)}`);
    return { lane: match[1], epoch: match[2], n: Number(match[3]) };
};
const entries = async (room, lane) =>
    (await redis.command('XRANGE', `halley:history:{${room}}:${lane}`, '-', '+')).map(([id, fields]) => ({
        id,
        time: Number(fields[1]),
        message: JSON.parse(fields[3]),
    }));

for (const [where, node] of [
    ['Redis', halley],
    ['memory:', alone],
]) {
    await check(`${where}: publishes over HTTP get ids that count per room and lane, and viewers see them`, async () => {
        const viewer = await Native.in(node.port, 'a');
        const ids = [];
        for (let i = 0; i < 3; i++) {
            const answer = await post(node, 'a', { type: 'chat', data: { i }, from: 'bot' });
            equal(answer.status, 202, 'status');
            ids.push(parse(answer.json.id));
            const message = await viewer.message('chat');
            equal(message, { type: 'chat', room: 'a', id: answer.json.id, from: 'bot', data: { i } }, 'the message');
        }
        const gift = parse((await post(node, 'a', { type: 'gift' })).json.id);
        const other = parse((await post(node, 'b', { type: 'chat' })).json.id);
        equal(ids.map((id) => [id.lane, id.n]), [['n', 1], ['n', 2], ['n', 3]], 'chat');
        equal([gift.lane, gift.n, gift.epoch], ['h', 1, ids[0].epoch], 'gift');
        equal([other.n, other.epoch !== ids[0].epoch], [1, true], 'another room');
        viewer.destroy();
    });

    await check(`${where}: a repeat of the key gets the first id and is not published again; other content gets 409`, async () => {
        const viewer = await Native.in(node.port, 'c');
        const order = { type: 'chat', data: { order: 1 }, key: 'order-1' };
        const first = await post(node, 'c', order);
        const again = await post(node, 'c', order);
        const other = await post(node, 'c', { ...order, data: { order: 2 } });
        equal([again.status, again.json.id], [202, first.json.id], 'the repeat');
        equal([other.status, other.json.error], [409, 'duplicate'], 'other content');
        equal((await post(node, 'd', order)).json.id !== first.json.id, true, "another room's key");
        const last = await post(node, 'c', { type: 'chat', data: 'last' });
        equal((await viewer.message()).id, first.json.id, 'the first message');
        equal((await viewer.message()).id, last.json.id, 'the next message');
        equal(parse(last.json.id).n, 2, 'its number');
        viewer.destroy();
    });

    await check(`${where}: a viewer's send is acked with its id; its key works, and is its own`, async () => {
        const a = await Native.in(node.port, 'e', { user: 'ann' });
        const b = await Native.in(node.port, 'e', { user: 'ben' });
        const send = (viewer, key, data) => viewer.request({ op: 'send', room: 'e', type: 'chat', data, key });
        const first = await send(a, 'k', 1);
        equal([first.op, parse(first.id).n], ['ack', 1], 'the ack');
        equal((await send(a, 'k', 1)).id, first.id, 'a repeat');
        equal((await send(a, 'k', 2)).code, 'duplicate', 'other content');
        const second = await send(b, 'k', 1);
        equal(parse(second.id).n, 2, "another viewer's same key");
        equal(parse((await a.request({ op: 'send', room: 'e', type: 'chat', data: 3 })).id).n, 3, 'without key');
        for (const [id, from] of [[first.id, 'ann'], [second.id, 'ben']]) {
            const message = await b.message();
            equal([message.id, message.from], [id, from], 'as the room gets it');
        }
        a.destroy();
        b.destroy();
    });

    await check(`${where}: key is refused for types without history and for messages to all`, async () => {
        for (const target of ['/v1/rooms/f/messages', '/v1/messages']) {
            const type = target === '/v1/messages' ? 'chat' : 'like';
            const answer = await node.http('POST', target, { body: { type, key: 'k' } });
            equal([answer.status, answer.json.error], [400, 'bad-message'], target);
        }
        equal((await post(node, 'f', { type: 'chat', key: 'no spaces' })).status, 400, 'a bad key');
        equal((await node.http('POST', '/v1/messages', { body: { type: 'chat' } })).json.id, null, 'id of a message to all');
    });
}

await check('history is bounded by number and time and expires; the numbers outlive it by a day', async () => {
    for (let i = 1; i <= 8; i++) await post(halley, 'g', { type: 'chat', data: i });
    const kept = await entries('g', 'normal');
    equal(kept.map((e) => e.id), ['4-0', '5-0', '6-0', '7-0', '8-0'], 'entries');
    equal(kept.map((e) => [parse(e.message.id).n, e.message.data]), [4, 5, 6, 7, 8].map((n) => [n, n]), 'messages');
    assert(Math.abs(kept[4].time - Date.now()) < 5000, 'their time');
    const history = await redis.command('PTTL', 'halley:history:{g}:normal');
    const seq = await redis.command('PTTL', 'halley:seq:{g}');
    assert(history > 290000 && history <= 300000, `history expires in ${history} ms`);
    assert(seq > 86690000 && seq <= 86700000, `numbers expire in ${seq} ms`);
});

await check('messages older than history.ttl go with later publishes, two at a time', async () => {
    const brief = await Halley.start({ redis, workers: 1, set: { ...set, 'history.ttl': '1s' } });
    for (let i = 1; i <= 3; i++) await post(brief, 'h', { type: 'chat', data: i });
    await redis.command('PERSIST', 'halley:history:{h}:normal');
    const third = (await entries('h', 'normal'))[2];
    await until(async () => Number((await redis.command('TIME'))[0]) * 1000 > third.time + 1000, 'older than 1 s');
    await post(brief, 'h', { type: 'chat', data: 4 });
    await post(brief, 'h', { type: 'chat', data: 5 });
    equal((await entries('h', 'normal')).map((e) => e.id), ['4-0', '5-0'], 'entries');
    equal(parse((await post(brief, 'h', { type: 'chat' })).json.id).lane, 'n', 'and on it goes');
    await brief.stop();
});

await check('a plain PUBLISH of such a type is live only, without id, and takes no number', async () => {
    const viewer = await Native.in(halley.port, 'i');
    await redis.room('i', { type: 'chat', data: 'plain' });
    equal(await viewer.message(), { type: 'chat', room: 'i', data: 'plain' }, 'the message');
    const { id } = (await post(halley, 'i', { type: 'chat' })).json;
    equal(parse(id).n, 1, 'the first number');
    viewer.destroy();
});

await check('a made-up id is taken away, and silences nobody', async () => {
    const viewer = await Native.in(halley.port, 'k');
    const first = (await post(halley, 'k', { type: 'chat', data: 1 })).json.id;
    equal((await viewer.message()).id, first, 'the first message');
    await redis.room('k', { type: 'chat', data: 'made up', id: `n.${parse(first).epoch}.999999999` });
    equal(await viewer.message(), { type: 'chat', room: 'k', data: 'made up' }, 'the message');
    for (const data of [2, 3]) {
        const { id } = (await post(halley, 'k', { type: 'chat', data })).json;
        equal(await viewer.message(), { type: 'chat', room: 'k', id, data }, 'what follows');
        equal(parse(id).n, data, 'its number');
    }
    equal(await halley.metric('halley_history_misnumbered_total'), 1, 'counted');
    viewer.destroy();
});

await check('when Redis was emptied another epoch begins at 1', async () => {
    const before = parse((await post(halley, 'j', { type: 'chat' })).json.id);
    await redis.command('FLUSHALL');
    const after = parse((await post(halley, 'j', { type: 'chat' })).json.id);
    assert(after.epoch !== before.epoch && after.n === 1, `another epoch, got ${JSON.stringify([before, after])}`);
});

// ---- backends

const keysOf = (room, lane) => [`halley:seq:{${room}}`, `halley:history:{${room}}:${lane}`];

await check('redis-cli: EVALSHA is NOSCRIPT at first, EVAL and then EVALSHA publish', async () => {
    await redis.command('SCRIPT', 'FLUSH');
    const viewer = await Native.in(halley.port, 'k');
    const sha = crypto.createHash('sha1').update(publishLua).digest('hex');
    const cli = async (...args) =>
        (await run('redis-cli', ['-p', String(redis.port), ...args])).stdout.trim().split('\n');
    const rest = [
        '3',
        ...keysOf('k', 'high'),
        'halley:dedupe:{k}:shop:77',
        'high',
        'halley:high:{k}',
        '{"type":"gift","data":{"n":1}}',
        '500',
        '300000',
        '600000',
    ];
    assert(/NOSCRIPT/.test((await cli('EVALSHA', sha, ...rest))[0]), 'EVALSHA of an unknown script');
    const first = await cli('EVAL', publishLua, ...rest);
    equal(first[0], 'added', 'EVAL');
    equal(await cli('EVALSHA', sha, ...rest), ['repeat', first[1]], 'EVALSHA, the same key');
    equal(await viewer.message('gift'), { type: 'gift', room: 'k', id: first[1], data: { n: 1 } }, 'the message');
    rest[6] = '{"type":"gift","data":{"n":2}}';
    equal((await cli('EVALSHA', sha, ...rest))[0], 'other', 'the same key with another message');
    viewer.destroy();
});

await check('what the script cannot make sense of is an error and changes nothing', async () => {
    const call = (lane, message) =>
        redis.command('EVAL', publishLua, 2, ...keysOf('l', 'normal'), lane, 'halley:room:{l}', message, 5, 1000, 1000).then(
            () => 'fine',
            (error) => error.message,
        );
    assert(/lane must be/.test(await call('middle', '{"type":"chat"}')), 'a lane');
    assert(/JSON object/.test(await call('normal', 'hello')), 'a message');
    equal(await redis.command('EXISTS', ...keysOf('l', 'normal')), 0, 'keys');
});

await check('the Node example of docs/protocol.md publishes, with the script known to Redis or not', async () => {
    const page = fs.readFileSync(path.join(root, 'docs/protocol.md'), 'utf8');
    const example = /```js\n(\/\/ publish[^\n]*\n[\s\S]*?)```/.exec(page);
    assert(example, 'a Node example about publish.lua in docs/protocol.md');
    const dir = path.dirname(fileURLToPath(import.meta.url));
    const file = path.join(tempDir(), 'publish.mjs');
    fs.writeFileSync(
        file,
        example[1]
            .replace("'ioredis'", `'${path.join(dir, 'node_modules/ioredis/built/index.js')}'`)
            .replace("'publish.lua'", `'${path.join(root, 'scripts/redis/publish.lua')}'`)
            .replace('6379', String(redis.port)),
    );
    await redis.command('SCRIPT', 'FLUSH');
    const viewer = await Native.in(halley.port, '42');
    for (const [key, verdict] of [['order-77', 'added'], ['order-77', 'repeat']]) {
        const child = spawn(process.execPath, [file, key], { stdio: ['ignore', 'pipe', 'inherit'] });
        const undo = atEnd(() => child.kill());
        let out = '';
        child.stdout.on('data', (data) => (out += data));
        await within(new Promise((resolve) => child.on('close', resolve)), 10000, 'the example');
        assert(out.includes(verdict), `${verdict}, got ${out}`);
        await undo();
    }
    const message = await viewer.message('gift');
    equal([message.room, parse(message.id).n], ['42', 1], 'the message');
    viewer.destroy();
});

await check('a reload that gives a type history: what was live before is not told again', async () => {
    const file = path.join(tempDir(), 'halley.conf');
    const write = (history) => fs.writeFileSync(file, `type chat { route = broadcast history = ${history} }\n`);
    write('no');
    const node = await Halley.start({ redis, workers: 2, conf: file });
    const viewer = await Native.in(node.port, 'reload');
    for (let i = 1; i <= 3; i++) {
        await post(halley, 'reload', { type: 'chat', data: i });
        equal((await viewer.message()).data, i, 'before');
    }
    write('yes');
    node.child.kill('SIGHUP');
    await node.waitLog(/conf reloaded/, 5000);
    for (let i = 4; i <= 5; i++) {
        await post(halley, 'reload', { type: 'chat', data: i });
        equal((await viewer.message()).data, i, 'after');
    }
    await viewer.alive();
    equal(viewer.received.length, 0, 'and nothing else');
    viewer.destroy();
    await node.stop();
});

await check('while Redis is away publishes of such types are refused with 503', async () => {
    const own = await Redis.start();
    const node = await Halley.start({ redis: own, workers: 1, set });
    await own.kill();
    await until(async () => (await node.http('GET', '/readyz')).status === 503, 'away');
    equal((await post(node, 'm', { type: 'chat' })).status, 503, 'status');
    equal(await node.metric('halley_history_published_total', 'result="unavailable"'), 1, 'the metric');
    await node.stop();
});

await finish();
