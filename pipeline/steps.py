"""The steps of a run: sample, plan, make, train, verify, report.

Each reads files of the run and writes files of the run, whole or not at all, so that any of them can be done again
alone, and a run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from pipeline.progress import Watch, say
from pipeline.rundir import RunDir
from pipeline.runners import Done, Runner
from stages.ledger import finished_chunks, part_path, read_ledger, read_part_metadata
from stages.pack import Pack
from stages.records import Chunk, Identity, Variation
from stages.sample.enrol import Enrol
from stages.sample.select import unlike_everyone_kept

Lazy = Callable[[], Any]  # builds a part where it is called


@dataclass(frozen=True)
class Portraits:
    """How people are enrolled: by the embeddings of a few neutral portraits.

    Attributes:
        planner: Builds the planner of the portraits.
        min_found: Fewest portraits that must show a face.
        over_plan: Candidates drawn per person wanted, at least 1; nobody is drawn later (law 8).
        max_cosine: Largest cosine between the references of two people.
    """

    planner: Lazy
    min_found: int
    over_plan: float
    max_cosine: float


@dataclass(frozen=True)
class Order:
    """What a dataset is made from: numbers, and builders that build where they are called.

    Attributes:
        made_from: Fingerprint of everything else here.
        space: That people's vectors are in.
        reference_space: That their references are in.
        seed: Of the run, 32 bits.
        people: How many are wanted.
        chunk_people: People per chunk, and so per shard.
        jpeg_quality: Of the pictures in the shards.
        portraits: How people are enrolled. None: they are not, and a person's reference is its own vector.
    """

    made_from: str
    space: str
    reference_space: str
    seed: int
    people: int
    chunk_people: int
    jpeg_quality: int
    sampler: Lazy
    planner: Lazy
    generator: Lazy
    embedder: Lazy
    judge: Lazy
    portraits: Portraits | None


# --- sample -----------------------------------------------------------------------------------------------------------


def sample(run: RunDir, order: Order, runner: Runner) -> None:
    """Draws candidates, enrols them by portraits, and keeps those unlike everyone kept before: identities.parquet.

    Raises:
        ValueError: If fewer people than wanted are unlike each other.
    """
    if _metadata(run.identities).get("made_from") == order.made_from:
        return
    sampler = order.sampler()
    count = order.people if order.portraits is None else math.ceil(order.people * order.portraits.over_plan)
    candidates = sampler(count, np.random.default_rng(stream(order.seed, "people")))
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
    _write_identities(run, order, candidates, references, kept, retired=count - len(kept))


def _enrol(
    run: RunDir, order: Order, portraits: Portraits, candidates: Float32[np.ndarray, "n c"], runner: Runner
) -> dict[int, Float32[np.ndarray, " d"]]:
    """References of the candidates whose portraits show a face, in candidate order."""
    planner = portraits.planner()
    per_chunk = max(1, order.chunk_people * order.planner().images_per_identity // planner.images_per_identity)
    blocks = [range(start, min(start + per_chunk, len(candidates))) for start in range(0, len(candidates), per_chunk)]
    missing = [i for i in range(len(blocks)) if _metadata(_enrolled(run, i)).get("made_from") != order.made_from]
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
    candidates: Float32[np.ndarray, "n c"],
    references: Mapping[int, Float32[np.ndarray, " d"]],
    kept: Sequence[int],
    retired: int,
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
        "space": order.space,
        "reference_space": order.reference_space,
        "candidates": str(len(candidates)),
        "retired": str(retired),
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


# --- plan -------------------------------------------------------------------------------------------------------------


def plan(run: RunDir, order: Order, label: str = "plan") -> None:
    """Gives every person its photographs: plan.parquet, a row group per chunk."""
    if _metadata(run.plan).get("made_from") == order.made_from:
        return
    _expect(run.identities, "sample")
    planner = order.planner()
    ids = pq.read_table(run.identities, columns=["id"])["id"].to_pylist()
    schema = pa.schema(
        [("key", pa.string()), ("identity_id", pa.int64()), ("chunk", pa.int64()), ("seed", pa.int64())]
        + [(name, pa.float32()) for name in planner.names],
        metadata={"made_from": order.made_from},
    )
    with whole(run.plan) as part, pq.ParquetWriter(part, schema) as writer:
        for chunk, start in enumerate(range(0, len(ids), order.chunk_people)):
            rows = [row for person in ids[start : start + order.chunk_people] for row in planner(person, order.seed)]
            columns: dict[str, list[Any]] = {
                "key": [row.key for row in rows],
                "identity_id": [row.identity_id for row in rows],
                "chunk": [chunk] * len(rows),
                "seed": [row.seed for row in rows],
            }
            columns |= {name: [row.attributes[name] for row in rows] for name in planner.names}
            writer.write_table(pa.table(columns, schema=schema))
    say(f"{label}: {len(ids) * planner.images_per_identity} photographs of {len(ids)} people")


@dataclass(frozen=True)
class Plan:
    """A plan on disk, chunk by chunk."""

    identities: Path
    rows: Path

    @functools.cached_property
    def chunks(self) -> int:
        return pq.ParquetFile(self.rows).num_row_groups

    def pictures(self, index: int) -> int:
        return pq.ParquetFile(self.rows).metadata.row_group(index).num_rows

    def chunk(self, index: int) -> Chunk:
        """One chunk, with the people and the rows that it holds."""
        table = pq.ParquetFile(self.rows).read_row_group(index)
        people = pq.ParquetFile(self.identities).read_row_group(index).to_pylist()
        names = table.column_names[4:]
        variations = tuple(
            Variation(row["key"], row["identity_id"], row["seed"], {name: row[name] for name in names})
            for row in table.to_pylist()
        )
        return Chunk(index, tuple(_person(row) for row in people), variations)


def _person(row: Mapping[str, Any]) -> Identity:
    return Identity(row["id"], np.array(row["vector"], np.float32), np.array(row["reference"], np.float32))


# --- make -------------------------------------------------------------------------------------------------------------


def make(run: RunDir, order: Order, runner: Runner, label: str = "make") -> None:
    """Carries down the belt every chunk of the plan that has no ledger part, and notes each in progress.jsonl."""
    _expect(run.plan, "plan")
    planned = Plan(run.identities, run.plan)
    finished = _vouched(run)
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


def _vouched(run: RunDir) -> set[int]:
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


# --- control ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How large a made dataset is.

    Attributes:
        people: With at least one picture kept.
        pictures: Kept.
    """

    people: int
    pictures: int

    @property
    def for_control(self) -> int:
        """Pictures per person to plan for a control of this size: a tenth more, for the faces that are not found."""
        return math.ceil(1.1 * self.pictures / self.people)


