#!/usr/bin/env node
// Socket.IO over Engine.IO 3 and 4: frame by frame with a raw client, then with the clients 1.7.4, 2.5.0 and the newest 4.

import { createRequire } from 'node:module';

import { Halley, Native, OP, WsRaw, assert, check, equal, finish, refusal, until, within } from './lib.mjs';

const require = createRequire(import.meta.url);
const clients = {
    '1.7.4': require('socket.io-client-1'),
    '2.5.0': require('socket.io-client-2'),
    4: require('socket.io-client').io,
};
const ticket = '9c394a175508edfcd3d1db3b7bc8008d';

// Without counts of who is online frames are compared whole; test_presence has these.
const halley = await Halley.start({
    workers: 2,
    set: { 'limits.viewer_rate': 1000, 'limits.viewer_burst': 1000, 'presence.enabled': 'no' },
});
const port = halley.port;

// ---- raw: Engine.IO 3

const raw3 = (query = '', options) => WsRaw.open(port, `/socket.io/?transport=websocket${query}`, options);

async function opened3(query = '') {
    const ws = await raw3(query);
    equal((await ws.nextText('the open packet'))[0], '0', 'packet type');
    equal(await ws.nextText('40'), '40', 'second packet');
    return ws;
}

await check('the request without EIO gets 101, the open packet and 40 in one read, as Engine.IO 3', async () => {
    const ws = await WsRaw.open(port, `/socket.io/?transport=websocket&ticket_id=${ticket}`);
    const open = await ws.nextText('the open packet');
    equal(await ws.nextText('40'), '40', 'second packet');
    equal(ws.firstRead.reads, 1, 'reads until the end of the head');
    assert(ws.firstRead.bytes.includes(Buffer.from([0x81, 2, 0x34, 0x30])), 'the frame of `40` is in the same read');
    assert(
        /^0\{"sid":"[^"]+","upgrades":\[\],"pingInterval":25000,"pingTimeout":60000\}$/.test(open),
        `the open packet's shape, got ${open}`,
    );
    ws.destroy();
});

await check('EIO=3: the same; sids differ', async () => {
    const [a, b] = await Promise.all([raw3('&EIO=3'), raw3('&EIO=3')]);
    const sids = [JSON.parse((await a.nextText()).slice(1)).sid, JSON.parse((await b.nextText()).slice(1)).sid];
    assert(sids[0] !== sids[1], 'two connections have two sids');
    a.destroy();
    b.destroy();
});

await check('EIO=3: 2 is answered 3 at once, 2probe by 3probe; 3 and 5 and 6 are ignored', async () => {
    const ws = await opened3();
    for (const packet of ['3', '5', '6', '3probe']) await ws.text(packet);
    await ws.text('2');
    equal(await ws.nextText('3'), '3', 'answer to 2');
    await ws.text('2probe');
    equal(await ws.nextText('3probe'), '3probe', 'answer to 2probe');
    ws.destroy();
});

await check('EIO=3: a client 40 on / is taken without an answer', async () => {
    const ws = await opened3();
    await ws.text('40');
    await ws.text('2');
    equal(await ws.nextText(), '3', 'next packet');
    ws.destroy();
});

await check('EIO=3: an unknown namespace is refused with a string, connection kept', async () => {
    const ws = await opened3();
    await ws.text(`40/nope?ticket_id=${ticket},`);
    equal(await ws.nextText(), '44/nope,"Invalid namespace"', 'answer');
    await ws.text('40/other');
    equal(await ws.nextText(), '44/other,"Invalid namespace"', 'answer');
    await ws.text('2');
    equal(await ws.nextText(), '3', 'next packet');
    ws.destroy();
});

await check('emits with an acknowledgement id are answered with 43<id>[…]', async () => {
    const ws = await opened3('&user=alice');
    await ws.text('420["join","r1"]');
    equal(await ws.nextText(), '430[{"ok":true,"room":"r1"}]', 'join by the bare name');
    await ws.text('4217["join",{"room":"r2"}]');
    equal(await ws.nextText(), '4317[{"ok":true,"room":"r2"}]', 'join by an object');
    await ws.text('421["send",{"room":"r1","type":"chat","data":{"a":1}}]');
    const both = [await ws.nextText(), await ws.nextText()].sort();
    equal(both, ['42["chat",{"room":"r1","from":"alice","data":{"a":1}}]', '431[{"ok":true}]'], 'ack and message');
    await ws.text('422["leave","r2"]');
    equal(await ws.nextText(), '432[{"ok":true}]', 'leave');
    await ws.text('423["pace",{"mode":"passive"}]');
    equal(await ws.nextText(), '433[{"ok":true}]', 'pace');
    await ws.text('424["refresh",{"ticket":"x"}]');
    equal(await ws.nextText(), '434[{"ok":true}]', 'refresh');
    await ws.text('425["join",{"room":"bad name"}]');
    const refused = JSON.parse((await ws.nextText()).replace(/^435/, ''))[0];
    equal([refused.ok, refused.code, typeof refused.message], [false, 'bad-name', 'string'], 'refusal');
    ws.destroy();
});

