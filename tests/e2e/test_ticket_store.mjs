#!/usr/bin/env node
// Tickets that somebody must be asked about: opaque ones in Redis (auth.mode = redis), and those for single use.

import { createRequire } from 'node:module';

import { Halley, Native, Redis, RedisClient, WsRaw, assert, atEnd, check, equal, finish, frame, rawRequest, refusal, requestHead, until, within } from './lib.mjs';
import { Issuer, now } from './lib_tickets.mjs';

const require = createRequire(import.meta.url);
const io2 = require('socket.io-client-2');
const io4 = require('socket.io-client').io;

const issuer = new Issuer();
const redis = await Redis.start();
const client = await RedisClient.connect(redis.port);
atEnd(() => client.close());
let ids = 0;

// Puts a ticket into Redis; resolves with its id.
async function put(claims = {}, prefix = 'halley') {
    const id = issuer.remember(`${(++ids).toString().padStart(8, '0')}a175508edfcd3d1db3b7bc8008d`);
    const body = typeof claims === 'string' ? claims : JSON.stringify({ sub: 'alice', exp: now() + 300, ...claims });
    await client.command('SET', `${prefix}:ticket:${id}`, body, 'EX', 300);
    return id;
}

const base = { 'presence.enabled': 'no', 'log.level': 'debug', 'auth.timeout': '500ms', 'limits.viewer_rate': 1000, 'limits.viewer_burst': 1000 };
const store = await Halley.start({ workers: 2, redis, set: { ...base, 'auth.mode': 'redis' } });
const view = (id, options = {}) => Native.open(store.port, { ...options, query: { ...options.query, ticket_id: id } });

await check('a ticket in Redis lets its user in, with its rights', async () => {
    const viewer = await view(await put({ rooms: ['42'], join: ['42'], send: [] }), { user: 'mallory' });
    equal(viewer.welcome.user, 'alice', 'user');
    equal((await viewer.notice('joined')).room, '42', 'join');
    equal((await viewer.request({ op: 'join', room: '43' })).code, 'forbidden', 'rooms');
    equal((await viewer.request({ op: 'send', room: '42', type: 'chat' })).code, 'forbidden', 'send');
    viewer.destroy();
    const bearer = await Native.open(store.port, { headers: { Authorization: `Bearer ${await put({ sub: 'bo+b' })}` } });
    equal(bearer.welcome.user, 'bo+b', 'by Authorization: Bearer');
    bearer.destroy();
});

await check('unknown, expired, not yet valid, wrong and malformed ones: 401', async () => {
    const bad = [
        issuer.remember('no-such-ticket-in-redis'),
        await put({ exp: now() - 60 }),
        await put({ nbf: now() + 60 }),
        await put({ sub: '' }),
        await put('no JSON'),
        issuer.remember('with%20a-space-in-it-somewhere'),
        issuer.remember('x'.repeat(300)),
        'used:0000000000000000000000000000000000000000000000000000000000000000',
    ];
    for (const id of bad) equal((await refusal(store.port, `/ws?ticket_id=${id}`)).status, 401, `ticket ${id}`);
    equal((await refusal(store.port, '/ws')).status, 401, 'none');
    await client.command('LPUSH', 'halley:ticket:a-list-is-no-ticket', 'x');
    equal((await refusal(store.port, '/ws?ticket_id=a-list-is-no-ticket')).status, 503, 'a key of another kind');
    equal((await refusal(store.port, `/ws?room=43&ticket_id=${await put({ rooms: ['42'] })}`)).status, 403, 'room');
});

