#!/usr/bin/env node
// RFC 6455 to the letter on /echo: a small conformance suite of our own, in the usual categories (framing, pings, reserved bits,
// opcodes, fragmentation, UTF-8, closing, sizes). Each short case runs thrice: written at once, frame by frame, byte by byte.

import crypto from 'node:crypto';

import { Halley, OP, WsRaw, assert, check, closePayload, equal, finish, frame, sanitized, within } from './lib.mjs';

const halley = await Halley.start({
    workers: 1,
    set: { 'server.echo': 'yes', 'limits.message_bytes': '32m', 'limits.frame_timeout': '2m' },
});
const port = halley.port;

const text = (payload, more = {}) => ({ opcode: OP.text, payload, ...more });
const binary = (payload, more = {}) => ({ opcode: OP.binary, payload, ...more });
const cont = (payload, more = {}) => ({ opcode: OP.cont, payload, ...more });
const ping = (payload = '', more = {}) => ({ opcode: OP.ping, payload, ...more });
const pong = (payload = '', more = {}) => ({ opcode: OP.pong, payload, ...more });
const close = (payload = closePayload(1000), more = {}) => ({ opcode: OP.close, payload, ...more });
const more = { fin: false };
const bytes = (...list) => Buffer.from(list.flat());
const hex = (s) => Buffer.from(s.replace(/ /g, ''), 'hex');

// Reassembles data messages, so that an echo in fragments would be as good.
async function nextMessage(ws, what, ms) {
    const parts = [];
    let opcode;
    for (;;) {
        const f = await ws.next(() => true, what, ms);
        if (f.opcode >= 8) return f;
        if (parts.length === 0) opcode = f.opcode;
        parts.push(f.payload);
        if (f.fin) return { opcode, payload: parts.length === 1 ? parts[0] : Buffer.concat(parts) };
    }
}

async function writeBytewise(ws, wire) {
    for (let i = 0; i < wire.length && !ws.raw.ended; i++) {
        ws.raw.socket.write(wire.subarray(i, i + 1));
        await new Promise((resolve) => setImmediate(resolve));
    }
}

// expect: a list of frames {opcode, payload} to come back in this order; failure: the close code that must come instead of
// going on (then nothing of the rest needs to be read); without failure the connection must still echo afterwards, or `closed`
// tells with what payload the close must be answered.
async function play(c, mode) {
    const ws = await WsRaw.open(port, '/echo', { autoPong: false });
    try {
        const wires = c.frames.map((f) => (Buffer.isBuffer(f) ? f : frame(f)));
        if (mode === 'bytes') await writeBytewise(ws, Buffer.concat(wires));
        else if (mode === 'frames') for (const wire of wires) await ws.write(wire);
        else ws.write(Buffer.concat(wires));
        for (const [i, want] of (c.expect || []).entries()) {
            const got = await nextMessage(ws, `echo ${i + 1} of ${c.expect.length}`, c.ms || 5000);
            equal(
                [got.opcode, got.payload.length],
                [want.opcode, want.payload.length],
                `opcode and length of echo ${i + 1}`,
            );
            assert(got.payload.equals(want.payload), `echo ${i + 1} is not what was sent`);
        }
        if (c.failure) {
            const closed = await ws.closing(`the failure of the connection with ${c.failure}`);
            assert(closed, 'a close frame before the end of the connection');
            assert(
                [].concat(c.failure).includes(closed.code),
                `close code ${c.failure}, got ${closed.code} ${closed.reason}`,
            );
            equal(ws.inbox.items.filter((f) => f.opcode < 8).length, 0, 'messages echoed besides');
        } else if (c.closed) {
            const closed = await ws.closing('the answer to the close');
            assert(closed, 'a close frame in answer');
            assert(
                c.closed.some((p) => p.equals(closed.payload)),
                `close payload ${closed.payload.toString('hex')}`,
            );
            equal(ws.inbox.items.filter((f) => f.opcode < 8).length, 0, 'messages echoed besides');
        } else {
            await ws.text('still here?');
            equal(
                (await nextMessage(ws, 'the echo afterwards', 5000)).payload.toString(),
                'still here?',
                'echo afterwards',
            );
        }
    } finally {
        ws.destroy();
    }
}

