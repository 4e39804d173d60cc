"""Servers that scripts/bench measures beside Halley (--vs): nchan, NATS, Mosquitto, ws, Socket.IO.

Each has its own conf in the stage's folder, free ports, one worker or thread on the server's core,
and a fresh process for each run, so that none works off a backlog while another is measured. What a
peer can't do (install, start, serve the load) is said and the peer left out.
"""

import getpass
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from bench_stage import ROOT, SERVER_CORE, Failure, accepts, free_port, wait_for
from bench_tables import figure, median, table

NPM_FOLDER = os.path.join(ROOT, "build", "bench-peers")
FILES = 65536  # the file limit of each peer: some take memory for every file they might open

NCHAN = """
daemon off;
worker_processes 1;
user {user};
pid {folder}/nginx.pid;
error_log stderr error;
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
events {{
    worker_connections {files};
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/pub/(.+)$ {{
            nchan_publisher websocket;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 30s;
        }}
    }}
}}
"""

NATS = """
listen: "127.0.0.1:{plain}"
max_connections: {files}
websocket {{
    listen: "127.0.0.1:{port}"
    no_tls: true
    compression: false
}}
"""

MOSQUITTO = """
user {user}
allow_anonymous true
persistence false
log_dest stderr
log_type error
set_tcp_nodelay true
listener {plain} 127.0.0.1
listener {port} 127.0.0.1
protocol websockets
"""


class Running:
    """A peer that serves: pid of the process that does the work, viewers' URL, load's options."""

    def __init__(self, process, pid, url, **load):
        self.process, self.pid, self.url, self.load = process, pid, url, load


def launch(stage, name, command, ports):
    files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limit = ["prlimit", f"--nofile={files}:{files}"]
    process, log = stage.start(name, SERVER_CORE, limit + command)
    wait_for(name, lambda: all(accepts(port) for port in ports), process, log)
    return process


def write_conf(stage, name, text, **values):
    path = os.path.join(stage.folder, f"{name}.conf")
    files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) - 1024
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.format(folder=stage.folder, user=getpass.getuser(), files=files, **values))
    return path


def only_child(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = file.read().split()
    if len(children) != 1:
        raise Failure(f"process {pid} has {len(children)} children where one worker was expected")
    return int(children[0])


def start_nchan(stage):
    port = free_port()
    conf = write_conf(stage, "nchan", NCHAN, port=port)
    command = ["nginx", "-p", stage.folder, "-e", "stderr", "-c", conf]
    process = launch(stage, "nchan", command, [port])
    url = f"ws://127.0.0.1:{port}"
    return Running(process, only_child(process.pid), url + "/sub/{room}",
                   **{"as": "nchan", "publish": url + "/pub/{room}"})


def start_nats(stage):
    port, plain = free_port(), free_port()
    conf = write_conf(stage, "nats", NATS, port=port, plain=plain)
    process = launch(stage, "nats", ["nats-server", "-c", conf], [port, plain])
    return Running(process, process.pid, f"ws://127.0.0.1:{port}/",
                   **{"as": "nats", "publish": f"nats://127.0.0.1:{plain}"})


def start_mosquitto(stage):
    port, plain = free_port(), free_port()
    conf = write_conf(stage, "mosquitto", MOSQUITTO, port=port, plain=plain)
    process = launch(stage, "mosquitto", ["mosquitto", "-c", conf], [port, plain])
    return Running(process, process.pid, f"ws://127.0.0.1:{port}/",
                   **{"as": "mqtt", "publish": f"mqtt://127.0.0.1:{plain}"})


def start_node(stage, name, script):
    port = free_port()
    command = ["node", os.path.join(NPM_FOLDER, script), str(port)]
    process = launch(stage, name, command, [port])
    return process, f"ws://127.0.0.1:{port}"


def start_ws(stage):
    process, url = start_node(stage, "ws", "rooms-ws.mjs")
    return Running(process, process.pid, url + "/feed?room={room}",
                   **{"as": "raw", "publish": url + "/publish?room={room}"})


def start_socketio(stage):
    process, url = start_node(stage, "socket.io", "rooms-socketio.mjs")
    return Running(process, process.pid, url + "/socket.io/?EIO=4&transport=websocket",
                   **{"as": "engineio4", "publish": url + "/publish?room={room}"})


def package_version(*names):
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}  ", *names]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True).stdout.strip()


def npm_version(name):
    node = subprocess.run(["node", "-v"], stdout=subprocess.PIPE, check=False, text=True).stdout
    path = os.path.join(NPM_FOLDER, "node_modules", name, "package.json")
    with open(path, encoding="utf-8") as file:
        return f"{name} {json.load(file)['version']}, Node.js {node.strip()}"


# How each is started, and which version it is.
PEERS = {
    "nchan": (start_nchan, lambda: package_version("nginx", "libnginx-mod-nchan")),
    "nats": (start_nats, lambda: package_version("nats-server")),
    "mosquitto": (start_mosquitto, lambda: package_version("mosquitto")),
    "ws": (start_ws, lambda: npm_version("ws")),
    "socket.io": (start_socketio, lambda: npm_version("socket.io")),
}


def parse_vs(text):
    """The value of --vs as a list of peers; the floor is measured anyway."""
    names = list(PEERS) if text == "all" else [name for name in text.split(",") if name]
    wrong = [name for name in names if name not in PEERS and name != "floor"]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: floor, {', '.join(PEERS)} or all is wanted")
    return [name for name in names if name != "floor"]


