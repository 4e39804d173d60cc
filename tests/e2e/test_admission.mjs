#!/usr/bin/env node
// Who is let in: origins, connections and handshakes of an address and of the node; what real clients see of a refusal.

import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';

import {
    Halley,
    Native,
    RawSocket,
    WsRaw,
    assert,
    check,
    checkBucket,
    equal,
    finish,
    parseResponse,
    rawRequest,
    refusal,
    requestHead,
    sanitized,
    until,
    within,
} from './lib.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');
const clients = {
    '1.7.4': require('socket.io-client-1'),
    '2.5.0': require('socket.io-client-2'),
    4: require('socket.io-client').io,
};

const handshakes = (halley, result) => halley.metric('halley_handshakes_total', `result="${result}"`);

// ---- origins

const pages = await Halley.start({
    workers: 1,
    set: { 'auth.origins': 'https://live.example.com,*.shop.example,http://localhost:*' },
});
const from = (Origin) => ({ headers: { Origin } });

await check('origins: those on the list come in, and who sends none', async () => {
    for (const origin of [
        'https://live.example.com',
        'https://a.shop.example',
        'http://b.c.shop.example',
        'http://localhost:3000',
    ])
        (await WsRaw.open(pages.port, '/ws', from(origin))).destroy();
    (await WsRaw.open(pages.port, '/ws')).destroy();
    (await WsRaw.open(pages.port, '/socket.io/?EIO=4&transport=websocket', from('https://live.example.com'))).destroy();
});

await check('origins: others get 403 on /ws, and are counted', async () => {
    const before = await handshakes(pages, 'origin');
    for (const origin of ['https://evil.example', 'http://live.example.com', 'https://shop.example', 'null', 'x']) {
        const answer = await refusal(pages.port, '/ws', from(origin));
        equal(answer.status, 403, `status for ${origin}`);
        equal(answer.json?.error, 'forbidden', 'error');
    }
    equal(await handshakes(pages, 'origin'), before + 5, 'halley_handshakes_total{result="origin"}');
});

await check('origins: refuse=close tells a page over the WebSocket: goodbye, then 4403', async () => {
    const ws = await WsRaw.open(pages.port, '/ws?refuse=close', from('https://evil.example'));
    equal(JSON.parse(await ws.nextText('goodbye')), { op: 'goodbye', reason: 'forbidden' }, 'the notice');
    equal((await ws.closing()).code, 4403, 'close code');
});

await check('origins: Engine.IO 3 is refused by 44 in place of 40', async () => {
    const ws = await WsRaw.open(pages.port, '/socket.io/?transport=websocket', from('https://evil.example'));
    equal((await ws.nextText('the open packet'))[0], '0', 'packet type');
    equal(await ws.nextText('44'), '44"origin-forbidden"', 'second packet');
    equal((await ws.closing()).code, 4403, 'close code');
});

await check('origins: Engine.IO 4 is refused by 44 in answer to its 40', async () => {
    const ws = await WsRaw.open(pages.port, '/socket.io/?EIO=4&transport=websocket', from('https://evil.example'));
    equal((await ws.nextText('the open packet'))[0], '0', 'packet type');
    await ws.text('40');
    equal(await ws.nextText('44'), '44{"message":"origin-forbidden"}', 'answer');
    equal((await ws.closing()).code, 4403, 'close code');
});

for (const [version, io] of Object.entries(clients))
    await check(`origins: socket.io-client ${version} reports the refusal`, async () => {
        const socket = io(`http://127.0.0.1:${pages.port}`, {
            transports: ['websocket'],
            reconnection: false,
            forceNew: true,
            extraHeaders: { Origin: 'https://evil.example' },
            transportOptions: { websocket: { extraHeaders: { Origin: 'https://evil.example' } } },
        });
        const reason = await within(
            new Promise((resolve, reject) => {
                socket.on('connect', () => reject(new Error('connected')));
                socket.on(version === '4' ? 'connect_error' : 'error', (error) => resolve(error.message || error));
            }),
            5000,
            'the error',
        ).finally(() => socket.close());
        equal(reason, 'origin-forbidden', 'reason');
    });

// ---- connections of an address

const crowd = await Halley.start({
    workers: 2,
    host: '0.0.0.0',
    set: { 'limits.address_connections': 5 },
});
crowd.host = '127.0.0.1';

