#!/usr/bin/python3
"""A thin link that is never idle: messages of the high lane and pongs overtake a full normal lane.

A viewer sits in a network namespace behind a veth pair whose end here lets 64 kbit/s out (tbf, limit 16000, cubic). The
daemon runs outside; the test enters the namespace only to make the viewer's socket.
"""

import json
import os
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import SLOWNESS, Halley, check, finish, skip  # noqa: E402
from lib_netns import Link, Viewer, sh  # noqa: E402

NAME = "high messages and pongs overtake a flooded normal lane on 64 kbit/s"
SECONDS = 60
LINK = Link()


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
    halley = Halley(host=LINK.host, workers=1)
    viewer = Viewer(LINK.socket(), LINK.host, halley.port, "user=thin&room=thin", 20 * SLOWNESS)
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
    os.nice(-10)  # viewer, daemon and link stand for machines of their own: nothing else that runs here is to take their cores
    try:
        LINK.up()
        sh("tc", "qdisc", "add", "dev", LINK.near, "root", "tbf", "rate", "64kbit", "burst", "1600", "limit", "16000")
    except OSError as error:
        LINK.down()
        skip(NAME, f"no namespaces or tbf here ({error})")
        sys.exit(0)
    try:
        check(NAME, overtakes)
        finish()
    finally:
        LINK.down()


main()
