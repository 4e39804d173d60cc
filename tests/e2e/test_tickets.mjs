#!/usr/bin/env node
// Tickets that carry their claims (auth.mode = jwt): who gets in, what viewers are told, what a ticket allows, its end and its renewal.

import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { Halley, Native, OP, WsRaw, assert, atEnd, check, equal, finish, halleyBin, refusal, root, run, slowness, until, within } from './lib.mjs';
import { Issuer, now } from './lib_tickets.mjs';

const require = createRequire(import.meta.url);
const clients = {
    '1.7.4': require('socket.io-client-1'),
    '2.5.0': require('socket.io-client-2'),
    4: require('socket.io-client').io,
};

const issuer = new Issuer();
const halley = await Halley.start({
    workers: 2,
    set: {
        'auth.mode': 'jwt',
        'auth.grace': '1s',
        'presence.enabled': 'no', // frames are taken one by one
        'log.level': 'debug',
        'limits.viewer_rate': 1000,
        'limits.viewer_burst': 1000,
        ...issuer.keys,
    },
});
const { port } = halley;
const open = (claims, options = {}) =>
    Native.open(port, { ...options, query: { ...options.query, ticket_id: issuer.ticket(claims) } });

// ---- the handshake

for (const alg of ['HS256', 'RS256', 'ES256']) {
    await check(`${alg}: the viewer is the ticket's user, whatever the query says`, async () => {
        const ticket_id = issuer.ticket({ sub: 'alice' }, alg);
        const viewer = await Native.open(port, { user: 'mallory', query: { ticket_id } });
        equal(viewer.welcome.user, 'alice', 'user');
        viewer.destroy();
        const bearer = await Native.open(port, { headers: { Authorization: `Bearer ${issuer.ticket({}, alg)}` } });
        equal(bearer.welcome.user, 'alice', 'user by Authorization: Bearer');
        bearer.destroy();
    });
}

await check('a query user that is no name does not matter under tickets', async () => {
    const viewer = await Native.open(port, { query: { user: 'a"b', ticket_id: issuer.ticket() } });
    equal(viewer.welcome.user, 'alice', 'user');
    viewer.destroy();
});

await check('no ticket, a bad one, an expired one: 401 with the same words', async () => {
    for (const query of ['', `?ticket_id=`, `?ticket_id=nonsense`, `?ticket_id=${issuer.ticket({ exp: now() - 60 })}`]) {
        const answer = await refusal(port, `/ws${query}`);
        equal(answer.status, 401, `status of /ws${query.slice(0, 20)}`);
        equal(JSON.parse(answer.rest).error, 'ticket-invalid', 'error');
        equal(answer.headers['www-authenticate'], 'Bearer', 'WWW-Authenticate');
    }
});

await check('refuse=close: 101, goodbye, 4401', async () => {
    const ws = await WsRaw.open(port, '/ws?refuse=close&ticket_id=x.y.z');
    const goodbye = JSON.parse(await ws.nextText('goodbye'));
    equal([goodbye.op, goodbye.reason], ['goodbye', 'ticket-invalid'], 'goodbye');
    assert(goodbye.retry_after_ms >= 1000, 'it says when to come back');
    equal((await ws.closing()).code, 4401, 'close code');
    ws.destroy();
});

await check('a query room that the ticket does not allow: 403, and 4403 with refuse=close', async () => {
    const ticket = issuer.ticket({ rooms: ['42', 'team-*'] });
    const answer = await refusal(port, `/ws?room=42&room=43&ticket_id=${ticket}`);
    equal([answer.status, JSON.parse(answer.rest).error], [403, 'forbidden'], 'answer');
    const ws = await WsRaw.open(port, `/ws?refuse=close&room=43&ticket_id=${ticket}`);
    equal(JSON.parse(await ws.nextText()).reason, 'forbidden', 'goodbye');
    equal((await ws.closing()).code, 4403, 'close code');
    ws.destroy();
    const viewer = await open({ rooms: ['42', 'team-*'] }, { rooms: ['42', 'team-7'] });
    await viewer.notice('joined');
    await viewer.notice('joined');
    viewer.destroy();
});

// ---- what a ticket allows

await check('rooms: a join that the ticket does not allow is `forbidden`, the connection lives', async () => {
    const viewer = await open({ rooms: ['42', 'team-*'] });
    for (const room of ['42', 'team-', 'team-9']) await viewer.join(room);
    for (const room of ['4', '421', 'team', 'x']) {
        const answer = await viewer.request({ op: 'join', room });
        equal([answer.op, answer.code], ['error', 'forbidden'], `join ${room}`);
    }
    await viewer.alive();
    viewer.destroy();
});

