"""The scenario `sweep`: how cost and memory grow with the number of viewers."""

import time

from bench_tables import Verdicts, frame_bytes, promise_delivery, show_runs

COUNTS = (500, 1000, 2000, 4000)
COLUMNS = [
    ("viewers", "viewers", 1, 0),
    ("messages/s", "delivered_per_second", 1, 0),
    ("CPU µs/message", "cpu_us_per_message", 1, 3),
    ("server core %", "server_core_share", 100, 0),
    ("p50 ms", "reading.p50_ms", 1, 2),
    ("p99 ms", "reading.p99_ms", 1, 2),
    ("fresh MB", "pss_fresh_bytes", 1e-6, 2),
    ("with viewers MB", "pss_connected_bytes", 1e-6, 2),
    ("bytes/viewer", "pss_bytes_per_viewer", 1, 1),
]


def sweep(stage):
    """One room, 500 to 4,000 viewers, 20 messages/s of 128 bytes: how cost and memory grow."""
    options = stage.options
    redis = stage.redis()
    load = {"rate": 20, "size": 128}
    raw = {"as": "raw", "publish": "floor", "frame_bytes": 0}
    seconds = min(options.seconds, 5)
    ours = []
    for count in COUNTS:
        for number in range(1, options.rounds + 1):
            # A fresh process each time: what it once grew to it might keep.
            server, url = stage.halley(redis)
            bare, bare_url = stage.floor()
            time.sleep(0.5)
            load["viewers"] = count
            label = f"halley {number}, {count} viewers"
            ours.append(stage.measure(label, server, url, seconds, publish=redis, **load))
            raw["frame_bytes"] = frame_bytes(ours[0])
            label = f"floor {number}, {count} viewers"
            stage.measure(label, bare, bare_url, seconds, **raw, **load)
            stage.stop(bare)
            stage.stop(server)
    for run in stage.runs:
        run["series"] = run["label"].split()[0]
        run["delivered_per_second"] = run["reading"]["delivered"] / run["elapsed_seconds"]
    show_runs(COLUMNS, stage.runs)
    verdicts = Verdicts()
    promise_delivery(verdicts, ours)
    return verdicts.show()
