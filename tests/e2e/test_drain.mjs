#!/usr/bin/env node
// How a node stops without anybody losing anything: notice, farewells at a pace, last words, the limit; and how it sheds a share.

import {
    FrameReader,
    Halley,
    Native,
    OP,
    RawSocket,
    Redis,
    WsRaw,
    assert,
    check,
    closePayload,
    equal,
    finish,
    frame,
    halleyBin,
    pause,
    rawRequest,
    refusal,
    requestHead,
    run,
    sanitized,
    until,
    within,
} from './lib.mjs';

// A viewer that costs little: messages by a callback, the close by a promise.
class Light {
    static async open(port, room, { localAddress } = {}) {
        const self = new Light();
        self.room = room;
        self.messages = [];
        self.acks = new Map();
        self.goodbye = null;
        self.close = null;
        self.raw = await RawSocket.connect(port, { localAddress });
        self.raw.socket.write(requestHead(`/ws?room=${room}`).text);
        self.joined = new Promise((resolve) => (self.onJoined = resolve));
        let head = Buffer.alloc(0);
        const reader = new FrameReader((f) => self.take(f));
        self.raw.onData((data) => {
            if (!head) return reader.push(data);
            head = Buffer.concat([head, data]);
            const end = head.indexOf('\r\n\r\n');
            if (end < 0) return;
            self.status = Number(head.toString('latin1', 9, 12));
            const rest = head.subarray(end + 4);
            head = null;
            if (rest.length) reader.push(rest);
        });
        self.gone = self.raw.end.then(() => self);
        return self;
    }

    take(f) {
        if (f.opcode === OP.close) {
            this.close = { code: f.payload.readUInt16BE(0), at: performance.now() };
            this.raw.socket.write(frame({ opcode: OP.close, payload: closePayload(this.close.code) }));
        }
        if (f.opcode !== OP.text) return;
        const message = JSON.parse(f.payload.toString());
        if (message.op === 'joined') this.onJoined();
        else if (message.op === 'goodbye') this.goodbye = message;
        else if (message.op === 'ack' || message.op === 'error') this.acks.set(message.ref, message.op);
        else if (message.type) this.messages.push(message);
    }

    send(ref, data) {
        const text = JSON.stringify({ op: 'send', room: this.room, type: 'chat', data, ref });
        this.raw.socket.write(frame({ payload: text }));
    }
}

async function crowd(port, count, rooms) {
    const viewers = [];
    const open = async (_, i) => {
        const n = viewers.push(null) - 1;
        viewers[n] = await Light.open(port, `r${n % rooms}`, { localAddress: `127.0.0.${2 + (i % 50)}` });
        await viewers[n].joined;
    };
    while (viewers.length < count)
        await within(Promise.all(Array.from({ length: Math.min(100, count - viewers.length) }, open)), 20000, 'viewers in');
    return viewers;
}

// What keepalived's HTTP_GET sends with http_protocol 1.1.
const healthz = (node) =>
    rawRequest(
        node.port,
        `GET /healthz HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: 127.0.0.1:${node.port}\r\n\r\n`,
    );

// Closes in each full second but the first and the last.
function perSecond(viewers) {
    const times = viewers.map((v) => v.close.at).sort((a, b) => a - b);
    const buckets = [];
    for (const at of times) {
        const second = Math.floor((at - times[0]) / 1000);
        buckets[second] = (buckets[second] || 0) + 1;
    }
    return { all: buckets, inner: buckets.slice(1, -1), ms: times.at(-1) - times[0] };
}