await check('emits without an acknowledgement id: joined and errors come as event halley, else nothing', async () => {
    const ws = await opened3();
    await ws.text('42["join","quiet"]');
    equal(await ws.nextText(), '42["halley",{"op":"joined","room":"quiet"}]', 'joined');
    await ws.text('42["pace",{"mode":"active"}]');
    await ws.text('42["leave","quiet"]');
    await ws.text('42["send",{"room":"quiet","type":"chat"}]');
    const [event, notice] = JSON.parse((await ws.nextText()).slice(2));
    equal([event, notice.op, notice.code], ['halley', 'error', 'not-in-room'], 'error');
    ws.destroy();
});

await check('an unknown event, a binary event, a packet that cannot be read: an error, connection kept', async () => {
    const ws = await opened3();
    const expectError = async (packet, code) => {
        await ws.text(packet);
        const text = await ws.nextText(`the answer to ${packet.slice(0, 40)}`);
        const body = text.startsWith('43') ? JSON.parse(text.replace(/^43\d+/, ''))[0] : JSON.parse(text.slice(2))[1];
        equal(body.code, code, `code for ${packet.slice(0, 40)}`);
        return text;
    };
    await expectError('42["fly"]', 'bad-message');
    assert((await expectError('427["fly"]', 'bad-message')).startsWith('437['), 'the acknowledgement id is used');
    await expectError('42[]', 'bad-message');
    await expectError('42{"a":1}', 'bad-message');
    await expectError('42["join",', 'bad-message');
    await expectError('451-["message",{"b":{"_placeholder":true,"num":0}}]', 'bad-message');
    await ws.send({ opcode: OP.binary, payload: Buffer.from([4, 1, 2, 3, 4]) });
    // Whether the attachment itself is answered is the gateway's affair; the connection lives.
    await ws.text('2');
    await ws.next((f) => f.payload.toString() === '3', 'the pong after all that');
    ws.destroy();
});

await check("a client's acknowledgement (43) is ignored", async () => {
    const ws = await opened3();
    await ws.text('430["yes",42]');
    await ws.text('2');
    equal(await ws.nextText(), '3', 'next packet');
    ws.destroy();
});

await check('client 41 and Engine.IO 1 close', async () => {
    for (const packet of ['41', '1']) {
        const ws = await opened3();
        await ws.text(packet);
        await ws.closing(`the end after ${packet}`);
        assert(!ws.inbox.items.some((f) => f.payload.toString() === '41'), 'no 41 is sent: only a kick does that');
    }
});

await check('query rooms are joined at once on EIO 3', async () => {
    const ws = await opened3('&room=q1&room=q2&user=u');
    const told = [await ws.nextText(), await ws.nextText()].sort();
    equal(told, ['42["halley",{"op":"joined","room":"q1"}]', '42["halley",{"op":"joined","room":"q2"}]'], 'notices');
    ws.destroy();
});

// ---- raw: Engine.IO 4

const raw4 = (query = '') => WsRaw.open(port, `/socket.io/?EIO=4&transport=websocket${query}`);

