"""Numbers as inline SVG. Colours come from the page's style sheet, by class; text is escaped here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np
from markupsafe import Markup, escape

SVG = "http://www.w3.org/2000/svg"  # the name of the format, which nobody looks up


@dataclass(frozen=True, slots=True)
class Series:
    """Counts per bin, and the class that colours them."""

    label: str
    counts: Sequence[int]
    style: str


@dataclass(frozen=True, slots=True)
class Range:
    """A dot on a line, with its interval, and the class that colours it."""

    at: float
    low: float
    high: float
    style: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A run in a panel: its name, its place on the x axis, and its ranges; none where nothing was measured."""

    name: str
    place: float
    ranges: Sequence[Range]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several charts below each other. Along a joined one, ranges of one class are the points of a line."""

    title: str
    marks: Sequence[Mark]
    joined: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """What panels share: the ends of their x axis, its ticks with their labels, and its unit."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    unit: str


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between low and high, about `wanted` of them."""
    raw = (high - low) / wanted
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    return [float(round(k * step, 10)) + 0.0 for k in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def stacked_histogram(series: Sequence[Series], low: float, high: float, unit: str, width: int) -> Markup:
    """Bars per bin, one series on top of the other, from zero; the axis in `unit`."""
    height, left, bottom, top = 132, 36, 28 if unit else 18, 8
    counts = np.array([s.counts for s in series], float)
    tops = counts.cumsum(0)
    peak = tops[-1].max() or 1.0
    plot = height - bottom - top
    step = (width - left - 6) / counts.shape[1]
    gap = min(1.5, step * 0.15)
    parts = _frame(low, high, unit, width, height, left, bottom, peak, top)
    for row, s in enumerate(series):
        for column in range(counts.shape[1]):
            if counts[row, column]:
                tall = counts[row, column] / peak * plot
                y = height - bottom - tops[row, column] / peak * plot
                parts.append(
                    f'<rect class="{s.style}" x="{left + column * step + gap / 2:.2f}" y="{y:.2f}" '
                    f'width="{step - gap:.2f}" height="{tall:.2f}"/>'
                )
    return _svg(parts, width, height, f"histogram, {unit}: " + ", ".join(s.label for s in series))


def densities(series: Sequence[Series], low: float, high: float, unit: str, height: int = 170) -> Markup:
    """Outlines of several histograms, each scaled to the same area, for shapes that differ a thousandfold in count."""
    width, left, bottom, top = 860, 12, 30, 10
    shapes = [np.asarray(s.counts, float) / (np.sum(s.counts) or 1.0) for s in series]
    peak = max(shape.max() for shape in shapes) or 1.0
    plot, step = height - bottom - top, (width - left - 6) / len(shapes[0])
    parts = _frame(low, high, unit, width, height, left, bottom, None, top)
    floor = height - bottom
    for s, shape in zip(series, shapes, strict=True):
        path = [f"M{left:.2f},{floor}"]
        for column, value in enumerate(shape):
            y = floor - value / peak * plot
            path.append(f"L{left + column * step:.2f},{y:.2f}L{left + (column + 1) * step:.2f},{y:.2f}")
        parts.append(f'<path class="area {s.style}" d="{"".join(path)}L{left + len(shape) * step:.2f},{floor}Z"/>')
    return _svg(parts, width, height, f"densities, {unit}: " + ", ".join(s.label for s in series))


def intervals(rows: Sequence[tuple[str, Sequence[Range]]], low: float, high: float, unit: str) -> Markup:
    """A line per row with a dot and its interval for each range in it."""
    width, left, row_height, bottom = 860, 150, 46, 32
    height = row_height * len(rows) + bottom + 4
    parts: list[str] = []
    scale = (width - left - 16) / (high - low)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) * scale

    for tick in _ticks(low, high, 8):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - 14}">{_label(tick)}</text>')
    parts.append(f'<text class="unit" x="{width - 10}" y="{height - 1}">{escape(unit)}</text>')
    for index, (name, ranges) in enumerate(rows):
        middle = 4 + row_height * (index + 0.5)
        parts.append(f'<text class="name" x="{left - 16}" y="{middle + 4:.1f}">{escape(name)}</text>')
        for place, r in enumerate(ranges):
            y = middle + (place - (len(ranges) - 1) / 2) * 15
            parts.append(
                f'<line class="whisker {r.style}" x1="{x(r.low):.1f}" x2="{x(r.high):.1f}" y1="{y}" y2="{y}"/>'
            )
            parts.append(f'<circle class="{r.style}" cx="{x(r.at):.1f}" cy="{y}" r="5"/>')
    return _svg(parts, width, height, "scores by protocol: " + ", ".join(name for name, _ in rows))


def path(dots: Sequence[tuple[float, float, str]], unit: str, description: str) -> Markup:
    """Labelled dots joined by a line, x (above 0) logarithmic.

    Args:
        dots: x, y and label of each, in the order in which they are joined.
        unit: Of x.
        description: For those who cannot see it.
    """
    width, height, left, bottom, top = 470, 190, 52, 32, 16
    xs, ys = (np.array([dot[axis] for dot in dots], float) for axis in (0, 1))
    low, high = np.log10(xs.min()) - 0.08, np.log10(xs.max()) + 0.08
    margin = 0.12 * (np.ptp(ys) or abs(ys[0]) or 1.0)
    bottom_value, top_value = ys.min() - margin, ys.max() + margin
    across = left + (np.log10(xs) - low) / (high - low) * (width - left - 12)
    up = height - bottom - (ys - bottom_value) / (top_value - bottom_value) * (height - bottom - top)
    parts = [f'<line class="axis" x1="{left}" x2="{width - 6}" y1="{height - bottom}" y2="{height - bottom}"/>']
    for tick in _ticks(bottom_value, top_value, 4):
        y = height - bottom - (tick - bottom_value) / (top_value - bottom_value) * (height - bottom - top)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 6}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="count" x="{left - 6}" y="{y + 3.5:.1f}">{_label(tick)}</text>')
    for tick in (f * 10.0**power for power in range(-3, 6) for f in (1, 2, 5)):
        if low <= np.log10(tick) <= high:
            x = left + (np.log10(tick) - low) / (high - low) * (width - left - 12)
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - bottom + 13}">{_label(tick)}</text>')
    parts.append(f'<text class="unit" x="{width - 6}" y="{height - 3}">{escape(unit)}</text>')
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    parts.append(f'<polyline class="joined accent" points="{joined}"/>')
    for x, y, (_, _, label) in zip(across, up, dots, strict=True):
        parts.append(f'<circle class="accent" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y - 8:.1f}">{escape(label)}</text>')
    return _svg(parts, width, height, description)


PANELS_WIDTH, PANEL_LEFT, PANEL_RIGHT = 860, 58, 844
LETTER = 6.2  # pixels across, about
PANEL_TITLE, PANEL_HEIGHT, PANEL_GAP = 30, 142, 8  # pixels


def axis_of_numbers(values: Sequence[float], unit: str) -> Axis:
    """From the least to the most, with ticks at the values themselves where their labels have room."""
    different = sorted(set(values))
    room = 0.06 * (different[-1] - different[0]) or 1.0
    low, high = different[0] - room, different[-1] + room
    labels = [_label(value) for value in different]
    each = LETTER * (2 + max(map(len, labels))) * (high - low) / (PANEL_RIGHT - PANEL_LEFT)
    crowded = any(after - before < each for before, after in pairwise(different))
    at = _ticks(low, high, 8) if crowded else different
    return Axis(low, high, [(value, _label(value)) for value in at], unit)


def axis_of_names(names: Sequence[str], unit: str) -> Axis:
    """A place for each name, at 0, 1, 2 ...; what all of them begin with, up to a slash or else a dot, is told once."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    whole = "".join(letters[0] for letters in alike)
    start = (whole.rfind("/") if "/" in whole else whole.rfind(".")) + 1
    most = int((PANEL_RIGHT - PANEL_LEFT) / len(names) / LETTER) - 1
    short = [name[start:] if len(name) - start <= most else "…" + name[1 - most :] for name in names]
    return Axis(-0.5, len(names) - 0.5, list(enumerate(short)), f"{unit}: {whole[:start]}…" if start else unit)


