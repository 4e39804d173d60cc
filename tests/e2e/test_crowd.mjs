#!/usr/bin/env node
// Many viewers and busy rooms: nobody is left out when others join in the middle of a flush, rooms do not starve each other, full
// frame logs are cut down, and a reload keeps what viewers were promised.

import fs from 'node:fs';
import path from 'node:path';

import { Halley, Native, RawSocket, WsRaw, assert, check, equal, finish, pause, refusal, requestHead, sanitized, tempDir, until, within } from './lib.mjs';

// Viewers that only count the bytes MARK; joined resolves when all of them are in.
async function crowd(port, room, count) {
    const viewers = [];
    const { text } = requestHead(`/ws?room=${room}`);
    const open = async () => {
        const viewer = { marks: 0, raw: await RawSocket.connect(port) };
        viewer.joined = new Promise((resolve) => {
            viewer.raw.onData((data) => {
                if (data.includes('"op":"joined"')) resolve();
                for (let at = data.indexOf('MARK'); at >= 0; at = data.indexOf('MARK', at + 4)) viewer.marks++;
            });
        });
        viewer.raw.socket.write(text);
        viewers.push(viewer);
    };
    while (viewers.length < count) await Promise.all(Array.from({ length: Math.min(100, count - viewers.length) }, open));
    await within(Promise.all(viewers.map((v) => v.joined)), 20000, `${count} viewers in ${room}`);
    return viewers;
}

const leave = (viewers) => viewers.forEach((v) => v.raw.destroy());

await check('flush: viewers who were there get a message that goes out while others join', async () => {
    const halley = await Halley.start({ workers: 1, set: { 'flush.slice': 10 } });
    const old = await crowd(halley.port, 'a', sanitized ? 600 : 1500);
    for (let round = 1; round <= 3; round++) {
        const published = halley.publish('a', { type: 'chat', data: 'MARK' });
        const fresh = await crowd(halley.port, 'a', 300);
        await published;
        await until(() => old.every((v) => v.marks === round), `all got message ${round}`, 5000);
        leave(fresh);
    }
    leave(old);
    await halley.stop();
}, 60000);

await check('flush: a room that is never through does not starve another one', async () => {
    const rates = { 'limits.viewer_rate': 100000, 'limits.viewer_burst': 100000 };
    const halley = await Halley.start({ workers: 1, set: { 'flush.slice': 10, 'lane.normal.interval': 0, ...rates } });
    const busy = await crowd(halley.port, 'busy', sanitized ? 1500 : 4000);
    const quiet = await Native.in(halley.port, 'quiet');
    const sender = await Native.in(halley.port, 'busy');
    for (const v of busy) v.raw.pauseReading(); // their kernels take it for a while, and this process has its hands free
    sender.ws.raw.pauseReading();
    const load = setInterval(() => sender.send({ op: 'send', room: 'busy', type: 'chat', data: 1 }), 1);
    try {
        await pause(200);
        for (let i = 0; i < 5; i++) {
            await halley.publish('quiet', { type: 'chat', data: i });
            equal((await quiet.message('chat', 1000)).data, i, 'message of the quiet room');
        }
    } finally {
        clearInterval(load);
    }
    leave(busy);
    sender.destroy();
    quiet.destroy();
    await halley.stop();
}, 60000);

await check('limits.log_bytes: logs in two encodings are cut down, and the worker goes on', async () => {
    const halley = await Halley.start({ workers: 1, set: { 'limits.log_bytes': '1m' } });
    const viewers = [];
    // Ten in each room: what everybody in a small room has is not kept at all.
    for (let i = 0; i < 60; i++) {
        const room = i % 12;
        viewers.push(await Native.in(halley.port, `r${room}`), await WsRaw.open(halley.port, `/socket.io/?transport=websocket&room=r${room}`, { keep: false, onFrame() {} }));
    }
    const dropped = () => halley.metrics().then((m) => m.get('halley_dropped_total{lane="normal",reason="log_bytes"}'));
    for (let batch = 0; batch < 100 && !(await dropped()); batch++) {
        for (let i = 0; i < 12; i++) await Promise.all(Array.from({ length: 8 }, () => halley.publish(`r${i}`, { type: 'chat', data: 'x'.repeat(100) })));
    }
    assert(await dropped(), 'logs were cut down');
    (await Native.open(halley.port)).destroy();
    const bytes = (await halley.metrics()).get('halley_memory_bytes{kind="logs"}');
    assert(bytes < 2 << 20, `${bytes} bytes of logs under a limit of 1m`);
    viewers.forEach((v) => v.destroy());
    await halley.stop();
}, 60000);

await check('SIGHUP: older viewers keep their heartbeat, limits.connections counts at once, restart keys stay', async () => {
    const file = path.join(tempDir(), 'halley.conf');
    const write = (node, beat, connections) =>
        fs.writeFileSync(file, `server { node = ${node} }\nheartbeat { interval = ${beat}\n timeout = ${beat} }\nlimits { connections = ${connections} }\n`);
    write('first', '20s', 0);
    const halley = await Halley.start({ workers: 1, conf: file });
    const old = await WsRaw.open(halley.port, '/socket.io/?transport=websocket');
    write('second', '1s', 2);
    halley.child.kill('SIGHUP');
    await halley.waitLog(/conf reloaded/);
    assert(/restart.*server\.node/.test(halley.log), 'the log names the key that waits for a restart');
    equal((await halley.http('GET', '/v1/config')).json.server.node, 'first', 'server.node in effect');
    const young = await WsRaw.open(halley.port, '/socket.io/?transport=websocket');
    equal((await refusal(halley.port, '/ws')).status, 503, 'status past the new limit');
    equal((await young.closing('the young viewer, silent for 2 s', 10000)).code, 4011, 'its close code');
    const next = await WsRaw.open(halley.port, '/socket.io/?transport=websocket');
    equal((await next.closing('another young one, opened behind that', 10000)).code, 4011, 'its close code');
    assert(!old.close && !old.raw.ended, 'the old viewer, promised 40 s, lives on');
    old.destroy();
    await halley.stop();
});

await finish();
