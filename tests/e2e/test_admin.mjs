#!/usr/bin/env node
// The admin HTTP API: every route, refusals, the token, metrics, kicks.

import {
    Halley,
    Native,
    RawSocket,
    Redis,
    WsRaw,
    assert,
    check,
    equal,
    finish,
    freePort,
    rawRequest,
    until,
} from './lib.mjs';

const halley = await Halley.start({ workers: 2, set: { 'server.node': 'admin-test' } });
const port = halley.port;
const get = (target, options) => halley.http('GET', target, options);

async function refusedWith(method, target, status, code, options) {
    const answer = await halley.http(method, target, options);
    equal(answer.status, status, `status of ${method} ${target}`);
    assert(
        answer.json && typeof answer.json.error === 'string' && typeof answer.json.message === 'string',
        `a JSON body with error and message, got ${answer.text}`,
    );
    if (code) equal(answer.json.error, code, `error of ${method} ${target}`);
    assert(
        /^application\/json/.test(answer.headers['content-type']),
        `JSON content type, got ${answer.headers['content-type']}`,
    );
    return answer;
}

// ---- health

await check('/healthz and /readyz say 200 when all is well', async () => {
    equal((await get('/healthz')).status, 200, '/healthz');
    equal((await get('/readyz')).status, 200, '/readyz');
});

await check('HEAD works where GET does', async () => {
    for (const target of ['/healthz', '/metrics', '/v1/rooms']) {
        const answer = await halley.http('HEAD', target);
        equal([answer.status, answer.text], [200, ''], `HEAD ${target}`);
    }
});

// ---- publish

await check('POST /v1/rooms/<room>/messages: 202 with a JSON body; from is allowed; the message arrives', async () => {
    const viewer = await Native.in(port, 'a');
    const answer = await halley.publish('a', { type: 'chat', from: 'backend', data: { x: 1 } });
    assert(answer.json !== undefined && typeof answer.json === 'object', `a JSON object, got ${answer.text}`);
    assert(answer.json.warnings === undefined || Array.isArray(answer.json.warnings), 'warnings is a list');
    equal((await viewer.message()).from, 'backend', 'from');
    viewer.destroy();
});

await check('POST to a room without viewers is accepted too', () =>
    halley.publish('nobody-here', { type: 'chat', data: 1 }),
);

await check('POST with a percent-encoded room name, every allowed character', async () => {
    const viewer = await Native.in(port, 'A.z_9:-');
    for (const room of ['A.z_9:-', 'A.z_9%3A-', '%41.z_9:-']) {
        const answer = await halley.http('POST', `/v1/rooms/${room}/messages`, { body: { type: 'chat', data: room } });
        equal(answer.status, 202, `status for ${room}`);
        equal((await viewer.message()).data, room, 'message');
    }
    viewer.destroy();
});

await check("POST as curl -d does it, with a form's content type, is read as JSON", async () => {
    const answer = await halley.http('POST', '/v1/rooms/a/messages', {
        body: '{"type":"chat","data":1}',
        headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    });
    equal(answer.status, 202, 'status');
});

await check('POST in chunks is read', async () => {
    const answer = await rawRequest(
        halley.adminPort,
        'POST /v1/rooms/a/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"type":\r\n7\r\n"chat"}\r\n0\r\n\r\n',
    );
    equal(answer.status, 202, 'status');
});

await check('POST refused: bad JSON 400, bad room name 400, bad from 400', async () => {
    for (const body of [
        '',
        '{',
        '[]',
        '"x"',
        '{"type":"chat"} x',
        '{"type":"chat","data":}',
        Buffer.from([0x7b, 0xff, 0x7d]),
        `{"type":"chat","data":${'['.repeat(3000)}${']'.repeat(3000)}}`,
    ]) {
        await refusedWith('POST', '/v1/rooms/a/messages', 400, 'bad-message', { body });
    }
    for (const room of ['a%20b', 'x'.repeat(65), 'a%00', '%ff', '{a}', 'a%2Fb'])
        await refusedWith('POST', `/v1/rooms/${room}/messages`, 400, undefined, { body: { type: 'chat' } });
    await refusedWith('POST', '/v1/rooms/a/messages', 400, undefined, { body: { type: 'chat', from: 'a"b' } });
});

