"""scripts/bench guard: is Halley still as cheap as docs/benchmarks.md recorded?

Short cases beside the floor. One that looks worse than its limit is measured five times more, in turn
with the others like it, and judged by the median, so that one bad moment of a machine fails nothing.
"""

import math
import os
import re
import shutil
import statistics
import time

import bench_machine
from bench_stage import ROOT, Failure, Stage, answers_200, free_port, wait_for
from bench_tables import frame_bytes, table

DOCUMENT = os.path.join(ROOT, "docs", "benchmarks.md")
BEGIN, END = "<!-- guard:begin -->", "<!-- guard:end -->"
SLACK = 1.15
REPEATS = 5


class Bench:
    """Measures the cases; each method returns one figure, math.inf where messages were missing."""

    def __init__(self, stage):
        self.stage = stage
        self.redis = stage.redis()
        self.server, self.url = stage.halley(self.redis)
        self.bare, self.bare_url = stage.floor()
        self.frame_bytes = 0
        self.counts = None

    def ratio(self, name, seconds, ours, floor):
        """Halley's CPU per message over that of the floor, one right after the other."""
        stage = self.stage
        run = stage.measure(f"{name}, halley", self.server, self.url, seconds, publish=self.redis,
                            size=128, **ours)
        if run["reading"]["delivered"] < run["reading"]["expected"] or not run["clean"]:
            return math.inf
        self.frame_bytes = self.frame_bytes or frame_bytes(run)
        raw = {"as": "raw", "publish": "floor", "frame_bytes": self.frame_bytes, "size": 128}
        bare = stage.measure(f"{name}, floor", self.bare, self.bare_url, seconds, **raw, **floor)
        if not bare["cpu_us_per_message"]:
            raise Failure("the floor's CPU is not known: /proc/PID/schedstat says nothing here")
        return run["cpu_us_per_message"] / bare["cpu_us_per_message"]

    def fanout(self):
        load = {"viewers": 2000, "rate": 20}
        return self.ratio("fanout", 2, load, load)

    def hot(self):
        return self.ratio("hot", 3, {"viewers": 1000, "rate": 400}, {"viewers": 1000, "rate": 20})

    def idle(self):
        server, url = self.stage.halley(self.redis)
        time.sleep(1)  # "fresh" means a process at rest.
        run = self.stage.measure("idle, halley", server, url, 0, viewers=5000, rate=0, warmup=0,
                                 settle=1.5)
        self.stage.stop(server)
        return math.inf if run["closed"] else run["pss_bytes_per_viewer"]

    def instructions(self):
        return self.counted()[0]

    def opening(self):
        return self.counted()[1]

    def counted(self):
        """User instructions per message and per viewer opened: what lives under callgrind differ in.
        They hardly vary, so once is enough; virtual machines often lack the hardware's counters."""
        if not self.counts:
            viewers, rate = 200, 20
            short = collected(self.stage, viewers, rate, 1)
            long = collected(self.stage, viewers, rate, 4)
            many = collected(self.stage, 3 * viewers, rate, 0)
            message = (long - short) / (3 * rate * viewers)
            opening = (many - short + rate * viewers * message) / (2 * viewers)
            self.counts = message, opening
        return self.counts


def collected(stage, viewers, rate, seconds):
    """Instructions of one life of halley with so much load, as callgrind counts them."""
    port, admin = free_port(), free_port()
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
               stage.options.halley, "-c", os.path.join(ROOT, "conf", "halley.conf"),
               "-o", f"server.listen=127.0.0.1:{port}", "-o", f"admin.listen=127.0.0.1:{admin}", "-o", "drain.notice=0",
               "-o", "server.workers=1"]
    for override in stage.options.override:
        command += ["-o", override]
    server, log = stage.start("callgrind", 0, command)
    ready = f"http://127.0.0.1:{admin}/readyz"
    wait_for("halley under callgrind", lambda: answers_200(ready), server, log, 30)
    run = stage.measure(f"callgrind, {viewers} viewers, {seconds} s", server,
                        f"ws://127.0.0.1:{port}/ws", seconds, viewers=viewers, rate=rate, warmup=0,
                        publish=f"http://127.0.0.1:{admin}")
    stage.stop(server)
    with open(log, encoding="utf-8", errors="replace") as file:
        found = re.search(r"Collected : (\d+)", file.read())
    if not found or not run["clean"]:
        raise Failure(f"callgrind counted nothing, or messages were lost: {run['failure']}")
    return int(found.group(1))


