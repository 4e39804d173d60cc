#!/usr/bin/env node
// Headless Chromium: a page with the browser's own WebSocket, and pages with socket.io-client 4, 2 and 1.
//
// No driver is needed: the page tells what it sees by POST to a small server of this test.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';

import { Halley, atEnd, check, equal, finish, freePort, here, shorten, tempDir, within } from './lib.mjs';

const halley = await Halley.start({ workers: 2 });
const count = 300;

const report = `
function tell(what) { return fetch('/tell', { method: 'POST', body: JSON.stringify(what) }); }
window.onerror = (message) => tell({ error: String(message) });
`;

const nativePage = (room) => `<!doctype html><meta charset="utf-8"><script>${report}
const got = [], ws = new WebSocket('ws://127.0.0.1:${halley.port}/ws?user=chromium', 'halley.v1.json');
ws.onerror = () => tell({ error: 'WebSocket error' });
ws.onclose = (e) => tell({ closed: e.code, clean: e.wasClean, got });
ws.onmessage = (e) => {
    const m = JSON.parse(e.data);
    if (m.op === 'welcome') ws.send(JSON.stringify({ op: 'join', room: '${room}', ref: 1 }));
    if (m.op === 'joined') tell({ ready: true, protocol: ws.protocol, user: 'chromium' });
    if (m.type === 'chat') got.push(m.data);
    if (m.type === 'system') ws.send(JSON.stringify({ op: 'send', room: '${room}', type: 'chat', data: 'café ☃ 😀' }));
    if (m.from === 'chromium') ws.close(1000);
};
</script>`;

const socketioPage = (
    room,
    script,
) => `<!doctype html><meta charset="utf-8"><script>${report}</script><script src="${script}"></script><script>
const got = [], socket = io('http://127.0.0.1:${halley.port}', { transports: ['websocket'], query: { ticket_id: 'T-1', user: 'chromium' } });
socket.on('connect_error', (e) => tell({ error: 'connect_error ' + e }));
socket.on('connect', () => socket.emit('join', '${room}', (ack) => tell({ ready: ack.ok, protocol: '', user: 'chromium' })));
socket.on('chat', (m) => {
    got.push(m.data);
    if (m.from === 'chromium') { tell({ closed: 1000, clean: true, got }); socket.close(); }
});
socket.on('system', () => socket.emit('send', { room: '${room}', type: 'chat', data: 'café ☃ 😀' }));
</script>`;

const scripts = {
    '/v4.js': 'node_modules/socket.io-client/dist/socket.io.min.js',
    '/v2.js': 'node_modules/socket.io-client-2/dist/socket.io.js',
    '/v1.js': 'node_modules/socket.io-client-1/dist/socket.io.min.js',
};
const pages = {
    '/native': nativePage('b-native'),
    '/sio4': socketioPage('b-sio4', '/v4.js'),
    '/sio2': socketioPage('b-sio2', '/v2.js'),
    '/sio1': socketioPage('b-sio1', '/v1.js'),
};

// What pages tell, as a queue per page (the Referer says which one).
const told = new Map();
function tellQueue(page) {
    if (!told.has(page)) told.set(page, { items: [], wake: null });
    return told.get(page);
}
async function nextTold(page, match, what, ms) {
    const queue = tellQueue(page);
    const look = async () => {
        for (;;) {
            const error = queue.items.find((item) => item.error);
            if (error) throw new Error(`the page reports: ${error.error}`);
            const index = queue.items.findIndex(match);
            if (index >= 0) return queue.items.splice(index, 1)[0];
            await new Promise((wake) => (queue.wake = wake));
        }
    };
    return within(look(), ms, what);
}

const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://x');
    if (request.method === 'POST' && url.pathname === '/tell') {
        let body = '';
        request.on('data', (data) => (body += data));
        request.on('end', () => {
            const queue = tellQueue(new URL(request.headers.referer || 'http://x/').pathname);
            queue.items.push(JSON.parse(body));
            queue.wake?.();
            response.end();
        });
    } else if (pages[url.pathname]) {
        response.setHeader('Content-Type', 'text/html; charset=utf-8');
        response.end(pages[url.pathname]);
    } else if (scripts[url.pathname]) {
        response.setHeader('Content-Type', 'text/javascript; charset=utf-8');
        response.end(fs.readFileSync(path.join(here, scripts[url.pathname])));
    } else {
        response.statusCode = 404;
        response.end();
    }
});
const pagePort = await freePort();
await new Promise((resolve) => server.listen(pagePort, '127.0.0.1', resolve));
atEnd(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
});

function browse(page) {
    const flags = [
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--no-first-run',
        '--no-default-browser-check',
        '--disable-extensions',
        '--disable-default-apps',
        '--metrics-recording-only',
        '--password-store=basic',
        '--use-mock-keychain',
        '--mute-audio',
        `--user-data-dir=${tempDir()}`,
    ];
    const browser = spawn('chromium', [...flags, `http://127.0.0.1:${pagePort}${page}`], {
        stdio: ['ignore', 'ignore', 'pipe'],
        detached: true,
    });
    browser.log = '';
    browser.stderr.on('data', (data) => (browser.log += data));
    const gone = new Promise((resolve) => {
        browser.once('exit', resolve);
        browser.once('error', (error) => {
            browser.log += error.message;
            tellQueue(page).items.push({ error: `chromium does not start: ${error.message}` });
            tellQueue(page).wake?.();
            resolve();
        });
    });
    // Its own process group: the browser and the processes it started, nobody else's.
    browser.quit = atEnd(async () => {
        try {
            process.kill(-browser.pid, 'SIGKILL');
        } catch {
            // Gone already.
        }
        await gone;
    });
    return browser;
}

async function visit(page, room, protocol) {
    const browser = browse(page);
    try {
        const ready = await nextTold(page, (t) => 'ready' in t, 'the page to have joined', 30000);
        equal([ready.ready, ready.protocol], [true, protocol], 'joined, subprotocol');
        for (let n = 0; n < count; n++) await halley.publish(room, { type: 'chat', from: 'backend', data: n });
        await halley.publish(room, { type: 'system', data: 'your turn' });
        const end = await nextTold(page, (t) => 'closed' in t, 'the page to have closed', 20000);
        // Same room and lane: its own message comes behind all that were published before.
        equal(end.got, [...Array.from({ length: count }, (_, n) => n), 'café ☃ 😀'], 'what the page got');
        equal([end.closed, end.clean], [1000, true], 'a clean close with 1000');
    } catch (error) {
        error.message += browser.log
            ? ` [chromium: ${shorten(browser.log.trim().split('\n').slice(-2).join(' '), 300)}]`
            : '';
        throw error;
    } finally {
        await browser.quit();
    }
}

await check(
    `Chromium's WebSocket gets ${count} messages in order, sends one, closes cleanly`,
    () => visit('/native', 'b-native', 'halley.v1.json'),
    60000,
);
await check(
    `Chromium with socket.io-client 4 gets ${count} messages in order and sends one`,
    () => visit('/sio4', 'b-sio4', ''),
    60000,
);
await check(
    `Chromium with socket.io-client 2.5.0 gets ${count} messages in order and sends one`,
    () => visit('/sio2', 'b-sio2', ''),
    60000,
);
await check(
    `Chromium with socket.io-client 1.7.4 gets ${count} messages in order and sends one`,
    () => visit('/sio1', 'b-sio1', ''),
    60000,
);

await finish();