await check('POST refused: a type that is missing, no name, or reserved', async () => {
    for (const body of [{}, { type: 7 }, { type: '' }, { type: 'Bad' }, { type: 'connect' }, { type: 'halley' }]) {
        const answer = await halley.http('POST', '/v1/rooms/a/messages', { body });
        assert([400, 422].includes(answer.status), `400 or 422 for ${JSON.stringify(body)}, got ${answer.status}`);
    }
});

await check("POST refused: a body that is too large 413, data past the type's max_bytes 413", async () => {
    await refusedWith('POST', '/v1/rooms/a/messages', 413, 'too-large', {
        body: `{"type":"chat","data":"${'x'.repeat(200000)}"}`,
    });
    await refusedWith('POST', '/v1/rooms/a/messages', 413, 'too-large', {
        body: `{"type":"chat","data":"${'x'.repeat(20000)}"}`,
    });
});

await check('a body of 1 GB that is announced is refused before it comes', async () => {
    const raw = await RawSocket.connect(halley.adminPort);
    raw.socket.write(
        'POST /v1/rooms/a/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n{"type":',
    );
    const part = Buffer.alloc(65536, 0x20);
    const timer = setInterval(() => raw.socket.write(part), 5);
    try {
        const answer = await raw.readUntil((b) => b.includes('\r\n\r\n'), '413', 5000);
        assert(
            /^HTTP\/1\.1 413 /.test(answer.toString('latin1')),
            `413, got ${answer.toString('latin1').slice(0, 60)}`,
        );
    } finally {
        clearInterval(timer);
        raw.destroy();
    }
});

await check('POST /v1/messages reaches all; POST to a user is not there yet or is answered', async () => {
    const viewer = await Native.open(port);
    await halley.publish(null, { type: 'system', data: 'everybody' });
    equal((await viewer.message()).data, 'everybody', 'message');
    viewer.destroy();
});

await check('unknown paths 404, other methods 405 with Allow', async () => {
    for (const target of [
        '/',
        '/v1',
        '/v1/',
        '/v1/nope',
        '/v1/rooms/a/nope',
        '/metricsx',
        '/v1/rooms/a/messages/x',
        '/v1/users/a',
    ])
        await refusedWith('GET', target, 404);
    for (const [method, target] of [
        ['GET', '/v1/rooms/a/messages'],
        ['GET', '/v1/messages'],
        ['POST', '/v1/rooms'],
        ['DELETE', '/v1/rooms/a'],
        ['PUT', '/v1/config'],
        ['POST', '/v1/users/a/connections'],
        ['POST', '/metrics'],
        ['DELETE', '/healthz'],
    ]) {
        const answer = await refusedWith(
            method,
            target,
            405,
            undefined,
            method === 'POST' || method === 'PUT' ? { body: '{}' } : {},
        );
        assert(answer.headers.allow, `Allow with the 405 of ${method} ${target}`);
    }
});

// ---- rooms

await check('GET /v1/rooms: names and viewers; sort and limit and after', async () => {
    const viewers = [];
    for (const [room, count] of [
        ['list-a', 1],
        ['list-b', 3],
        ['list-c', 2],
    ]) {
        for (let i = 0; i < count; i++) viewers.push(await Native.in(port, room, { localAddress: `127.0.0.${2 + i}` }));
    }
    const rooms = async (query) => {
        const answer = await get(`/v1/rooms${query}`);
        equal(answer.status, 200, `status of /v1/rooms${query}`);
        assert(Array.isArray(answer.json.rooms), `{"rooms":[…]}, got ${answer.text.slice(0, 200)}`);
        return answer.json.rooms
            .filter((r) => (r.room ?? r.name).startsWith('list-'))
            .map((r) => [r.room ?? r.name, r.viewers]);
    };
    equal(
        await rooms('?sort=name'),
        [
            ['list-a', 1],
            ['list-b', 3],
            ['list-c', 2],
        ],
        'by name, viewers of both workers added up',
    );
    equal(
        await rooms('?sort=viewers'),
        [
            ['list-b', 3],
            ['list-c', 2],
            ['list-a', 1],
        ],
        'by viewers',
    );
    equal(await rooms('?sort=name&after=list-a&limit=1'), [['list-b', 3]], 'the next one after list-a');
    equal(await rooms('?sort=viewers&limit=1'), [['list-b', 3]], 'the biggest');
    for (const query of ['?limit=0', '?limit=x', '?limit=1001', '?sort=age', '?after=%20'])
        await refusedWith('GET', `/v1/rooms${query}`, 400);
    const one = await get('/v1/rooms/list-b');
    equal([one.status, one.json.viewers], [200, 3], 'GET /v1/rooms/list-b');
    const none = await get('/v1/rooms/never-seen');
    assert(none.status === 404 || none.json.viewers === 0, `404 or no viewers, got ${none.status} ${none.text}`);
    for (const viewer of viewers) viewer.destroy();
});

