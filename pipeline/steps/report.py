"""Report: tells the run on a page, and the dataset on its card: report.html, DATASET_CARD.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.progress import say
from pipeline.rundir import RunDir
from pipeline.steps.files import expect
from stages.ledger import read_ledger


def report(run: RunDir, name: str, licence: str, weights: Path | None) -> None:
    """One page on the run, report.html, and the dataset's card. What is not made yet is said where it would stand.

    Args:
        name: Of the run.
        licence: Of the pictures, as the generator states it.
        weights: `weights.json` of the measuring models.
    """
    from benchmarks.report import write_card, write_report

    expect(run.plan, "plan")
    told: dict[str, Any] = {
        "name": name,
        "ledger": run.ledger,
        "scores": run.scores,
        "config": run.config,
        "identities": run.identities,
    }
    write_report(run.report, **told, shards=run.shards, progress=run.progress, plan=run.plan, weights=weights)
    say(f"report: {_near(run.report)}")
    if read_ledger(run.ledger)["kept"].to_pylist().count(True):
        write_card(run.card, **told, licence=licence)
        say(f"report: {_near(run.card)}")
    say(f"report: {len(list(run.shards.glob('*.tar')))} shards in {_near(run.shards)}")


def _near(path: Path) -> Path:
    """As it is named from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
