"""The test bed of scripts/weaknet: network namespaces (viewers - router - gateway nodes), nodes and viewers in them.

All traffic stays in namespaces that Bed makes. They are named after the process, go when it ends, and those that a killed one left
behind go when the next begins.
"""

import base64
import collections
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PREFIX = "halley-weaknet"
VIEWERS_NET = "10.99.0"
VIRTUAL = "10.99.255.1"
PORT = 1314
ADMIN_PORT = 7314


class Missing(Exception):
    """This machine lacks a part of the test bed."""


def sh(*command, check=True):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and result.returncode != 0:
        raise Missing(f"`{' '.join(command)}` failed: {result.stdout.strip() or result.returncode}")
    return result.stdout


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sweep_leftovers():
    """Namespaces of test beds whose process is gone."""
    for name in re.findall(rf"^({PREFIX}-(\d+)-\w+)", sh("ip", "netns", "list"), re.M):
        if not is_alive(int(name[1])):
            sh("ip", "netns", "del", name[0], check=False)


class Bed:
    """viewers (10.99.0.2 …) - router - node 1 (10.99.1.2), node 2 (10.99.2.2), …"""

    def __init__(self, nodes=1, viewer_addresses=1):
        self.base = f"{PREFIX}-{os.getpid()}"
        self.node_count = nodes
        self.nodes = []
        self.processes = []
        self.made = []
        self.pipe = None
        self.libc = ctypes.CDLL(None, use_errno=True)
        sweep_leftovers()
        try:
            self._build(viewer_addresses)
        except BaseException:
            self.close()
            raise

    def name(self, part):
        return f"{self.base}-{part}"

    def _namespace(self, part):
        self.made.append(part)  # first, so that an interrupt in between leaves nothing behind
        sh("ip", "netns", "add", self.name(part))
        sh("ip", "-n", self.name(part), "link", "set", "lo", "up")

    def _wire(self, part, net):
        """A link from the router (.1, interface `to-<part>`) to the part (.2, interface `wan`)."""
        router = self.name("router")
        sh("ip", "-n", router, "link", "add", f"to-{part}", "type", "veth", "peer", "name", "wan", "netns", self.name(part))
        sh("ip", "-n", router, "addr", "add", f"{net}.1/24", "dev", f"to-{part}")
        sh("ip", "-n", router, "link", "set", f"to-{part}", "up")
        sh("ip", "-n", self.name(part), "addr", "add", f"{net}.2/24", "dev", "wan")
        sh("ip", "-n", self.name(part), "link", "set", "wan", "up")
        sh("ip", "-n", self.name(part), "route", "add", "default", "via", f"{net}.1")

    def _build(self, viewer_addresses):
        self._namespace("router")
        self._namespace("viewers")
        self._wire("viewers", VIEWERS_NET)
        for i in range(1, viewer_addresses):
            sh("ip", "-n", self.name("viewers"), "addr", "add", f"{VIEWERS_NET}.{2 + i}/24", "dev", "wan")
        for i in range(1, self.node_count + 1):
            self._namespace(f"node{i}")
            self._wire(f"node{i}", f"10.99.{i}")
        self.inside("router", "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def inside(self, part, *command):
        return sh("ip", "netns", "exec", self.name(part), *command)

    def nft(self, rules, part="router"):
        result = subprocess.run(
            ["ip", "netns", "exec", self.name(part), "nft", "-f", "-"],
            input=rules, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
        if result.returncode != 0:
            raise Missing(f"nftables refused a rule: {result.stdout.strip()}")

    # What a network does to packets.

    def thin_link(self, rate="64kbit", limit="16000", far=False):
        """Towards the viewers. Where the node itself sends into it the kernel knows how full it is; far from it, only losses tell."""
        part, device = ("router", "to-viewers") if far else ("node1", "wan")
        self.inside(part, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "1600", "limit", limit)

    def long_link(self, bits_per_second, queue, round_trip_ms):
        """Far from the node, towards the first viewer, and long: tbf has no delay, and netem is not in every kernel. Again: the same link, changed."""
        if not self.pipe:
            self._lay_pipe()
        self.pipe.stdin.write(f"{bits_per_second / 8} {queue} {round_trip_ms / 2000}\n")
        self.pipe.stdin.flush()

    def _lay_pipe(self):
        devices = [self._tun(part, address) for part, address in (("router", 1), ("viewers", 2))]
        sh("ip", "-n", self.name("viewers"), "route", "replace", "default", "via", f"{VIEWERS_NET}.1")
        self.pipe = subprocess.Popen(
            [sys.executable, "-B", os.path.join(os.path.dirname(os.path.realpath(__file__)), "weaknet_pipe.py"), *map(str, devices)],
            stdin=subprocess.PIPE, pass_fds=devices, text=True,
            preexec_fn=lambda: self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        for device in devices:
            os.close(device)

    def _tun(self, part, address):
        """A TUN device in place of the part's end of the wire between router and viewers."""
        with self.home_of(part):
            try:
                device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"long", IFF_TUN | IFF_NO_PI))
            except OSError as why:
                raise Missing(f"/dev/net/tun: {why}")
        name = self.name(part)
        sh("ip", "-n", name, "addr", "flush", "dev", "to-viewers" if part == "router" else "wan")
        sh("ip", "-n", name, "addr", "add", f"{VIEWERS_NET}.{address}/24", "dev", "long")
        sh("ip", "-n", name, "link", "set", "long", "txqueuelen", "5000", "up")
        return device

    def loss(self, per_cent):
        """Of a hundred packets so many are lost, each way."""
        self.nft(
            "table ip weak { chain loss { type filter hook forward priority 0; policy accept;\n"
            f"numgen random mod 100 < {per_cent} counter drop\n}}\n}}"
        )

    def forgetful_nat(self, seconds):
        """Masquerades the viewers, and forgets a connection that was idle for so long, as a mobile NAT does: without a word. Linux by itself would take up
        a connection in the middle again (tcp_loose), or reset it."""
        self.nft(
            "table ip nat { chain out { type nat hook postrouting priority srcnat; policy accept;\n"
            f"ip saddr {VIEWERS_NET}.0/24 masquerade\n}}\n}}\n"
            "table ip forget {\n"
            "chain through { type filter hook forward priority 0; policy accept; ct state invalid drop\n}\n"
            "chain own { type filter hook output priority 0; policy accept; tcp flags & rst == rst drop\n}\n}"
        )
        for key, value in (("tcp_loose", 0), ("tcp_timeout_established", seconds)):
            self.inside("router", "sysctl", "-qw", f"net.netfilter.nf_conntrack_{key}={value}")

    def balance(self, numbers=None):
        """One address for all nodes, or for those with these numbers: the source's hash chooses. Connections that stand stay where they are."""
        numbers = numbers or range(1, self.node_count + 1)
        choices = ", ".join(f"{place} : 10.99.{number}.2" for place, number in enumerate(numbers))
        self.nft(
            "table ip lb { chain in { type nat hook prerouting priority dstnat; policy accept;\n}\n}\n"
            "flush chain ip lb in\n"
            f"add rule ip lb in ip daddr {VIRTUAL} tcp dport {PORT} dnat to jhash ip saddr mod {len(numbers)} seed 0xbeef map {{ {choices} }}"
        )

    def cut_off(self):
        """From now on nothing passes, either way."""
        self.nft("table ip cut { chain every { type filter hook forward priority -10; policy drop;\n}\n}")

    # Processes and sockets.

    def spawn(self, part, *command, **options):
        """A process in the namespace, which goes with this one."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name(part), *command], stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]},
            preexec_fn=lambda: self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), **options,
        )
        self.processes.append(process)
        return process

    def start_redis(self):
        """Returns its URL, for the nodes."""
        self._namespace("redis")
        self._wire("redis", "10.99.100")
        self.spawn("redis", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", stdout=subprocess.DEVNULL)
        return "redis://10.99.100.2:6379"

    def start_node(self, number=1, wait=True, **options):
        node = Node(self, number, options)
        self.nodes.append(node)
        if wait:
            node.wait_ready()
        return node

    @contextlib.contextmanager
    def home_of(self, part):
        """The thread is in the namespace meanwhile, and comes back."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name(part)}", os.O_RDONLY)
        try:
            if self.libc.setns(inside, CLONE_NEWNET) != 0:
                raise Missing(f"setns: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                if self.libc.setns(home, CLONE_NEWNET) != 0:
                    raise RuntimeError("the thread can't come back to its namespace")
        finally:
            os.close(home)
            os.close(inside)

    def socket(self, part):
        """A TCP socket that belongs to the namespace."""
        with self.home_of(part):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def close(self):
        signal.alarm(0)  # what asked for the end has been heard
        for node in self.nodes:
            node.stop()
        self.nodes = []
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []
        if self.pipe:
            self.pipe.kill()
            self.pipe.communicate()
            self.pipe = None
        while self.made:
            sh("ip", "netns", "del", self.name(self.made.pop()), check=False)


class Node:
    """A daemon in its namespace."""

    def __init__(self, bed, number, options):
        self.bed, self.part, self.host = bed, f"node{number}", f"10.99.{number}.2"
        self.log = open(f"/tmp/{bed.name(self.part)}.log", "a+b")
        os.unlink(self.log.name)
        conf = {
            "server.listen": f"0.0.0.0:{PORT}", "server.node": f"node-{number}", "server.workers": 1,
            "admin.listen": f"127.0.0.1:{ADMIN_PORT}", **{key.replace("__", "."): value for key, value in options.items()},
        }
        command = [os.environ["HALLEY_BIN"]]
        for key, value in conf.items():
            command += ["-o", f"{key}={value}"]
        self.process = bed.spawn(self.part, *command, stdout=self.log, stderr=self.log)

    def tail(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")[-1500:]

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {self.process.returncode}: {self.tail()}")
        try:
            return self.http("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self):
        end = time.monotonic() + 15
        while not self.is_ready():
            if time.monotonic() > end:
                raise RuntimeError(f"the daemon is not ready: {self.tail()}")
            time.sleep(0.05)

    def http(self, method, path, body=None, connection=None):
        connection = connection or self.admin()
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def admin(self):
        """A connection to the admin listener, to be used for many requests."""
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=10)
        connection.sock = self.bed.socket(self.part)
        connection.sock.settimeout(10)
        connection.sock.connect(("127.0.0.1", ADMIN_PORT))
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def metric(self, name, labels=""):
        total = 0.0
        for line in self.http("GET", "/metrics")[1].split("\n"):
            if line.startswith((name + " ", name + "{")) and labels in line:
                total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


class Viewer:
    """A native viewer, driven by a Loop."""

    def __init__(self, loop, query, source=f"{VIEWERS_NET}.2", on_message=None, on_end=None):
        self.loop, self.on_message, self.on_end = loop, on_message, on_end
        self.inbox, self.closed, self.close_code, self.told_ms = collections.deque(), False, None, None
        self.sent_at = time.monotonic()
        self.buffer = b""
        self.socket = loop.bed.socket("viewers")
        self.socket.settimeout(20)
        self.socket.bind((source, 0))
        self.socket.connect((loop.host, PORT))
        key = base64.b64encode(os.urandom(16)).decode()
        self._write(
            f"GET /ws?{query} HTTP/1.1\r\nHost: {loop.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(4096)
            if not data:
                raise RuntimeError("the handshake was not answered")
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"handshake refused: {head[:200]!r}")
        self.socket.setblocking(False)
        loop.add(self)
        self._frames()

    def _write(self, data):
        self.sent_at = time.monotonic()
        self.socket.sendall(data)

    def frame(self, opcode, payload):
        mask = os.urandom(4)
        body = bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
        try:
            self._write(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body)
        except OSError:
            self.end()

    def ping(self):
        self.frame(1, b'{"op":"ping"}')

    def readable(self):
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self.buffer += data
        self._frames()

    def _frames(self):
        while len(self.buffer) >= 2:
            length, start = self.buffer[1] & 127, 2
            if length == 126:
                start = 4
                if len(self.buffer) < start:
                    return
                length = struct.unpack_from("!H", self.buffer, 2)[0]
            if len(self.buffer) < start + length:
                return
            opcode, payload = self.buffer[0] & 15, self.buffer[start : start + length]
            self.buffer = self.buffer[start + length :]
            if opcode == 9:
                self.frame(10, payload)
            elif opcode == 8:
                self.close_code = struct.unpack_from("!H", payload, 0)[0] if len(payload) > 1 else 1005
            elif opcode == 1:
                self._message(json.loads(payload))

    def _message(self, message):
        if "heartbeat" in message:
            self.told_ms = message["heartbeat"]["interval_ms"]
        if self.on_message:
            self.on_message(self, message)

    def abandon(self):
        """As a phone that is told nothing: no FIN, no RST leaves it."""
        self.loop.remove(self)
        self.closed = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end(self):
        if self.closed:
            return
        self.closed = True
        self.loop.remove(self)
        self.socket.close()
        if self.on_end:
            self.on_end(self)


class Loop:
    """Reads viewers, and calls what is due."""

    def __init__(self, bed, host):
        self.bed, self.host = bed, host
        self.selector = selectors.DefaultSelector()
        self.jobs = []

    def add(self, viewer):
        self.selector.register(viewer.socket, selectors.EVENT_READ, viewer)

    def remove(self, viewer):
        self.selector.unregister(viewer.socket)

    def every(self, seconds, job):
        self.jobs.append([time.monotonic() + seconds, seconds, job])

    def run(self, seconds, done=lambda: False):
        """Returns whether it was done before the time was over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done():
                return True
            now = time.monotonic()
            for job in self.jobs:
                if job[0] <= now:
                    job[0] = max(job[0] + job[1], now)
                    job[2]()
            wait = min([job[0] for job in self.jobs] + [end, now + 0.25]) - time.monotonic()
            for key, _ in self.selector.select(max(0.0, wait)):
                if not key.data.closed:
                    key.data.readable()
        return done()
