"""Make: carries the chunks of the plan down the belt: shards/, ledger/ and progress.jsonl."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.runners import Done, Runner
from pipeline.steps.files import digest, expect
from pipeline.steps.order import Lazy, Order
from pipeline.steps.plan import Plan
from stages.ledger import finished_chunks, part_path, read_part_metadata
from stages.pack import Pack


def make(run: RunDir, order: Order, runner: Runner, label: str = "make") -> None:
    """Carries down the belt every chunk of the plan that has no ledger part, and notes each in progress.jsonl."""
    expect(run.plan, "plan")
    planned = Plan(run.identities, run.plan)
    finished = vouched(run)
    missing = [index for index in range(planned.chunks) if index not in finished]
    for leftover in (*run.shards.glob("*.part"), *run.ledger.glob("*.part")):  # of a run that was killed
        leftover.unlink()
    if not missing:
        say(f"{label}: all {planned.chunks} chunks are there")
        return
    if finished:
        say(f"{label}: {len(finished)} of {planned.chunks} chunks are there, {len(missing)} are missing")
    pack = partial(Pack, str(run.shards), str(run.ledger), order.made_from, order.jpeg_quality)
    stations: dict[str, Lazy] = {
        "generate": order.generator,
        "embed": order.embedder,
        "judge": order.judge,
        "pack": pack,
    }
    with Watch(label, sum(map(planned.pictures, missing)), "pictures") as watch:
        for done in runner.run(map(planned.chunk, missing), stations):
            _note(run.progress, done)
            watch.advance(done.result["rows"])


def vouched(run: RunDir) -> set[int]:
    """Chunks whose ledger part is there, and the shard that it vouches for."""
    finished = finished_chunks(run.ledger)
    return {chunk for chunk in finished if (run.shards / f"{chunk:06d}.tar").exists()}


def _note(path: Path, done: Done) -> None:
    line = {
        **done.result,
        "seconds": {station: round(seconds, 4) for station, seconds in done.seconds.items()},
        "worker": done.worker,
        "attempt": done.attempt,
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    torn = path.exists() and not path.read_bytes().endswith(b"\n")  # a driver that was killed while it wrote
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(line) + "\n")


def shards_digest(run: RunDir) -> str:
    """Fingerprint of all shards, by what their ledger parts say of them."""
    chunks = sorted(finished_chunks(run.ledger))
    return digest(*(read_part_metadata(part_path(run.ledger, chunk))["tar_sha256"] for chunk in chunks))


def expect_made(run: RunDir) -> None:
    """Raises ValueError unless every chunk of the plan is made, naming those that are missing."""
    expect(run.plan, "plan")
    missing = set(range(Plan(run.identities, run.plan).chunks)) - vouched(run)
    if missing:
        first = ", ".join(map(str, sorted(missing)[:5]))
        raise ValueError(
            f"expected all chunks of {run.root}, {len(missing)} are missing ({first}{', ...' * (len(missing) > 5)})"
        )