await check('Socket.IO: EIO 3, EIO 4 with ticket_id and EIO 4 with the ticket in its 40', async () => {
    const three = await WsRaw.open(store.port, `/socket.io/?transport=websocket&ticket_id=${await put({ join: ['s'] })}`);
    await three.nextText();
    equal(await three.nextText(), '40', 'EIO 3');
    equal(JSON.parse((await three.nextText()).slice(2))[1].room, 's', 'its join');
    const refused = await WsRaw.open(store.port, '/socket.io/?transport=websocket&ticket_id=no-such-ticket-in-redis');
    await refused.nextText();
    equal(await refused.nextText(), '44"ticket-invalid"', 'EIO 3, refused');
    const four = await WsRaw.open(store.port, `/socket.io/?EIO=4&transport=websocket&ticket_id=${await put()}`);
    await four.nextText();
    await four.text('40');
    assert((await four.nextText()).startsWith('40{"sid"'), 'EIO 4');
    const late = await WsRaw.open(store.port, '/socket.io/?EIO=4&transport=websocket&room=q');
    await late.nextText();
    await late.text(`40{"token":"${await put({ join: ['s'] })}"}`);
    await late.text('40');
    assert((await late.nextText()).startsWith('40{"sid"'), 'EIO 4, by its 40');
    const rooms = [await late.nextText(), await late.nextText()].map((text) => JSON.parse(text.slice(2))[1].room);
    equal(rooms.sort(), ['q', 's'], 'rooms');
    const lateBad = await WsRaw.open(store.port, '/socket.io/?EIO=4&transport=websocket');
    await lateBad.nextText();
    await lateBad.text('40{"token":"no-such-ticket-in-redis"}');
    equal(await lateBad.nextText(), '44{"message":"ticket-invalid"}', 'EIO 4, refused');
    for (const ws of [three, refused, four, late, lateBad]) ws.destroy();
});

await check('refresh is looked up too', async () => {
    const viewer = await view(await put({ exp: now() + 100 }));
    equal((await viewer.request({ op: 'refresh', ticket: await put({ rooms: ['z'] }) })).op, 'ack', 'a good one');
    equal((await viewer.request({ op: 'join', room: 'y' })).code, 'forbidden', 'its rights');
    equal((await viewer.request({ op: 'refresh', ticket: 'no-such-ticket-in-redis' })).code, 'forbidden', 'unknown');
    equal((await viewer.request({ op: 'refresh', ticket: await put({ sub: 'bob' }) })).code, 'forbidden', 'bob’s');
    await viewer.alive();
    viewer.destroy();
});

await check('what comes before the answer to the handshake is refused', async () => {
    const head = requestHead(`/ws?ticket_id=${await put()}`).text;
    await client.command('CLIENT', 'PAUSE', 300, 'ALL');
    const answer = await rawRequest(store.port, Buffer.concat([Buffer.from(head), frame({ opcode: 1, payload: 'x' })]));
    equal(answer.status, 400, 'status');
    await client.command('PING');
});

await check('Redis late: 503 with Retry-After after auth.timeout; refuse=close 4503; EIO over HTTP; refresh `unavailable`', async () => {
    const viewer = await view(await put());
    const ids = [await put(), await put(), await put(), await put()];
    // Silent until all have been answered, so it is never Redis that they were waiting for.
    redis.child.kill('SIGSTOP');
    const began = Date.now();
    const answers = Promise.all([
        refusal(store.port, `/ws?ticket_id=${ids[0]}`),
        refusal(store.port, `/socket.io/?transport=websocket&ticket_id=${ids[1]}`),
        refusal(store.port, `/socket.io/?EIO=4&transport=websocket&ticket_id=${ids[2]}`),
        viewer.request({ op: 'refresh', ticket: ids[3] }),
        WsRaw.open(store.port, `/ws?refuse=close&ticket_id=${ids[0]}`),
        WsRaw.open(store.port, '/socket.io/?EIO=4&transport=websocket').then(async (ws) => {
            await ws.nextText();
            await ws.text(`40{"token":"${ids[0]}"}`);
            return ws.closing();
        }),
    ]);
    const [native, three, four, refresh, ws, late] = await answers;
    const took = Date.now() - began;
    assert(took >= 400, `not before auth.timeout, took ${took} ms`);
    for (const answer of [native, three, four]) {
        equal(answer.status, 503, 'status');
        assert(Number(answer.headers['retry-after']) >= 1, 'Retry-After');
    }
    equal(refresh.code, 'unavailable', 'refresh');
    assert(refresh.retry_after_ms > 0, 'retry_after_ms');
    equal(JSON.parse(await ws.nextText()).reason, 'unavailable', 'goodbye');
    equal((await ws.closing()).code, 4503, 'close');
    equal(late.code, 1013, 'EIO 4 whose 40 brought the ticket');
    await until(async () => (await store.metric('halley_tickets_waiting')) === 0, 'nothing waits');
    redis.child.kill('SIGCONT');
    await viewer.alive();
    viewer.destroy();
});