await check('address_connections: the sixth of an address gets 429, others come in, who leaves makes room', async () => {
    const five = [];
    for (let i = 0; i < 5; i++) five.push(await Native.open(crowd.port, { localAddress: '127.0.0.77' }));
    const answer = await refusal(crowd.port, '/ws', { localAddress: '127.0.0.77' });
    equal(answer.status, 429, 'status');
    equal(answer.json?.error, 'rate-limited', 'error');
    const wait = Number(answer.headers['retry-after']);
    assert(wait >= 1 && wait <= 10, `Retry-After between 1 and 10, got ${wait}`);
    equal(await handshakes(crowd, 'address_full'), 1, 'halley_handshakes_total{result="address_full"}');
    (await Native.open(crowd.port, { localAddress: '127.0.0.78' })).destroy();
    await five[2].bye();
    const again = await until(
        () => Native.open(crowd.port, { localAddress: '127.0.0.77' }).catch(() => null),
        'room after a viewer left',
    );
    for (const viewer of [...five, again]) viewer.destroy();
    await until(async () => (await crowd.metric('halley_addresses')) === 0, 'the entries of gone addresses vanish');
});

await check('address_connections: refused handshakes and half-open ones are given back too', async () => {
    for (let i = 0; i < 20; i++) equal((await refusal(crowd.port, '/nothing', { localAddress: '127.0.0.79' })).status, 404, `try ${i}`);
    const raws = [];
    for (let i = 0; i < 5; i++) raws.push(await RawSocket.connect(crowd.port, { localAddress: '127.0.0.79' }));
    await until(async () => (await crowd.metric('halley_handshaking')) === 5, 'five half-open connections');
    equal((await refusal(crowd.port, '/ws', { localAddress: '127.0.0.79' })).status, 429, 'the sixth');
    for (const raw of raws) raw.reset();
    const viewer = await until(
        () => Native.open(crowd.port, { localAddress: '127.0.0.79' }).catch(() => null),
        'room after half-open ones went',
    );
    viewer.destroy();
});

// ---- the answer reaches the client

// One viewer holds the only place of its address: whoever else comes from there is refused, for as long as it stays.
const full = await Halley.start({ workers: 2, set: { 'limits.address_connections': 1 } });
const fill = (localAddress) => Native.open(full.port, { localAddress });

await check('a client that sends its request late still reads the 429', async () => {
    const first = await fill('127.0.0.81');
    const raw = await RawSocket.connect(full.port, { localAddress: '127.0.0.81', halfOpen: true });
    await raw.end; // the answer and its FIN came before any request
    const { text } = requestHead('/ws');
    await raw.write(text.slice(0, 20)); // a reset in answer to it
    await raw.write(text.slice(20)); // is told here
    raw.socket.end();
    await until(() => raw.closed, 'the connection closed on both sides');
    equal(raw.error, null, 'no reset');
    equal(parseResponse(await raw.readAll())?.status, 429, 'status');
    first.destroy();
});

await check('a hundred clients in a row see status 429 and no reset (ws)', async () => {
    const first = await fill('127.0.0.82');
    const seen = {};
    for (let i = 0; i < 100; i++) {
        const result = await new Promise((resolve) => {
            const ws = new WebSocket(full.ws, { localAddress: '127.0.0.82' });
            ws.on('unexpected-response', (request, response) => {
                resolve(response.statusCode);
                request.destroy();
            });
            ws.on('open', () => (resolve('open'), ws.terminate()));
            ws.on('error', (error) => resolve(error.code || error.message));
        });
        seen[result] = (seen[result] || 0) + 1;
    }
    equal(seen, { 429: 100 }, 'what they saw');
    first.destroy();
});

await check('curl sees 429 with Retry-After', async () => {
    const first = await fill('127.0.0.83');
    const args = ['-s', '-i', '--interface', '127.0.0.83', '-H', 'Connection: Upgrade', '-H', 'Upgrade: websocket'];
    const { error, stdout } = await new Promise((resolve) =>
        execFile('curl', [...args, `http://127.0.0.1:${full.port}/ws`], (e, out) => resolve({ error: e, stdout: out })),
    );
    assert(!error && /^HTTP\/1\.1 429 Too Many Requests\r\nRetry-After: \d+\r\n/.test(stdout), `${error} ${stdout}`);
    first.destroy();
});

const slow = await Halley.start({
    workers: 2,
    set: { 'limits.address_rate': 1, 'limits.address_burst': 2, 'limits.trusted': '127.0.0.200,127.0.3.0/24' },
});

