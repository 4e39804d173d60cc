"""Scenarios of weak networks on real network stacks: see scripts/weaknet --help and docs/operations.md."""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

from weaknet_bed import PORT, VIRTUAL, Bed, Loop, Missing, Viewer

EXIT_UNAVAILABLE = 69
CHAT_BYTES = 900


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def require(condition, text):
    if not condition:
        raise AssertionError(text)


def open_room(loop, query, count, **options):
    """So many viewers of a room, once all have joined."""
    joined = []

    def wait_joined(viewer, message):
        if message.get("op") == "joined":
            joined.append(viewer)

    viewers = [Viewer(loop, f"{query}&user=v{i}", on_message=wait_joined, **options) for i in range(count)]
    require(loop.run(30, lambda: len(joined) == count), f"{count} viewers join: {len(joined)} did")
    return viewers


def keep_alive(viewer):
    """What a native client does: a ping when it has sent nothing for the interval."""
    if not viewer.closed and time.monotonic() - viewer.sent_at >= viewer.told_ms / 1000:
        viewer.ping()


def flood_link(short, lay, rate=64000, chat_every=0.025, congestion="cubic"):
    """What a viewer gets through a link of so many bits/s that a flood of chat never lets idle, with all else as shipped."""
    seconds = 45 if short else 180
    bed = Bed()
    try:
        lay(bed)
        node = bed.start_node(tcp__congestion=congestion)
        loop = Loop(bed, node.host)
        viewer = open_room(loop, "room=thin", 1)[0]
        admin = node.admin()
        gifts, pongs, asked, queue = [], [], [], []
        state = {"chat": 0, "gift": 0, "measure": False, "skipped": 0, "got": 0}

        def on_message(_, message):
            now = time.monotonic()
            if message.get("type") == "gift":
                gifts.append((message["data"]["n"], now - message["data"]["t"]))
            elif message.get("type") == "chat":
                state["got"] += state["measure"]
            elif message.get("op") == "pong":
                pongs.append(now - asked.pop(0))
            elif message.get("op") == "skipped":
                state["skipped"] += message["count"]

        def flood():
            state["chat"] += 1
            node.http("POST", "/v1/rooms/thin/messages", {"type": "chat", "data": {"n": state["chat"], "pad": "x" * CHAT_BYTES}}, admin)

        def gift():
            if state["measure"]:
                body = {"type": "gift", "data": {"n": state["gift"], "t": time.monotonic()}}
                state["gift"] += 1
                node.http("POST", "/v1/rooms/thin/messages", body, admin)

        def ping():
            if state["measure"]:
                asked.append(time.monotonic())
                viewer.ping()

        def look():
            found = json.loads(node.http("GET", "/v1/users/v0/connections", None, admin)[1])["connections"]
            lag = sum(lane["bytes"] for room in found[0]["rooms"] for lane in room["lag"].values())
            queue.append(lag + found[0]["private_bytes"])

        viewer.on_message = on_message
        for every, job in ((chat_every, flood), (0.25, gift), (0.73, ping), (1.0, look)):
            loop.every(every, job)
        loop.run(6)  # the link is full before anything is measured
        state["measure"] = True
        loop.run(seconds)
        state["measure"] = False
        require(loop.run(10, lambda: len(gifts) == state["gift"] and not asked), "the last gifts and pongs arrive")
        require(not viewer.closed, "the viewer stays")
        require([n for n, _ in gifts] == list(range(state["gift"])), "every gift once, in order")
        require(state["skipped"] > 0, "the link was full: chat was skipped")
        gift_p99, pong_p99 = percentile([t for _, t in gifts], 0.99), percentile(pongs, 0.99)
        used = state["got"] * CHAT_BYTES * 8 / seconds / rate
        told = (
            f"{len(gifts)} gifts p99 {gift_p99:.2f} s, {len(pongs)} heartbeat replies p99 {pong_p99:.2f} s, "
            f"queue at most {max(queue) // 1024} KB, {used:.0%} of the link is chat"
        )
        require(gift_p99 < 2 and pong_p99 < 1.5, f"gifts p99 under 2 s, replies under 1.5 s: {told}")
        require(used >= 0.75, f"the link is used: {told}")
        # The shipped bounds of the lanes and of the private queue.
        require(max(queue) <= (256 + 128 + 32 + 32) * 1024, f"the queue is bounded: {told}")
        return told
    finally:
        bed.close()


