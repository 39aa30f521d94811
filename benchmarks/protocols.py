"""Verification protocols: pictures and pairs in, scores of a model out.

A model is a callable: RGB crops, uint8 (b, 112, 112, 3), to raw embeddings (b, d).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from benchmarks.bins import read_encoded
from benchmarks.far import RULE, lacking, tar_at_far
from benchmarks.intervals import Draws, intervals95
from benchmarks.people import read_people, shared_between_folds
from benchmarks.pictures import Pictures, once
from benchmarks.verify import (
    ACCURACY_THRESHOLDS,
    PROTOCOL,
    Verification,
    auc,
    eer,
    fold_of_pairs,
    fuse_flips,
    squared_distances,
    verify,
)
from recognition.files import sha256_of

Model = Callable[[np.ndarray], np.ndarray]
BATCH = 256  # crops handed to a model at once, and decoded at once: 10 MB


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """A verification set.

    Attributes:
        name: As in tables: `lfw`, `cross_age`.
        pictures: Each once, however many pairs it is in.
        pairs: Rows of `pictures`, in the order that decides the folds.
        same: Whether a pair shows one person.
        people: Who is on the pictures of each pair; None where nobody has written it down.
        fold: Of each pair; None: blocks in this order, as many as are asked for.
        asked: Pairs of the list; more than there are here where pictures are missing.
        about: What else is known of it, for JSON: source, sha256, how people are known.
    """

    name: str
    pictures: Pictures
    pairs: Int64[np.ndarray, "p 2"]
    same: Bool[np.ndarray, " p"]
    people: Int64[np.ndarray, "p 2"] | None = None
    fold: Int64[np.ndarray, " p"] | None = None
    asked: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.pairs) == len(self.same) > 0:
            raise ValueError(f"{self.name}: expected pairs with a label each, got {len(self.pairs)}, {len(self.same)}")
        if self.people is not None and self.people.shape != self.pairs.shape:
            raise ValueError(f"{self.name}: expected two people for each pair, got shape {self.people.shape}")

    @property
    def coverage(self) -> float:
        """Share of the pairs asked for whose pictures are there, in (0, 1]."""
        return len(self.same) / max(self.asked, len(self.same))

    def folds(self, folds: int) -> Int64[np.ndarray, " p"]:
        """Fold of each pair."""
        return fold_of_pairs(len(self.same), folds) if self.fold is None else self.fold


def of_images(
    name: str, images: UInt8[np.ndarray, "n 112 112 3"], same: Bool[np.ndarray, " p"], **about: Any
) -> Protocol:
    """A protocol of decoded crops, rows 2i and 2i+1 being pair i.

    Raises:
        ValueError: If there are not two images for each pair.
    """
    if len(images) != 2 * len(same):
        raise ValueError(f"{name}: expected two images for each of {len(same)} pairs, got {len(images)}")
    places: dict[bytes, int] = {}
    row = np.array([places.setdefault(image.tobytes(), len(places)) for image in images], np.int64)
    first = np.unique(row, return_index=True)[1]
    return Protocol(name, Pictures([images[i] for i in first], name), row.reshape(-1, 2), same, **about)


def load_protocol(path: str | os.PathLike[str]) -> Protocol:
    """The protocol of a `.bin`, whose pictures are decoded later; people come from its sidecar, where there is one.

    Raises:
        ValueError: If it, or its sidecar, is damaged; names the file.
    """
    path = Path(path)
    encoded, same = read_encoded(path)
    people = read_people(path, same)
    sources, row = once(encoded)
    about = {"source": str(path), "kind": "bin", "sha256": sha256_of(path)}
    known = {} if people is None else {"people_by": "sidecar"}
    return Protocol(
        path.stem,
        Pictures(sources, str(path), resize=True),
        row.reshape(-1, 2),
        same,
        None if people is None else people.reshape(-1, 2),
        about={**about, **known},
    )


def load_protocols(folder: str | os.PathLike[str]) -> list[Protocol]:
    """The protocols of a folder: each `<name>.bin` in it, by name.

    Raises:
        ValueError: If there is none, or if one cannot be read.
    """
    paths = sorted(Path(folder).glob("*.bin"))
    if not paths:
        raise ValueError(f"{folder}: expected verification sets named *.bin, got none")
    return [load_protocol(path) for path in paths]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """What a model makes of pictures.

    Attributes:
        vectors: Unit vectors, mirror images summed in where they were asked for.
        norms: Of the raw embeddings, a row per way in which a picture was seen (as it is, mirrored).
    """

    vectors: Float64[np.ndarray, "u d"]
    norms: Float64[np.ndarray, "w u"]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a model makes of the pairs of a protocol.

    Attributes:
        distance: Squared distance of each pair of unit embeddings.
        fold: Of each pair. folds: Their number.
        mean_norm: Mean length of the raw embeddings over the pictures of all pairs, both ways.
        result: By insightface's protocol.
    """

    protocol: Protocol
    distance: Float64[np.ndarray, " p"]
    fold: Int64[np.ndarray, " p"]
    folds: int
    far_target: float
    mean_norm: float
    result: Verification

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(self.result.accuracy.mean())

    @property
    def right(self) -> Bool[np.ndarray, " p"]:
        """Which pairs are judged rightly, at the thresholds of their folds."""
        threshold = ACCURACY_THRESHOLDS[self.result.threshold_index][self.fold]
        return (self.distance < threshold) == self.protocol.same

    def draws(self, seed: int = 0) -> Draws:
        """Of the bootstrap over these pairs."""
        return Draws(self.protocol.same, self.protocol.people, seed=seed)