await check('join: its rooms are entered at connect, beside those of the query and without being in `rooms`', async () => {
    const viewer = await open({ rooms: ['42'], join: ['lobby', '42'] }, { rooms: ['42'] });
    const joined = [(await viewer.notice('joined')).room, (await viewer.notice('joined')).room].sort();
    equal(joined, ['42', 'lobby'], 'rooms');
    await viewer.request({ op: 'leave', room: 'lobby' });
    await viewer.join('lobby');
    equal(viewer.received.filter((m) => m.op === 'joined').length, 0, 'no room is told twice');
    viewer.destroy();
});

await check('send: only the types of the list, of those that the conf lets viewers send', async () => {
    const may = await open({ send: ['chat', 'gift'], join: ['s'] });
    const mayNot = await open({ sub: 'bob', send: [], join: ['s'] });
    await may.notice('joined');
    await mayNot.notice('joined');
    equal((await mayNot.request({ op: 'send', room: 's', type: 'chat' })).code, 'forbidden', 'an empty list');
    equal((await may.request({ op: 'send', room: 's', type: 'gift' })).code, 'forbidden', 'not by the conf');
    equal((await may.request({ op: 'send', room: 's', type: 'chat', data: 1 })).op, 'ack', 'chat');
    equal((await mayNot.message('chat')).from, 'alice', 'from');
    may.destroy();
    mayNot.destroy();
});

await check('from, id and user can not be forged', async () => {
    const [alice, bob] = [await open({ join: ['f'] }), await open({ sub: 'bob', join: ['f'] })];
    await alice.notice('joined');
    await bob.notice('joined');
    const forged = { from: 'admin', id: 'h.x.1', user: 'admin', sub: 'admin', op2: 'x' };
    equal((await bob.request({ op: 'send', room: 'f', type: 'chat', data: 'hi', ...forged })).op, 'ack', 'answer');
    const message = await alice.message('chat');
    equal(message.$text, '{"type":"chat","room":"f","from":"bob","data":"hi"}', 'the message');
    alice.destroy();
    bob.destroy();
});

// ---- Socket.IO

const raw = (query) => WsRaw.open(port, `/socket.io/?transport=websocket${query}`);

await check('EIO 3: open packet, then 44"ticket-invalid" in place of 40, then close', async () => {
    for (const query of ['', '&ticket_id=bad', '&EIO=3&ticket_id=bad']) {
        const ws = await raw(query);
        equal((await ws.nextText('open packet'))[0], '0', 'open packet');
        equal(await ws.nextText('44'), '44"ticket-invalid"', 'second packet');
        equal((await ws.closing()).code, 4401, 'close');
        ws.destroy();
    }
    const ws = await raw(`&room=43&ticket_id=${issuer.ticket({ rooms: ['42'] })}`);
    await ws.nextText();
    equal(await ws.nextText(), '44"room-forbidden"', 'a room that it does not allow');
    ws.destroy();
});

await check('EIO 4: open packet; 44{"message":"ticket-invalid"} in answer to 40, then close', async () => {
    for (const [query, connect] of [
        ['&ticket_id=bad', '40'],
        ['&ticket_id=bad', `40{"token":"${issuer.ticket()}"}`],
        ['', '40'],
        ['', '40{"token":"bad"}'],
        ['', '40{"token":7}'],
    ]) {
        const viewer = await raw(`&EIO=4${query}`);
        await viewer.nextText('open packet');
        await viewer.text(connect);
        equal(await viewer.nextText('44'), '44{"message":"ticket-invalid"}', `answer to ${connect.slice(0, 20)}`);
        equal((await viewer.closing()).code, 4401, 'close');
        viewer.destroy();
    }
});

await check('EIO 4 without ticket_id: the ticket comes with the 40; rooms of query and ticket take effect there', async () => {
    const ws = await raw('&EIO=4&room=42');
    await ws.nextText('open packet');
    await ws.text(`40{"token":"${issuer.ticket({ rooms: ['42'], join: ['lobby'] })}"}`);
    assert((await ws.nextText()).startsWith('40{"sid":'), 'connected');
    const rooms = [await ws.nextText(), await ws.nextText()].map((text) => JSON.parse(text.slice(2))[1].room);
    equal(rooms.sort(), ['42', 'lobby'], 'rooms');
    await ws.text('420["join","43"]');
    equal(JSON.parse((await ws.nextText()).slice(3))[0].code, 'forbidden', 'join of another room');
    ws.destroy();
    const other = await raw('&EIO=4&room=43');
    await other.nextText('open packet');
    await other.text(`40{"token":"${issuer.ticket({ rooms: ['42'] })}"}`);
    equal(await other.nextText(), '44{"message":"room-forbidden"}', 'a query room that it does not allow');
    equal((await other.closing()).code, 4403, 'close');
    other.destroy();
});

