"""Network namespaces for tests: a viewer behind a link of its own, and sockets inside of it. Needs root.

The daemon runs outside; a test enters a namespace only to make a socket there.
"""

import base64
import ctypes
import os
import socket
import struct
import subprocess

CLONE_NEWNET = 0x40000000


def sh(*command, quiet=False):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0 and not quiet:
        raise OSError(f"{' '.join(command)}: {result.stdout.strip()}")
    return result.stdout


class Link:
    """A veth pair: `a` here with address .1, `b` in a namespace of its own with address .2."""

    def __init__(self):
        number = os.getpid()
        self.namespace = f"halley-e2e-{number}"
        self.near = f"hy{number % 1000000}a"
        self.far = f"hy{number % 1000000}b"
        self.net = f"10.{200 + number % 50}.{number % 250}"
        self.host = f"{self.net}.1"

    def up(self):
        self.down()
        sh("ip", "netns", "add", self.namespace)
        sh("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.namespace)
        sh("ip", "addr", "add", f"{self.net}.1/24", "dev", self.near)
        sh("ip", "link", "set", self.near, "up")
        sh("ip", "-n", self.namespace, "addr", "add", f"{self.net}.2/24", "dev", self.far)
        sh("ip", "-n", self.namespace, "link", "set", self.far, "up")
        sh("ip", "-n", self.namespace, "link", "set", "lo", "up")
        # Whatever this host's default is: the connections of this link use cubic.
        sh("ip", "route", "replace", f"{self.net}.0/24", "dev", self.near, "src", self.host, "congctl", "cubic")

    def down(self):
        sh("ip", "link", "del", self.near, quiet=True)
        sh("ip", "netns", "del", self.namespace, quiet=True)

    def inside(self, *command):
        """Runs a command in the namespace."""
        return sh("ip", "netns", "exec", self.namespace, *command)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        """A socket that belongs to the namespace; the thread comes back at once."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            if libc.setns(inside, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return socket.socket(family, kind, protocol)
            finally:
                if libc.setns(home, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns back")
        finally:
            os.close(home)
            os.close(inside)


class Viewer:
    """A native viewer on a given, unconnected socket."""

    def __init__(self, sock, host, port, query, seconds=20):
        self.socket = sock
        self.socket.settimeout(seconds)
        self.socket.connect((host, port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
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
        head = bytes([0x80 | opcode, 0x80 | len(payload)]) if len(payload) < 126 else None
        self.socket.sendall(head + mask + body)

    def text(self, payload):
        self.send(1, payload.encode())

    def close(self):
        self.socket.close()