async function suite(category, cases) {
    for (const c of cases) {
        const size = c.frames.reduce(
            (sum, f) => sum + (Buffer.isBuffer(f) ? f.length : Buffer.byteLength(f.payload || '')),
            0,
        );
        const modes = size <= 1500 ? ['whole', 'frames', 'bytes'] : ['whole'];
        await check(
            `${category}: ${c.name}`,
            async () => {
                for (const mode of modes) {
                    await play(c, mode).catch((error) => {
                        error.message = `(written ${mode}) ${error.message}`;
                        throw error;
                    });
                }
            },
            c.limit || 40000,
        );
    }
}

const echo = (opcode, payload) => ({ opcode, payload: Buffer.from(payload) });
const asText = (payload) => echo(OP.text, payload);
const asBinary = (payload) => echo(OP.binary, payload);
const asPong = (payload) => echo(OP.pong, payload);

// ---- 1 framing

const sizes = [0, 1, 124, 125, 126, 127, 128, 1000, 65535, 65536, 65537];
await suite(
    'framing',
    sizes.flatMap((size) => [
        { name: `text of ${size} bytes`, frames: [text('*'.repeat(size))], expect: [asText('*'.repeat(size))] },
        {
            name: `binary of ${size} bytes`,
            frames: [binary(Buffer.alloc(size, 0xfe))],
            expect: [asBinary(Buffer.alloc(size, 0xfe))],
        },
    ]),
);
for (const chop of [1, 2, 3, 7, 997, 4096, 65536]) {
    await check(`framing: 65,536 bytes written ${chop} at a time`, async () => {
        const ws = await WsRaw.open(port, '/echo');
        const payload = crypto.randomBytes(chop < 8 ? 8192 : 65536);
        const wire = frame(binary(payload));
        for (let at = 0; at < wire.length; at += chop) {
            ws.raw.socket.write(wire.subarray(at, at + chop));
            if (at % (chop * 16) === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        const got = await nextMessage(ws, 'the echo', 10000);
        assert(got.payload.equals(payload), 'the echo is what was sent');
        ws.destroy();
    });
}
await suite('framing', [
    {
        name: '200 messages in one write come back in order',
        frames: Array.from({ length: 200 }, (_, i) => text(`m${i}`)),
        expect: Array.from({ length: 200 }, (_, i) => asText(`m${i}`)),
    },
    { name: 'an unmasked frame fails with 1002', frames: [text('hi', { masked: false })], failure: 1002 },
    { name: 'an unmasked empty frame fails with 1002', frames: [text('', { masked: false })], failure: 1002 },
    { name: 'an unmasked ping fails with 1002', frames: [ping('x', { masked: false })], failure: 1002 },
    {
        name: 'a length in 16 bits that fits 7 fails with 1002',
        frames: [text('x'.repeat(125), { form: '16' })],
        failure: 1002,
    },
    {
        name: 'a length in 64 bits that fits 16 fails with 1002',
        frames: [text('x'.repeat(200), { form: '64' })],
        failure: 1002,
    },
    { name: 'a length of 2^63 fails', frames: [text('', { length: 2n ** 63n })], failure: [1002, 1009] },
    { name: 'a length of 2^64-1 fails', frames: [text('', { length: 2n ** 64n - 1n })], failure: [1002, 1009] },
    { name: 'a length of 2^63-1 fails with 1009', frames: [text('', { length: 2n ** 63n - 1n })], failure: 1009 },
    {
        name: 'one byte over limits.message_bytes fails at its head with 1009',
        frames: [binary('', { length: 32n * 1024n * 1024n + 1n })],
        failure: 1009,
    },
]);

// ---- 2 pings and pongs

await suite('pings', [
    { name: 'without payload', frames: [ping()], expect: [asPong('')] },
    { name: 'with text', frames: [ping('Hello, world!')], expect: [asPong('Hello, world!')] },
    {
        name: 'with bytes that are no UTF-8',
        frames: [ping(bytes(0, 0xff, 0xfe, 0xfd, 0xc0, 0))],
        expect: [asPong(bytes(0, 0xff, 0xfe, 0xfd, 0xc0, 0))],
    },
    { name: 'of 125 bytes', frames: [ping('*'.repeat(125))], expect: [asPong('*'.repeat(125))] },
    { name: 'of 126 bytes fails with 1002', frames: [ping('*'.repeat(126))], failure: 1002 },
    { name: 'an unsolicited pong is ignored', frames: [pong(), pong('unasked'), text('a')], expect: [asText('a')] },
    { name: 'an unsolicited pong, then a ping', frames: [pong('unasked'), ping('asked')], expect: [asPong('asked')] },
    { name: 'a pong of 126 bytes fails with 1002', frames: [pong('*'.repeat(126))], failure: 1002 },
]);
await check('pings: ten, each read before the next, are each answered', async () => {
    const ws = await WsRaw.open(port, '/echo');
    for (let i = 0; i < 10; i++) {
        await ws.send(ping(`p${i}`));
        await ws.pong(`p${i}`);
    }
    ws.destroy();
});
await check('pings: of ten at once at least the newest is answered, none wrongly or twice', async () => {
    const ws = await WsRaw.open(port, '/echo');
    await ws.write(Buffer.concat(Array.from({ length: 10 }, (_, i) => frame(ping(`p${i}`)))));
    await ws.text('end');
    const pongs = [];
    for (;;) {
        const f = await ws.next();
        if (f.opcode === OP.pong) pongs.push(Number(f.payload.toString().slice(1)));
        else break;
    }
    if (!pongs.includes(9)) pongs.push(Number((await ws.pong('p9')).payload.toString().slice(1)));
    equal(
        [...new Set(pongs)].sort((a, b) => a - b),
        pongs,
        'pongs in order',
    );
    ws.destroy();
});

// ---- 3 reserved bits

await suite(
    'reserved bits',
    [1, 2, 3, 4, 5, 6, 7].flatMap((rsv) => [
        { name: `RSV ${rsv} on text fails with 1002`, frames: [text('hi', { rsv })], failure: 1002 },
        { name: `RSV ${rsv} on a ping fails with 1002`, frames: [ping('hi', { rsv })], failure: 1002 },
        { name: `RSV ${rsv} on a close fails with 1002`, frames: [close(closePayload(1000), { rsv })], failure: 1002 },
    ]),
);
await suite('reserved bits', [
    {
        name: 'what came before is still echoed',
        frames: [text('good'), text('bad', { rsv: 4 })],
        expect: [asText('good')],
        failure: 1002,
    },
]);

// ---- 4 opcodes

await suite(
    'opcodes',
    [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].flatMap((opcode) => [
        {
            name: `reserved opcode ${opcode} without payload fails with 1002`,
            frames: [{ opcode, payload: '' }],
            failure: 1002,
        },
        {
            name: `reserved opcode ${opcode} after a message fails with 1002`,
            frames: [text('good'), { opcode, payload: 'x' }, ping()],
            expect: [asText('good')],
            failure: 1002,
        },
    ]),
);

// ---- 5 fragmentation

await suite('fragmentation', [
    { name: 'a fragmented ping fails with 1002', frames: [ping('a', more), cont('b')], failure: 1002 },
    { name: 'a fragmented pong fails with 1002', frames: [pong('a', more), cont('b')], failure: 1002 },
    { name: 'a fragmented close fails with 1002', frames: [close(closePayload(1000), more)], failure: 1002 },
    {
        name: 'two fragments are one message',
        frames: [text('frag1', more), cont('frag2')],
        expect: [asText('frag1frag2')],
    },
    {
        name: 'a ping between is answered before the message',
        frames: [text('frag1', more), ping('between'), cont('frag2')],
        expect: [asPong('between'), asText('frag1frag2')],
    },
    {
        name: 'a pong between is ignored',
        frames: [binary('a', more), pong('x'), cont('b', more), pong('y'), cont('c')],
        expect: [asBinary('abc')],
    },
    { name: 'empty fragments add nothing', frames: [text('', more), cont('', more), cont('')], expect: [asText('')] },
    {
        name: 'empty fragments around one that is not',
        frames: [text('', more), cont('middle', more), cont('')],
        expect: [asText('middle')],
    },
    { name: 'a continuation without a message fails with 1002', frames: [cont('x')], failure: 1002 },
    {
        name: 'a continuation without FIN and without a message fails with 1002',
        frames: [cont('x', more)],
        failure: 1002,
    },
    {
        name: 'a continuation after a whole message fails with 1002',
        frames: [text('whole'), cont('x')],
        expect: [asText('whole')],
        failure: 1002,
    },
    {
        name: 'a new text inside of a message fails with 1002',
        frames: [text('frag1', more), text('frag2')],
        failure: 1002,
    },
    {
        name: 'a new binary inside of a message fails with 1002',
        frames: [text('frag1', more), binary('frag2', more)],
        failure: 1002,
    },
    {
        name: 'two fragmented messages, one after the other',
        frames: [text('a', more), cont('b'), binary('c', more), cont('d')],
        expect: [asText('ab'), asBinary('cd')],
    },
    {
        name: 'a close inside of a message is answered',
        frames: [text('frag1', more), close()],
        closed: [closePayload(1000)],
    },
    {
        name: 'each byte of 300 in a frame of its own',
        frames: Array.from({ length: 300 }, (_, i) => (i === 0 ? text('x', more) : cont('x', { fin: i === 299 }))),
        expect: [asText('x'.repeat(300))],
    },
]);

// ---- 6 UTF-8

const valid = {
    'the empty text': '',
    'ASCII with NUL': 'Hello\u0000World',
    Greek: 'κόσμε',
    'the first and last of each length': '\u0000\u0080\u0800\u{10000}\u007f\u07ff\uffff\u{10ffff}',
    'around the surrogates': '\ud7ff\ue000\ufffd',
    noncharacters: '\ufffe\uffff\u{1fffe}\u{1ffff}\u{10fffe}\u{10ffff}',
    emoji: '😀👩‍👩‍👧‍👦🇩🇪',
};
await suite(
    'UTF-8',
    Object.entries(valid).flatMap(([name, payload]) => {
        const raw = Buffer.from(payload);
        const frames = raw.length
            ? [...raw].map((b, i) =>
                  i === 0 ? text(bytes(b), { fin: raw.length === 1 }) : cont(bytes(b), { fin: i === raw.length - 1 }),
              )
            : [text('')];
        return [
            { name: `${name} is echoed`, frames: [text(raw)], expect: [asText(raw)] },
            { name: `${name}, each byte a fragment`, frames, expect: [asText(raw)] },
        ];
    }),
);

const invalid = {
    'a lone continuation byte': '80',
    'a lone last continuation byte': 'bf',
    'a start without its continuation': 'c3 28',
    'an overlong NUL': 'c0 80',
    'an overlong slash in 2': 'c0 af',
    'an overlong slash in 3': 'e0 80 af',
    'an overlong slash in 4': 'f0 80 80 af',
    'the greatest overlong of 2': 'c1 bf',
    'the greatest overlong of 3': 'e0 9f bf',
    'the greatest overlong of 4': 'f0 8f bf bf',
    'a high surrogate': 'ed a0 80',
    'a low surrogate': 'ed bf bf',
    'a pair of surrogates': 'ed a0 80 ed b0 80',
    'past U+10FFFF': 'f4 90 80 80',
    'a start byte f5': 'f5 80 80 80',
    'five bytes': 'f8 88 80 80 80',
    'six bytes': 'fc 84 80 80 80 80',
    fe: 'fe',
    ff: 'ff',
    'an end inside of 2': 'c3',
    'an end inside of 3': 'e2 82',
    'an end inside of 4': 'f0 9f 98',
    'Greek, then a surrogate, then text': 'ce ba e1 bd b9 cf 83 ce bc ce b5 ed a0 80 65 64 69 74 65 64',
};
await suite(
    'UTF-8',
    Object.entries(invalid).flatMap(([name, code]) => [
        { name: `${name} fails with 1007`, frames: [text(hex(code))], failure: 1007 },
        {
            name: `${name} after ASCII fails with 1007`,
            frames: [text(Buffer.concat([Buffer.from('Hello '), hex(code)]))],
            failure: 1007,
        },
        {
            name: `${name}, each byte a fragment, fails with 1007`,
            frames: [...hex(code)].map((b, i) =>
                i === 0
                    ? text(bytes(b), { fin: hex(code).length === 1 })
                    : cont(bytes(b), { fin: i === hex(code).length - 1 }),
            ),
            failure: 1007,
        },
        { name: `${name} in binary is nobody's affair`, frames: [binary(hex(code))], expect: [asBinary(hex(code))] },
    ]),
);

// Fail-fast: the rest of the message never comes.
async function failsFast(writes, code) {
    const ws = await WsRaw.open(port, '/echo');
    for (const wire of writes) {
        await ws.write(wire);
        await new Promise((resolve) => setImmediate(resolve));
    }
    const closed = await ws.closing('the failure before the message is complete');
    equal(closed?.code, code, 'close code');
    ws.destroy();
}
// The first `count` bytes of a frame.
const head = (f, count) => frame(f).subarray(0, count);
const longText = Buffer.concat([hex('ce ba e1 bd b9 cf 83 ce bc ce b5'), hex('f4 90 80 80'), Buffer.alloc(3000, 0x65)]);

await check('UTF-8: fails fast inside of a frame: the frame is not complete', () =>
    failsFast([head(text(longText), 8 + 15)], 1007),
);
await check('UTF-8: fails fast at the byte that cannot be right (f4 90)', () =>
    failsFast([head(text(longText), 8 + 13)], 1007),
);
await check('UTF-8: fails fast in a short frame that is not complete', () =>
    failsFast([head(text(Buffer.concat([hex('ce ba f4 90'), Buffer.alloc(20, 0x65)])), 6 + 4)], 1007),
);
await check('UTF-8: fails fast in an open message: the last fragment is not there', () =>
    failsFast([frame(text('good', more)), frame(cont(hex('f4 90'), more))], 1007),
);
await check('UTF-8: fails fast byte by byte', async () => {
    const wire = frame(text(longText));
    await failsFast(
        Array.from({ length: 8 + 13 }, (_, i) => wire.subarray(i, i + 1)),
        1007,
    );
});
await check('UTF-8: a code point split by a ping between fragments is whole', async () => {
    await play(
        { frames: [text(hex('f0 9f'), more), ping('x'), cont(hex('98 80'))], expect: [asPong('x'), asText('😀')] },
        'frames',
    );
});
await check('an unmasked frame fails at its head, before its payload', () =>
    failsFast([head(text('x'.repeat(1000), { masked: false }), 4)], 1002),
);
await check('reserved bits fail at the head, before the payload', () =>
    failsFast([head(text('x'.repeat(1000), { rsv: 2 }), 8)], 1002),
);

// ---- 7 closing

const goodCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const badCodes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
await suite('closing', [
    {
        name: 'without a code is answered without a code or with 1000',
        frames: [close('')],
        closed: [Buffer.alloc(0), closePayload(1000)],
    },
    {
        name: 'with a reason of 123 bytes',
        frames: [close(closePayload(1000, '*'.repeat(123)))],
        closed: [closePayload(1000), closePayload(1000, '*'.repeat(123))],
    },
    {
        name: 'with a payload of 126 bytes fails with 1002',
        frames: [close(closePayload(1000, '*'.repeat(124)))],
        failure: 1002,
    },
    { name: 'with a payload of one byte fails with 1002', frames: [close(bytes(3))], failure: 1002 },
    {
        name: 'with a reason that is no UTF-8 fails with 1007',
        frames: [close(closePayload(1000, hex('ce ba ed a0 80 65')))],
        failure: [1007, 1002],
    },
    {
        name: 'what follows the close is not read: text',
        frames: [close(), text('too late')],
        closed: [closePayload(1000)],
    },
    {
        name: 'what follows the close is not read: ping',
        frames: [close(), ping('too late')],
        closed: [closePayload(1000)],
    },
    {
        name: 'what follows the close is not read: another close',
        frames: [close(), close(closePayload(1001))],
        closed: [closePayload(1000)],
    },
    {
        name: 'a message before the close is echoed first',
        frames: [text('first'), close()],
        expect: [asText('first')],
        closed: [closePayload(1000)],
    },
    ...goodCodes.map((code) => ({
        name: `code ${code} is answered with ${code}`,
        frames: [close(closePayload(code))],
        closed: [closePayload(code), closePayload(code, '')],
    })),
    ...badCodes.map((code) => ({
        name: `code ${code} fails with 1002`,
        frames: [close(closePayload(code))],
        failure: 1002,
    })),
]);
await check('closing: the gateway ends TCP first after the close handshake', async () => {
    const ws = await WsRaw.open(port, '/echo');
    await ws.send(close());
    await within(ws.closed, 5000, 'the end of TCP by the gateway');
    equal(ws.close.code, 1000, 'close code');
    ws.destroy();
});

// ---- 9 sizes

const random = crypto.randomBytes(1 << 20);
function big(size) {
    const out = Buffer.alloc(size);
    for (let at = 0; at < size; at += random.length) random.copy(out, at, 0, Math.min(random.length, size - at));
    return out;
}
const mib = 1 << 20;
const bigSizes = sanitized ? [1, 4] : [1, 4, 16];

for (const n of bigSizes) {
    await check(
        `sizes: binary of ${n} MiB in one frame comes back`,
        async () => {
            const payload = big(n * mib);
            await play({ frames: [binary(payload)], expect: [{ opcode: OP.binary, payload }], ms: 20000 }, 'whole');
        },
        60000,
    );
    await check(
        `sizes: text of ${n} MiB in one frame comes back`,
        async () => {
            const payload = Buffer.alloc(n * mib, 'κόσμε😀ab');
            await play(
                {
                    frames: [text(payload.subarray(0, payload.length - (payload.length % 16)))],
                    expect: [{ opcode: OP.text, payload: payload.subarray(0, payload.length - (payload.length % 16)) }],
                    ms: 20000,
                },
                'whole',
            );
        },
        60000,
    );
}
for (const size of [64, 4096, 65536]) {
    await check(
        `sizes: 4 MiB in fragments of ${size} bytes come back`,
        async () => {
            const payload = big(4 * mib);
            const wires = [];
            for (let at = 0; at < payload.length; at += size)
                wires.push(
                    frame({
                        opcode: at === 0 ? OP.binary : OP.cont,
                        fin: at + size >= payload.length,
                        payload: payload.subarray(at, at + size),
                    }),
                );
            await play(
                { frames: [Buffer.concat(wires)], expect: [{ opcode: OP.binary, payload }], ms: 30000 },
                'whole',
            );
        },
        60000,
    );
}
await check(
    'sizes: a message of 65,537 fragments of one byte comes back',
    async () => {
        const payload = Buffer.alloc(65537, 'abcdefghij');
        const wires = Array.from(payload, (b, i) =>
            frame({ opcode: i === 0 ? OP.text : OP.cont, fin: i === payload.length - 1, payload: bytes(b) }),
        );
        await play({ frames: [Buffer.concat(wires)], expect: [{ opcode: OP.text, payload }], ms: 20000 }, 'whole');
    },
    60000,
);
await check(
    'sizes: 65,537 empty fragments are an empty message',
    async () => {
        const wires = Array.from({ length: 65537 }, (_, i) =>
            frame({ opcode: i === 0 ? OP.text : OP.cont, fin: i === 65536, payload: '' }),
        );
        await play({ frames: [Buffer.concat(wires)], expect: [asText('')], ms: 20000 }, 'whole');
    },
    60000,
);
await check(
    'sizes: fragments whose sum passes limits.message_bytes fail with 1009',
    async () => {
        const part = Buffer.alloc(4 * mib, 'x');
        const ws = await WsRaw.open(port, '/echo');
        for (let i = 0; i < 9 && !ws.raw.ended; i++)
            ws.raw.socket.write(frame({ opcode: i === 0 ? OP.binary : OP.cont, fin: false, payload: part }));
        equal((await ws.closing('the failure', 20000))?.code, 1009, 'close code');
        ws.destroy();
    },
    60000,
);
await check(
    'sizes: while the echo of 16 MiB is not read, its sender is not read either; then all of it comes',
    async () => {
        const ws = await WsRaw.open(port, '/echo', { keep: true });
        const payload = big(8 * mib);
        ws.raw.pauseReading();
        ws.raw.socket.write(frame(binary(payload)));
        ws.raw.socket.write(frame(binary(payload)));
        const sent = new Promise((resolve) => ws.raw.socket.write(frame(text('last')), resolve));
        ws.raw.resumeReading();
        for (let i = 0; i < 2; i++)
            assert(
                (await nextMessage(ws, `echo ${i + 1}`, 20000)).payload.equals(payload),
                `echo ${i + 1} is what was sent`,
            );
        equal((await nextMessage(ws, 'the last echo', 10000)).payload.toString(), 'last', 'last echo');
        await sent;
        ws.destroy();
    },
    60000,
);
await check(
    'performance: 2,000 messages of 1 KB come back in order',
    async () => {
        const ws = await WsRaw.open(port, '/echo');
        const payload = (i) => `${i}`.padEnd(1024, '.');
        for (let i = 0; i < 2000; i++) ws.raw.socket.write(frame(text(payload(i))));
        for (let i = 0; i < 2000; i++)
            equal((await nextMessage(ws, 'an echo', 20000)).payload.toString(), payload(i), 'echo');
        ws.destroy();
    },
    60000,
);

await finish();