await check('auth.pending bounds the wait: past it 503 at once', async () => {
    const small = await Halley.start({
        workers: 1,
        redis,
        set: { ...base, 'auth.mode': 'redis', 'auth.pending': 3, 'auth.timeout': '10s' },
    });
    const id = await put();
    redis.child.kill('SIGSTOP');
    const answers = Array.from({ length: 8 }, () =>
        Native.open(small.port, { ms: 15000, query: { ticket_id: id } }).then(
            (viewer) => (viewer.destroy(), 101),
            (error) => error.status,
        ),
    );
    await until(async () => (await small.metric('halley_tickets_total', 'result="full"')) === 5, 'five are refused while Redis is silent');
    equal(await small.metric('halley_tickets_waiting'), 3, 'the wait shows in the metrics');
    redis.child.kill('SIGCONT');
    const statuses = (await Promise.all(answers)).sort();
    equal(statuses, [101, 101, 101, 503, 503, 503, 503, 503], 'statuses');
    equal(await small.metric('halley_tickets_total', 'result="full"'), 5, 'counted');
    await small.stop();
});

// ---- single use

const single = { ...base, 'auth.mode': 'jwt', 'auth.single_use': 'yes', ...issuer.keys };

// The same promises with marks in Redis and with those of the node itself.
for (const [where, options] of [
    ['Redis', { redis }],
    ['memory:', {}],
]) {
    const daemon = await Halley.start({ workers: 2, ...options, set: { ...single, 'auth.reuse_window': '3s' } });
    const come = (query) =>
        Native.open(daemon.port, { query }).then(
            (viewer) => (viewer.destroy(), 101),
            (error) => error.status,
        );

    await check(`${where}: a ticket belongs to the session that used it first`, async () => {
        const ticket_id = issuer.ticket();
        equal(await come({ ticket_id, session: 's1' }), 101, 'first use');
        equal(await come({ ticket_id, session: 's1' }), 101, 'the same session again');
        equal(await come({ ticket_id, session: 's2' }), 401, 'another session');
        equal(await come({ ticket_id }), 401, 'no session');
        const claimed = issuer.ticket({ session: 'c1' });
        equal(await come({ ticket_id: claimed }), 101, 'the session of the claim');
        equal(await come({ ticket_id: claimed, session: 'other' }), 101, 'which counts whatever the query says');
        const ticket = issuer.ticket();
        for (const [session, answer] of [
            ['e1', '40{'],
            ['e1', '40{'],
            ['e2', '44{'],
        ]) {
            const ws = await WsRaw.open(daemon.port, `/socket.io/?EIO=4&transport=websocket&session=${session}`);
            await ws.nextText();
            await ws.text(`40{"token":"${ticket}"}`);
            equal((await ws.nextText()).slice(0, 3), answer, `EIO 4 whose 40 brings it, session ${session}`);
            ws.destroy();
        }
    });

    await check(`${where}: without a session it belongs to its address`, async () => {
        const ticket_id = issuer.ticket();
        equal(await come({ ticket_id }), 101, 'first use');
        equal(await come({ ticket_id }), 101, 'the same address again');
        const other = await Native.open(daemon.port, { query: { ticket_id }, localAddress: '127.0.0.9' }).catch((e) => e);
        equal(other.status, 401, 'another address');
    });

    await check(`${where}: after auth.reuse_window nobody gets in with it`, async () => {
        const ticket_id = issuer.ticket();
        equal(await come({ ticket_id, session: 'w' }), 101, 'first use');
        await new Promise((resolve) => setTimeout(resolve, 3100)); /* the window itself */
        equal(await come({ ticket_id, session: 'w' }), 401, 'after the window');
    });

    await check(`${where}: only after all other checks is it bound; without exp it is refused`, async () => {
        const ticket_id = issuer.ticket({ rooms: ['42'] });
        const wrong = await refusal(daemon.port, `/ws?room=43&session=x1&ticket_id=${ticket_id}`);
        equal(wrong.status, 403, 'a room that it does not allow');
        equal(await come({ ticket_id, session: 'x2' }), 101, 'another session: it was not bound');
        const endless = issuer.forge({ alg: 'HS256' }, { sub: 'a' }, 'HS256', Buffer.from(issuer.secret, 'base64'));
        equal(await come({ ticket_id: endless }), 401, 'without exp');
    });

    await check(`${where}: a refresh uses its ticket up too`, async () => {
        const viewer = await Native.open(daemon.port, { query: { ticket_id: issuer.ticket(), session: 'r' } });
        const ticket = issuer.ticket();
        equal((await viewer.request({ op: 'refresh', ticket })).op, 'ack', 'refresh');
        equal(await come({ ticket_id: ticket, session: 'thief' }), 401, 'another session');
        viewer.destroy();
    });

    await check(`${where}: Socket.IO clients that come back with the same URL get in`, async () => {
        for (const [io, version] of [
            [io2, '2'],
            [io4, '4'],
        ]) {
            const socket = io(`http://127.0.0.1:${daemon.port}`, {
                transports: ['websocket'],
                forceNew: true,
                reconnectionDelay: 50,
                reconnectionDelayMax: 50,
                query: { ticket_id: issuer.ticket({ sub: `sio${version}` }) },
            });
            const close = atEnd(() => socket.close());
            let times = 0;
            const twice = new Promise((resolve) =>
                socket.on('connect', () => {
                    if (++times === 2) resolve();
                    else socket.io.engine.close();
                }),
            );
            await within(twice, 5000, `client ${version} connected twice`);
            await close();
        }
    });

    if (!options.redis)
        await check('memory:: auth.marks bounds what is remembered', async () => {
            const tiny = await Halley.start({ workers: 1, set: { ...single, 'auth.marks': 2 } });
            const statuses = [];
            for (let i = 0; i < 3; i++) {
                const target = `/ws?ticket_id=${issuer.ticket({ sub: `m${i}` })}`;
                statuses.push(
                    await Native.open(tiny.port, { target }).then(
                        (viewer) => (viewer.destroy(), 101),
                        (error) => error.status,
                    ),
                );
            }
            equal(statuses, [101, 101, 503], 'statuses');
            equal(await tiny.metric('halley_ticket_marks'), 2, 'halley_ticket_marks');
            await tiny.stop();
        });
    await daemon.stop();
    issuer.checkLog(daemon.log, `the log of ${where}`);
}

