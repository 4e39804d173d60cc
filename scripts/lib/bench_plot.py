"""Plots as inline SVG, for the report page. Colours come from the page (classes s0, s1 …), so that
a plot follows light and dark; shapes of the marks tell the series apart too."""

import math
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46
SERIES = 7  # colours on the page


class Axis:
    """Maps values to places, and knows where its ticks are."""

    def __init__(self, low, high, from_, to, log):
        self.log = log
        if log:
            self.low, self.high = math.log10(low), math.log10(high)
        else:
            self.low, self.high = low, high
        self.from_, self.to = from_, to

    def at(self, value):
        value = math.log10(value) if self.log else value
        span = self.high - self.low or 1
        return self.from_ + (value - self.low) / span * (self.to - self.from_)


def number(value):
    """Short, for a tick: 1500 → 1.5k."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def linear_ticks(high, wanted=5):
    """0 … the first round number at or above high."""
    step = 10 ** math.floor(math.log10(high / wanted)) if high > 0 else 1
    for factor in (1, 2, 2.5, 5, 10):
        if high / (step * factor) <= wanted:
            step *= factor
            break
    return [i * step for i in range(math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low, high):
    """Powers of ten around the values, and 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    factors = (1,) if last - first > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    below = [tick for tick in ticks if tick <= low * 1.0001]
    above = [tick for tick in ticks if tick >= high * 0.9999]
    return [tick for tick in ticks if below[-1] <= tick <= above[0]]


def mark(kind, x, y, text):
    """A small shape; circle, square, triangle, diamond in turn."""
    shapes = (
        ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="4"'),
        ("rect", f'x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"'),
        ("path", f'd="M{x:.1f} {y - 5:.1f}l5 8.6h-10z"'),
        ("path", f'd="M{x:.1f} {y - 5.2:.1f}l5.2 5.2-5.2 5.2-5.2-5.2z"'),
    )
    tag, shape = shapes[kind % len(shapes)]
    title = f"<title>{escape(text)}</title>" if text else ""
    return f'<{tag} {shape} class="f{kind % SERIES}">{title}</{tag}>'


