"""Many runs, one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.report import facts
from benchmarks.report.facts import Missing, Scores

NOT_RUN = "not run"
ONE_SEED = "one seed"


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


def compare(runs: Mapping[str, str | os.PathLike[str]]) -> Comparison:
    """Sets runs side by side, in the order given.

    Args:
        runs: Name and `scores.json` of each run. A run without one stands in the table as not run.
    Raises:
        ValueError: If there is no run, or a file is not in the form of `scores.json`.
    """
    if not runs:
        raise ValueError("expected runs to compare, got none")
    read = {name: facts.read_scores(Path(path)) for name, path in runs.items()}
    protocols = list(dict.fromkeys(row.name for said in read.values() if isinstance(said, Scores) for row in said.rows))
    header = [
        "run",
        "photographs",
        "people",
        *protocols,
        "mean",
        "gap to control",
        "95 % over seeds and pairs",
        "witness AUC",
    ]
    return Comparison(header, [[name, *_cells(said, protocols)] for name, said in read.items()])


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