await check('SIGTERM: /healthz says 503 at once, handshakes are served for drain.notice, then answered 503 until the exit', async () => {
    const node = await Halley.start({ workers: 2, set: { 'drain.notice': '1s', 'drain.rate': 2, 'drain.timeout': '4s' } });
    const viewers = await Promise.all([2, 3, 4, 5, 6].map((i) => Native.in(node.port, 'a', { localAddress: `127.0.0.${i}` })));
    const silent = await RawSocket.connect(node.port);
    equal([(await healthz(node)).status, (await healthz(node)).text], [200, 'ok\n'], 'healthz before');
    const started = Date.now();
    node.told = true;
    node.child.kill('SIGTERM');
    await until(async () => (await healthz(node)).status === 503, 'healthz 503', 300, 5);
    equal((await node.http('GET', '/healthz')).status, 503, 'healthz on the admin port');
    equal(await node.metric('halley_draining'), 1, 'halley_draining');
    const late = await Native.in(node.port, 'a');
    assert(Date.now() - started < 900, 'a handshake within the notice');
    await until(async () => (await refusal(node.port, '/ws')).status === 503, 'handshakes refused', 2000);
    assert(Date.now() - started >= 990, 'not before the notice was over');
    const refused = await refusal(node.port, '/ws');
    equal([refused.status, refused.json.error], [503, 'unavailable'], 'refusal');
    assert(Number(refused.headers['retry-after']) >= 1, 'Retry-After');
    equal((await refusal(node.port, '/socket.io/?transport=websocket')).status, 503, 'Socket.IO');
    const browser = await Native.open(node.port, { target: '/ws?refuse=close', ms: 500 }).catch((error) => error.message);
    assert(/4503/.test(browser), `refuse=close: ${browser}`);
    for (const viewer of [...viewers, late]) {
        const goodbye = await viewer.notice('goodbye', 6000);
        assert(goodbye.retry_after_ms >= 500 && goodbye.retry_after_ms <= 5500, 'retry_after_ms');
        equal((await viewer.closing()).code, 1012, 'close code');
    }
    const words = (await silent.readUntil((b) => b.includes('\r\n\r\n'), 'last words', 6000)).toString();
    assert(words.startsWith('HTTP/1.1 503 ') && /retry-after: \d/i.test(words), `a written 503, got ${words}`);
    silent.destroy();
    equal((await within(node.exit, 6000, 'the exit')).code, 0, 'exit code');
    assert(Date.now() - started < 4500, 'within drain.timeout');
});

await check('drain.timeout: those that the rate leaves over get their goodbye too, at once', async () => {
    const node = await Halley.start({ workers: 2, set: { 'drain.rate': 10, 'drain.timeout': '2s' } });
    const viewers = await crowd(node.port, 200, 1);
    const started = Date.now();
    equal((await node.stop(6000)).code, 0, 'exit code');
    const took = Date.now() - started;
    await within(Promise.all(viewers.map((v) => v.gone)), 2000, 'all closed');
    for (const viewer of viewers) equal([viewer.goodbye?.reason, viewer.close?.code], ['drain', 1012], 'goodbye and close');
    assert(took > 1300 && took < 2500, `gone near the limit, after ${took} ms`);
    assert(/drain.timeout is too short/.test(node.log), 'the log said so at the beginning');
    const retries = viewers.map((v) => v.goodbye.retry_after_ms).sort((a, b) => a - b);
    assert(retries[0] < 3000 && retries.at(-1) > 15000, `spread over 20 s, got ${retries[0]} to ${retries.at(-1)}`);
});

await check("a viewer's send that was accepted is answered before it is closed", async () => {
    const redis = await Redis.start();
    const node = await Halley.start({ workers: 2, redis });
    const viewer = await Native.in(node.port, 'a');
    redis.child.kill('SIGSTOP');
    const answer = viewer.request({ op: 'send', room: 'a', type: 'chat', data: 'in flight' });
    await viewer.alive();
    node.told = true;
    node.child.kill('SIGTERM');
    await node.waitLog(/saying goodbye/);
    await pause(300);
    equal(viewer.ws.close, null, 'still open while its send is on its way');
    redis.child.kill('SIGCONT');
    equal((await answer).op, 'ack', 'answer');
    equal((await viewer.closing()).code, 1012, 'close code');
    equal((await within(node.exit, 6000, 'the exit')).code, 0, 'exit code');
});