def measure(
    protocol: Protocol,
    model: Model,
    folds: int = 10,
    far_target: float = 1e-3,
    flip: bool = True,
    batch: int = BATCH,
    watch: Callable[[int], None] | None = None,
) -> Measured:
    """Embeds each picture of a protocol once and judges its pairs.

    Args:
        folds: Of a protocol that does not say them itself.
        flip: Whether the raw embedding of the mirror image is added before both are normalised, as insightface does.
        batch: Pictures decoded and embedded at once.
        watch: Told after each batch how many pictures of all pairs are dealt with; they add up to two for each pair.
    Raises:
        ValueError: If a picture cannot be decoded, the model gives no usable embeddings, or a fold lacks a kind of
            pair; names the protocol.
    """
    slots = np.bincount(protocol.pairs.reshape(-1), minlength=len(protocol.pictures))

    def told(start: int, stop: int) -> None:
        if watch is not None:
            watch(int(slots[start:stop].sum()))

    fold = protocol.folds(folds)
    folds = int(fold.max()) + 1
    try:
        embedded = embed(protocol.pictures, model, flip, batch, told)
        distance = squared_distances(embedded.vectors[protocol.pairs.reshape(-1)])
        result = verify(distance, protocol.same, folds, far_target, fold)
    except ValueError as fault:
        raise ValueError(f"{protocol.name}: {fault}") from fault
    norm = float(embedded.norms[:, protocol.pairs.reshape(-1)].mean())
    return Measured(protocol, distance, fold, folds, far_target, norm, result)


def score(protocol: Protocol, model: Model, folds: int = 10, far_target: float = 1e-3) -> dict[str, Any]:
    """What `model` scores on `protocol`: an entry of `protocols` in a run's `scores.json`. See `measure`."""
    return entry(measure(protocol, model, folds, far_target))


def entry(measured: Measured) -> dict[str, Any]:
    """All scores on one protocol, as in JSON.

    `tar` at `far_target` is insightface's, by folds; `tar_at_far` is over all pairs, where the impostor pairs can carry
    it, with what was reached and an interval.
    """
    protocol, result, distance = measured.protocol, measured.result, measured.distance
    intervals = intervals95(distance, measured.fold, measured.draws())
    points = [point.told() for point in tar_at_far(1 - distance / 2, protocol.same)]
    for point in points:
        if point["far_target"] in intervals.tar:
            point["interval95"] = list(intervals.tar[point["far_target"]])
    return {
        "protocol": PROTOCOL,
        "pairs": len(protocol.same),
        "impostor_pairs": int((~protocol.same).sum()),
        "coverage": protocol.coverage,
        "accuracy": measured.accuracy,
        "accuracy_std": float(result.accuracy.std()),
        "folds": result.accuracy.tolist(),
        "thresholds": ACCURACY_THRESHOLDS[result.threshold_index].tolist(),
        "interval95": list(intervals.accuracy),
        "interval95_by": intervals.by,
        "tar": result.tar,
        "tar_std": result.tar_std,
        "far_target": measured.far_target,
        "far": result.far,
        "far_step": result.far_step,
        "resolvable": not lacking(measured.far_target, int((~protocol.same).sum())),
        "tar_at_far": points,
        "far_rule": RULE,
        "auc": auc(-distance, protocol.same),
        "auc_interval95": list(intervals.auc),
        "eer": eer(-distance, protocol.same),
        "eer_interval95": list(intervals.eer),
        "people": _people(measured),
        "mean_norm": measured.mean_norm,
    }


def embed(
    pictures: Pictures,
    model: Model,
    flip: bool = True,
    batch: int = BATCH,
    watch: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Unit embeddings of pictures; each is decoded once and mirrored in its batch.

    Args:
        flip: Whether the raw embedding of the mirror image is added before the sum is normalised.
        watch: Told the rows of each batch when it is done.
    Raises:
        ValueError: If a picture cannot be decoded, or the model does not give embeddings with a direction.
    """
    vectors, norms = [], []
    for start in range(0, len(pictures), batch):
        stop = min(start + batch, len(pictures))
        crops = pictures.crops(start, stop)
        ways = [_raw(model, crops)] + ([_raw(model, np.ascontiguousarray(crops[:, :, ::-1]))] if flip else [])
        fused = fuse_flips(ways[0], ways[1] if flip else np.zeros_like(ways[0]))
        vectors.append(fused)
        norms.append(np.stack([np.linalg.norm(raw.astype(np.float64), axis=1) for raw in ways]))
        if watch is not None:
            watch(start, stop)
    return Embedded(np.concatenate(vectors), np.concatenate(norms, axis=1))


def _raw(model: Model, crops: np.ndarray) -> np.ndarray:
    raw = np.asarray(model(crops))
    if raw.ndim != 2 or len(raw) != len(crops):
        raise ValueError(f"expected embeddings ({len(crops)}, d) from the model, got shape {raw.shape}")
    return raw


def _people(measured: Measured) -> dict[str, Any]:
    """What is known of the people of a protocol."""
    people = measured.protocol.people
    if people is None:
        return {"known": False}
    shared = shared_between_folds(people, measured.fold)
    return {
        "known": True,
        "by": measured.protocol.about.get("people_by", "given"),
        "count": len(np.unique(people)),
        "in_several_folds": shared,
    }
