#!/usr/bin/env node
// How a node stops without anybody losing anything: notice, farewells at a pace, last words, the limit; and how it sheds a share.

import fs from 'node:fs';

import {
    FrameReader,
    Halley,
    Native,
    OP,
    RawSocket,
    Redis,
    WsRaw,
    ahead,
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
        self.numbers = []; // of the messages that have one, with the time of each
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
            this.close = { code: f.payload.readUInt16BE(0) };
            this.raw.socket.write(frame({ opcode: OP.close, payload: closePayload(this.close.code) }));
        }
        if (f.opcode !== OP.text) return;
        const message = JSON.parse(f.payload.toString());
        if (message.op === 'welcome') this.connection = message.connection;
        else if (message.op === 'joined') this.onJoined();
        else if (message.op === 'goodbye') this.goodbye = message;
        else if (message.op === 'ack' || message.op === 'error') this.acks.set(message.ref, message.op);
        else if (message.data?.n !== undefined) this.numbers.push({ n: message.data.n, at: Date.now() });
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

// What the daemon itself says of its closes, by its own clock, however late this process is: events in Redis.
const closesTold = { 'events.kinds': 'close', 'events.interval': '10ms' };

// Unix time in milliseconds of each viewer's close, by connection.
async function closeTimes(redis) {
    const times = new Map();
    for (const [, fields] of await redis.command('XRANGE', 'halley:events', '-', '+')) {
        const event = Object.fromEntries(Array.from({ length: fields.length / 2 }, (_, i) => fields.slice(2 * i, 2 * i + 2)));
        times.set(event.connection, Number(event.time));
    }
    return times;
}

// When the daemon wrote a line, Unix time in milliseconds.
const logTime = (node, pattern) => Date.parse(node.log.split('\n').find((line) => pattern.test(line)).split(' ')[0]);

// It ended within drain.timeout: nothing is said later.
function endedWithin(node, ms) {
    const took = Date.parse(node.log.trimEnd().split('\n').at(-1).split(' ')[0]) - logTime(node, /info draining/);
    assert(took < ms + 500, `the last line is of ${took} ms after the first`);
}

// The rate is kept from `since` (or the moment before it): so many are allowed by then, and never more, however busy the machine is.
function neverAhead(times, since, rate) {
    [...times].sort((x, y) => x - y).forEach((at, i) => {
        const allowed = ((at + 1 - since) * rate) / 1000;
        assert(i < allowed, `${i + 1} were closed within ${at - since} ms, ${rate}/s allow ${Math.floor(allowed)}`);
    });
}

// For how long each thread of a process was ready to run and had to wait for a core, in ms (proc(5), schedstat).
function starved(pid) {
    const waits = new Map();
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
        try {
            waits.set(task, Number(fs.readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[1]) / 1e6);
        } catch {
            // a thread that ended
        }
    }
    return waits;
}

// Samples of starved(), until stopped. longest(from, to): in that span of Unix time no thread waited longer than so many ms at a stretch;
// a wait shows when it is over.
function watchStarvation(pid) {
    const samples = [];
    const look = () => {
        try {
            samples.push({ at: Date.now(), waits: starved(pid) });
        } catch {
            clearInterval(timer);
        }
    };
    const timer = setInterval(look, 50);
    look();
    return {
        stop: () => clearInterval(timer),
        longest(from, to) {
            let most = 0;
            for (let i = 1; i < samples.length; i++) {
                const [last, next] = [samples[i - 1], samples[i]];
                if (next.at < from || last.at > to) continue;
                for (const [task, wait] of next.waits) most = Math.max(most, wait - (last.waits.get(task) ?? 0));
            }
            return most;
        },
    };
}

// Closes in each second from the first one on.
function perSecond(times, from) {
    const buckets = Array(Math.floor((Math.max(...times) - from) / 1000) + 1).fill(0);
    for (const at of times) buckets[Math.floor((at - from) / 1000)]++;
    return buckets;
}