await check('POST /v1/drain with a share: so many go at the rate, the node serves on', async () => {
    const node = await Halley.start({ workers: 2, set: { 'drain.rate': 100 } });
    const viewers = await crowd(node.port, 1000, 5);
    for (const body of ['{"share":0}', '{"share":1.5}', '{"share":-1}', '{"share":"0.2"}', 'half', '[0.2]'])
        equal((await node.http('POST', '/v1/drain', { body })).status, 400, body);
    equal((await node.http('GET', '/v1/drain')).status, 405, 'GET');
    const answer = await node.http('POST', '/v1/drain', { body: { share: 0.2 } });
    equal([answer.status, answer.json.stops, answer.json.viewers, answer.json.rate], [202, false, 200, 100], 'answer');
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.2 } })).status, 409, 'a second one meanwhile');
    equal([(await healthz(node)).status, (await node.http('GET', '/healthz')).status], [200, 200], 'healthz');
    await node.waitLog(/shed as many/, 6000);
    await until(() => viewers.filter((v) => v.close).length === 200, '200 closed');
    const went = viewers.filter((v) => v.close);
    const { ms } = perSecond(went);
    assert(ms > 1800 && ms < 2300, `200 at 100/s, took ${ms} ms`);
    for (const viewer of went) equal([viewer.close.code, viewer.goodbye.reason], [1012, 'drain'], 'close');
    equal(await node.viewers(), 800, 'viewers that stay');
    (await Native.in(node.port, 'r0')).destroy();
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.5 } })).json.viewers, 400, 'another share later');
    const whole = await node.http('POST', '/v1/drain');
    equal([whole.status, whole.json.stops], [202, true], 'the whole node, without a body');
    node.told = true;
    equal((await within(node.exit, 15000, 'the exit')).code, 0, 'exit code');
    for (const viewer of viewers) equal(viewer.close?.code, 1012, 'close code');
});

await check('a share leaves those alone who wait for the answer to a send', async () => {
    const redis = await Redis.start();
    const node = await Halley.start({ workers: 1, redis });
    const [waits, idle] = [await Native.in(node.port, 'a'), await Native.in(node.port, 'a')];
    redis.child.kill('SIGSTOP');
    const answer = waits.request({ op: 'send', room: 'a', type: 'chat', data: 'in flight' });
    await waits.alive();
    equal((await node.http('POST', '/v1/drain', { body: { share: 1 } })).status, 202, 'share');
    equal((await idle.closing()).code, 1012, 'close code of the other one');
    await node.waitLog(/shed as many/);
    redis.child.kill('SIGCONT');
    equal((await answer).op, 'ack', 'answer');
    await waits.alive();
    waits.destroy();
    await node.stop();
});

await check('SIGTERM while a share goes: the end of the share is not the end of the drain', async () => {
    const node = await Halley.start({ workers: 2, set: { 'drain.notice': '3s', 'drain.rate': 20, 'drain.timeout': '20s' } });
    const viewers = await crowd(node.port, 40, 1);
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.5 } })).status, 202, 'share');
    node.told = true;
    const started = performance.now();
    node.child.kill('SIGTERM');
    equal((await within(node.exit, 10000, 'the exit')).code, 0, 'exit code');
    await within(Promise.all(viewers.map((v) => v.gone)), 2000, 'all closed');
    const times = viewers.map((v) => v.close.at - started).sort((a, b) => a - b);
    assert(times[18] < 2000 && times[21] > 2900, `half by the share, half after the notice: ${times.map(Math.round)}`);
    assert(times.at(-1) > 3700, 'at drain.rate');
});

await check('halley -t says whether the drain fits its limit', async () => {
    const text = async (...set) => (await run(halleyBin, ['-t', ...set.flatMap((s) => ['-o', s])])).stdout;
    assert(/drain: .*1000 viewers at 1000 a second take 1 s; .*is long enough/.test(await text('limits.connections=1000')), 'fits');
    assert(
        /take 10 s; drain\.timeout = 10s is too short: with more than 500 viewers/.test(
            await text('limits.connections=1000', 'drain.rate=100', 'drain.timeout=10s'),
        ),
        'does not fit',
    );
});

await check('server.ramp: so many connections a second after start, the others wait', async () => {
    const node = await Halley.start({ workers: 2, set: { 'server.ramp': '10s', 'server.ramp_rate': 100 } });
    const started = Date.now();
    const viewers = await crowd(node.port, 300, 1);
    const took = Date.now() - started;
    // 100 in the first second, 200 in the next: 300 take 2 s; some of the first second passed before.
    assert(took > 1000 && took < 2600, `300 connections took ${took} ms`);
    assert((await node.metric('halley_ramp_pauses_total')) > 0, 'halley_ramp_pauses_total');
    viewers.forEach((v) => v.raw.destroy());
    await node.stop();
});

// The whole of it: a node with 5,000 viewers goes, another one takes them in, while both publish.
const CROWD = sanitized ? 600 : 5000;
const RATE = sanitized ? 60 : 500;
const ROOMS = 50;

