"""The report page of scripts/bench: one file that needs nothing else, in light and dark."""

import os
import re
import statistics
from html import escape

import bench_plot

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#1d2126;--soft:#596170;--line:#dcdfe4;
--ok:#176b3a;--okbg:#e2f3e8;--bad:#a3231f;--badbg:#fde8e6;--link:#1b57b8;
--c0:#1f66d1;--c1:#c9570c;--c2:#15805d;--c3:#8247c9;--c4:#8a6a00;--c5:#bb2f6f;--c6:#5a6675}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1c2025;--ink:#e7e9ec;--soft:#a3abb8;
--line:#363c45;--ok:#7ed69f;--okbg:#173524;--bad:#ff9d94;--badbg:#44201e;--link:#8ab8ff;
--c0:#6ea8ff;--c1:#ff9a57;--c2:#4fcfa3;--c3:#bf97ff;--c4:#e0bd4a;--c5:#ff86b6;--c6:#aeb8c6}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main,header{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.25rem;margin:2.4rem 0 .3rem;padding-top:.8rem;border-top:1px solid var(--line)}
p{margin:.4rem 0 .8rem;max-width:48rem}
a{color:var(--link)}
nav ul,.legend{list-style:none;margin:.4rem 0;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1rem 2rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem;
margin:1rem 0;align-items:start}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--line);
border-radius:.5rem;max-width:40rem}
figcaption{font-weight:600;margin-bottom:.5rem}
figure>svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:13px system-ui,sans-serif}
svg .name{fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.l{fill:none;stroke-width:2;stroke-linejoin:round}
.spread{stroke:var(--ink);stroke-width:1.5;fill:none}
.legend{font-size:.875rem}.legend svg{margin-right:.4rem;vertical-align:middle}
.scroll{overflow-x:auto;margin:.8rem 0;
border:1px solid var(--line);border-radius:.5rem;background:var(--card)}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{
outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.5rem .7rem;color:var(--soft)}
th,td{padding:.35rem .7rem;text-align:left;border-top:1px solid var(--line);vertical-align:top}
thead th{border-top:0;color:var(--soft);font-weight:600;vertical-align:bottom}
tbody th,thead th:first-child{position:sticky;left:0;background:var(--card)}
tbody th{font-weight:500;min-width:min(13rem,38vw)}
.n{text-align:right;white-space:nowrap}
.ok,.missed{font-weight:600;padding:.05rem .5rem;border-radius:1rem;white-space:nowrap}
.ok{color:var(--ok);background:var(--okbg)}.missed{color:var(--bad);background:var(--badbg)}
summary{cursor:pointer;margin:.6rem 0}
pre{overflow-x:auto;font:.8125rem/1.5 ui-monospace,monospace;background:var(--card);
border:1px solid var(--line);border-radius:.5rem;padding:.7rem;margin:.4rem 0;
white-space:pre-wrap;overflow-wrap:anywhere}
"""
STYLE += "".join(f".s{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}"
                 for i in range(bench_plot.SERIES))

# More of them than this in one plot can't be told apart, colours and shapes together.
LINES_MAX = 12


def grouped(runs):
    """Runs of one kind together: "halley 1" and "halley 2, …" differ in the round only."""
    groups = {}
    for run in runs:
        label = re.sub(r"^(.*?) \d+(?=$|,)", r"\1", run.get("label", ""))
        groups.setdefault(label, []).append(run)
    return groups


def numeric(text):
    return bool(re.fullmatch(r"[-+]?[\d.,]+( ?(%|×|ms|MB|KB|s|µs|bytes))?|-|—", text.strip()))


def verdict(text):
    kind = {"ok": "ok", "MISSED": "missed"}.get(text)
    return f'<span class="{kind}">{text}</span>' if kind else escape(text)


def table(rows, caption):
    head, body = rows[0], rows[1:]
    right = [i > 0 and all(numeric(row[i]) for row in body) for i in range(len(head))]
    kind = [' class="n"' if flag else "" for flag in right]
    cells = "".join(f'<th scope="col"{kind[i]}>{escape(text) or "verdict"}</th>'
                    for i, text in enumerate(head))
    lines = ""
    for row in body:
        rest = "".join(f"<td{kind[i]}>{verdict(text)}</td>" for i, text in enumerate(row) if i)
        lines += f'<tr><th scope="row">{escape(row[0])}</th>{rest}</tr>'
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
            f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead>"
            f"<tbody>{lines}</tbody></table></div>")


def pairs(values):
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
                   for key, value in values.items())
    return f"<dl>{rows}</dl>"


def distribution(runs, group):
    """[(share of the messages, ms)] from a group's histograms of the runs together."""
    buckets = {}
    for run in runs:
        for end_ns, count in run.get(group, {}).get("histogram_ns", []):
            buckets[end_ns] = buckets.get(end_ns, 0) + count
    total, seen, points = sum(buckets.values()), 0, []
    for end_ns in sorted(buckets):
        points.append((seen / total, end_ns / 1e6))
        seen += buckets[end_ns]
        points.append((seen / total, end_ns / 1e6))
    return points


def latency_plot(name, groups):
    series = []
    for label, runs in groups.items():
        high = distribution(runs, "high")  # Of runs with both lanes; else all is in "reading".
        series.append((f"{label}: normal" if high else label, distribution(runs, "reading")))
        series.append((f"{label}: high", high))
    series = [(label, points) for label, points in series if points][:LINES_MAX]
    if not series:
        return ""
    return bench_plot.percentiles(f"{name}-latency", "Latency distribution", series)


def bar_plot(name, groups, key, title, unit):
    """Medians of a figure with their spread; nothing where there are no two to compare."""
    rows = []
    for label, runs in groups.items():
        values = [run.get(key, 0) for run in runs]
        rows.append((label, statistics.median(values), min(values), max(values)))
    rows = [row for row in rows if row[1] > 0]
    return bench_plot.bars(f"{name}-{key}", title, unit, rows) if len(rows) > 1 else ""


def bar_plots(name, groups):
    if any(run.get("delivered") for runs in groups.values() for run in runs):
        return bar_plot(name, groups, "cpu_us_per_message",
                        "Server CPU per delivered message (server and ksoftirqd)", "µs per message")
    return (bar_plot(name, groups, "cpu_us_per_viewer_opened",
                     "Server CPU per viewer that connects and joins", "µs per viewer") +
            bar_plot(name, groups, "pss_bytes_per_viewer", "User memory per viewer", "bytes"))


SWEEP_PLOTS = (
    ("throughput", "Throughput against viewers", "messages delivered/s", "delivered_per_second", 1),
    ("core", "CPU against viewers", "% of the server's core", "server_core_share", 100),
    ("cost", "CPU per message against viewers", "µs per message", "cpu_us_per_message", 1),
    ("memory", "Memory against viewers", "MB, proportional set size", "pss_connected_bytes", 1e-6),
    ("p99", "p99 against viewers", "ms", "reading.p99_ms", 1),
)


def sweep_plots(name, runs):
    """Figures of runs that carry the name of their series, over their number of viewers."""
    names = list(dict.fromkeys(run["series"] for run in runs))
    plots = ""
    for key, title, label, figure, factor in SWEEP_PLOTS:
        series = []
        for one in names:
            values = {}
            for run in runs:
                if run["series"] != one:
                    continue
                value = run
                for part in figure.split("."):
                    value = value[part]
                values.setdefault(run["viewers"], []).append(value * factor)
            points = [(count, statistics.median(found)) for count, found in sorted(values.items())]
            series.append((one, points))
        plots += bench_plot.lines(f"{name}-{key}", title, "viewers", label, series)
    return plots


def plots_of(record):
    name, runs = record["scenario"], record["runs"]
    if runs and all("series" in run for run in runs):
        return sweep_plots(name, runs)
    groups = grouped(runs)
    return latency_plot(name, groups) + bar_plots(name, groups)


def promises(record):
    return [row for rows in record["tables"] if rows[0][0] == "promise" for row in rows[1:]]


def section(record):
    name = record["scenario"]
    parts = [f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{name}</h2>'
             f"<p>{escape(record['about'])}</p>"]
    plots = plots_of(record)
    if plots:
        parts.append(f'<div class="plots">{plots}</div>')
    for rows in record["tables"]:
        what = {"promise": "promises", "run": "runs"}.get(rows[0][0], "figures")
        parts.append(table(rows, f"{name}: {what}"))
    commands = escape("\n\n".join(record["commands"]))
    parts.append(f"<p>{escape(record['ended'])}, load of the machine before it"
                 f" {record['load_before']:.2f}.</p><details><summary>Exact commands of {name}"
                 f" ({len(record['commands'])})</summary><pre>{commands}</pre></details></section>")
    return "".join(parts)


def overview(records):
    rows = [(record["scenario"], row) for record in records for row in promises(record)]
    missed = [(name, row) for name, row in rows if row[-1] == "MISSED"]
    kept = sum(row[-1] == "ok" for _, row in rows)
    text = f'<p><span class="ok">{kept} ok</span>'
    if missed:
        text += f' <span class="missed">{len(missed)} MISSED</span>'
    text += " of the promises that the documents make.</p>"
    if missed:
        items = "".join(f'<li><a href="#{name}">{name}</a>: {escape(row[0])}: {escape(row[1])},'
                        f" wanted {escape(row[2])}</li>" for name, row in missed)
        text += f"<ul>{items}</ul>"
    return text


def page(records):
    versions = {}
    for record in records:
        versions.update(record["versions"])
    links = "".join(f'<li><a href="#{record["scenario"]}">{record["scenario"]}</a></li>'
                    for record in records)
    commands = "\n".join(dict.fromkeys(record["command"] for record in records))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>Halley: load test</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Halley: load test</h1>{overview(records)}"
        f'<nav aria-label="Scenarios"><ul>{links}</ul></nav></header><main>'
        f'<section class="two" aria-label="Where it ran"><div><h2>Machine</h2>'
        f"{pairs(records[0]['machine'])}</div><div><h2>Versions</h2>{pairs(versions)}</div>"
        "</section>"
        f"<pre>{escape(commands)}</pre>"
        "<p>CPU is that of the server's threads and of the kernel's ksoftirqd. Latency runs from the"
        " time at which a message should have been published to the end of the read that brought it."
        " The floor is a bare loop of send() of ready frames. docs/benchmarks.md says more.</p>"
        f"{''.join(section(record) for record in records)}</main></body></html>\n")


def write(folder, records):
    """Writes the page. Returns its path."""
    path = os.path.join(folder, "index.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(records))
    return path