def install(name):
    script = os.path.join(ROOT, "scripts", "lib", "bench_peers.sh")
    done = subprocess.run(["bash", script, name], stdin=subprocess.DEVNULL, stdout=sys.stderr,
                          check=False)
    if done.returncode:
        raise Failure(f"can't be installed (scripts/lib/bench_peers.sh {name} says why)")


class Peers:
    """The peers of one scenario and their runs."""

    def __init__(self, stage):
        self.stage = stage
        self.runs = {}
        self.left_out = {}
        for name in stage.options.vs:
            self.attempt(name, lambda name=name: self.prepare(name))

    def prepare(self, name):
        install(name)
        self.stage.versions[name] = PEERS[name][1]()
        self.runs[name] = []

    def attempt(self, name, action):
        """A peer that fails is left out from here on; the others go on."""
        try:
            return action()
        except (Failure, OSError) as failure:
            self.runs.pop(name, None)
            self.left_out[name] = str(failure)
            print(f"scripts/bench: {name} is left out: {failure}", file=sys.stderr)
            return None

    def measure_one(self, name, number, seconds, rest, load):
        running = PEERS[name][0](self.stage)
        try:
            time.sleep(rest)  # "fresh" means a process at rest.
            run = self.stage.measure(f"{name} {number}", running, running.url, seconds,
                                     **{**load, **running.load})
            self.runs[name].append(run)
            return run
        finally:
            self.stage.stop(running.process)

    def measure(self, number, seconds, rest=0.5, **load):
        """One run of each, in turn; how a load is published and spoken is the peer's own. Returns
        the runs."""
        runs = []
        for name in list(self.runs):
            run = self.attempt(
                name, lambda name=name: self.measure_one(name, number, seconds, rest, load))
            runs += [run] if run else []
        return runs

    def groups(self):
        return [(f"{name}, median", runs) for name, runs in self.runs.items()]

    def asked(self):
        return self.runs or self.left_out

    def complete(self):
        return not self.left_out

    def show_left_out(self):
        if self.left_out:
            reasons = [[name, " ".join(why.split())[:100]] for name, why in self.left_out.items()]
            table(["left out", "why"], reasons)


def ratio_to(floors, runs, key):
    """Ratio of medians, and the lowest and highest of the rounds' own ratios."""
    whole = median(runs, key) / median(floors, key)
    rounds = [figure(run, key) / figure(floor, key) for run, floor in zip(runs, floors)]
    return f"{whole:.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


def show_delivery(peers, ours, floors):
    """Halley, the floor and the peers in one table; nothing without peers."""
    if not peers.asked():
        return
    rows = []
    key = "cpu_us_per_message"
    for name, runs in [("floor", floors), ("halley", ours), *peers.runs.items()]:
        share = statistics.median(
            run["reading"]["delivered"] / run["reading"]["expected"] for run in runs)
        rows.append([name, f"{median(runs, key):.3f}", ratio_to(floors, runs, key),
                     f"{share * 100:.2f}", f"{median(runs, 'frames_per_read'):.2f}",
                     f"{median(runs, 'server_core_share') * 100:.0f}",
                     f"{median(runs, 'reading.p50_ms'):.1f}",
                     f"{median(runs, 'reading.p99_ms'):.1f}",
                     f"{runs[0]['pss_bytes_per_viewer']:.0f}",
                     max(run["closed"] for run in runs)])
    table(["server", "CPU µs/message", "× floor (rounds)", "delivered %", "frames/read",
           "server core %", "p50 ms", "p99 ms", "bytes/viewer", "closed"], rows)
    peers.show_left_out()


def first_wave_bytes(run):
    return (run["first"]["pss_bytes"] - run["pss_fresh_bytes"]) / run["viewers"]


def show_opening(peers, ours, floors):
    """What a viewer costs that connects and joins, as fast as it goes."""
    if not peers.asked():
        return
    rows = []
    for name, runs in [("floor", floors), ("halley", ours), *peers.runs.items()]:
        key = "first.cpu_us_per_viewer"
        rows.append([name, f"{median(runs, key):.1f}", ratio_to(floors, runs, key),
                     f"{median(runs, 'first.seconds'):.2f}",
                     f"{median(runs, 'second.seconds'):.2f}",
                     f"{first_wave_bytes(runs[0]):.0f}", max(run["closed"] for run in runs)])
    table(["server", "CPU µs/viewer", "× floor (rounds)", "in s", "again in s", "bytes/viewer",
           "closed"], rows)
    peers.show_left_out()


def show_memory(peers, ours):
    """What an idle viewer weighs."""
    if not peers.asked():
        return
    rows = []
    for name, runs in [("halley", ours), *peers.runs.items()]:
        memory = sorted(run["pss_bytes_per_viewer"] for run in runs)
        rows.append([name, f"{statistics.median(memory):.0f} ({memory[0]:.0f}–{memory[-1]:.0f})",
                     f"{statistics.median(memory) / median(ours, 'pss_bytes_per_viewer'):.1f}",
                     f"{median(runs, 'pss_fresh_bytes') / 1e6:.1f}",
                     f"{median(runs, 'pss_left_bytes') / 1e6:.1f}",
                     f"{median(runs, 'cpu_us_per_viewer_opened'):.1f}",
                     f"{median(runs, 'connect_seconds'):.2f}"])
    table(["server", "bytes/viewer (rounds)", "× Halley", "fresh MB", "after they left MB",
           "CPU µs/opening", "opened in s"], rows)
    peers.show_left_out()
