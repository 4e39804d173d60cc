#!/usr/bin/env node
// Joins that wait, for Redis' subscription or for history, and are overtaken: each is answered, and so is what overtook it.

import { createRequire } from 'node:module';

import { Halley, Native, Redis, assert, atEnd, check, equal, finish, until, within } from './lib.mjs';
import { Issuer } from './lib_tickets.mjs';

const require = createRequire(import.meta.url);
const issuer = new Issuer();
const set = { 'type.chat.history': 'yes', 'history.wait': '10s', 'presence.enabled': 'no', 'limits.join_rate': 1000, 'limits.join_burst': 1000 };
const redis = await Redis.start();
const open = await Halley.start({ redis, workers: 2, set });
const tickets = await Halley.start({ redis, workers: 2, set: { ...set, 'auth.mode': 'jwt', ...issuer.keys } });
const clients = { '2.5.0': require('socket.io-client-2'), 4: require('socket.io-client').io };
let rooms = 0;

// Redis keeps its connections and answers nothing while fn runs.
async function silent(fn) {
    redis.child.kill('SIGSTOP');
    try {
        await fn();
    } finally {
        redis.child.kill('SIGCONT');
    }
}

const answers = async (viewer, refs) => {
    const got = [];
    for (let i = 0; i < refs.length; i++) got.push(await viewer.next((m) => m.ref !== undefined, `an answer to one of ${refs}`));
    return got.map((m) => [m.op, m.ref, m.code]);
};

const heldBy = (node, room) => node.http('GET', `/v1/rooms/${room}`).then((answer) => answer.json.viewers);

// In the room, with the other lanes' ids, so that only history can tell what came after.
async function stranger(node, room) {
    const gone = await Native.in(node.port, room);
    const { json } = await node.publish(room, { type: 'chat', data: 1 });
    await gone.message();
    gone.destroy();
    await until(async () => !(await heldBy(node, room)), 'the room is empty');
    for (let i = 0; i < 3; i++) await node.publish(room, { type: 'chat', data: i });
    return json.id;
}

await check('a leave while the subscription is pending: the join is told not-in-room, the leave acked, in this order', async () => {
    const viewer = await Native.open(open.port);
    const room = `a${++rooms}`;
    await silent(async () => {
        await viewer.send({ op: 'join', room, ref: 11 });
        await viewer.send({ op: 'leave', room, ref: 12 });
        equal(await answers(viewer, [11, 12]), [['error', 11, 'not-in-room'], ['ack', 12, undefined]], 'answers');
    });
    equal((await viewer.join(room)).room, room, 'a join afterwards');
    await open.publish(room, { type: 'chat', data: 'in' });
    equal((await viewer.message()).data, 'in', 'a message');
    equal(viewer.received.filter((m) => m.ref !== undefined), [], 'answers that are one too many');
    viewer.destroy();
});

await check('joins without ref that are left are told nothing more than the ack', async () => {
    const viewer = await Native.open(open.port);
    const room = `b${++rooms}`;
    await silent(async () => {
        await viewer.send({ op: 'join', room });
        await viewer.send({ op: 'leave', room, ref: 12 });
        equal(await answers(viewer, [12]), [['ack', 12, undefined]], 'answers');
    });
    await viewer.alive();
    equal(viewer.received.filter((m) => m.op === 'error' || m.op === 'joined'), [], 'what else was told');
    viewer.destroy();
});

for (const [version, io] of Object.entries(clients)) {
    await check(`socket.io-client ${version}: both acknowledgements come`, async () => {
        const socket = io(`http://127.0.0.1:${open.port}`, { transports: ['websocket'], forceNew: true });
        atEnd(() => socket.close());
        await within(new Promise((resolve) => socket.on('connect', resolve)), 5000, 'connect');
        const room = `c${++rooms}`;
        const ask = (event) => within(new Promise((resolve) => socket.emit(event, room, resolve)), 5000, `the acknowledgement of ${event}`);
        await silent(async () => {
            const [join, leave] = await Promise.all([ask('join'), ask('leave')]);
            equal([join.ok, join.code, leave.ok], [false, 'not-in-room', true], 'acknowledgements');
        });
        socket.close();
    });
}

await check('a leave while history is read: the same, also for one that was in already', async () => {
    const room = `d${++rooms}`;
    const id = await stranger(open, room);
    const stays = await Native.in(open.port, room);
    const [fresh, held] = [await Native.open(open.port), await Native.in(open.port, room)];
    await silent(async () => {
        for (const viewer of [fresh, held]) {
            await viewer.send({ op: 'join', room, after: [id], ref: 11 });
            await viewer.send({ op: 'leave', room, ref: 12 });
            equal(await answers(viewer, [11, 12]), [['error', 11, 'not-in-room'], ['ack', 12, undefined]], 'answers');
        }
    });
    await until(async () => (await heldBy(open, room)) === 1, 'only the one that stays is in');
    equal((await fresh.request({ op: 'join', room, after: [id] })).op, 'joined', 'a join afterwards');
    for (let i = 0; i < 3; i++) equal((await fresh.message()).data, i, 'what it missed');
    for (const viewer of [stays, fresh, held]) viewer.destroy();
});

await check('a join with after behind one that waits, without a ref of its own: the first ref is answered', async () => {
    const viewer = await Native.open(open.port);
    const [first, second] = [`e${++rooms}`, `e${++rooms}`];
    await silent(async () => {
        await viewer.send({ op: 'join', room: first, ref: 21 });
        await viewer.send({ op: 'join', room: first, after: [] });
        await viewer.send({ op: 'join', room: second, after: [], ref: 22 });
        await viewer.send({ op: 'join', room: second, after: [] });
        await viewer.alive();
    });
    const got = await answers(viewer, [21, 22]);
    equal(got.sort((a, b) => a[1] - b[1]), [['joined', 21, undefined], ['joined', 22, undefined]], 'answers');
    viewer.destroy();
});

await check('a refresh that forbids a room: the join that waits for it is told forbidden, by its ref', async () => {
    const [room, other] = [`f${++rooms}`, `f${++rooms}`];
    const viewer = await Native.open(tickets.port, { query: { ticket_id: issuer.ticket() } });
    await silent(async () => {
        await viewer.send({ op: 'join', room, ref: 31 });
        await viewer.send({ op: 'join', room: other, ref: 32 });
        await viewer.send({ op: 'refresh', ticket: issuer.ticket({ rooms: [other] }), ref: 33 });
        equal(await answers(viewer, [33, 31]), [['ack', 33, undefined], ['error', 31, 'forbidden']], 'answers');
    });
    equal(await answers(viewer, [32]), [['joined', 32, undefined]], 'the room that is allowed');
    viewer.destroy();
});

await check('the same while history is read', async () => {
    const room = `g${++rooms}`;
    const id = await stranger(open, room);
    const [stays, viewer] = await Promise.all([1, 2].map(() => Native.open(tickets.port, { query: { ticket_id: issuer.ticket() } })));
    await stays.join(room);
    await silent(async () => {
        await viewer.send({ op: 'join', room, after: [id], ref: 41 });
        await viewer.send({ op: 'refresh', ticket: issuer.ticket({ rooms: [] }), ref: 42 });
        equal(await answers(viewer, [42, 41]), [['ack', 42, undefined], ['error', 41, 'forbidden']], 'answers');
    });
    await viewer.alive();
    assert(!viewer.received.some((m) => m.op === 'joined'), 'told joined');
    for (const each of [stays, viewer]) each.destroy();
});

await finish();
