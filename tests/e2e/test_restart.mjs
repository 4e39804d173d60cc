#!/usr/bin/env node
// Restarts on one host while viewers storm in: the new process takes copies of the old one's sockets, and nobody is refused or reset.

import { spawn } from 'node:child_process';
import net from 'node:net';

import {
    Halley,
    Native,
    RawSocket,
    assert,
    atEnd,
    check,
    equal,
    finish,
    freePort,
    halleyBin,
    pause,
    rawRequest,
    refusal,
    requestHead,
    run,
    sanitized,
    skip,
    until,
    within,
} from './lib.mjs';

const ROUNDS = Number(process.env.ROUNDS || (sanitized ? 4 : 20));
const AT_ONCE = 64;

// Viewers that come, are welcomed and go, as fast as they can. Whatever else happens to one of them is counted by its name.
class Storm {
    constructor(port, { slow = 0 } = {}) {
        this.port = port;
        this.slow = slow; // every tenth sends its request so much later
        this.welcomed = 0;
        this.failed = new Map();
        this.running = true;
        this.lanes = Array.from({ length: AT_ONCE }, (_, i) => this.lane(i));
        this.lanes.push(this.check());
    }

    // The load balancer's checker, as keepalived asks.
    async check() {
        const head = `GET /healthz HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: 127.0.0.1:${this.port}\r\n\r\n`;
        for (; this.running; await pause(5)) {
            const answer = await rawRequest(this.port, head).catch((error) => ({ status: error.message }));
            if (answer.status !== 200) this.failed.set(`healthz ${answer.status}`, 1);
            else this.checks = (this.checks || 0) + 1;
        }
    }

    async lane(i) {
        for (let n = 0; this.running; n++) {
            const outcome = await this.one(`127.0.0.${2 + ((i + n) % 200)}`, this.slow && (i + n) % 10 === 0 ? this.slow : 0);
            if (outcome === 'welcome') this.welcomed++;
            else this.failed.set(outcome, (this.failed.get(outcome) || 0) + 1);
        }
    }

    one(localAddress, later) {
        return new Promise((resolve) => {
            const socket = net.connect({ port: this.port, host: '127.0.0.1', localAddress });
            let text = '';
            const timer = setTimeout(() => done('nothing within 10 s'), 10000);
            const done = (outcome) => {
                clearTimeout(timer);
                resolve(outcome);
                socket.resetAndDestroy(); // no TIME_WAIT: ports are few
            };
            socket.on('error', (error) => done(error.code));
            socket.on('end', () => done(`ended behind "${text.slice(0, 60)}"`));
            socket.on('data', (data) => {
                text += data.toString('latin1');
                if (text.includes('"op":"welcome"')) done(text.startsWith('HTTP/1.1 101') ? 'welcome' : text.slice(9, 12));
            });
            socket.on('connect', () => setTimeout(() => socket.write(requestHead('/ws').text), later));
        });
    }

    async stop(what) {
        this.running = false;
        await within(Promise.all(this.lanes), 12000, 'the storm to calm down');
        console.log(`# ${what}: ${this.welcomed} connections, ${this.checks} health checks, failed: ${JSON.stringify([...this.failed])}`);
        return [...this.failed];
    }
}

const shared = (n, more = {}) => ({ 'server.share_port': 'yes', 'server.node': `n${n}`, ...more });

await check(`${ROUNDS} restarts under a storm: not one connection refused or reset`, async () => {
    let old = await Halley.start({ workers: 2, set: shared(0) });
    const storm = new Storm(old.port, { slow: 50 });
    let before = 0;
    let least = Infinity;
    for (let round = 1; round <= ROUNDS; round++) {
        const viewer = await Native.in(old.port, 'a', { localAddress: `127.0.0.${2 + round}` });
        const next = await Halley.start({ port: old.port, workers: 1 + (round % 3), set: shared(round) });
        await pause(100);
        equal((await old.stop()).code, 0, 'exit code');
        await next.waitLog(/sharing the sockets/);
        assert(/another process serves the port/.test(old.log), 'it was a hand-over');
        if (!viewer.ws.close) viewer.destroy(); // the new one had accepted it
        else equal(viewer.ws.close.code, 1012, 'close code');
        await until(() => storm.welcomed > before + 200, 'the new one serves', 5000, 5);
        least = Math.min(least, storm.welcomed - before);
        before = storm.welcomed;
        old = next;
    }
    equal(await storm.stop(`${ROUNDS} restarts, at least ${least} connections in each`), [], 'failures');
    await old.stop();
}, 200000);

