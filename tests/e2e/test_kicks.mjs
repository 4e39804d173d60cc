#!/usr/bin/env node
// A kick meets who is not there yet: viewers that wait for their CONNECT, and tickets that are still being asked about.

import { createRequire } from 'node:module';
import net from 'node:net';

import { Halley, Native, Redis, WsRaw, assert, atEnd, check, equal, finish, freePort, refusal, until, within } from './lib.mjs';
import { Issuer, now } from './lib_tickets.mjs';

const require = createRequire(import.meta.url);
const issuer = new Issuer();
const redis = await Redis.start();
let ids = 0;

// Between node and Redis. While held, answers to commands stay here; subscriptions flow, so that a kick overtakes them.
class Between {
    static async start() {
        const self = new Between();
        self.port = await freePort();
        self.holding = false;
        self.links = new Set();
        const server = net.createServer((near) => self.link(near));
        await new Promise((resolve) => server.listen(self.port, '127.0.0.1', resolve));
        atEnd(() => {
            for (const { near, far } of self.links) near.destroy(), far.destroy();
            server.close();
        });
        return self;
    }

    link(near) {
        const far = net.connect({ port: redis.port, host: '127.0.0.1', noDelay: true });
        const link = { near, far, subscribes: false, held: [] };
        this.links.add(link);
        near.setNoDelay(true);
        near.on('data', (data) => {
            if (/SUBSCRIBE/i.test(data.toString('latin1'))) link.subscribes = true;
            far.write(data);
        });
        far.on('data', (data) => (this.holding && !link.subscribes ? link.held.push(data) : near.write(data)));
        for (const [from, to] of [[near, far], [far, near]]) {
            from.on('close', () => to.destroy());
            from.on('error', () => to.destroy());
        }
    }

    hold() {
        this.holding = true;
    }

    release() {
        this.holding = false;
        for (const link of this.links) for (const data of link.held.splice(0)) link.near.write(data);
    }
}

const between = await Between.start();
const base = { 'presence.enabled': 'no', 'auth.timeout': '20s', 'broker.reply_timeout': '25s', 'limits.head_timeout': '30s' };
const start = (name, set = {}) =>
    Halley.start({ name, workers: 1, set: { ...base, 'server.node': name, 'broker.url': `redis://127.0.0.1:${between.port}`, ...set } });
const [opaque, jwt, once] = await Promise.all([
    start('opaque', { 'auth.mode': 'redis' }),
    start('jwt', { 'auth.mode': 'jwt', ...issuer.keys }),
    start('once', { 'auth.mode': 'jwt', 'auth.single_use': 'yes', ...issuer.keys }),
]);
const open = await start('open');

async function put(user, claims = {}) {
    const id = issuer.remember(`${(++ids).toString().padStart(8, '0')}c175508edfcd3d1db3b7bc8008d`);
    await redis.command('SET', `halley:ticket:${id}`, JSON.stringify({ sub: user, exp: now() + 300, ...claims }), 'EX', 300);
    return id;
}

const kick = (user) => redis.publish('halley:users', { op: 'kick', user });
const waiting = (node, count) => until(async () => (await node.metric('halley_tickets_waiting')) === count, `${count} tickets wait`);
const kicks = (node) => node.metric('halley_orders_total', 'op="kick"');

// Kicks the user while fn's tickets wait, and lets the answers go when every node has the kick.
async function kickWhile(node, count, users, fn, later) {
    between.hold();
    try {
        const before = await kicks(node);
        const answers = fn();
        await waiting(node, count);
        for (const user of users) await kick(user);
        await until(async () => (await kicks(node)) === before + users.length, 'the kick came');
        // The worker has it too: it answers questions in order.
        await node.http('GET', '/v1/rooms/none');
        const more = later ? later() : null;
        if (later) await waiting(node, count + 1);
        between.release();
        return [await answers, await more];
    } finally {
        between.release();
    }
}

