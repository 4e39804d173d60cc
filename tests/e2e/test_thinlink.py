#!/usr/bin/python3
"""A thin link that is never idle: messages of the high lane and pongs overtake a full normal lane.

A viewer sits in a network namespace behind a veth pair whose end here lets 64 kbit/s out (tbf, limit 16000, cubic). The
daemon runs outside; the test enters the namespace only to make the viewer's socket.
"""

import base64
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import SLOWNESS, Halley, check, finish, skip  # noqa: E402

NAME = "high messages and pongs overtake a flooded normal lane on 64 kbit/s"
SECONDS = 60
NAMESPACE = f"halley-e2e-{os.getpid()}"
VETH = f"hy{os.getpid() % 1000000}"
NET = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
CLONE_NEWNET = 0x40000000


def sh(*command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"{' '.join(command)}: {result.stdout.strip()}")


def link_up():
    sh("ip", "netns", "add", NAMESPACE)
    sh("ip", "link", "add", f"{VETH}a", "type", "veth", "peer", "name", f"{VETH}b", "netns", NAMESPACE)
    sh("ip", "addr", "add", f"{NET}.1/24", "dev", f"{VETH}a")
    sh("ip", "link", "set", f"{VETH}a", "up")
    sh("ip", "-n", NAMESPACE, "addr", "add", f"{NET}.2/24", "dev", f"{VETH}b")
    sh("ip", "-n", NAMESPACE, "link", "set", f"{VETH}b", "up")
    sh("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
    # Whatever this host's default is: the connections of this link use cubic.
    sh("ip", "route", "replace", f"{NET}.0/24", "dev", f"{VETH}a", "src", f"{NET}.1", "congctl", "cubic")
    sh("tc", "qdisc", "add", "dev", f"{VETH}a", "root", "tbf", "rate", "64kbit", "burst", "1600", "limit", "16000")


def link_down():
    for command in (("ip", "link", "del", f"{VETH}a"), ("ip", "netns", "del", NAMESPACE)):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def socket_inside():
    """A TCP socket that belongs to the namespace; the thread comes back at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    inside = os.open(f"/run/netns/{NAMESPACE}", os.O_RDONLY)
    try:
        if libc.setns(inside, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            if libc.setns(home, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")
    finally:
        os.close(home)
        os.close(inside)


class Viewer:
    """A native viewer on a socket of the namespace, with the time at which each message is complete."""

    def __init__(self, host, port, room):
        self.socket = socket_inside()
        self.socket.settimeout(20 * SLOWNESS)
        self.socket.connect((host, port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws?user=thin&room={room} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"handshake refused: {head!r}")

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the gateway closed the connection")
        self.buffer += data

    def frame(self):
        """(opcode, payload) of the next frame."""
        while len(self.buffer) < 2:
            self._more()
        length, start = self.buffer[1] & 0x7F, 2
        if length == 126:
            start = 4
        elif length == 127:
            start = 10
        while len(self.buffer) < start:
            self._more()
        if length == 126:
            length = struct.unpack_from("!H", self.buffer, 2)[0]
        elif length == 127:
            length = struct.unpack_from("!Q", self.buffer, 2)[0]
        while len(self.buffer) < start + length:
            self._more()
        opcode, payload = self.buffer[0] & 15, self.buffer[start : start + length]
        self.buffer = self.buffer[start + length :]
        return opcode, payload

    def send(self, opcode, payload):
        mask = os.urandom(4)
        body = bytes(b ^ mask[i & 3] for i, b in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Traffic(threading.Thread):
    """Calls `step` at a fixed rate until stopped; keeps the first error."""

    def __init__(self, interval, step):
        super().__init__(daemon=True)
        self.interval, self.step, self.stopping, self.error = interval, step, False, None

    def run(self):
        due = time.monotonic()
        try:
            while not self.stopping:
                self.step()
                due += self.interval
                time.sleep(max(0.0, due - time.monotonic()))
        except Exception as error:  # told by the main thread
            self.error = error

    def stop(self):
        self.stopping = True
        self.join(20 * SLOWNESS)


def overtakes():
    # The admin listener stays on loopback; the viewers' one on the link's address.
    halley = Halley(host=f"{NET}.1", workers=1)
    viewer = Viewer(f"{NET}.1", halley.port, "thin")
    while b'"joined"' not in viewer.frame()[1]:
        pass
    pad = "x" * 900
    state = {"n": 0}

    def normal():
        state["n"] += 1
        halley.publish("thin", {"type": "chat", "data": {"n": state["n"], "pad": pad}})

    def high():
        halley.publish("thin", {"type": "gift", "data": {"t": time.monotonic()}})

    def ping():
        viewer.send(9, struct.pack("!d", time.monotonic()))

    # 40 KB/s of normal messages for 8 KB/s of link.
    traffic = [Traffic(0.025, normal), Traffic(0.2, high), Traffic(0.73, ping)]
    traffic[0].start()
    end = time.monotonic() + SECONDS
    # The link is full before anything is measured.
    while time.monotonic() < end - SECONDS + 5:
        viewer.frame()
    for other in traffic[1:]:
        other.start()
    delays, pongs, normals, skipped = [], [], 0, 0
    try:
        while time.monotonic() < end:
            opcode, payload = viewer.frame()
            now = time.monotonic()
            if opcode == 10:
                pongs.append(now - struct.unpack("!d", payload)[0])
            elif opcode == 1:
                message = json.loads(payload)
                if message.get("type") == "gift":
                    delays.append(now - message["data"]["t"])
                elif message.get("type") == "chat":
                    normals += 1
                elif message.get("op") == "skipped":
                    skipped += message["count"]
    finally:
        for other in traffic:
            other.stop()
    for other in traffic:
        if other.error:
            raise other.error
    p99, worst_pong = percentile(delays, 0.99), max(pongs)
    print(
        f"# high: {len(delays)} messages, p50 {percentile(delays, 0.5):.2f} s, p99 {p99:.2f} s; pongs: {len(pongs)}, "
        f"p50 {percentile(pongs, 0.5):.2f} s, max {worst_pong:.2f} s; normal: {normals} delivered, {skipped} skipped"
    )
    expected = (SECONDS - 5) / 0.2
    if len(delays) < expected * 0.9:
        raise AssertionError(f"high messages: about {expected:.0f} expected, got {len(delays)}")
    if skipped == 0:
        raise AssertionError("the normal lane was never full: this run shows nothing")
    if normals < 50:
        raise AssertionError(f"the link was used for the normal lane too: {normals} messages")
    if p99 > 1.5:
        raise AssertionError(f"high p99 at most 1.5 s, got {p99:.2f} s")
    if worst_pong > 2.0 or percentile(pongs, 0.95) > 1.5:
        raise AssertionError(f"pongs: p95 at most 1.5 s, none over 2 s, got max {worst_pong:.2f} s")


def main():
    if os.geteuid() != 0:
        skip(NAME, "needs root")
        sys.exit(0)
    link_down()
    try:
        link_up()
    except OSError as error:
        link_down()
        skip(NAME, f"no namespaces or tbf here ({error})")
        sys.exit(0)
    try:
        check(NAME, overtakes)
        finish()
    finally:
        link_down()


main()
