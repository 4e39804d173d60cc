#!/usr/bin/env node
// Intervals that grow while a network holds, fall when a silent connection was forgotten, and stay short where that is asked for.
//
// All viewers here come from 127.0.0.0/24; `net` keeps the checks' networks apart. Levels of a safe interval of one second: 1.0, 1.35,
// 1.82, 2.46 s.

import { Halley, OP, WsRaw, assert, check, equal, finish, pause, until } from './lib.mjs';

const set = { 'heartbeat.interval': '1s', 'heartbeat.timeout': '3s', 'heartbeat.max': '2s', 'heartbeat.foreground': '1s' };
const halley = await Halley.start({ workers: 2, set });
const port = halley.port;
const losses = (kind) => halley.metric('halley_network_losses_total', `kind="${kind}"`);

/// A native viewer that keeps to what it is told.
class Phone {
    static async open(query, at = port) {
        const phone = new Phone();
        phone.ws = await WsRaw.open(at, `/ws?${query}`, { autoPong: false });
        phone.told = [JSON.parse(await phone.ws.nextText('welcome')).heartbeat.interval_ms];
        return phone;
    }

    async ping() {
        await this.ws.text('{"op":"ping"}');
        const pong = JSON.parse(await this.ws.nextText('a pong'));
        this.told.push(pong.heartbeat.interval_ms);
    }

    get now() {
        return this.told.at(-1);
    }

    /// Pings after each interval, until it is told as much or so many intervals are over.
    async live(intervals, enough = Infinity) {
        for (let i = 0; i < intervals && this.now < enough; i++) {
            await pause(this.now);
            await this.ping();
        }
    }
}

const checks = [
    check('a scout climbs while it holds, never beyond heartbeat.max; others follow below it', async () => {
        const scout = await Phone.open('user=scout&session=s1&net=wifi');
        equal(scout.now, 1000, 'interval in welcome');
        await scout.live(12);
        // The first ping makes it the scout, three idle times make a level; then 1.82 s, and 2.46 s would be beyond max.
        equal(scout.told[1], 1300, 'the first level that it tries');
        assert(scout.told.includes(1800), `the second level is tried: ${scout.told}`);
        assert(Math.max(...scout.told) <= 2000, `never beyond max: ${scout.told}`);
        const follower = await Phone.open('user=follower&net=wifi');
        assert(follower.now >= 1500 && follower.now <= 1640, `a follower is told nine tenths of 1822 at most: ${follower.now}`);
        const other = await Phone.open('user=other&net=cell');
        equal(other.now, 1000, 'another network is told the safe interval');
        const engine = await WsRaw.open(port, '/socket.io/?transport=websocket&EIO=4&net=wifi');
        const open = JSON.parse((await engine.nextText('the open packet')).slice(1));
        assert(open.pingInterval >= 1500 && open.pingInterval <= 1640, `Engine.IO 4 is told it too: ${open.pingInterval}`);
        const opened = Date.now();
        await engine.next((f) => f.opcode === OP.text && f.payload.toString() === '2', 'a ping of Engine.IO', 1640 + 700);
        assert(Date.now() - opened >= 1100, `it is pinged by what it was told, not sooner: ${Date.now() - opened} ms`);
        for (const viewer of [scout.ws, follower.ws, other.ws, engine]) viewer.destroy();
        await until(async () => (await halley.metric('halley_networks')) >= 1, 'the network is remembered');
    }),

    check('a scout whose session comes back was lost; one that stays away was not', async () => {
        const scout = await Phone.open('user=lost&session=s2&net=cell');
        await scout.ping();
        equal(scout.now, 1300, 'it tries the first level');
        // It falls silent, as behind a NAT that forgot it: what it sends and what it is sent goes nowhere.
        await scout.ws.next((f) => f.opcode === OP.ping, 'the gateway asks', 9000);
        equal(await losses('scout'), 0, 'losses before it is back');
        const back = await Phone.open('user=lost&session=s2&net=cell');
        equal(await losses('scout'), 1, 'losses when it is back');
        await back.live(2);
        equal(back.now, 1000, 'the level rests for a while');
        // The same once more, but nobody comes back.
        back.ws.destroy();
        scout.ws.destroy();
        equal(await losses('fell'), 0, 'nobody fell back');
    }, 20000),

    check('scene=foreground keeps to the short interval', async () => {
        const viewer = await Phone.open('user=fore&session=s3&net=wifi&scene=foreground');
        equal(viewer.now, 1000, 'interval in welcome');
        await viewer.live(6);
        equal(new Set(viewer.told).size, 1, `told one interval only: ${viewer.told}`);
        viewer.ws.destroy();
    }),

    check('server.share_port: a process that took the sockets over learns too, and a session meets the worker that missed it', async () => {
        const shared = (n, more) => Halley.start({ workers: 2, set: { ...set, 'server.share_port': 'yes', 'server.node': `n${n}` }, ...more });
        const first = await shared(1);
        const before = await Phone.open('user=before&session=s4&net=wifi', first.port);
        await before.ping();
        equal(before.now, 1300, 'the first process: the first level is tried');
        const next = await shared(2, { port: first.port });
        equal((await first.stop()).code, 0, 'exit code');
        before.ws.destroy();
        const scout = await Phone.open('user=after&session=s5&net=cell', next.port);
        await scout.ping();
        equal(scout.now, 1300, 'its successor: the first level is tried');
        await scout.ws.next((f) => f.opcode === OP.ping, 'the gateway asks', 9000);
        const back = await Phone.open('user=after&session=s5&net=cell', next.port);
        equal(await next.metric('halley_network_losses_total', 'kind="scout"'), 1, 'losses when it is back');
        // More workers than sockets: an address may meet one of two, so that nothing is learned.
        const more = await shared(3, { port: next.port, workers: 3 });
        equal((await next.stop()).code, 0, 'exit code');
        const plain = await Phone.open('user=plain&session=s6&net=wifi', more.port);
        await plain.live(2);
        equal(new Set(plain.told).size, 1, `three workers on two sockets: told one interval only: ${plain.told}`);
        assert(/intervals of heartbeats are not learned.* sockets=2 workers=3/.test(more.log), 'the log says so');
        for (const phone of [scout, back, plain]) phone.ws.destroy();
        await more.stop();
    }),
];

await Promise.all(checks);
await finish();
