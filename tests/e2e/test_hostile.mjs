#!/usr/bin/env node
// Bad input costs its sender only. After each attack a healthy viewer, connected since before, still gets messages.

import crypto from 'node:crypto';

import {
    Halley,
    Native,
    OP,
    RawSocket,
    WsRaw,
    assert,
    check,
    equal,
    finish,
    frame,
    rawRequest,
    refusal,
    requestHead,
    sanitized,
    until,
    within,
} from './lib.mjs';

const halley = await Halley.start({
    workers: 2,
    set: {
        'limits.head_timeout': '1s',
        'limits.frame_timeout': '1s',
        'limits.message_bytes': '1m',
        'broker.message_bytes': '1m',
    },
});
const port = halley.port;
const healthy = await Native.in(port, 'healthy', { user: 'healthy' });
const healthy2 = await Native.in(port, 'healthy', { user: 'healthy2', localAddress: '127.0.0.5' });
let beats = 0;

// The check, then the proof that the others live on.
function attack(name, fn, ms) {
    return check(
        name,
        async () => {
            await fn();
            assert(halley.alive(), `the daemon is dead: ${halley.log.slice(-500)}`);
            const n = ++beats;
            await halley.publish('healthy', { type: 'chat', data: n });
            for (const viewer of [healthy, healthy2])
                equal((await viewer.message()).data, n, 'what a healthy viewer gets afterwards');
        },
        ms,
    );
}

// ---- handshakes

await attack(
    'random bytes instead of a request are refused or cut off',
    async () => {
        for (let i = 0; i < 50; i++) {
            const raw = await RawSocket.connect(port);
            raw.socket.write(Buffer.concat([crypto.randomBytes(1 + ((i * 37) % 3000)), Buffer.from('\r\n\r\n')]));
            const answer = (await raw.readAll(5000)).toString('latin1');
            assert(
                answer === '' || /^HTTP\/1\.1 (400|431|405|505) /.test(answer),
                `nothing or a refusal, got ${JSON.stringify(answer.slice(0, 80))}`,
            );
            raw.destroy();
        }
    },
    60000,
);

await attack('half a head, then silence: cut off after limits.head_timeout', async () => {
    const raws = await Promise.all(Array.from({ length: 20 }, () => RawSocket.connect(port)));
    const started = Date.now();
    for (const raw of raws) raw.socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nUpgr');
    await Promise.all(raws.map((raw) => raw.readAll(6000)));
    assert(Date.now() - started >= 500, 'not before the time limit');
});

await attack('nothing at all after connecting: cut off after limits.head_timeout', async () => {
    const raw = await RawSocket.connect(port);
    await raw.readAll(6000);
});

await attack('a head that trickles a byte each 100 ms: cut off, the limit is for the whole head', async () => {
    const raw = await RawSocket.connect(port);
    const text = requestHead('/ws').text;
    let sent = 0;
    const timer = setInterval(() => raw.socket.write(text[sent++ % text.length]), 100);
    try {
        await raw.readAll(6000);
    } finally {
        clearInterval(timer);
    }
    assert(sent < text.length, 'cut off before the head was complete');
});

await attack('64 KiB of headers are answered 431', async () => {
    const one = await rawRequest(port, `GET /ws HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(65536)}\r\n\r\n`);
    equal(one.status, 431, 'status for one long line');
    const many = await rawRequest(
        port,
        `GET /ws HTTP/1.1\r\nHost: x\r\n${Array.from({ length: 2000 }, (_, i) => `X-Header-${i}: some value\r\n`).join('')}\r\n`,
    );
    equal(many.status, 431, 'status for many lines');
    const target = await rawRequest(port, `GET /ws?${'x'.repeat(65536)} HTTP/1.1\r\nHost: x\r\n\r\n`);
    assert([431, 414].includes(target.status), `431 for a long target, got ${target.status}`);
    const endless = await RawSocket.connect(port);
    endless.socket.write(`GET /ws HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(65536)}`);
    assert(
        (await endless.readAll(5000)).toString('latin1').startsWith('HTTP/1.1 431 '),
        '431 before the head is complete',
    );
});

