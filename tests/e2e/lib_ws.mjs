// lib_ws.mjs: a WebSocket client of our own that can also send what no decent client would.
//
// RawSocket is TCP with a readable inbox; WsRaw adds the handshake and frames (any frame, right or wrong); Native speaks Halley's
// native protocol on top. For clients that others wrote see test_native (ws), test_socketio, test_python and test_browser.

import crypto from 'node:crypto';
import net from 'node:net';

import { shorten, within } from './lib.mjs';

export const OP = { cont: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

// A TCP connection whose bytes and end can be waited for.
export class RawSocket {
    // halfOpen: its own side stays open when the peer ends (net would end it at once), so that it can still write.
    static async connect(port, { host = '127.0.0.1', localAddress, ms = 5000, halfOpen = false } = {}) {
        const self = new RawSocket();
        self.socket = net.connect({ port, host, localAddress, noDelay: true, allowHalfOpen: halfOpen });
        self.reads = 0;
        self.received = 0;
        self.ended = false;
        self.closed = false;
        self.error = null;
        self.listener = null;
        self.early = [];
        self.end = new Promise((resolve) => {
            const done = () => {
                self.ended = true;
                resolve();
            };
            self.socket.on('end', done);
            self.socket.on('close', () => {
                self.closed = true;
                done();
            });
        });
        const connected = new Promise((resolve, reject) => {
            self.socket.once('connect', resolve);
            self.socket.on('error', (error) => {
                self.error = error;
                reject(error);
            });
        });
        self.socket.on('data', (data) => {
            self.reads++;
            self.received += data.length;
            if (self.listener) self.listener(data);
            else self.early.push(data);
        });
        connected.catch(() => {});
        await within(connected, ms, `connecting to ${host}:${port}`);
        return self;
    }

    onData(listener) {
        this.listener = listener;
        for (const data of this.early.splice(0)) listener(data);
    }

    write(data) {
        return new Promise((resolve) => this.socket.write(data, () => resolve()));
    }

    // Everything until the peer closes, as one buffer.
    async readAll(ms = 5000) {
        const parts = [];
        this.onData((data) => parts.push(data));
        await within(this.end, ms, 'the end of the connection');
        return Buffer.concat(parts);
    }

    // Bytes until `done(buffer)` is truthy or the connection ends.
    async readUntil(done, what, ms = 5000) {
        let buffer = Buffer.alloc(0);
        const wait = new Promise((resolve) => {
            this.end.then(resolve);
            this.onData((data) => {
                buffer = Buffer.concat([buffer, data]);
                if (done(buffer)) resolve();
            });
        });
        await within(wait, ms, what);
        this.listener = null;
        return buffer;
    }

    pauseReading() {
        this.socket.pause();
    }

    resumeReading() {
        this.socket.resume();
    }

    reset() {
        this.socket.resetAndDestroy();
    }

    destroy() {
        this.socket.destroy();
    }
}

// ---- heads

export function requestHead(
    target,
    { host = '127.0.0.1', headers = {}, drop = [], version = 'HTTP/1.1', method = 'GET' } = {},
) {
    const all = {
        Host: host,
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
        ...headers,
    };
    for (const name of drop) delete all[name];
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    return { text: `${method} ${target} ${version}\r\n${lines.join('')}\r\n`, key: all['Sec-WebSocket-Key'] };
}

export function acceptOf(key) {
    return crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

export function parseResponse(buffer) {
    const end = buffer.indexOf('\r\n\r\n');
    if (end < 0) return null;
    const [status, ...lines] = buffer.toString('latin1', 0, end).split('\r\n');
    const headers = {};
    for (const line of lines) {
        const colon = line.indexOf(':');
        headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    return { status: Number(status.split(' ')[1]), line: status, headers, rest: buffer.subarray(end + 4) };
}

// Sends any bytes as a request and reads the answer to the connection's end or for as long as Content-Length says.
export async function rawRequest(port, bytes, { ms = 5000, localAddress } = {}) {
    const raw = await RawSocket.connect(port, { localAddress });
    try {
        raw.socket.write(bytes);
        const whole = (buffer) => {
            const head = parseResponse(buffer);
            if (!head) return false;
            return head.status === 101 || head.rest.length >= Number(head.headers['content-length'] ?? Infinity);
        };
        const buffer = await raw.readUntil(whole, 'an HTTP answer', ms);
        const answer = parseResponse(buffer);
        if (!answer) return { status: 0, headers: {}, text: buffer.toString('latin1'), ended: raw.ended };
        answer.text = answer.rest.toString();
        try {
            answer.json = JSON.parse(answer.text);
        } catch {
            answer.json = undefined;
        }
        return answer;
    } finally {
        raw.destroy();
    }
}

// A refused handshake: {status, headers, json}.
export function refusal(port, target, options = {}) {
    return rawRequest(port, requestHead(target, options).text, options);
}

// ---- frames

// Any frame, however wrong: fin, rsv (0-7), opcode, payload, masked, length (what the head claims), form ('16' or '64' for
// lengths that are longer than needed).
export function frame({
    fin = true,
    rsv = 0,
    opcode = OP.text,
    payload = Buffer.alloc(0),
    masked = true,
    length,
    form,
} = {}) {
    const bytes = Buffer.isBuffer(payload) ? payload : Buffer.from(payload);
    const claimed = length === undefined ? BigInt(bytes.length) : BigInt(length);
    const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
    const maskBit = masked ? 0x80 : 0;
    if (form === '64' || (!form && claimed > 65535n)) {
        const wide = Buffer.alloc(8);
        wide.writeBigUInt64BE(claimed);
        head.push(maskBit | 127, ...wide);
    } else if (form === '16' || (!form && claimed > 125n)) {
        head.push(maskBit | 126, Number(claimed >> 8n), Number(claimed & 255n));
    } else {
        head.push(maskBit | Number(claimed));
    }
    if (!masked) return Buffer.concat([Buffer.from(head), bytes]);
    const mask = crypto.randomBytes(4);
    const out = Buffer.allocUnsafe(head.length + 4 + bytes.length);
    out.set(head, 0);
    mask.copy(out, head.length);
    const start = head.length + 4;
    for (let i = 0; i < bytes.length; i++) out[start + i] = bytes[i] ^ mask[i & 3];
    return out;
}

export function closePayload(code, reason = '') {
    const text = Buffer.isBuffer(reason) ? reason : Buffer.from(reason);
    const payload = Buffer.alloc(2 + text.length);
    payload.writeUInt16BE(code);
    text.copy(payload, 2);
    return payload;
}

// Splits a server's byte stream into frames; anything that a server may not send is an error.
export class FrameReader {
    constructor(onFrame) {
        this.onFrame = onFrame;
        this.parts = [];
        this.size = 0;
        this.need = 2;
    }

    push(data) {
        this.parts.push(data);
        this.size += data.length;
        if (this.size < this.need) return;
        let buffer = this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
        for (;;) {
            const step = this.one(buffer);
            if (step === 0) break;
            buffer = buffer.subarray(step);
        }
        this.parts = buffer.length ? [buffer] : [];
        this.size = buffer.length;
    }

    // Bytes used by the first frame, or 0 with this.need set.
    one(buffer) {
        this.need = 2;
        if (buffer.length < 2) return 0;
        if (buffer[1] & 0x80) throw new Error('the gateway sent a masked frame');
        if (buffer[0] & 0x70) throw new Error(`the gateway set reserved bits: ${buffer[0].toString(16)}`);
        let length = buffer[1] & 0x7f;
        let head = 2;
        if (length === 126) {
            head = 4;
            if (buffer.length < head) return ((this.need = head), 0);
            length = buffer.readUInt16BE(2);
            if (length < 126) throw new Error('the gateway sent a length that is longer than needed');
        } else if (length === 127) {
            head = 10;
            if (buffer.length < head) return ((this.need = head), 0);
            length = Number(buffer.readBigUInt64BE(2));
            if (length < 65536) throw new Error('the gateway sent a length that is longer than needed');
        }
        if (buffer.length < head + length) return ((this.need = head + length), 0);
        this.onFrame({
            fin: (buffer[0] & 0x80) !== 0,
            opcode: buffer[0] & 0xf,
            payload: buffer.subarray(head, head + length),
        });
        return head + length;
    }
}

// A queue of what came in, with waiting for what comes.
class Inbox {
    constructor() {
        this.items = [];
        this.waiters = [];
        this.over = null;
    }

    push(item) {
        for (let i = 0; i < this.waiters.length; i++) {
            if (this.waiters[i].match(item)) {
                this.waiters.splice(i, 1)[0].resolve(item);
                return;
            }
        }
        this.items.push(item);
    }

    finish(why) {
        if (this.over) return;
        this.over = why;
        for (const waiter of this.waiters.splice(0))
            waiter.reject(new Error(`${why} while waiting for ${waiter.what}`));
    }

    // Takes the first item that matches, now or later; the others stay in their order.
    take(match, what, ms) {
        const index = this.items.findIndex(match);
        if (index >= 0) return Promise.resolve(this.items.splice(index, 1)[0]);
        if (this.over) return Promise.reject(new Error(`${this.over} while waiting for ${what}`));
        let waiter;
        const found = new Promise((resolve, reject) => {
            waiter = { match, what, resolve, reject };
            this.waiters.push(waiter);
        });
        return within(found, ms, what).catch((error) => {
            const at = this.waiters.indexOf(waiter);
            if (at >= 0) this.waiters.splice(at, 1);
            throw error;
        });
    }
}

// A WebSocket connection, frame by frame.
export class WsRaw {
    // options: headers, localAddress, autoPong (default true), keep (default true: frames are kept in the inbox), onFrame.
    static async open(port, target = '/ws', options = {}) {
        const self = new WsRaw();
        self.options = options;
        self.autoPong = options.autoPong !== false;
        self.inbox = new Inbox();
        self.counts = { frames: 0, pings: 0 };
        self.close = null;
        self.raw = await RawSocket.connect(port, options);
        self.closed = self.raw.end.then(() => {
            self.inbox.finish(
                self.close
                    ? `the gateway closed with ${self.close.code} "${self.close.reason}"`
                    : 'the connection ended without a close frame',
            );
            return self.close;
        });
        const head = requestHead(target, options);
        self.raw.socket.write(options.behind ? Buffer.concat([Buffer.from(head.text), options.behind]) : head.text);
        const buffer = await self.raw.readUntil(
            (b) => b.includes('\r\n\r\n'),
            'the answer to the handshake',
            options.ms || 5000,
        );
        self.firstRead = { reads: self.raw.reads, bytes: buffer };
        const answer = parseResponse(buffer);
        self.answer = answer;
        if (!answer || answer.status !== 101) {
            self.raw.destroy();
            const error = new Error(
                `handshake on ${target}: expected 101, got ${answer ? `${answer.line} ${answer.rest}` : shorten(buffer)}`,
            );
            error.status = answer?.status;
            throw error;
        }
        if (answer.headers['sec-websocket-accept'] !== acceptOf(head.key))
            throw new Error('wrong Sec-WebSocket-Accept');
        const reader = new FrameReader((f) => self.take(f));
        self.failure = null;
        const feed = (data) => {
            if (self.failure) return;
            try {
                reader.push(data);
            } catch (error) {
                self.failure = error;
                self.inbox.finish(error.message);
                self.raw.destroy();
            }
        };
        self.raw.onData(feed);
        if (answer.rest.length) feed(answer.rest);
        return self;
    }

    take(f) {
        this.counts.frames++;
        if (f.opcode === OP.ping) {
            this.counts.pings++;
            if (this.autoPong) this.send({ opcode: OP.pong, payload: f.payload });
        }
        if (f.opcode === OP.close) {
            this.close = {
                code: f.payload.length >= 2 ? f.payload.readUInt16BE(0) : null,
                reason: f.payload.subarray(2).toString(),
                payload: Buffer.from(f.payload),
            };
            if (this.options.answerClose !== false) this.send({ opcode: OP.close, payload: f.payload });
        }
        if (this.options.onFrame) this.options.onFrame(f, this);
        if (this.options.keep !== false) this.inbox.push(f);
    }

    write(bytes) {
        return this.raw.write(bytes);
    }

    send(f) {
        return this.raw.write(frame(f));
    }

    text(payload) {
        return this.send({ opcode: OP.text, payload });
    }

    next(match = () => true, what = 'a frame', ms = 5000) {
        return this.inbox.take(match, what, ms);
    }

    async nextText(what = 'a text frame', ms = 5000) {
        return (await this.next((f) => f.opcode === OP.text, what, ms)).payload.toString();
    }

    pong(payload, ms = 5000) {
        const bytes = Buffer.from(payload);
        return this.next((f) => f.opcode === OP.pong && f.payload.equals(bytes), `pong "${shorten(payload, 40)}"`, ms);
    }

    // Waits for the gateway's close frame and the end of TCP; resolves with {code, reason}, or null without a close frame.
    async closing(what = 'the close', ms = 5000) {
        await within(this.closed, ms, what);
        if (this.failure) throw this.failure;
        return this.close;
    }

    destroy() {
        this.raw.destroy();
    }
}

// ---- the native protocol

const refs = { next: 1 };

// A native viewer: messages and notices as objects, requests with their answers.
export class Native {
    // options: user, rooms (joined by the query), query (more of it), and those of WsRaw.
    static async open(port, options = {}) {
        const self = new Native();
        const query = new URLSearchParams(options.query || {});
        if (options.user) query.set('user', options.user);
        for (const room of options.rooms || []) query.append('room', room);
        const target = `/ws${query.size ? `?${query}` : ''}`;
        self.inbox = new Inbox();
        self.texts = options.texts ? [] : null;
        self.ws = await WsRaw.open(port, options.target || target, {
            ...options,
            keep: false,
            onFrame: (f) => self.take(f),
        });
        self.ws.closed.then(() =>
            self.inbox.finish(
                self.ws.close
                    ? `the gateway closed with ${self.ws.close.code} "${self.ws.close.reason}"`
                    : 'the connection ended without a close frame',
            ),
        );
        self.welcome = await self.next((m) => m.op === 'welcome', 'welcome', options.ms || 5000);
        return self;
    }

    // Opens a viewer that has joined the room.
    static async in(port, room, options = {}) {
        const self = await Native.open(port, options);
        await self.join(room);
        return self;
    }

    take(f) {
        if (f.opcode !== OP.text) return;
        const text = f.payload.toString();
        if (this.texts) this.texts.push(text);
        let message;
        try {
            message = JSON.parse(text);
        } catch (error) {
            this.inbox.finish(`the gateway sent no JSON: ${shorten(text)}`);
            return;
        }
        Object.defineProperty(message, '$text', { value: text, enumerable: false });
        this.inbox.push(message);
    }

    get received() {
        return this.inbox.items;
    }

    send(message) {
        return this.ws.text(typeof message === 'string' ? message : JSON.stringify(message));
    }

    next(match, what, ms = 5000) {
        return this.inbox.take(match, what, ms);
    }

    // The next room message (optionally of a type).
    message(type, ms = 5000) {
        return this.next(
            (m) => m.type !== undefined && (!type || m.type === type),
            `a message${type ? ` of type ${type}` : ''}`,
            ms,
        );
    }

    notice(op, ms = 5000) {
        return this.next((m) => m.op === op, `the notice ${op}`, ms);
    }

    // Sends an op with a fresh ref; resolves with its answer, whatever it is.
    // All in one write, so that the gateway reads them at the same time. Returns the answers, in order.
    async atOnce(messages, ms = 5000) {
        const asked = messages.map((message) => ({ ...message, ref: refs.next++ }));
        const answers = asked.map(({ ref }) => this.next((m) => m.ref === ref, `the answer to ${ref}`, ms));
        this.ws.write(Buffer.concat(asked.map((message) => frame({ payload: JSON.stringify(message) }))));
        return Promise.all(answers);
    }

    async request(message, ms = 5000) {
        const ref = refs.next++;
        await this.send({ ...message, ref });
        return this.next((m) => m.ref === ref, `the answer to ${shorten(JSON.stringify(message), 80)}`, ms);
    }

    async join(room, ms = 5000) {
        const answer = await this.request({ op: 'join', room }, ms);
        if (answer.op !== 'joined')
            throw new Error(`join ${room}: expected joined, got ${shorten(JSON.stringify(answer))}`);
        return answer;
    }

    async alive(ms = 5000) {
        const answer = await this.request({ op: 'ping' }, ms);
        if (answer.op !== 'pong') throw new Error(`expected pong, got ${shorten(JSON.stringify(answer))}`);
        return answer;
    }

    closing(what, ms) {
        return this.ws.closing(what, ms);
    }

    // An orderly close by the viewer.
    async bye(ms = 5000) {
        await this.ws.send({ opcode: OP.close, payload: closePayload(1000) });
        await within(this.ws.closed, ms, 'the close handshake');
        this.ws.destroy();
    }

    destroy() {
        this.ws.destroy();
    }
}