await check('the new one goes first: the old one serves on', async () => {
    const old = await Halley.start({ workers: 2, set: shared(1) });
    const storm = new Storm(old.port);
    for (let round = 0; round < 3; round++) {
        const next = await Halley.start({ port: old.port, workers: 2, set: shared(2) });
        await pause(100);
        equal((await next.stop()).code, 0, 'exit code');
        assert(/another process serves the port/.test(next.log), 'it was a hand-over');
    }
    equal(await storm.stop('three attempts taken back'), [], 'failures');
    await old.stop();
});

await check('the new one is killed: the old one loses nobody', async () => {
    const old = await Halley.start({ workers: 2, set: shared(1) });
    const next = await Halley.start({ port: old.port, workers: 2, set: shared(2) });
    next.told = true;
    next.child.kill('SIGKILL');
    await next.exit;
    const storm = new Storm(old.port);
    await pause(300);
    equal(await storm.stop('after a kill'), [], 'failures');
    const third = await Halley.start({ port: old.port, workers: 2, set: shared(3) });
    equal((await old.stop()).code, 0, 'exit code');
    assert(/another process serves the port/.test(old.log), 'a hand-over to the third');
    (await Native.open(third.port)).destroy();
    await third.stop();
});

await check('one that starts while the other drains already takes over from its 503s', async () => {
    const old = await Halley.start({ workers: 2, set: shared(1, { 'drain.rate': 1, 'drain.timeout': '8s' }) });
    const viewers = await Promise.all([2, 3, 4].map((i) => Native.open(old.port, { localAddress: `127.0.0.${i}` })));
    old.told = true;
    old.child.kill('SIGTERM');
    await until(async () => (await refusal(old.port, '/ws')).status === 503, 'the old one refuses');
    const next = await Halley.start({ port: old.port, workers: 2, set: shared(2) });
    await old.waitLog(/another process serves the port/);
    const storm = new Storm(old.port);
    await within(old.exit, 9000, 'the exit');
    equal(await storm.stop('behind a late successor'), [], 'failures');
    for (const viewer of viewers) equal((await viewer.closing()).code, 1012, 'close code');
    await next.stop();
});

await check('who was accepted by the old one before the hand-over is still served, the silent get a written 503', async () => {
    const old = await Halley.start({ workers: 1, set: shared(1, { 'drain.timeout': '3s' }) });
    const slow = await RawSocket.connect(old.port);
    const silent = await RawSocket.connect(old.port);
    await until(async () => (await old.metric('halley_handshaking')) === 2, 'both accepted');
    const next = await Halley.start({ port: old.port, workers: 1, set: shared(2) });
    old.told = true;
    old.child.kill('SIGTERM');
    await old.waitLog(/another process serves the port/);
    slow.socket.write(requestHead('/ws').text);
    const text = (await slow.readUntil((b) => b.includes('"op":"goodbye"'), 'welcome and goodbye')).toString();
    assert(text.startsWith('HTTP/1.1 101') && text.includes('"op":"welcome"'), text);
    const words = (await silent.readUntil((b) => b.includes('\r\n\r\n'), 'last words')).toString();
    assert(words.startsWith('HTTP/1.1 503 '), words);
    slow.destroy();
    silent.destroy();
    equal((await within(old.exit, 4000, 'the exit')).code, 0, 'exit code');
    await next.stop();
});

await check('ip-hash holds over restarts: one address meets one worker', async () => {
    const old = await Halley.start({ workers: 2, set: shared(1) });
    const next = await Halley.start({ port: old.port, workers: 2, set: shared(2) });
    await old.stop();
    for (let i = 2; i < 12; i++) {
        const viewers = await Promise.all(
            Array.from({ length: 6 }, () => Native.open(next.port, { localAddress: `127.0.0.${i}`, user: `u${i}` })),
        );
        const { connections } = (await next.http('GET', `/v1/users/u${i}/connections`)).json;
        equal([connections.length, new Set(connections.map((c) => c.worker)).size], [6, 1], 'connections and workers');
        viewers.forEach((v) => v.destroy());
    }
    await next.stop();
});

const listening = (...ports) => ({ 'server.listen': ports.map((port) => `127.0.0.1:${port}`).join(',') });
const connects = (port) => RawSocket.connect(port).then((socket) => socket.destroy() ?? 'ok', (error) => error.code);

await check('server.listen of the new one holds: what is new there opens, what is not goes with the old one', async () => {
    const [port, left, added] = [await freePort(), await freePort(), await freePort()];
    const old = await Halley.start({ port, workers: 2, set: shared(1, listening(port, left)) });
    const next = await Halley.start({ port, workers: 1, set: shared(2, listening(port, added)) });
    for (const each of [port, left, added]) (await Native.open(each)).destroy();
    await next.waitLog(new RegExp(`an address that server.listen lacks here.*127.0.0.1:${left}`));
    equal((await old.stop()).code, 0, 'exit code');
    assert(/another process serves the port/.test(old.log), 'it was a hand-over');
    for (const each of [port, added]) (await Native.open(each)).destroy();
    equal(await connects(left), 'ECONNREFUSED', 'an address that is no longer in server.listen');
    const last = await Halley.start({ port, workers: 3, set: shared(3, listening(port, left, added)) });
    equal((await next.stop()).code, 0, 'exit code');
    for (const each of [port, left, added]) (await Native.open(each)).destroy();
    await last.stop();
});

