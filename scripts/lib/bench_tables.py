"""Tables, figures and promises of scripts/bench: what every scenario prints, and what the report page
shows again."""

import statistics

# What was printed since the last take(), for the report page.
_shown = []


def take():
    """The tables printed since the last call, each a list of rows whose first is the head."""
    taken, _shown[:] = list(_shown), []
    return taken


def table(head, rows):
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    _shown.append([list(row) for row in cells])
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
    print()


class Verdicts:
    """Promises, each with what was measured."""

    def __init__(self):
        self.rows = []

    def most(self, what, value, bound, unit=""):
        verdict = "ok" if value <= bound else "MISSED"
        self.rows.append([what, f"{value:.4g}{unit}", f"at most {bound:.4g}{unit}", verdict])

    def note(self, what, value, unit=""):
        """A figure that nothing was promised about."""
        self.rows.append([what, f"{value:.4g}{unit}", "", ""])

    def exactly(self, what, value, wanted):
        self.rows.append([what, str(value), str(wanted), "ok" if value == wanted else "MISSED"])

    def show(self):
        table(["promise", "measured", "wanted", ""], self.rows)
        return all(row[-1] != "MISSED" for row in self.rows)


def figure(run, key):
    """A figure of a run; one of its reading viewers as `reading.p99_ms`."""
    for part in key.split("."):
        run = run[part]
    return run


def median(runs, key):
    return statistics.median(figure(run, key) for run in runs)


def worst(runs, key):
    return max(figure(run, key) for run in runs)


def frame_bytes(run):
    """Size on the wire of a message of this run, 0 when none came."""
    return round(run["reading"]["bytes"] / max(1, run["reading"]["delivered"]))


# Column, key of the figure, factor, digits.
DELIVERY = [
    ("delivered", "reading.delivered", 1, 0),
    ("of", "reading.expected", 1, 0),
    ("lost", "reading.lost", 1, 0),
    ("twice", "reading.duplicates", 1, 0),
    ("disordered", "reading.out_of_order", 1, 0),
    ("frames/read", "frames_per_read", 1, 3),
    ("CPU µs/message", "cpu_us_per_message", 1, 3),
    ("of it ksoftirqd", "ksoftirqd_us_per_message", 1, 3),
    ("server core %", "server_core_share", 100, 0),
    ("client core %", "client_core_share", 100, 0),
    ("p50 ms", "reading.p50_ms", 1, 2),
    ("p99 ms", "reading.p99_ms", 1, 2),
    ("max ms", "reading.max_ms", 1, 2),
]
MEMORY = [
    ("viewers", "viewers", 1, 0),
    ("fresh MB", "pss_fresh_bytes", 1e-6, 2),
    ("with viewers MB", "pss_connected_bytes", 1e-6, 2),
    ("bytes/viewer", "pss_bytes_per_viewer", 1, 1),
    ("after they left MB", "pss_left_bytes", 1e-6, 2),
    ("after s", "left_seconds", 1, 1),
    ("socket slab bytes/viewer", "slab_bytes_per_viewer", 1, 0),
    ("opened in s", "connect_seconds", 1, 2),
    ("CPU µs/opening", "cpu_us_per_viewer_opened", 1, 1),
]
STALL = [
    ("fresh MB", "pss_fresh_bytes", 1e-6, 2),
    ("with viewers MB", "pss_connected_bytes", 1e-6, 2),
    ("peak MB", "pss_peak_bytes", 1e-6, 2),
    ("readers' p50 ms", "reading.p50_ms", 1, 2),
    ("p99 ms", "reading.p99_ms", 1, 2),
    ("lost", "reading.lost", 1, 0),
    ("closed", "closed", 1, 0),
    ("stalled", "stalling.viewers", 1, 0),
    ("lost", "stalling.lost", 1, 0),
    ("told", "stalling.skipped", 1, 0),
    ("current at the end", "stalling.current", 1, 0),
]


def show_runs(columns, runs, groups=()):
    """A row per run, and one of medians for each (label, runs) of groups."""
    rows = []
    for label, members in [(run["label"], [run]) for run in runs] + list(groups):
        row = [label]
        for _, key, factor, digits in columns:
            row.append(f"{median(members, key) * factor:.{digits}f}")
        rows.append(row)
    table(["run", *(column[0] for column in columns)], rows)


def promise_delivery(verdicts, runs):
    missing = max(run["reading"]["expected"] - run["reading"]["delivered"] for run in runs)
    verdicts.exactly("messages missing, of the worst run", missing, 0)
    verdicts.exactly("lost, warm-up too", worst(runs, "reading.lost"), 0)
    verdicts.exactly("delivered twice", worst(runs, "reading.duplicates"), 0)
    verdicts.exactly("out of order", worst(runs, "reading.out_of_order"), 0)
    verdicts.exactly("viewers closed", worst(runs, "closed"), 0)


def promise_cpu(verdicts, ours, floors, bound, name):
    ratios = [a["cpu_us_per_message"] / b["cpu_us_per_message"] for a, b in zip(ours, floors)]
    ratio = median(ours, "cpu_us_per_message") / median(floors, "cpu_us_per_message")
    what = f"CPU per message over {name} (rounds: {min(ratios):.2f}–{max(ratios):.2f})"
    verdicts.most(what, ratio, bound, " ×")
