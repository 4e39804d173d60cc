#!/usr/bin/python3
"""Frames and TCP segments: what viewers and publishers are told, and where writes of the high lane are cut.

The viewer sits in a network namespace; what it receives is read from its end of the link, as it stood on the wire.
"""

import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import SLOWNESS, Halley, check, equal, finish, skip, until  # noqa: E402
from lib_netns import Link, Viewer, sh  # noqa: E402

NAME = "segments of the high lane end where frames end"
LINK = Link()
MTU = 1280
SEGMENT = MTU - 40 - 12  # with timestamps
FRAMES = 300


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


def warns(halley, viewer):
    until(lambda: halley.metric("halley_common_segment_bytes") == 1208, "the common segment")
    fits = {"type": "gift", "data": {"pad": "x" * 1000}}
    status, text = halley.http("POST", "/v1/rooms/seg/messages", fits)
    equal((status, json.loads(text)["warnings"]), (202, []), "a message that fits")
    long = {"type": "gift", "data": {"pad": "x" * 1200}}
    status, text = halley.http("POST", "/v1/rooms/seg/messages", long)
    warnings = json.loads(text)["warnings"]
    equal((status, len(warnings)), (202, 1), "a message that does not fit")
    if "1208" not in warnings[0]:
        raise AssertionError(f"the warning tells the size: {warnings[0]}")
    read_until(viewer, b"x" * 1200)  # delivered all the same
    equal(halley.metric("halley_long_frames_total"), 1, "long frames counted")
    if "room=seg" not in halley.log or "type=gift" not in halley.log:
        raise AssertionError("room and type of the long frame are logged")
    status, _ = halley.http("POST", "/v1/rooms/seg/messages", {"type": "gift", "data": "x" * 20000})
    equal(status, 413, "past max_bytes it is refused")


def tcp_payload(packet, port):
    """(sequence, payload) of an IPv4 TCP packet from the port; None: another one."""
    header = 14 + (packet[14] & 15) * 4
    if packet[12:14] != b"\x08\x00" or packet[23] != 6 or struct.unpack_from("!H", packet, header)[0] != port:
        return None
    total = struct.unpack_from("!H", packet, 16)[0]
    sequence = struct.unpack_from("!I", packet, header + 4)[0]
    start = header + (packet[header + 12] >> 4) * 4
    return sequence, packet[start : 14 + total]


def is_boundary(data, offsets):
    """Offsets of a stream of frames at which one begins."""
    starts, at = set(), 0
    while at < len(data):
        starts.add(at)
        length, head = data[at + 1] & 127, 2
        if length == 126:
            length, head = struct.unpack_from("!H", data, at + 2)[0], 4
        at += head + length
    return [offset for offset in offsets if offset not in starts]


def cuts_at_frames(halley, viewer):
    tap = LINK.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    tap.bind((LINK.far, 0))
    tap.settimeout(10 * SLOWNESS)
    # A link that holds the first ones back, so that a backlog of many frames leaves in one write.
    sh("tc", "qdisc", "replace", "dev", LINK.near, "root", "tbf", "rate", "256kbit", "burst", "1600", "limit", "64000")
    for i in range(FRAMES):
        halley.publish("seg", {"type": "gift", "data": {"i": i, "pad": "y" * (40 + i * 37 % 700)}})
    read_until(viewer, f'"i": {FRAMES - 1},'.encode())
    tap.setblocking(False)
    stream, segments = {}, []
    while True:
        try:
            packet = tap.recv(70000)
        except BlockingIOError:
            break
        found = tcp_payload(packet, halley.port)
        if found and found[1] and found[0] not in stream:
            stream[found[0]] = found[1]
    first = min(stream)
    data = b"".join(stream[key] for key in sorted(stream))
    segments = [key - first for key in sorted(stream)]
    equal(segments[-1] + len(stream[first + segments[-1]]), len(data), "bytes captured without a hole")
    longest = max(len(part) for part in stream.values())
    if longest > SEGMENT:
        raise AssertionError(f"captured parts are segments: {longest} bytes")
    full = sum(len(part) > SEGMENT // 2 for part in stream.values())
    print(f"# {FRAMES} frames, {len(data)} bytes in {len(segments)} segments, {full} of them more than half full")
    if len(segments) > FRAMES * 0.9:
        raise AssertionError("frames gathered: the run shows nothing otherwise")
    straddled = is_boundary(data, segments)
    equal(len(straddled), 0, "segments that begin inside a frame")


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


def all_checks():
    halley = Halley(host=LINK.host, workers=1)
    viewer = Viewer(LINK.socket(), LINK.host, halley.port, "user=seg&room=seg", 20 * SLOWNESS)
    welcome = read_until(viewer, b'"welcome"')
    read_until(viewer, b'"joined"')
    check("welcome, pong and metrics tell the size of segments", lambda: tells_sizes(halley, viewer, welcome))
    check("a publisher is warned of what does not fit", lambda: warns(halley, viewer))
    check(NAME, lambda: cuts_at_frames(halley, viewer))
    check("pong tells the size when it has changed", lambda: tells_change(viewer))


def main():
    if os.geteuid() != 0:
        skip(NAME, "needs root")
        sys.exit(0)
    try:
        LINK.up()
        sh("ip", "link", "set", LINK.near, "mtu", str(MTU))
        LINK.inside("ip", "link", "set", LINK.far, "mtu", str(MTU))
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
