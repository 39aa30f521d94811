"""Many runs, one table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.report import facts
from benchmarks.report.facts import Missing, Scores

NOT_RUN = "not run"
ONE_SEED = "one seed"


@dataclass(frozen=True, slots=True)
class Swept:
    """A config key and what it is in each of several runs.

    Attributes:
        key: As Hydra's words name it: `sampler._target_`.
        values: By run, in their order: numbers, words, truth values, None, or lists of these.
    Raises:
        ValueError: If it is the same in all of them.
    """

    key: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len({self.told(run) for run in self.values}) < 2:
            one = "".join({self.told(run) for run in self.values})
            raise ValueError(f"over: expected runs that differ in {self.key}, got {one} in all of them")

    @property
    def numeric(self) -> bool:
        """Whether it is a finite number in every run."""
        return all(type(value) in (int, float) and math.isfinite(value) for value in self.values.values())

    def told(self, run: str) -> str:
        value = self.values[run]
        return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of several runs: accuracies in per cent, gaps in points."""

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        def line(cells: list[str]) -> str:
            return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join(["---"] + ["---:"] * (len(self.header) - 1)) + "|"
        return "\n".join([line(self.header), rule, *map(line, self.rows)]) + "\n"

    def table(self) -> Table:
        table = Table()
        for place, title in enumerate(self.header):
            table.add_column(title, justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def compare(runs: Mapping[str, str | os.PathLike[str]], over: Swept | None = None) -> Comparison:
    """Sets runs side by side, in the order given.

    Args:
        runs: Name and `scores.json` of each run. A run without one stands in the table as not run.
        over: What they differ in: the column after their names.
    Raises:
        ValueError: If there is no run, or a file is not in the form of `scores.json`.
    """
    if not runs:
        raise ValueError("expected runs to compare, got none")
    read = read_all(runs)
    protocols = protocols_of(read)
    header = [
        "run",
        *([over.key] if over else []),
        "photographs",
        "people",
        *protocols,
        "mean",
        "gap to control",
        "95 % over seeds and pairs",
        "witness AUC",
    ]
    rows = [[name, *([over.told(name)] if over else []), *_cells(said, protocols)] for name, said in read.items()]
    return Comparison(header, rows)


def read_all(runs: Mapping[str, str | os.PathLike[str]]) -> dict[str, Scores | Missing]:
    return {name: facts.read_scores(Path(path)) for name, path in runs.items()}


def protocols_of(read: Mapping[str, Scores | Missing]) -> list[str]:
    """Those that any run was scored on; a mean over fewer is another figure."""
    return list(dict.fromkeys(row.name for said in read.values() if isinstance(said, Scores) for row in said.rows))


def _cells(said: Scores | Missing, protocols: list[str]) -> list[str]:
    if isinstance(said, Missing):
        return [NOT_RUN] * (len(protocols) + 6)
    ours = said.recogniser or {}
    accuracy = {row.name: f"{100 * row.ours['accuracy']:.2f}" for row in said.rows}
    complete = set(protocols) <= accuracy.keys()  # a mean over other protocols is another figure
    return [
        *(f"{ours[count]:,}" if count in ours else NOT_RUN for count in ("images", "identities")),
        *(accuracy.get(name, NOT_RUN) for name in protocols),
        f"{100 * said.mean:.2f}" if complete and said.mean is not None else NOT_RUN,
        f"{said.mean_gap:+.2f}" if complete and said.mean_gap is not None else NOT_RUN,
        _interval(said) if complete and said.mean_gap is not None else NOT_RUN,
        f"{said.witness['auc_own_vs_other']:.4f}" if said.witness else NOT_RUN,
    ]


def _interval(said: Scores) -> str:
    """Of the gap, in points, and what it tells."""
    if said.verdict is None:
        return ONE_SEED
    low, high = (100 * end for end in said.verdict["interval95"])
    side = "above" if low > 0 else "below" if high < 0 else "not distinguishable"
    return f"{low:+.2f} to {high:+.2f}, {said.verdict['seeds']} seeds: {side}"
