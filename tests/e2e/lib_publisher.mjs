// lib_publisher.mjs: a backend in a thread of its own, so that thousands of viewers in the test's thread do not hold it up.
//
// It publishes 50 messages a second in two lanes by scripts/redis/publish.lua, each again, with its key, until Redis said yes.

import fs from 'node:fs';
import path from 'node:path';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

import { RedisClient, assert, pause, root } from './lib.mjs';

const INTERVAL_MS = 20;

// {state: {published, last: {lane: id}}, stop()}: stop resolves when the last message is out.
export function startPublisher(redis, room, padBytes) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { port: redis.port, room, padBytes } });
    const state = { published: 0, last: {} };
    const exit = new Promise((resolve, reject) => {
        worker.on('exit', resolve);
        worker.on('error', reject);
    });
    worker.on('message', (news) => Object.assign(state, news));
    return {
        state,
        stop() {
            worker.postMessage('stop');
            return exit;
        },
    };
}

async function publishUntilStopped({ port, room, padBytes }) {
    const script = fs.readFileSync(path.join(root, 'scripts/redis/publish.lua'), 'utf8');
    const pad = 'x'.repeat(padBytes);
    const last = {};
    let stopped = false;
    let client;
    parentPort.once('message', () => (stopped = true));
    const start = Date.now();
    for (let i = 1; !stopped; i++) {
        const [type, lane, channel] = i % 2 ? ['chat', 'normal', 'room'] : ['gift', 'high', 'high'];
        const keys = [`halley:seq:{${room}}`, `halley:history:{${room}}:${lane}`, `halley:dedupe:{${room}}:chaos:${i}`];
        const message = JSON.stringify({ type, data: { i, pad } });
        for (;;) {
            try {
                client ??= await RedisClient.connect(port);
                const [verdict, id] = await client.command(
                    ...['EVAL', script, 3, ...keys],
                    ...[lane, `halley:${channel}:{${room}}`, message, 5000, 300000, 600000],
                );
                assert(verdict !== 'other', 'a key is used once');
                last[id[0]] = id;
                break;
            } catch (error) {
                if (!/closed|ECONN|LOADING|nothing within/.test(error.message)) throw error;
                client?.close();
                client = undefined;
                await pause(20);
            }
        }
        parentPort.postMessage({ published: i, last: { ...last } });
        await pause(Math.max(0, start + i * INTERVAL_MS - Date.now()));
    }
    client?.close();
}

if (!isMainThread) {
    await publishUntilStopped(workerData);
    process.exit(0);
}
