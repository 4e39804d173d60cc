#!/usr/bin/python3
"""Debian's python3-websockets as the viewer: messages in order, pings, close codes; and what TCP shows of the first answer."""

import asyncio
import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import websockets  # noqa: E402

from lib import SLOWNESS, Halley, check, equal, finish  # noqa: E402

LIMIT = 30 * SLOWNESS
halley = Halley(workers=2)


def run(coroutine):
    async def limited():
        return await asyncio.wait_for(coroutine, LIMIT)

    return asyncio.run(limited())


async def joined(room, user, **options):
    viewer = await websockets.connect(f"{halley.url}?user={user}&room={room}", **options)
    while json.loads(await viewer.recv()).get("op") != "joined":
        pass
    return viewer


def two_viewers_in_order():
    async def body():
        viewers = [await joined("py", f"py{i}", local_addr=(f"127.0.0.{i + 2}", 0)) for i in range(2)]
        loop = asyncio.get_running_loop()

        async def publish():
            for n in range(1000):
                await loop.run_in_executor(None, halley.publish, "py", {"type": "chat", "data": {"n": n, "text": "café ☃ 😀"}})

        async def read(viewer):
            numbers = []
            while len(numbers) < 1000:
                message = json.loads(await viewer.recv())
                if message.get("type") == "chat":
                    equal(message["data"]["text"], "café ☃ 😀", "text")
                    numbers.append(message["data"]["n"])
            return numbers

        results = await asyncio.gather(publish(), *(read(viewer) for viewer in viewers))
        for numbers in results[1:]:
            equal(numbers, list(range(1000)), "numbers")
        for viewer in viewers:
            await viewer.close()
            equal(viewer.close_code, 1000, "close code after the viewer's close")

    run(body())


def ping_pong():
    async def body():
        async with websockets.connect(halley.url) as viewer:
            await (await viewer.ping("hello"))
            await (await viewer.ping())
            await viewer.send(json.dumps({"op": "ping", "ref": 5}))
            while True:
                answer = json.loads(await viewer.recv())
                if answer.get("op") == "pong":
                    break
            equal(answer["ref"], 5, "ref")

    run(body())


def fragments():
    async def body():
        async with websockets.connect(halley.url) as viewer:
            # An iterable is sent as fragments.
            await viewer.send(['{"op":', '"pi', 'ng","re', 'f":', "6}"])
            while json.loads(await viewer.recv()).get("ref") != 6:
                pass

    run(body())


def binary_closes():
    async def body():
        viewer = await websockets.connect(halley.url)
        await viewer.send(b"\x00\x01")
        await viewer.wait_closed()
        equal(viewer.close_code, 1003, "close code")

    run(body())


def too_big_closes():
    async def body():
        viewer = await websockets.connect(halley.url)
        try:
            await viewer.send("x" * 70000)
        except websockets.ConnectionClosed:
            pass
        await viewer.wait_closed()
        equal(viewer.close_code, 1009, "close code")

    run(body())


def client_codes():
    async def body():
        for code in (1000, 1001, 3000, 4999):
            viewer = await websockets.connect(halley.url)
            await viewer.close(code, "bye")
            equal(viewer.close_code, code, "close code that comes back")

    run(body())


def subprotocol():
    async def body():
        async with websockets.connect(halley.url, subprotocols=["halley.v1.json"]) as viewer:
            equal(viewer.subprotocol, "halley.v1.json", "subprotocol")

    run(body())


def refused():
    async def body():
        try:
            await websockets.connect(f"{halley.url}x")
        except websockets.InvalidStatusCode as error:
            equal(error.status_code, 404, "status")
        else:
            raise AssertionError("a handshake on /wsx must be refused")

    run(body())


def one_segment():
    """tcpi_data_segs_in of linux/tcp.h: how many segments with data this side received."""
    for target, last in (
        ("/socket.io/?transport=websocket&ticket_id=9c394a175508edfcd3d1db3b7bc8008d", b"\x81\x0240"),
        ("/ws?user=one", b"}"),
    ):
        with socket.create_connection((halley.host, halley.port), timeout=LIMIT) as viewer:
            viewer.sendall(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            answer = b""
            while not (answer.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in answer and answer.endswith(last)):
                data = viewer.recv(65536)
                if not data:
                    raise AssertionError(f"the connection ended after {answer!r}")
                answer += data
            if b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in answer:
                raise AssertionError(f"Sec-WebSocket-Accept of RFC 6455's own example, got {answer!r}")
            info = viewer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            segments = struct.unpack_from("=I", info, 152)[0]
            equal(segments, 1, f"segments with data for {target}")


def no_ping_needed():
    """The client's own keepalive (a ping each 0.2 s, a pong within 0.5 s) holds for 3 s."""

    async def body():
        viewer = await websockets.connect(halley.url, ping_interval=0.2, ping_timeout=0.5 * SLOWNESS)
        try:
            await asyncio.wait_for(viewer.wait_closed(), 3)
        except asyncio.TimeoutError:
            await viewer.close()
            return
        raise AssertionError(f"closed with {viewer.close_code} {viewer.close_reason}")

    run(body())


check("python3-websockets: two viewers get 1,000 messages each, in order", two_viewers_in_order)
check("python3-websockets: ping is answered by pong, with and without payload", ping_pong)
check("python3-websockets: a message in five fragments is one message", fragments)
check("python3-websockets: a binary message closes with 1003", binary_closes)
check("python3-websockets: a message past limits.message_bytes closes with 1009", too_big_closes)
check("python3-websockets: the viewer's close code comes back", client_codes)
check("python3-websockets: the subprotocol is agreed on", subprotocol)
check("python3-websockets: another path is refused with 404", refused)
check("python3-websockets: its keepalive pings are answered in time", no_ping_needed)
check("101 and the first frames leave in one TCP segment, on /socket.io/ and /ws", one_segment)
finish()