def frame(x_axis, y_axis, x_ticks, y_ticks, x_label, y_label):
    """Grid, ticks and what the axes are. Ticks are (value, text)."""
    parts = []
    for value, text in y_ticks:
        y = y_axis.at(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
                     f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{text}</text>")
    for value, text in x_ticks:
        x = x_axis.at(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
                     f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}"'
                     f' text-anchor="middle">{text}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}"'
                 f' text-anchor="middle">{escape(x_label)}</text>'
                 f'<text class="axis" transform="translate(14 {middle}) rotate(-90)"'
                 f' text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def figure(name, title, description, height, body, legend=()):
    """The plot with its heading; the legend is text beside marks, wrapped by the page."""
    keys = "".join(
        f'<li><svg width="26" height="12" viewBox="0 0 26 12" aria-hidden="true">'
        f'<path class="l s{i % SERIES}" d="M0 6H26"/>{mark(i, 13, 6, "")}</svg>{escape(text)}</li>'
        for i, text in enumerate(legend))
    return (f'<figure><figcaption id="{name}-t">{escape(title)}</figcaption>'
            f'<svg role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {WIDTH} {height}">'
            f'<desc id="{name}-d">{escape(description)}</desc>{body}</svg>'
            + (f'<ul class="legend">{keys}</ul>' if keys else "") + "</figure>")


def described(series, x_label, y_label):
    """A plot in words, for those who don't see it."""
    parts = []
    for label, points in series:
        some = points[:: max(1, len(points) // 8)]
        listed = ", ".join(f"{number(x)}: {number(y)}" for x, y, *_ in some)
        parts.append(f"{label}: {listed}")
    return f"{y_label} by {x_label}. " + "; ".join(parts) + "."


def lines(name, title, x_label, y_label, series):
    """A line with marks per series, each [(x, y)], both axes linear from 0."""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    x_ticks, y_ticks = sorted(set(xs)), linear_ticks(max(ys) or 1)
    x_axis = Axis(0, max(xs), LEFT, WIDTH - RIGHT, False)
    y_axis = Axis(0, y_ticks[-1], HEIGHT - BOTTOM, TOP, False)
    # Two neighbours that would touch: the text of the lower one is left out.
    texts = [number(x) if i + 1 == len(x_ticks) or x_axis.at(x_ticks[i + 1]) - x_axis.at(x) > 34
             else "" for i, x in enumerate(x_ticks)]
    body = frame(x_axis, y_axis, list(zip(x_ticks, texts)),
                 [(tick, number(tick)) for tick in y_ticks], x_label, y_label)
    for i, (label, points) in enumerate(series):
        path = "L".join(f"{x_axis.at(x):.1f} {y_axis.at(y):.1f}" for x, y in points)
        body += f'<path class="l s{i % SERIES}" d="M{path}"/>'
        body += "".join(mark(i, x_axis.at(x), y_axis.at(y), f"{label}: {number(y)} at {number(x)}")
                        for x, y in points)
    return figure(name, title, described(series, x_label, y_label), HEIGHT, body,
                  [label for label, _ in series])


def percentiles(name, title, series):
    """Latency in ms at each share of the messages, the last nines drawn as wide as the first; series
    are (label, [(share, ms)])."""
    tails = [(0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"),
             (0.99999, "99.999")]
    most = max(share for _, points in series for share, _ in points if share < 1)
    shown = [tail for tail in tails if tail[0] <= most]
    top = 1 / (1 - shown[-1][0]) * 1.6
    # The few fastest messages would take up half of the plot.
    values = [ms for _, points in series for share, ms in points if ms > 0 and share >= 0.1]
    y_ticks = log_ticks(min(values), max(values))
    x_axis = Axis(1, top, LEFT, WIDTH - RIGHT, True)
    y_axis = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, True)
    body = frame(x_axis, y_axis, [(1 / (1 - share), text) for share, text in shown],
                 [(tick, number(tick)) for tick in y_ticks], "% of messages", "latency in ms")
    words = []
    for i, (label, points) in enumerate(series):
        kept = [(1 / (1 - share), ms) for share, ms in points if share < 1 and ms > 0]
        kept = [(x, max(ms, y_ticks[0])) for x, ms in kept if x <= top]
        # The slowest message of all stands for every share beyond it.
        kept.append((top, points[-1][1]))
        path = "L".join(f"{x_axis.at(x):.1f} {y_axis.at(ms):.1f}" for x, ms in kept)
        body += f'<path class="l s{i % SERIES}" d="M{path}"/>'
        for share, text in shown[1:]:
            ms = next(ms for at, ms in points if at >= share)
            words.append(f"{label}: {text} % within {ms:.2f} ms")
            body += mark(i, x_axis.at(1 / (1 - share)), y_axis.at(ms), words[-1])
    return figure(name, title, "; ".join(words) + ".", HEIGHT, body, [label for label, _ in series])


def bars(name, title, unit, rows):
    """A bar per row with its spread: (label, median, low, high)."""
    step, top = 40, 6
    height = top + step * len(rows) + 34
    ticks = linear_ticks(max(high for _, _, _, high in rows) or 1, 4)
    axis = Axis(0, ticks[-1], 10, WIDTH - 60, False)
    body = ""
    for tick in ticks:
        x = axis.at(tick)
        body += (f'<path class="grid" d="M{x:.1f} {top}V{height - 34}"/>'
                 f'<text class="tick" x="{x:.1f}" y="{height - 18}" text-anchor="middle">'
                 f"{number(tick)}</text>")
    body += (f'<text class="axis" x="{WIDTH / 2}" y="{height - 3}" text-anchor="middle">'
             f"{escape(unit)}</text>")
    for i, (label, value, low, high) in enumerate(rows):
        y = top + step * i
        spread = f" ({low:.3g}–{high:.3g})" if high > low else ""
        told = escape(f"{label}: {value:.3g} {unit}{spread}")
        body += (f'<text class="name" x="12" y="{y + 14}">{escape(label)}</text>'
                 f'<rect class="f{i % SERIES}" x="10" y="{y + 20}" height="14"'
                 f' width="{axis.at(value) - 10:.1f}"><title>{told}</title></rect>')
        if high > low:
            body += (f'<path class="spread" d="M{axis.at(low):.1f} {y + 27}H{axis.at(high):.1f}m0 -5v10'
                     f'M{axis.at(low):.1f} {y + 22}v10"/>')
        body += (f'<text class="name" x="{axis.at(max(value, high)) + 7:.1f}" y="{y + 32}">'
                 f"{value:.3g}</text>")
    words = "; ".join(f"{label}: {value:.3g}" for label, value, _, _ in rows)
    return figure(name, title, f"{unit}, median. {words}.", height, body)
