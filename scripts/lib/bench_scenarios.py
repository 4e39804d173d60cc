"""The scenarios of scripts/bench about connections, rooms, Redis and lanes. Like those of bench.py
each prints a table of its runs and one of its promises, and returns whether they were kept."""

import os
import statistics
import subprocess

from bench_peers import Peers, show_opening
from bench_stage import SERVER_CORE, pinned
from bench_tables import Verdicts, figure, frame_bytes, median, promise_delivery, show_runs, worst
from bench_watch import promise_counts, redis_info, watched

STORM = [
    ("CPU µs/viewer", "first.cpu_us_per_viewer", 1, 1),
    ("of it ksoftirqd", "first.ksoftirqd_us_per_viewer", 1, 1),
    ("segments/viewer", "first.tcp_segments_per_viewer", 1, 1),
    ("in s", "first.seconds", 1, 2),
    ("MB", "first.pss_bytes", 1e-6, 2),
    ("again: CPU µs/viewer", "second.cpu_us_per_viewer", 1, 1),
    ("segments/viewer", "second.tcp_segments_per_viewer", 1, 1),
    ("in s", "second.seconds", 1, 2),
    ("MB", "second.pss_bytes", 1e-6, 2),
    ("drop: CPU µs/viewer", "drop.cpu_us_per_viewer", 1, 1),
    ("closed", "closed", 1, 0),
]
MESSAGES = [
    ("delivered", "reading.delivered", 1, 0),
    ("of", "reading.expected", 1, 0),
    ("frames/read", "frames_per_read", 1, 2),
    ("frames/write", "frames_per_write", 1, 2),
    ("CPU µs/message", "cpu_us_per_message", 1, 2),
    ("of it ksoftirqd", "ksoftirqd_us_per_message", 1, 2),
    ("server core %", "server_core_share", 100, 0),
    ("client core %", "client_core_share", 100, 0),
    ("p50 ms", "reading.p50_ms", 1, 2),
    ("p99 ms", "reading.p99_ms", 1, 2),
    ("late ms", "publisher_late_max_ms", 1, 1),
]
ROOM_MEMORY = [
    ("viewers", "viewers", 1, 0),
    ("rooms", "rooms", 1, 0),
    ("rooms of each", "rooms_per_viewer", 1, 0),
    ("fresh MB", "pss_fresh_bytes", 1e-6, 2),
    ("with viewers MB", "pss_connected_bytes", 1e-6, 2),
    ("opened in s", "connect_seconds", 1, 2),
    ("CPU µs/opening", "cpu_us_per_viewer_opened", 1, 1),
]
INGEST = MESSAGES + [
    ("main core %", "main_share", 100, 0),
    ("main µs/message", "main_us", 1, 2),
    ("worker µs/message", "worker_us", 1, 2),
    ("high delivered", "high.delivered", 1, 0),
    ("of", "high.expected", 1, 0),
    ("high p99 ms", "high.p99_ms", 1, 2),
]
LANES = [
    ("normal/s", "rate", 1, 0),
    ("delivered %", "share", 100, 1),
    ("MB/s written", "written", 1e-6, 0),
    ("frames/write", "frames_per_write", 1, 1),
    ("server core %", "server_core_share", 100, 0),
    ("client core %", "client_core_share", 100, 0),
    ("normal p99 ms", "reading.p99_ms", 1, 2),
    ("high p50 ms", "urgent.p50_ms", 1, 2),
    ("high p99 ms", "urgent.p99_ms", 1, 2),
    ("slice ms", "slice_ms", 1, 3),
]

# Online notices are delivered too, and are no messages of the run.
COUNTED = ["presence.enabled=no"]


def name_waves(run):
    run["first"], run["second"] = run["waves"]
    run["back"] = run["second"]["cpu_us_per_viewer"] - run["drop"]["cpu_us_per_viewer"]


