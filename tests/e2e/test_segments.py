#!/usr/bin/python3
"""Frames and TCP segments: what viewers and publishers are told, and where writes of the high lane are cut.

The viewer sits in a network namespace; what it receives is read from its end of the link, as it stood on the wire.
"""

import json
import os
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import HALLEY_BIN, SLOWNESS, Halley, check, equal, finish, skip, until  # noqa: E402
from lib_netns import Link, Viewer, sh  # noqa: E402

NAME = "segments of the high lane end where frames end"
LINK = Link()
MTU = 1280
SEGMENT = MTU - 40 - 12  # with timestamps
PATHS = ("/v1/rooms/seg/messages", "/v1/users/seg/messages", "/v1/messages")


def read_until(viewer, what):
    while True:
        opcode, payload = viewer.frame()
        if opcode == 1 and what in payload:
            return payload


def tells_sizes(halley, viewer, welcome):
    equal(json.loads(welcome)["frame_bytes"], SEGMENT - 4, "frame_bytes in welcome")
    viewer.text('{"op":"ping"}')
    pong = json.loads(read_until(viewer, b'"pong"'))
    # Nothing has changed since, so pong does not tell it.
    equal("frame_bytes" in pong, False, "frame_bytes in pong")
    equal(halley.metric("halley_viewers_by_segment", 'bytes="1208"'), 1, "viewers with segments of 1208 to 1239 bytes")
    equal(halley.metric("halley_tcp_viewers_total"), 1, "viewers whose options were looked at")
    equal(halley.metric("halley_tcp_without_total"), 0, "options that it does without")


def publish_long(halley, path):
    """The warnings of a gift that does not fit a segment."""
    status, text = halley.http("POST", path, {"type": "gift", "data": {"pad": "x" * 1200}})
    equal(status, 202, "status of a message that does not fit")
    return json.loads(text)["warnings"]


def warns(halley, viewer):
    until(lambda: halley.metric("halley_common_segment_bytes") == 1208, "the common segment")
    fits = {"type": "gift", "data": {"pad": "x" * 1000}}
    for path in PATHS:
        status, text = halley.http("POST", path, fits)
        equal((status, json.loads(text)["warnings"]), (202, []), f"a message that fits, to {path}")
    for i, path in enumerate(PATHS):
        warnings = publish_long(halley, path)
        equal(len(warnings), 1, f"warnings of a message that does not fit, to {path}")
        if "1208" not in warnings[0]:
            raise AssertionError(f"the warning tells the size: {warnings[0]}")
        read_until(viewer, b"x" * 1200)  # delivered all the same
        equal(halley.metric("halley_long_frames_total"), i + 1, "long frames counted")
    for whose in ("room=seg", "user=seg", "room=(all)"):
        until(lambda whose=whose: f"{whose} type=gift" in halley.log, f"{whose} and the type of the long frame logged")
    status, _ = halley.http("POST", PATHS[0], {"type": "gift", "data": "x" * 20000})
    equal(status, 413, "past max_bytes it is refused")


def set_mtu(mtu):
    sh("ip", "link", "set", LINK.near, "mtu", str(mtu))
    LINK.inside("ip", "link", "set", LINK.far, "mtu", str(mtu))


def set_rate(rate, mtu):
    """A bucket of one packet, so that the kernel's large buffers leave as the segments that they are."""
    sh("tc", "qdisc", "replace", "dev", LINK.near, "root", "tbf", "rate", rate, "burst", str(mtu + 320), "limit", "400000")


def tcp_payload(packet, port):
    """(sequence, payload) of an IPv4 TCP packet from the port; None: another one."""
    header = 14 + (packet[14] & 15) * 4
    if packet[12:14] != b"\x08\x00" or packet[23] != 6 or struct.unpack_from("!H", packet, header)[0] != port:
        return None
    total = struct.unpack_from("!H", packet, 16)[0]
    sequence = struct.unpack_from("!I", packet, header + 4)[0]
    start = header + (packet[header + 12] >> 4) * 4
    return sequence, packet[start : 14 + total]


def frames_of(data):
    """(begin, end) of each frame of a stream."""
    at = 0
    while at < len(data):
        length, head = data[at + 1] & 127, 2
        if length == 126:
            length, head = struct.unpack_from("!H", data, at + 2)[0], 4
        yield at, at + head + length
        at += head + length


