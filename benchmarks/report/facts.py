"""What the files of a run say. Each function reads one of them; `Missing` stands for what a run has not made."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.verify import paired_fold_gap

SCORE_FIELDS = frozenset(
    ["protocol", "pairs", "accuracy", "accuracy_std", "folds", "interval95", "tar", "far_target", "auc", "eer"]
)
VERDICT_FIELDS = frozenset(["seeds", "gap", "interval95", "by_seed", "protocols", "said", "covers"])


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there, and why: a sentence for the page."""

    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Yield:
    """What became of the planned pictures, from the ledger.

    Attributes:
        judged: Rows of the ledger. kept: Those in the shards. people: Those with at least one picture kept.
        reasons: (reason, pictures), most first, of those not kept.
        table: The ledger itself, in plan order.
        rules: Names of the columns that rules measured.
        parts: Per chunk its shard's file name, its shard's sha256 and what it was made from.
    """

    judged: int
    kept: int
    people: int
    reasons: list[tuple[str, int]]
    table: pa.Table
    rules: list[str]
    parts: dict[int, dict[str, str]]

    @property
    def share(self) -> float:
        """Kept, of those judged, in [0, 1]."""
        return self.kept / self.judged

    @property
    def made_from(self) -> list[str]:
        """Fingerprints of what the chunks were made from: one, unless runs were mixed."""
        return sorted({said["made_from"] for said in self.parts.values()})