def size(run: RunDir) -> Size:
    """Size of the dataset of a run. ValueError if it is not made yet, or nothing was kept."""
    _expect_made(run)
    ledger = read_ledger(run.ledger)
    kept = ledger.filter(ledger["kept"])
    if len(kept) == 0:
        raise ValueError(f"{run.ledger}: expected pictures that were kept, got none of {len(ledger)}")
    return Size(len(kept["identity_id"].unique()), len(kept))


def begin_control(run: RunDir, order: Order) -> None:
    """Clears away a control that was made for a dataset of another size or config."""
    found = _metadata(run.plan) or _metadata(run.identities)
    if found.get("made_from", order.made_from) != order.made_from:
        say(f"control: {run.root} was made for another dataset; it is made again")
        for path in (run.identities, run.plan, *run.shards.glob("*"), *run.ledger.glob("*"), run.progress):
            path.unlink(missing_ok=True)


# --- train ------------------------------------------------------------------------------------------------------------


def train(run: RunDir, recipe: Lazy, recipe_made_from: str, anew: bool) -> None:
    """Trains the recogniser on the shards, and the control's on as many of its own: model/ of each."""
    total = size(run).pictures
    _train_one(run, recipe, recipe_made_from, None, anew, "train")
    if run.control.plan.exists():
        _expect_made(run.control)
        _train_one(run.control, recipe, recipe_made_from, total, anew, "train control")