def thin(short):
    """64 kbit/s that a flood of chat never lets idle: heartbeat replies and gifts stay quick."""
    return flood_link(short, lambda bed: bed.thin_link())


def far(short):
    """The same with the thin link far from the node, whose kernel does not see its queue: tcp.send_delay bounds what is in it."""
    return flood_link(short, lambda bed: bed.thin_link(far=True))


def bbr(short):
    """The same with bbr, where the kernel has it."""
    with open("/proc/sys/net/ipv4/tcp_available_congestion_control", encoding="ascii") as file:
        if "bbr" not in file.read().split():
            return "left out: no bbr here"
    return flood_link(short, lambda bed: bed.thin_link(far=True), congestion="bbr")


def bloat(short):
    """1 Mbit/s far from the node with a queue of two seconds, under 225 KB/s of chat."""
    return flood_link(short, lambda bed: bed.thin_link("1mbit", "256000", far=True), 1e6, 0.004)


def long(short):
    """The same, and the way is long by itself: 300 ms there and back."""
    return flood_link(short, lambda bed: bed.long_link(1e6, 256000, 300), 1e6, 0.004)


def widen(_):
    """A thin link becomes a fast one while chat floods it: the viewer gets its send buffer back, and then everything."""
    bed = Bed()
    try:
        bed.long_link(64e3, 64000, 200)
        node = bed.start_node(tcp__congestion="cubic")
        loop = Loop(bed, node.host)
        got, sent = [], []
        viewer = open_room(loop, "room=lift", 1)[0]
        viewer.on_message = lambda _, message: got.append(message["data"]) if message.get("type") == "chat" else None
        admin = node.admin()

        def flood():
            node.http("POST", "/v1/rooms/lift/messages", {"type": "chat", "data": len(sent), "from": "x" * 60}, admin)
            sent.append(time.monotonic())

        loop.every(0.002, flood)
        require(loop.run(15, lambda: node.metric("halley_viewers_narrowed") == 1), "the thin link's viewer is narrowed")
        found = json.loads(node.http("GET", "/v1/users/v0/connections", None, admin)[1])["connections"][0]
        require(found["narrowed"] and found["sndbuf"] < 32768, f"its connection says so: {found['narrowed']}, {found['sndbuf']}")
        loop.run(5)
        bed.long_link(20e6, 256000, 200)
        begin, first = time.monotonic(), len(sent)
        current = loop.run(15, lambda: got and time.monotonic() - sent[got[-1]] < 0.5)
        after = time.monotonic() - begin
        require(current, f"it gets what is said now, not what was said {time.monotonic() - sent[got[-1]]:.1f} s ago")
        got.clear()
        loop.run(5)
        missed = got[-1] - got[0] + 1 - len(got)
        rate = (len(sent) - first) / (time.monotonic() - begin)
        told = f"up to date {after:.1f} s after, then {missed} of {rate:.0f} messages/s missed in 5 s"
        require(missed == 0 and time.monotonic() - sent[got[-1]] < 0.5, told)
        viewer.end()
        require(loop.run(5, lambda: node.metric("halley_viewers_narrowed") == 0), "who has gone is not narrowed")
        return told
    finally:
        bed.close()


def rest(_):
    """Who was narrowed and does not wait any more has the kernel's own send buffer again after a heartbeat."""
    bed = Bed()
    try:
        bed.thin_link(far=True)
        node = bed.start_node(tcp__congestion="cubic", heartbeat__interval="1s", heartbeat__timeout="5s")
        loop = Loop(bed, node.host)
        viewer = open_room(loop, "room=rest", 1)[0]
        admin = node.admin()

        def flood():
            node.http("POST", "/v1/rooms/rest/messages", {"type": "chat", "data": "x" * 900}, admin)

        loop.every(0.2, lambda: keep_alive(viewer))
        loop.every(0.025, flood)
        require(loop.run(15, lambda: node.metric("halley_viewers_narrowed") == 1), "the thin link's viewer is narrowed")
        begin = time.monotonic()
        loop.jobs.pop()
        require(loop.run(30, lambda: node.metric("halley_viewers_narrowed") == 0), "it is not any more once it has everything")
        require(not viewer.closed, "the viewer stays")
        found = json.loads(node.http("GET", "/v1/users/v0/connections", None, admin)[1])["connections"][0]
        require(not found["narrowed"], "its connection says so")
        return f"given back {time.monotonic() - begin:.1f} s after the flood"
    finally:
        bed.close()