// ---- users

await check('GET /v1/users/<user>/connections: node, rooms and lag, on whichever worker', async () => {
    const viewers = await Promise.all(
        [2, 3, 4, 5].map((i) => Native.in(port, `u-${i}`, { user: 'bob smith', localAddress: `127.0.0.${i}` })),
    );
    const answer = await get('/v1/users/bob%20smith/connections');
    equal(answer.status, 200, 'status');
    const list = answer.json.connections;
    assert(Array.isArray(list) && list.length === 4, `four connections, got ${answer.text.slice(0, 300)}`);
    equal(
        list.map((c) => c.connection ?? c.id).sort(),
        viewers.map((v) => v.welcome.connection).sort(),
        'ids as in welcome',
    );
    equal(
        list.every((c) => (c.node ?? answer.json.node) === 'admin-test'),
        true,
        'node',
    );
    const rooms = list.flatMap((c) => c.rooms.map((r) => (typeof r === 'string' ? r : (r.room ?? r.name)))).sort();
    equal(rooms, ['u-2', 'u-3', 'u-4', 'u-5'], 'rooms');
    for (const key of ['lag', 'skipped', 'last_in_ms'])
        assert(JSON.stringify(list[0]).includes(key.replace('_ms', '')), `${key} is told: ${JSON.stringify(list[0])}`);
    const nobody = await get('/v1/users/nobody/connections');
    equal([nobody.status, nobody.json.connections?.length ?? 0], [200, 0], 'a user who is not here');
    await refusedWith('GET', '/v1/users/%22/connections', 400);
    for (const viewer of viewers) viewer.destroy();
});

await check(
    'DELETE /v1/users/<user>/connections: native viewers close with 4010, Socket.IO viewers get 41 first; others stay',
    async () => {
        const bob = await Promise.all(
            [2, 3, 4].map((i) => Native.in(port, 'kick', { user: 'bob', localAddress: `127.0.0.${i}` })),
        );
        const sio = await WsRaw.open(port, '/socket.io/?transport=websocket&user=bob');
        const sio4 = await WsRaw.open(port, '/socket.io/?EIO=4&transport=websocket&user=bob');
        await sio4.nextText();
        await sio4.text('40');
        await sio4.nextText();
        const alice = await Native.in(port, 'kick', { user: 'alice' });
        const answer = await halley.http('DELETE', '/v1/users/bob/connections');
        assert([200, 202, 204].includes(answer.status), `2xx, got ${answer.status} ${answer.text}`);
        for (const viewer of bob) equal((await viewer.closing('the kick')).code, 4010, 'close code');
        for (const ws of [sio, sio4]) {
            await ws.next((f) => f.payload.toString() === '41', 'the packet 41');
            await ws.closing('the close');
        }
        await alice.alive();
        equal((await get('/v1/users/bob/connections')).json.connections?.length ?? 0, 0, 'connections afterwards');
        assert(
            (await halley.metric('halley_closes_total', 'reason="kicked"')) === 5,
            'halley_closes_total{reason="kicked"} = 5',
        );
        alice.destroy();
    },
);

// ---- metrics