await check('SIGTERM: /healthz says 503 at once, handshakes are served for drain.notice, then answered 503 until the exit', async () => {
    const node = await Halley.start({ workers: 2, prefix: ahead, set: { 'drain.notice': '3s', 'drain.rate': 2, 'drain.timeout': '6s' } });
    const viewers = await Promise.all([2, 3, 4, 5, 6].map((i) => Native.in(node.port, 'a', { localAddress: `127.0.0.${i}` })));
    const silent = await RawSocket.connect(node.port);
    equal([(await healthz(node)).status, (await healthz(node)).text], [200, 'ok\n'], 'healthz before');
    const started = Date.now();
    node.told = true;
    node.child.kill('SIGTERM');
    await until(async () => (await healthz(node)).status === 503, 'healthz 503', 5000, 5);
    equal((await node.http('GET', '/healthz')).status, 503, 'healthz on the admin port');
    equal(await node.metric('halley_draining'), 1, 'halley_draining');
    const late = await Native.in(node.port, 'a'); // within the notice, while /healthz says 503
    await until(async () => (await refusal(node.port, '/ws').catch((error) => error)).status === 503, 'handshakes refused', 8000);
    assert(Date.now() - started >= 2990, 'not before the notice was over');
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
    endedWithin(node, 6000);
});

await check('drain.timeout: those that the rate leaves over get their goodbye too, at once', async () => {
    const redis = await Redis.start();
    const node = await Halley.start({ workers: 2, redis, prefix: ahead, set: { ...closesTold, 'drain.rate': 10, 'drain.timeout': '4s' } });
    const viewers = await crowd(node.port, 200, 1);
    const started = Date.now();
    equal((await node.stop(8000)).code, 0, 'exit code');
    await within(Promise.all(viewers.map((v) => v.gone)), 5000, 'all closed');
    for (const viewer of viewers) equal([viewer.goodbye?.reason, viewer.close?.code], ['drain', 1012], 'goodbye and close');
    const hurry = logTime(node, /drain.timeout is near/);
    assert(hurry - started > 2800, `the rate is kept up to a second before the limit, was for ${hurry - started} ms`);
    endedWithin(node, 4000);
    const times = [...(await closeTimes(redis)).values()];
    equal(times.length, 200, 'closes told');
    neverAhead(times.filter((at) => at < hurry), logTime(node, /saying goodbye/), 10);
    assert(/drain.timeout is too short/.test(node.log), 'the log said so at the beginning');
    const retries = viewers.map((v) => v.goodbye.retry_after_ms).sort((a, b) => a - b);
    assert(retries[0] < 3000 && retries.at(-1) > 15000, `spread over 20 s, got ${retries[0]} to ${retries.at(-1)}`);
    await redis.kill();
});

await check("a viewer's send that was accepted is answered before it is closed", async () => {
    const redis = await Redis.start();
    const node = await Halley.start({ workers: 2, redis });
    // Of the same address, so on the same worker, one before it and one behind it.
    const [before, viewer, behind] = [await Native.in(node.port, 'a'), await Native.in(node.port, 'a'), await Native.in(node.port, 'a')];
    redis.child.kill('SIGSTOP');
    const answer = viewer.request({ op: 'send', room: 'a', type: 'chat', data: 'in flight' }, 15000);
    await viewer.alive();
    node.told = true;
    node.child.kill('SIGTERM');
    await node.waitLog(/saying goodbye/);
    for (const idle of [before, behind]) equal((await idle.closing()).code, 1012, 'close code of those who wait for nothing');
    for (let rounds = 0; rounds < 5; rounds++) {
        await viewer.alive(); // still open while its send is on its way, round after round
        await pause(20);
    }
    redis.child.kill('SIGCONT');
    equal((await answer).op, 'ack', 'answer');
    equal((await viewer.closing()).code, 1012, 'close code');
    equal((await within(node.exit, 6000, 'the exit')).code, 0, 'exit code');
});