def _train_one(run: RunDir, recipe: Lazy, made_from: str, limit: int | None, anew: bool, label: str) -> None:
    from recognition.export import export_onnx
    from recognition.shards import load_training_set
    from recognition.train import train as train_recogniser

    inputs = digest(made_from, _ledger_digest(run), str(limit))
    begun, finished = run.model / "begun.json", run.model / "model.json"
    if _json(finished).get("inputs") == inputs and not anew:
        say(f"{label}: {run.model} is up to date")
        return
    if (anew and finished.exists()) or _json(begun).get("inputs") != inputs:
        for path in run.model.glob("*"):
            path.unlink()
    run.model.mkdir(parents=True, exist_ok=True)
    write_text(begun, json.dumps({"inputs": inputs}))
    data = load_training_set(sorted(run.shards.glob("*.tar")))
    rows = evenly(data.labels, limit)
    if limit is not None:
        say(f"{label}: {len(rows)} of {len(data.labels)} pictures, as many of each person as can be; asked for {limit}")
    labels, images = data.labels[rows], data.images[rows]
    people = np.unique(labels)
    labels = np.searchsorted(people, labels).astype(np.int64)
    chosen = recipe()
    with Watch(label, chosen.epochs * len(images), "pictures") as watch:
        trained = train_recogniser(images, labels, chosen, run.model, lambda at: watch.reach(_seen(at, len(images))))
    export_onnx(trained.model, run.model / "recogniser.onnx")
    told = {
        "inputs": inputs,
        "recipe_sha256": chosen.sha256,
        "weights_sha256": trained.weights_sha256,
        "images": len(images),
        "identities": len(people),
        "losses": list(trained.losses),
    }
    write_text(finished, json.dumps(told, indent=1))


def _seen(at: Any, images: int) -> int:
    return round((at.epoch - 1 + at.step / at.steps) * images)


