#!/usr/bin/env node
// What viewers may send: validation, abuse, and rates by type, user and room, over two workers and after a reload.

import fs from 'node:fs';
import path from 'node:path';

import { Halley, Native, Redis, assert, check, checkBucket, equal, finish, frame, tempDir, until } from './lib.mjs';

const CHAT = (room, ref, data = 1) => ({ op: 'send', room, type: 'chat', data, ref });

const redis = await Redis.start();
const dir = tempDir();
const file = path.join(dir, 'halley.conf');

// What the file leaves out is as shipped; SIGHUP makes it count.
const write = (limits, types) => fs.writeFileSync(file, `limits {\n${limits}\n}\n${types}\n`);

const GENEROUS = 'viewer_rate = 100000 viewer_burst = 100000 bad_messages = 10 refused_messages = 40';
write(GENEROUS, 'type chat { max_bytes = 1k }');
const node = await Halley.start({ conf: file, redis, workers: 2, set: { 'server.accept': 'spread' } });

async function reload(limits, types = 'type chat { max_bytes = 1k }') {
    const from = node.log.length;
    write(limits, types);
    node.child.kill('SIGHUP');
    await node.waitLog(/conf reloaded/, 5000, from);
}

let rooms = 0;
const freshRoom = () => `limits-${++rooms}`;

// All in one write: to a bucket they come at the same time, however slow this machine is.
const flood = (viewer, messages) =>
    viewer.ws.write(Buffer.concat(messages.map((m) => frame({ payload: typeof m === 'string' ? m : JSON.stringify(m) }))));

const codes = (list) => list.map((a) => a.code || a.op);

// ---- validation

await check('a viewer forges neither from, id, type nor room: unknown members are left out', async () => {
    const room = freshRoom();
    const viewer = await Native.in(node.port, room, { user: 'alice' });
    await viewer.send(
        `{"op":"send","room":"${room}","type":"chat","from":"root","id":"h.x.1","user":"root","lane":"high",` +
            '"data":{"from":"eve","id":"x","type":"gift"},"ref":1}',
    );
    const message = await viewer.message('chat');
    equal(
        message,
        { type: 'chat', room, from: 'alice', data: { from: 'eve', id: 'x', type: 'gift' } },
        'what the room got',
    );
    // The last of two members of one name counts, for the check as for the message.
    await viewer.send(`{"op":"send","room":"${room}","type":"chat","type":"gift","data":1,"ref":2}`);
    equal((await viewer.next((m) => m.ref === 2, 'answer')).code, 'forbidden', 'type twice');
    viewer.destroy();
});

const wrongs = {
    'type of nobody': [{ type: 'nope', data: 1 }, 'unknown-type'],
    'type that viewers may not send': [{ type: 'gift', data: 1 }, 'forbidden'],
    'type that is no name': [{ type: 'Chat', data: 1 }, 'bad-name'],
    'type that is no string': [{ type: 7, data: 1 }, 'bad-name'],
    'no type': [{ data: 1 }, 'bad-message'],
    'room that it is not in': [{ room: 'elsewhere', type: 'chat', data: 1 }, 'not-in-room'],
    'room that is no name': [{ room: '{x}', type: 'chat', data: 1 }, 'bad-name'],
    'data of max_bytes + 1': [{ type: 'chat', data: 'x'.repeat(1023) }, 'too-large'],
    'key on a type that has none': [{ type: 'chat', data: 1, key: 'k' }, 'bad-message'],
    'nested 33 deep': [{ type: 'chat', data: JSON.parse('['.repeat(33) + ']'.repeat(33)) }, 'bad-message'],
};
for (const [what, [members, code]] of Object.entries(wrongs)) {
    await check(`refused, connection kept, nothing reaches the room: ${what}`, async () => {
        const room = freshRoom();
        const viewer = await Native.in(node.port, room);
        const before = await node.metric('halley_published_total', 'viewer');
        await viewer.send({ op: 'send', room, ref: 5, ...members });
        equal((await viewer.notice('error')).code, code, 'code');
        equal((await viewer.request(CHAT(room, 6, 'x'.repeat(1022)))).op, 'ack', 'a good one behind it');
        equal((await node.metric('halley_published_total', 'viewer')) - before, 1, 'messages published');
        equal((await viewer.message('chat')).data.length, 1022, 'what the room got first');
        viewer.destroy();
    });
}

// ---- abuse

const abuses = {
    'well-formed but bad (unknown types)': [10, (room) => ({ op: 'send', room, type: 'nope' })],
    'unreadable JSON': [10, () => '{'],
    'sends into a foreign room': [40, () => ({ op: 'send', room: 'elsewhere', type: 'chat' })],
    'forbidden types': [40, (room) => ({ op: 'send', room, type: 'gift' })],
};
for (const [what, [allowed, message]] of Object.entries(abuses)) {
    await check(`abuse: ${allowed} a minute are answered, the next closes with 1008: ${what}`, async () => {
        const room = freshRoom();
        const some = Array.from({ length: allowed }, () => message(room));
        const [viewer, worse] = [await Native.in(node.port, room), await Native.in(node.port, room)];
        flood(viewer, some);
        await viewer.alive();
        equal(viewer.received.filter((m) => m.op === 'error').length, allowed, 'errors answered');
        flood(worse, [...some, message(room)]);
        equal((await worse.closing('the close')).code, 1008, 'close code');
        viewer.destroy();
    });
}