await check('EIO 4: a ticket with JSON escapes in the 40 or a refresh is read, a bad one of whatever length answered', async () => {
    const escaped = (token) => token.replace(/e/g, '\\u0065');
    const ws = await raw('&EIO=4');
    await ws.nextText('open packet');
    await ws.text(`40{"token":"${escaped(issuer.ticket())}"}`);
    assert((await ws.nextText()).startsWith('40{"sid":'), 'connected');
    await ws.text(`421["refresh",{"ticket":"${escaped(issuer.ticket())}"}]`);
    equal(await ws.nextText(), '431[{"ok":true}]', 'refresh');
    ws.destroy();
    for (const token of [`${'x'.repeat(63)}\\/`, `${'x'.repeat(64)}\\/`, `${'\\/'.repeat(9000)}`, `${'x'.repeat(70)}\\ud800`]) {
        const viewer = await raw('&EIO=4');
        await viewer.nextText('open packet');
        await viewer.text(`40{"token":"${token}"}`);
        equal(await viewer.nextText('44'), '44{"message":"ticket-invalid"}', `answer to ${token.length} characters`);
        viewer.destroy();
    }
});

for (const [version, io] of Object.entries(clients)) {
    await check(`client ${version}: an app that names no room is served by the ticket's join`, async () => {
        const socket = io(`http://127.0.0.1:${port}`, {
            transports: ['websocket'],
            forceNew: true,
            query: { ticket_id: issuer.ticket({ join: [`old-${version}`] }) },
        });
        const close = atEnd(() => socket.close());
        const got = new Promise((resolve) => socket.on('chat', resolve));
        await within(new Promise((resolve) => socket.on('halley', (n) => n.op === 'joined' && resolve())), 5000, 'joined');
        await halley.publish(`old-${version}`, { type: 'chat', data: { a: 1 } });
        equal((await within(got, 5000, 'the message')).data, { a: 1 }, 'data');
        await close();
    });
    await check(`client ${version}: a bad ticket is told as an error of the connection`, async () => {
        const socket = io(`http://127.0.0.1:${port}`, {
            transports: ['websocket'],
            forceNew: true,
            reconnection: false,
            query: { ticket_id: 'bad' },
        });
        const close = atEnd(() => socket.close());
        const error = await within(
            new Promise((resolve) => {
                socket.on('error', resolve);
                socket.on('connect_error', resolve);
            }),
            5000,
            'an error',
        );
        assert(String(error.message || error).includes('ticket-invalid'), `the error, got ${error.message || error}`);
        await close();
    });
}

await check('client 4: auth: { token } is taken', async () => {
    const socket = clients[4](`http://127.0.0.1:${port}`, {
        transports: ['websocket'],
        forceNew: true,
        auth: { token: issuer.ticket({ join: ['a4'] }) },
    });
    const close = atEnd(() => socket.close());
    await within(new Promise((resolve) => socket.on('connect', resolve)), 5000, 'connect');
    await close();
});

// ---- its end and its renewal

await check('an expired ticket: goodbye and 4001 after auth.grace, not before', async () => {
    const exp = now() + 1;
    const viewer = await open({ exp });
    const goodbye = await viewer.notice('goodbye', 6000);
    assert(Date.now() >= (exp + 1) * 1000, 'not before exp and grace');
    equal(goodbye.reason, 'ticket-expired', 'reason');
    equal((await viewer.closing()).code, 4001, 'close code');
    viewer.destroy();
});

await check('a message that is never finished does not put off the end of a ticket', async () => {
    const node = await Halley.start({
        workers: 1,
        set: { 'auth.mode': 'jwt', 'auth.grace': '1s', 'heartbeat.interval': '5s', ...issuer.keys },
    });
    const exp = now() + 6;
    const target = `/socket.io/?EIO=4&transport=websocket&ticket_id=${issuer.ticket({ exp })}`;
    const ws = await WsRaw.open(node.port, target);
    ws.text('40');
    await ws.next((f) => f.payload.toString().startsWith('40'), 'the answer to 40');
    ws.send({ fin: false, opcode: OP.text, payload: '42["send",' });
    await ws.next((f) => f.payload.toString() === '2', 'a ping, at which all that may be late is looked at', 7000);
    await ws.closing('the end of its ticket', 8000);
    const late = Date.now() - (exp + 1) * 1000;
    assert(late >= 0 && late < 1500 * slowness, `closed ${late} ms after exp and grace`);
    await node.stop();
});

