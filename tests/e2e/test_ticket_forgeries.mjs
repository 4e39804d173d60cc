#!/usr/bin/env node
// Ten thousand bad tickets of every kind, replays, forged fields, unknown and oversized types: each gets its documented answer, nothing
// of them reaches a room in which somebody really is, and no line of the daemon's whole log, at debug level, holds a ticket.

import crypto from 'node:crypto';

import { Halley, Native, WsRaw, assert, check, equal, finish, refusal, slowness } from './lib.mjs';
import { Issuer, now } from './lib_tickets.mjs';

const TICKETS = slowness > 1 ? 1400 : 10000;
const ROOM = 'watched';

const issuer = new Issuer();
const halley = await Halley.start({
    workers: 2,
    set: {
        'auth.mode': 'jwt',
        'auth.single_use': 'yes',
        'log.level': 'debug',
        'limits.viewer_rate': 10000,
        'limits.viewer_burst': 10000,
        'limits.bad_messages': 10000,
        'limits.refused_messages': 10000,
        ...issuer.keys,
    },
});
const { port } = halley;
const watcher = await Native.in(port, ROOM, { query: { ticket_id: issuer.ticket({ sub: 'watcher' }) } });

// ---- tickets

const claims = () => ({ sub: 'mallory', exp: now() + 300, join: [ROOM], jti: crypto.randomUUID() });
const secret = Buffer.from(issuer.secret, 'base64');
const cut = (token, at) => issuer.remember(token.slice(0, at < 0 ? token.length + at : Math.floor(token.length * at)));
const swap = (token, part, value) => issuer.remember(token.split('.').with(part, value).join('.'));

// Each kind makes a new ticket and names the reason under which it is counted.
const kinds = {
    'another secret': ['signature', () => issuer.forge({ alg: 'HS256', kid: 'hs' }, claims(), 'HS256', crypto.randomBytes(32))],
    'another EC key': ['signature', () => issuer.forge({ alg: 'ES256', kid: 'es' }, claims(), 'ES256', issuer.other.privateKey)],
    'HS256 signed with the RSA public key': [
        'algorithm',
        () => issuer.forge({ alg: 'HS256', kid: 'rs' }, claims(), 'HS256', Buffer.from(issuer.pem('rs'))),
    ],
    'HS256 signed with the EC public key, called ES256': [
        'signature',
        () => issuer.forge({ alg: 'ES256', kid: 'es' }, claims(), 'HS256', Buffer.from(issuer.pem('es'))),
    ],
    'the right key, called another algorithm': [
        'algorithm',
        () => issuer.forge({ alg: 'RS256', kid: 'hs' }, claims(), 'HS256', secret),
    ],
    none: ['algorithm', () => issuer.forge({ alg: 'none' }, claims(), 'none')],
    'none with a kid': ['algorithm', () => issuer.forge({ alg: 'NONE', kid: 'es' }, claims(), 'none')],
    'no signature': ['signature', () => issuer.forge({ alg: 'HS256', kid: 'hs' }, claims(), 'none')],
    'unknown kid': ['unknown_key', () => issuer.forge({ alg: 'HS256', kid: '../hs' }, claims(), 'HS256', secret)],
    crit: ['algorithm', () => issuer.forge({ alg: 'HS256', crit: ['exp'] }, claims(), 'HS256', secret)],
    expired: ['expired', () => issuer.ticket({ ...claims(), exp: now() - 60 })],
    'not yet valid': ['not_yet', () => issuer.ticket({ ...claims(), nbf: now() + 60 })],
    'cut in the signature': ['signature', () => cut(issuer.ticket(claims()), -3)],
    'cut in the middle': ['malformed', () => cut(issuer.ticket(claims()), 0.3)],
    'without its last part': ['malformed', () => issuer.remember(issuer.ticket(claims()).split('.').slice(0, 2).join('.'))],
    'other claims under the same signature': [
        'signature',
        () => swap(issuer.ticket(claims()), 1, Buffer.from(JSON.stringify({ ...claims(), sub: 'admin' })).toString('base64url')),
    ],
    'no base64url': ['malformed', () => issuer.remember(`${issuer.ticket(claims())}=`)],
    'no JSON': ['malformed', () => issuer.ticket('no JSON, signed')],
    'no user': ['claims', () => issuer.ticket({ ...claims(), sub: undefined })],
    'a user that is no name': ['claims', () => issuer.ticket({ ...claims(), sub: 'a"b' })],
    'rooms that are no list': ['claims', () => issuer.ticket({ ...claims(), rooms: ROOM })],
    random: ['malformed', () => issuer.remember(crypto.randomBytes(24).toString('hex'))],
};

// The five ways in, and how each of them says no.
const ways = [
    async (ticket) => {
        const answer = await refusal(port, `/ws?room=${ROOM}&ticket_id=${ticket}`);
        return `${answer.status} ${JSON.parse(answer.rest).error}`;
    },
    async (ticket) => {
        const answer = await refusal(port, `/ws?room=${ROOM}`, { headers: { Authorization: `Bearer ${ticket}` } });
        return `${answer.status} ${JSON.parse(answer.rest).error}`;
    },
    async (ticket) => {
        const ws = await WsRaw.open(port, `/ws?refuse=close&room=${ROOM}&ticket_id=${ticket}`);
        const { code, reason } = await ws.closing();
        return `${code - 4000} ${reason}`;
    },
    async (ticket) => {
        const ws = await WsRaw.open(port, `/socket.io/?transport=websocket&room=${ROOM}&ticket_id=${ticket}`);
        await ws.nextText();
        const text = await ws.nextText();
        const { code } = await ws.closing();
        return `${code - 4000} ${JSON.parse(text.slice(2))}`;
    },
    async (ticket) => {
        const ws = await WsRaw.open(port, `/socket.io/?EIO=4&transport=websocket&room=${ROOM}`);
        await ws.nextText();
        await ws.text(`40${JSON.stringify({ token: ticket })}`);
        const text = await ws.nextText();
        const { code } = await ws.closing();
        return `${code - 4000} ${JSON.parse(text.slice(2)).message}`;
    },
];

