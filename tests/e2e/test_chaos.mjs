#!/usr/bin/env node
// What must not get lost while things break: nodes killed, Redis restarted, emptied, its messages dropped on the way.
//
// HALLEY_CHAOS_VIEWERS=3000 HALLEY_CHAOS_SECONDS=60 make it long; HALLEY_CHAOS_RETURNS=10000 are those who come back at once;
// HALLEY_CHAOS_ONLY=nodes (redis, drops, late, emptied, joins, returns) runs one check.

import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

import {
    Halley,
    Redis,
    ahead,
    assert,
    atEnd,
    check,
    equal,
    finish,
    freePort,
    pause,
    root,
    sanitized,
    slowness,
    until,
} from './lib.mjs';
import { Follow } from './lib_follow.mjs';
import { startPublisher } from './lib_publisher.mjs';

const viewers = Number(process.env.HALLEY_CHAOS_VIEWERS || (sanitized ? 60 : 200));
const seconds = Number(process.env.HALLEY_CHAOS_SECONDS || 8);
const returns = Number(process.env.HALLEY_CHAOS_RETURNS || (sanitized ? 300 : 2000));
// Of the messages: many viewers get shorter ones.
const padBytes = viewers > 500 ? 400 : 1800;
const only = process.env.HALLEY_CHAOS_ONLY;
const set = {
    'type.chat.history': 'yes',
    'type.gift.history': 'yes',
    'type.*.max_bytes': '2k',
    'lane.high.bytes': '64k',
    'lane.normal.bytes': '16k',
    'tcp.sndbuf': '4k',
    'history.length': 5000,
    'limits.join_rate': 100,
    'limits.join_burst': 100,
    'broker.linger': '1s',
};

// ---- between Redis and a node

// Length of the reply that begins at `at`; 0: it is not complete.
function replyLength(buffer, at) {
    const end = buffer.indexOf('\r\n', at);
    if (end < 0) return 0;
    const number = Number(buffer.toString('latin1', at + 1, end));
    let length = end + 2 - at;
    if (buffer[at] === 0x24) length += number < 0 ? 0 : number + 2;
    if (buffer[at] === 0x2a) {
        for (let i = 0; i < number; i++) {
            const item = replyLength(buffer, at + length);
            if (!item) return 0;
            length += item;
        }
    }
    return at + length <= buffer.length ? length : 0;
}

// A TCP proxy before Redis that drops a share of the pub/sub messages, and is late with a fifth of what Redis says.
async function leakyProxy(redis) {
    const proxy = { port: await freePort(), share: 0, dropped: 0, lateMs: 0 };
    const head = '*3\r\n$7\r\nmessage\r\n';
    const server = net.createServer((near) => {
        const far = net.connect(redis.port, '127.0.0.1');
        let rest = Buffer.alloc(0);
        let sent = Promise.resolve();
        near.pipe(far);
        far.on('data', (data) => {
            rest = rest.length ? Buffer.concat([rest, data]) : data;
            const out = [];
            let at = 0;
            for (let length; at < rest.length && (length = replyLength(rest, at)); at += length) {
                const isMessage = rest.toString('latin1', at, at + head.length) === head;
                if (isMessage && Math.random() < proxy.share) proxy.dropped++;
                else out.push(rest.subarray(at, at + length));
            }
            rest = rest.subarray(at);
            if (!out.length) return;
            const said = Buffer.concat(out);
            const late = proxy.lateMs && Math.random() < 0.2 ? pause(proxy.lateMs) : undefined;
            sent = sent.then(() => late).then(() => near.write(said));
        });
        for (const [one, two] of [[near, far], [far, near]]) {
            one.on('error', () => {});
            one.on('close', () => two.destroy());
        }
    });
    await new Promise((resolve) => server.listen(proxy.port, '127.0.0.1', resolve));
    atEnd(() => server.close());
    proxy.url = `redis://127.0.0.1:${proxy.port}`;
    return proxy;
}