await check('/metrics is Prometheus text: HELP and TYPE lead, no series twice, names begin with halley_', async () => {
    const answer = await get('/metrics');
    assert(/^text\/plain/.test(answer.headers['content-type']), `text/plain, got ${answer.headers['content-type']}`);
    const typed = new Map();
    const series = new Set();
    for (const line of answer.text.trimEnd().split('\n')) {
        const type = /^# TYPE (\w+) (counter|gauge|histogram)$/.exec(line);
        if (type) {
            assert(!typed.has(type[1]), `TYPE of ${type[1]} once`);
            typed.set(type[1], type[2]);
            continue;
        }
        if (/^# HELP \w+ \S/.test(line)) continue;
        const sample =
            /^(halley_\w+)((?:\{\w+="(?:[^"\\\n]|\\.)*"(?:,\w+="(?:[^"\\\n]|\\.)*")*\})?) (-?[0-9.e+-]+|\+Inf|NaN)$/.exec(
                line,
            );
        assert(sample, `a sample, got ${line}`);
        const base = typed.has(sample[1]) ? sample[1] : sample[1].replace(/_(bucket|sum|count)$/, '');
        assert(typed.has(base), `TYPE before ${sample[1]}`);
        assert(!series.has(sample[1] + sample[2]), `one line for ${sample[1]}${sample[2]}`);
        series.add(sample[1] + sample[2]);
    }
    for (const name of [
        'halley_viewers',
        'halley_rooms',
        'halley_bytes_total',
        'halley_writes_total',
        'halley_delivered_total',
        'halley_dropped_total',
        'halley_closes_total',
        'halley_handshakes_total',
        'halley_broker_ready',
        'halley_broker_lag_milliseconds',
        'halley_memory_bytes',
        'halley_flush_seconds',
        'halley_loop_lag_seconds',
        'halley_worker_viewers',
    ]) {
        assert(typed.has(name), `${name} is there`);
    }
});

await check('/metrics moves with what happens', async () => {
    const before = await halley.metrics();
    const delta = async (name) => {
        const sum = (samples) =>
            [...samples]
                .filter(([key]) => key === name || key.startsWith(`${name}{`))
                .reduce((total, [, value]) => total + value, 0);
        return sum(await halley.metrics()) - sum(before);
    };
    const viewers = await Promise.all([2, 3, 4, 5].map((i) => Native.in(port, 'm', { localAddress: `127.0.0.${i}` })));
    for (let i = 0; i < 10; i++) await halley.publish('m', { type: 'chat', data: i });
    for (const viewer of viewers) for (let i = 0; i < 10; i++) await viewer.message();
    await viewers[0].send('{');
    await viewers[0].notice('error');
    await until(async () => (await delta('halley_delivered_total')) === 40, 'halley_delivered_total + 40');
    equal(await delta('halley_handshakes_total{result="ok"}'), 4, 'halley_handshakes_total{result="ok"}');
    equal(await delta('halley_published_total{source="http"}'), 10, 'halley_published_total{source="http"}');
    equal(await delta('halley_messages_total{lane="normal"}'), 10, 'halley_messages_total{lane="normal"}');
    equal(await delta('halley_bad_messages_total'), 1, 'halley_bad_messages_total');
    equal(await delta('halley_errors_total{code="bad-message"}'), 1, 'halley_errors_total{code="bad-message"}');
    equal(await delta('halley_viewers'), 4, 'halley_viewers');
    assert((await delta('halley_bytes_total{direction="out"}')) > 40 * 30, 'halley_bytes_total{direction="out"}');
    assert((await delta('halley_write_frames_total')) >= 40, 'halley_write_frames_total');
    for (const viewer of viewers) await viewer.bye();
    await until(
        async () => (await delta('halley_closes_total{reason="client"}')) === 4,
        'halley_closes_total{reason="client"} + 4',
    );
    await until(async () => (await delta('halley_viewers')) === 0, 'halley_viewers back');
});

// ---- conf

