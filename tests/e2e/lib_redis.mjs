// lib_redis.mjs: a real redis-server that a test may kill and start again, and a small client for it.

import { spawn } from 'node:child_process';
import net from 'node:net';

import { atEnd, freePort, shorten, tempDir, until, within } from './lib.mjs';

// One reply at `at`: [value, next offset], or null when it is not complete.
function parseReply(buffer, at) {
    const end = buffer.indexOf('\r\n', at);
    if (end < 0) return null;
    const line = buffer.toString('utf8', at + 1, end);
    const next = end + 2;
    switch (buffer[at]) {
        case 0x2b:
            return [line, next];
        case 0x2d:
            return [new Error(line), next];
        case 0x3a:
            return [Number(line), next];
        case 0x24: {
            const length = Number(line);
            if (length < 0) return [null, next];
            if (buffer.length < next + length + 2) return null;
            return [buffer.toString('utf8', next, next + length), next + length + 2];
        }
        case 0x2a: {
            const items = [];
            let offset = next;
            for (let i = 0; i < Number(line); i++) {
                const item = parseReply(buffer, offset);
                if (!item) return null;
                items.push(item[0]);
                offset = item[1];
            }
            return [items, offset];
        }
        default:
            throw new Error(`not a Redis reply: ${shorten(line)}`);
    }
}

export function encodeCommand(args) {
    const parts = [Buffer.from(`*${args.length}\r\n`)];
    for (const arg of args) {
        const bytes = Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg));
        parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'));
    }
    return Buffer.concat(parts);
}

// A pipelining connection.
export class RedisClient {
    static async connect(port) {
        const self = new RedisClient();
        self.pending = [];
        self.rest = Buffer.alloc(0);
        self.socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
        await within(
            new Promise((resolve, reject) => {
                self.socket.once('connect', resolve);
                self.socket.once('error', reject);
            }),
            5000,
            'connecting to Redis',
        );
        self.socket.on('data', (data) => self.take(data));
        self.socket.on('error', () => {});
        self.socket.on('close', () => {
            self.closed = true;
            for (const { reject } of self.pending.splice(0)) reject(new Error('the connection to Redis closed'));
        });
        return self;
    }

    take(data) {
        this.rest = this.rest.length ? Buffer.concat([this.rest, data]) : data;
        let at = 0;
        for (;;) {
            const reply = at < this.rest.length ? parseReply(this.rest, at) : null;
            if (!reply) break;
            at = reply[1];
            const { resolve, reject } = this.pending.shift();
            if (reply[0] instanceof Error) reject(reply[0]);
            else resolve(reply[0]);
        }
        this.rest = this.rest.subarray(at);
    }

    command(...args) {
        if (this.closed) return Promise.reject(new Error('the connection to Redis is closed'));
        const answer = new Promise((resolve, reject) => this.pending.push({ resolve, reject }));
        this.socket.write(encodeCommand(args));
        return answer;
    }

    close() {
        this.socket.destroy();
    }
}

export class Redis {
    // appendOnly: what it answered to survives kill() and restart().
    static async start({ password, appendOnly } = {}) {
        const self = new Redis();
        self.port = await freePort();
        self.password = password;
        self.dir = appendOnly ? tempDir() : null;
        await self.launch();
        atEnd(() => self.kill());
        return self;
    }

    get url() {
        return this.password ? `redis://:${this.password}@127.0.0.1:${this.port}` : `redis://127.0.0.1:${this.port}`;
    }

    async launch() {
        const args = [
            '--save',
            '',
            '--appendonly',
            this.dir ? 'yes' : 'no',
            '--appendfsync',
            'always',
            '--port',
            String(this.port),
            '--bind',
            '127.0.0.1',
            '--daemonize',
            'no',
            '--loglevel',
            'warning',
        ];
        if (this.dir) args.push('--dir', this.dir);
        if (this.password) args.push('--requirepass', this.password);
        this.child = spawn('redis-server', args, { stdio: 'ignore' });
        const child = this.child;
        this.exit = new Promise((resolve) => {
            child.once('exit', resolve);
            child.once('error', resolve);
        });
        this.client = await until(
            () => RedisClient.connect(this.port),
            `redis-server answering on port ${this.port}`,
            10000,
            20,
        );
        if (this.password) await this.client.command('AUTH', this.password);
        await until(async () => (await this.client.command('PING')) === 'PONG', 'redis-server loaded', 10000);
    }

    command(...args) {
        return within(this.client.command(...args), 10000, `the reply of Redis to ${args[0]}`);
    }

    // Resolves with the number of subscribers that got it.
    publish(channel, message) {
        return this.command(
            'PUBLISH',
            channel,
            typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message),
        );
    }

    room(room, message) {
        return this.publish(`halley:room:{${room}}`, message);
    }

    high(room, message) {
        return this.publish(`halley:high:{${room}}`, message);
    }

    async subscribers(channel) {
        return Number((await this.command('PUBSUB', 'NUMSUB', channel))[1]);
    }

    async kill(signal = 'SIGKILL') {
        this.client?.close();
        if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
        await this.exit;
    }

    // The same port again; empty, unless it is append-only.
    restart() {
        return this.launch();
    }
}