def storm(stage):
    """10,000 viewers connect as fast as they can, and join; then all drop and return at once."""
    load = {"viewers": stage.options.viewers or 10000, "rate": 0, "warmup": 0, "waves": 2,
            "settle": 1, "sources": 4}
    redis = stage.redis()
    sides = {"halley": lambda: stage.halley(redis), "floor": lambda: stage.floor("--joins")}
    runs = {name: [] for name in sides}
    peers = Peers(stage)
    for number in range(1, stage.options.rounds + 1):
        for name, start in sides.items():
            server, url = start()
            run = stage.measure(f"{name} {number}", server, url, 0.2, **load)
            name_waves(run)
            runs[name].append(run)
            stage.stop(server)
        for run in peers.measure(number, 0.2, **load):
            name_waves(run)
    groups = [(f"{name}, median", those) for name, those in runs.items()] + peers.groups()
    show_runs(STORM, stage.runs, groups)
    show_opening(peers, runs["halley"], runs["floor"])
    return promise_storm(runs["halley"], runs["floor"]) and peers.complete()


def promise_storm(ours, floors):
    verdicts = Verdicts()
    first, again = "first.cpu_us_per_viewer", "second.cpu_us_per_viewer"
    ratios = [figure(a, first) / figure(b, first) for a, b in zip(ours, floors)]
    what = "CPU per accepted and joined viewer over the floor's"
    verdicts.most(f"{what} (rounds: {min(ratios):.2f}–{max(ratios):.2f})",
                  median(ours, first) / median(floors, first), 1.4, " ×")
    verdicts.most("second wave's CPU over the first's, less that of the drop alone",
                  median(ours, "back") / median(ours, first), 1.1, " ×")
    verdicts.note("… of the floor", median(floors, "back") / median(floors, first), " ×")
    for name, runs in (("halley", ours), ("the floor", floors)):
        verdicts.note(f"… with the drop, {name}", median(runs, again) / median(runs, first), " ×")
    grown = max(run["second"]["pss_bytes"] / run["first"]["pss_bytes"] for run in ours)
    verdicts.most("memory after it over that after the first", grown, 1.2, " ×")
    verdicts.exactly("viewers that failed or were closed", worst(ours, "closed"), 0)
    return verdicts.show()


TICKETS = [
    ("CPU µs/viewer", "connect_us", 1, 1),
    ("of it ksoftirqd", "ksoftirqd_us", 1, 1),
    ("in s", "first.seconds", 1, 2),
    ("MB", "first.pss_bytes", 1e-6, 2),
    ("closed", "closed", 1, 0),
]


def bare_check(stage, alg):
    """CPU µs of one check of a ticket with OpenSSL alone, on the core that halley has."""
    command = pinned(SERVER_CORE, [stage.options.bench, "tickets", alg])
    stage.commands.append(command)
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def tickets(stage):
    """10,000 viewers connect at once: without tickets, with HS256, with ES256; and bare checks."""
    viewers = stage.options.viewers or 10000
    load = {"viewers": viewers, "rate": 0, "warmup": 0, "waves": 2, "settle": 1, "sources": 4}
    redis = stage.redis()
    runs, checks = {"open": []}, {"HS256": [], "ES256": []}
    for alg in checks:
        folder = os.path.join(stage.folder, alg)
        command = [stage.options.bench, "tickets", alg, str(viewers), folder]
        subprocess.run(command, check=True, timeout=120)
        runs[alg] = []
    for number in range(1, stage.options.rounds + 1):
        for name, those in runs.items():
            conf, more, query = [], {}, ""
            if name != "open":
                folder = os.path.join(stage.folder, name)
                conf = ["auth.mode=jwt", f"key.bench.alg={name}", f"key.bench.file={folder}/key"]
                more = {"ticket_file": f"{folder}/tickets", "user_length": 0}
                query = "?ticket_id={ticket}"
                checks[name].append(bare_check(stage, name))
            server, url = stage.halley(redis, *conf)
            run = stage.measure(f"{name} {number}", server, url + query, 0.2, **load, **more)
            name_waves(run)
            run["connect_us"] = run["first"]["cpu_us_per_viewer"]
            run["ksoftirqd_us"] = run["first"]["ksoftirqd_us_per_viewer"]
            those.append(run)
            stage.stop(server)
    show_runs(TICKETS, stage.runs, [(f"{name}, median", those) for name, those in runs.items()])
    return promise_tickets(runs, {alg: statistics.median(us) for alg, us in checks.items()})