def loss(short):
    """5 % loss each way: nobody is closed, no gift is lost."""
    seconds, count = (40, 30) if short else (600, 50)
    bed = Bed()
    try:
        node = bed.start_node(**({"heartbeat__interval": "5s", "heartbeat__timeout": "10s"} if short else {}))
        loop = Loop(bed, node.host)
        viewers = open_room(loop, "room=loss", count)
        bed.loss(5)
        admin = node.admin()
        got = {viewer: [] for viewer in viewers}
        sent = {"gift": 0, "chat": 0}

        def on_message(viewer, message):
            if message.get("type") == "gift":
                got[viewer].append(message["data"])

        def publish(kind):
            node.http("POST", "/v1/rooms/loss/messages", {"type": kind, "data": sent[kind]}, admin)
            sent[kind] += 1

        for viewer in viewers:
            viewer.on_message = on_message
        loop.every(0.2, lambda: publish("gift"))
        loop.every(0.1, lambda: publish("chat"))
        loop.every(0.1, lambda: [keep_alive(viewer) for viewer in viewers])
        loop.run(seconds)
        loop.jobs.clear()
        loop.every(0.1, lambda: [keep_alive(viewer) for viewer in viewers])
        loop.run(30, lambda: all(len(gifts) == sent["gift"] for gifts in got.values()))
        dropped = bed.inside("router", "nft", "list", "table", "ip", "weak")
        require("packets 0 " not in dropped, "packets were lost at all")
        closed = [viewer for viewer in viewers if viewer.closed]
        require(not closed, f"nobody is closed: {len(closed)} of {count} were")
        wrong = sum(gifts != list(range(sent["gift"])) for gifts in got.values())
        require(wrong == 0, f"every gift once, in order: not so for {wrong} of {count} viewers")
        return f"{count} viewers, {seconds} s, {sent['gift']} gifts to each, none closed, none lost"
    finally:
        bed.close()


def nat(short):
    """A NAT that forgets after 4 s: viewers settle below it and are lost no more."""
    forgets, count = 4, 20
    learn, watch = 80, (15 if short else 120)
    bed = Bed()
    try:
        bed.forgetful_nat(forgets)
        node = bed.start_node(heartbeat__interval="1s", heartbeat__timeout="2s", heartbeat__max="30s")
        loop = Loop(bed, node.host)
        phones = [{"lost": 0, "asked": None} for _ in range(count)]
        lost = []

        def connect(i):
            phones[i]["asked"] = None
            phones[i]["viewer"] = Viewer(loop, f"user=p{i}&session=s{i}&net=cell", on_message=on_message)
            phones[i]["viewer"].phone = phones[i]

        def on_message(viewer, message):
            if message.get("op") == "pong":
                viewer.phone["asked"] = None

        def live():
            now = time.monotonic()
            for i, phone in enumerate(phones):
                viewer = phone["viewer"]
                if viewer.closed or (phone["asked"] and now - phone["asked"] > 2):
                    lost.append(now)
                    if not viewer.closed:
                        viewer.abandon()
                    connect(i)
                elif not phone["asked"] and now - viewer.sent_at >= viewer.told_ms / 1000:
                    viewer.ping()
                    phone["asked"] = now

        for i in range(count):
            connect(i)
        loop.every(0.02, live)
        loop.run(learn)
        learned, begin = len(lost), time.monotonic()
        loop.run(watch)
        told = sorted(phone["viewer"].told_ms for phone in phones)
        after = sum(at >= begin for at in lost)
        text = f"forgets after {forgets} s: told {told[0]} to {told[-1]} ms, {learned} lost while learning, {after} after"
        require(1 <= learned <= 3 and after == 0, text)
        require(told[0] >= 600 * forgets and told[-1] <= 950 * forgets, text)
        require(node.metric("halley_network_losses_total", 'kind="scout"') == learned, f"the node knows of its losses: {text}")
        return text
    finally:
        bed.close()