// Runs `harm` for a while under viewers and publishes; resolves when everybody has the last messages.
async function survive(name, room, harm, { exact = true, more = {} } = {}) {
    const redis = await Redis.start({ appendOnly: true });
    const proxies = [];
    const nodes = [];
    const start = async (i) => {
        nodes[i] = await Halley.start({
            ...nodes[i]?.place,
            workers: 2,
            set: { ...set, ...more, 'server.node': `chaos-${i}`, 'broker.url': proxies[i].url },
        });
        nodes[i].place = { port: nodes[i].port, adminPort: nodes[i].adminPort };
    };
    for (let i = 0; i < 3; i++) proxies.push(await leakyProxy(redis));
    for (let i = 0; i < 3; i++) await start(i);
    // One in twenty reads nothing for a while, again and again: a few seconds fill its buffers and the bounds of its lanes.
    const follow = Follow.start({ ports: nodes.map((node) => node.port), room, viewers, slow: 5, stallMs: 3000 });
    await follow.until((now) => now.joined === viewers, 'everybody is in', 20000);
    const publisher = startPublisher(redis, room, padBytes);
    const { state } = publisher;
    const kill = async (i) => {
        nodes[i].told = true;
        nodes[i].child.kill('SIGKILL');
        await nodes[i].exit;
        await start(i);
    };
    const end = Date.now() + seconds * 1000;
    // It goes on for its time, and on a busy machine until what is to be survived has happened.
    const going = (happened = true) => Date.now() < end || (!happened && Date.now() < end + 40000 * slowness);
    await harm({ redis, proxies, nodes, kill, going, seen: () => follow.state });
    for (const proxy of proxies) proxy.share = 0;
    await pause(300);
    const before = state.published;
    await until(() => state.published > before + 4, 'some more messages', 10000);
    await publisher.stop();
    try {
        await follow.until(() => follow.current(state.last), `everybody has the last messages ${JSON.stringify(state.last)}`, 20000);
    } finally {
        let filled = 0;
        for (const node of nodes) filled += await node.metric('halley_history_filled_total').catch(() => 0);
        const dropped = proxies.reduce((sum, proxy) => sum + proxy.dropped, 0);
        console.log(`# ${name}: ${state.published} published, ${dropped} dropped, ${filled} filled, ${JSON.stringify(follow.state)}`);
    }
    const code = await follow.stop();
    const counts = follow.state;
    if (exact) {
        equal([counts.holes, counts.repeats, counts.lost, counts.wrong], [0, 0, 0, ''], 'holes, repeats, losses');
        equal(code, 0, 'exit code of the viewers');
        for (const lane of ['h', 'n']) {
            const [, , n] = state.last[lane].split('.');
            assert(Number(n) >= state.published / 2 - 1, `every publish has a number in ${lane}`);
        }
    }
    for (const node of nodes) await node.stop();
    await redis.kill();
    return counts;
}

const limit = (seconds + 130) * 1000;
const wanted = (name) => !only || only === name;

if (wanted('nodes'))
    await check(
        'nodes killed every few seconds: every message of both lanes, once and in order',
        async () => {
            const reconnected = (counts) => counts.connects > viewers * 1.3;
            const someSlow = (counts) => viewers > 500 || counts.skipped + (counts.closes[4008] || 0) > 0;
            const counts = await survive('nodes', 'r1', async ({ kill, going, seen }) => {
                while (going(reconnected(seen()) && someSlow(seen()))) {
                    await kill(Math.floor(Math.random() * 3));
                    await pause(1000 + Math.random() * 1500);
                }
            });
            assert(reconnected(counts), 'viewers did reconnect');
            assert(someSlow(counts), 'some were too slow');
        },
        limit,
    );

