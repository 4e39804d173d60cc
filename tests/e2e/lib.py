"""What the Python end-to-end tests need: checks, free ports, the daemon under test. See lib.mjs, its bigger sister."""

import atexit
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
HALLEY_BIN = os.environ.get("HALLEY_BIN") or os.path.join(ROOT, "build/release/halley")
SLOWNESS = 4 if ("asan" in HALLEY_BIN or "tsan" in HALLEY_BIN) else 1

_failed = 0
_daemons = []


def report(name, error=None):
    """Prints the line of one check."""
    global _failed
    if error is None:
        print(f"ok {name}", flush=True)
        return
    _failed += 1
    text = " | ".join(str(error).split("\n"))
    print(f"not ok {name}: {text}", flush=True)
    for entry in reversed(traceback.extract_tb(getattr(error, "__traceback__", None))):
        if os.path.basename(entry.filename).startswith("test_"):
            print(f"# at {os.path.basename(entry.filename)}:{entry.lineno}", flush=True)
            break


def check(name, function):
    """Runs one check; a raised exception is its failure."""
    try:
        function()
    except Exception as error:  # whatever went wrong is the check's answer
        report(name, error if str(error) else RuntimeError(repr(error)))
        return False
    report(name)
    return True


def skip(name, why):
    print(f"ok {name} # skip {why}", flush=True)


def equal(got, expected, what):
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def finish():
    """Stops what is left and exits: 1 when a check failed."""
    for daemon in _daemons:
        daemon.stop()
        if "Sanitizer" in daemon.log or "runtime error:" in daemon.log or "broken invariant" in daemon.log:
            report("no sanitizer report or broken invariant", RuntimeError(daemon.log[-900:]))
    if _failed:
        for daemon in _daemons:
            for line in daemon.log.rstrip().split("\n")[-25:]:
                print(f"# halley: {line}")
    sys.stdout.flush()
    sys.exit(1 if _failed else 0)


def until(ask, what, seconds=5.0, every=0.02):
    """Asks again and again, for states that announce themselves by no event; returns the first truthy answer."""
    end = time.monotonic() + seconds * SLOWNESS
    while True:
        last = None
        try:
            answer = ask()
            if answer:
                return answer
        except OSError as error:
            last = error
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not so within {seconds * SLOWNESS} s" + (f" ({last})" if last else ""))
        time.sleep(every)


def free_port():
    """A port below the range that the kernel gives to outgoing connections."""
    for _ in range(200):
        port = random.randint(10000, 31999)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port found in 200 tries")


class Halley:
    """The daemon under test."""

    def __init__(self, host="127.0.0.1", workers=1, options=None):
        self.host = host
        self.port = free_port()
        self.admin_port = free_port()
        self.log = ""
        overrides = {
            "server.listen": f"{host}:{self.port}",
            "admin.listen": f"127.0.0.1:{self.admin_port}",
            "server.workers": workers,
            "drain.notice": 0,  # no load balancer has to notice
            "drain.rate": 100000,
            "drain.timeout": "10s",
            **(options or {}),
        }
        command = [HALLEY_BIN]
        for key, value in overrides.items():
            command += ["-o", f"{key}={value}"]
        environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        _daemons.append(self)
        atexit.register(self.stop)
        until(self._ready, f"the daemon ready (GET /readyz on port {self.admin_port})", 10)
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon exited with {self.process.returncode} at start: {self.log[-600:]}")

    def _read(self):
        for line in self.process.stderr:
            self.log += line.decode("utf-8", "replace")

    def _ready(self):
        return self.process.poll() is not None or self.http("GET", "/readyz")[0] == 200

    @property
    def url(self):
        return f"ws://{self.host}:{self.port}/ws"

    def http(self, method, path, body=None):
        """(status, text) of an admin request."""
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10 * SLOWNESS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def publish(self, room, message):
        status, text = self.http("POST", f"/v1/rooms/{room}/messages", message)
        equal(status, 202, f"status of a publish ({text})")

    def metric(self, name, labels=""):
        total = 0.0
        for line in self.http("GET", "/metrics")[1].split("\n"):
            if line.startswith("#") or not line.startswith((name + " ", name + "{")) or labels not in line:
                continue
            total += float(line.rsplit(" ", 1)[1])
        return total

    def stop(self):
        """SIGTERM, then SIGKILL; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(12 * SLOWNESS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        return self.process.returncode
