"""Sample: draws candidates, enrols them, keeps those unlike everyone kept before: identities.parquet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.runners import Runner
from pipeline.steps.files import metadata, write_table
from pipeline.steps.order import Lazy, Order, Portraits
from pipeline.steps.seeds import stream
from stages.records import Chunk, Identity, Variation
from stages.sample.enrol import Enrol
from stages.sample.select import unlike_everyone_kept


def sample(run: RunDir, order: Order, runner: Runner, label: str = "sample") -> None:
    """Draws candidates, enrols them by portraits, and keeps those unlike everyone kept before: identities.parquet.

    What the people are, in the sampler's words, is said here and kept there.

    Raises:
        ValueError: If fewer people than wanted are unlike each other.
    """
    before = metadata(run.identities)
    if before.get("made_from") == order.made_from:
        say(f"{label}: people are there, {before.get('source', 'their source is not recorded')}")
        return
    sampler = order.sampler()
    count = order.people if order.portraits is None else math.ceil(order.people * order.portraits.over_plan)
    candidates = sampler(count, np.random.default_rng(stream(order.seed, "people")))
    say(f"{label}: {sampler.source}")
    if order.portraits is None:
        references: dict[int, Float32[np.ndarray, " d"]] = {i: _unit(vector) for i, vector in enumerate(candidates)}
        kept = list(references)
    else:
        references = _enrol(run, order, order.portraits, candidates, runner)
        kept = _select(references, order.people, order.portraits.max_cosine)
        say(f"sample: {len(kept)} people kept of {count} drawn, {len(references)} of them enrolled")
        if len(kept) < order.people:
            raise ValueError(
                f"expected {order.people} people no closer than enrol.max_cosine={order.portraits.max_cosine}, got "
                f"{len(kept)} from {count} candidates; raise enrol.over_plan or enrol.max_cosine, or lower people"
            )
    _write_identities(run, order, sampler.source, candidates, references, kept)


def _enrol(
    run: RunDir, order: Order, portraits: Portraits, candidates: Float32[np.ndarray, "n c"], runner: Runner
) -> dict[int, Float32[np.ndarray, " d"]]:
    """References of the candidates whose portraits show a face, in candidate order."""
    planner = portraits.planner()
    per_chunk = max(1, order.chunk_people * order.planner().images_per_identity // planner.images_per_identity)
    blocks = [range(start, min(start + per_chunk, len(candidates))) for start in range(0, len(candidates), per_chunk)]
    missing = [i for i in range(len(blocks)) if metadata(_enrolled(run, i)).get("made_from") != order.made_from]
    stations: dict[str, Lazy] = {
        "generate": order.generator,
        "embed": order.embedder,
        "enrol": partial(Enrol, portraits.min_found),
    }
    seed = stream(order.seed, "portraits")
    chunks = (_portrait_chunk(i, blocks[i], candidates, planner, seed) for i in missing)
    if missing:
        total = sum(len(blocks[i]) for i in missing) * planner.images_per_identity
        with Watch("sample", total, "portraits") as watch:
            for done in runner.run(chunks, stations):
                _write_enrolled(_enrolled(run, done.index), done.result, order.made_from)
                watch.advance(len(blocks[done.index]) * planner.images_per_identity)
    tables = [pq.read_table(_enrolled(run, i)) for i in range(len(blocks))]
    rows = [(row["candidate"], row["reference"]) for table in tables for row in table.to_pylist()]
    return {candidate: np.array(reference, np.float32) for candidate, reference in rows if reference is not None}


def _enrolled(run: RunDir, chunk: int) -> Path:
    return run.enrolled / f"{chunk:06d}.parquet"


def _portrait_chunk(
    index: int, block: range, candidates: Float32[np.ndarray, "n c"], planner: Callable[..., list[Variation]], seed: int
) -> Chunk:
    unknown = np.zeros(0, np.float32)  # nobody has a reference before enrolment
    people = tuple(Identity(i, candidates[i], unknown) for i in block)
    return Chunk(index, people, tuple(row for i in block for row in planner(i, seed)))


def _write_enrolled(path: Path, result: Sequence[tuple[int, Any]], made_from: str) -> None:
    candidates, references = zip(*result, strict=True)
    columns = {"candidate": pa.array(candidates, pa.int64()), "reference": pa.array(references, pa.list_(pa.float32()))}
    write_table(path, pa.table(columns), {"made_from": made_from})


def _select(references: Mapping[int, Float32[np.ndarray, " d"]], wanted: int, max_cosine: float) -> list[int]:
    """Candidates kept, in candidate order, until there are as many as wanted."""
    if not references:
        return []
    rows = unlike_everyone_kept(np.stack(list(references.values())), max_cosine, wanted)
    candidates = list(references)
    return [candidates[row] for row in rows]


def _write_identities(
    run: RunDir,
    order: Order,
    source: str,
    candidates: Float32[np.ndarray, "n c"],
    references: Mapping[int, Float32[np.ndarray, " d"]],
    kept: Sequence[int],
) -> None:
    table = np.stack([references[candidate] for candidate in kept])
    nearest = _nearest_before(table)
    columns = {
        "id": pa.array(range(len(kept)), pa.int64()),
        "candidate": pa.array(kept, pa.int64()),
        "vector": pa.array([candidates[candidate] for candidate in kept], pa.list_(pa.float32())),
        "reference": pa.array(list(table), pa.list_(pa.float32())),
        "nearest_cosine": pa.array(nearest, pa.float32()),
    }
    about = {
        "made_from": order.made_from,
        "source": source,
        "space": order.space,
        "reference_space": order.reference_space,
        "candidates": str(len(candidates)),
        "retired": str(len(candidates) - len(kept)),
    }
    write_table(run.identities, pa.table(columns), about, rows_per_group=order.chunk_people)


def _nearest_before(references: Float32[np.ndarray, "n d"]) -> list[float | None]:
    """Of each person, the largest cosine to anyone kept before; None for the first."""
    nearest: list[float | None] = [None]
    for i in range(1, len(references)):
        nearest.append(float((references[:i] @ references[i]).max()))
    return nearest[: len(references)]


def _unit(vector: Float32[np.ndarray, " c"]) -> Float32[np.ndarray, " c"]:
    return (vector / np.linalg.norm(vector)).astype(np.float32)
