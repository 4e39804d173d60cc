#!/usr/bin/env node
// Intervals that grow while a network holds, fall when a silent connection was forgotten, and stay short where that is asked for.
//
// Viewers come from 127.0.0.0/24 where nothing else is said; `net` and other addresses keep the checks' networks apart. Levels of a safe
// interval of two seconds: 2.0, 2.7, 3.64, 4.92 s.

import fs from 'node:fs';
import path from 'node:path';

import WebSocket from 'ws';

import { Halley, OP, WsRaw, assert, check, equal, finish, pause, root, until } from './lib.mjs';

const set = { 'heartbeat.interval': '2s', 'heartbeat.timeout': '3s', 'heartbeat.max': '4s', 'heartbeat.foreground': '1s' };
const halley = await Halley.start({ workers: 2, set });
const port = halley.port;
const losses = (kind, of = halley) => of.metric('halley_network_losses_total', `kind="${kind}"`);

/// A native viewer that keeps to what it is told.
class Phone {
    static async open(query, at = port, options = {}) {
        const phone = new Phone();
        phone.ws = await WsRaw.open(at, `/ws?${query}`, { autoPong: false, ...options });
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

    /// Pings after each interval.
    async live(intervals) {
        for (let i = 0; i < intervals; i++) {
            await pause(this.now);
            await this.ping();
        }
    }
}

/// A Socket.IO viewer that sends nothing by itself, not even its `40`: how long it was idle does not depend on how busy this machine is.
class Engine {
    static async open(eio, query, at = port, options = {}) {
        const engine = new Engine();
        engine.opened = Date.now();
        engine.ws = await WsRaw.open(at, `/socket.io/?transport=websocket&EIO=${eio}&${query}`, options);
        engine.told = JSON.parse((await engine.ws.nextText('the open packet')).slice(1)).pingInterval;
        return engine;
    }

    pinged() {
        return this.ws.next((f) => f.opcode === OP.text && f.payload.toString() === '2', 'a ping of Engine.IO', 20000);
    }