await check('refresh renews: the viewer outlives its first ticket, with the rights of the second', async () => {
    const viewer = await open({ exp: now() + 1, join: ['r1', 'r2'], rooms: ['r3'] });
    await viewer.notice('joined');
    await viewer.notice('joined');
    const ticket = issuer.ticket({ rooms: ['r1'], send: [], exp: now() + 100 });
    equal((await viewer.request({ op: 'refresh', ticket })).op, 'ack', 'answer');
    const left = await viewer.notice('error');
    equal([left.code, left.room], ['forbidden', 'r2'], 'the room that is not allowed any more is left');
    equal((await viewer.request({ op: 'join', room: 'r3' })).code, 'forbidden', 'old rights are gone');
    equal((await viewer.request({ op: 'send', room: 'r1', type: 'chat' })).code, 'forbidden', 'send too');
    // Nothing is to happen: one whose ticket ends later, and who does not renew it, is gone before.
    const other = await open({ exp: now() + 2 });
    equal((await other.closing('the end of the other ticket', 10000)).code, 4001, 'close code of the other viewer');
    await viewer.alive();
    viewer.destroy();
});

await check('refresh with a bad ticket or another user’s is refused; the old one stands', async () => {
    const viewer = await open({ rooms: ['k'] });
    for (const ticket of [
        issuer.ticket({ sub: 'bob' }),
        issuer.ticket({ exp: now() - 60 }),
        issuer.ticket().slice(0, -4),
        'x',
    ]) {
        const answer = await viewer.request({ op: 'refresh', ticket });
        equal([answer.op, answer.code], ['error', 'forbidden'], 'answer');
    }
    equal((await viewer.request({ op: 'refresh' })).code, 'bad-message', 'without a ticket');
    await viewer.join('k');
    viewer.destroy();
});

await check('refresh with a ticket that runs out soon brings the end nearer', async () => {
    const viewer = await open({ exp: now() + 3000 });
    equal((await viewer.request({ op: 'refresh', ticket: issuer.ticket({ exp: now() + 1 }) })).op, 'ack', 'answer');
    await viewer.notice('goodbye', 6000);
    equal((await viewer.closing()).code, 4001, 'close code');
    viewer.destroy();
});

// ---- operators

await check('docs/operations.md: its tickets in Node and Python let their user in', async () => {
    const text = fs.readFileSync(path.join(root, 'docs/operations.md'), 'utf8');
    const part = text.slice(text.indexOf('### Tickets'), text.indexOf('## Command line'));
    const secret = crypto.randomBytes(32).toString('base64');
    const daemon = await Halley.start({ set: { 'auth.mode': 'jwt', 'key.main.secret': `base64:${secret}` } });
    for (const [language, command] of [
        ['js', ['node', '-e']],
        ['python', ['python3', '-c']],
    ]) {
        const code = new RegExp(`\\n\`\`\`${language}\\n([^]*?)\`\`\``).exec(part)[1];
        assert(code.trim().split('\n').length <= 6, `${language}: five lines or little more`);
        const made = await run('env', [`HALLEY_TICKET_SECRET=base64:${secret}`, ...command, code]);
        equal(made.code, 0, `${language}: exit code, stderr: ${made.stderr}`);
        const viewer = await Native.open(daemon.port, { query: { ticket_id: issuer.remember(made.stdout.trim()) } });
        equal(viewer.welcome.user, 'alice', `${language}: user`);
        equal((await viewer.notice('joined')).room, '42', `${language}: its room`);
        viewer.destroy();
    }
    await daemon.stop();
});

await check('metrics say what became of tickets, the log says why, and holds none', async () => {
    for (const result of ['ok', 'missing', 'malformed', 'expired', 'room', 'other_user'])
        assert((await halley.metric('halley_tickets_total', `result="${result}"`)) > 0, `result ${result}`);
    assert((await halley.metric('halley_handshakes_total', 'result="ticket"')) > 0, 'handshakes refused');
    assert((await halley.metric('halley_handshakes_total', 'result="forbidden"')) > 0, 'handshakes forbidden');
    assert((await halley.metric('halley_closes_total', 'reason="ticket_expired"')) > 0, 'closes');
    assert(/ticket refused .*reason=expired/.test(halley.log), 'the log names the reason');
    issuer.checkLog(halley.log);
    equal(await until(async () => (await halley.metric('halley_memory_bytes', 'kind="tickets"')) === 0, 'rights are given back'), true, 'memory');
});