await check(`drain of ${CROWD} viewers at ${RATE}/s: the rate holds, another node takes them, no publish is lost`, async () => {
    const redis = await Redis.start();
    const set = { 'drain.notice': '1s', 'drain.rate': RATE, 'drain.timeout': '20s', 'lane.normal.ttl': '60s' };
    const a = await Halley.start({ workers: 2, redis, set });
    const b = await Halley.start({ workers: 2, redis });
    const watchers = await crowd(b.port, ROOMS, ROOMS);
    const viewers = await crowd(a.port, CROWD, ROOMS);
    const back = [];
    const acked = [];
    let publishing = true;
    const publisher = (async () => {
        for (let n = 0; publishing; n++) {
            const room = n % ROOMS;
            await redis.room(`r${room}`, { type: 'chat', data: { n: Math.floor(n / ROOMS) } });
            acked.push({ room, n: Math.floor(n / ROOMS), at: performance.now() });
            await pause(10);
        }
    })();
    let refs = 0;
    const sent = new Map();
    const senders = viewers.filter((_, i) => i % 25 === 0);
    const sending = setInterval(() => {
        for (const viewer of senders) {
            if (viewer.close) continue;
            sent.set(++refs, viewer);
            viewer.send(refs, { ref: refs });
        }
    }, 200);
    for (const viewer of viewers) {
        viewer.gone.then(async () => {
            await pause(Math.min(viewer.goodbye?.retry_after_ms ?? 0, 3000)); // sooner than told: the test is to end
            const again = await Light.open(b.port, viewer.room);
            await again.joined;
            back.push(again);
        });
    }
    await pause(500);
    // How late this very process is: on a busy machine seconds can't be told apart.
    let late = 0;
    let ticked = performance.now();
    const ticks = setInterval(() => {
        late = Math.max(late, performance.now() - ticked - 20);
        ticked = performance.now();
    }, 20);
    const started = performance.now();
    a.told = true;
    a.child.kill('SIGTERM');
    await within(a.exit, 21000, 'the exit within drain.timeout');
    const took = performance.now() - started;
    equal(a.exited.code, 0, 'exit code');
    await until(() => back.length === CROWD, () => `all back on the other node, ${back.length} are`, 8000);
    clearInterval(sending);
    clearInterval(ticks);
    publishing = false;
    await publisher;
    await pause(300);

    const { all, inner, ms } = perSecond(viewers);
    console.log(`# closes per second: ${all.join(' ')}; ${Math.round(ms)} ms; process gone after ${Math.round(took)} ms`);
    assert(Math.abs((CROWD / ms) * 1000 - RATE) <= RATE / 10, `${RATE}/s on the whole, got ${CROWD} in ${Math.round(ms)} ms`);
    if (late > 40) console.log(`# the machine is busy (this process was ${Math.round(late)} ms late): seconds are not judged one by one`);
    for (const count of late > 40 ? [] : inner) assert(Math.abs(count - RATE) <= RATE / 10, `${RATE}/s within 10 %, got ${inner}`);
    equal(await b.viewers(), CROWD + ROOMS, 'viewers of the other node');
    for (const viewer of viewers) equal([viewer.close.code, viewer.goodbye.reason], [1012, 'drain'], 'close');
    const retries = viewers.map((v) => v.goodbye.retry_after_ms);
    assert(Math.max(...retries) > 8000 && Math.max(...retries) <= 10600, `spread over the window, at most ${Math.max(...retries)}`);

    // What backends published: each viewer has it without a hole up to its close.
    for (const viewer of viewers) {
        const got = viewer.messages.filter((m) => m.data.n !== undefined).map((m) => m.data.n);
        got.forEach((n, i) => assert(n === i, `${viewer.room}: message ${i} is missing, got ${n}`));
        const due = acked.filter((m) => `r${m.room}` === viewer.room && m.at < viewer.close.at - 300).length;
        assert(got.length >= due, `${viewer.room}: ${due} were published before the close, got ${got.length}`);
    }
    // What viewers sent: acked means that the room has it, and what the room has was acked.
    const seen = new Set(watchers.flatMap((w) => w.messages.map((m) => m.data.ref).filter(Boolean)));
    let answered = 0;
    for (const [ref, viewer] of sent) {
        const ack = viewer.acks.get(ref) === 'ack';
        answered += ack;
        assert(ack === seen.has(ref), `send ${ref}: ${ack ? 'acked but lost' : 'carried out but not answered'}`);
    }
    console.log(`# ${acked.length} publishes, ${answered} of ${sent.size} sends answered, the others came after the goodbye`);
    await b.stop();
}, 120000);

await finish();
