"""What servers say about themselves: /metrics of halley, INFO of Redis, CPU of single threads."""

import os
import socket
import urllib.request


def metrics(address):
    """All series of an admin listener, by name with labels, as Prometheus writes them."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def total(series, metric):
    """A metric added up over its labels."""
    return round(sum(value for name, value in series.items() if name.split("{")[0] == metric))


def threads(pid):
    """CPU seconds of each thread; the first one is called main."""
    spent = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            seconds = int(file.read().split()[0]) / 1e9
        with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
            name = "main" if int(task) == pid else file.read().strip()
        spent[name] = spent.get(name, 0) + seconds
    return spent


def redis_info(url, section):
    """A section of Redis' INFO as a dictionary of texts (https://redis.io/commands/info)."""
    host, port = url.removeprefix("redis://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as redis:
        redis.sendall(f"INFO {section}\r\n".encode())
        stream = redis.makefile("rb")
        length = int(stream.readline()[1:])
        text = stream.read(length).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def watched(stage, label, server, url, seconds, **load):
    """A run of halley-bench against halley, with what /metrics and the threads gained by it."""
    before, spent = metrics(server.admin), threads(server.pid)
    run = stage.measure(label, server, url, seconds, **load)
    after = metrics(server.admin)
    run["gained"] = {name: after[name] - before.get(name, 0) for name in after}
    run["threads"] = {name: value - spent.get(name, 0)
                      for name, value in threads(server.pid).items()}
    run["server_delivered"] = total(run["gained"], "halley_delivered_total")
    run["dropped"] = total(run["gained"], "halley_dropped_total")
    run["payloads_dropped"] = total(run["gained"], "halley_payloads_dropped_total")
    writes = total(run["gained"], "halley_writes_total")
    run["frames_per_write"] = total(run["gained"], "halley_write_frames_total") / max(1, writes)
    return run


def promise_counts(verdicts, runs):
    """Two independent counts: of the viewers, and of the server."""
    apart = max(abs(run["counted"] - run["server_delivered"]) for run in runs)
    counted = f"{runs[-1]['counted']:.0f} in the last run"
    verdicts.exactly(f"viewers' count less halley_delivered_total ({counted})", round(apart), 0)
