#!/usr/bin/env node
// The daemon as operators meet it: options, exit codes, conf errors, reload, stop, logs.

import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

import {
    Halley,
    Native,
    WsRaw,
    assert,
    atEnd,
    check,
    equal,
    finish,
    freePort,
    halleyBin,
    rawRequest,
    refusal,
    run,
    tempDir,
    until,
} from './lib.mjs';

const dir = tempDir();
let files = 0;
function confFile(text) {
    const file = path.join(dir, `conf-${++files}.conf`);
    fs.writeFileSync(file, text);
    return file;
}
const halley = (...args) => run(halleyBin, args);
const both = (result) => result.stdout + result.stderr;

// ---- options and exit codes

await check('-V prints the version and exits 0', async () => {
    const result = await halley('-V');
    equal(result.code, 0, 'exit code');
    assert(/halley \d+\.\d+|halley dev/.test(result.stdout), `the version, got ${result.stdout}`);
});

await check('-t with the built-in conf exits 0 and prints the worst-case memory', async () => {
    const result = await halley('-t');
    equal(result.code, 0, `exit code (${both(result).slice(-300)})`);
    assert(/memory|bytes|MB|MiB/i.test(result.stdout + result.stderr), 'lines about memory');
});

await check('-t -c with a good file exits 0', async () => {
    const result = await halley(
        '-t',
        '-c',
        confFile('server { workers = 2 }\ntype poke { lane = high max_bytes = 1k }\nlane low { interval = 200ms }\n'),
    );
    equal(result.code, 0, `exit code (${both(result).slice(-300)})`);
});

