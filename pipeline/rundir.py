"""RunDir: the names of the files of a run, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run directory. Listing it shows how far the run is.

    Args:
        root: The directory itself.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The config that the run was last continued with, and beside it the words that made it."""
        return self.root / ".hydra" / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.root / ".hydra" / "overrides.yaml"

    @property
    def enrolled(self) -> Path:
        """Candidates' references, a part per chunk of portraits."""
        return self.root / "enrolled"

    @property
    def identities(self) -> Path:
        return self.root / "identities.parquet"

    @property
    def plan(self) -> Path:
        return self.root / "plan.parquet"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def ledger(self) -> Path:
        """Parts, one per finished shard."""
        return self.root / "ledger"

    @property
    def crops(self) -> Path:
        """The shards' pictures, decoded once for training; may be deleted."""
        return self.root / "crops"

    @property
    def progress(self) -> Path:
        return self.root / "progress.jsonl"

    @property
    def control(self) -> RunDir:
        """The renders of other people that the dataset is compared with: a run inside the run."""
        return RunDir(self.root / "control")

    @property
    def protocols(self) -> Path:
        return self.root / "protocols"

    def model(self, number: int = 0) -> Path:
        """Of the recognisers that were trained with a seed each, numbered from 0."""
        return self.root / (f"model_{number}" if number else "model")

    @property
    def scores(self) -> Path:
        return self.root / "scores.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def card(self) -> Path:
        return self.root / "DATASET_CARD.md"