def halfopen(_):
    """Viewers that vanish without a word: a silent one by its missing sign of life, one that is written to by TCP_USER_TIMEOUT."""
    found = []
    for kind, options in (
        ("heartbeat", {"heartbeat__interval": "1s", "heartbeat__timeout": "2s"}),
        ("reset", {"heartbeat__interval": "60s", "tcp__user_timeout": "4s"}),
    ):
        bed = Bed()
        try:
            node = bed.start_node(**options)
            loop = Loop(bed, node.host)
            viewer = open_room(loop, "room=gone", 1)[0]
            bed.cut_off()
            if kind == "reset":
                node.http("POST", "/v1/rooms/gone/messages", {"type": "chat", "data": 1})
            begin = time.monotonic()
            ended = loop.run(20, lambda: node.metric("halley_closes_total", f'reason="{kind}"') == 1)
            require(ended, f"the node finds out by {kind}")
            require(node.metric("halley_viewers") == 0, "nobody is counted any more")
            require(not viewer.closed, "the viewer was told nothing")
            found.append(f"{kind} after {time.monotonic() - begin:.1f} s")
        finally:
            bed.close()
    return ", ".join(found)


def balance(_):
    """Several nodes behind one address: each viewer's address always meets the same one."""
    addresses, nodes = 40, 3
    bed = Bed(nodes=nodes, viewer_addresses=addresses)
    try:
        bed.balance()
        for number in range(1, nodes + 1):
            bed.start_node(number)
        loop = Loop(bed, VIRTUAL)
        met = [set() for _ in range(addresses)]

        def on_message(viewer, message):
            if message.get("op") == "welcome":
                met[viewer.index].add(message["node"])

        for _ in range(2):
            for i in range(addresses):
                welcome = []
                viewer = Viewer(loop, "user=x", source=f"10.99.0.{2 + i}", on_message=lambda _, m: welcome.append(m))
                viewer.index = i
                require(loop.run(5, lambda: welcome), "a welcome")
                on_message(viewer, welcome[0])
        require(all(len(nodes_met) == 1 for nodes_met in met), "an address always meets the same node")
        share = [sum(f"node-{n}" in nodes_met for nodes_met in met) for n in range(1, nodes + 1)]
        require(min(share) > 0, f"all nodes get some: {share}")
        return f"{addresses} addresses over {nodes} nodes: {share}"
    finally:
        bed.close()


class Killer:
    """Kills a node drawn by lot, again and again. The balancer takes it out a second later, as health checks do, and in again once it is ready."""

    def __init__(self, bed, options, seconds):
        self.bed, self.options = bed, options
        self.numbers = list(range(1, bed.node_count + 1))
        self.nodes = {number: bed.start_node(number, **options) for number in self.numbers}
        self.down, self.last, self.kills = None, None, 0
        self.end = time.monotonic() + seconds
        self.due = time.monotonic() + 2

    def step(self):
        now = time.monotonic()
        if now < self.due or (self.down is None and now > self.end):
            return
        if self.down is None:
            # A node that came back holds nobody yet: not the same one twice.
            self.down = random.choice([number for number in self.numbers if number != self.last])
            self.last = self.down
            self.nodes.pop(self.down).stop()
            self.kills += 1
            self.due = now + 1
        elif self.down not in self.nodes:
            self.bed.balance([number for number in self.numbers if number != self.down])
            self.nodes[self.down] = self.bed.start_node(self.down, wait=False, **self.options)
        elif self.nodes[self.down].is_ready():
            self.bed.balance()
            self.down = None
            self.due = now + 1 + 2 * random.random()

    def is_over(self):
        return time.monotonic() > self.end and self.down is None


class Backend:
    """Publishes to whichever node answers, each message again, with its key, until one said yes."""

    def __init__(self, nodes):
        self.nodes, self.links = nodes, {}
        self.count, self.again, self.last = 0, 0, {}

    def publish(self):
        self.count += 1
        body = {"type": "gift" if self.count % 2 else "chat", "data": {"n": self.count, "pad": "x" * 300}, "key": f"m{self.count}"}
        end = time.monotonic() + 15
        while time.monotonic() < end:
            node = random.choice(list(self.nodes.values()))
            try:
                link = self.links.get(node) or node.admin()
                self.links[node] = link
                status, text = node.http("POST", "/v1/rooms/kill/messages", body, link)
            except (OSError, http.client.HTTPException):
                self.links.pop(node, None)
                status, text = 0, "no answer"
            if status in (200, 202):
                found = json.loads(text)["id"]
                self.last[found[0]] = found
                return
            require(status in (0, 503), f"a publish is answered {status}: {text}")
            self.again += 1
            time.sleep(0.01)
        raise AssertionError("no node took a message within 15 s")