await check('POST /v1/drain with a share: so many go at the rate, the node serves on', async () => {
    const redis = await Redis.start();
    const node = await Halley.start({ workers: 2, redis, set: { ...closesTold, 'drain.rate': 100 } });
    const waits = watchStarvation(node.pid);
    const viewers = await crowd(node.port, 1000, 5);
    for (const body of ['{"share":0}', '{"share":1.5}', '{"share":-1}', '{"share":"0.2"}', 'half', '[0.2]'])
        equal((await node.http('POST', '/v1/drain', { body })).status, 400, body);
    equal((await node.http('GET', '/v1/drain')).status, 405, 'GET');
    const answer = await node.http('POST', '/v1/drain', { body: { share: 0.2 } });
    equal([answer.status, answer.json.stops, answer.json.viewers, answer.json.rate], [202, false, 200, 100], 'answer');
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.2 } })).status, 409, 'a second one meanwhile');
    equal([(await healthz(node)).status, (await node.http('GET', '/healthz')).status], [200, 200], 'healthz');
    await node.waitLog(/shed as many/, 15000);
    await until(() => viewers.filter((v) => v.close).length === 200, '200 closed');
    const went = viewers.filter((v) => v.close);
    const closed = await until(async () => {
        const times = await closeTimes(redis);
        return times.size === 200 && [...times.values()];
    }, '200 closes told');
    const since = logTime(node, /shedding a share/);
    neverAhead(closed, since, 100);
    const ms = Math.max(...closed) - since;
    const held = waits.longest(since, since + ms + 500);
    waits.stop();
    assert(ms < 2100 + held, `200 at 100/s, took ${ms} ms (a thread waited ${Math.round(held)} ms for a core)`);
    for (const viewer of went) equal([viewer.close.code, viewer.goodbye.reason], [1012, 'drain'], 'close');
    equal(await node.viewers(), 800, 'viewers that stay');
    (await Native.in(node.port, 'r0')).destroy();
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.5 } })).json.viewers, 400, 'another share later');
    const whole = await node.http('POST', '/v1/drain');
    equal([whole.status, whole.json.stops], [202, true], 'the whole node, without a body');
    node.told = true;
    equal((await within(node.exit, 15000, 'the exit')).code, 0, 'exit code');
    await within(Promise.all(viewers.map((v) => v.gone)), 5000, 'all closed');
    for (const viewer of viewers) equal(viewer.close?.code, 1012, 'close code');
    await redis.kill();
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
    const redis = await Redis.start();
    const node = await Halley.start({
        workers: 2,
        redis,
        set: { ...closesTold, 'drain.notice': '3s', 'drain.rate': 20, 'drain.timeout': '20s' },
    });
    const viewers = await crowd(node.port, 40, 1);
    equal((await node.http('POST', '/v1/drain', { body: { share: 0.5 } })).status, 202, 'share');
    node.told = true;
    const started = Date.now();
    node.child.kill('SIGTERM');
    equal((await within(node.exit, 15000, 'the exit')).code, 0, 'exit code');
    await within(Promise.all(viewers.map((v) => v.gone)), 5000, 'all closed');
    const [shedding, goodbye] = [logTime(node, /shedding a share/), logTime(node, /saying goodbye/)];
    assert(goodbye - started > 2900, 'the notice is waited for');
    const times = [...(await closeTimes(redis)).values()].sort((x, y) => x - y);
    equal(times.length, 40, 'closes told');
    const early = times.filter((at) => at < goodbye);
    assert(Math.abs(early.length - 20) <= 1, `half by the share, half after the notice: ${early.length} of 40 before it`);
    neverAhead(early, shedding, 20);
    neverAhead(times.slice(early.length), goodbye, 20);
    await redis.kill();
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
    // What so many connections take without it, here and now.
    const free = await Halley.start({ workers: 2 });
    const begun = Date.now();
    (await crowd(free.port, 300, 1)).forEach((v) => v.raw.destroy());
    const plain = Date.now() - begun;
    await free.stop();
    const node = await Halley.start({ workers: 2, set: { 'server.ramp': '10s', 'server.ramp_rate': 100 } });
    const started = Date.now();
    const viewers = await crowd(node.port, 300, 1);
    const took = Date.now() - started;
    // 100 in the first second, 200 in the next: 300 take 2 s; some of the first second passed before.
    assert(took > 1000 && took < 2300 + 4 * plain, `300 connections took ${took} ms, ${plain} ms without the ramp`);
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
    const set = { ...closesTold, 'drain.notice': '1s', 'drain.rate': RATE, 'drain.timeout': '20s', 'lane.normal.ttl': '60s' };
    const a = await Halley.start({ workers: 2, redis, set, prefix: ahead });
    const b = await Halley.start({ workers: 2, redis });
    const watchers = await crowd(b.port, ROOMS, ROOMS);
    const viewers = await crowd(a.port, CROWD, ROOMS);
    const back = [];
    const acked = [];
    const publish = async (room, n) => {
        await redis.room(`r${room}`, { type: 'chat', data: { n } });
        acked.push({ room, n, at: Date.now() });
    };
    let publishing = true;
    let published = 0;
    const publisher = (async () => {
        for (; publishing; published++) {
            await publish(published % ROOMS, Math.floor(published / ROOMS));
            await pause(10);
        }
    })();
    for (const viewer of viewers) {
        viewer.gone.then(async () => {
            await pause(Math.min(viewer.goodbye?.retry_after_ms ?? 0, 3000)); // sooner than told: the test is to end
            const again = await Light.open(b.port, viewer.room);
            await again.joined;
            back.push(again);
        });
    }
    await until(() => viewers.every((v) => v.numbers.length > 0), 'the first messages are there', 20000);
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
    const waits = watchStarvation(a.pid);
    const started = performance.now();
    a.told = true;
    a.child.kill('SIGTERM');
    await within(a.exit, 30000, 'the exit');
    const took = performance.now() - started;
    equal(a.exited.code, 0, 'exit code');
    assert(!/drain.timeout (passed|is near)/.test(a.log), 'all are gone in time');
    await until(() => back.length === CROWD, () => `all back on the other node, ${back.length} are`, 40000);
    waits.stop();
    clearInterval(sending);
    publishing = false;
    await publisher;
    // The last one in each room: who has it has what came before.
    for (let room = 0; room < ROOMS; room++) await publish(room, Math.ceil((published - room) / ROOMS));
    await until(
        () => watchers.every((w, room) => w.numbers.at(-1)?.n === Math.ceil((published - room) / ROOMS)),
        'the other node has the last messages',
        20000,
    );

    const closes = await closeTimes(redis);
    const times = viewers.map((v) => closes.get(v.connection));
    assert(!times.includes(undefined), 'every close is told');
    const goodbye = logTime(a, /saying goodbye/);
    neverAhead(times, goodbye, RATE);
    const buckets = perSecond(times, goodbye);
    const ms = Math.max(...times) - goodbye;
    const held = buckets.map((_, s) => waits.longest(goodbye + s * 1000 - 100, goodbye + s * 1000 + 1500));
    console.log(
        `# closes per second: ${buckets.join(' ')}; ${ms} ms; process gone after ${Math.round(took)} ms; ` +
            `a thread waited for a core at most: ${held.map(Math.round).join(' ')} ms`,
    );
    assert(Math.abs((CROWD / ms) * 1000 - RATE) <= RATE / 10, `${RATE}/s on the whole, got ${CROWD} in ${ms} ms`);
    buckets.slice(1, -1).forEach((count, s) => {
        const moved = (2 * RATE * held[s + 1]) / 1000; // what a wait for a core may carry over either end of the second
        assert(Math.abs(count - RATE) <= RATE / 10 + moved, `${RATE}/s within 10 %, got ${buckets}`);
    });
    equal(await b.viewers(), CROWD + ROOMS, 'viewers of the other node');
    for (const viewer of viewers) equal([viewer.close.code, viewer.goodbye.reason], [1012, 'drain'], 'close');
    const retries = viewers.map((v) => v.goodbye.retry_after_ms);
    assert(Math.max(...retries) > 8000 && Math.max(...retries) <= 10600, `spread over the window, at most ${Math.max(...retries)}`);

    // What backends published: each viewer has it without a hole up to its close. A room's viewers have one address, so one worker:
    // what one of them had got before another was closed stood in the log of both.
    for (let room = 0; room < ROOMS; room++) {
        const inRoom = viewers.filter((v) => v.room === `r${room}`);
        const firstSeen = [];
        for (const viewer of [...inRoom, watchers[room]])
            viewer.numbers.forEach((m, i) => {
                assert(m.n === i, `${viewer.room}: message ${i} is missing, got ${m.n}`);
                if (viewer !== watchers[room]) firstSeen[i] = Math.min(firstSeen[i] ?? Infinity, m.at);
            });
        for (const viewer of inRoom) {
            const got = viewer.numbers.length;
            const due = firstSeen.filter((at) => at < closes.get(viewer.connection)).length;
            assert(got >= due, `${viewer.room}: ${due} had come before the close, got ${got}`);
        }
        // And messages did come to the end: the last one to go has most of those that were published by then.
        const last = Math.max(...inRoom.map((v) => closes.get(v.connection)));
        const most = acked.filter((m) => m.room === room && m.at < last).length;
        assert(firstSeen.length >= most / 2, `r${room}: ${most} were published before its last close, ${firstSeen.length} came`);
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
    await redis.kill();
}, 150000);

await finish();