await check('address_rate: what is past the burst gets 429, whatever it asks for', async () => {
    const from = performance.now();
    const tries = Array.from({ length: 40 }, () => refusal(slow.port, '/nothing', { localAddress: '127.0.0.84' }));
    const statuses = (await Promise.all(tries)).map((answer) => answer.status);
    const passed = statuses.filter((status) => status === 404).length;
    checkBucket(passed, { tried: 40, burst: 2, rate: 1, from }, 'an address');
    equal(statuses.filter((status) => status === 429).length, 40 - passed, '429s');
    equal(await handshakes(slow, 'address_rate'), 40 - passed, 'halley_handshakes_total{result="address_rate"}');
});

await check('limits.trusted: a load balancer asks /healthz as often as it likes', async () => {
    const healthz = (localAddress) =>
        rawRequest(slow.port, 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n', { localAddress });
    const ask = (address) => Promise.all(Array.from({ length: 20 }, () => healthz(address).then((answer) => answer.status)));
    for (const address of ['127.0.0.200', '127.0.3.1', '127.0.3.254'])
        equal(await ask(address), Array(20).fill(200), `${address}, 20 questions`);
    assert((await ask('127.0.4.1')).includes(429), 'who is not trusted');
});

for (const [version, io] of Object.entries(clients))
    await check(`socket.io-client ${version} comes back by itself after a 429`, async () => {
        const localAddress = `127.0.0.9${version[0]}`;
        const first = await fill(localAddress);
        const options = { localAddress };
        const socket = io(`http://127.0.0.1:${full.port}`, {
            transports: ['websocket'],
            forceNew: true,
            reconnectionDelay: 300,
            reconnectionDelayMax: 600,
            ...options,
            transportOptions: { websocket: options },
        });
        const before = await handshakes(full, 'address_full');
        const leave = until(async () => (await handshakes(full, 'address_full')) > before, 'it is refused').then(() => first.destroy());
        await within(new Promise((resolve) => socket.on('connect', resolve)), 10000, 'the connection').finally(() =>
            socket.close(),
        );
        await leave; // it was refused at first
    });

// ---- the node

const node = await Halley.start({ workers: 2, set: { 'limits.handshake_rate': 1, 'limits.handshake_burst': 20 } });

await check('handshake_rate: shared by all workers and addresses, 503 with Retry-After', async () => {
    const statuses = { 404: 0, 503: 0 };
    const from = performance.now();
    for (let i = 0; i < 60; i++) {
        const answer = await refusal(node.port, '/nothing', { localAddress: `127.0.1.${i + 1}` });
        statuses[answer.status]++;
        if (answer.status !== 503) continue;
        const wait = Number(answer.headers['retry-after']);
        assert(wait >= 1 && wait <= 5, `Retry-After between 1 and 5, got ${wait}`);
        equal(answer.json?.error, 'unavailable', 'error');
    }
    checkBucket(statuses[404], { tried: 60, burst: 20, rate: 1, from }, 'the node');
    equal(statuses[404] + statuses[503], 60, 'answers that are 404 or 503');
    equal(await handshakes(node, 'rate'), statuses[503], 'halley_handshakes_total{result="rate"}');
});

await check('no connection and no memory is left of refusals', async () => {
    const files = node.openFiles();
    for (let i = 0; i < 400; i++) {
        const raw = await RawSocket.connect(node.port);
        raw.destroy();
    }
    await until(() => node.openFiles() <= files + 1, 'descriptors given back', 5000);
    equal(await node.viewers(), 0, 'viewers');
});

if (!sanitized)
    await check('shipped limits let 10,000 viewers in from one address at once', async () => {
        const shipped = await Halley.start({ workers: 2 });
        const sockets = [];
        let upgraded = 0;
        const started = Date.now();
        for (let batch = 0; batch < 20; batch++) {
            const opened = [];
            for (let i = 0; i < 500; i++)
                opened.push(
                    (async () => {
                        const raw = await RawSocket.connect(shipped.port, { ms: 20000 });
                        raw.socket.write(requestHead('/ws').text);
                        const answer = await raw.readUntil((b) => b.includes('\r\n\r\n'), 'the answer', 20000);
                        if (parseResponse(answer).status === 101) upgraded++;
                        sockets.push(raw);
                    })(),
                );
            await Promise.all(opened);
        }
        console.log(`# ${upgraded} viewers in ${Date.now() - started} ms`);
        equal(upgraded, 10000, 'viewers let in');
        for (const raw of sockets) raw.destroy();
        await shipped.stop();
    }, 60000);

await finish();
