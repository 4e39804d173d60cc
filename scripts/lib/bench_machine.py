"""What a session of scripts/bench ran on: the machine, and the versions of what took part."""

import os
import platform
import shutil
import subprocess


def _field(path, name):
    """The value of the first `name : value` line of a file of /proc, or None."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None


def _said(command):
    """The first line that a command prints, or None."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=10, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def describe():
    """Label and text of what matters about the machine."""
    memory = _field("/proc/meminfo", "MemTotal")
    gigabytes = f"{int(memory.split()[0]) / 1024 / 1024:.1f} GiB" if memory else "unknown"
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return {
        "CPU": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": gigabytes,
        "kernel": f"{platform.system()} {platform.release()}",
        "system": system,
    }


def line():
    """The same in one line, above a scenario's table."""
    about = describe()
    return f"{about['cores']} × {about['CPU']}, {about['memory']}, {about['kernel']}"


def _package(name):
    if not shutil.which("dpkg-query"):
        return None
    return _said(["dpkg-query", "-W", "-f", "${Version}\n", name])


def versions(options):
    """Name and version of what every scenario uses; scenarios add their own to the stage."""
    found = {"halley": _said([options.halley, "-V"]), "redis-server": _package("redis-server"),
             "libuv": _package("libuv1"), "python3": platform.python_version()}
    return {name: text for name, text in found.items() if text}
