"""A generator told on one page, in a table on the terminal, and in Markdown; and its sheets of pictures."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image, ImageDraw
from rich.table import Table

from benchmarks.generators import Bar, bars
from benchmarks.report import charts
from benchmarks.report.page import environment
from recognition.files import whole_file

GAP_PX, TITLE_PX = 4, 14
PAPER, INK = (244, 242, 236), (40, 38, 34)
MARKS = {True: "pass", False: "FAIL", None: "not measured"}


def sheet(pictures: UInt8[np.ndarray, "r c h w 3"], titles: Sequence[str] | None = None) -> bytes:
    """Pictures in lines and columns, as a PNG; titles above the columns.

    Raises:
        ValueError: If there is not one title per column.
    """
    lines, columns, height, width, _ = pictures.shape
    if titles is not None and len(titles) != columns:
        raise ValueError(f"titles: expected one for each of {columns} columns, got {len(titles)}")
    top = TITLE_PX if titles else 0
    canvas = Image.new("RGB", (columns * (width + GAP_PX) - GAP_PX, top + lines * (height + GAP_PX) - GAP_PX), PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles or ()):
        pen.text((column * (width + GAP_PX) + 2, 1), title, fill=INK)
    for line in range(lines):
        for column in range(columns):
            place = (column * (width + GAP_PX), top + line * (height + GAP_PX))
            canvas.paste(Image.fromarray(pictures[line, column]), place)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def verdict(reached: Sequence[Bar]) -> str:
    """The bars in a sentence."""
    failed = [bar.name for bar in reached if bar.passed is False]
    unmeasured = [bar.name for bar in reached if bar.passed is None]
    passed = len(reached) - len(failed) - len(unmeasured)
    told = f"{passed} of {len(reached)} bars passed"
    told += f"; failed: {', '.join(failed)}" if failed else ""
    return told + (f"; not measured: {', '.join(unmeasured)}" if unmeasured else "") + "."


def figure(value: float | None) -> str:
    """Three decimals, none where they would say nothing."""
    return "–" if value is None else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"


def bar_table(evaluation: Mapping[str, Any]) -> Table:
    """The bars, for the terminal."""
    table = Table(title=f"{evaluation['about']['name']}: {verdict(bars(evaluation))}", title_justify="left")
    for place, title in enumerate(("figure", "measured", "asked", "", "renders")):
        table.add_column(title, justify="left" if place in (0, 3) else "right")
    for bar in bars(evaluation):
        table.add_row(bar.name, figure(bar.value), bar.told, MARKS[bar.passed], figure(bar.renders))
    return table


def write_generator_page(
    out_html: str | os.PathLike[str], evaluation: Mapping[str, Any], sheets: Mapping[str, bytes]
) -> None:
    """Writes the page of an evaluation: a single file that loads nothing.

    Args:
        out_html: The page; replaced at once when it is whole.
        evaluation: As it stands in `evaluation.json`.
        sheets: PNG files, `attributes` and `beside`.
    Raises:
        OSError: If the page cannot be written.
    """
    page = environment(autoescape=True)
    page.filters["figure"] = figure
    html = page.get_template("generator.html.jinja").render(
        css=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        verdict=verdict(bars(evaluation)),
        bars=bars(evaluation),
        marks=MARKS,
        e=evaluation,
        views=_views(evaluation),
        step_charts=_step_charts(evaluation["steps"]),
        sheets={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in sheets.items()},
    )
    out = Path(out_html)
    with whole_file(out) as file:
        file.write(html.encode())


VIEWS = {
    "asked": "The person asked for, against renders of that person",
    "among": "Among generated pictures",
}


def _views(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Markup]]:
    """Title, figures and curves of each view that there is."""
    return [
        (title, evaluation["identity"][view], _curves(evaluation["identity"][view]["generated"]["histogram"]))
        for view, title in VIEWS.items()
        if evaluation["identity"][view]
    ]


def _curves(histogram: Mapping[str, Any]) -> Markup:
    counts = {kind: np.array(histogram[kind], np.int64) for kind in ("own", "other")}
    edges = np.linspace(histogram["low"], histogram["high"], len(counts["own"]) + 1)
    seen = np.flatnonzero(counts["own"] + counts["other"])
    first, last = seen[0], seen[-1]
    series = [
        charts.Series("another person", counts["other"][first : last + 1].tolist(), "control"),
        charts.Series("the own person", counts["own"][first : last + 1].tolist(), "accent"),
    ]
    return charts.densities(series, float(edges[first]), float(edges[last + 1]), "cosine")


STEP_FIGURES = {
    "auc": "AUC own versus other",
    "rank1": "rank-1",
    "yaw_median_error": "yaw: median error, degrees",
    "smile_spearman": "smile: rank correlation",
}


def _step_charts(steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Each figure against images a second, a dot per number of steps."""
    drawn = []
    for name, title in STEP_FIGURES.items():
        dots = [(said["images_per_s"], said[name], f"{said['steps']}") for said in steps if said[name] is not None]
        if len(dots) > 1:
            drawn.append((title, charts.path(dots, "images/s, logarithmic; the number at a dot is its steps", title)))
    return drawn


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as a results page: command, hardware and date on top."""
    template = environment(autoescape=False)
    template.filters["figure"] = figure
    text: str = template.get_template("generator.md.jinja").render(
        e=evaluation, bars=bars(evaluation), marks=MARKS, verdict=verdict(bars(evaluation)), views=VIEWS
    )
    return text.rstrip("\n") + "\n"