const engine4 = async (node, query) => {
    const ws = await WsRaw.open(node.port, `/socket.io/?EIO=4&transport=websocket${query}`);
    await ws.nextText('open packet');
    return ws;
};

for (const [what, node, query] of [
    ['a user of the query', open, () => '&user=alice'],
    ['a ticket of the query', jwt, () => `&ticket_id=${issuer.ticket({ sub: 'alice' })}`],
]) {
    await check(`Engine.IO 4, before the 40, with ${what}: 41 and 4010`, async () => {
        const [alice, bob] = [await engine4(node, query()), await engine4(node, query().replace('alice', 'bob'))];
        const connections = async () => (await node.http('GET', '/v1/users/alice/connections')).json.count;
        equal(await connections(), 0, 'not counted as a connection yet');
        const answer = await node.http('DELETE', '/v1/users/alice/connections');
        equal(answer.json.kicked, node === jwt ? 2 : 1, 'kicked');
        equal(await alice.nextText(), '41', 'what comes');
        equal((await alice.closing()).code, 4010, 'close');
        if (node === open) {
            await bob.text('40');
            assert((await bob.nextText()).startsWith('40{"sid"'), 'bob connects');
        }
        bob.destroy();
        const back = await engine4(node, query());
        await back.text('40');
        assert((await back.nextText()).startsWith('40{"sid"'), 'alice may come back');
        await until(async () => (await connections()) === 1, 'one connection');
        back.destroy();
    });
}

await check('Engine.IO 4, before the 40, a guest: under the name that his sid gives him', async () => {
    const [alice, bob] = [await WsRaw.open(open.port, '/socket.io/?EIO=4&transport=websocket'), await engine4(open, '')];
    const { sid } = JSON.parse((await alice.nextText('open packet')).slice(1));
    const path = `/v1/users/guest-${sid}/connections`;
    equal((await open.http('GET', path)).json.count, 0, 'not counted as a connection yet');
    equal((await open.http('DELETE', path)).json.kicked, 1, 'kicked');
    equal(await alice.nextText(), '41', 'what comes');
    equal((await alice.closing()).code, 4010, 'close');
    await bob.text('40');
    assert((await bob.nextText()).startsWith('40{"sid"'), 'another guest connects');
    bob.destroy();
});

await check('a real client that waits for its 40 stays away', async () => {
    const events = [];
    const before = await open.metric('halley_closes_total', 'reason="kicked"');
    const kicked = () => until(async () => (await open.metric('halley_closes_total', 'reason="kicked"')) > before, 'kicked');
    const socket = require('socket.io-client').io(`http://127.0.0.1:${open.port}`, {
        transports: ['websocket'],
        forceNew: true,
        query: { user: 'rita' },
        // Its 40 waits for this.
        auth: (send) => kick('rita').then(kicked).then(send),
    });
    atEnd(() => socket.close());
    for (const event of ['connect', 'disconnect', 'connect_error']) socket.on(event, () => events.push(event));
    await kicked();
    await until(async () => (await open.viewers()) === 0, 'gone');
    // It would come back after 1 s at most: another client whose connection is only cut does so, twice.
    const other = require('socket.io-client').io(`http://127.0.0.1:${open.port}`, { transports: ['websocket'], forceNew: true, query: { user: 'sam' } });
    atEnd(() => other.close());
    const connected = () => within(new Promise((resolve) => other.once('connect', resolve)), 10000, 'the other client');
    await connected();
    for (let i = 0; i < 2; i++) {
        const again = connected();
        other.io.engine.close();
        await again;
    }
    assert(!events.includes('connect'), `events: ${events}`);
    equal(await open.viewers(), 1, 'viewers: the other client');
    other.close();
    socket.close();
});

