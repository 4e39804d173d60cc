#!/usr/bin/python3
"""scripts/weaknet in its short form: every scenario in a test bed of its own, all at the same time, since they mostly wait."""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from lib import HALLEY_BIN, ROOT, check, equal, finish, skip, until  # noqa: E402

WEAKNET = os.path.join(ROOT, "scripts/weaknet")
SCENARIOS = ("thin", "far", "bbr", "bloat", "long", "widen", "rest", "loss", "nat", "halfopen", "balance", "kill")
BUSY = ("loss", "kill")  # these use the processor and judge no delays
UNAVAILABLE = 69


def start(scenario):
    # What judges delays on a link stands for machines of its own: nothing else that runs here is to take their cores.
    nice = [] if scenario in BUSY else ["nice", "-n", "-10"]
    return subprocess.Popen(
        [*nice, WEAKNET, "--no-build", "--short", scenario],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "HALLEY_BIN": HALLEY_BIN},
    )


def namespaces(pid):
    listed = subprocess.run(
        ["ip", "netns", "list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout
    return [line for line in listed.split("\n") if f"halley-weaknet-{pid}-" in line]


def judge(name, process):
    said = process.communicate(timeout=200)[0]
    if process.returncode == UNAVAILABLE:
        skip(name, said.strip().split("\n")[-1])
        return
    print("".join(f"# {line}\n" for line in said.strip().split("\n") if line.startswith(("ok ", "not ok "))), end="")

    def passed():
        equal((process.returncode, namespaces(process.pid)), (0, []), f"exit code and namespaces left behind ({said[-500:]})")

    check(f"weaknet {name}", passed)


def interrupted():
    process = start("thin")
    try:
        until(lambda: len(namespaces(process.pid)) == 3, "the test bed stands", 60)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    equal(namespaces(process.pid), [], "namespaces left behind")


def main():
    if os.geteuid() != 0:
        process = start("thin")
        said = process.communicate(timeout=60)[0]
        check("weaknet says that it needs root", lambda: equal((process.returncode, "root" in said), (UNAVAILABLE, True), said))
        finish()
    running = {name: start(name) for name in SCENARIOS}
    if running["balance"].wait(timeout=200) != UNAVAILABLE:
        check("an interrupted test bed leaves nothing behind", interrupted)
    for name, process in running.items():
        judge(name, process)
    finish()


main()