def evenly(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Rows of the first pictures of everybody, then the second ones and so on, until there are `limit`; in row order.

    Args:
        labels: Whose each picture is, int64, in the order in which a person's pictures count as first, second ...
        limit: How many rows at most; None is all.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    turn = np.empty(len(labels), np.int64)
    turn[order] = np.arange(len(labels)) - starts
    return np.sort(np.lexsort((labels, turn))[:limit])


# --- verify -----------------------------------------------------------------------------------------------------------


def verify(
    run: RunDir, protocols: Lazy, witness: Lazy, witness_made_from: str, witness_images: int, runner: Runner, anew: bool
) -> None:
    """Scores the recogniser, the control's, and the dataset as the witness sees it: scores.json.

    Args:
        protocols: Builds what writes the verification sets.
        witness: Builds an embedder that had no part in making the dataset.
        witness_made_from: Its fingerprint.
        witness_images: How many pictures it looks at, at most.
        anew: Whether to do it again where nothing changed.
    """
    from benchmarks.protocols import load_protocols

    _expect(run.model / "model.json", "train")
    protocols().prepare(run.protocols, runner)
    inputs = digest(
        _sha256(run.model / "model.json"),
        _sha256(run.control.model / "model.json"),
        *(_sha256(path) for path in sorted(run.protocols.glob("*.bin"))),
        _ledger_digest(run),
        witness_made_from,
        str(witness_images),
    )
    if _json(run.scores).get("inputs") == inputs and not anew:
        say(f"verify: {run.scores} is up to date")
        return
    sets = load_protocols(run.protocols)
    scores = {
        "inputs": inputs,
        "recogniser": _scores_of(run, sets),
        "control": _scores_of(run.control, sets) if (run.control.model / "model.json").exists() else None,
        "witness": _witnessed(run, witness, witness_images),
    }
    write_text(run.scores, json.dumps(scores, indent=1))
    _tell(scores)


def _scores_of(run: RunDir, sets: Sequence[Any]) -> dict[str, Any]:
    """What the recogniser in model/ scores on every protocol."""
    from benchmarks.protocols import score

    told = json.loads((run.model / "model.json").read_text())
    network = _network(run.model / "recogniser.onnx")
    scores = {}
    with Watch(f"verify {run.root.name}", sum(len(each.images) for each in sets), "pictures") as watch:
        for each in sets:
            scores[each.name] = score(each, network)
            watch.advance(len(each.images))
    return {"protocols": scores, **{name: told[name] for name in ("images", "identities", "recipe_sha256")}}


def _network(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The exported recogniser as protocols want it: RGB crops, uint8 (b, 112, 112, 3), to raw embeddings (b, d)."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def embed(crops: np.ndarray) -> np.ndarray:
        x = (crops.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        parts = [session.run(None, {"input.1": x[start : start + 64]})[0] for start in range(0, len(x), 64)]
        return np.concatenate(parts)

    return embed


def _witnessed(run: RunDir, witness: Lazy, most: int) -> dict[str, Any]:
    """How well people hold together and apart in the eyes of an embedder that had no part in making them (law 7)."""
    from benchmarks.measures import witness as measure
    from recognition.shards import load_training_set

    data = load_training_set(sorted(run.shards.glob("*.tar")))
    rows, eyes = evenly(data.labels, most), witness()
    with Watch("verify witness", len(rows), "pictures") as watch:
        parts = []
        for start in range(0, len(rows), 256):
            parts.append(eyes.embed_crops(data.images[rows[start : start + 256]])[0])
            watch.advance(len(parts[-1]))
    return dict(measure(np.concatenate(parts), data.labels[rows], eyes.space))


def _tell(scores: Mapping[str, Any]) -> None:
    """The scores as lines, the control's beside them."""
    control = scores["control"]
    for name, result in scores["recogniser"]["protocols"].items():
        line = f"verify: {name:16} {100 * result['accuracy']:6.2f} % +- {100 * result['accuracy_std']:.2f}"
        say(line + (f", control {100 * control['protocols'][name]['accuracy']:6.2f} %" if control else ""))


def mean_accuracy(run: RunDir) -> float | None:
    """Mean accuracy of the recogniser over the protocols; None before it is verified. What a sweep compares."""
    scores = _json(run.scores).get("recogniser")
    return None if scores is None else float(np.mean([each["accuracy"] for each in scores["protocols"].values()]))


# --- report -----------------------------------------------------------------------------------------------------------


def report(run: RunDir, name: str, licence: str, weights: Path | None) -> None:
    """One page on the run, report.html, and the dataset's card. What is not made yet is said where it would stand.

    Args:
        name: Of the run.
        licence: Of the pictures, as the generator states it.
        weights: `weights.json` of the measuring models.
    """
    from benchmarks.report import write_card, write_report

    _expect(run.plan, "plan")
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


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes `path` when all is written and on the disk, and never before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text)


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str], rows_per_group: int | None = None) -> None:
    with whole(path) as part:
        pq.write_table(table.replace_schema_metadata(dict(metadata)), part, row_group_size=rows_per_group)


def stream(seed: int, purpose: str) -> int:
    """Another seed of 32 bits, for one purpose: streams of a run that must not repeat each other."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1)[0])


def digest(*inputs: str) -> str:
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _ledger_digest(run: RunDir) -> str:
    """Fingerprint of all shards, by what their ledger parts say of them."""
    chunks = sorted(finished_chunks(run.ledger))
    return digest(*(read_part_metadata(part_path(run.ledger, chunk))["tar_sha256"] for chunk in chunks))


def _sha256(path: Path) -> str:
    """Of the file; "" of one that is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _metadata(path: Path) -> dict[str, str]:
    """Metadata of a Parquet file; none of one that is not there."""
    if not path.exists():
        return {}
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _expect(path: Path, step: str) -> None:
    if not path.exists():
        raise ValueError(f"expected {path}, which the step {step} writes; ask for it first: steps=[{step},...]")


def _expect_made(run: RunDir) -> None:
    _expect(run.plan, "plan")
    missing = set(range(Plan(run.identities, run.plan).chunks)) - _vouched(run)
    if missing:
        first = ", ".join(map(str, sorted(missing)[:5]))
        raise ValueError(
            f"expected all chunks of {run.root}, {len(missing)} are missing ({first}{', ...' * (len(missing) > 5)})"
        )
