#!/usr/bin/env node
// The Redis user of docs/operations.md: its lines as they stand there let each feature do all it does, and allow nothing that it
// does not need.

import fs from 'node:fs';
import path from 'node:path';

import { Halley, Native, Redis, assert, check, equal, finish, root, run, until } from './lib.mjs';

const redis = await Redis.start();
const user = { url: `redis://halley:password@127.0.0.1:${redis.port}` };
const alone = { 'presence.enabled': 'no', 'broker.linger': 0, 'broker.silence': '1s' };

// The lines, each with the comment that says what it is for.
const lines = fs
    .readFileSync(path.join(root, 'docs/operations.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('redis-cli ACL SETUSER halley '))
    .map((text) => ({ text, feature: /# (.*)$/.exec(text)?.[1], commands: text.match(/ \+[a-z]+/g).map((c) => c.slice(2)) }));
const granted = (...features) => new Set(lines.filter((l) => features.includes(l.feature)).flatMap((l) => l.commands));

// As an operator does: pasted into a shell.
async function allow(...features) {
    await redis.command('ACL', 'DELUSER', 'halley');
    const wanted = lines.filter((line) => features.includes(line.feature)).map((line) => line.text);
    const script = `redis-cli() { command redis-cli -p ${redis.port} "$@"; }\n${wanted.join('\n')}\n`;
    const { stdout } = await run('bash', ['-ec', script]);
    equal(stdout.trim().split('\n'), wanted.map(() => 'OK'), 'answers of Redis');
}

async function used() {
    const info = await redis.command('INFO', 'commandstats');
    return new Set([...info.matchAll(/cmdstat_([a-z]+):calls=[1-9]/g)].map((match) => match[1]));
}

const running = [];
async function start(name, set = {}) {
    const node = await Halley.start({ name, redis: user, workers: 2, set: { ...alone, 'server.node': name, ...set } });
    running.push(node);
    return node;
}
async function stopAll() {
    for (const node of running.splice(0)) await node.stop();
}

const post = async (node, target, body) => {
    const answer = await node.http('POST', `/v1/${target}/messages`, { body });
    equal(answer.status, 202, `status of ${target}`);
    return answer.json.id;
};

const features = {
    'messages, and all below': async () => {
        const [n1, n2] = [await start('n1'), await start('n2')];
        const viewer = await Native.in(n1.port, '42', { user: 'ann' });
        for (const type of ['chat', 'gift']) {
            await post(n2, 'rooms/42', { type });
            await viewer.message(type);
        }
        await post(n2, 'users/ann', { type: 'chat' });
        await viewer.message('chat');
        await n2.http('POST', '/v1/messages', { body: { type: 'system' } });
        await viewer.message('system');
        equal((await viewer.request({ op: 'send', room: '42', type: 'chat' })).op, 'ack', 'send');
        await viewer.message('chat');
        equal((await n2.http('GET', '/v1/users/ann/connections')).json.connections.length, 1, 'connections of ann');
        await n2.http('DELETE', '/v1/users/ann/connections');
        equal((await viewer.closing('the kick')).code, 4010, 'close code');
    },
    'scripts, for all but events and tickets': null,
    'queues': async () => {
        const node = await start('n1', { 'type.gift.route': 'queue' });
        const viewer = await Native.in(node.port, '42');
        const ids = [];
        for (const key of [undefined, 'k', 'k']) {
            const answer = await viewer.request({ op: 'send', room: '42', type: 'gift', key });
            equal(answer.op, 'ack', 'answer');
            ids.push(answer.id);
        }
        assert(ids[0] !== ids[1] && ids[1] === ids[2], `the repeat has the id of the first: ${ids}`);
    },
    'merged types': async () => {
        await redis.command('HSET', 'halley:total:{42}', 'like', '9007199254740990');
        await redis.command('CONFIG', 'RESETSTAT');
        const node = await start('n1', { 'type.like.route': 'broadcast', 'type.like.merge': 'sum:n', 'type.like.window': '50ms' });
        const viewer = await Native.in(node.port, '42');
        for (const time of ['by EVAL', 'by EVALSHA']) {
            equal((await viewer.request({ op: 'send', room: '42', type: 'like', data: { n: 5 } })).op, 'ack', `answer ${time}`);
            equal((await viewer.message('like')).data.total, 9007199254740991, 'total, which goes no further');
        }
    },
    'sessions': async () => {
        const nodes = [await start('n1', { 'broker.session_ttl': '3s' }), await start('n2', { 'broker.session_ttl': '3s' })];
        const come = (node) => Native.open(node.port, { user: 'ann', query: { session: 's' } });
        const first = await come(nodes[0]);
        await until(async () => (await used()).has('pexpire'), 'the session is renewed');
        await until(async () => (await used()).has('evalsha'), 'and once more');
        const second = await come(nodes[1]);
        equal((await first.closing('4009')).code, 4009, 'close code');
        await second.bye();
        await until(async () => (await used()).has('del'), 'the session is given back');
    },
    'events': async () => {
        const node = await start('n1', { 'events.kinds': 'connect,join,leave,close' });
        await (await Native.in(node.port, '42')).bye();
        await until(async () => (await node.metric('halley_events_total', 'result="added"')) >= 3, 'three events');
    },
    'tickets': async () => {
        const node = await start('n1', { 'auth.mode': 'redis', 'auth.single_use': 'yes' });
        const exp = Math.floor(Date.now() / 1000) + 60;
        await redis.command('SET', 'halley:ticket:0123456789abcdef', JSON.stringify({ sub: 'ann', exp }));
        const viewer = await Native.open(node.port, { query: { ticket_id: '0123456789abcdef' } });
        equal(viewer.welcome.user, 'ann', 'user');
    },
    'types with history': async () => {
        const node = await start('n1', { 'type.chat.history': 'yes', 'history.ttl': '1s' });
        const viewer = await Native.in(node.port, '42', { user: 'ann' });
        const first = await post(node, 'rooms/42', { type: 'chat', key: 'k' });
        equal(await post(node, 'rooms/42', { type: 'chat', key: 'k' }), first, 'the repeat');
        const { id } = await viewer.request({ op: 'send', room: '42', type: 'chat', key: 'v' });
        assert(id > first, `the send has an id: ${id}`);
        const missed = await post(node, 'rooms/43', { type: 'chat' });
        const back = await Native.open(node.port);
        equal((await back.request({ op: 'join', room: '43', after: [] })).op, 'joined', 'answer');
        equal((await back.message('chat')).id, missed, 'the message that was missed');
        await until(async () => (await post(node, 'rooms/42', { type: 'chat' })) && (await used()).has('xdel'), 'old ones go', 5000, 100);
        const [epoch, last] = (await post(node, 'rooms/42', { type: 'chat' })).split('.').slice(1);
        await viewer.next((m) => m.id === `n.${epoch}.${last}`, 'the newest');
        await redis.command('HINCRBY', 'halley:seq:{42}', 'normal', -1); // Redis lost one
        await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
        await viewer.notice('gap');
        await until(async () => (await used()).has('hdel'), 'another epoch');
    },
    'who is online': async () => {
        await redis.command('ZADD', 'halley:nodes', 1, 'old 1'); // long dead: it is removed
        await redis.command('CONFIG', 'RESETSTAT');
        const set = { 'presence.enabled': 'yes', 'presence.interval': '1s' };
        const nodes = [await start('n1', set), await start('n2', set)];
        const viewers = [await Native.in(nodes[0].port, '42'), await Native.in(nodes[1].port, '42')];
        for (const viewer of viewers) await viewer.next((m) => m.op === 'online' && m.online === 2, 'two online', 10000);
        await viewers[1].bye();
        await until(async () => (await used()).has('hdel'), 'the count of who left is taken back');
    },
};

const [base, scripts] = Object.keys(features);

await check('the document names exactly the features that are tried here', async () => {
    equal(lines.map((line) => line.feature), Object.keys(features), 'comments');
});

for (const [feature, use] of Object.entries(features).filter(([, f]) => f))
    await check(`${feature}: nothing is refused, and nothing allowed that is not used`, async () => {
        const own = feature === base ? [base] : ['events', 'tickets'].includes(feature) ? [base, feature] : [base, scripts, feature];
        await stopAll();
        await redis.command('FLUSHALL');
        await redis.command('SCRIPT', 'FLUSH');
        await allow(...own);
        await redis.command('ACL', 'LOG', 'RESET');
        await redis.command('CONFIG', 'RESETSTAT');
        await use();
        if (feature === base)
            for (const command of ['unsubscribe', 'ping']) await until(async () => (await used()).has(command), command);
        await stopAll();
        const seen = await used();
        const needless = [...granted(...own.filter((name) => feature === base || name !== base))];
        equal(needless.filter((command) => !seen.has(command)), [], 'not used');
        const refused = await redis.command('ACL', 'LOG');
        equal(refused.map((entry) => entry.slice(2, 8)), [], 'refused by Redis');
    });

await finish();