await check('EIO=4: only the open packet before the client\'s 40, with maxPayload; then 40{"sid":…}', async () => {
    const ws = await raw4('&user=four&room=q4');
    const open = await ws.nextText('the open packet');
    assert(
        /^0\{"sid":"[^"]+","upgrades":\[\],"pingInterval":25000,"pingTimeout":60000,"maxPayload":65536\}$/.test(open),
        `the open packet's shape, got ${open}`,
    );
    await halley.publish(null, { type: 'system', data: 'too early for it' });
    await ws.send({ opcode: OP.ping, payload: 'x' });
    await ws.pong('x');
    equal(ws.inbox.items.length, 0, 'frames before the 40');
    await ws.text('40');
    const connected = await ws.nextText();
    assert(/^40\{"sid":"[^"]+"\}$/.test(connected), `the answer's shape, got ${connected}`);
    equal(await ws.nextText(), '42["halley",{"op":"joined","room":"q4"}]', 'query rooms take effect now');
    ws.destroy();
});

await check('EIO=4: 40{"token":…} is taken too', async () => {
    const ws = await raw4();
    await ws.nextText();
    await ws.text('40{"token":"abc"}');
    assert((await ws.nextText()).startsWith('40{"sid":'), 'connected');
    ws.destroy();
});

await check('EIO=4: an unknown namespace is refused with an object, connection kept', async () => {
    const ws = await raw4();
    await ws.nextText();
    await ws.text('40/nope,');
    equal(await ws.nextText(), '44/nope,{"message":"Invalid namespace"}', 'answer');
    await ws.text('40');
    assert((await ws.nextText()).startsWith('40{"sid":'), 'connected to /');
    ws.destroy();
});

await check('EIO=4: an event before 40 is no way in', async () => {
    const ws = await raw4();
    await ws.nextText();
    await ws.text('420["join","early"]');
    await ws.text('40');
    const texts = [];
    for (let connected = false; !connected;) {
        texts.push(await ws.nextText('the answer to 40').catch(() => 'closed'));
        connected = texts.at(-1).startsWith('40{') || texts.at(-1) === 'closed';
    }
    assert(!texts.some((t) => t.includes('"ok":true')), `no join before 40, got ${texts}`);
    ws.destroy();
});

await check('other protocol versions: 400 code 5; other transports: 400 code 0', async () => {
    for (const eio of ['2', '5', 'x', '']) {
        const answer = await refusal(port, `/socket.io/?EIO=${eio}&transport=websocket`);
        if (eio === '' && answer.status === 101) continue; // an empty EIO may count as none
        equal(
            [answer.status, answer.json],
            [400, { code: 5, message: 'Unsupported protocol version' }],
            `answer to EIO=${eio}`,
        );
    }
    for (const target of [
        '/socket.io/?EIO=4&transport=polling',
        '/socket.io/?EIO=3&transport=polling&t=abc',
        '/socket.io/?EIO=4',
        '/socket.io/?transport=webtransport',
    ]) {
        for (const drop of [[], ['Connection', 'Upgrade', 'Sec-WebSocket-Key', 'Sec-WebSocket-Version']]) {
            const answer = await refusal(port, target, { drop });
            equal(
                [answer.status, answer.json],
                [400, { code: 0, message: 'Transport unknown' }],
                `answer to ${target}`,
            );
        }
    }
});

// ---- clients that others wrote

function connect(version, options = {}) {
    const socket = clients[version](`http://127.0.0.1:${port}`, {
        transports: ['websocket'],
        query: { ticket_id: ticket, ...options.query },
        forceNew: true,
        reconnection: false,
    });
    socket.events = [];
    for (const name of ['chat', 'gift', 'like', 'system', 'halley'])
        socket.on(name, (...args) => socket.events.push([name, ...args]));
    return socket;
}

const event = (socket, name, ms = 5000) =>
    within(new Promise((resolve) => socket.once(name, (...args) => resolve(args))), ms, `the event ${name}`);
const emit = (socket, ...args) =>
    within(new Promise((resolve) => socket.emit(...args, resolve)), 5000, `the acknowledgement of ${args[0]}`);

async function connected(version, options) {
    const socket = connect(version, options);
    socket.once('connect_error', (error) => (socket.problem = error));
    await within(
        new Promise((resolve, reject) => {
            socket.once('connect', resolve);
            socket.once('connect_error', (error) => reject(new Error(`connect_error: ${error.message || error}`)));
            socket.once('error', (error) => reject(new Error(`error: ${error.message || error}`)));
        }),
        5000,
        `client ${version} to connect`,
    );
    return socket;
}

for (const version of Object.keys(clients)) {
    const name = `socket.io-client ${version}`;
    const room = `room-${version.replace(/\W/g, '-')}`;

    await check(`${name}: connects, joins, sends, leaves, with acknowledgements`, async () => {
        const socket = await connected(version, { query: { user: 'alice' } });
        equal(await emit(socket, 'join', room), { ok: true, room }, 'join');
        const came = event(socket, 'chat');
        const ack = await emit(socket, 'send', { room, type: 'chat', data: { text: 'café ☃ 😀' } });
        equal(ack.ok, true, 'send');
        equal(await came, [{ room, from: 'alice', data: { text: 'café ☃ 😀' } }], 'the message to its sender');
        equal((await emit(socket, 'send', { room, type: 'system', data: 1 })).code, 'forbidden', 'code');
        equal((await emit(socket, 'leave', { room })).ok, true, 'leave');
        equal((await emit(socket, 'send', { room, type: 'chat', data: 1 })).code, 'not-in-room', 'code');
        socket.close();
    });

    await check(
        `${name}: 500 published messages arrive in order, with a native viewer beside it`,
        async () => {
            const socket = await connected(version);
            await emit(socket, 'join', room);
            const native = await Native.in(port, room);
            for (let n = 0; n < 500; n++) await halley.publish(room, { type: 'chat', data: n });
            await until(() => socket.events.filter((e) => e[0] === 'chat').length >= 500, '500 events', 10000);
            equal(
                socket.events.filter((e) => e[0] === 'chat').map((e) => e[1].data),
                Array.from({ length: 500 }, (_, n) => n),
                'numbers',
            );
            for (let n = 0; n < 500; n++) equal((await native.message()).data, n, 'number at the native viewer');
            native.destroy();
            socket.close();
        },
        60000,
    );

    await check(`${name}: types of all lanes and messages to all arrive as events`, async () => {
        const socket = await connected(version);
        await emit(socket, 'join', room);
        const waits = ['gift', 'like', 'system'].map((type) => event(socket, type));
        await halley.publish(room, { type: 'gift', from: 'bob', data: { rose: 1 } });
        await halley.publish(room, { type: 'like', data: 7 });
        await halley.publish(null, { type: 'system', data: ['all'] });
        equal(
            await Promise.all(waits),
            [[{ room, from: 'bob', data: { rose: 1 } }], [{ room, data: 7 }], [{ data: ['all'] }]],
            'events',
        );
        socket.close();
    });

    await check(`${name}: query rooms are told by the event halley`, async () => {
        const socket = connect(version, { query: { room } });
        equal(await event(socket, 'halley'), [{ op: 'joined', room }], 'notice');
        socket.close();
    });

    await check(`${name}: an unknown namespace is refused, the default one lives`, async () => {
        const socket = await connected(version);
        const nope = socket.io.socket('/nope');
        const refusedBy = new Promise((resolve) => {
            nope.once('error', resolve);
            nope.once('connect_error', resolve);
        });
        const error = await within(refusedBy, 5000, 'the refusal of /nope');
        equal(String(error.message || error), 'Invalid namespace', 'error');
        equal((await emit(socket, 'join', room)).ok, true, 'join on /');
        socket.close();
    });

    await check(`${name}: a binary emit is refused, the connection kept`, async () => {
        const socket = await connected(version);
        const notice = event(socket, 'halley');
        socket.emit('message', { b: Buffer.from([1, 2, 3, 4]) });
        equal((await notice)[0].code, 'bad-message', 'code');
        equal((await emit(socket, 'join', room)).ok, true, 'join after it');
        socket.close();
    });

    await check(`${name}: its own close is an orderly one`, async () => {
        const before = await halley.metric('halley_closes_total', 'reason="client"');
        const socket = await connected(version);
        socket.close();
        await until(
            async () => (await halley.metric('halley_closes_total', 'reason="client"')) > before,
            'halley_closes_total{reason="client"} counts it',
        );
    });
}

await check('join_event and leave_event can be renamed for old apps', async () => {
    const node = await Halley.start({
        workers: 1,
        set: {
            'socketio.join_event': 'enter-room',
            'socketio.leave_event': 'exit-room',
            'presence.enabled': 'no',
        },
    });
    const ws = await WsRaw.open(node.port, '/socket.io/?transport=websocket');
    await ws.nextText();
    await ws.nextText();
    await ws.text('420["enter-room","r"]');
    equal(await ws.nextText(), '430[{"ok":true,"room":"r"}]', 'answer');
    await ws.text('421["exit-room","r"]');
    equal(await ws.nextText(), '431[{"ok":true}]', 'answer');
    ws.destroy();
    await node.stop();
});

// ---- heartbeats with short intervals

const quick = await Halley.start({ workers: 1, set: { 'heartbeat.interval': '1s', 'heartbeat.timeout': '2s' } });

const beats = [];
for (const version of Object.keys(clients)) {
    beats.push(
        check(`socket.io-client ${version}: stays connected over five heartbeats of 1 s`, async () => {
            const socket = clients[version](`http://127.0.0.1:${quick.port}`, {
                transports: ['websocket'],
                forceNew: true,
                reconnection: false,
            });
            let gone = null;
            socket.on('disconnect', (reason) => (gone = reason));
            await event(socket, 'connect');
            await new Promise((resolve) => setTimeout(resolve, 5500));
            equal(gone, null, 'disconnect');
            equal((await emit(socket, 'join', 'hb')).ok, true, 'join afterwards');
            socket.close();
        }),
    );
}
beats.push(
    check("EIO=3: the open packet tells the conf's heartbeat", async () => {
        const ws = await WsRaw.open(quick.port, '/socket.io/?EIO=3&transport=websocket');
        const open = JSON.parse((await ws.nextText()).slice(1));
        equal([open.pingInterval, open.pingTimeout], [1000, 2000], 'interval and timeout');
        ws.destroy();
    }),
);
await Promise.all(beats);

await finish();
