// lib.mjs: what every end-to-end test needs: checks with a time limit, free ports, the daemon under test.
//
// A test file registers its checks with check() and ends with `await finish()`. Each check prints one line, `ok <name>` or
// `not ok <name>: why`; the exit status is 1 when any failed. When something failed, the last lines that the daemons wrote to
// stderr follow as comments.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export * from './lib_ws.mjs';
export * from './lib_redis.mjs';

export const here = path.dirname(fileURLToPath(import.meta.url));
export const root = path.resolve(here, '../..');
export const halleyBin = process.env.HALLEY_BIN || path.join(root, 'build/release/halley');

// Sanitized builds are several times slower; limits of time (never of what is promised) stretch with this.
export const slowness = /asan|tsan/.test(halleyBin) ? 4 : 1;
export const sanitized = slowness > 1;

// A command before a program that stands for a machine of its own: what else runs here, and be it the test, is not to take its cores. Only
// root may do so; for others nice says that it can't, and runs the program all the same.
export const ahead = ['nice', '-n', '-15'];

const cleanups = new Set();
const daemons = [];
let failed = 0;

// ---- checks

// Rejects with `what` when the promise is not settled within ms.
export function within(promise, ms, what) {
    let timer;
    const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms * slowness} ms`)), ms * slowness);
    });
    return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

export function assert(condition, why) {
    if (!condition) throw new Error(typeof why === 'function' ? why() : why);
}

export function equal(got, expected, what) {
    const a = JSON.stringify(got);
    const b = JSON.stringify(expected);
    if (a !== b) throw new Error(`${what}: expected ${shorten(b)}, got ${shorten(a)}`);
}

export function shorten(text, max = 300) {
    const s = String(text);
    return s.length > max ? `${s.slice(0, max)}… (${s.length} characters)` : s;
}

function report(name, error) {
    if (!error) {
        console.log(`ok ${name}`);
        return;
    }
    failed++;
    console.log(`not ok ${name}: ${shorten(error.message || error, 1000).replace(/\s*\n\s*/g, ' | ')}`);
    const where = /at .*\/(test_[^)\n]*)/.exec(error.stack || '');
    if (where) console.log(`# at ${where[1]}`);
}

// Runs one check; what it opened with `open` is closed behind it, whatever happened.
export async function check(name, fn, ms = 30000) {
    let error = null;
    try {
        await within(Promise.resolve().then(fn), ms, 'the check as a whole');
    } catch (e) {
        error = e || new Error('unknown');
    }
    report(name, error);
    return !error;
}

export function skip(name, why) {
    console.log(`ok ${name} # skip ${why}`);
}

// Registers something to be undone at the end; the returned function undoes it early.
export function atEnd(fn) {
    cleanups.add(fn);
    return async () => {
        if (cleanups.delete(fn)) await fn();
    };
}

async function cleanUp() {
    for (const fn of [...cleanups].reverse()) {
        cleanups.delete(fn);
        try {
            await within(Promise.resolve().then(fn), 15000, 'cleaning up');
        } catch (error) {
            console.log(`# ${error.message}`);
        }
    }
}

export async function finish() {
    await cleanUp();
    for (const daemon of daemons) {
        const broken = /Sanitizer|broken invariant|runtime error:/.exec(daemon.log);
        if (daemon.died) report('no daemon ends by itself', new Error(`${daemon.died}; ${daemon.command}`));
        if (broken)
            report(
                `no sanitizer report or broken invariant (${daemon.name})`,
                new Error(daemon.log.slice(broken.index, broken.index + 900)),
            );
    }
    if (failed) {
        for (const daemon of daemons) {
            for (const line of daemon.log.trimEnd().split('\n').slice(-25)) console.log(`# ${daemon.name}: ${line}`);
        }
    }
    process.exit(failed ? 1 : 0);
}

for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
        failed++;
        console.log(`not ok ${path.basename(process.argv[1])} as a whole: stopped by ${signal}`);
        finish();
    });
}
process.on('unhandledRejection', (error) => {
    report(`${path.basename(process.argv[1])} as a whole`, error);
    finish();
});

// ---- waiting

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Whether a bucket of `burst` tokens that gains `rate` a second let through what it must and may: its burst at least, and at most that and what it
// gained since `from` (performance.now() before the first was sent), however slow this machine is. One more for clocks that tick milliseconds.
export function checkBucket(passed, { tried, burst, rate, from }, what) {
    const most = Math.floor(burst + (rate * (performance.now() - from)) / 1000) + 1;
    const least = Math.min(tried, burst);
    assert(passed >= least && passed <= most, `${what}: ${passed} of ${tried} passed, ${least} to ${most} may`);
}

