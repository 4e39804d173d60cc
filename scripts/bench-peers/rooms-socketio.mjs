// Rooms of Socket.IO: viewers send the event `join`, publishers connect by WebSocket to /publish?room=NAME. What a
// publisher sends goes as the event `message` to every viewer of the room.
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { WebSocketServer } from 'ws';

const BACKLOG = 4096;
const server = createServer();
const io = new Server(server, {
    transports: ['websocket'],
    serveClient: false,
    destroyUpgrade: false, // /publish is ours
});

// The request is kept for each connection otherwise; Socket.IO's page on memory usage advises this.
io.engine.on('connection', (connection) => {
    connection.request = null;
});
io.on('connection', (socket) => {
    socket.on('join', (room) => {
        socket.join(room);
        socket.emit('message', { op: 'joined', room });
    });
});

const publishers = new WebSocketServer({ noServer: true, perMessageDeflate: false });
server.on('upgrade', (request, stream, head) => {
    const url = new URL(request.url, 'ws://localhost');
    if (url.pathname !== '/publish') return;
    const room = url.searchParams.get('room');
    publishers.handleUpgrade(request, stream, head, (socket) => {
        socket.on('error', () => {});
        socket.on('message', (message) => io.to(room).emit('message', JSON.parse(message)));
    });
});
server.listen(Number(process.argv[2]), '127.0.0.1', BACKLOG);
