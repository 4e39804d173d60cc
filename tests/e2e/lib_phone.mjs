// lib_phone.mjs: viewers of the native protocol by the thousand, that come back as docs/protocol.md's recipe for resume says.
//
// Lean: of a room message only its id is looked at. What must not happen (a hole, a repeat, a gap that is final) is counted.

import net from 'node:net';

import { requestHead } from './lib.mjs';

function maskedText(text) {
    const payload = Buffer.from(text);
    const head = payload.length < 126 ? Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]) : Buffer.alloc(8);
    if (payload.length >= 126) {
        head[0] = 0x81;
        head[1] = 0x80 | 126;
        head.writeUInt16BE(payload.length, 2);
    }
    return Buffer.concat([head, payload]); // masked with zeros
}

export class Phone {
    // pick(): the port to connect to, asked each time. session: {room, counts}, shared by many.
    constructor(pick, room, counts) {
        this.pick = pick;
        this.room = room;
        this.counts = counts;
        this.have = null; // lane letter to {epoch, n}
        this.healing = false;
        this.joined = false;
        this.over = false;
    }

    connect() {
        if (this.over) return;
        this.rest = null;
        this.upgraded = false;
        this.joined = false;
        const socket = net.connect({ port: this.pick(), host: '127.0.0.1', noDelay: true });
        this.socket = socket;
        socket.on('connect', () => {
            this.counts.connects++;
            socket.write(requestHead('/ws').text);
        });
        socket.on('data', (data) => this.socket === socket && this.take(data));
        socket.on('error', () => {});
        socket.on('close', () => {
            if (this.socket !== socket || this.over) return;
            this.timer = setTimeout(() => this.connect(), 50 + Math.random() * 250);
        });
    }

    drop() {
        const socket = this.socket;
        this.socket = null;
        clearTimeout(this.timer);
        socket?.destroy();
    }

    close() {
        this.over = true;
        this.drop();
    }

    take(data) {
        let buffer = this.rest ? Buffer.concat([this.rest, data]) : data;
        let at = 0;
        if (!this.upgraded) {
            const end = buffer.indexOf('\r\n\r\n');
            if (end < 0) {
                this.rest = buffer;
                return;
            }
            this.upgraded = true;
            at = end + 4;
            this.join();
        }
        while (buffer.length - at >= 2) {
            let length = buffer[at + 1] & 0x7f;
            let head = 2;
            if (length === 126) {
                if (buffer.length - at < 4) break;
                length = buffer.readUInt16BE(at + 2);
                head = 4;
            }
            if (buffer.length - at < head + length) break;
            this.frame(buffer, buffer[at] & 0x0f, at + head, at + head + length);
            if (!this.socket) return;
            at += head + length;
        }
        this.rest = at < buffer.length ? buffer.subarray(at) : null;
    }

    frame(buffer, opcode, from, to) {
        if (opcode === 8) {
            const code = to - from >= 2 ? buffer.readUInt16BE(from) : 0;
            this.counts.closes[code] = (this.counts.closes[code] || 0) + 1;
            this.socket.end();
            return;
        }
        if (opcode !== 1) return;
        const start = buffer.latin1Slice(from, Math.min(to, from + 160));
        const id = start.startsWith('{"type"') ? start.indexOf('"id":"') : -1;
        if (id >= 0) this.message(start.slice(id + 6, start.indexOf('"', id + 6)));
        else if (start.startsWith('{"op"')) this.notice(JSON.parse(buffer.toString('utf8', from, to)));
    }

    message(id) {
        if (this.healing || !this.joined) return;
        const lane = id[0];
        const dot = id.indexOf('.', 2);
        const epoch = id.slice(2, dot);
        const n = Number(id.slice(dot + 1));
        const last = this.have[lane];
        this.counts.messages++;
        if (last && last.epoch === epoch && n !== last.n + 1) {
            this.counts[n <= last.n ? 'repeats' : 'holes']++;
            if (this.counts.wrong.length < 5) this.counts.wrong.push(`${id} after ${last.n}`);
        }
        this.have[lane] = { epoch, n };
        if (this.onMessage) this.onMessage(lane, n);
    }

    list() {
        return Object.entries(this.have).map(([lane, { epoch, n }]) => `${lane}.${epoch}.${n}`);
    }

    join() {
        const join = { op: 'join', room: this.room, ref: 1 };
        if (this.have) join.after = this.list();
        this.sent = join.after || [];
        this.healing = true;
        this.socket.write(maskedText(JSON.stringify(join)));
    }

    notice(message) {
        if (message.op === 'joined') {
            // What it goes on from is what was asked for, unless history does not reach back so far.
            for (const id of this.sent) if (!message.after.includes(id)) this.counts.lost++;
            this.have = {};
            for (const id of message.after) {
                const [lane, epoch, n] = id.split('.');
                this.have[lane] = { epoch, n: Number(n) };
            }
            this.healing = false;
            this.joined = true;
            if (this.onJoined) this.onJoined();
        } else if (message.op === 'skipped' && message.room === this.room) {
            this.counts.skipped++;
            if (!this.healing) this.join();
        } else if (message.op === 'gap' && message.room === this.room) {
            if (message.after) this.counts.gaps++; // else a lane without history
            if (message.after && !this.healing) this.join();
        } else if (message.op === 'error') {
            this.counts.errors[message.code] = (this.counts.errors[message.code] || 0) + 1;
            const socket = this.socket;
            setTimeout(() => this.socket === socket && socket && this.join(), message.retry_after_ms || 500);
        }
    }
}

export function newCounts() {
    return {
        connects: 0,
        messages: 0,
        holes: 0,
        repeats: 0,
        skipped: 0,
        gaps: 0,
        lost: 0,
        closes: {},
        errors: {},
        wrong: [],
    };
}
