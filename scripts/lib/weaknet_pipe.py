"""A long link of scripts/weaknet: carries packets between two TUN devices, which it has as descriptors.

weaknet_pipe.py DOWN UP: what comes out of DOWN goes into UP at a rate, through a queue of bounded bytes, and later by a delay; the way
back has only the delay. Each line of the standard input sets bytes/s, the queue's bytes and the delay in seconds; its end is the end.
"""

import collections
import os
import select
import sys
import time

PACKETS_AT_ONCE = 64


def packets(device):
    for _ in range(PACKETS_AT_ONCE):
        try:
            yield os.read(device, 65536)
        except BlockingIOError:
            return


def pass_due(way, device, now):
    while way and way[0][0] <= now:
        os.write(device, way.popleft()[1])


class Queue:
    """What waits in front of the thin part, and what has left it and is under way."""

    def __init__(self):
        self.rate, self.most, self.delay = 1.0, 0, 0.0
        self.waiting, self.bytes = collections.deque(), 0
        self.leaves_at = 0.0  # the first one
        self.flying = collections.deque()

    def put(self, packet, now):
        if self.bytes + len(packet) > self.most:
            return
        if not self.waiting:
            self.leaves_at = max(self.leaves_at, now) + len(packet) / self.rate
        self.waiting.append(packet)
        self.bytes += len(packet)

    def move(self, now):
        while self.waiting and self.leaves_at <= now:
            packet = self.waiting.popleft()
            self.bytes -= len(packet)
            self.flying.append((self.leaves_at + self.delay, packet))
            if self.waiting:
                self.leaves_at += len(self.waiting[0]) / self.rate


def carry(down, up):
    queue, back = Queue(), collections.deque()
    while True:
        now = time.monotonic()
        queue.move(now)
        pass_due(queue.flying, up, now)
        pass_due(back, down, now)
        events = [now + 1] + [way[0][0] for way in (queue.flying, back) if way] + ([queue.leaves_at] if queue.waiting else [])
        ready = select.select([down, up, sys.stdin], [], [], max(0.0, min(events) - time.monotonic()))[0]
        now = time.monotonic()
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            queue.rate, queue.most, queue.delay = (float(word) for word in line.split())
        for packet in packets(down) if down in ready else ():
            queue.put(packet, now)
        for packet in packets(up) if up in ready else ():
            back.append((now + queue.delay, packet))


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]))
