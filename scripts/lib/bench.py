"""The scenarios of scripts/bench. Each runs halley-bench some times and prints one table and what
came of the promises that README and docs/benchmarks.md make."""

import argparse
import json
import os
import shlex
import signal
import sys
import time

import bench_guard
import bench_machine
import bench_page
from bench_peers import Peers, parse_vs, show_delivery, show_memory
from bench_scenarios import ingest, lanes, rooms, storm, tickets
from bench_stage import ROOT, Failure, Stage
from bench_sweep import sweep
from bench_tables import (DELIVERY, MEMORY, STALL, Verdicts, frame_bytes, median, promise_cpu,
                          promise_delivery, show_runs, take, worst)


def fanout(stage):
    """One room, 4,000 viewers, 20 messages/s of 128 bytes: Halley and the bare loop in turn."""
    options = stage.options
    redis = stage.redis()
    server, url = stage.halley(redis)
    bare, bare_url = stage.floor()
    peers = Peers(stage)
    load = {"viewers": options.viewers or 4000, "rate": 20, "size": 128}
    raw = {"as": "raw", "publish": "floor", "frame_bytes": 0}
    ours, floors = [], []
    for number in range(1, options.rounds + 1):
        label = f"halley {number}"
        ours.append(stage.measure(label, server, url, options.seconds, publish=redis, **load))
        raw["frame_bytes"] = frame_bytes(ours[0])
        label = f"floor {number}"
        floors.append(stage.measure(label, bare, bare_url, options.seconds, **raw, **load))
        peers.measure(number, options.seconds, **load)
    groups = [("halley, median", ours), ("floor, median", floors), *peers.groups()]
    show_runs(DELIVERY, stage.runs, groups)
    show_delivery(peers, ours, floors)
    verdicts = Verdicts()
    promise_delivery(verdicts, ours)
    verdicts.most("frames per read", median(ours, "frames_per_read"), 1.05)
    promise_cpu(verdicts, ours, floors, 1.10, "the floor's")
    bound = 1.5 * median(floors, "reading.p99_ms") + 5
    verdicts.most("p99", median(ours, "reading.p99_ms"), bound, " ms")
    return verdicts.show() and peers.complete()


def hot(stage):
    """One room, 1,000 viewers, 400 messages/s in the normal lane, beside the bare loop at 20/s."""
    options = stage.options
    redis = stage.redis()
    server, url = stage.halley(redis)
    bare, bare_url = stage.floor()
    peers = Peers(stage)
    viewers = options.viewers or 1000
    load = {"viewers": viewers, "rate": 400, "size": 128, "publish": redis}
    raw = {"as": "raw", "publish": "floor", "rate": 20, "size": 128}
    ours, floors = [], {viewers: [], 4 * viewers: []}
    for number in range(1, options.rounds + 1):
        label = f"halley {number}, {viewers} × 400/s"
        ours.append(stage.measure(label, server, url, options.seconds, **load))
        raw["frame_bytes"] = frame_bytes(ours[0])
        for count, runs in floors.items():
            label = f"floor {number}, {count} × 20/s"
            raw["viewers"] = count
            runs.append(stage.measure(label, bare, bare_url, options.seconds, **raw))
        peers.measure(number, options.seconds, **load)
    groups = [("halley, median", ours)]
    groups += [(f"floor of {count}, median", runs) for count, runs in floors.items()]
    show_runs(DELIVERY, stage.runs, groups + peers.groups())
    show_delivery(peers, ours, floors[viewers])
    verdicts = Verdicts()
    promise_delivery(verdicts, ours)
    for count, runs in floors.items():
        promise_cpu(verdicts, ours, runs, 0.20, f"the floor's of {count} at 20/s")
    verdicts.most("p50", median(ours, "reading.p50_ms"), 25, " ms")
    verdicts.most("p99", median(ours, "reading.p99_ms"), 60, " ms")
    return verdicts.show() and peers.complete()


