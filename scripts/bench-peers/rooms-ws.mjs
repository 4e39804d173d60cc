// Rooms over npm `ws`, as plain as it gets: viewers at /feed?room=NAME, publishers at /publish?room=NAME. What a
// publisher sends goes as it is to every viewer of the room.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const BACKLOG = 4096;
const rooms = new Map();
const sockets = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });

function join(socket, name) {
    if (!rooms.has(name)) rooms.set(name, new Set());
    const room = rooms.get(name);
    room.add(socket);
    socket.on('close', () => {
        room.delete(socket);
        if (room.size === 0) rooms.delete(name);
    });
}

function publish(name, message) {
    for (const viewer of rooms.get(name) ?? []) viewer.send(message, { binary: false });
}

const server = createServer();
server.on('upgrade', (request, stream, head) => {
    const url = new URL(request.url, 'ws://localhost');
    const name = url.searchParams.get('room');
    sockets.handleUpgrade(request, stream, head, (socket) => {
        socket.on('error', () => {});
        if (url.pathname === '/publish') socket.on('message', (message) => publish(name, message));
        else join(socket, name);
    });
});
server.listen(Number(process.argv[2]), '127.0.0.1', BACKLOG);