await check('redis mode and single use together; two nodes know of each other’s uses', async () => {
    const set = { ...base, 'auth.mode': 'redis', 'auth.single_use': 'yes' };
    const nodes = [await Halley.start({ redis, set }), await Halley.start({ redis, set })];
    const id = await put();
    const viewer = await Native.open(nodes[0].port, { query: { ticket_id: id, session: 'a' } });
    equal((await refusal(nodes[1].port, `/ws?session=b&ticket_id=${id}`)).status, 401, 'another session elsewhere');
    const again = await Native.open(nodes[1].port, { query: { ticket_id: id, session: 'a' } });
    viewer.destroy();
    again.destroy();
    for (const node of nodes) await node.stop();
});

await check('Redis holds no JWT, and marks go with their tickets', async () => {
    const keys = await client.command('KEYS', 'halley:ticket:used:*');
    assert(keys.length > 5, `marks, got ${keys.length}`);
    for (const key of keys) {
        assert(/^halley:ticket:used:[0-9a-f]{64}$/.test(key), `a mark's name: ${key}`);
        const left = await client.command('PTTL', key);
        assert(left > 0 && left <= 320000, `a mark's life, got ${left}`);
    }
});

await check('Redis away: 503 with Retry-After; back: in again', async () => {
    const id = await put();
    await redis.kill();
    const answer = await until(async () => {
        const got = await refusal(store.port, `/ws?ticket_id=${id}`);
        return got.status === 503 && got;
    }, '503');
    assert(Number(answer.headers['retry-after']) >= 1, 'Retry-After');
    await redis.launch();
    const fresh = await RedisClient.connect(redis.port);
    await fresh.command('SET', `halley:ticket:${id}`, JSON.stringify({ sub: 'alice' }));
    const viewer = await until(() => view(id).catch(() => null), 'in again', 8000);
    equal(viewer.welcome.user, 'alice', 'user');
    viewer.destroy();
    fresh.close();
});

await check('no log holds a ticket', async () => {
    issuer.checkLog(store.log);
});

await finish();
