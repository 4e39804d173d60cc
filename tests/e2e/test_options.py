#!/usr/bin/python3
"""Socket options of viewers, read from the daemon's own sockets: as the conf says, after a hand-over too."""

import ctypes
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import SLOWNESS, Halley, check, equal, finish, free_port, skip, until  # noqa: E402
from lib_netns import Viewer  # noqa: E402

PIDFD_GETFD = 438
TCP_NOTSENT_LOWAT = 25
SO_BUF_LOCK = 72
SNDBUF_IS_LOCKED = 1

SHIPPED = {"nodelay": 1, "notsent_lowat": 2048, "user_timeout": 75000, "keepalive": 0, "sndbuf_locked": 0}
SET = {
    "tcp.notsent_lowat": "3k",
    "tcp.user_timeout": "90s",
    "tcp.keepalive": "7s",
    "tcp.sndbuf": "40k",
}
AS_SET = {
    "nodelay": 1,
    "notsent_lowat": 3072,
    "user_timeout": 90000,
    "keepalive": 1,
    "keepalive_idle": 7,
    "keepalive_interval": 7,
    "keepalive_probes": 3,
    "sndbuf_locked": 1,
    "sndbuf": 2 * 40960,
}


def copies(pid):
    """Copies of the sockets of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            fd = libc.syscall(PIDFD_GETFD, process, int(name), 0)
            if fd >= 0:
                with socket.socket(fileno=fd) as copy:
                    yield copy
    finally:
        os.close(process)


def options_of(sock):
    number = lambda level, option: sock.getsockopt(level, option)  # noqa: E731
    tcp, base = socket.IPPROTO_TCP, socket.SOL_SOCKET
    found = {
        "nodelay": int(number(tcp, socket.TCP_NODELAY) != 0),
        "notsent_lowat": number(tcp, TCP_NOTSENT_LOWAT),
        "user_timeout": number(tcp, socket.TCP_USER_TIMEOUT),
        "keepalive": number(base, socket.SO_KEEPALIVE),
        "sndbuf_locked": number(base, SO_BUF_LOCK) & SNDBUF_IS_LOCKED,
        "congestion": sock.getsockopt(tcp, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode(),
    }
    if found["keepalive"]:
        found["keepalive_idle"] = number(tcp, socket.TCP_KEEPIDLE)
        found["keepalive_interval"] = number(tcp, socket.TCP_KEEPINTVL)
        found["keepalive_probes"] = number(tcp, socket.TCP_KEEPCNT)
    if found["sndbuf_locked"]:
        found["sndbuf"] = number(base, socket.SO_SNDBUF)
    return found


def accepted_options(halley):
    """Of the daemon's socket of a new viewer."""
    viewer = Viewer(socket.socket(), halley.host, halley.port, "user=o", 10 * SLOWNESS)
    mine = viewer.socket.getsockname()
    found = []
    for copy in copies(halley.process.pid):
        try:
            if copy.family == socket.AF_INET and copy.getpeername() == mine:
                found.append(options_of(copy))
        except OSError:
            continue  # a listening one
    viewer.close()
    equal(len(found), 1, "sockets of the viewer")
    return found[0]


def congestions():
    """(the kernel's own, another one that may be used)."""
    with socket.socket() as fresh:
        own = options_of(fresh)["congestion"]
    with open("/proc/sys/net/ipv4/tcp_allowed_congestion_control", encoding="ascii") as file:
        return own, next((name for name in file.read().split() if name != own), None)


OWN, OTHER = congestions()
CHOSEN = {"tcp.congestion": OTHER} if OTHER else {}


def share(port, options):
    halley = Halley(options={"server.listen": f"127.0.0.1:{port}", "server.share_port": "yes", **options})
    halley.port = port
    return halley


def as_shipped():
    halley = Halley()
    equal(accepted_options(halley), {**SHIPPED, "congestion": OWN}, "options as shipped")
    halley.stop()


def as_configured():
    halley = Halley(options={**SET, **CHOSEN})
    equal(accepted_options(halley), {**AS_SET, "congestion": OTHER or OWN}, "options of the conf")
    halley.stop()


def after_hand_over(before, after, expected):
    port = free_port()
    old = share(port, {**before, "server.node": "old"})
    new = share(port, {**after, "server.node": "new"})
    until(lambda: "sharing the sockets" in new.log, "sockets taken over")
    equal(old.stop(), 0, "exit code of the old one")
    equal(accepted_options(new), expected, "options behind the hand-over")
    new.stop()


def main():
    halley = Halley()
    halley_sockets = None
    try:
        halley_sockets = list(copies(halley.process.pid))
    except OSError as error:
        skip("options of viewers' sockets", f"sockets of a process can't be copied here ({error})")
    halley.stop()
    if not halley_sockets:
        sys.exit(0)
    check("as shipped", as_shipped)
    check("as the conf says", as_configured)
    check(
        "a new process sets its own on sockets that it took over",
        lambda: after_hand_over({}, {**SET, **CHOSEN}, {**AS_SET, "congestion": OTHER or OWN}),
    )
    check(
        "a new process undoes what the old one had set",
        lambda: after_hand_over({**SET, **CHOSEN}, {}, {**SHIPPED, "congestion": OWN}),
    )
    check(
        "zeros of the conf are undone too",
        lambda: after_hand_over(
            SET,
            {"tcp.notsent_lowat": 0, "tcp.user_timeout": 0},
            {**SHIPPED, "notsent_lowat": 0, "user_timeout": 0, "congestion": OWN},
        ),
    )
    finish()


main()