await check('unknown options and stray arguments exit 64 with a usage line', async () => {
    for (const args of [['--nope'], ['-x'], ['stray'], ['-c'], ['-o']]) {
        const result = await halley(...args);
        equal(result.code, 64, `exit code of ${args.join(' ')}`);
        assert(/usage|halley \[/i.test(both(result)), `a usage line, got ${both(result)}`);
    }
});

await check('-h or --help tells the options and exits 0', async () => {
    const result = await halley('--help');
    equal(result.code, 0, 'exit code');
    for (const option of ['-c', '-o', '-t', '-V', '--doctor'])
        assert(both(result).includes(option), `${option} is told`);
});

await check('--doctor prints a line per check', async () => {
    const result = await halley('--doctor');
    assert([0, 1].includes(result.code), `exit code 0 or 1, got ${result.code}`);
    for (const word of [
        'nofile',
        'somaxconn',
        'tcp_mem',
        'tcp_sack',
        'tcp_timestamps',
        'port_range',
    ])
        assert(both(result).includes(word), `${word} is looked at`);
    const shared = await halley('--doctor', '-o', 'server.share_port=yes');
    assert(!both(shared).includes('tcp_migrate_req'), 'nothing that a hand-over does not need is asked for');
});

for (const [name, text, expected] of [
    [
        'an unknown key names file, line, key and the nearest one',
        '\nserver {\n  wrokers = 2\n}\n',
        [/:3\b/, 'wrokers', 'workers'],
    ],
    ['an unknown section', 'sever { workers = 2 }\n', [/:1\b/, 'sever']],
    [
        'a value out of range names the value and the range',
        'server {\n  workers = 900\n}\n',
        [/:2\b/, 'server.workers', '900', '64'],
    ],
    ['a duration without a unit', 'heartbeat {\n  interval = 25\n}\n', [/:2\b/, 'heartbeat.interval', '25']],
    [
        'an unknown choice lists the choices',
        'server { accept = nearest }\n',
        [/:1\b/, 'server.accept', 'nearest', 'ip-hash', 'spread'],
    ],
    [
        'route = queue is not there yet: what is allowed is listed',
        'type gift { route = queue }\n',
        ['route', 'queue', 'none', 'broadcast'],
    ],
    ['a syntax error', 'server {\n  workers = \n', [/:\d/]],
    ['an unknown lane', 'lane urgent { interval = 0 }\n', ['urgent', 'high', 'normal', 'low']],
    ['a broker URL of another scheme', 'broker { url = "rediss://127.0.0.1:6379" }\n', ['broker.url', 'TLS']],
    ['a listen address that is none', 'server { listen = {"nowhere"} }\n', ['server.listen', 'nowhere']],
]) {
    await check(`a conf with ${name}: -t and start exit 78`, async () => {
        const file = confFile(text);
        for (const args of [
            ['-t', '-c', file],
            ['-c', file],
        ]) {
            const result = await halley(...args);
            equal(result.code, 78, `exit code of ${args[0]}`);
            assert(both(result).includes(path.basename(file)), `the file's name, got ${both(result)}`);
            for (const part of expected)
                assert(
                    part instanceof RegExp ? part.test(both(result).replaceAll(dir, '')) : both(result).includes(part),
                    `${part} in ${both(result)}`,
                );
        }
    });
}

await check('all problems of a file are listed, not just the first', async () => {
    const result = await halley(
        '-t',
        '-c',
        confFile('server {\n  workers = 900\n  backlog = 1\n}\nflush { slice = 1 }\n'),
    );
    equal(result.code, 78, 'exit code');
    for (const key of ['server.workers', 'server.backlog', 'flush.slice'])
        assert(both(result).includes(key), `${key} in ${both(result)}`);
});

await check('a conf file that is not there exits 78 and names it', async () => {
    const result = await halley('-t', '-c', '/nonexistent/halley.conf');
    equal(result.code, 78, 'exit code');
    assert(both(result).includes('/nonexistent/halley.conf'), both(result));
});

await check('-o: an unknown key, a bad value, no value exit 78 (or 64) and name it', async () => {
    for (const override of [
        'server.wrokers=2',
        'server.workers=900',
        'type.gift.lane=urgent',
        'lane.urgent.ttl=1s',
        'nonsense',
    ]) {
        const result = await halley('-t', '-o', override);
        assert([78, 64].includes(result.code), `exit code of -o ${override}: 78 expected, got ${result.code}`);
        assert(both(result).includes(override.split('=')[0]), `the key in ${both(result)}`);
    }
});

await check('-o overrides the file, the last -o wins, types and lanes too, lists by commas', async () => {
    const [one, two] = [await freePort(), await freePort()];
    const node = await Halley.start({
        conf: confFile('server { workers = 1 }\nheartbeat { interval = 20s }\n'),
        set: { 'server.listen': `127.0.0.1:${one},127.0.0.1:${two}` },
        args: [
            '-o',
            'heartbeat.interval=9s',
            '-o',
            'heartbeat.interval=7s',
            '-o',
            'type.gift.lane=low',
            '-o',
            'lane.normal.interval=50ms',
            '-o',
            'type.poke.route=broadcast',
        ],
    });
    const conf = (await node.http('GET', '/v1/config')).json;
    equal([conf.type.gift.lane, Object.hasOwn(conf.type, 'poke')], ['low', true], 'types in /v1/config');
    for (const port of [one, two]) {
        const viewer = await Native.open(port);
        equal(viewer.welcome.heartbeat.interval_ms, 7000, 'interval in welcome');
        await viewer.join('poke');
        equal(
            (await viewer.request({ op: 'send', room: 'poke', type: 'poke', data: 1 })).op,
            'ack',
            'send of a type made by -o',
        );
        viewer.destroy();
    }
    equal((await node.stop()).code, 0, 'exit code');
});

await check('an admin listener beyond loopback without a token exits 78, with one it starts', async () => {
    const port = await freePort();
    const refused = await halley('-t', '-o', `admin.listen=0.0.0.0:${port}`);
    equal(refused.code, 78, 'exit code');
    assert(both(refused).includes('admin.token'), both(refused));
    const node = await Halley.start({
        workers: 1,
        adminPort: port,
        set: { 'admin.listen': `0.0.0.0:${port}`, 'admin.token': 'secret-1' },
    });
    equal((await node.stop()).code, 0, 'exit code');
});

await check('auth.mode = open beyond loopback warns loudly', async () => {
    const node = await Halley.start({ workers: 1, host: '0.0.0.0' });
    await node.waitLog(/warn.*auth\.mode|auth\.mode.*open/i);
    await node.stop();
});

// ---- ports

await check("a second daemon on the viewers' port exits 69 and says which port; the first lives", async () => {
    const first = await Halley.start({ workers: 2 });
    const second = await halley(
        '-o',
        `server.listen=127.0.0.1:${first.port}`,
        '-o',
        `admin.listen=127.0.0.1:${await freePort()}`,
    );
    equal(second.code, 69, 'exit code');
    assert(second.stderr.includes(String(first.port)), second.stderr);
    for (let i = 0; i < 8; i++) (await Native.open(first.port, { localAddress: `127.0.0.${2 + i}` })).destroy();
    await first.stop();
});

await check('an admin port that is taken exits 69', async () => {
    const port = await freePort();
    const server = net.createServer();
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
    const result = await halley(
        '-o',
        `server.listen=127.0.0.1:${await freePort()}`,
        '-o',
        `admin.listen=127.0.0.1:${port}`,
    );
    server.close();
    equal(result.code, 69, 'exit code');
    assert(result.stderr.includes(String(port)), result.stderr);
});

await check("a viewers' port that another program listens on exits 69", async () => {
    const port = await freePort();
    const server = net.createServer();
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
    const result = await halley(
        '-o',
        `server.listen=127.0.0.1:${port}`,
        '-o',
        `admin.listen=127.0.0.1:${await freePort()}`,
    );
    server.close();
    equal(result.code, 69, 'exit code');
});

await check('an address that this host does not have exits 69', async () => {
    const result = await halley(
        '-o',
        'server.listen=203.0.113.7:1314',
        '-o',
        `admin.listen=127.0.0.1:${await freePort()}`,
    );
    equal(result.code, 69, 'exit code');
});

await check('share_port = yes: two daemons share the port', async () => {
    const first = await Halley.start({ workers: 1, set: { 'server.share_port': 'yes' } });
    const second = await Halley.start({ workers: 1, port: first.port, set: { 'server.share_port': 'yes' } });
    await first.stop();
    (await Native.open(second.port)).destroy();
    await second.stop();
});

await check('port 0: the kernel picks, the log tells', async () => {
    const node = await Halley.start({
        ready: false,
        workers: 2,
        set: { 'server.listen': '127.0.0.1:0', 'admin.listen': '127.0.0.1:0' },
    });
    const [, port] = await node.waitLog(/listening .*address=127\.0\.0\.1:([1-9]\d*)/);
    await until(() => Native.open(Number(port)).then((v) => (v.destroy(), true)), 'a viewer on the port of the log');
    await node.stop();
});

await check('IPv6: a viewer on [::1]; both families at once', async () => {
    const port = await freePort();
    const node = await Halley.start({ workers: 2, set: { 'server.listen': `127.0.0.1:${port},[::1]:${port}` } });
    const six = await Native.in(port, 'v6', { host: '::1' });
    const four = await Native.in(port, 'v6');
    await node.publish('v6', { type: 'chat', data: 6 });
    equal([(await six.message()).data, (await four.message()).data], [6, 6], 'messages');
    six.destroy();
    four.destroy();
    await node.stop();
});

await check('server.accept = spread serves too', async () => {
    const node = await Halley.start({ workers: 2, set: { 'server.accept': 'spread' } });
    const viewers = await Promise.all(Array.from({ length: 20 }, () => Native.in(node.port, 'spread')));
    await node.publish('spread', { type: 'chat', data: 1 });
    for (const viewer of viewers) await viewer.message();
    for (const viewer of viewers) viewer.destroy();
    await node.stop();
});

// ---- reload

await check('SIGHUP: a good file takes effect, viewers stay', async () => {
    const file = confFile('limits { rooms_per_viewer = 2 }\ntype poke { route = none }\n');
    const node = await Halley.start({ workers: 2, conf: file });
    const viewers = await Promise.all(
        [2, 3, 4, 5].map((i) => Native.in(node.port, 'a', { localAddress: `127.0.0.${i}` })),
    );
    equal((await viewers[0].request({ op: 'send', room: 'a', type: 'poke' })).code, 'forbidden', 'code before');
    fs.writeFileSync(file, 'limits { rooms_per_viewer = 4 }\ntype poke { route = broadcast }\n');
    const from = node.log.length;
    node.child.kill('SIGHUP');
    await node.waitLog(/reload/i, 5000, from);
    await until(
        async () => (await node.metric('halley_reloads_total', 'result="ok"')) === 1,
        'halley_reloads_total{result="ok"} = 1',
    );
    equal(
        (await node.http('GET', '/v1/config')).json.limits.rooms_per_viewer,
        4,
        'limits.rooms_per_viewer in /v1/config',
    );
    for (const viewer of viewers) {
        await until(
            async () => (await viewer.request({ op: 'send', room: 'a', type: 'poke' })).op === 'ack',
            'the new route on this worker',
        );
        await viewer.join('b');
        await viewer.join('c');
        viewer.destroy();
    }
    await node.stop();
});

await check('SIGHUP: a broken file changes nothing and says file, line, key and range', async () => {
    const file = confFile('limits {\n  rooms_per_viewer = 2\n}\n');
    const node = await Halley.start({ workers: 2, conf: file });
    const viewer = await Native.in(node.port, 'a');
    const before = (await node.http('GET', '/v1/config')).text;
    fs.writeFileSync(file, 'limits {\n  rooms_per_viewer = 99999\n  json_depth = 16\n}\n');
    node.child.kill('SIGHUP');
    await node.waitLog(/limits\.rooms_per_viewer/);
    await until(
        async () => (await node.metric('halley_reloads_total', 'result="failed"')) === 1,
        'halley_reloads_total{result="failed"} = 1',
    );
    for (const part of [`${path.basename(file)}:2`, '99999', '1024'])
        assert(node.log.includes(part), `${part} in the log`);
    equal((await node.http('GET', '/v1/config')).text, before, '/v1/config');
    fs.rmSync(file);
    node.child.kill('SIGHUP');
    await until(
        async () => (await node.metric('halley_reloads_total', 'result="failed"')) === 2,
        'a file that is gone counts as failed too',
    );
    equal((await node.http('GET', '/v1/config')).text, before, '/v1/config');
    await node.publish('a', { type: 'chat', data: 1 });
    await viewer.message();
    viewer.destroy();
    await node.stop();
});

await check('SIGHUP: a key that needs a restart is named, the rest takes effect', async () => {
    const file = confFile('server { workers = 1 }\n');
    const node = await Halley.start({ conf: file });
    fs.writeFileSync(file, 'server { workers = 2 }\nlimits { rooms_per_viewer = 7 }\n');
    const from = node.log.length;
    node.child.kill('SIGHUP');
    await node.waitLog(/server\.workers/, 5000, from);
    await until(
        async () => (await node.http('GET', '/v1/config')).json.limits.rooms_per_viewer === 7,
        'limits.rooms_per_viewer',
    );
    await node.stop();
});

await check('SIGHUP: overrides of the command line stay on top', async () => {
    const file = confFile('limits { rooms_per_viewer = 2 }\n');
    const node = await Halley.start({ workers: 1, conf: file, set: { 'limits.rooms_per_viewer': 5 } });
    fs.writeFileSync(file, 'limits { rooms_per_viewer = 3\n json_depth = 20 }\n');
    node.child.kill('SIGHUP');
    await until(async () => (await node.http('GET', '/v1/config')).json.limits.json_depth === 20, 'the reload');
    equal((await node.http('GET', '/v1/config')).json.limits.rooms_per_viewer, 5, 'limits.rooms_per_viewer');
    await node.stop();
});

// ---- stop

for (const signal of ['SIGTERM', 'SIGINT']) {
    await check(`${signal}: viewers get goodbye, then close 1012; the exit code is 0`, async () => {
        const node = await Halley.start({ workers: 2 });
        const viewers = await Promise.all(
            [2, 3, 4, 5].map((i) => Native.in(node.port, 'a', { localAddress: `127.0.0.${i}` })),
        );
        const socketio = await WsRaw.open(node.port, '/socket.io/?transport=websocket');
        const half = net.connect(node.port, '127.0.0.1');
        half.on('error', () => {});
        half.write('GET /ws HT');
        node.child.kill(signal);
        for (const viewer of viewers) {
            const goodbye = await viewer.notice('goodbye');
            equal(goodbye.reason, 'drain', 'reason');
            assert(
                Number.isInteger(goodbye.retry_after_ms) && goodbye.retry_after_ms >= 0,
                `retry_after_ms, got ${goodbye.retry_after_ms}`,
            );
            equal((await viewer.closing()).code, 1012, 'close code');
        }
        await socketio.closing('the close of the Socket.IO viewer');
        const texts = socketio.inbox.items.filter((f) => f.opcode === 1).map((f) => f.payload.toString());
        assert(!texts.includes('41'), 'no 41: those clients would never come back');
        equal(await node.stop(), { code: 0, signal: null }, 'exit');
        half.destroy();
    });
}

await check('SIGTERM with a viewer that never reads: gone within drain.timeout', async () => {
    const node = await Halley.start({ workers: 1, set: { 'drain.timeout': '1s' } });
    const viewer = await Native.in(node.port, 'stuck');
    viewer.ws.raw.pauseReading();
    for (let i = 0; i < 300; i++) await node.publish('stuck', { type: 'chat', data: 'x'.repeat(8000) });
    const started = Date.now();
    equal((await node.stop(8000)).code, 0, 'exit code');
    assert(
        Date.now() - started < 6000 || process.env.HALLEY_BIN?.includes('san'),
        'within drain.timeout and some change',
    );
    viewer.destroy();
});

await check('after SIGTERM the port is free at once', async () => {
    const node = await Halley.start({ workers: 2 });
    const viewer = await Native.open(node.port);
    await node.stop();
    viewer.destroy();
    const again = await Halley.start({ workers: 2, port: node.port });
    (await Native.open(again.port)).destroy();
    await again.stop();
});

// ---- logs and health

await check('log.format = json: every line is one JSON object with time, level and event', async () => {
    const node = await Halley.start({ workers: 2, set: { 'log.format': 'json', 'log.level': 'debug' } });
    const viewer = await Native.open(node.port, { user: 'evil<script>' });
    await viewer.send('{');
    await viewer.notice('error');
    viewer.destroy();
    await refusal(node.port, '/x%22%0a');
    await node.stop();
    const lines = node.log.trimEnd().split('\n');
    assert(lines.length >= 2, `some lines, got ${lines.length}`);
    for (const line of lines) {
        let entry;
        try {
            entry = JSON.parse(line);
        } catch {
            throw new Error(`not JSON: ${line}`);
        }
        assert(
            /^\d{4}-\d\d-\d\dT/.test(entry.time) &&
                ['debug', 'info', 'warn', 'error'].includes(entry.level) &&
                typeof entry.event === 'string',
            `time, level and event in ${line}`,
        );
    }
});

await check('log.format = text: one event a line; under journald a priority leads', async () => {
    const node = await Halley.start({ workers: 1, env: { JOURNAL_STREAM: '1:2' } });
    await node.stop();
    for (const line of node.log.trimEnd().split('\n'))
        assert(/^<[34567]>/.test(line), `a priority at the head of ${line}`);
});

await check('what a peer can cause does not fill the log: 300 bad handshakes leave at most 60 lines', async () => {
    const node = await Halley.start({ workers: 2 });
    const before = node.log.split('\n').length;
    for (let i = 0; i < 300; i++) await rawRequest(node.port, 'GET / HTTP/1.0\r\n\r\n');
    const lines = node.log.split('\n').length - before;
    assert(lines <= 60, `at most 60 lines, got ${lines}`);
    await node.stop();
});

await check('a broker away at start: served all the same, /readyz 503, the log says why', async () => {
    const node = await Halley.start({
        ready: false,
        workers: 1,
        set: { 'broker.url': `redis://127.0.0.1:${await freePort()}` },
    });
    await until(async () => (await node.http('GET', '/healthz')).status === 200, '/healthz 200');
    equal((await node.http('GET', '/readyz')).status, 503, '/readyz');
    await node.waitLog(/broker|redis/i);
    const viewer = await Native.open(node.port);
    await viewer.alive();
    viewer.destroy();
    equal((await node.stop()).code, 0, 'exit code');
});

await check('the soft file limit is raised to the hard one, and that is said', async () => {
    const node = await Halley.start({ workers: 1, prefix: ['prlimit', '--nofile=300:2000'] });
    const limits = fs.readFileSync(`/proc/${node.pid}/limits`, 'utf8');
    assert(/Max open files\s+2000\s+2000/.test(limits), 'soft = hard = 2000');
    const limit = await node.metric('halley_connections_limit');
    assert(limit > 500 && limit <= 2000, `limits.connections sized by it, got ${limit}`);
    assert(/2000/.test(node.log) && node.log.includes(String(limit)), 'the log says both numbers');
    await node.stop();
});

await check(
    'systemd: READY=1 comes when it listens, WATCHDOG=1 while all workers tick, STOPPING=1 at the end',
    async () => {
        // A datagram socket of Unix: Python has them, Node has not.
        const socketPath = path.join(dir, 'notify');
        const { spawn } = await import('node:child_process');
        const listener = spawn(
            '/usr/bin/python3',
            [
                '-uc',
                'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("bound",flush=True)\nwhile True: print(s.recv(4096).decode().replace("\\n"," "),flush=True)',
                socketPath,
            ],
            { stdio: ['ignore', 'pipe', 'ignore'] },
        );
        const undo = atEnd(() => listener.kill('SIGKILL'));
        let seen = '';
        listener.stdout.on('data', (data) => (seen += data));
        await until(() => seen.includes('bound'), 'the notify socket');
        const node = await Halley.start({ workers: 2, env: { NOTIFY_SOCKET: socketPath, WATCHDOG_USEC: '1000000' } });
        await until(() => seen.includes('READY=1'), 'READY=1');
        await until(() => seen.split('WATCHDOG=1').length > 3, 'three WATCHDOG=1', 5000);
        await node.stop();
        await until(() => seen.includes('STOPPING=1'), 'STOPPING=1');
        await undo();
    },
);

await finish();
