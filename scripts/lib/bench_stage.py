"""What a scenario of scripts/bench starts: Redis, halley, the floor, and runs of halley-bench.

All on loopback, on ports that were free. The server has core 0 and the client with all else core 1,
for both sides of a comparison. What is started is stopped by its process id, whatever happens.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVER_CORE, CLIENT_CORE = 0, 1


class Failure(Exception):
    """What makes a scenario impossible; its text is for people."""


def pinned(core, command):
    """The command on one core, where the machine has several and taskset exists."""
    if shutil.which("taskset") and core in os.sched_getaffinity(0) and os.cpu_count() > 1:
        return ["taskset", "-c", str(core), *command]
    return command


def free_port():
    """A port outside of the range that the kernel gives to clients, so that no viewer takes it."""
    for _ in range(200):
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failure("no free port between 20000 and 32000")


def wait_for(what, ready, process, log, seconds=10):
    until = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            with open(log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-10:])
            raise Failure(f"{what} did not start within {seconds} s; it said:\n{tail}")
        time.sleep(0.02)


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers_200(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Stage:
    """Everything that a scenario starts."""

    def __init__(self, options):
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="halley-bench-")
        self.processes = []
        self.runs = []
        self.commands = []  # all that was started, for the report
        self.versions = {}  # of servers that are not Halley's; scenarios fill it

    def start(self, name, core, command):
        log = os.path.join(self.folder, f"{name}-{len(self.processes)}.log")
        with open(log, "wb") as file:
            process = subprocess.Popen(pinned(core, command), stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=file)
        self.processes.append(process)
        self.commands.append(pinned(core, command))
        return process, log

    def stop(self, process):
        self.processes.remove(process)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self):
        for process in reversed(list(self.processes)):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def redis(self):
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", self.folder]
        command += ["--save", "", "--appendonly", "no"]
        process, log = self.start("redis", CLIENT_CORE, command)
        wait_for("redis-server", lambda: accepts(port), process, log)
        return f"redis://127.0.0.1:{port}"

    def halley(self, redis, *conf):
        """Starts halley with one worker, the shipped conf and KEY=VALUE of conf. Returns process
        (its `admin` is the address of the admin listener) and viewers' URL."""
        port, admin = free_port(), free_port()
        command = [self.options.halley, "-c", os.path.join(ROOT, "conf", "halley.conf")]
        own = [f"server.listen=127.0.0.1:{port}", f"admin.listen=127.0.0.1:{admin}", "drain.notice=0"]
        own += ["server.workers=1", f"broker.url={redis}"]
        for override in own + list(conf) + self.options.override:
            command += ["-o", override]
        process, log = self.start("halley", SERVER_CORE, command)
        process.admin = f"http://127.0.0.1:{admin}"
        wait_for("halley", lambda: answers_200(f"{process.admin}/readyz"), process, log)
        return process, f"ws://127.0.0.1:{port}/ws"

    def floor(self, *arguments):
        port = free_port()
        command = [self.options.bench, "floor", "--listen", f"127.0.0.1:{port}", *arguments]
        process, log = self.start("floor", SERVER_CORE, command)
        wait_for("halley-bench floor", lambda: accepts(port), process, log)
        return process, f"ws://127.0.0.1:{port}/ws"

    def measure(self, label, server, url, seconds, **arguments):
        """One run of halley-bench against a server; returns its JSON as a dictionary."""
        file = os.path.join(self.folder, "run.json")
        command = [self.options.bench, "run", "--label", label, "--url", url, "--json", file]
        command += ["--pid", str(server.pid), "--seconds", str(seconds), "--quiet"]
        for name, value in arguments.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        print(f"… {label}", file=sys.stderr, flush=True)
        try:
            self.commands.append(pinned(CLIENT_CORE, command))
            done = subprocess.run(self.commands[-1], stdin=subprocess.DEVNULL,
                                  timeout=seconds + 120, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"{label}: halley-bench did not end within {seconds + 120} s") from None
        if done.returncode not in (0, 1):
            raise Failure(f"{label}: code {done.returncode} from {' '.join(command)}")
        with open(file, encoding="utf-8") as text:
            result = json.load(text)
        result["command"] = command
        self.runs.append(result)
        return result
