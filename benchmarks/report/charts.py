"""Numbers as inline SVG. Colours come from the page's style sheet, by class; text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape


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