def panels(axis: Axis, rows: Sequence[Panel], legend: Sequence[tuple[str, str]], description: str) -> Markup:
    """Charts below each other that share an x axis: dots with their intervals, and in words what was not measured.

    Args:
        rows: From top to bottom.
        legend: (label, class) of what has a colour.
        description: For those who cannot see it.
    """
    scale = (PANEL_RIGHT - PANEL_LEFT) / (axis.high - axis.low)
    ticks = [(PANEL_LEFT + (place - axis.low) * scale, label) for place, label in axis.ticks]
    tall = PANEL_TITLE + PANEL_HEIGHT + PANEL_GAP
    bottom = len(rows) * tall
    parts = []
    for number, panel in enumerate(rows):
        top = number * tall + PANEL_TITLE
        parts += [_grid(x, x, top, top + PANEL_HEIGHT) for x, _ in ticks]
        parts += _panel(panel, top, lambda place: PANEL_LEFT + (place - axis.low) * scale)
    parts += [f'<text class="tick" x="{x:.1f}" y="{bottom + 8}">{escape(label)}</text>' for x, label in ticks]
    parts.append(f'<text class="unit" x="{PANEL_RIGHT}" y="{bottom + 28}">{escape(axis.unit)}</text>')
    for number, (label, style) in enumerate(legend):
        at = PANEL_LEFT + 5 + 110 * number
        parts.append(f'<circle class="{style}" cx="{at}" cy="{bottom + 24}" r="5"/>')
        parts.append(f'<text x="{at + 11}" y="{bottom + 28}">{escape(label)}</text>')
    return _svg(parts, PANELS_WIDTH, bottom + 34, description)


