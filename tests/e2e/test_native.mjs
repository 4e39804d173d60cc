#!/usr/bin/env node
// The native protocol on /ws: every op and answer, errors by code, names, delivery over all workers.

import WebSocket from 'ws';

import {
    Halley,
    Native,
    OP,
    WsRaw,
    assert,
    check,
    equal,
    finish,
    refusal,
    rawRequest,
    requestHead,
    sanitized,
    until,
    within,
} from './lib.mjs';

const halley = await Halley.start({
    workers: 2,
    set: { 'limits.rooms_per_viewer': 8, 'server.node': 'node-under-test' },
});
const port = halley.port;

const open = (options) => Native.open(port, options);
let roomNumber = 0;
const freshRoom = () => `room-${++roomNumber}`;

async function errorOf(viewer, message, code) {
    const answer = await viewer.request(message);
    equal(answer.op, 'error', `answer to ${JSON.stringify(message).slice(0, 90)}`);
    equal(answer.code, code, `code for ${JSON.stringify(message).slice(0, 90)}`);
    assert(typeof answer.message === 'string' && answer.message.length > 8, 'an error says what happened in words');
    return answer;
}

// ---- handshake and welcome

await check('handshake: welcome names connection, user, node and heartbeat', async () => {
    const viewer = await open({ user: 'alice' });
    const { op, connection, user, node, heartbeat } = viewer.welcome;
    equal(op, 'welcome', 'first message');
    assert(typeof connection === 'string' && connection.length > 0, 'connection is a text');
    equal(user, 'alice', 'user');
    equal(node, 'node-under-test', 'node');
    equal(heartbeat, { interval_ms: 25000, timeout_ms: 60000 }, 'heartbeat');
    viewer.destroy();
});

await check('handshake: without user the viewer is guest-<connection>', async () => {
    const a = await open();
    const b = await open();
    equal(a.welcome.user, `guest-${a.welcome.connection}`, 'user');
    assert(a.welcome.connection !== b.welcome.connection, 'two connections have two names');
    a.destroy();
    b.destroy();
});

await check('handshake: 101 and welcome come in one read', async () => {
    const ws = await WsRaw.open(port, '/ws?user=once');
    await ws.nextText();
    equal(ws.firstRead.reads, 1, 'reads until the end of the head');
    assert(ws.firstRead.bytes.includes('"op":"welcome"'), 'welcome is in the read that ended the head');
    ws.destroy();
});

await check('handshake: subprotocol halley.v1.json is chosen when offered, none otherwise', async () => {
    const ws = await WsRaw.open(port, '/ws', { headers: { 'Sec-WebSocket-Protocol': 'other, halley.v1.json' } });
    equal(ws.answer.headers['sec-websocket-protocol'], 'halley.v1.json', 'Sec-WebSocket-Protocol');
    ws.destroy();
    const plain = await WsRaw.open(port, '/ws', { headers: { 'Sec-WebSocket-Protocol': 'other' } });
    equal(plain.answer.headers['sec-websocket-protocol'], undefined, 'Sec-WebSocket-Protocol');
    plain.destroy();
});