    /// Resolves to how long after its opening the gateway gave it up.
    async givenUp() {
        equal((await this.ws.closing('the close', 20000))?.code, 4011, 'close code');
        return Date.now() - this.opened;
    }
}

/// A scout that makes the first level hold in its network, and leaves.
async function teach(at, options) {
    const scout = await Phone.open('user=teacher&session=t&net=cell', at, options);
    await scout.ping();
    await scout.live(3);
    assert(scout.now > scout.told[1], `the first level holds, the next is tried: ${scout.told}`);
    scout.ws.destroy();
}

// What a gateway may be late on a busy machine.
const late = 2500;
const between = (value, low, high, what) => assert(value >= low && value <= high, `${what}: ${low} to ${high} expected, got ${value}`);

// Safe is 5 s, told where the first level holds 5.7 to 6.07 s.
const losing = { 'heartbeat.interval': '5s', 'heartbeat.timeout': '1s', 'heartbeat.max': '10s' };
const losers = [];
for (let i = 0; i < 4; i++) losers.push(await Halley.start({ workers: 1, set: losing }));
const isLearned = (told) => between(told, 5700, 6080, 'told where the first level holds');

const checks = [
    check('a scout climbs while it holds, never beyond heartbeat.max; others follow below it', async () => {
        const scout = await Phone.open('user=scout&session=s1&net=wifi');
        equal(scout.now, 2000, 'interval in welcome');
        await scout.ping();
        await scout.live(8);
        // The first ping makes it the scout, three idle times make a level; then 3.64 s, and 4.92 s would be beyond max.
        equal(scout.told[1], 2700, 'the first level that it tries');
        assert(scout.told.includes(3600), `the second level is tried: ${scout.told}`);
        assert(Math.max(...scout.told) <= 4000, `never beyond max: ${scout.told}`);
        const follower = await Phone.open('user=follower&net=wifi');
        between(follower.now, 3100, 3280, 'a follower is told nine tenths of 3645 at most');
        const other = await Phone.open('user=other&net=cell');
        equal(other.now, 2000, 'another network is told the safe interval');
        const third = await Engine.open(3, 'net=wifi');
        const fourth = await Engine.open(4, 'net=wifi');
        for (const { told } of [third, fourth]) between(told, 3100, 3280, 'Engine.IO is told it too');
        await Promise.all([
            // Both are longer than what the safe interval would make of them: 2 s, 2 + 3 s.
            third.givenUp().then((ms) => between(ms, third.told + 3000 - 100, third.told + 3000 + late, 'EIO 3: time to its close')),
            fourth.pinged().then(() =>
                between(Date.now() - fourth.opened, fourth.told * 0.9 - 100, fourth.told + late, 'EIO 4: time to its ping'),
            ),
        ]);
        for (const viewer of [scout.ws, follower.ws, other.ws, third.ws, fourth.ws]) viewer.destroy();
        await until(async () => (await halley.metric('halley_networks')) >= 1, 'the network is remembered');
    }, 90000),

    check('a scout whose session comes back was lost; one that stays away was not', async () => {
        const scout = await Phone.open('user=lost&session=s2&net=cell');
        await scout.ping();
        equal(scout.now, 2700, 'it tries the first level');
        // It falls silent, as behind a NAT that forgot it: what it sends and what it is sent goes nowhere.
        await scout.ws.next((f) => f.opcode === OP.ping, 'the gateway asks', 12000);
        equal(await losses('scout'), 0, 'losses before it is back');
        const back = await Phone.open('user=lost&session=s2&net=cell');
        equal(await losses('scout'), 1, 'losses when it is back');
        await back.live(2);
        equal(back.now, 2000, 'the level rests for a while');
        // In another network the same, but nobody comes back.
        const away = await Phone.open('user=away&session=s7&net=cell', port, { localAddress: '127.0.4.1' });
        await away.ping();
        equal(away.now, 2700, 'it tries the first level');
        equal((await away.ws.closing('the close', 20000))?.code, 4011, 'close code');
        const stays = await Phone.open('user=stays&session=s8&net=cell', port, { localAddress: '127.0.4.1' });
        equal(await losses('scout'), 1, 'losses when somebody else came');
        for (const phone of [scout, back, away, stays]) phone.ws.destroy();
        equal(await losses('fell'), 0, 'nobody fell back');
    }, 90000),

    check('followers whose pings meet a reset are back before they are missed: the third in a row makes the network fall back', async () => {
        const own = losers[3];
        await teach(own.port);
        const query = 'user=f&session=f&net=cell';
        const counted = async () => [await losses('doubted', own), await losses('fell', own)];
        const phones = [await Phone.open(query, own.port), await Phone.open(query, own.port)];
        equal(await counted(), [0, 0], 'doubted losses, falls, when it is back without having been idle');
        for (let i = 1; i <= 3; i++) {
            isLearned(phones.at(-1).now);
            await pause(phones.at(-1).now);
            phones.push(await Phone.open(query, own.port)); // in place of its ping
            equal(await counted(), i < 3 ? [i, 0] : [2, 1], 'doubted losses, falls');
        }
        equal(phones.at(-1).now, 5000, 'told after the third');
        for (const phone of phones) phone.ws.destroy();
    }, 90000),

    check('Engine.IO 3: closed by the heartbeat and back: its network falls back at once', async () => {
        const own = losers[0];
        await teach(own.port);
        const lost = await Engine.open(3, 'user=e3&session=e3&net=cell', own.port);
        isLearned(lost.told);
        await lost.givenUp();
        equal(await losses('fell', own), 0, 'falls before it is back');
        const back = await Engine.open(3, 'user=e3&session=e3&net=cell', own.port);
        equal(await losses('fell', own), 1, 'falls when it is back');
        equal(back.told, 5000, 'told when it is back');
        back.ws.destroy();
    }, 90000),

    check('Engine.IO 4: its ping unanswered and back: believed unless others answered meanwhile', async () => {
        const own = losers[1];
        await teach(own.port);
        const me = 'user=e4&session=e4&net=cell';
        const lost = await Engine.open(4, me, own.port);
        isLearned(lost.told);
        await lost.pinged();
        // This one is idle as long after the other's time, and answers.
        const answers = await Engine.open(4, 'user=answers&session=a&net=cell', own.port);
        await lost.givenUp();
        await answers.pinged();
        await answers.ws.text('3');
        await answers.ws.text('40');
        await answers.ws.next((f) => f.payload.toString().startsWith('40'), 'its 40: the 3 was read');
        const again = await Engine.open(4, me, own.port);
        equal([await losses('doubted', own), await losses('fell', own)], [1, 0], 'doubted losses, falls');
        isLearned(again.told);
        answers.ws.destroy();
        await again.givenUp();
        equal(await losses('fell', own), 0, 'falls before it is back');
        const back = await Engine.open(4, me, own.port);
        equal(await losses('fell', own), 1, 'falls when it is back');
        equal(back.told, 5000, 'told when it is back');
        back.ws.destroy();
    }, 90000),

    check('Engine.IO 4: its ping met by a reset and back: its network falls back at once', async () => {
        const own = losers[2];
        await teach(own.port);
        const lost = await Engine.open(4, 'user=r4&session=r4&net=cell', own.port);
        isLearned(lost.told);
        await lost.pinged();
        lost.ws.raw.reset();
        await until(async () => (await own.metric('halley_closes_total', 'reason="reset"')) === 2, 'the reset is seen, as the end of the teacher was');
        const back = await Engine.open(4, 'user=r4&session=r4&net=cell', own.port);
        equal(await losses('fell', own), 1, 'falls when it is back');
        equal(back.told, 5000, 'told when it is back');
        back.ws.destroy();
    }, 90000),

    check("the client of docs/protocol.md goes by each pong's interval, and comes back as the same session", async () => {
        const text = fs.readFileSync(path.join(root, 'docs/protocol.md'), 'utf8');
        const code = /### A client\n[^]*?```js\n([^]*?)\nwatch\(/.exec(text)[1];
        const sockets = [];
        class Browser extends WebSocket {
            constructor(url) {
                super(url, { localAddress: '127.0.8.1' });
                sockets.push(this);
                this.url_asked = url;
                this.log = [];
            }

            send(text) {
                this.log.push({ sent: text, at: Date.now() });
                super.send(text);
            }
        }
        const seen = [];
        new Function('WebSocket', `${code}\nreturn watch;`)(Browser)(`ws://127.0.0.1:${port}/ws`, ['client'], (m) => seen.push(m));
        const told = [];
        sockets[0].on('message', (data) => {
            const { op, heartbeat } = JSON.parse(data);
            if (op === 'welcome' || op === 'pong') told.push({ ms: heartbeat.interval_ms, at: Date.now() });
        });
        // It is its network's scout: 2 s, 2.7 s three times, and only who was idle for so long is told 3.64 s then.
        await until(() => told.some(({ ms }) => ms === 3600), 'the level that it was told holds', 30000);
        equal(told.slice(0, 2).map(({ ms }) => ms), [2000, 2700], 'what it was told first');
        const last = told.findIndex(({ ms }) => ms === 3600);
        await until(() => sockets[0].log.length > last, 'the next ping', 10000);
        assert(sockets[0].log[last].at - told[last].at >= 3600 - 300, 'it waits for as long as the last pong said');
        await halley.publish('client', { type: 'chat', data: 'hello' });
        await until(() => seen.some((m) => m.type === 'chat'), 'a message');
        sockets[0].terminate();
        await until(() => sockets[1]?.readyState === WebSocket.OPEN, 'it comes back', 10000);
        equal(sockets[1].url_asked, sockets[0].url_asked, 'the query, with its session');
        sockets[1].onclose = null;
        sockets[1].terminate();
    }, 90000),

    check('scene=foreground keeps to the short interval, in each protocol', async () => {
        const viewer = await Phone.open('user=fore&session=s3&net=wifi&scene=foreground');
        equal(viewer.now, 1000, 'interval in welcome');
        await viewer.live(6);
        equal(new Set(viewer.told).size, 1, `told one interval only: ${viewer.told}`);
        viewer.ws.destroy();
        for (const eio of [3, 4]) {
            const engine = await Engine.open(eio, 'user=fore&session=s9&net=wifi&scene=foreground');
            equal(engine.told, 1000, `pingInterval of Engine.IO ${eio}`);
            const plain = await Engine.open(eio, 'user=plain&session=s10&scene=other');
            equal(plain.told, 2000, `pingInterval of Engine.IO ${eio} without it`);
            if (eio === 3) between(await engine.givenUp(), 4000 - 100, 4000 + late, 'time to its close');
            engine.ws.destroy();
            plain.ws.destroy();
        }
    }),

    check('server.share_port: a process that took the sockets over learns too, and a session meets the worker that missed it', async () => {
        const shared = (n, more) => Halley.start({ workers: 2, set: { ...set, 'server.share_port': 'yes', 'server.node': `n${n}` }, ...more });
        const first = await shared(1);
        const before = await Phone.open('user=before&session=s4&net=wifi', first.port);
        await before.ping();
        equal(before.now, 2700, 'the first process: the first level is tried');
        const next = await shared(2, { port: first.port });
        equal((await first.stop()).code, 0, 'exit code');
        before.ws.destroy();
        const scout = await Phone.open('user=after&session=s5&net=cell', next.port);
        await scout.ping();
        equal(scout.now, 2700, 'its successor: the first level is tried');
        await scout.ws.next((f) => f.opcode === OP.ping, 'the gateway asks', 12000);
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
    }, 90000),
];

await Promise.all(checks);
await finish();
