#!/usr/bin/env node
// `data` arrives byte for byte, whichever way it came in and whoever reads it.

import { Halley, Native, Redis, WsRaw, assert, check, equal, finish } from './lib.mjs';

const redis = await Redis.start();
const halley = await Halley.start({
    redis,
    workers: 1,
    set: { 'limits.viewer_rate': 1000, 'limits.viewer_burst': 1000, 'presence.enabled': 'no' }, // frames are taken one by one
});
const room = 'bytes';

const viewer = await Native.in(halley.port, room, { user: 'v' });

// Engine.IO 3 joins by the query: nothing to answer.
const socketio = await WsRaw.open(halley.port, `/socket.io/?transport=websocket&user=s&room=${room}`);
for (let joined = false; !joined;) joined = (await socketio.nextText('joined over Socket.IO')).includes('"joined"');

const samples = {
    0.1: '0.1',
    '1e2': '1e2',
    '1E+2': '1E+2',
    '-0': '-0',
    '-0.0e-0': '-0.0e-0',
    'an unsigned 64-bit number': '18446744073709551615',
    'a number past every type': '123456789012345678901234567890.00000000000000000001e400',
    '"\\u0000"': '"\\u0000"',
    'escapes left as they are': '"\\u0041\\/\\"\\\\\\b\\f\\n\\r\\t"',
    'a lone surrogate escape': '"\\ud83d"',
    'a surrogate pair escape': '"\\ud83d\\ude00"',
    'duplicate keys': '{"a":1,"a":2,"a":{"a":3,"a":4}}',
    '4-byte UTF-8': '"😀𝄞\u{10ffff}"',
    'two- and three-byte UTF-8': '"é☃\u2028\u2029\ufeff"',
    'DEL and C1 controls': '"\u007f\u0080\u009f"',
    'nested white space': '{ "a" :\t[ 1 ,\n 2 , { } , [ ] ]\r\n , "b" : "x" }',
    true: 'true',
    false: 'false',
    null: 'null',
    'an empty string': '""',
    'an empty object': '{}',
    'an empty array': '[]',
    'names that the envelope uses': '{"type":"x","room":"y","from":"z","op":"welcome","data":0.10}',
    'something that looks like an end': '"}]}"',
    'a member name with escapes': '{"\\u0061":1}',
    'nesting of 20': `${'['.repeat(20)}${']'.repeat(20)}`,
    '15 KB': JSON.stringify('x'.repeat(15000)),
};

// The raw text of data in what arrived: it is the last member of the object.
function dataOf(text) {
    const at = text.indexOf('"data":');
    assert(at > 0, `a message with data, got ${text.slice(0, 200)}`);
    return text.slice(at + 7, -1);
}

async function both(publish, data) {
    await publish();
    const message = await viewer.next((m) => m.type === 'chat', 'the message');
    equal(dataOf(message.$text), data, 'data at a native viewer');
    const event = await socketio.nextText('the event');
    assert(event.startsWith('42["chat",{') && event.endsWith('}]'), `an event, got ${event.slice(0, 100)}`);
    equal(dataOf(event.slice(0, -1)), data, 'data at a Socket.IO viewer');
}

for (const [name, data] of Object.entries(samples)) {
    await check(`data byte for byte from Redis: ${name}`, () =>
        both(() => redis.room(room, `{"type":"chat","data":${data}}`), data),
    );
    await check(`data byte for byte over HTTP: ${name}`, () =>
        both(() => halley.publish(room, `{"type":"chat","data":${data}}`), data),
    );
    await check(`data byte for byte from a viewer: ${name}`, () =>
        both(() => viewer.send(`{"op":"send","room":"${room}","type":"chat","data":${data}}`), data),
    );
}

await check('white space around data is no part of it; members may come in any order', () =>
    both(() => redis.room(room, ' {\n"data" :  [ 1.0 ]\t,"x":[1],"type"\n: "ch\\u0061t" } \n'), '[ 1.0 ]'),
);

await check('data from a Socket.IO viewer: byte for byte', () =>
    both(() => socketio.text(`42["send",{"room":"${room}","type":"chat","data":{ "n" : 0.10 }}]`), '{ "n" : 0.10 }'),
);

await check('from: characters that are allowed arrive as they are', async () => {
    const from = " !#$%&'()*+,-./09:;<=>?@AZ[]^_`az{|}~";
    await redis.room(room, { type: 'chat', from, data: 1 });
    equal((await viewer.message('chat')).from, from, 'from at a native viewer');
    equal(JSON.parse((await socketio.nextText()).slice(2))[1].from, from, 'from at a Socket.IO viewer');
});

await check('id of a message is passed on', async () => {
    await redis.room(room, { type: 'chat', id: 'n.x7k2.1042', data: 1 });
    equal((await viewer.message('chat')).id, 'n.x7k2.1042', 'id');
    await socketio.nextText();
});

await check('a message without data arrives without data', async () => {
    await redis.room(room, '{"type":"chat"}');
    equal((await viewer.message('chat')).$text, `{"type":"chat","room":"${room}"}`, 'text');
    equal(await socketio.nextText(), `42["chat",{"room":"${room}"}]`, 'event');
});

await finish();