await check('handshake: no extension is agreed on', async () => {
    const ws = await WsRaw.open(port, '/ws', {
        headers: { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' },
    });
    equal(ws.answer.headers['sec-websocket-extensions'], undefined, 'Sec-WebSocket-Extensions');
    ws.destroy();
});

await check('handshake: rooms of the query are joined at once, told by joined notices without ref', async () => {
    const rooms = [freshRoom(), freshRoom()];
    const viewer = await open({ user: 'query', rooms });
    const told = [await viewer.notice('joined'), await viewer.notice('joined')];
    equal(told.map((m) => m.room).sort(), rooms.sort(), 'rooms');
    assert(
        told.every((m) => !('ref' in m)),
        'no ref',
    );
    await halley.publish(rooms[1], { type: 'chat', data: 1 });
    equal((await viewer.message()).room, rooms[1], 'a message arrives');
    viewer.destroy();
});

await check('handshake: unknown query parameters, ticket_id and Bearer are accepted and ignored', async () => {
    const viewer = await open({
        query: {
            user: 'q',
            ticket_id: '9c394a175508edfcd3d1db3b7bc8008d',
            net: '4g',
            scene: 'live',
            session: 's-1',
            whatever: 'x',
        },
        headers: { Authorization: 'Bearer abc' },
    });
    equal(viewer.welcome.user, 'q', 'user');
    viewer.destroy();
});

await check('handshake: query values are percent-decoded', async () => {
    const viewer = await open({ target: '/ws?user=a%20b%2B%c3%a9'.replace('%c3%a9', '') });
    equal(viewer.welcome.user, 'a b+', 'user');
    viewer.destroy();
});

for (const [what, target, options, status] of [
    ['another path', '/nope', {}, 404],
    ['/echo while server.echo is off', '/echo', {}, 404],
    ['POST', '/ws', { method: 'POST', headers: { 'Content-Length': '0' } }, 405],
    ['no upgrade', '/ws', { drop: ['Upgrade', 'Connection'] }, 426],
    ['version 8', '/ws', { headers: { 'Sec-WebSocket-Version': '8' } }, 426],
    ['no key', '/ws', { drop: ['Sec-WebSocket-Key'] }, 400],
    ['a key that is too short', '/ws', { headers: { 'Sec-WebSocket-Key': 'c2hvcnQ=' } }, 400],
    ['a bad room name', '/ws?room=a/b', {}, 400],
    ['a bad user name', '/ws?user=%22x%22', {}, 400],
    ['a user name of 65 bytes', `/ws?user=${'u'.repeat(65)}`, {}, 400],
    ['an empty user name', '/ws?user=', {}, [400, 101]],
    ['a broken percent sequence', '/ws?user=%zz', {}, 400],
    ['a NUL in the user name', '/ws?user=a%00b', {}, 400],
]) {
    await check(`handshake refused: ${what} is answered ${status}`, async () => {
        const answer = await refusal(port, target, options);
        if (Array.isArray(status))
            assert(status.includes(answer.status), `expected one of ${status}, got ${answer.status}`);
        else equal(answer.status, status, 'status');
        if (answer.status === 101) return;
        assert(
            answer.json && typeof answer.json.error === 'string' && typeof answer.json.message === 'string',
            `a JSON body with error and message, got ${answer.text}`,
        );
        if (answer.status === 426) equal(answer.headers['sec-websocket-version'], '13', 'Sec-WebSocket-Version');
    });
}

await check("/healthz on the viewers' port says 200", async () => {
    const answer = await rawRequest(port, 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    equal(answer.status, 200, 'status');
    equal(answer.text, 'ok\n', 'body');
});

await check('/healthz: HEAD is answered as GET, without the body (RFC 9110 §9.3.2)', async () => {
    const answer = await rawRequest(port, 'HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    equal([answer.status, answer.headers['content-length'], answer.text], [200, '3', ''], 'status, length, body');
});

await check('handshake: bytes that follow the head at once are read', async () => {
    const { frame } = await import('./lib.mjs');
    const ws = await WsRaw.open(port, '/ws', { behind: frame({ payload: '{"op":"ping","ref":77}' }) });
    const texts = [await ws.nextText(), await ws.nextText()];
    assert(texts[1].includes('"ref":77'), `the pong with ref 77 follows welcome, got ${texts[1]}`);
    ws.destroy();
});

// ---- join, leave, ping

await check('join: joined with room and ref; a second join of the same room is answered too', async () => {
    const viewer = await open();
    const room = freshRoom();
    const first = await viewer.join(room);
    equal(first.room, room, 'room');
    await viewer.join(room);
    await halley.publish(room, { type: 'chat', data: 'once' });
    await viewer.message();
    await viewer.alive();
    equal(viewer.received.filter((m) => m.type).length, 0, 'further copies');
    viewer.destroy();
});

await check('join: without ref only errors are answered', async () => {
    const viewer = await open();
    const room = freshRoom();
    await viewer.send({ op: 'pace', mode: 'active' });
    await viewer.send({ op: 'refresh', ticket: 'x' });
    await viewer.send({ op: 'join', room: 'bad name' });
    const error = await viewer.notice('error');
    equal(error.code, 'bad-name', 'code');
    assert(!('ref' in error), 'no ref');
    await viewer.join(room);
    equal(viewer.received.filter((m) => m.op === 'ack').length, 0, 'acks without ref');
    viewer.destroy();
});

await check('join: after is accepted', async () => {
    const viewer = await open();
    const answer = await viewer.request({ op: 'join', room: freshRoom(), after: ['h.x7k2.90', 'n.x7k2.1042'] });
    equal(answer.op, 'joined', 'op');
    equal(
        (await viewer.request({ op: 'join', room: freshRoom(), after: 'n.x.1' })).code,
        'bad-message',
        'code for an after that is no list',
    );
    viewer.destroy();
});

await check('leave: ack, then no more messages of the room', async () => {
    const viewer = await open();
    const [left, kept] = [freshRoom(), freshRoom()];
    await viewer.join(left);
    await viewer.join(kept);
    equal((await viewer.request({ op: 'leave', room: left })).op, 'ack', 'answer');
    await halley.publish(left, { type: 'chat', data: 'gone' });
    await halley.publish(kept, { type: 'chat', data: 'here' });
    equal((await viewer.message()).data, 'here', 'next message');
    viewer.destroy();
});

await check('leave: of a room that is not held is answered', async () => {
    const viewer = await open();
    const answer = await viewer.request({ op: 'leave', room: 'not-held' });
    assert(answer.op === 'ack' || answer.code === 'not-in-room', `ack or not-in-room, got ${answer.$text}`);
    viewer.destroy();
});

await check('ping: pong with ref, the time, and the heartbeat interval', async () => {
    const viewer = await open();
    const before = Date.now();
    const pong = await viewer.request({ op: 'ping' });
    equal(pong.op, 'pong', 'op');
    assert(
        pong.time_ms >= before - 1000 && pong.time_ms <= Date.now() + 1000,
        `time_ms is Unix time, got ${pong.time_ms}`,
    );
    assert(
        pong.heartbeat.interval_ms > 0 && pong.heartbeat.interval_ms <= 25000,
        `interval within the conf's, got ${pong.heartbeat.interval_ms}`,
    );
    await viewer.send({ op: 'ping' });
    assert(!('ref' in (await viewer.notice('pong'))), 'a ping without ref has a pong without ref');
    viewer.destroy();
});

await check('ping: a WebSocket ping is answered by its pong', async () => {
    const ws = await WsRaw.open(port);
    await ws.send({ opcode: OP.ping, payload: 'are you there' });
    await ws.pong('are you there');
    ws.destroy();
});

await check('ref: 0 and 2^53-1 are echoed; others are bad-message', async () => {
    const viewer = await open();
    for (const ref of [0, Number.MAX_SAFE_INTEGER]) {
        await viewer.send(`{"op":"ping","ref":${ref}}`);
        await viewer.next((m) => m.op === 'pong' && m.ref === ref, `pong with ref ${ref}`);
    }
    for (const ref of ['9007199254740992', '-1', '1.5', '"1"', '1e3', 'true', '{}']) {
        await viewer.send(`{"op":"ping","ref":${ref}}`);
        equal(
            (await viewer.next((m) => m.op === 'error' || m.op === 'pong', `the answer to ref ${ref}`)).code,
            'bad-message',
            `code for ref ${ref}`,
        );
    }
    viewer.destroy();
});

await check('unknown fields are ignored, unknown ops are bad-message, both viewers live on', async () => {
    const viewer = await open();
    equal((await viewer.request({ op: 'ping', wings: { of: ['wax'] }, id: 7 })).op, 'pong', 'answer');
    await errorOf(viewer, { op: 'fly' }, 'bad-message');
    await errorOf(viewer, { room: 'x' }, 'bad-message');
    await errorOf(viewer, { op: 7 }, 'bad-message');
    await viewer.alive();
    viewer.destroy();
});

await check('a member that stands twice counts as it stands last', async () => {
    const viewer = await open();
    await viewer.send('{"op":"fly","op":"ping","ref":1,"ref":4711}');
    equal((await viewer.notice('pong')).ref, 4711, 'ref');
    viewer.destroy();
});

await check('escaped names count as what they say', async () => {
    const viewer = await open();
    const room = freshRoom();
    await viewer.send(`{"\\u006fp":"j\\u006fin","room":"${room.replace('r', '\\u0072')}","ref":4712}`);
    equal((await viewer.notice('joined')).room, room, 'room');
    viewer.destroy();
});

for (const text of [
    '',
    ' ',
    '{',
    '[]',
    '"ping"',
    'null',
    '{"op":"ping"} x',
    '{"op":"ping",}',
    "{'op':'ping'}",
    '{"op":"pi\nng"}',
    '{"op":"ping","ref":01}',
    '\ufeff{"op":"ping"}',
    '{"op":"join"}',
    '{"op":"send","room":"r"}',
]) {
    await check(`bad-message, connection kept: ${JSON.stringify(text)}`, async () => {
        const viewer = await open();
        await viewer.send(text);
        equal((await viewer.notice('error')).code, 'bad-message', 'code');
        await viewer.alive();
        viewer.destroy();
    });
}

await check('too many messages that cannot be read close with 1008', async () => {
    const viewer = await open();
    for (let i = 0; i < 40; i++) viewer.send('{');
    equal((await viewer.closing('the close after 40 unreadable messages')).code, 1008, 'close code');
});

await check('a binary message closes with 1003', async () => {
    const ws = await WsRaw.open(port);
    await ws.send({ opcode: OP.binary, payload: '{"op":"ping"}' });
    equal((await ws.closing()).code, 1003, 'close code');
});

// ---- names

await check('names: rooms of 1 and 64 bytes with every allowed character are joined', async () => {
    const viewer = await open();
    for (const room of ['a', '0', 'A.z_9:-', 'x'.repeat(64)]) await viewer.join(room);
    viewer.destroy();
});

for (const room of ['', 'x'.repeat(65), 'a b', 'a/b', 'ä', 'a\u0000b', '{a}', 'a\n', '*', '😀']) {
    await check(`names: room ${JSON.stringify(room.slice(0, 12))} (${room.length}) is bad-name`, async () => {
        const viewer = await open();
        await errorOf(viewer, { op: 'join', room }, 'bad-name');
        await viewer.alive();
        viewer.destroy();
    });
}

await check('names: a room that is no string is refused', async () => {
    const viewer = await open();
    for (const room of [42, null, ['a'], {}]) {
        const answer = await viewer.request({ op: 'join', room });
        assert(
            ['bad-message', 'bad-name'].includes(answer.code),
            `bad-message or bad-name for ${JSON.stringify(room)}, got ${answer.$text}`,
        );
    }
    viewer.destroy();
});

await check('names: types that Socket.IO reserves, halley, capitals, 33 bytes are bad-name', async () => {
    const viewer = await open();
    const room = freshRoom();
    await viewer.join(room);
    for (const type of [
        'connect',
        'disconnect',
        'error',
        'connect_error',
        'reconnect',
        'reconnect_attempt',
        'ping',
        'pong',
        'halley',
        'Chat',
        'newListener',
        '',
        'a b',
        't'.repeat(33),
        'a\u0000',
    ]) {
        await errorOf(viewer, { op: 'send', room, type, data: 1 }, 'bad-name');
    }
    viewer.destroy();
});

// ---- send

await check('send: arrives at the others and at its sender, stamped with from', async () => {
    const room = freshRoom();
    const alice = await Native.in(port, room, { user: 'alice' });
    const bob = await Native.in(port, room, { user: 'bob' });
    const ack = await alice.request({ op: 'send', room, type: 'chat', data: { text: 'hi' } });
    equal(ack.op, 'ack', 'answer to the sender');
    for (const viewer of [alice, bob]) {
        const message = await viewer.message('chat');
        equal([message.room, message.from, message.data], [room, 'alice', { text: 'hi' }], 'message');
    }
    alice.destroy();
    bob.destroy();
});

await check('send: a viewer cannot speak for another: from and id of its message are ignored', async () => {
    const room = freshRoom();
    const alice = await Native.in(port, room, { user: 'alice' });
    await alice.send({ op: 'send', room, type: 'chat', data: 1, from: 'mallory', user: 'mallory', id: 'n.x.1' });
    const message = await alice.message();
    equal(message.from, 'alice', 'from');
    assert(message.id !== 'n.x.1', "the id is not the viewer's to choose");
    alice.destroy();
});

await check('send: without data arrives without data', async () => {
    const room = freshRoom();
    const viewer = await Native.in(port, room);
    await viewer.send({ op: 'send', room, type: 'chat' });
    assert(!('data' in (await viewer.message())), 'no data');
    viewer.destroy();
});

await check('send: not-in-room, forbidden, too-large, bad-message for a key without history', async () => {
    const viewer = await open();
    const room = freshRoom();
    await errorOf(viewer, { op: 'send', room, type: 'chat', data: 1 }, 'not-in-room');
    await viewer.join(room);
    await errorOf(viewer, { op: 'send', room, type: 'system', data: 1 }, 'forbidden');
    await errorOf(viewer, { op: 'send', room, type: 'like', data: 1 }, 'forbidden');
    const unlisted = await viewer.request({ op: 'send', room, type: 'unlisted', data: 1 });
    assert(['forbidden', 'unknown-type'].includes(unlisted.code), `forbidden or unknown-type, got ${unlisted.$text}`);
    await errorOf(viewer, { op: 'send', room, type: 'chat', data: 'x'.repeat(17000) }, 'too-large');
    await errorOf(viewer, { op: 'send', room, type: 'chat', data: 1, key: 'c0ffee' }, 'bad-message');
    await viewer.alive();
    equal(viewer.received.filter((m) => m.type).length, 0, 'messages that came of it');
    viewer.destroy();
});

await check('send: after leave is not-in-room', async () => {
    const viewer = await open();
    const room = freshRoom();
    await viewer.join(room);
    await viewer.request({ op: 'leave', room });
    await errorOf(viewer, { op: 'send', room, type: 'chat', data: 1 }, 'not-in-room');
    viewer.destroy();
});

await check('pace passive: only the high lane arrives; active undoes it', async () => {
    const viewer = await open();
    const room = freshRoom();
    await viewer.join(room);
    equal((await viewer.request({ op: 'pace', mode: 'passive' })).op, 'ack', 'answer');
    await halley.publish(room, { type: 'chat', data: 'normal' });
    await halley.publish(room, { type: 'like', data: 'low' });
    await halley.publish(room, { type: 'system', data: 'high' });
    equal((await viewer.message()).data, 'high', 'what arrives');
    equal((await viewer.request({ op: 'pace', mode: 'active' })).op, 'ack', 'answer');
    await halley.publish(room, { type: 'chat', data: 'again' });
    await viewer.next((m) => m.type === 'chat' && m.data === 'again', 'the message after active');
    await errorOf(viewer, { op: 'pace', mode: 'fast' }, 'bad-message');
    await errorOf(viewer, { op: 'pace' }, 'bad-message');
    viewer.destroy();
});

await check('refresh: acked where tickets are not looked at', async () => {
    const viewer = await open();
    equal((await viewer.request({ op: 'refresh', ticket: 'abc.def' })).op, 'ack', 'answer');
    viewer.destroy();
});

await check('limits.rooms_per_viewer: one more is too-many-rooms; after a leave it is let in', async () => {
    const viewer = await open();
    const rooms = Array.from({ length: 8 }, freshRoom);
    for (const room of rooms) await viewer.join(room);
    await errorOf(viewer, { op: 'join', room: 'one-more' }, 'too-many-rooms');
    await viewer.request({ op: 'leave', room: rooms[3] });
    await viewer.join('one-more');
    viewer.destroy();
});

await check('rate limit: past the burst rate-limited with retry_after_ms, the connection lives on', async () => {
    const viewer = await open();
    for (let ref = 1; ref <= 120; ref++) viewer.send({ op: 'ping', ref: 100000 + ref });
    const refused = await viewer.next((m) => m.op === 'error', 'a refusal');
    equal(refused.code, 'rate-limited', 'code');
    assert(
        refused.retry_after_ms > 0 && refused.retry_after_ms <= 10000,
        `retry_after_ms, got ${refused.retry_after_ms}`,
    );
    // Refused before it is read: such an error carries no ref.
    await until(
        async () => {
            await viewer.send({ op: 'ping', ref: 200000 });
            return viewer.received.some((m) => m.op === 'pong' && m.ref === 200000);
        },
        'a ping that is answered again',
        5000,
        200,
    );
    viewer.destroy();
});

await check('rate limit: joins have their own', async () => {
    const viewer = await open();
    const answers = [];
    for (let i = 0; i < 50; i++) answers.push(viewer.request({ op: 'join', room: `jr-${i % 2}` }));
    const codes = (await Promise.all(answers)).map((a) => a.code || a.op);
    assert(
        codes.includes('joined') && codes.includes('rate-limited'),
        `some joined, some rate-limited, got ${[...new Set(codes)]}`,
    );
    viewer.destroy();
});

// ---- delivery

await check('publish over HTTP: reaches the viewers of the room and nobody else', async () => {
    const [room, other] = [freshRoom(), freshRoom()];
    const inside = await Native.in(port, room);
    const outside = await Native.in(port, other);
    await halley.publish(room, { type: 'chat', from: 'backend', data: { n: 1 } });
    const message = await inside.message();
    equal([message.type, message.room, message.from, message.data], ['chat', room, 'backend', { n: 1 }], 'message');
    await outside.alive();
    equal(outside.received.filter((m) => m.type).length, 0, 'messages in the other room');
    inside.destroy();
    outside.destroy();
});

await check('publish to all: every viewer gets it, in a room or not, without room', async () => {
    const a = await open();
    const b = await Native.in(port, freshRoom());
    await halley.publish(null, { type: 'system', data: 'to all' });
    for (const viewer of [a, b]) {
        const message = await viewer.message('system');
        equal([message.data, 'room' in message], ['to all', false], 'message');
    }
    a.destroy();
    b.destroy();
});

await check('a viewer in two rooms gets both, each with its room', async () => {
    const [one, two] = [freshRoom(), freshRoom()];
    const viewer = await Native.in(port, one);
    await viewer.join(two);
    await halley.publish(one, { type: 'chat', data: 1 });
    await halley.publish(two, { type: 'chat', data: 2 });
    const got = [await viewer.message(), await viewer.message()].map((m) => [m.room, m.data]).sort();
    equal(
        got,
        [
            [one, 1],
            [two, 2],
        ].sort(),
        'messages',
    );
    viewer.destroy();
});

await check(
    'two workers: viewers of one room on both get every message of 200, in order',
    async () => {
        const room = freshRoom();
        const viewers = await Promise.all(
            Array.from({ length: 24 }, (_, i) => Native.in(port, room, { localAddress: `127.0.0.${2 + i}` })),
        );
        const metrics = await halley.metrics();
        for (const worker of [0, 1])
            assert(
                metrics.get(`halley_worker_viewers{worker="${worker}"}`) > 0,
                `worker ${worker} has viewers (halley_worker_viewers), got ${metrics.get(`halley_worker_viewers{worker="${worker}"}`)}`,
            );
        for (let n = 0; n < 200; n++) await halley.publish(room, { type: 'chat', data: n });
        for (const viewer of viewers) {
            for (let n = 0; n < 200; n++) equal((await viewer.message()).data, n, 'next number');
            viewer.destroy();
        }
    },
    60000,
);

await check("two workers: viewers' own messages cross them", async () => {
    const room = freshRoom();
    const viewers = await Promise.all(
        Array.from({ length: 12 }, (_, i) =>
            Native.in(port, room, { user: `u${i}`, localAddress: `127.0.0.${40 + i}` }),
        ),
    );
    for (const viewer of viewers) await viewer.send({ op: 'send', room, type: 'chat', data: 'hello' });
    for (const viewer of viewers) {
        const from = new Set();
        for (let i = 0; i < 12; i++) from.add((await viewer.message()).from);
        equal(from.size, 12, 'senders heard');
        viewer.destroy();
    }
});

await check('ip-hash: one address always meets one worker', async () => {
    await until(async () => (await halley.viewers()) === 0, 'all earlier viewers gone');
    const viewers = await Promise.all(Array.from({ length: 20 }, () => open({ localAddress: '127.0.0.77' })));
    const metrics = await halley.metrics();
    const counts = [0, 1].map((w) => metrics.get(`halley_worker_viewers{worker="${w}"}`)).sort((a, b) => a - b);
    equal(counts, [0, 20], 'viewers per worker');
    for (const viewer of viewers) viewer.destroy();
});

await check(
    'order is kept per room and lane over 2,000 messages published at once',
    async () => {
        const room = freshRoom();
        const viewer = await Native.in(port, room);
        const count = sanitized ? 500 : 2000;
        let next = 0;
        const worker = async () => {
            // One publisher at a time in flight per number keeps the order of the requests.
            while (next < count) await halley.publish(room, { type: 'chat', data: next++ });
        };
        await worker();
        for (let n = 0; n < count; n++) equal((await viewer.message(undefined, 10000)).data, n, 'next number');
        viewer.destroy();
    },
    60000,
);

await check(
    'npm ws: two clients, 500 messages each in order, ping answered, close 1000 answered',
    async () => {
        const room = freshRoom();
        const clients = await Promise.all(
            [1, 2].map(
                (i) =>
                    new Promise((resolve, reject) => {
                        const client = new WebSocket(`${halley.ws}?user=ws${i}&room=${room}`, 'halley.v1.json');
                        client.got = [];
                        client.on('error', reject);
                        client.on('message', (data, binary) => {
                            const message = JSON.parse(data);
                            if (binary) reject(new Error('a binary frame'));
                            if (message.type) client.got.push(message.data);
                            if (message.op === 'joined') resolve(client);
                        });
                    }),
            ),
        );
        for (const client of clients) equal(client.protocol, 'halley.v1.json', 'subprotocol');
        for (let n = 0; n < 500; n++) await halley.publish(room, { type: 'chat', data: n });
        const expected = Array.from({ length: 500 }, (_, n) => n);
        for (const client of clients) {
            await until(() => client.got.length >= 500, '500 messages', 10000);
            equal(client.got, expected, 'numbers');
            await within(
                new Promise((resolve) => {
                    client.once('pong', resolve);
                    client.ping('x');
                }),
                5000,
                'pong',
            );
            const closed = new Promise((resolve) => client.once('close', (code) => resolve(code)));
            client.close(1000);
            equal(await within(closed, 5000, 'close'), 1000, 'close code');
        }
    },
    60000,
);

await check('all viewers gone: counted to zero', async () => {
    await until(async () => (await halley.viewers()) === 0, 'halley_viewers = 0');
    await until(async () => (await halley.metric('halley_memberships')) === 0, 'halley_memberships = 0');
});

await finish();