def idle(stage):
    """Memory: 10,000 idle viewers of one room with 16-byte user names, then all leave."""
    options = stage.options
    redis = stage.redis()
    peers = Peers(stage)
    load = {"viewers": options.viewers or 10000, "user_length": 16, "rate": 0, "warmup": 0}
    load.update(settle=2, leave_wait=5)
    runs = []
    for number in range(1, options.rounds + 1):
        server, url = stage.halley(redis)
        time.sleep(1)  # "fresh" means a process at rest.
        runs.append(stage.measure(f"halley {number}", server, url, 3, **load))
        stage.stop(server)
        peers.measure(number, 3, rest=1, **load)
    show_runs(MEMORY, stage.runs)
    show_memory(peers, runs)
    verdicts = Verdicts()
    verdicts.most("user memory per viewer", worst(runs, "pss_bytes_per_viewer"), 350, " bytes")
    verdicts.most("fresh process", worst(runs, "pss_fresh_bytes") / 1e6, 16, " MB")
    left = max(runs, key=lambda run: run["pss_left_bytes"] - 1.2 * run["pss_fresh_bytes"])
    bound = 1.2 * left["pss_fresh_bytes"] / 1e6 + 1
    verdicts.most("within 5 s after all left", left["pss_left_bytes"] / 1e6, bound, " MB")
    verdicts.exactly("viewers closed", worst(runs, "closed"), 0)
    return verdicts.show() and peers.complete()


def growth(run):
    return run["pss_peak_bytes"] - run["pss_fresh_bytes"]


def slow(stage):
    """10 % of 2,000 viewers stop reading for 30 s under 50 messages/s of 1 KB."""
    options = stage.options
    redis = stage.redis()
    load = {"viewers": options.viewers or 2000, "rate": 50, "size": 1024, "publish": redis}
    load.update(stall_after=2, stall_seconds=options.stall_seconds, stall_rcvbuf=4096)
    free, stalled = [], []
    for number in range(1, options.rounds + 1):
        for runs, share, what in ((free, 0, "all read"), (stalled, 10, "10 % stall")):
            server, url = stage.halley(redis)
            seconds = options.stall_seconds + 8
            label = f"{what} {number}"
            runs.append(stage.measure(label, server, url, seconds, stall=share, **load))
            stage.stop(server)
    show_runs(STALL, stage.runs)
    verdicts = Verdicts()
    more = max(growth(with_) - growth(without) for without, with_ in zip(free, stalled))
    verdicts.most("growth over the run without them", more / 1e6, 10, " MB")
    ratio = median(stalled, "reading.p99_ms") / median(free, "reading.p99_ms")
    verdicts.most("readers' p99 over that of the run without them", ratio, 1.3, " ×")
    verdicts.exactly("messages that readers lost", worst(stalled, "reading.lost"), 0)
    verdicts.exactly("viewers closed, or sent broken frames", worst(stalled, "closed"), 0)
    viewers = stalled[0]["stalling"]["viewers"]
    for key, what in (
        ("told", "stalled viewers with a skipped notice"),
        ("accounted", "stalled viewers that lost exactly what they were told"),
        ("current", "stalled viewers that are current at the end"),
    ):
        verdicts.exactly(what, min(run["stalling"][key] for run in stalled), viewers)
    return verdicts.show()


SCENARIOS = {"fanout": fanout, "hot": hot, "idle": idle, "slow": slow, "storm": storm,
             "tickets": tickets,
             "rooms": rooms, "ingest": ingest, "lanes": lanes, "sweep": sweep}
ROUNDS = {"fanout": 3, "hot": 3, "storm": 3, "rooms": 3, "tickets": 5}  # 1 for all others
SECONDS = {"ingest": 30}  # 8 for all others


def binary(name):
    return os.path.join(ROOT, "build", "release", name)