if (wanted('redis'))
    await check(
        'Redis restarted again and again: the same',
        async () => {
            const restarts = async ({ redis, going }) => {
                while (going()) {
                    await redis.kill();
                    await pause(100 + Math.random() * 400);
                    await redis.restart();
                    await pause(1500 + Math.random() * 1500);
                }
            };
            // As with drops: Redis may take its time to tell what was missed.
            const { gaps, gaps_in } = await survive('redis', 'r2', restarts, { more: { 'history.wait': '10s' } });
            equal([gaps_in.high, gaps_in.normal], [0, 0], 'gaps in the lanes with history');
            assert(gaps > 0 && gaps_in.low === gaps, `the lane without is told of each cut: ${JSON.stringify(gaps_in)}`);
        },
        limit,
    );

if (wanted('drops'))
    await check(
        'one in twenty pub/sub messages dropped before each node: the same',
        async () => {
            const drop = async ({ proxies, going }) => {
                const dropped = () => proxies.every((proxy) => proxy.dropped > 0);
                for (const proxy of proxies) proxy.share = 0.05;
                while (going(dropped())) await pause(100);
                assert(dropped(), 'messages were dropped');
            };
            // A gap is told when Redis takes longer than history.wait to answer: here it may be as slow as it likes.
            const counts = await survive('drops', 'r3', drop, { more: { 'history.wait': '10s' } });
            equal(counts.gaps, 0, 'gaps');
        },
        limit,
    );

if (wanted('late'))
    await check(
        'messages dropped, and answers of Redis that come after history.wait: gaps, and still the same',
        async () => {
            const counts = await survive(
                'late',
                'r5',
                async ({ proxies, kill, going, seen }) => {
                    for (const proxy of proxies) Object.assign(proxy, { share: 0.05, lateMs: 150 });
                    await pause(2000);
                    while (going(seen().gaps > 0)) {
                        await kill(Math.floor(Math.random() * 3));
                        await pause(2000);
                    }
                    for (const proxy of proxies) proxy.lateMs = 0;
                },
                { more: { 'history.wait': '50ms' } },
            );
            assert(counts.gaps > 0, 'gaps were told');
        },
        limit,
    );

if (wanted('emptied'))
    await check(
        'Redis emptied: a gap, then live, never silence',
        async () => {
            const counts = await survive(
                'emptied',
                'r4',
                async ({ redis, going }) => {
                    while (going()) {
                        await pause(2000);
                        await redis.command('FLUSHALL');
                        await pause(1000);
                    }
                },
                { exact: false },
            );
            // What a place can't be gone on from is told, and before what comes behind it: there is no hole, and nothing twice.
            assert(counts.gaps > viewers / 2, 'gaps were told');
            equal([counts.holes, counts.repeats, counts.wrong], [0, 0, ''], 'holes, repeats');
            equal(counts.joined, viewers, 'viewers that are live');
        },
        limit,
    );

// ---- many at once

if (wanted('joins'))
    await check(
        `a cut from Redis where only gifts have history: none of ${returns} viewers joins again, and none misses a gift`,
        async () => {
            const redis = await Redis.start();
            const node = await Halley.start({ redis, workers: 2, set: { 'type.gift.history': 'yes', 'server.accept': 'spread', 'history.wait': '10s' } });
            const script = fs.readFileSync(path.join(root, 'scripts/redis/publish.lua'), 'utf8');
            const gift = (channel) =>
                redis.command(
                    ...['EVAL', script, 2, 'halley:seq:{42}', 'halley:history:{42}:high'],
                    ...['high', channel, '{"type":"gift"}', 500, 300000, 600000],
                );
            const allAt = (n) => ({ lanes }) => lanes.high?.viewers === returns && lanes.high.id.endsWith(`.${n}`);
            const follow = Follow.start({ ports: [node.port], room: '42', viewers: returns, reportMs: 10 });
            await follow.until((now) => now.joined === returns, 'all are in', 60000);
            await gift('halley:high:{42}');
            await follow.until(allAt(1), 'all have the first gift', 20000);
            await gift('nowhere');
            const cut = performance.now();
            await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
            await follow.until(allAt(2), 'all have the gift of the cut', 20000);
            await follow.until((now) => now.gaps >= 2 * returns, 'all know of the other lanes', 20000);
            const took = performance.now() - cut;
            const { gaps, joins } = follow.state;
            console.log(`# ${returns} viewers, one cut: ${gaps} gaps, ${joins - returns} joins because of them, all told after ${took.toFixed(0)} ms`);
            equal(await follow.stop(), 0, `holes, repeats, losses: ${JSON.stringify(follow.state)}`);
            equal([gaps, joins], [2 * returns, returns], 'gaps and joins');
            await node.stop();
            await redis.kill();
        },
        120000,
    );

