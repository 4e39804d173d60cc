#!/usr/bin/python3
"""The load tool tells the truth: it sees what a server does wrong, and it counts what Halley counts."""

import asyncio
import html.parser
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import websockets

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import HALLEY_BIN, ROOT, Halley, check, equal, finish, free_port, until  # noqa: E402

sys.path.insert(0, os.path.join(ROOT, "scripts", "lib"))
sys.dont_write_bytecode = True

import bench_guard  # noqa: E402
import bench_page  # noqa: E402
from bench_stage import accepts  # noqa: E402

BENCH = os.path.join(os.path.dirname(HALLEY_BIN), "halley-bench")
VIEWERS, MESSAGES = 50, 100
folder = tempfile.TemporaryDirectory(prefix="halley-test-bench-")


def measure(*arguments):
    """(exit code, figures) of one run of halley-bench."""
    file = os.path.join(folder.name, "run.json")
    if os.path.exists(file):
        os.unlink(file)
    command = [BENCH, "run", "--viewers", str(VIEWERS), "--rate", str(MESSAGES), "--seconds", "1", "--warmup", "0"]
    command += ["--quiet", "--json", file, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    if not os.path.exists(file):
        raise AssertionError(f"exit code {done.returncode} and no figures: {done.stderr}")
    with open(file, encoding="utf-8") as text:
        return done.returncode, json.load(text)


def against_floor(fault, *arguments):
    port = free_port()
    floor = subprocess.Popen([BENCH, "floor", "--listen", f"127.0.0.1:{port}", "--fault", fault])
    try:
        until(lambda: accepts(port), "the floor listening")
        return measure("--url", f"ws://127.0.0.1:{port}/", "--as", "raw", "--publish", "floor", *arguments)
    finally:
        floor.terminate()
        equal(floor.wait(10), 0, "exit code of the floor")


def faults(code, arguments=(), fault="none", **wanted):
    """A check: against a floor with the fault, the exit code and the readers' counts are these, all others 0."""

    def body():
        got, run = against_floor(fault, *arguments)
        counts = {"delivered": VIEWERS * MESSAGES, "lost": 0, "duplicates": 0, "out_of_order": 0, **wanted}
        equal({key: run["reading"][key] for key in counts}, counts, "counts")
        equal(run["clean"], all(counts[key] == 0 for key in counts if key != "delivered"), "clean")
        equal(got, code, "exit code")
        return run

    return body


def stall_is_late():
    """Every tenth message waits 100 ms, which holds the next ones up too: the stamp is the time they were due."""
    code, run = against_floor("stall", "--p99-limit", "50")
    equal(code, 1, "exit code")
    equal(run["reading"]["delivered"], VIEWERS * MESSAGES, "delivered")
    if run["reading"]["p99_ms"] < 100 or run["reading"]["p50_ms"] < 50:
        raise AssertionError(f"p50 {run['reading']['p50_ms']} ms, p99 {run['reading']['p99_ms']} ms are too good")


def die_is_caught():
    code, run = against_floor("die")
    equal((code, run["closed"]), (1, VIEWERS), "exit code and viewers closed")
    equal(run["reading"]["lost"], VIEWERS * (MESSAGES - 6), "lost")


def counts_agree(path, *arguments):
    halley = Halley(options={"presence.enabled": "no"})  # its notices are delivered, and no messages

    def delivered():
        return halley.metric("halley_delivered_total")

    before = delivered()
    publish = f"http://127.0.0.1:{halley.admin_port}"
    code, run = measure("--url", f"ws://{halley.host}:{halley.port}{path}", "--publish", publish, *arguments)
    equal(code, 0, "exit code")
    equal(run["reading"]["delivered"], VIEWERS * MESSAGES, "messages that viewers counted")
    equal(delivered() - before, VIEWERS * MESSAGES, "messages that /metrics counted")
    halley.stop()


class Measurer:
    """In place of bench_guard.Bench: the figures of a case, one after the other."""

    def __init__(self, **figures):
        self.figures = {name: iter(values) for name, values in figures.items()}

    def __getattr__(self, name):
        return lambda: next(self.figures[name])


def guard_judges():
    recorded = {"fanout": 1.0, "hot": 0.2, "idle": 300.0, "instructions": 900.0}
    limits = {name: value * bench_guard.SLACK for name, value in recorded.items()}
    bench = Measurer(fanout=[1.1], hot=[0.3, 0.2, 0.4, 0.2, 0.2, 0.9], idle=[400, 301, 400, 390, 302, 380],
                     instructions=[1100])
    values = bench_guard.judge(bench, list(recorded), limits)
    equal(values["fanout"], [1.1], "a case within its limit is measured once")
    equal(values["hot"], [0.2, 0.4, 0.2, 0.2, 0.9], "one past it five times more")
    equal(values["instructions"], [1100], "counts don't vary: no repetition")
    equal(bench_guard.show(values, recorded, limits), ["idle", "instructions"], "worse by the median")
    equal(bench_guard.judge(Measurer(fanout=[math.inf] * 6), ["fanout"], limits)["fanout"], [math.inf] * 5,
          "missing messages are worse than any figure")


def guard_reads_what_it_recorded():
    path = os.path.join(folder.name, "page.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"before\n{bench_guard.BEGIN}\nold\n{bench_guard.END}\nafter\n")
    real, bench_guard.DOCUMENT = bench_guard.DOCUMENT, path
    try:
        bench_guard.record({"fanout": [1.02, 1.1, 1.04], "opening": [33212.4]})
        equal(bench_guard.recorded(), {"fanout": 1.04, "opening": 33212.0}, "recorded")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        equal((text.startswith("before\n"), text.endswith("\nafter\n"), "old" in text), (True, True, False), "the rest")
    finally:
        bench_guard.DOCUMENT = real
    for case in bench_guard.CASES:
        if case not in bench_guard.recorded():
            raise AssertionError(f"docs/benchmarks.md records nothing for {case}")


class Page(html.parser.HTMLParser):
    """Ids, links and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.fetched, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.targets += values.get("aria-labelledby", "").split()
        link = values.get("href", values.get("src", ""))
        if link.startswith("#"):
            self.targets.append(link[1:])
        elif link and link != "data:,":
            self.fetched.append(link)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        equal(self.open.pop(), tag, "tag that is closed")


def page_is_whole():
    runs = [dict(against_floor(fault)[1], label=f"<{fault}> 1") for fault in ("none", "drop")]
    for number, run in enumerate(runs):
        run["cpu_us_per_message"] = number + 1
    record = {"scenario": "fanout", "about": "a < b", "runs": runs, "commands": ["a 'b & c'"], "command": "d",
              "machine": {"CPU": "x"}, "versions": {"halley": "0"}, "ended": "now", "load_before": 0.1,
              "tables": [[["run", "p50"], ["<none> 1", "1.5"]],
                         [["promise", "measured", "wanted", ""], ["lost", "5", "0", "MISSED"]]]}
    sweep = dict(record, scenario="sweep", runs=[
        dict(run, series=series, viewers=count, delivered_per_second=count, elapsed_seconds=1)
        for run, series in zip(runs, "ab") for count in (10, 100)])
    text = bench_page.page([record, sweep])
    page = Page(text)
    equal(page.open, [], "tags left open")
    equal(len(set(page.ids)), len(page.ids), "ids are unique")
    equal([target for target in page.targets if target not in page.ids], [], "targets that are nowhere")
    equal(page.fetched + re.findall(r"url\(|@import|https?:", text), [], "what would be fetched")
    plots = re.findall(r"<svg.*?</svg>", text, re.S)
    for plot in plots:
        xml.etree.ElementTree.fromstring(plot)
    equal(sum('role="img"' in plot and "<desc" in plot for plot in plots), 7, "plots")


TENTH = VIEWERS * MESSAGES // 10
check("a clean server is clean: exit code 0", faults(0))
check("a lossy server is caught", faults(1, fault="drop", lost=TENTH, delivered=9 * TENTH))
check("a repeating server is caught", faults(1, fault="repeat", duplicates=TENTH))
check("a reordering server is caught", faults(1, fault="swap", out_of_order=TENTH))
check("a stalling server is caught by --p99-limit, and by what waited behind", stall_is_late)
check("a server that dies is caught", die_is_caught)
check("viewers and halley_delivered_total count the same, /ws", lambda: counts_agree("/ws"))
check("viewers and halley_delivered_total count the same, Engine.IO 4",
      lambda: counts_agree("/socket.io/?EIO=4&transport=websocket", "--as", "engineio4"))
def tickets_are_brought():
    """Tickets of `halley-bench tickets` let its viewers in, under the names that the tickets say."""
    with tempfile.TemporaryDirectory() as folder:
        for alg in ("HS256", "ES256"):
            subprocess.run([BENCH, "tickets", alg, "20", f"{folder}/{alg}"], check=True)
            daemon = Halley(options={"auth.mode": "jwt", "key.bench.alg": alg,
                                     "key.bench.file": f"{folder}/{alg}/key"})
            done = subprocess.run([BENCH, "--url", daemon.url + "?ticket_id={ticket}", "--viewers", "20",
                                   "--ticket-file", f"{folder}/{alg}/tickets", "--seconds", "1", "--rate", "0",
                                   "--quiet"], check=False)
            equal(done.returncode, 0, f"exit code with {alg}")
            equal(daemon.metric("halley_tickets_total", 'result="ok"'), 20, f"tickets taken, {alg}")
            daemon.stop()


# What a server says to the first and to the second connection of a viewer; a hole, a repeat, and a place that is forgotten.
VISITS = (
    [{"op": "joined", "room": "r", "ref": 1, "after": ["h.e1.7"]}, *({"type": "chat", "id": f"n.e1.{n}"} for n in (1, 2, 4, 4)),
     {"type": "gift", "id": "h.e1.8"}, {"op": "goodbye", "reason": "drain", "retry_after_ms": 1}],
    [{"op": "joined", "room": "r", "ref": 1, "after": ["h.e1.8", "n.e2.7"]},
     {"op": "gap", "room": "r", "lane": "high", "join": False}, {"type": "chat", "id": "n.e2.8"},
     {"op": "skipped", "room": "r", "lane": "normal", "count": 3}, {"type": "chat", "id": "n.e2.12"},
     {"op": "error", "ref": 1, "code": "unavailable", "retry_after_ms": 1},
     {"op": "joined", "room": "r", "ref": 1, "after": ["h.e1.8", "n.e2.8"]}, {"type": "chat", "id": "n.e2.9"}],
)
# After so many of these it waits for a join.
JOINS_BEFORE = ((0,), (0, 4, 6))


def follow_counts_what_is_wrong():
    """Against a server that does each thing wrong once: the counts, the places asked for, and the exit code."""
    asked, visits = [], []

    async def serve(socket, _path=None):
        visit = len(visits)
        visits.append(socket)
        for number, message in enumerate(VISITS[visit]):
            if number in JOINS_BEFORE[visit]:
                asked.append(json.loads(await socket.recv()).get("after"))
            # As Halley writes it, and with spaces.
            await socket.send(json.dumps(message, separators=(",", ":") if visit == 0 else None))
        if visit == 0:
            await socket.close(1012)
        await socket.wait_closed()

    async def run():
        async with websockets.serve(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            child = await asyncio.create_subprocess_exec(
                BENCH, "follow", "--url", f"ws://127.0.0.1:{port}/ws", "--room", "r", "--viewers", "1", "--report-ms", "10",
                stdout=subprocess.PIPE)
            while True:
                state = json.loads(await asyncio.wait_for(child.stdout.readline(), 20))
                if state["lanes"].get("normal", {}).get("id") == "n.e2.9":
                    break
            child.terminate()
            await child.communicate()
            return child.returncode, state

    code, state = asyncio.run(run())
    equal(code, 1, "exit code")
    equal(asked, [None, ["h.e1.8", "n.e1.4"], ["h.e1.8", "n.e2.8"], ["h.e1.8", "n.e2.8"]], "places that were asked for")
    wanted = {"viewers": 1, "joined": 1, "lanes": {"high": {"id": "h.e1.8", "viewers": 1}, "normal": {"id": "n.e2.9", "viewers": 1}},
              "connects": 2, "joins": 4, "messages": 7, "holes": 1, "repeats": 1, "lost": 1, "skipped": 1, "gaps": 1, "gaps_in": {"high": 1, "normal": 0, "low": 0},
              "closes": {"1012": 1}, "errors": {"unavailable": 1}, "wrong": "viewer 0: n.e1.4 where 3 was due"}
    equal(state, wanted, "counts")


check("tickets: each viewer brings one", tickets_are_brought)
check("follow: a hole, a repeat and a lost place are counted, and what it asks for is right", follow_counts_what_is_wrong)
check("guard: repeats what is past its limit, and judges by the median", guard_judges)
check("guard: reads what it recorded, and docs/benchmarks.md has all cases", guard_reads_what_it_recorded)
check("the page is well-formed, needs nothing else, and names its plots", page_is_whole)
folder.cleanup()
finish()