@dataclass(frozen=True, slots=True)
class Station:
    """Time of all workers in one station. `images_per_s` is what one worker does."""

    name: str
    seconds: float
    images_per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How long the belt took, from the progress lines.

    Attributes:
        stations: In belt order.
        workers: How many did a chunk.
        images_per_s: Of all workers together, between the first and the last finished chunk; None with fewer than two
            chunks.
        repeated: Lines about a chunk that was done again later. retried: Chunks that needed more than one attempt.
        torn: Whether the last line was cut off.
    """

    rows: int
    chunks: int
    stations: list[Station]
    workers: int
    images_per_s: float | None
    finished: str
    repeated: int
    retried: int
    torn: bool


@dataclass(frozen=True, slots=True)
class Score:
    """One protocol: what recogniser and control score (entries of `scores.json`), and the gap in points.

    The gap and its interval are over the folds where one recogniser was trained, over seeds and folds where several.
    """

    name: str
    ours: dict[str, Any]
    control: dict[str, Any] | None
    gap: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Scores:
    """All of `scores.json`. `verdict`: what several seeds say of the gap; None of one seed, or without a control."""

    rows: list[Score]
    recogniser: dict[str, Any] | None
    control: dict[str, Any] | None
    verdict: dict[str, Any] | None
    witness: dict[str, Any] | None

    @property
    def trainings(self) -> int:
        """How many recognisers were trained on the dataset, a seed each; of several, every score is the mean."""
        return len((self.recogniser or {}).get("seeds", [None]))

    @property
    def mean(self) -> float | None:
        """Mean accuracy over the protocols, in [0, 1]."""
        return float(np.mean([row.ours["accuracy"] for row in self.rows])) if self.rows else None

    @property
    def mean_gap(self) -> float | None:
        """Mean gap to the control over the protocols, in points."""
        gaps = [row.gap[0] for row in self.rows if row.gap]
        return float(np.mean(gaps)) if gaps and len(gaps) == len(self.rows) else None


def read_yield(ledger: Path) -> Yield | Missing:
    """Counts of a ledger folder.

    Raises:
        ValueError: If a part lacks a column of the ledger, or the parts were judged by different rules.
    """
    paths = sorted(ledger.glob("*.parquet")) if ledger.is_dir() else []
    if not paths:
        return Missing("no chunk has been made")
    tables = [pq.read_table(path) for path in paths]
    for path, part in zip(paths, tables, strict=True):
        lacking = {"key", "identity_id", "chunk", "reason", "kept"} - set(part.column_names)
        if lacking or part.column_names != tables[0].column_names:
            raise ValueError(
                f"{path}: expected the columns of a ledger, the same in every part, got {part.column_names}"
            )
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in tables])
    kept = table["kept"].to_numpy()
    counts = Counter(reason for reason in table["reason"].to_pylist() if reason)
    metadata = [{k.decode(): v.decode() for k, v in (part.schema.metadata or {}).items()} for part in tables]
    for path, said in zip(paths, metadata, strict=True):
        if not {"shard", "tar_sha256", "made_from"} <= said.keys():
            raise ValueError(f"{path}: expected a ledger part that names its shard and its origin, got {sorted(said)}")
    return Yield(
        judged=len(kept),
        kept=int(kept.sum()),
        people=len(np.unique(table["identity_id"].to_numpy()[kept])),
        reasons=sorted(counts.items(), key=lambda item: (-item[1], item[0])),
        table=table,
        rules=[field.name for field in table.schema if field.type == pa.float32() and field.name != "norm"],
        parts={int(path.stem): said for path, said in zip(paths, metadata, strict=True)},
    )


def read_plan(plan: Path) -> pa.Table | Missing:
    return pq.read_table(plan) if plan.is_file() else Missing("no plan has been made")


def read_people(identities: Path) -> dict[str, str] | Missing:
    """Metadata of the identity table, and `count`; `source` is what the people are, as their sampler says it."""
    if not identities.is_file():
        return Missing("nobody has been sampled")
    file = pq.ParquetFile(identities)
    said = {
        k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items() if not k.startswith(b"ARROW:")
    }
    return {"source": "not recorded", **said, "count": str(file.metadata.num_rows)}


def authentic(people: dict[str, str] | Missing) -> bool:
    """Whether the people were not sampled: their vectors are of pictures that were there before."""
    return not isinstance(people, Missing) and people["source"].startswith("authentic:")


def origin(people: dict[str, str] | Missing) -> str:
    """What draws the pictures: the "world" renders; "bundled" was trained on its renders alone; or some "other"."""
    space = "" if isinstance(people, Missing) else people.get("space", "")
    return next((kind for kind in ("world", "bundled") if space.startswith(f"{kind}-")), "other")


def read_speed(progress: Path) -> Speed | Missing:
    """Time by station. Of several lines about one chunk the last counts.

    Raises:
        ValueError: If a line other than a cut-off last one is not a progress line; names it.
    """
    lines = progress.read_text(encoding="utf-8").splitlines() if progress.is_file() else []
    chunks: dict[int, dict[str, Any]] = {}
    torn = False
    for number, line in enumerate(lines, start=1):
        try:
            said = json.loads(line)
            chunks[said["chunk"]] = {key: said[key] for key in ("rows", "seconds", "worker", "attempt", "finished")}
        except (json.JSONDecodeError, KeyError, TypeError) as fault:
            if number < len(lines):
                raise ValueError(f"{progress}: expected a progress line in line {number}, got {line[:80]!r}") from fault
            torn = True
    if not chunks:
        return Missing("no chunk has been timed")
    done = sorted(chunks.values(), key=lambda said: said["finished"])
    rows = sum(said["rows"] for said in done)
    names = list(dict.fromkeys(name for said in done for name in said["seconds"]))
    seconds = {name: float(sum(said["seconds"].get(name, 0) for said in done)) for name in names}
    total = sum(seconds.values())
    return Speed(
        rows=rows,
        chunks=len(done),
        stations=[
            Station(name, s, rows / s if s else float("inf"), s / total if total else 0.0)
            for name, s in seconds.items()
        ],
        workers=len({said["worker"] for said in done}),
        images_per_s=_rate_between(done),
        finished=done[-1]["finished"],
        repeated=len(lines) - torn - len(done),
        retried=sum(said["attempt"] > 1 for said in done),
        torn=torn,
    )


def _rate_between(done: list[dict[str, Any]]) -> float | None:
    """Pictures a second after the first chunk was finished: start-up is not in it."""
    first, last = (datetime.fromisoformat(done[end]["finished"]) for end in (0, -1))
    elapsed = (last - first).total_seconds()
    return sum(said["rows"] for said in done[1:]) / elapsed if elapsed > 0 else None


def read_scores(scores: Path) -> Scores | Missing:
    """The scores, paired with those of the control.

    Raises:
        ValueError: If the file is not JSON, or not in the form of `scores.json`.
    """
    if not scores.is_file():
        return Missing("no recogniser has been trained and verified")
    try:
        said = json.loads(scores.read_text(encoding="utf-8"))
        ours, control, verdict, witness = (said.get(key) for key in ("recogniser", "control", "verdict", "witness"))
        theirs = control["protocols"] if control is not None else {}
        entries = ours["protocols"] if ours is not None else {}
        gaps = verdict["protocols"] if verdict is not None else {}
        rows = [_score(name, entry, theirs.get(name), gaps.get(name)) for name, entry in entries.items()]
        _check_verdict(verdict)
    except (ValueError, AttributeError, KeyError, TypeError) as fault:  # ValueError: not JSON, or other folds
        raise ValueError(f"{scores}: expected the scores of a run, got something else: {fault!r}") from fault
    return Scores(rows, ours, control, verdict, witness)


def _check_verdict(verdict: dict[str, Any] | None) -> None:
    if verdict is not None and not verdict.keys() >= VERDICT_FIELDS:
        raise KeyError(f"verdict lacks {', '.join(sorted(VERDICT_FIELDS - verdict.keys()))}")


def _score(name: str, ours: dict[str, Any], control: dict[str, Any] | None, over_seeds: dict[str, Any] | None) -> Score:
    for said in (ours, control or ours):
        if not said.keys() >= SCORE_FIELDS:
            raise KeyError(f"{name} lacks {', '.join(sorted(SCORE_FIELDS - said.keys()))}")
    if control is None:
        return Score(name, ours, None, None)
    told = over_seeds and (over_seeds["gap"], *over_seeds["interval95"])
    gap, low, high = told or paired_fold_gap(np.array(ours["folds"]), np.array(control["folds"]))
    return Score(name, ours, control, (100 * gap, 100 * low, 100 * high))


def read_text(path: Path) -> str | Missing:
    return path.read_text(encoding="utf-8") if path.is_file() else Missing(f"there is no {path.name}")


def verdict(made: Yield | Missing, scores: Scores | Missing) -> str:
    """The run in a sentence."""
    if isinstance(made, Missing):
        return f"Nothing to report yet: {made.why}."
    told = f"{made.kept:,} of {made.judged:,} photographs of {made.people:,} people who do not exist were kept"
    if isinstance(scores, Missing) or scores.mean is None:
        return f"{told}; no recogniser has been trained on them and verified yet."
    told += f"; a recogniser trained on nothing else scores {100 * scores.mean:.1f} % over {len(scores.rows)} protocols"
    if scores.mean_gap is None:
        return f"{told}. The control was not run, so there is nothing to compare that with."
    if scores.verdict is not None:
        return f"{told}, the mean of {scores.verdict['seeds']} trainings; {scores.verdict['said']}."
    side = "above" if scores.mean_gap > 0 else "below"
    return f"{told}, {abs(scores.mean_gap):.1f} points {side} the same recipe on the control."