await check('abuse: what is past a rate counts too; being unable to send counts nothing', async () => {
    await reload(`${GENEROUS}\nroom_send_rate = 1 room_send_burst = 1`, 'type chat { rate = 1 burst = 1 }');
    const room = freshRoom();
    const viewer = await Native.in(node.port, room);
    flood(
        viewer,
        Array.from({ length: 42 }, (_, i) => CHAT(room, i)),
    );
    equal((await viewer.closing('the close')).code, 1008, 'close code');
    equal(viewer.received.filter((m) => m.code === 'rate-limited').length, 41, 'refusals told');
    await reload(`${GENEROUS}\nroom_send_rate = 1 room_send_burst = 1`);
    const full = freshRoom();
    const crowd = await Native.in(node.port, full);
    const from = performance.now();
    const told = await crowd.atOnce(Array.from({ length: 60 }, () => CHAT(full)));
    checkBucket(codes(told).filter((c) => c === 'ack').length, { tried: 60, burst: 1, rate: 1, from }, 'a full room');
    await crowd.alive();
    crowd.destroy();
});

// ---- rates

await check('rate of a type: burst, then rate-limited with retry_after_ms, then again; others are free', async () => {
    await reload(GENEROUS, 'type chat { rate = 5 burst = 3 }\ntype shout { route = broadcast }');
    const room = freshRoom();
    const viewer = await Native.in(node.port, room);
    const told = await viewer.atOnce(Array(4).fill(CHAT(room)));
    equal(codes(told), ['ack', 'ack', 'ack', 'rate-limited'], 'answers');
    assert(told[3].retry_after_ms > 0 && told[3].retry_after_ms <= 200, `retry_after_ms ${told[3].retry_after_ms}`);
    equal((await viewer.request({ op: 'send', room, type: 'shout', ref: 5 })).op, 'ack', 'another type');
    await new Promise((resolve) => setTimeout(resolve, told[3].retry_after_ms + 5));
    equal((await viewer.request(CHAT(room, 6))).op, 'ack', 'after retry_after_ms');
    const other = await Native.in(node.port, room);
    equal((await other.request(CHAT(room, 1))).op, 'ack', 'another viewer');
    equal(await node.metric('halley_rate_limited_total', 'scope="type"') > 0, true, 'counted');
    viewer.destroy();
    other.destroy();
});

await check('rate of a type: a reload that moves types about leaves debts with their types', async () => {
    const slow = 'type chat { rate = 1 burst = 1 }';
    await reload(GENEROUS, `${slow}\ntype shout { route = broadcast rate = 1 burst = 1 }`);
    const room = freshRoom();
    const viewer = await Native.in(node.port, room);
    const shout = () => ({ op: 'send', room, type: 'shout' });
    equal(codes(await viewer.atOnce([CHAT(room), CHAT(room)])), ['ack', 'rate-limited'], 'before');
    await reload(
        GENEROUS,
        `type aaa { route = broadcast rate = 1 burst = 1 }\ntype shout { route = broadcast rate = 1 burst = 1 }\n${slow}`,
    );
    const aaa = () => ({ op: 'send', room, type: 'aaa' });
    const told = await viewer.atOnce([shout(), shout(), CHAT(room), aaa(), aaa()]);
    const since = told[2];
    equal(codes(told).toSpliced(2, 1), ['ack', 'rate-limited', 'ack', 'rate-limited'], 'the others start full');
    assert(since.code === 'rate-limited' || since.op === 'ack', 'chat'); // a second may have passed
    viewer.destroy();
});

// Viewers of one user on different workers.
async function viewersOn(count, room, user) {
    const viewers = [];
    for (let i = 0; i < count; i++) viewers.push(await Native.in(node.port, room(i), { user }));
    return viewers;
}

await check('rate of a user: holds over all its connections and workers, and for nobody else', async () => {
    await reload(`${GENEROUS}\nuser_rate = 2 user_burst = 6`);
    const names = Array.from({ length: 8 }, freshRoom);
    const viewers = await viewersOn(8, (i) => names[i], 'mallory');
    assert((await node.metrics()).get('halley_worker_viewers{worker="1"}') > 0, 'no viewer on the second worker');
    const from = performance.now();
    const told = (await Promise.all(viewers.map((v, i) => v.atOnce(Array(6).fill(CHAT(names[i])))))).flat();
    checkBucket(codes(told).filter((c) => c === 'ack').length, { tried: 48, burst: 6, rate: 2, from }, 'a user');
    const refused = told.find((a) => a.code === 'rate-limited');
    assert(refused.retry_after_ms > 0 && refused.retry_after_ms <= 500, `retry_after_ms ${refused.retry_after_ms}`);
    const room = freshRoom();
    const other = await Native.in(node.port, room, { user: 'trent' });
    equal((await other.request(CHAT(room, 1))).op, 'ack', 'another user');
    assert((await node.metric('halley_rate_limited_total', 'scope="user"')) > 0, 'counted');
    await until(async () => (await node.metric('halley_rate_entries')) === 0, 'users forgotten', 15000, 100);
    for (const v of [...viewers, other]) v.destroy();
});

await check('rate of a room: holds over all viewers and workers, and for no other room', async () => {
    await reload(`${GENEROUS}\nroom_send_rate = 5 room_send_burst = 6`);
    const room = freshRoom();
    const viewers = await viewersOn(8, () => room);
    const from = performance.now();
    const told = (await Promise.all(viewers.map((v) => v.atOnce(Array(6).fill(CHAT(room)))))).flat();
    checkBucket(codes(told).filter((c) => c === 'ack').length, { tried: 48, burst: 6, rate: 5, from }, 'a room');
    const elsewhere = freshRoom();
    const other = await Native.in(node.port, elsewhere);
    equal((await other.request(CHAT(elsewhere, 1))).op, 'ack', 'another room');
    for (const v of [...viewers, other]) v.destroy();
});

await finish();