await check(
    `${TICKETS} bad tickets of ${Object.keys(kinds).length} kinds by ${ways.length} ways: each is refused in its words`,
    async () => {
        const names = Object.keys(kinds);
        const expected = {};
        let next = 0;
        const one = async () => {
            while (next < TICKETS) {
                const i = next++;
                const name = names[i % names.length];
                const [reason, make] = kinds[name];
                expected[reason] = (expected[reason] || 0) + 1;
                const got = await ways[Math.floor(i / names.length) % ways.length](make());
                equal(got, '401 ticket-invalid', `${name}, way ${Math.floor(i / names.length) % ways.length}`);
            }
        };
        await Promise.all(Array.from({ length: 32 }, one));
        for (const [reason, count] of Object.entries(expected))
            equal(await halley.metric('halley_tickets_total', `result="${reason}"`), count, `counted as ${reason}`);
        equal(await halley.metric('halley_tickets_total', 'result="ok"'), 1, 'tickets that were accepted: the watcher’s');
    },
    120000,
);

await check('replays: 500 stolen tickets of others let nobody in', async () => {
    for (let i = 0; i < 500 / slowness; i++) {
        const ticket = issuer.ticket({ sub: `victim${i}` });
        const owner = await Native.open(port, { query: { ticket_id: ticket, session: `own${i}` } });
        const thief = await refusal(port, `/ws?session=thief${i}&room=${ROOM}&ticket_id=${ticket}`);
        equal(thief.status, 401, 'the thief');
        owner.destroy();
    }
});

// ---- forged fields

await check('2,000 sends with forged fields, unknown, forbidden and oversized types: each its answer', async () => {
    const viewer = await Native.open(port, { query: { ticket_id: issuer.ticket({ sub: 'mallory', rooms: [ROOM], send: ['chat', 'gift', 'nope'] }) } });
    const outsider = await Native.open(port, { query: { ticket_id: issuer.ticket({ sub: 'outsider', rooms: ['elsewhere'] }) } });
    await viewer.join(ROOM);
    equal((await outsider.request({ op: 'join', room: ROOM })).code, 'forbidden', 'a join that the ticket does not allow');
    const send = { op: 'send', room: ROOM, data: 'forged' };
    const cases = [
        [viewer, { ...send, type: 'gift' }, 'forbidden'],
        [viewer, { ...send, type: 'system' }, 'forbidden'],
        [viewer, { ...send, type: 'nope' }, 'unknown-type'],
        [viewer, { ...send, type: 'halley' }, 'bad-name'],
        [viewer, { ...send, type: 'Chat' }, 'bad-name'],
        [viewer, { ...send, type: ['chat'] }, 'bad-name'],
        [viewer, { ...send, type: 'x'.repeat(33) }, 'bad-name'],
        [viewer, { ...send, type: 'chat', data: 'x'.repeat(17000) }, 'too-large'],
        [viewer, { ...send, type: 'chat', room: 'elsewhere' }, 'not-in-room'],
        [viewer, { ...send, type: 'chat', key: 'k1' }, 'bad-message'],
        [outsider, { ...send, type: 'chat' }, 'not-in-room'],
        [outsider, { ...send, type: 'chat', from: 'watcher', sub: 'watcher', user: 'watcher' }, 'not-in-room'],
    ];
    for (let i = 0; i < 2000 / slowness; i++) {
        const [who, message, code] = cases[i % cases.length];
        const answer = await who.request(message);
        equal([answer.op, answer.code], ['error', code], JSON.stringify(message).slice(0, 80));
    }
    const forged = { from: 'watcher', id: 'h.forged.1', type2: 'gift', lane: 'high', user: 'watcher', user_id: 1 };
    equal((await viewer.request({ ...send, type: 'chat', data: 'mine', ...forged })).op, 'ack', 'a send that is allowed');
    equal(
        (await watcher.message()).$text,
        `{"type":"chat","room":"${ROOM}","from":"mallory","data":"mine"}`,
        'what arrives is the user’s own, and nothing came before it',
    );
    await viewer.alive();
    await outsider.alive();
    viewer.destroy();
    outsider.destroy();
});

// ---- what must not have happened

await check('nothing reached the room, and the log holds no ticket', async () => {
    await watcher.alive();
    equal(watcher.received.filter((m) => m.type).length, 0, 'messages that the watcher got');
    const room = await halley.http('GET', `/v1/rooms/${ROOM}`);
    equal(room.json.viewers, 1, 'viewers of the room: the watcher alone');
    assert(halley.log.split('\n').length > 20, 'there is a log');
    issuer.checkLog(halley.log);
    assert(issuer.made.size > TICKETS, `looked for ${issuer.made.size} tickets`);
    console.log(`# ${issuer.made.size} tickets looked for in ${halley.log.split('\n').length} lines of log`);
});

await finish();
