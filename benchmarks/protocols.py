"""Verification protocols: pictures and pairs in, scores of a model out.

A model is a callable: RGB crops, uint8 (b, 112, 112, 3), to raw embeddings (b, d).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from benchmarks.bins import read_bin
from benchmarks.verify import fuse_flips, scores

Model = Callable[[np.ndarray], np.ndarray]
BATCH = 512  # crops handed to a model at once; 19 MB


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """A verification set.

    Attributes:
        name: As in tables: `lfw`, `cross_age`.
        images: RGB, n = 2p; rows 2i and 2i+1 are pair i. In file order, which decides the folds.
        same: Whether pair i shows one person.
    """

    name: str
    images: UInt8[np.ndarray, "n 112 112 3"]
    same: Bool[np.ndarray, " p"]

    def __post_init__(self) -> None:
        if len(self.images) != 2 * len(self.same):
            raise ValueError(
                f"{self.name}: expected two images for each of {len(self.same)} pairs, got {len(self.images)}"
            )


def load_protocols(folder: str | os.PathLike[str]) -> list[Protocol]:
    """The protocols of a folder: each `<name>.bin` in it, by name.

    Raises:
        ValueError: If there is none, or if one cannot be read.
    """
    paths = sorted(Path(folder).glob("*.bin"))
    if not paths:
        raise ValueError(f"{folder}: expected verification sets named *.bin, got none")
    return [Protocol(path.stem, *read_bin(path)) for path in paths]


def score(protocol: Protocol, model: Model, folds: int = 10, far_target: float = 1e-3) -> dict[str, object]:
    """What `model` scores on `protocol`: an entry of `protocols` in a run's `scores.json`.

    Every picture is embedded as it is and mirrored; the two raw embeddings are summed and normalised, as insightface
    does it. Pictures that occur in several pairs are embedded once.

    Raises:
        ValueError: If the model gives no usable embeddings, or a fold lacks a kind of pair; names the protocol.
    """
    first, row = _unique(protocol.images)
    try:
        original, flipped = (_embed(model, protocol.images[first], mirror) for mirror in (False, True))
        result = dict(scores(fuse_flips(original, flipped)[row], protocol.same, folds, far_target))
    except ValueError as fault:
        raise ValueError(f"{protocol.name}: {fault}") from fault
    norms = np.stack([np.linalg.norm(raw.astype(np.float64), axis=1) for raw in (original, flipped)])
    return {**result, "mean_norm": float(norms[:, row].mean())}


def _unique(images: UInt8[np.ndarray, "n 112 112 3"]) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " n"]]:
    """Rows of the first occurrence of each picture, and for each picture its place among them."""
    places: dict[bytes, int] = {}
    row = np.array([places.setdefault(image.tobytes(), len(places)) for image in images], np.int64)
    return np.unique(row, return_index=True)[1].astype(np.int64), row


def _embed(model: Model, images: UInt8[np.ndarray, "u 112 112 3"], mirror: bool) -> Float[np.ndarray, "u d"]:
    parts = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        raw = np.asarray(model(np.ascontiguousarray(batch[:, :, ::-1]) if mirror else batch))
        if raw.ndim != 2 or len(raw) != len(batch):
            raise ValueError(f"expected embeddings ({len(batch)}, d) from the model, got shape {raw.shape}")
        parts.append(raw)
    return np.concatenate(parts)