await check('GET /v1/config: effective values; secrets are hidden', async () => {
    const redis = await Redis.start({ password: 'r3dis-pass' });
    const node = await Halley.start({
        redis,
        workers: 1,
        set: { 'admin.token': 'admin-t0ken', 'lane.normal.interval': '50ms' },
        ready: false,
    });
    await until(async () => (await node.http('GET', '/readyz')).status === 200, '/readyz');
    const answer = await node.http('GET', '/v1/config', { headers: { Authorization: 'Bearer admin-t0ken' } });
    equal(answer.status, 200, 'status');
    for (const section of [
        'server',
        'tcp',
        'admin',
        'auth',
        'broker',
        'flush',
        'heartbeat',
        'limits',
        'drain',
        'log',
        'socketio',
        'lane',
        'type',
    ])
        assert(answer.json[section], `section ${section}`);
    assert(
        /50/.test(JSON.stringify(answer.json.lane.normal)),
        `lane.normal.interval, got ${JSON.stringify(answer.json.lane.normal)}`,
    );
    assert(!answer.text.includes('r3dis-pass') && !answer.text.includes('admin-t0ken'), 'no secret in it');
    assert(!node.log.includes('r3dis-pass') && !node.log.includes('admin-t0ken'), 'no secret in the log');
    await node.stop();
});

// ---- token and browsers

await check('admin.token: /v1 needs it, health and metrics do not', async () => {
    const node = await Halley.start({ workers: 1, set: { 'admin.token': 's3cret' } });
    for (const [method, target] of [
        ['GET', '/v1/rooms'],
        ['GET', '/v1/config'],
        ['POST', '/v1/messages'],
        ['DELETE', '/v1/users/a/connections'],
        ['GET', '/v1/users/a/connections'],
    ]) {
        for (const authorization of [
            undefined,
            'Bearer wrong',
            'Bearer s3cre',
            'Bearer s3cretx',
            'Basic czNjcmV0',
            's3cret',
            'Bearer ',
        ]) {
            const answer = await node.http(method, target, {
                headers: authorization === undefined ? {} : { Authorization: authorization },
                ...(method === 'POST' ? { body: { type: 'system' } } : {}),
            });
            equal(answer.status, 401, `status of ${method} ${target} with ${authorization}`);
            assert(/bearer/i.test(answer.headers['www-authenticate'] || ''), 'WWW-Authenticate: Bearer');
        }
    }
    const headers = { Authorization: 'Bearer s3cret' };
    equal((await node.http('GET', '/v1/rooms', { headers })).status, 200, 'status with the token');
    await node.publish('a', { type: 'chat' }, { headers });
    for (const target of ['/healthz', '/readyz', '/metrics'])
        equal((await node.http('GET', target)).status, 200, `status of ${target}`);
    await node.stop();
});

await check("without a token a web page of the operator's browser cannot publish", async () => {
    const answer = await halley.http('POST', '/v1/messages', {
        body: { type: 'system' },
        headers: { Origin: 'https://evil.example' },
    });
    equal(answer.status, 403, 'status with an Origin');
    equal(
        (await halley.http('GET', '/v1/rooms', { headers: { Host: 'evil.example' } })).status,
        403,
        'status with a foreign Host',
    );
});

// ---- load on the admin listener

await check('100 requests at once are all answered', async () => {
    const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) =>
            i % 2
                ? get('/v1/rooms')
                : halley.http('POST', '/v1/rooms/par/messages', { body: { type: 'chat', data: i } }),
        ),
    );
    equal(
        answers.filter((a) => a.status !== 200 && a.status !== 202).map((a) => a.status),
        [],
        'other answers',
    );
});

await check('slow and half requests do not keep others from being served', async () => {
    const raws = await Promise.all(Array.from({ length: 20 }, () => RawSocket.connect(halley.adminPort)));
    for (const raw of raws)
        raw.socket.write('POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{');
    equal((await get('/v1/rooms')).status, 200, 'status meanwhile');
    for (const raw of raws) raw.destroy();
});

await check('publishes while the broker is away: 503 unavailable with Retry-After', async () => {
    const node = await Halley.start({
        ready: false,
        workers: 1,
        set: { 'broker.url': `redis://127.0.0.1:${await freePort()}` },
    });
    await until(async () => (await node.http('GET', '/healthz')).status === 200, '/healthz');
    const answer = await node.http('POST', '/v1/rooms/a/messages', { body: { type: 'chat' } });
    equal([answer.status, answer.json.error], [503, 'unavailable'], 'answer');
    assert(Number(answer.headers['retry-after']) >= 1, 'Retry-After in seconds');
    await node.stop();
});

await finish();