def promise_tickets(runs, checks):
    verdicts = Verdicts()
    bare = median(runs["open"], "connect_us")
    verdicts.note("connect CPU without tickets", bare, " µs")
    for alg, us in checks.items():
        verdicts.note(f"a bare check, {alg}", us, " µs")
    verdicts.most("connect CPU with HS256: 1.5 × without", median(runs["HS256"], "connect_us"),
                  1.5 * bare, " µs")
    verdicts.most("connect CPU with ES256: without + 1.3 × a bare check",
                  median(runs["ES256"], "connect_us"), bare + 1.3 * checks["ES256"], " µs")
    for alg in checks:
        over = median(runs[alg], "connect_us") - bare
        verdicts.note(f"… of {alg} over that without, in bare checks", over / checks[alg], " ×")
    worst_closed = max(worst(those, "closed") for those in runs.values())
    verdicts.exactly("viewers that failed or were closed", worst_closed, 0)
    return verdicts.show()


def rooms(stage):
    """20,000 messages/s over 50,000 rooms with one viewer each, 25 rooms per connection."""
    options = stage.options
    viewers = options.viewers or 2000
    load = {"viewers": viewers, "rooms": 25 * viewers, "rooms_per_viewer": 25, "rate": 10 * viewers,
            "size": 128, "room": "room", "room_digits": 5, "settle": 2}
    redis = stage.redis()
    bare, bare_url = stage.floor()
    server, url = stage.halley(redis, *COUNTED)
    groups = {}
    for number in range(1, options.rounds + 1):
        for batch, what in ((1, "1 ms batches"), (0, "one by one")):
            run = watched(stage, f"halley {number}, {what}", server, url, options.seconds,
                          publish=redis, batch_ms=batch, **load)
            groups.setdefault(f"halley, {what}", []).append(run)
            raw = {"as": "raw", "publish": "floor", "frame_bytes": frame_bytes(run)}
            run = stage.measure(f"floor {number}, {what}", bare, bare_url, options.seconds,
                                batch_ms=batch, **raw, **load)
            run["frames_per_write"] = 1
            groups.setdefault(f"floor, {what}", []).append(run)
    stage.stop(server)
    medians = [(f"{name}, median", runs) for name, runs in groups.items()]
    show_runs(MESSAGES, stage.runs, medians)
    verdicts = Verdicts()
    ours = groups["halley, 1 ms batches"]
    promise_delivery(verdicts, ours)
    promise_counts(verdicts, ours)
    for what in ("1 ms batches", "one by one"):
        key = "cpu_us_per_message"
        over = median(groups[f"halley, {what}"], key) - median(groups[f"floor, {what}"], key)
        text = f"CPU per message beyond a bare send, {what}"
        if what == "one by one":
            verdicts.note(text, over, " µs")
        else:
            verdicts.most(text, over, 6, " µs")
    room_memory(stage, redis, viewers, verdicts)
    return verdicts.show()


def room_memory(stage, redis, viewers, verdicts):
    """The same memberships in many rooms and in few, each in a fresh process at rest."""
    cases = (("one room each", 5 * viewers, 5 * viewers, 1, 1),
             ("25 rooms each", viewers, 25 * viewers, 25, 25))
    runs = []
    for name, count, many, few, each in cases:
        used = []
        for number in (many, few):
            server, url = stage.halley(redis)
            run = stage.measure(f"{name}: {number} rooms", server, url, 0.2, viewers=count,
                                rooms=number, rooms_per_viewer=each, room="room", room_digits=5,
                                rate=0, warmup=0, settle=3)
            stage.stop(server)
            runs.append(run)
            used.append(run["pss_connected_bytes"] - run["pss_fresh_bytes"])
        room = (used[0] - used[1]) / (many - few)
        what = f"an idle room beyond its viewers ({many} rooms, {name})"
        verdicts.most(what, room, 300, " bytes")
    show_runs(ROOM_MEMORY, runs)