# Case, what the figure is, digits.
CASES = {
    "fanout": ("CPU per message over the floor's, 2,000 viewers × 20/s", 3),
    "hot": ("CPU per message over the floor's at 20/s, 1,000 viewers × 400/s", 3),
    "idle": ("user memory per idle viewer, bytes", 0),
    "instructions": ("user instructions per message delivered", 0),
    "opening": ("user instructions per viewer that connects and joins", 0),
}
COUNTED = ("instructions", "opening")


def parts_of_document():
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise Failure(f"{DOCUMENT} needs one {BEGIN} and, after it, one {END}: the table between"
                      " them holds the recorded figures")
    head, rest = text.split(BEGIN)
    middle, tail = rest.split(END)
    return head, middle, tail


def recorded():
    """The figures in the document: {case: figure}."""
    figures = {}
    for line in parts_of_document()[1].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 3 and cells[0] in CASES:
            try:
                figures[cells[0]] = float(cells[2].replace(",", ""))
            except ValueError:
                raise Failure(f"{DOCUMENT}: case {cells[0]}: `{cells[2]}` is no number; measure"
                              " anew with `scripts/bench guard --record`") from None
    return figures


def shown(case, value):
    return f"{value:.{CASES[case][1]}f}" if math.isfinite(value) else "messages missing"


def spread(case, values):
    return f"{shown(case, min(values))}–{shown(case, max(values))}" if len(values) > 1 else ""


def record(values):
    """Writes medians and spreads into the document."""
    head, _, tail = parts_of_document()
    lines = ["", "| case | figure | recorded | rounds |", "| --- | --- | --- | --- |"]
    for case, found in values.items():
        middle = shown(case, statistics.median(found))
        lines.append(f"| {case} | {CASES[case][0]} | {middle} | {spread(case, found)} |")
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(head + BEGIN + "\n".join(lines) + "\n" + END + tail)


def cases_here():
    """The cases that this machine can measure."""
    names = list(CASES)
    if not shutil.which("valgrind"):
        print("no valgrind here: instructions are not counted (apt-get install valgrind)")
        names = [name for name in names if name not in COUNTED]
    return names


def measure_again(bench, names, values, rounds):
    for _ in range(rounds):
        for name in names:
            values[name].append(getattr(bench, name)())


def judge(bench, names, limits):
    """Each case once; those past their limits five times more, of which the median counts."""
    values = {name: [getattr(bench, name)()] for name in names}
    doubtful = [name for name in names if values[name][0] > limits[name]]
    again = [name for name in doubtful if name not in COUNTED]
    if again:
        print(f"again, {REPEATS} times in turn: {', '.join(again)}", flush=True)
        values.update({name: [] for name in again})
        measure_again(bench, again, values, REPEATS)
    return values


def show(values, figures, limits):
    rows, worse = [], []
    for name, found in values.items():
        middle = statistics.median(found)
        if middle > limits[name]:
            worse.append(name)
        rows.append([name, CASES[name][0], shown(name, figures[name]), shown(name, limits[name]),
                     shown(name, middle), spread(name, found),
                     "WORSE" if name in worse else "ok"])
    table(["case", "figure", "recorded", "limit", "measured", "rounds", ""], rows)
    return worse


def run(options):
    """Returns the exit code."""
    print(f"{bench_machine.line()}, load before {os.getloadavg()[0]:.2f}")
    figures = {} if options.record else recorded()
    names = [name for name in cases_here() if options.record or name in figures]
    stage = Stage(options)
    try:
        bench = Bench(stage)
        if options.record:
            values = {name: [] for name in names}
            measure_again(bench, names, values, options.rounds or REPEATS)
            record(values)
            print(f"recorded in {DOCUMENT}")
            return 0
        if not names:
            raise Failure(f"no figure is recorded in {DOCUMENT}; run `scripts/bench guard --record`")
        limits = {name: figures[name] * SLACK for name in names}
        worse = show(judge(bench, names, limits), figures, limits)
    finally:
        stage.close()
    for name in worse:
        print(f"{name}: worse than recorded by more than 15 %; if that is wanted, say why in the"
              " commit and record anew: scripts/bench guard --record")
    return 1 if worse else 0