// Asks again and again, for states that announce themselves by no event (a metric, a port). Returns the first truthy answer.
export async function until(ask, what, ms = 5000, every = 20) {
    const end = Date.now() + ms * slowness;
    let last;
    for (;;) {
        try {
            const answer = await ask();
            if (answer) return answer;
            last = undefined;
        } catch (error) {
            last = error;
        }
        if (Date.now() > end)
            throw new Error(`${what}: not so within ${ms * slowness} ms${last ? ` (${last.message})` : ''}`);
        await pause(every);
    }
}

// ---- ports

const taken = new Set();

// A port below the range that the kernel gives to outgoing connections, so that none of ours takes it meanwhile.
export async function freePort() {
    for (let tries = 0; tries < 200; tries++) {
        const port = 10000 + Math.floor(Math.random() * 22000);
        if (taken.has(port)) continue;
        taken.add(port);
        const free = await new Promise((resolve) => {
            const server = net.createServer();
            server.once('error', () => resolve(false));
            server.listen({ port, host: '0.0.0.0' }, () => server.close(() => resolve(true)));
        });
        if (free) return port;
    }
    throw new Error('no free port found in 200 tries');
}

export function tempDir() {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'halley-e2e-'));
    atEnd(() => fs.rmSync(dir, { recursive: true, force: true }));
    return dir;
}

// ---- processes

// Runs a program to its end: {code, signal, stdout, stderr}.
export function run(command, args, { ms = 20000, input } = {}) {
    return new Promise((resolve, reject) => {
        const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
        let stdout = '';
        let stderr = '';
        const timer = setTimeout(() => child.kill('SIGKILL'), ms * slowness);
        child.stdout.on('data', (data) => (stdout += data));
        child.stderr.on('data', (data) => (stderr += data));
        child.on('error', reject);
        child.on('close', (code, signal) => {
            clearTimeout(timer);
            resolve({ code, signal, stdout, stderr });
        });
        child.stdin.on('error', () => {});
        child.stdin.end(input || '');
    });
}

function readProc(pid, file) {
    return fs.readFileSync(`/proc/${pid}/${file}`, 'utf8');
}

// The daemon under test.
export class Halley {
    constructor(name) {
        this.name = name;
        this.log = '';
        this.exited = null;
        daemons.push(this);
    }

    // options: args (more command line), set ({key: value} for -o), workers, conf (file), env, prefix (command before the daemon,
    // e.g. prlimit), ready (false: do not wait), host, adminHost, port, adminPort, redis.
    static async start(options = {}) {
        const self = new Halley(options.name || `halley${daemons.length + 1}`);
        self.host = options.host || '127.0.0.1';
        self.port = options.port || (await freePort());
        self.adminPort = options.adminPort || (await freePort());
        const set = {
            'server.listen': `${self.host}:${self.port}`,
            'admin.listen': `127.0.0.1:${self.adminPort}`,
            'drain.notice': 0, // no load balancer has to notice
            'drain.rate': 100000,
            'drain.timeout': '10s',
            ...(options.workers ? { 'server.workers': options.workers } : {}),
            ...(options.redis ? { 'broker.url': options.redis.url } : {}),
            ...(options.set || {}),
        };
        const args = [];
        if (options.conf) args.push('-c', options.conf);
        for (const [key, value] of Object.entries(set)) if (value !== null) args.push('-o', `${key}=${value}`);
        args.push(...(options.args || []));
        const command = [...(options.prefix || []), halleyBin, ...args];
        self.command = command.join(' ');
        self.spawn(command, options.env);
        if (options.ready !== false) await self.waitReady();
        return self;
    }

    spawn(command, env = {}) {
        this.child = spawn(command[0], command.slice(1), {
            stdio: ['ignore', 'ignore', 'pipe'],
            env: { ...process.env, JOURNAL_STREAM: undefined, ...env },
        });
        this.pid = this.child.pid;
        this.waiting = [];
        this.child.stderr.on('data', (data) => {
            this.log += data;
            for (const wake of this.waiting.splice(0)) wake();
        });
        this.exit = new Promise((resolve) => {
            this.child.on('error', (error) => {
                this.log += `cannot start ${command[0]}: ${error.message}\n`;
                resolve((this.exited = { code: -1, signal: null }));
            });
            this.child.on('close', (code, signal) => {
                this.exited = { code, signal };
                if (!this.told && code !== 0)
                    this.died = `${this.name} ended by itself with ${signal || `exit code ${code}`}`;
                for (const wake of this.waiting.splice(0)) wake();
                resolve(this.exited);
            });
        });
        this.undo = atEnd(() => this.kill());
    }

    get ws() {
        return `ws://${this.host}:${this.port}/ws`;
    }

    alive() {
        return !this.exited;
    }