class Followers:
    """halley-bench follow in the viewers' namespace."""

    def __init__(self, bed, count, addresses):
        bench = os.path.join(os.path.dirname(os.environ["HALLEY_BIN"]), "halley-bench")
        self.file = tempfile.TemporaryFile("a+")
        self.count = count
        self.process = bed.spawn(
            "viewers", bench, "follow", "--url", f"ws://{VIRTUAL}:{PORT}/ws", "--room", "kill", "--viewers", str(count),
            "--source", "10.99.0.2", "--sources", str(addresses), "--slow", "5", "--report-ms", "100", stdout=self.file,
        )

    def state(self):
        self.file.seek(0)
        lines = self.file.read().split("\n")
        return json.loads(lines[-2]) if len(lines) > 1 else {"joined": 0, "lanes": {}}

    def are_at(self, last):
        now = self.state()
        at = [lane["id"] for lane in now["lanes"].values() if lane["viewers"] == self.count]
        return now["joined"] == self.count and sorted(at) == sorted(last.values())

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)


def kill(short):
    """Three nodes behind one address, one of them killed every few seconds: every viewer gets every message once and in order."""
    seconds, count, addresses = (15, 300, 40) if short else (120, 600, 40)
    bed = Bed(nodes=3, viewer_addresses=addresses)
    try:
        if not shutil.which("redis-server"):
            raise Missing("`redis-server` is missing: apt-get install redis-server")
        url = bed.start_redis()
        bed.balance()
        killer = Killer(
            bed, {"broker.url": url, "type.chat.history": "yes", "type.gift.history": "yes", "history.length": 5000}, seconds
        )
        followers = Followers(bed, count, addresses)
        loop = Loop(bed, VIRTUAL)
        require(loop.run(20, lambda: followers.state()["joined"] == count), f"all join: {followers.state()}")
        backend = Backend(killer.nodes)
        loop.every(0.02, backend.publish)
        loop.every(0.05, killer.step)
        require(loop.run(seconds + 30, killer.is_over), "the last killed node comes back")
        loop.jobs.clear()
        arrived = loop.run(30, lambda: followers.are_at(backend.last))
        code = followers.stop()
        found = followers.state()
        told = (
            f"{killer.kills} kills, {count} viewers, {backend.count} messages to each ({backend.again} tries more), {found['connects']} "
            f"connections, {found['holes']} holes, {found['repeats']} repeats, {found['lost']} lost"
        )
        require(arrived, f"everybody has the last messages {backend.last}: {found}")
        require(code == 0, f"{told}; {found['wrong']}")
        require(killer.kills >= 3 and found["connects"] > count * 1.3, f"viewers had to come back: {told}")
        return told
    finally:
        bed.close()


SCENARIOS = {
    "thin": thin, "far": far, "bbr": bbr, "bloat": bloat, "long": long, "widen": widen, "rest": rest,
    "loss": loss, "nat": nat, "halfopen": halfopen, "balance": balance, "kill": kill,
}


def stop(_signal, _frame):
    signal.alarm(1)  # once more, should Python drop the exit (it does where one is raised in a destructor)
    sys.exit(1)  # through every `finally`


def main():
    parser = argparse.ArgumentParser(prog="scripts/weaknet", description=__doc__.split(":")[0] + ". Needs root.")
    parser.add_argument("scenario", nargs="*", metavar="scenario", help=f"{', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--short", action="store_true", help="for CI: shortened")
    arguments = parser.parse_args()
    for name in arguments.scenario:
        if name not in SCENARIOS:
            parser.exit(64, f"weaknet: no scenario {name!r}: there are {', '.join(SCENARIOS)}\n")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    if os.geteuid() != 0:
        parser.exit(EXIT_UNAVAILABLE, "weaknet: needs root, for network namespaces of its own: run it with sudo\n")
    for tool in ("ip", "tc", "nft", "sysctl"):
        if not shutil.which(tool):
            parser.exit(EXIT_UNAVAILABLE, f"weaknet: `{tool}` is missing: apt-get install iproute2 nftables procps\n")
    failed = 0
    for name in arguments.scenario or SCENARIOS:
        print(f"# {name}: {SCENARIOS[name].__doc__}", flush=True)
        try:
            print(f"ok {name}: {SCENARIOS[name](arguments.short)}", flush=True)
        except Missing as why:
            parser.exit(EXIT_UNAVAILABLE, f"weaknet: this machine lacks a part of the test bed: {why}\n")
        except Exception as error:  # whatever went wrong is the scenario's answer
            failed += 1
            print(f"not ok {name}: {error!r}" if not isinstance(error, AssertionError) else f"not ok {name}: {error}", flush=True)
    sys.exit(1 if failed else 0)


main()
