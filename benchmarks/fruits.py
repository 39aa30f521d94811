"""FRUITS: the whole pipeline timed on one thread, picture by picture, and what it scores within a budget of time.

A verification system is as slow as all of its parts: finding the face, aligning it, embedding it, comparing it. Each is
timed for each picture, after the face-recognition-under-inference-time-constraint tracks of WebFace260M (Zhu et al.,
2021), whose budgets are 100, 500 and 1000 ms. A pipeline whose 95th percentile exceeds a budget has no score under it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from benchmarks.protocols import Protocol
from benchmarks.verify import verify

PROTOCOL = "fruits-v1"
BUDGETS_MS = (100, 500, 1000)
WARM_UP = 3  # pictures before the clock counts
NOT_FOUND = 4.0  # squared distance of a pair with a face that is not found: that of opposite vectors
PARTS = ("detect", "align", "embed", "match")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of a verification system, one picture at a time.

    Attributes:
        detect: A picture, RGB, of any size, to five landmarks, or None where no face is found.
        align: Picture and landmarks to a crop, uint8 (112, 112, 3).
        embed: A crop to a vector (d,), of any length.
        match: Two vectors to their cosine.
        about: What the parts are, for JSON.
    """

    detect: Callable[[np.ndarray], np.ndarray | None]
    align: Callable[[np.ndarray, np.ndarray], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]
    match: Callable[[np.ndarray, np.ndarray], float]
    about: dict[str, Any]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keeps BLAS, OpenMP, OpenCV and torch to one thread; whoever builds a session of onnxruntime builds it so."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    of_torch, of_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_cv2)


def fruits(
    protocol: Protocol,
    pipeline: Pipeline,
    folds: int = 10,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Times a pipeline on every picture of a protocol, and says what it scores within each budget.

    A pair with a face that is not found is judged as two people, as a system at a door would; their share is told.
    Reading the file is not timed.

    Args:
        clock: Seconds.
        watch: Told after each picture how many.
    Returns:
        p50 and p95 of each part and of the whole (detect, align, embed, and one match), in ms, and `under`: by budget,
        the accuracy, or None and the reason.
    Raises:
        ValueError: If a picture cannot be decoded, no face is found in any, or a fold lacks a kind of pair.
    """
    vectors: list[np.ndarray | None] = []
    seconds = []
    warm = min(WARM_UP, len(protocol.pictures))
    for row in [*range(warm), *range(len(protocol.pictures))]:
        vector, taken = _embedded(protocol.pictures.whole(row), pipeline, clock)
        vectors.append(vector)
        seconds.append(taken)
        if watch is not None and len(vectors) > warm:
            watch(1)
    vectors, of_pictures = vectors[warm:], np.array(seconds[warm:])
    distance, of_matches, lost = _matched(protocol, vectors, pipeline, clock)
    if lost == len(distance):
        raise ValueError(f"{protocol.name}: expected faces in the pictures, the pipeline found none in any pair")
    result = verify(distance, protocol.same, int(protocol.folds(folds).max()) + 1, fold=protocol.folds(folds))
    match_ms = float(np.median(of_matches))
    whole = of_pictures.sum(axis=1) + match_ms
    times = {**dict(zip(PARTS, [*of_pictures.T, of_matches], strict=True)), "whole": whole}
    percentiles = {part: {"p50_ms": _at(values, 50), "p95_ms": _at(values, 95)} for part, values in times.items()}
    accuracy, p95 = float(result.accuracy.mean()), percentiles["whole"]["p95_ms"]
    return {
        "protocol": PROTOCOL,
        "threads": 1,
        "pictures": len(vectors),
        "faces_found": sum(vector is not None for vector in vectors) / len(vectors),
        "pairs": len(distance),
        "pairs_without_a_face": lost,
        "times": percentiles,
        "under": {f"{budget}_ms": _under(budget, p95, accuracy) for budget in BUDGETS_MS},
        "accuracy": accuracy,
        **pipeline.about,
    }


def _embedded(
    picture: np.ndarray, pipeline: Pipeline, clock: Callable[[], float]
) -> tuple[np.ndarray | None, tuple[float, float, float]]:
    """A picture's unit vector (None: no face), and milliseconds of detect, align, embed."""
    start = clock()
    landmarks = pipeline.detect(picture)
    detected = clock()
    if landmarks is None:
        return None, (1000 * (detected - start), 0.0, 0.0)
    crop = pipeline.align(picture, landmarks)
    aligned = clock()
    raw = np.asarray(pipeline.embed(crop), np.float64)
    embedded = clock()
    norm = np.linalg.norm(raw)
    if raw.ndim != 1 or not np.isfinite(norm) or norm == 0:
        raise ValueError(f"expected an embedding (d,) with a direction, got shape {raw.shape}, norm {norm}")
    return raw / norm, (1000 * (detected - start), 1000 * (aligned - detected), 1000 * (embedded - aligned))


def _matched(
    protocol: Protocol, vectors: list[np.ndarray | None], pipeline: Pipeline, clock: Callable[[], float]
) -> tuple[Float64[np.ndarray, " p"], Float64[np.ndarray, " _m"], int]:
    """Squared distances, milliseconds of the matches, and how many pairs lack a face."""
    distance, taken = np.full(len(protocol.same), NOT_FOUND), []
    for pair, (first, second) in enumerate(protocol.pairs):
        one, other = vectors[first], vectors[second]
        if one is not None and other is not None:
            start = clock()
            cosine = pipeline.match(one, other)
            taken.append(1000 * (clock() - start))
            distance[pair] = 2 - 2 * cosine
    return distance.clip(0, NOT_FOUND), np.array(taken or [0.0]), len(distance) - len(taken)


def _under(budget_ms: int, p95_ms: float, accuracy: float) -> dict[str, Any]:
    if p95_ms <= budget_ms:
        return {"accuracy": accuracy}
    return {"accuracy": None, "reason": f"too slow: p95 of the whole is {p95_ms:.1f} ms, the budget {budget_ms} ms"}


def _at(values: np.ndarray, percentile: float) -> float:
    return float(np.percentile(values, percentile))