    async waitReady(ms = 10000) {
        await until(
            async () => {
                if (this.exited) return true;
                return (await this.http('GET', '/readyz')).status === 200;
            },
            `${this.name} ready (GET /readyz on port ${this.adminPort})`,
            ms,
        );
        if (this.exited)
            throw new Error(
                `the daemon exited with ${this.exited.code ?? this.exited.signal} at start: ${shorten(this.log.slice(-600), 600)}`,
            );
    }

    // Resolves with the match of a log line that is there or comes.
    waitLog(pattern, ms = 5000, from = 0) {
        const look = async () => {
            for (;;) {
                const match = pattern.exec(this.log.slice(from));
                if (match) return match;
                if (this.exited) throw new Error(`the daemon ended without a log line like ${pattern}`);
                await new Promise((wake) => this.waiting.push(wake));
            }
        };
        return within(look(), ms, `a log line like ${pattern}`);
    }

    // SIGTERM; SIGKILL when it does not obey. Resolves with {code, signal}.
    async stop(ms = 12000) {
        this.told = true;
        if (!this.exited) {
            this.child.kill('SIGTERM');
            try {
                await within(this.exit, ms, `${this.name} to stop after SIGTERM`);
            } catch (error) {
                this.child.kill('SIGKILL');
                await this.exit;
                throw error;
            }
        }
        return this.exited;
    }

    async kill() {
        if (this.exited) return;
        this.told = true;
        this.child.kill('SIGTERM');
        const timer = setTimeout(() => this.child.kill('SIGKILL'), 3000 * slowness);
        await this.exit;
        clearTimeout(timer);
    }

    // ---- admin HTTP

    http(method, target, { body, headers = {}, port = this.adminPort, host = '127.0.0.1', ms = 10000 } = {}) {
        const payload =
            body === undefined
                ? undefined
                : Buffer.isBuffer(body) || typeof body === 'string'
                  ? body
                  : JSON.stringify(body);
        const ask = new Promise((resolve, reject) => {
            const request = http.request(
                {
                    method,
                    host,
                    port,
                    path: target,
                    headers: {
                        ...(payload === undefined ? {} : { 'Content-Length': Buffer.byteLength(payload) }),
                        ...headers,
                    },
                    agent: false,
                },
                (response) => {
                    const parts = [];
                    response.on('data', (data) => parts.push(data));
                    response.on('error', reject);
                    response.on('end', () => {
                        const text = Buffer.concat(parts).toString();
                        let json;
                        try {
                            json = JSON.parse(text);
                        } catch {
                            json = undefined;
                        }
                        resolve({ status: response.statusCode, headers: response.headers, text, json });
                    });
                },
            );
            request.on('error', reject);
            request.end(payload);
        });
        return within(ask, ms, `${method} ${target}`);
    }

    // Publishes into a room (null: to all) over HTTP; a string goes out as it is.
    async publish(room, message, { headers } = {}) {
        const target = room === null ? '/v1/messages' : `/v1/rooms/${encodeURIComponent(room)}/messages`;
        const answer = await this.http('POST', target, { body: message, headers });
        assert(
            answer.status === 202,
            () => `POST ${target}: expected 202, got ${answer.status} ${shorten(answer.text)}`,
        );
        return answer;
    }

    // All samples: Map of `name{labels}` to number.
    async metrics() {
        const answer = await this.http('GET', '/metrics');
        assert(answer.status === 200, `GET /metrics: expected 200, got ${answer.status}`);
        const samples = new Map();
        for (const line of answer.text.split('\n')) {
            const match = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$/.exec(line);
            if (match) samples.set(match[1], Number(match[2]));
        }
        return samples;
    }

    // Sum over the samples of a metric whose labels contain `labels`.
    async metric(name, labels = '') {
        let sum = 0;
        let found = false;
        for (const [key, value] of await this.metrics()) {
            if (key !== name && !key.startsWith(`${name}{`)) continue;
            if (labels && !key.includes(labels)) continue;
            sum += value;
            found = true;
        }
        assert(found, `no metric ${name}{${labels}} in /metrics`);
        return sum;
    }

    async viewers() {
        return this.metric('halley_viewers');
    }

    // ---- the process

    rssBytes() {
        return Number(/VmRSS:\s+(\d+) kB/.exec(readProc(this.pid, 'status'))[1]) * 1024;
    }

    // CPU seconds used so far.
    cpu() {
        const fields = readProc(this.pid, 'stat')
            .replace(/^.*\) /, '')
            .split(' ');
        return (Number(fields[11]) + Number(fields[12])) / 100;
    }

    openFiles() {
        return fs.readdirSync(`/proc/${this.pid}/fd`).length;
    }
}