await check('/v1/config hides secrets; -t tells of a bad key with file and line', async () => {
    const config = await halley.http('GET', '/v1/config');
    assert(!config.text.includes(issuer.secret), 'the secret is hidden');
    equal(config.json.key.hs.secret, '***', 'secret');
    equal(config.json.key.es.file, issuer.files.es, 'file');
    const bad = await run(halleyBin, ['-t', '-o', 'auth.mode=jwt']);
    equal(bad.code, 78, 'exit code of jwt without keys');
    const memory = await run(halleyBin, ['-t', '-o', 'auth.mode=redis']);
    equal(memory.code, 78, 'exit code of redis with memory:');
    assert(memory.stderr.includes('broker.url'), 'it says what to do');
});

await check('SIGHUP from open to jwt: who waits for its 40 needs a ticket, and is its user from then on', async () => {
    const conf = `${issuer.folder}/open.conf`;
    fs.writeFileSync(conf, 'server { workers = 1 }\nauth { mode = open }\n');
    const daemon = await Halley.start({ conf, env: { SECRET: `base64:${issuer.secret}` } });
    const wait = async (session) => {
        const ws = await WsRaw.open(daemon.port, `/socket.io/?EIO=4&transport=websocket&user=alice-of-the-query&session=${session}`);
        await ws.nextText('open packet');
        return ws;
    };
    const [good, bad, gone] = [await wait('s1'), await wait('s2'), await wait('s3')];
    fs.writeFileSync(conf, 'server { workers = 1 }\nauth { mode = jwt }\nkey hs { secret = "${SECRET}" }\n');
    daemon.child.kill('SIGHUP');
    await until(async () => (await refusal(daemon.port, '/ws').catch(() => null))?.status === 401, 'tickets are asked for');
    await good.text(`40{"token":"${issuer.ticket({ sub: 'bob' })}"}`);
    assert((await good.nextText()).startsWith('40{"sid":'), 'connected');
    await bad.text('40');
    equal(await bad.nextText(), '44{"message":"ticket-invalid"}', 'without a ticket');
    gone.destroy();
    const of = async (user) => (await daemon.http('GET', `/v1/users/${user}/connections`)).json;
    equal([(await of('bob')).connections.map((c) => c.session), (await of('alice-of-the-query')).count], [['s1'], 0], 'connections');
    equal((await daemon.stop()).code, 0, 'exit code');
});

await check('SIGHUP: a new key for new connections; the old one’s viewers stay', async () => {
    const conf = `${issuer.folder}/halley.conf`;
    const write = (keys) =>
        fs.writeFileSync(
            conf,
            `server { workers = 1 }\nauth { mode = jwt }\n${keys.map((k) => `key ${k} { secret = "\${SECRET_${k}}" }\n`).join('')}`,
        );
    const secrets = { a: crypto.randomBytes(24).toString('hex'), b: crypto.randomBytes(24).toString('hex') };
    const make = (kid) =>
        issuer.forge({ alg: 'HS256', kid }, { sub: 'u', exp: now() + 100 }, 'HS256', Buffer.from(secrets[kid]));
    write(['a']);
    const daemon = await Halley.start({ conf, env: { SECRET_a: secrets.a, SECRET_b: secrets.b } });
    const first = await Native.open(daemon.port, { query: { ticket_id: make('a') } });
    equal((await refusal(daemon.port, `/ws?ticket_id=${make('b')}`)).status, 401, 'b is not known yet');
    write(['b']);
    daemon.child.kill('SIGHUP');
    await daemon.waitLog(/conf reloaded/);
    const second = await until(
        () => Native.open(daemon.port, { query: { ticket_id: make('b') } }).catch(() => null),
        'b gets in',
    );
    equal((await refusal(daemon.port, `/ws?ticket_id=${make('a')}`)).status, 401, 'a is gone');
    await first.alive();
    fs.writeFileSync(conf, 'auth { mode = jwt }\nkey c { secret = short }\n');
    const from = daemon.log.length;
    daemon.child.kill('SIGHUP');
    await daemon.waitLog(/reload refused.*halley\.conf:2: key\.c\.secret/, 5000, from);
    const third = await Native.open(daemon.port, { query: { ticket_id: make('b') } });
    for (const viewer of [first, second, third]) viewer.destroy();
    await daemon.stop();
    issuer.checkLog(daemon.log);
});

await finish();