def _panel(panel: Panel, top: float, x: Callable[[float], float]) -> list[str]:
    """Title, y axis, lines and marks of one panel, whose frame begins so many pixels from the top."""
    floor, ranges = top + PANEL_HEIGHT, [each for mark in panel.marks for each in mark.ranges]
    low, high = _ends(ranges)

    def y(value: float) -> float:
        return floor - (value - low) / (high - low) * PANEL_HEIGHT

    parts = [f'<text class="title" x="{PANEL_LEFT}" y="{top - 10}">{escape(panel.title)}</text>']
    for tick in _ticks(low, high, 4) if ranges else []:
        parts.append(_grid(PANEL_LEFT, PANEL_RIGHT, y(tick), y(tick)))
        parts.append(f'<text class="count" x="{PANEL_LEFT - 6}" y="{y(tick) + 3.5:.1f}">{_label(tick)}</text>')
    parts.append(f'<line class="axis" x1="{PANEL_LEFT}" x2="{PANEL_RIGHT}" y1="{floor}" y2="{floor}"/>')
    styles = list(dict.fromkeys(each.style for each in ranges))
    aside = {style: 10 * (place - (len(styles) - 1) / 2) for place, style in enumerate(styles)}  # none hides another
    dots = [(mark, [(x(mark.place) + aside[each.style], each) for each in mark.ranges]) for mark in panel.marks]
    if panel.joined:
        parts += [_joined([dot for _, own in dots for dot in own], style, y) for style in styles]
    for mark, own in dots:
        drawn = "".join(_dot(at, each, y) for at, each in own) or _absent(x(mark.place), floor)
        parts.append(f'<g class="mark"><title>{escape(_told(mark))}</title>{drawn}</g>')
    return parts


def _ends(shown: Sequence[Range]) -> tuple[float, float]:
    """Of an axis: what is shown on it, and some room."""
    low, high = min((each.low for each in shown), default=0.0), max((each.high for each in shown), default=1.0)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _grid(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _joined(dots: Sequence[tuple[float, Range]], style: str, y: Callable[[float], float]) -> str:
    """A line through the dots of one class, from left to right."""
    along = sorted(((x, y(each.at)) for x, each in dots if each.style == style), key=lambda point: point[0])
    return f'<polyline class="joined {style}" points="{" ".join(f"{x:.1f},{at:.1f}" for x, at in along)}"/>'


def _dot(x: float, said: Range, y: Callable[[float], float]) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{y(said.low):.1f}" y2="{y(said.high):.1f}"'
    whisker = f'<line class="whisker {said.style}" {ends}/>' if said.low < said.high else ""
    return f'{whisker}<circle class="{said.style}" cx="{x:.1f}" cy="{y(said.at):.1f}" r="4"/>'


def _absent(x: float, floor: float) -> str:
    """Upright, so that neighbours do not write over each other."""
    return f'<text transform="translate({x + 4:.1f} {floor - 8:.1f}) rotate(-90)">not measured</text>'


def _told(mark: Mark) -> str:
    """A mark in words, which a browser shows under the pointer."""
    intervals = [f" [{each.low:.4g}, {each.high:.4g}]" if each.low < each.high else "" for each in mark.ranges]
    told = [f"{each.at:.4g}{interval}" for each, interval in zip(mark.ranges, intervals, strict=True)]
    return f"{mark.name}: {'; '.join(told).replace('-', '−') or 'not measured'}"


def standalone(chart: Markup, css: str) -> str:
    """A chart as a file of its own, on paper, with what the style sheet says of charts.

    Its colours are the light ones, written out: not every program that draws SVG knows CSS variables.
    """
    colours = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]+)", css.partition("}")[0]))
    rules = "\n".join(line for line in css.splitlines() if re.match(r"svg [^{]", line))
    rules = re.sub(r"var\((--[a-z-]+)\)", lambda name: colours[name[1]], rules)
    head, _, rest = str(chart).partition(">")  # no Markup, which would escape what is put in
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', head)[0]
    paper = f'<rect width="{width}" height="{height}" fill="{colours["--card"]}"/>'
    head = head.replace("<svg", f'<svg xmlns="{SVG}" width="{width}" height="{height}" font-family="sans-serif"', 1)
    return f"{head}><style>\n{rules}\n</style>{paper}{rest}\n"


def _frame(
    low: float, high: float, unit: str, width: int, height: int, left: int, bottom: int, peak: float | None, top: int
) -> list[str]:
    floor, right = height - bottom, width - 6
    parts = []
    if peak is not None:
        for tick in _ticks(0.0, peak, 3)[1:]:
            y = floor - tick / peak * (floor - top)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="count" x="{left - 5}" y="{y + 3.5:.1f}">{_label(tick)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    for tick in _ticks(low, high):
        x = left + (tick - low) / (high - low) * (right - left)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 13}">{_label(tick)}</text>')
    parts.append(f'<text class="unit" x="{right}" y="{height - 3}">{escape(unit)}</text>')
    return parts


def _svg(parts: Sequence[str], width: int, height: int, description: str) -> Markup:
    label = escape(description)
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')
