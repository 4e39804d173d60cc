#!/usr/bin/env node
// Heartbeats with an interval and a timeout of one second: who is asked, who is not, who is closed with 4011.
//
// All checks run at the same time: they mostly wait.

import { Halley, Native, OP, WsRaw, assert, check, equal, finish, pause, until, within } from './lib.mjs';

const halley = await Halley.start({ workers: 2, set: { 'heartbeat.interval': '1s', 'heartbeat.timeout': '1s' } });
const port = halley.port;
// Where it is measured when a ping comes: a busy machine's delays are short beside this interval.
const slow = await Halley.start({ workers: 2, set: { 'heartbeat.interval': '5s', 'heartbeat.timeout': '5s' } });
const late_slow = 2500;
const late = 1500; // for the wheel's ticks and a busy machine
// A worker's clock stands still while it turns. Where nothing may come sooner, our clock starts before what starts the gateway's.
const early = 100;

const between = (value, low, high, what) =>
    assert(value >= low && value <= high, `${what}: ${low} to ${high} ms expected, got ${value}`);

const checks = [
    check('a silent native viewer is sent a WebSocket ping after interval + 5 s; one that answers stays', async () => {
        const started = Date.now();
        const ws = await WsRaw.open(port, '/ws?user=silent');
        await ws.next((f) => f.opcode === OP.ping, 'a ping', 9000);
        between(Date.now() - started, 5900 - early, 6000 + late, 'time to the ping');
        assert(!ws.raw.ended, 'still connected');
        await within(ws.closed, 3000, 'a close').then(
            () => assert(false, 'a viewer that answered its ping was closed'),
            () => {},
        );
        await ws.text('{"op":"ping","ref":1}');
        await ws.next((f) => f.payload.toString().includes('"pong"'), 'a pong');
        ws.destroy();
    }),

    check('a dead native viewer is closed with 4011, timeout after the unanswered ping', async () => {
        const started = Date.now();
        const ws = await WsRaw.open(port, '/ws?user=dead', { autoPong: false });
        await ws.next((f) => f.opcode === OP.ping, 'a ping', 9000);
        const pinged = Date.now();
        const closed = await ws.closing('the close', 5000);
        equal(closed?.code, 4011, 'close code');
        between(Date.now() - pinged, 0, 1000 + late, 'time from ping to close');
        between(Date.now() - started, 6900 - early, Infinity, 'time to the close');
        ws.destroy();
    }),

    check('a native viewer that sends {"op":"ping"} each 500 ms is not pinged', async () => {
        const viewer = await Native.open(port, { user: 'busy' });
        for (let i = 0; i < 18; i++) {
            await viewer.alive();
            await pause(500);
        }
        equal(viewer.ws.counts.pings, 0, 'WebSocket pings received');
        viewer.destroy();
    }),

    check('inbound bytes of any kind prove life: pongs unasked each 500 ms', async () => {
        const ws = await WsRaw.open(port, '/ws?user=ponger');
        for (let i = 0; i < 16; i++) {
            await ws.send({ opcode: OP.pong, payload: '' });
            await pause(500);
        }
        equal(ws.counts.pings, 0, 'WebSocket pings received');
        ws.destroy();
    }),

    check("messages that it is sent do not prove a viewer's life: a dead one in a busy room is closed", async () => {
        const ws = await WsRaw.open(port, '/ws?user=dead-in-room&room=busy', { autoPong: false });
        let publishing = true;
        const load = (async () => {
            while (publishing) {
                await halley.publish('busy', { type: 'chat', data: 1 });
                await pause(200);
            }
        })();
        // Its kernel acknowledges all that while, so a gateway that looks at those may let it live; the ping must come in either case.
        await ws
            .next((f) => f.opcode === OP.ping, 'a ping', 9000)
            .catch((error) => {
                if (ws.raw.ended) throw error;
            });
        publishing = false;
        await load;
        ws.destroy();
    }),

    check('Engine.IO 3: closed interval + timeout after the last byte', async () => {
        const ws = await WsRaw.open(port, '/socket.io/?EIO=3&transport=websocket&user=eio3-dead');
        await pause(700);
        const last = Date.now();
        await ws.text('2');
        await ws.closing('the close', 7000);
        between(Date.now() - last, 2000 - early, 2000 + late, 'time from the last byte to the close');
        if (ws.close) equal(ws.close.code, 4011, 'close code');
        assert(!ws.inbox.items.some((f) => f.payload.toString() === '41'), 'no 41: the client shall come back');
        equal(ws.counts.pings, 0, 'WebSocket pings: the client pings there');
        ws.destroy();
    }),

    check('Engine.IO 3: a client that sends 2 each second stays', async () => {
        const ws = await WsRaw.open(port, '/socket.io/?EIO=3&transport=websocket&user=eio3');
        for (let i = 0; i < 8; i++) {
            await ws.text('2');
            await ws.next((f) => f.payload.toString() === '3', 'a 3');
            await pause(1000);
        }
        ws.destroy();
    }),

    check('Engine.IO 4: 2 comes each interval; a client that answers 3 stays', async () => {
        const opened = Date.now();
        const ws = await WsRaw.open(slow.port, '/socket.io/?EIO=4&transport=websocket&user=eio4');
        await ws.nextText();
        await ws.text('40');
        await ws.nextText();
        let before = opened;
        for (let i = 1; i <= 4; i++) {
            await ws.next((f) => f.payload.toString() === '2', 'a 2', 5000 + late_slow);
            // 4.x clients give up interval + timeout after the last one.
            between(Date.now() - before, 0, 5000 + late_slow, 'time between two pings');
            before = Date.now();
            between(before - opened, i * 4500 - early, Infinity, `time to ping ${i}`);
            await ws.text('3');
        }
        ws.destroy();
    }),

    check('Engine.IO 4: the first 2 comes within the interval after the open packet (10 clients)', async () => {
        const first = async () => {
            const opened = Date.now();
            const ws = await WsRaw.open(slow.port, '/socket.io/?EIO=4&transport=websocket&user=eio4-first');
            await ws.nextText();
            await ws.text('40');
            await ws.next((f) => f.payload.toString() === '2', 'a 2', 5000 + late_slow);
            ws.destroy();
            return Date.now() - opened;
        };
        for (const time of await Promise.all(Array.from({ length: 10 }, first)))
            between(time, 4500 - early, 5000 + late_slow, 'time to the first ping');
    }),

    check('Engine.IO 4: a client that is busy but answers is pinged too: it needs the pings itself', async () => {
        const ws = await WsRaw.open(port, '/socket.io/?EIO=4&transport=websocket&user=eio4-busy');
        await ws.nextText();
        await ws.text('40');
        let pings = 0;
        ws.options.onFrame = (f) => {
            if (f.payload.toString() === '2') {
                pings++;
                ws.text('3');
            }
        };
        for (let i = 0; i < 10; i++) {
            await ws.text('42["pace",{"mode":"active"}]');
            await pause(400);
        }
        assert(pings >= 2, `pings in 4 s: at least 2, got ${pings}`);
        ws.destroy();
    }),

    check('Engine.IO 4: a client that never answers is closed timeout after the 2', async () => {
        const opened = Date.now();
        const ws = await WsRaw.open(port, '/socket.io/?EIO=4&transport=websocket&user=eio4-dead');
        await ws.nextText();
        await ws.text('40');
        await ws.next((f) => f.payload.toString() === '2', 'a 2', 4000);
        const pinged = Date.now();
        await ws.closing('the close', 5000);
        between(Date.now() - pinged, 0, 1000 + late, 'time from the 2 to the close');
        between(Date.now() - opened, 1900 - early, Infinity, 'time to the close');
        if (ws.close) equal(ws.close.code, 4011, 'close code');
        assert(!ws.inbox.items.some((f) => f.payload.toString() === '41'), 'no 41: the client shall come back');
        ws.destroy();
    }),

    check("jitter only shortens: the interval that pong tells is at most the conf's", async () => {
        const viewer = await Native.open(port);
        for (let i = 0; i < 20; i++) {
            const { heartbeat } = await viewer.alive();
            between(heartbeat.interval_ms, 500, 1000, 'heartbeat.interval_ms');
        }
        viewer.destroy();
    }),
];
await Promise.all(checks);

await check('heartbeat closes are counted', async () => {
    await until(
        async () => (await halley.metric('halley_closes_total', 'reason="heartbeat"')) >= 3,
        'halley_closes_total{reason="heartbeat"} >= 3',
    );
    assert(
        (await halley.metric('halley_heartbeats_total', 'direction="out"')) >= 5,
        'halley_heartbeats_total{direction="out"} >= 5',
    );
});

await check(
    'timers hold with 2,000 silent viewers: each is pinged once within the time',
    async () => {
        const pinged = [];
        const viewers = await Promise.all(
            Array.from({ length: 2000 }, (_, i) =>
                WsRaw.open(port, '/ws', {
                    localAddress: `127.0.3.${1 + (i % 200)}`,
                    keep: false,
                    ms: 20000,
                    onFrame: (f) => f.opcode === OP.ping && pinged.push(i),
                }),
            ),
        );
        await until(() => new Set(pinged).size === 2000, 'all 2,000 pinged', 12000, 100);
        equal(viewers.filter((ws) => ws.raw.ended).length, 0, 'viewers closed');
        for (const ws of viewers) ws.destroy();
    },
    60000,
);

await finish();