await attack('Sec-WebSocket-Key missing, wrong, twice: 400', async () => {
    equal((await refusal(port, '/ws', { drop: ['Sec-WebSocket-Key'] })).status, 400, 'status without a key');
    for (const key of [
        '',
        'x',
        'dGhlIHNhbXBsZSBub25jZ',
        'dGhlIHNhbXBsZSBub25jZQ',
        'dGhlIHNhbXBsZSBub25jZQ==x',
        '!GhlIHNhbXBsZSBub25jZQ==',
        Buffer.alloc(15).toString('base64'),
        Buffer.alloc(17).toString('base64'),
        Buffer.alloc(300).toString('base64'),
    ]) {
        equal(
            (await refusal(port, '/ws', { headers: { 'Sec-WebSocket-Key': key } })).status,
            400,
            `status for the key ${key.slice(0, 30)}`,
        );
    }
    const twice = requestHead('/ws').text.replace(
        '\r\n\r\n',
        '\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    equal((await rawRequest(port, twice)).status, 400, 'status for two keys');
});

await attack('HTTP/1.0, HTTP/2.0, HTTP/0.9 and no version are refused', async () => {
    equal((await refusal(port, '/ws', { version: 'HTTP/1.0' })).status, 400, 'status for HTTP/1.0');
    for (const version of ['HTTP/2.0', 'HTTP/0.9', 'HTTP/1.10', 'http/1.1', 'HTTP', '']) {
        const answer = await refusal(port, '/ws', { version });
        assert([400, 505, 0].includes(answer.status), `400 or 505 for ${version}, got ${answer.status}`);
    }
});

for (const [name, text] of Object.entries({
    'bare line feeds': requestHead('/ws').text.replace(/\r\n/g, '\n'),
    'a NUL in a header': requestHead('/ws', { headers: { 'X-A': 'a\u0000b' } }).text,
    'a NUL in the target': requestHead('/w\u0000s').text,
    'a folded header': requestHead('/ws').text.replace('Upgrade: websocket', 'Upgrade:\r\n websocket'),
    'white space before the colon': requestHead('/ws').text.replace('Upgrade:', 'Upgrade :'),
    'two Hosts': requestHead('/ws').text.replace('\r\n\r\n', '\r\nHost: other\r\n\r\n'),
    'no Host': requestHead('/ws', { drop: ['Host'] }).text,
    'a body by Content-Length': requestHead('/ws', { headers: { 'Content-Length': '5' } }).text + 'hello',
    'a body by Transfer-Encoding':
        requestHead('/ws', { headers: { 'Transfer-Encoding': 'chunked' } }).text + '0\r\n\r\n',
    'a target without slash': requestHead('ws').text,
    'an absolute target': requestHead('http://x/ws').text,
    'a header without colon': requestHead('/ws').text.replace('\r\n\r\n', '\r\nnonsense\r\n\r\n'),
    'a method in the wild': 'G@T /ws HTTP/1.1\r\nHost: x\r\n\r\n',
    'spaces in the request line': 'GET  /ws  HTTP/1.1\r\nHost: x\r\n\r\n',
    'a TLS hello': Buffer.from('16030100c8010000c40303', 'hex').toString('latin1') + '\r\n\r\n',
})) {
    await attack(`handshake with ${name}: 400 or cut off`, async () => {
        const answer = await rawRequest(port, Buffer.from(text, 'latin1'));
        assert([400, 0].includes(answer.status), `400 or the end, got ${answer.status} ${answer.text}`);
    });
}

// ---- frames

async function failsWith(code, wires, target = '/ws') {
    const ws = await WsRaw.open(port, target);
    for (const wire of wires) await ws.write(wire);
    const closed = await ws.closing('the failure');
    assert(closed && [].concat(code).includes(closed.code), `close code ${code}, got ${closed && closed.code}`);
    ws.destroy();
}

await attack('an unmasked frame: 1002', () => failsWith(1002, [frame({ payload: '{"op":"ping"}', masked: false })]));
await attack('reserved bits: 1002', () => failsWith(1002, [frame({ payload: '{"op":"ping"}', rsv: 4 })]));
await attack('a reserved opcode: 1002', () => failsWith(1002, [frame({ opcode: 3, payload: 'x' })]));
await attack('a length of 2^63: 1002 or 1009', () => failsWith([1002, 1009], [frame({ length: 2n ** 63n })]));
await attack('a length of 2^62: 1009', () => failsWith(1009, [frame({ length: 2n ** 62n })]));
await attack('a control frame of 126 bytes: 1002', () =>
    failsWith(1002, [frame({ opcode: OP.ping, payload: 'x'.repeat(126) })]),
);
await attack('a continuation out of place: 1002', () => failsWith(1002, [frame({ opcode: OP.cont, payload: 'x' })]));
await attack('a text inside of a message: 1002', () =>
    failsWith(1002, [frame({ payload: '{', fin: false }), frame({ payload: '}' })]),
);
await attack('text that is no UTF-8: 1007', () =>
    failsWith(1007, [frame({ payload: Buffer.from([0x22, 0xff, 0x22]) })]),
);
await attack('a message past limits.message_bytes: 1009', () =>
    failsWith(1009, [frame({ payload: Buffer.alloc((1 << 20) + 1, 0x20) })]),
);
await attack('the same over Socket.IO: unmasked 1002, no UTF-8 1007', async () => {
    await failsWith(1002, [frame({ payload: '2', masked: false })], '/socket.io/?transport=websocket');
    await failsWith(1007, [frame({ payload: Buffer.from([0x34, 0x32, 0xff]) })], '/socket.io/?transport=websocket');
});
await attack(
    'random bytes as frames: each connection ends, by itself or by a close of ours',
    async () => {
        for (let i = 0; i < 50; i++) {
            const ws = await WsRaw.open(port, i % 2 ? '/ws' : '/socket.io/?transport=websocket');
            await ws.write(crypto.randomBytes(1 + ((i * 131) % 2000)));
            ws.raw.socket.end();
            await within(ws.raw.end, 5000, 'the end of the connection');
            ws.destroy();
        }
    },
    60000,
);

await attack('a frame that comes a byte each 200 ms: closed after limits.frame_timeout', async () => {
    const ws = await WsRaw.open(port, '/ws');
    const wire = frame({ payload: JSON.stringify({ op: 'ping', pad: 'x'.repeat(300) }) });
    let sent = 0;
    const timer = setInterval(() => ws.raw.socket.write(wire.subarray(sent, ++sent)), 200);
    try {
        const closed = await ws.closing('the close after frame_timeout', 8000);
        equal(closed?.code, 1008, 'close code');
    } finally {
        clearInterval(timer);
    }
    ws.destroy();
});
await attack(
    'a message whose last fragment never comes, with pings between: closed after limits.frame_timeout',
    async () => {
        const ws = await WsRaw.open(port, '/ws');
        await ws.send({ payload: '{"op":', fin: false });
        const timer = setInterval(() => ws.raw.socket.write(frame({ opcode: OP.ping, payload: 'alive' })), 200);
        try {
            equal((await ws.closing('the close after frame_timeout', 8000))?.code, 1008, 'close code');
        } finally {
            clearInterval(timer);
        }
        ws.destroy();
    },
);
await attack('an announced length allocates nothing: 200 heads of 1 MiB frames', async () => {
    const before = halley.rssBytes();
    const viewers = await Promise.all(Array.from({ length: 200 }, () => WsRaw.open(port, '/ws')));
    await Promise.all(viewers.map((ws) => ws.write(frame({ opcode: OP.text, length: 1 << 20, payload: '{' }))));
    const alive = await Native.open(port);
    await alive.alive();
    alive.destroy();
    // 200 contexts of 9 KB and some small change; the announced megabytes would be 200 MB.
    const grown = halley.rssBytes() - before;
    assert(sanitized || grown < 20e6, `less than 20 MB, got ${Math.round(grown / 1e6)} MB`);
    for (const ws of viewers) ws.destroy();
});

// Until nothing more is read from viewers for half a second.
async function settled(node) {
    for (let last = -1; ;) {
        const now = await node.metric('halley_bytes_total', 'direction="in"');
        if (now === last) return;
        last = now;
        await new Promise((resolve) => setTimeout(resolve, 500));
    }
}

// ---- pings that nobody reads the answers of

// With the shipped limits: who is not read for a while must not run out of limits.frame_timeout in a second.
const patient = await Halley.start({ workers: 1 });

await attack(
    '100,000 pings whose pongs are not read: memory stays, the newest pong comes when it reads again',
    async () => {
        const ws = await WsRaw.open(patient.port, '/ws');
        await ws.nextText();
        ws.raw.pauseReading();
        const before = patient.rssBytes();
        const count = 100000;
        const last = `ping ${count - 1}`.padEnd(100, '.');
        for (let i = 0; i < count; i += 1000) {
            ws.raw.socket.write(
                Buffer.concat(
                    Array.from({ length: 1000 }, (_, k) =>
                        frame({ opcode: OP.ping, payload: `ping ${i + k}`.padEnd(100, '.') }),
                    ),
                ),
            );
        }
        // Either the gateway takes them all or it stops reading from this viewer; in both cases it settles.
        await settled(patient);
        const grown = patient.rssBytes() - before;
        assert(sanitized || grown < 8e6, `less than 8 MB more memory, got ${Math.round(grown / 1e6)} MB`);
        ws.raw.resumeReading();
        await ws.pong(last, 10000);
        ws.destroy();
    },
    60000,
);

await attack(
    '100,000 native pings are refused past the rate, none queued without bound',
    async () => {
        const ws = await WsRaw.open(patient.port, '/ws', { keep: false });
        ws.raw.pauseReading();
        const before = patient.rssBytes();
        const wire = Buffer.concat(
            Array.from({ length: 1000 }, (_, i) => frame({ payload: `{"op":"ping","ref":${i}}` })),
        );
        for (let i = 0; i < 100; i++) ws.raw.socket.write(wire); // not read to the end, or closed: both are fine
        await settled(patient);
        const grown = patient.rssBytes() - before;
        assert(sanitized || grown < 8e6, `less than 8 MB more memory, got ${Math.round(grown / 1e6)} MB`);
        ws.destroy();
    },
    60000,
);

await patient.stop();

// ---- JSON

await attack('JSON nested 100,000 deep is bad-message, from a viewer and over HTTP', async () => {
    const deep = '['.repeat(100000) + ']'.repeat(100000);
    const viewer = await Native.in(port, 'deep');
    for (const text of [
        deep,
        '{"a":'.repeat(100000),
        `{"op":"send","room":"deep","type":"chat","data":${deep}}`,
        '['.repeat(900000),
    ]) {
        await viewer.send(text);
        equal((await viewer.notice('error')).code, 'bad-message', 'code');
    }
    await viewer.alive();
    viewer.destroy();
    for (const body of [deep, `{"type":"chat","data":${deep}}`]) {
        equal((await halley.http('POST', '/v1/rooms/deep/messages', { body })).status, 400, 'status over HTTP');
    }
});
await attack('JSON nested 100,000 deep over Socket.IO is an error', async () => {
    const ws = await WsRaw.open(port, '/socket.io/?transport=websocket');
    await ws.nextText();
    await ws.nextText();
    await ws.text(`420["join",${'['.repeat(100000)}${']'.repeat(100000)}]`);
    assert((await ws.nextText()).includes('bad-message'), 'bad-message');
    ws.destroy();
});
await attack('NUL in names is bad-name, in whatever way it is written', async () => {
    const viewer = await Native.open(port);
    for (const text of [
        '{"op":"join","room":"a\\u0000b","ref":1}',
        '{"op":"join","room":"\\u0000","ref":1}',
        '{"op":"leave","room":"a\\u0000","ref":1}',
        '{"op":"send","room":"a\\u0000","type":"chat","ref":1}',
        '{"op":"send","room":"a","type":"chat\\u0000","ref":1}',
    ]) {
        await viewer.send(text);
        const answer = await viewer.next((m) => m.ref === 1, 'the answer');
        assert(['bad-name', 'not-in-room'].includes(answer.code), `bad-name for ${text}, got ${answer.$text}`);
    }
    await viewer.send('{"op":"join","room":"a\u0000b"}');
    equal((await viewer.notice('error')).code, 'bad-message', 'code for a raw NUL: JSON has none');
    viewer.destroy();
    equal((await refusal(port, '/ws?room=a%00b')).status, 400, 'status for a NUL in the query');
    equal(
        (await halley.http('POST', '/v1/rooms/a%00b/messages', { body: { type: 'chat' } })).status,
        400,
        'status for a NUL in a path',
    );
});

// ---- connections

await attack(
    '20,000 connections opened and dropped, by FIN and by RST, at every stage',
    async () => {
        const total = sanitized ? 4000 : 20000;
        const head = requestHead('/ws').text;
        let next = 0;
        const worker = async (id) => {
            while (next < total) {
                const n = next++;
                const raw = await RawSocket.connect(port, {
                    localAddress: `127.0.${1 + (id % 4)}.${1 + (n % 200)}`,
                    ms: 10000,
                });
                if (n % 4 === 1) raw.socket.write(head.slice(0, n % head.length));
                if (n % 4 >= 2) raw.socket.write(head);
                if (n % 4 === 3) await raw.readUntil((b) => b.includes('welcome'), 'welcome', 10000);
                if (n % 2) raw.reset();
                else raw.destroy();
            }
        };
        await Promise.all(Array.from({ length: 40 }, (_, id) => worker(id)));
        await until(async () => (await halley.viewers()) === 2, 'only the two healthy viewers are left', 15000);
        await until(async () => (await halley.metric('halley_handshaking')) === 0, 'no handshake is left', 5000);
    },
    120000,
);

await attack('viewers that vanish by RST in the middle of a flood of messages', async () => {
    const viewers = await Promise.all(Array.from({ length: 30 }, () => Native.in(port, 'vanish')));
    const flood = (async () => {
        for (let i = 0; i < 150; i++) await halley.publish('vanish', { type: 'chat', data: 'x'.repeat(4000) });
    })();
    for (const viewer of viewers) {
        await viewer.message();
        viewer.ws.raw.reset();
    }
    await flood;
    await until(async () => (await halley.viewers()) === 2, 'only the two healthy viewers are left');
});

await check('all attacks left no viewer, no handshake and no open message behind', async () => {
    healthy.destroy();
    healthy2.destroy();
    await until(async () => (await halley.viewers()) === 0, 'halley_viewers = 0');
    equal(await halley.metric('halley_handshaking'), 0, 'halley_handshaking');
    equal((await halley.stop()).code, 0, 'exit code after all');
});

// ---- the file limit

async function underFileLimit(node, name) {
    await check(
        `${name}: new viewers get 503 with Retry-After, old ones live on, nothing spins`,
        async () => {
            const old = await Native.in(node.port, 'full', { user: 'old' });
            const crowd = [];
            let refused = null;
            let gone = 0;
            for (let i = 0; i < 260; i++) {
                const raw = await RawSocket.connect(node.port, { ms: 10000 });
                raw.socket.write(requestHead('/ws').text);
                const answer = (await raw.readUntil((b) => b.includes('\r\n\r\n'), 'an answer', 10000)).toString(
                    'latin1',
                );
                if (answer.startsWith('HTTP/1.1 101')) {
                    crowd.push(raw);
                    continue;
                }
                if (answer === '') gone++;
                else refused = refused || answer;
                raw.destroy();
            }
            assert(crowd.length >= 50 && crowd.length < 250, `some are let in, some are not: ${crowd.length} of 260`);
            assert(refused, `a refusal over HTTP (${gone} were cut off without one)`);
            assert(refused.startsWith('HTTP/1.1 503 '), `503, got ${refused.slice(0, 60)}`);
            assert(/\r\nretry-after: \d+\r\n/i.test(refused), 'Retry-After in seconds');
            // Connections that wait in the backlog must not make the listener spin.
            const waiting = await Promise.all(
                Array.from({ length: 50 }, () => RawSocket.connect(node.port, { ms: 10000 })),
            );
            const cpu = node.cpu();
            await new Promise((resolve) => setTimeout(resolve, 2000));
            const used = (node.cpu() - cpu) / 2;
            assert(used < 0.5, `less than half of a core while full and idle, got ${Math.round(used * 100)} %`);
            await old.alive();
            // Asked while descriptors are out; whatever comes of this request, later ones must be served.
            const asked = node.http('GET', '/healthz').catch(() => null);
            await old.alive();
            for (const raw of [...waiting, ...crowd]) raw.destroy();
            const late = await until(
                () => Native.in(node.port, 'full', { user: 'late' }),
                'a new viewer once there is room',
                10000,
                50,
            );
            await asked;
            await node.publish('full', { type: 'chat', data: 'room again' });
            equal((await old.message()).data, 'room again', 'what the old viewer gets');
            equal((await late.message()).data, 'room again', 'what the new viewer gets');
            old.destroy();
            late.destroy();
        },
        60000,
    );
}

if (!sanitized) {
    const limited = await Halley.start({ workers: 2, prefix: ['prlimit', '--nofile=200:200'] });
    await check('the limit of connections is sized by the file limit', async () => {
        const limit = await limited.metric('halley_connections_limit');
        assert(limit > 50 && limit < 200, `below 200, got ${limit}`);
    });
    await underFileLimit(limited, 'limits.connections sized by 200 files');
    await limited.stop();

    // The limit is lowered behind the daemon's back: the descriptors themselves run out.
    const squeezed = await Halley.start({ workers: 2 });
    const { run } = await import('./lib.mjs');
    const squeeze = await run('prlimit', ['--nofile=150:150', '--pid', String(squeezed.pid)]);
    equal(squeeze.code, 0, 'prlimit');
    await underFileLimit(squeezed, 'file descriptors running out');
    await squeezed.stop();
}

await check('limits.connections reached: 503; a viewer that leaves makes room', async () => {
    const node = await Halley.start({ workers: 1, set: { 'limits.connections': 10 } });
    const viewers = await Promise.all(Array.from({ length: 10 }, () => Native.open(node.port)));
    const answer = await refusal(node.port, '/ws');
    equal(answer.status, 503, 'status of the eleventh');
    assert(Number(answer.headers['retry-after']) >= 1, 'Retry-After');
    assert(answer.json && answer.json.error, 'a JSON body with error');
    viewers[0].destroy();
    (await until(() => Native.open(node.port), 'one more once one has left', 5000)).destroy();
    for (const viewer of viewers) viewer.destroy();
    await node.stop();
});

await finish();