class Tap:
    """What arrives at the viewer's end of the link from now on, as it stood on the wire."""

    def __init__(self, port):
        self.port = port
        self.socket = LINK.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((LINK.far, 0))
        self.socket.setblocking(False)

    def read(self):
        """(data, where in it segments begin)."""
        stream = {}
        while True:
            try:
                packet = self.socket.recv(70000)
            except BlockingIOError:
                break
            found = tcp_payload(packet, self.port)
            if found and found[1] and found[0] not in stream:
                stream[found[0]] = found[1]
        self.socket.close()
        first = min(stream)
        data = b"".join(stream[key] for key in sorted(stream))
        begins = [key - first for key in sorted(stream)]
        equal(begins[-1] + len(stream[first + begins[-1]]), len(data), "bytes captured without a hole")
        return data, begins


def has_whole_frames(data, begins, segment, what):
    """Every frame that fits a segment came in one."""
    frames = list(frames_of(data))
    longest = max(end - begin for begin, end in zip(begins, begins[1:] + [len(data)]))
    if longest > segment:
        raise AssertionError(f"captured parts are segments: {longest} bytes")
    torn = [
        (begin, end)
        for begin, end in frames
        if end - begin <= segment and any(begin < at < end for at in begins)
    ]
    print(f"# {what}: {len(frames)} frames, {len(data)} bytes in {len(begins)} segments, {len(torn)} frames in two")
    equal(torn, [], f"{what}: frames that fit a segment of {segment} bytes and came in two")
    return frames


SIZES = [40 + i * 37 % 700 for i in range(300)]


def cuts_at_frames(halley, viewer, path, sizes):
    """All published while next to nothing passes; what has gathered then leaves in few writes."""
    tap = Tap(halley.port)
    set_rate("8kbit", MTU)
    for i, size in enumerate(sizes):
        body = {"type": "gift", "data": {"i": i, "pad": "y" * size}}
        equal(halley.http("POST", path, body)[0], 202, "status of a publish")
    set_rate("2mbit", MTU)
    for i, size in enumerate(sizes):  # all of them, whole and in order
        message = json.loads(read_until(viewer, b'"gift"'))
        equal((message["data"]["i"], len(message["data"]["pad"])), (i, size), "number and length of a gift")
    data, begins = tap.read()
    frames = has_whole_frames(data, begins, SEGMENT, path)
    behind = sum(begin not in begins for begin, _ in frames)
    if behind < len(frames) / 4:
        raise AssertionError(f"{behind} of {len(frames)} frames behind another in a segment: the run shows nothing")


def cuts_in_a_small_buffer():
    set_mtu(MTU)
    halley = Halley(host=LINK.host, workers=1, options={"tcp.sndbuf": "4k"})
    viewer = Viewer(LINK.socket(), LINK.host, halley.port, "user=seg&room=seg", 20 * SLOWNESS)
    read_until(viewer, b'"joined"')
    for path, sizes in ((PATHS[0], SIZES[:100] + [9000]), (PATHS[1], [100, 9000, 50, 30, 3000, 200, 5000, 10] + SIZES[:20])):
        cuts_at_frames(halley, viewer, path, sizes)
    viewer.close()
    halley.stop()


def loses_nothing():
    """With small buffers on both sides the kernel takes frames in parts; in private queue and logs whole ones wait."""
    halley = Halley(host=LINK.host, workers=1, options={"tcp.sndbuf": "4k", "limits.private_bytes": "256k"})
    sock = LINK.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    viewer = Viewer(sock, LINK.host, halley.port, "user=seg&room=seg", 20 * SLOWNESS)
    read_until(viewer, b'"joined"')
    sizes = [3000, 100, 12000, 50, 30, 7000, 200, 9000, 10] * 5
    for path in PATHS:
        for i, size in enumerate(sizes):
            body = {"type": "gift", "data": {"i": i, "pad": "y" * size}}
            equal(halley.http("POST", path, body)[0], 202, "status of a publish")
        for i, size in enumerate(sizes):
            message = json.loads(read_until(viewer, b'"gift"'))
            equal((message["data"]["i"], len(message["data"]["pad"])), (i, size), f"number and length of a gift to {path}")
    viewer.close()
    halley.stop()


def goes_whole(mtu, pad, options):
    """One gift that fits a segment, however much tcp.notsent_lowat lets wait."""
    set_mtu(mtu)
    set_rate("100mbit", mtu)
    halley = Halley(host=LINK.host, workers=1, options=options)
    viewer = Viewer(LINK.socket(), LINK.host, halley.port, "user=seg&room=seg", 20 * SLOWNESS)
    read_until(viewer, b'"joined"')
    for path in PATHS:
        tap = Tap(halley.port)
        status, text = halley.http("POST", path, {"type": "gift", "data": "z" * pad})
        equal(status, 202, f"status of a publish ({text})")
        read_until(viewer, b"z" * pad)
        data, begins = tap.read()
        has_whole_frames(data, begins, mtu - 40 - 12, f"{path}, MTU {mtu}, {options}")
    viewer.close()
    halley.stop()