def ingest(stage):
    """100,000 messages/s of 200 bytes in 1,000 rooms from one Redis, 1 % of them high."""
    load = {"viewers": 40, "rooms": 1000, "rooms_per_viewer": 25, "rate": 100000, "size": 200,
            "high_every": 100, "batch_ms": 1, "drain": 5}
    verdicts, runs, cut = Verdicts(), [], 0
    redis = stage.redis()
    server, url = stage.halley(redis, *COUNTED)
    for number in range(1, stage.options.rounds + 1):
        run = watched(stage, f"halley {number}", server, url, stage.options.seconds, publish=redis,
                      **load)
        messages = max(1, run["published"])
        run["main_us"] = 1e6 * run["threads"]["main"] / messages
        run["worker_us"] = 1e6 * sum(run["threads"].values()) / messages - run["main_us"]
        run["main_share"] = run["main_us"] * load["rate"] / 1e6
        runs.append(run)
    info = redis_info(redis, "stats")
    cut = int(info.get("client_output_buffer_limit_disconnections", 0))
    show_runs(INGEST, stage.runs)
    run = runs[-1]
    account = [run["published"] - run["unsent"] - run["refused"] - run["server_delivered"]
               - run["dropped"] - run["payloads_dropped"] for run in runs]
    got = min(run["server_delivered"] / max(1, run["published"]) for run in runs)
    verdicts.note("delivered, of what was published", 100 * got, " %")
    verdicts.exactly("published and not taken by Redis", worst(runs, "unsent"), 0)
    verdicts.exactly(f"published less delivered ({run['server_delivered']}) and counted drops "
                     f"({run['dropped'] + run['payloads_dropped']})", max(account, key=abs), 0)
    verdicts.exactly("high messages lost", worst(runs, "high.lost"), 0)
    verdicts.exactly("subscribers that Redis cut off", cut, 0)
    reconnects = worst(runs, "gained.halley_broker_reconnects_total")
    verdicts.exactly("connections to Redis made again", round(reconnects), 0)
    verdicts.exactly("out of order", worst(runs, "reading.out_of_order"), 0)
    promise_counts(verdicts, runs)
    return verdicts.show()


def complete_lanes(run, urgent):
    """Adds what the table of lanes shows; `urgent` is where the run's high messages are."""
    run["urgent"] = run[urgent]
    run["share"] = run["reading"]["delivered"] / max(1, run["reading"]["expected"])
    run["written"] = run["gained"]['halley_bytes_total{direction="out"}'] / run["elapsed_seconds"]
    slices = run["gained"]["halley_flush_seconds_count"]
    run["slice_ms"] = 1000 * run["gained"]["halley_flush_seconds_sum"] / max(1, slices)
    return run


def find_capacity(stage, server, url, load):
    """Doubles the rate until it is beyond what the worker can write. Returns that, in messages/s to
    all viewers. What is not written at once waits in the worker's mailbox, so the CPU time that a
    message costs tells more than what has arrived; whatever disturbs makes it longer."""
    rate, best = 200, 0
    while True:
        run = watched(stage, f"normal, {rate}/s", server, url, 2, rate=rate, drain=10, **load)
        complete_lanes(run, "high")
        best = max(best, 1e6 / run["server_us_per_message"] / run["viewers"])
        if rate >= 1.2 * best:
            return best
        rate *= 2


def lanes(stage):
    """The high lane while normal is published at twice what the worker can write."""
    options = stage.options
    load = {"viewers": options.viewers or 1000, "size": 1024, "batch_ms": 1}
    redis = stage.redis()
    server, url = stage.halley(redis, *COUNTED)
    load["publish"] = redis
    capacity = find_capacity(stage, server, url, load)
    flood, alone, mixed = max(1, round(2 * capacity)), [], []
    for number in range(1, options.rounds + 1):
        run = watched(stage, f"high alone {number}", server, url, options.seconds, rate=20,
                      lane="high", **load)
        alone.append(complete_lanes(run, "reading"))
        run = watched(stage, f"both {number}, normal {flood}/s", server, url, options.seconds,
                      rate=flood + 20, high_every=round(flood / 20) + 1,
                      drain=2 * options.seconds + 4, **load)
        mixed.append(complete_lanes(run, "high"))
    show_runs(LANES, stage.runs, [("high alone, median", alone), ("both, median", mixed)])
    verdicts = Verdicts()
    verdicts.note("normal messages/s that the worker can write", capacity)
    bound = 2 * median(alone, "urgent.p99_ms") + 2 * median(mixed, "slice_ms")
    verdicts.most("p99 of high: 2 × alone + 2 slices", median(mixed, "urgent.p99_ms"), bound, " ms")
    verdicts.exactly("high messages lost", worst(mixed, "high.lost"), 0)
    verdicts.exactly("viewers closed", worst(mixed, "closed"), 0)
    promise_counts(verdicts, alone + mixed)
    return verdicts.show()