def vs_list(text):
    try:
        return parse_vs(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def parse():
    scenarios = "\n".join(f"  {name:8} {what.__doc__}" for name, what in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="The load test. Builds release first, unless --no-build comes before all else."
        f"\n\nscenarios:\n{scenarios}\n  all      all of them, and a page with plots"
        "\n  guard    short cases against the ratios recorded in docs/benchmarks.md",
    )
    add = parser.add_argument
    add("scenario", choices=[*SCENARIOS, "all", "guard"])
    add("--rounds", type=int, help="interleaved rounds (tickets: 5; fanout, hot, storm, rooms: 3; others: 1)")
    add("--seconds", type=int, help="measured time of a run (ingest: 30; others: 8)")
    add("--viewers", type=int, help="another number of viewers than the scenario's")
    add("--stall-seconds", type=int, default=30, help="slow: how long they stop reading (30)")
    add("--vs", type=vs_list, default=[], metavar="LIST",
        help="measured beside, in turn (fanout, hot, idle, storm): nchan, nats, mosquitto, ws, socket.io,"
        " with commas, or all; the floor always is")
    add("-o", dest="override", action="append", default=[], metavar="KEY=VALUE",
        help="conf of halley, repeatable")
    add("--halley", default=binary("halley"), metavar="FILE", help="another binary")
    add("--bench", default=binary("halley-bench"), metavar="FILE", help="another binary")
    add("--out", metavar="FOLDER", 
        help="keep figures and a page, index.html, there (all: bench-report)")
    add("--strict", action="store_true", help="exit 1 when a promise is missed or a peer left out")
    add("--record", action="store_true", help="guard: measure anew and write the ratios down")
    return parser.parse_args()


def run_scenario(name, options, rounds, seconds):
    """Runs one scenario. Returns what there is to say about it, for the page."""
    options.rounds = rounds or ROUNDS.get(name, 1)
    options.seconds = seconds or SECONDS.get(name, 8)
    load = os.getloadavg()[0]
    print(f"## {name}: {SCENARIOS[name].__doc__}")
    print(f"{bench_machine.line()}, load before {load:.2f}\n", flush=True)
    if load > 0.5:
        print("scripts/bench: this machine is busy; figures are worse than true", file=sys.stderr)
    stage = Stage(options)
    take()
    try:
        kept = SCENARIOS[name](stage)
    finally:
        stage.close()
    return {"scenario": name, "about": SCENARIOS[name].__doc__, "kept": kept, "tables": take(),
            "machine": bench_machine.describe(), "load_before": load,
            "versions": {**bench_machine.versions(options), **stage.versions},
            "commands": [shlex.join(command) for command in stage.commands],
            "command": shlex.join(["scripts/bench", *sys.argv[1:]]),
            "ended": time.strftime("%Y-%m-%d %H:%M %Z"), "runs": stage.runs}


def keep(record, folder):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, record["scenario"] + ".json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)


def run_all(options):
    """Runs the scenarios asked for. Returns whether all promises were kept."""
    names = list(SCENARIOS) if options.scenario == "all" else [options.scenario]
    folder = options.out or ("bench-report" if options.scenario == "all" else None)
    rounds, seconds, records = options.rounds, options.seconds, []
    for name in names:
        records.append(run_scenario(name, options, rounds, seconds))
        if folder:
            keep(records[-1], folder)
    if folder:
        print("the page:", bench_page.write(folder, records))
    return all(record["kept"] for record in records)


def main():
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    for file in (options.halley, options.bench):
        if not os.access(file, os.X_OK):
            print(f"scripts/bench: {file} is missing; run scripts/build first", file=sys.stderr)
            return 69
    try:
        if options.scenario == "guard":
            return bench_guard.run(options)
        kept = run_all(options)
    except Failure as failure:
        print(f"scripts/bench: {failure}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 130
    return 1 if options.strict and not kept else 0


if __name__ == "__main__":
    sys.exit(main())