await check('a ticket that is looked up when its user is kicked does not let him in; another user and a later ticket do', async () => {
    const tickets = await Promise.all(['alice', 'alice', 'alice', 'alice', 'alice', 'bob', 'alice'].map((user) => put(user)));
    const path = (ticket, more = '') => `/ws?ticket_id=${ticket}${more}`;
    const [[native, browser, three, four, late, bob], after] = await kickWhile(
        opaque,
        6,
        ['alice'],
        () =>
            Promise.all([
                refusal(opaque.port, path(tickets[0]), { ms: 20000 }),
                WsRaw.open(opaque.port, path(tickets[1], '&refuse=close'), { ms: 20000 }),
                WsRaw.open(opaque.port, `/socket.io/?transport=websocket&ticket_id=${tickets[2]}`, { ms: 20000 }),
                WsRaw.open(opaque.port, `/socket.io/?EIO=4&transport=websocket&ticket_id=${tickets[3]}`, { ms: 20000 }),
                engine4(opaque, '').then(async (ws) => {
                    await ws.text(`40{"token":"${tickets[4]}"}`);
                    return [await ws.nextText('44', 20000), await ws.closing()];
                }),
                Native.open(opaque.port, { query: { ticket_id: tickets[5] }, ms: 20000 }),
            ]),
        () => Native.open(opaque.port, { query: { ticket_id: tickets[6] }, ms: 20000 }),
    );
    equal([native.status, native.json.error], [403, 'forbidden'], 'native');
    equal(JSON.parse(await browser.nextText()), { op: 'goodbye', reason: 'forbidden' }, 'refuse=close');
    equal((await browser.closing()).code, 4403, 'its close');
    await three.nextText('open packet');
    equal(await three.nextText(), '44"kicked"', 'EIO 3');
    await four.nextText('open packet');
    await four.text('40');
    equal(await four.nextText(), '44{"message":"kicked"}', 'EIO 4');
    equal([late[0], late[1].code], ['44{"message":"kicked"}', 4403], 'EIO 4, the ticket in its 40');
    equal([bob.welcome.user, after.welcome.user], ['bob', 'alice'], 'who gets in');
    equal(await opaque.metric('halley_tickets_total', 'result="kicked"'), 5, 'halley_tickets_total{result="kicked"}');
    equal(await opaque.metric('halley_kicks_remembered'), 0, 'nothing is remembered behind it');
    for (const each of [browser, three, four, bob, after]) each.destroy();
});

await check('a signed ticket for single use, which is being marked as used: the same', async () => {
    const ask = (user) => refusal(once.port, `/ws?ticket_id=${issuer.ticket({ sub: user })}`, { ms: 20000 });
    const [[alice, bob]] = await kickWhile(once, 2, ['alice'], () => Promise.all([ask('alice'), ask('bob')]));
    equal([alice.status, bob.status], [403, 101], 'alice and bob');
});

await check('no ticket waits: nothing is remembered', async () => {
    const before = await kicks(jwt);
    await kick('alice');
    await until(async () => (await kicks(jwt)) === before + 1, 'the kick came');
    equal([await jwt.metric('halley_kicks_remembered'), await opaque.metric('halley_kicks_remembered')], [0, 0], 'halley_kicks_remembered');
});

await check('past auth.kicks who waited is answered 503, and may come back at once', async () => {
    const small = await start('small', { 'auth.mode': 'redis', 'auth.kicks': 1 });
    const ticket = await put('alice');
    const [[alice, carol]] = await kickWhile(small, 2, ['bob', 'carol'], () =>
        Promise.all([refusal(small.port, `/ws?ticket_id=${ticket}`, { ms: 20000 }), put('carol').then((id) => refusal(small.port, `/ws?ticket_id=${id}`, { ms: 20000 }))]),
    );
    equal([alice.status, carol.status], [503, 403], 'alice, who was not kicked, and carol');
    equal(await small.metric('halley_kicks_forgotten_total'), 1, 'halley_kicks_forgotten_total');
    const back = await within(Native.open(small.port, { query: { ticket_id: ticket } }), 5000, 'alice again');
    equal(back.welcome.user, 'alice', 'user');
    back.destroy();
    await small.stop();
});

await finish();