await check('a new address that another process has: exit 69, and the old one serves on', async () => {
    const other = await Halley.start({ workers: 1, set: shared(1) });
    const old = await Halley.start({ workers: 2, set: shared(2) });
    const next = await Halley.start({ port: old.port, set: shared(3, listening(old.port, other.port)), ready: false });
    next.told = true;
    equal((await within(next.exit, 8000, 'the exit')).code, 69, 'exit code');
    assert(new RegExp(`127.0.0.1:${other.port}: .*another process listens there`).test(next.log), next.log);
    for (const { port } of [other, old]) (await Native.open(port)).destroy();
    await old.stop();
    await other.stop();
});

await check('beside one that does not share: exit 69, either way round', async () => {
    const other = (port, share) =>
        freePort().then((admin) =>
            run(halleyBin, ['-o', `server.listen=127.0.0.1:${port}`, '-o', `admin.listen=127.0.0.1:${admin}`, '-o', `server.share_port=${share}`]),
        );
    const alone = await Halley.start({ workers: 1 });
    const refused = await other(alone.port, 'yes');
    equal(refused.code, 69, 'exit code beside one that has the port alone');
    assert(/does not share/.test(refused.stderr), refused.stderr);
    await alone.stop();
    const sharing = await Halley.start({ workers: 1, set: shared(1) });
    equal((await other(sharing.port, 'no')).code, 69, 'exit code beside one that shares');
    (await Native.open(sharing.port)).destroy();
    await sharing.stop();
});

const asUser = (id) => ['setpriv', `--reuid=${id}`, `--regid=${id}`, '--clear-groups'];
const users = 'another user gets no sockets; the same one does, in a user namespace of its own too';
if (process.getuid() !== 0) skip(users, 'needs root');
else
    await check(users, async () => {
        // As PrivateUsers=yes of the units does.
        const alone = (id) => [...asUser(id), 'unshare', '--user', '--map-current-user'];
        const old = await Halley.start({ workers: 1, prefix: alone(54321), set: shared(1) });
        const foreign = await Halley.start({ workers: 1, prefix: asUser(54322), port: old.port, set: shared(2), ready: false });
        foreign.told = true;
        equal((await within(foreign.exit, 8000, 'the exit')).code, 69, 'exit code of the other user');
        assert(/another user's daemon/.test(foreign.log), foreign.log);
        const next = await Halley.start({ workers: 1, prefix: alone(54321), port: old.port, set: shared(3) });
        equal((await old.stop()).code, 0, 'exit code');
        assert(/another process serves the port/.test(old.log), 'it was a hand-over');
        await next.stop();
    });

// What a .socket unit does: the socket is held by another process and passed to each service.
const HOLD = `
import socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(4096); print(s.fileno(), flush=True); time.sleep(600)`;
const PASS = `
import ctypes, os, sys
fd = ctypes.CDLL(None).syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0)
os.dup2(fd, 3); os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid())); os.execvp(sys.argv[3], sys.argv[3:])`;

await check('with a socket that systemd holds: restarts under a storm lose nobody', async () => {
    const port = await freePort();
    const holder = spawn('/usr/bin/python3', ['-c', HOLD, String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const undo = atEnd(() => holder.kill('SIGKILL'));
    const fd = String(await new Promise((resolve) => holder.stdout.once('data', resolve))).trim();
    const prefix = ['/usr/bin/python3', '-c', PASS, String(holder.pid), fd];
    const unknown = await freePort();
    let old = await Halley.start({ port, workers: 2, prefix, set: { 'server.node': 's0', ...listening(port, unknown) } });
    await old.waitLog(new RegExp(`systemd passed no socket of this address.*127.0.0.1:${unknown}`));
    equal(/systemd passed no/g.exec(old.log).length, 1, 'addresses without a socket');
    const storm = new Storm(port);
    for (let round = 1; round <= 5; round++) {
        const next = await Halley.start({ port, workers: 2, prefix, set: { 'server.node': `s${round}` } });
        await pause(100);
        equal((await old.stop()).code, 0, 'exit code');
        assert(/another process serves the port/.test(old.log), 'it was a hand-over');
        old = next;
    }
    equal(await storm.stop('5 restarts on an activated socket'), [], 'failures');
    await old.stop();
    await undo();
});

await finish();