if (wanted('returns'))
    await check(
        `${returns} viewers come back at once: few reads, little memory, soon current`,
        async () => {
            const redis = await Redis.start();
            const node = await Halley.start({
                redis,
                workers: 2,
                prefix: ahead,
                set: { 'type.chat.history': 'yes', 'type.gift.history': 'yes', 'server.accept': 'spread' },
            });
            let last = 0;
            const publish = async (count) => {
                for (let i = 0; i < count; i++) {
                    last++;
                    await node.publish('42', { type: 'chat', data: { i: last, pad: 'x'.repeat(100) } });
                    await node.publish('42', { type: 'gift', data: { i: last } });
                }
            };
            const current = ({ lanes }) =>
                ['normal', 'high'].every((lane) => lanes[lane]?.viewers === returns && lanes[lane].id.endsWith(`.${last}`));
            const round = async () => {
                await publish(5);
                const follow = Follow.start({ ports: [node.port], room: '42', viewers: returns, reportMs: 10, prefix: ahead });
                await follow.until(() => true, 'the viewers start', 20000);
                const begin = performance.now();
                await follow.until((now) => now.joined === returns, 'all are in', 60000);
                const plain = performance.now() - begin;
                await publish(5);
                await follow.until(current, 'all have what came', 20000);
                const rss = node.rssBytes();
                follow.hangUp();
                await until(async () => (await node.viewers()) === 0, 'all are gone', 20000);
                await publish(100);
                await redis.command('CONFIG', 'RESETSTAT');
                let peak = 0;
                const watch = setInterval(() => (peak = Math.max(peak, node.rssBytes())), 20);
                const back = performance.now();
                follow.comeBack();
                await follow.until(current, 'all are current', 120000);
                const resume = performance.now() - back;
                clearInterval(watch);
                const stats = await redis.command('INFO', 'commandstats');
                const reads = Number(/cmdstat_xrevrange:calls=(\d+)/.exec(stats)?.[1] || 0);
                console.log(
                    `# ${returns} joined in ${plain.toFixed(0)} ms, came back and had 200 missed messages each in ${resume.toFixed(0)} ms ` +
                        `(x${(resume / plain).toFixed(2)}); ${reads} reads of 2 lanes; memory ${(rss / 1e6).toFixed(1)} MB with all in, ` +
                        `${((peak - rss) / 1e6).toFixed(1)} MB more while they came back`,
                );
                equal(await follow.stop(), 0, `holes, repeats, losses: ${JSON.stringify(follow.state)}`);
                await until(async () => (await node.viewers()) === 0, 'all are gone again', 20000);
                assert(reads >= 1 && reads <= 6, `at most 3 reads per lane, got ${reads}`);
                if (!sanitized) assert(peak - rss < 20e6, `less than 20 MB more, got ${peak - rss}`);
                return { plain, resume };
            };
            // In turns, and the best of each: what else the machine does may hold up one of them.
            const rounds = [];
            while (rounds.length < (sanitized ? 1 : 3)) rounds.push(await round());
            const best = (what) => Math.min(...rounds.map((one) => one[what]));
            if (!sanitized)
                assert(best('resume') < 3 * best('plain'), `within 3 x ${best('plain')} ms, took ${best('resume')} ms`);
            await node.stop();
        },
        180000,
    );

await finish();
