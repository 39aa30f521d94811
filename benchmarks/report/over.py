"""Runs side by side over a config key in which they differ, as a picture: on a page, or a file of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmarks.report import charts
from benchmarks.report.charts import Mark, Panel, Range
from benchmarks.report.compare import Swept, compare, protocols_of, read_all
from benchmarks.report.facts import Missing, Scores
from benchmarks.report.page import environment
from benchmarks.seeds import mean_over_protocols
from recognition.files import whole_file

LEGEND = (("dataset", "accent"), ("control", "control"))


def write_over(out: str | os.PathLike[str], runs: Mapping[str, str | os.PathLike[str]], over: Swept) -> None:
    """Writes the runs of a sweep as a picture.

    Args:
        out: A page that loads nothing where it ends in .html, the picture alone in .svg; replaced at once when whole.
        runs: Name and `scores.json` of each run. What a run has not measured is said where it would stand.
        over: What they differ in, for the same runs.
    Raises:
        ValueError: If `out` ends otherwise, or no run has scores, or a file is not in the form of `scores.json`.
        OSError: If the file cannot be written.
    """
    path = Path(out)
    if path.suffix not in (".html", ".svg"):
        raise ValueError(f"page: expected a file that ends in .html or .svg, got {path}")
    read = read_all(runs)
    if all(isinstance(said, Missing) for said in read.values()):
        raise ValueError(f"expected scores.json, which the step verify writes, in some of {len(read)} runs, found none")
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    chart = picture(read, over)
    told = charts.standalone(chart, css) if path.suffix == ".svg" else _page(runs, read, over, chart, css)
    with whole_file(path) as file:
        file.write(told.encode())


def _page(
    runs: Mapping[str, str | os.PathLike[str]],
    read: Mapping[str, Scores | Missing],
    over: Swept,
    chart: Markup,
    css: str,
) -> str:
    page = environment(autoescape=True).get_template("over.html.jinja")
    absent = [name for name, said in read.items() if isinstance(said, Missing)]
    return page.render(over=over, table=compare(runs, over), absent=absent, chart=chart, css=Markup(css))


def picture(read: Mapping[str, Scores | Missing], over: Swept) -> Markup:
    """Accuracy, how alike photographs of one person are, and how unlike those of two, over the values of the key."""
    names = list(dict.fromkeys(over.told(run) for run in read))
    places = {run: over.values[run] if over.numeric else names.index(over.told(run)) for run in read}
    axis = (
        charts.axis_of_numbers(list(places.values()), over.key)
        if over.numeric
        else charts.axis_of_names(names, over.key)
    )
    protocols = protocols_of(read)

    def panel(title: str, ranges: Mapping[str, list[Range]]) -> Panel:
        return Panel(title, [Mark(run, places[run], ranges[run]) for run in read], over.numeric)

    rows = [
        panel(
            f"Mean accuracy over {len(protocols)} protocols, %; of several trainings with 95 % over seeds and pairs",
            {run: _accuracies(said, protocols) for run, said in read.items()},
        ),
        panel(
            f"Cosine of two photographs of one person{_witnesses(read)}; mean ± standard deviation over pairs",
            {run: _cosines(said, "genuine") for run, said in read.items()},
        ),
        panel(
            f"1 − cosine of photographs of two people{_witnesses(read)}; mean ± standard deviation over pairs",
            {run: [_turned(each) for each in _cosines(said, "impostor")] for run, said in read.items()},
        ),
    ]
    drawn = {each.style for row in rows for mark in row.marks for each in mark.ranges}
    legend = [(label, style) for label, style in LEGEND if style in drawn]
    return charts.panels(
        axis, rows, legend, f"{len(read)} runs over {over.key}: " + "; ".join(row.title for row in rows)
    )


def _accuracies(said: Scores | Missing, protocols: Sequence[str]) -> list[Range]:
    """Of the dataset's recognisers and the control's, in per cent; none where other protocols were scored."""
    if isinstance(said, Missing):
        return []
    sides = [(side, style) for side, style in ((said.recogniser, "accent"), (said.control, "control")) if side]
    return [_accuracy(side, style) for side, style in sides if side["protocols"].keys() == set(protocols)]


def _accuracy(side: Mapping[str, Any], style: str) -> Range:
    """One training has no interval: what another seed would do is not known."""
    seeds = [one["protocols"] for one in side.get("seeds", [])]
    if len(seeds) > 1:
        whole = mean_over_protocols(seeds)
        return Range(100 * whole.mean, 100 * whole.low, 100 * whole.high, style)
    at = 100 * float(np.mean([each["accuracy"] for each in side["protocols"].values()]))
    return Range(at, at, at, style)


def _cosines(said: Scores | Missing, kind: str) -> list[Range]:
    """Mean and standard deviation of the witness's cosines of one kind of pairs."""
    witness = {} if isinstance(said, Missing) else said.witness or {}
    mean, std = witness.get(f"{kind}_mean"), witness.get(f"{kind}_std")
    return [] if mean is None or std is None else [Range(mean, mean - std, mean + std, "accent")]


def _turned(cosine: Range) -> Range:
    """A cosine as a distance."""
    return Range(1 - cosine.at, 1 - cosine.high, 1 - cosine.low, cosine.style)


def _witnesses(read: Mapping[str, Scores | Missing]) -> str:
    """Whose cosines they are: those of different spaces do not compare."""
    spaces = {said.witness["space"] for said in read.values() if isinstance(said, Scores) and said.witness}
    return f", by {spaces.pop()}" if len(spaces) == 1 else ", by witnesses that DO NOT COMPARE" if spaces else ""