def tells_change(viewer):
    sh("ip", "link", "set", LINK.near, "mtu", "1000")
    told = None
    for _ in range(20):  # the kernel notices with what it sends next, the gateway with the ping after that
        viewer.text('{"op":"ping"}')
        told = json.loads(read_until(viewer, b'"pong"')).get("frame_bytes")
        if told:
            break
    equal(told, 1000 - 40 - 12 - 4, "frame_bytes in the pong after the change")
    viewer.text('{"op":"ping"}')
    equal("frame_bytes" in json.loads(read_until(viewer, b'"pong"')), False, "frame_bytes in the next pong")


def kernel_inside(name, value):
    LINK.inside("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")


def counts_what_is_missing():
    """Of 100 viewers some lack one option each; --doctor tells the shares."""
    halley = Halley(host=LINK.host, workers=1)
    viewers, missing = [], {"sack": 15, "timestamps": 20, "window_scaling": 5}
    for option, count in {**missing, None: 60}.items():
        if option:
            kernel_inside(f"tcp_{option}", 0)
        for _ in range(count):
            viewers.append(Viewer(LINK.socket(), LINK.host, halley.port, "user=seg", 20 * SLOWNESS))
        if option:
            kernel_inside(f"tcp_{option}", 1)
    equal(halley.metric("halley_tcp_viewers_total"), 100, "viewers whose options were looked at")
    for option, count in missing.items():
        equal(halley.metric("halley_tcp_without_total", f'option="{option}"'), count, f"viewers without {option}")
    doctor = subprocess.run(
        [HALLEY_BIN, "--doctor", "-o", f"admin.listen=127.0.0.1:{halley.admin_port}"],
        capture_output=True,
        text=True,
        check=False,
    )
    equal(doctor.returncode, 1, "exit code of --doctor, which warns")
    for line in (
        "warn  viewers without TCP SACK = 15.0 % of 100",
        "warn  viewers without TCP timestamps = 20.0 % of 100",
        "ok    viewers without TCP window scaling = 5.0 % of 100",
    ):
        if line not in doctor.stdout:
            raise AssertionError(f"--doctor tells {line!r}: {doctor.stdout}")
    for viewer in viewers:
        viewer.close()
    halley.stop()


def all_checks():
    halley = Halley(host=LINK.host, workers=1)
    viewer = Viewer(LINK.socket(), LINK.host, halley.port, "user=seg&room=seg", 20 * SLOWNESS)
    welcome = read_until(viewer, b'"welcome"')
    read_until(viewer, b'"joined"')
    check("welcome, pong and metrics tell the size of segments", lambda: tells_sizes(halley, viewer, welcome))
    check("a publisher is warned of what does not fit", lambda: warns(halley, viewer))
    check(NAME, lambda: cuts_at_frames(halley, viewer, PATHS[0], SIZES))
    # limits.private_bytes bounds what may wait for one viewer.
    check("so do those to a user", lambda: cuts_at_frames(halley, viewer, PATHS[1], SIZES[:60]))
    check("so do they with long ones among them, in a small send buffer", cuts_in_a_small_buffer)
    sh("tc", "qdisc", "del", "dev", LINK.near, "root")
    check("frames of which the kernel takes parts arrive whole and in order", loses_nothing)
    check("pong tells the size when it has changed", lambda: tells_change(viewer))
    check("viewers without TCP options are counted, and --doctor tells their share", counts_what_is_missing)
    viewer.close()
    halley.stop()
    check("a gift of 3,000 bytes goes whole where it fits a segment", lambda: goes_whole(9000, 3000, {}))
    check(
        "a gift that is longer than tcp.notsent_lowat goes whole",
        lambda: goes_whole(1500, 1200, {"tcp.notsent_lowat": "1k"}),
    )


def main():
    if os.geteuid() != 0:
        skip(NAME, "needs root")
        sys.exit(0)
    try:
        LINK.up()
        set_mtu(MTU)
    except OSError as error:
        LINK.down()
        skip(NAME, f"no namespaces here ({error})")
        sys.exit(0)
    try:
        all_checks()
        finish()
    finally:
        LINK.down()


main()
