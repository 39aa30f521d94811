"""One run, one page: a single HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.report import charts, facts
from benchmarks.report.facts import Missing
from benchmarks.report.sheet import Sheet, contact_sheet
from recognition.files import whole_file

PACKAGES = ("numpy", "torch", "onnxruntime", "insightface", "faiss-cpu", "ray", "opencv-python-headless", "pyarrow")
UNITS = {"_deg": "degrees", "_years": "years", "_px": "pixels", "_ev": "EV"}
FIRST_ATTRIBUTES = ("yaw_deg", "age_years", "pitch_deg")
BINS = 24
HALF, THIRD = 470, 320  # pixels across of a chart that stands with one or two others
FEW_VALUES = 12  # an attribute with fewer different values is counted by value


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart with its title, and a sentence under it."""

    title: str
    chart: Markup
    note: str = ""


def write_report(
    out_html: str | os.PathLike[str],
    *,
    ledger: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    progress: str | os.PathLike[str],
    scores: str | os.PathLike[str],
    config: str | os.PathLike[str],
    identities: str | os.PathLike[str],
    plan: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> None:
    """Tells a run on one page. Whatever a run has not made yet is named as missing where it would stand.

    Args:
        out_html: The page; replaced at once when it is whole.
        ledger: Folder of ledger parts. shards: Folder of tars. progress: `progress.jsonl`. scores: `scores.json`.
        config: The run's config, shown as it is. identities, plan: Parquet tables.
        weights: `weights.json` of the bundled models, {name: {file, sha256, space, ...}}.
        name: Of the run; the page's folder has it, if it is not given.
    Raises:
        ValueError: If a file is there and is not what it should be; names it.
        OSError: If a file cannot be read or written.
    """
    made = facts.read_yield(Path(ledger))
    scored = facts.read_scores(Path(scores))
    people = facts.read_people(Path(identities))
    table = facts.read_plan(Path(plan))
    page = environment(autoescape=True).get_template("page.html.jinja")
    sheet = _sheet(made, Path(shards))
    html = page.render(
        name=name or Path(out_html).resolve().parent.name,
        css=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        verdict=facts.verdict(made, scored),
        made=made,
        planned=None if isinstance(table, Missing) else table.num_rows,
        people=people,
        origin=facts.origin(people),
        authentic=facts.authentic(people),
        bundled=_bundled(people, scored),
        sheet=sheet,
        sheet_url=_data_url(sheet),
        speed=facts.read_speed(Path(progress)),
        scores=scored,
        score_chart=_score_chart(scored),
        judge=_judge_charts(made),
        unmeasured=_unmeasured(made),
        witness_chart=_witness_chart(scored),
        coverage=_coverage(made, table),
        constants=_constants(table),
        config=facts.read_text(Path(config)),
        weights=_weights(weights),
        shards=_shard_sizes(made, Path(shards)),
        versions=_versions(),
    )
    out = Path(out_html)
    with whole_file(out) as file:
        file.write(html.encode())


def environment(autoescape: bool) -> Environment:
    """Templates of this folder and their filters. A name that a template does not know is an error."""
    templates = Environment(
        loader=PackageLoader("benchmarks.report", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "whole": lambda number: f"{number:,}",
        "percent": lambda share: f"{100 * share:.1f} %",
        "points": lambda value: f"{value:+.1f}".replace("-", "−"),
        "hundred": lambda share: f"{100 * share:.2f}",
        "cosine": lambda value: f"{value:.3f}".replace("-", "−"),
        "rate": lambda value: f"{value:,.0f}" if value >= 100 else f"{value:,.3g}",
        "seconds": lambda s: f"{s:,.1f} s" if s < 120 else f"{s / 60:,.1f} min" if s < 7200 else f"{s / 3600:,.1f} h",
        "megabytes": lambda size: f"{size / 1e6:,.1f} MB",
    }
    templates.tests["missing"] = lambda value: isinstance(value, Missing)
    return templates


def _bundled(people: dict[str, str] | Missing, scores: facts.Scores | Missing) -> bool:
    """Whether judge and witness are networks of this project, which have seen nothing but renders."""
    witness = None if isinstance(scores, Missing) else scores.witness
    judge = "" if isinstance(people, Missing) else people.get("reference_space", "")
    return judge.startswith("bundled-") and witness is not None and witness["space"].startswith("bundled-")


def _sheet(made: facts.Yield | Missing, shards: Path) -> Sheet | Missing:
    if isinstance(made, Missing):
        return made
    paths = {chunk: shards / said["shard"] for chunk, said in made.parts.items()}
    gone = [path.name for path in paths.values() if not path.is_file()]
    if gone:
        return Missing(f"{len(gone)} of {len(paths)} shards are not there, {gone[0]} first")
    sheet = contact_sheet(made.table, paths)
    return sheet or Missing("no photograph was kept")


def _data_url(sheet: Sheet | Missing) -> str:
    return "" if isinstance(sheet, Missing) else f"data:image/jpeg;base64,{base64.b64encode(sheet.jpeg).decode()}"


def _score_chart(scores: facts.Scores | Missing) -> Markup | None:
    if isinstance(scores, Missing) or not scores.rows:
        return None
    rows = []
    for row in scores.rows:
        sides = [(row.ours, "accent"), *([(row.control, "control")] if row.control else [])]
        rows.append((row.name, [_range(said, style) for said, style in sides]))
    lowest = min(r.low for _, ranges in rows for r in ranges)
    return charts.intervals(rows, low=max(0.0, 5 * np.floor(lowest / 5)), high=100.0, unit="accuracy, %")


def _range(said: Mapping[str, Any], style: str) -> charts.Range:
    low, high = said["interval95"]
    return charts.Range(100 * said["accuracy"], 100 * low, 100 * high, style)


def _judge_charts(made: facts.Yield | Missing) -> list[Picture]:
    """What every rule measured, of the pictures kept and of those not."""
    if isinstance(made, Missing):
        return []
    kept = made.table["kept"].to_numpy()
    measured = {rule: made.table[rule].to_numpy() for rule in made.rules}
    seen = {rule: np.isfinite(values) for rule, values in measured.items()}
    return [
        Picture(rule, _kept_and_not(values[seen[rule]], kept[seen[rule]], unit="", width=HALF))
        for rule, values in measured.items()
        if seen[rule].any()
    ]


def _unmeasured(made: facts.Yield | Missing) -> list[tuple[str, int]]:
    """Rules that could not measure every picture, and how many they could not: no face was found in those."""
    if isinstance(made, Missing):
        return []
    counts = ((rule, int(np.isnan(made.table[rule].to_numpy()).sum())) for rule in made.rules)
    return [(rule, count) for rule, count in counts if count]


def _kept_and_not(values: np.ndarray, kept: np.ndarray, unit: str, width: int) -> Markup:
    different = np.unique(values)
    if len(different) < FEW_VALUES and np.allclose(different, different.round()):  # a count or a class: a bar per value
        low, high = different[0] - 0.5, different[-1] + 0.5
        edges = np.arange(low, high + 1)
    else:
        low, high = float(values.min()), float(values.max())
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, BINS + 1)
    kinds = (("kept", kept, "accent"), ("rejected", ~kept, "rejected"))
    series = [
        charts.Series(label, np.histogram(values[mask], edges)[0].tolist(), style) for label, mask, style in kinds
    ]
    return charts.stacked_histogram(series, float(low), float(high), unit, width)


def _witness_chart(scores: facts.Scores | Missing) -> Markup | None:
    histogram = None if isinstance(scores, Missing) or not scores.witness else scores.witness.get("histogram")
    if not histogram:
        return None
    counts = {kind: np.array(histogram[kind], np.int64) for kind in ("genuine", "impostor")}
    edges = np.linspace(histogram["low"], histogram["high"], len(counts["genuine"]) + 1)
    seen = np.flatnonzero(counts["genuine"] + counts["impostor"])
    first, last = seen[0], seen[-1]
    series = [
        charts.Series("two people", counts["impostor"][first : last + 1].tolist(), "control"),
        charts.Series("one person", counts["genuine"][first : last + 1].tolist(), "accent"),
    ]
    return charts.densities(series, float(edges[first]), float(edges[last + 1]), "cosine")


def _attributes(plan: pa.Table) -> list[str]:
    names = [field.name for field in plan.schema if pa.types.is_floating(field.type)]
    return sorted(names, key=lambda name: FIRST_ATTRIBUTES.index(name) if name in FIRST_ATTRIBUTES else len(names))


def _coverage(made: facts.Yield | Missing, plan: pa.Table | Missing) -> list[Picture]:
    """How the photographs are spread over every attribute that varies, and which of them were kept."""
    if isinstance(made, Missing) or isinstance(plan, Missing):
        return []
    kept_keys = set(made.table.filter(made.table["kept"])["key"].to_pylist())
    judged = set(made.table["key"].to_pylist())
    keys = plan["key"].to_pylist()
    done = np.array([key in judged for key in keys])
    kept = np.array([key in kept_keys for key in keys])[done]
    pictures = []
    for name in _attributes(plan):
        values = plan[name].to_numpy()[done]
        if len(values) and values.min() < values.max():
            title, unit = _title(name)
            pictures.append(Picture(title, _kept_and_not(values, kept, unit, THIRD), _bite(values, kept)))
    return pictures


def _bite(values: np.ndarray, kept: np.ndarray) -> str:
    """How much of the outer fifths and of the middle was kept: whether the judge narrows the range."""
    if len(np.unique(values)) < FEW_VALUES:
        return ""
    low, high = np.quantile(values, [0.2, 0.8])
    parts = (("low", values <= low), ("middle", (values > low) & (values < high)), ("high", values >= high))
    return "kept " + " · ".join(f"{100 * kept[mask].mean():.0f} % {label}" for label, mask in parts if mask.any())


def _constants(plan: pa.Table | Missing) -> list[tuple[str, float]]:
    if isinstance(plan, Missing) or not plan.num_rows:
        return []
    columns = {name: plan[name].to_numpy() for name in _attributes(plan)}
    return [(name, float(values[0])) for name, values in columns.items() if values.min() == values.max()]


def _title(attribute: str) -> tuple[str, str]:
    """`yaw_deg` -> ("yaw", "degrees")."""
    suffix = next((suffix for suffix in UNITS if attribute.endswith(suffix)), "")
    return attribute.removesuffix(suffix).replace("_", " "), UNITS.get(suffix, "")


def _weights(path: str | os.PathLike[str] | None) -> Mapping[str, Mapping[str, Any]] | Missing:
    if path is None or not Path(path).is_file():
        return Missing("no list of weights was given")
    said: Mapping[str, Mapping[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    return said


def _shard_sizes(made: facts.Yield | Missing, shards: Path) -> list[tuple[str, int, str]]:
    """Name, bytes and sha256 of each shard; the hash is the ledger's."""
    if isinstance(made, Missing):
        return []
    rows = ((said["shard"], said["tar_sha256"]) for said in made.parts.values())
    return [(name, (shards / name).stat().st_size, digest) for name, digest in rows if (shards / name).is_file()]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
