"""Pictures decoded by several processes. No torch here: a worker starts in the time that numpy and Pillow take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from recognition.formats.sample import CROP_PX, Sample, decode_crop

CROP_BYTES = CROP_PX * CROP_PX * 3  # 37.6 kB, decoded
PER_WORKER = 2000  # pictures that make another worker worth its start
_IN_FLIGHT = 3  # pieces of work that a worker has at most, the one in hand included

Given = TypeVar("Given")
Made = TypeVar("Made")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """Processes that do the same piece of work with many things; one worker is this process itself.

    Args:
        count: How many, at least 1.
    Raises:
        ValueError: If there are none.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"workers: expected at least 1, got {count}")
        self.count = count
        self.pool = ProcessPoolExecutor(count, mp_context=get_context("spawn")) if count > 1 else None

    def each(self, work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """What the work makes of each, in order; what it raises is raised here. Bounded work is in flight."""
        if self.pool is None:
            yield from map(work, given)
            return
        flying: deque[Future[Made]] = deque()
        try:
            for thing in given:
                flying.append(self.pool.submit(work, thing))
                if len(flying) >= self.count * _IN_FLIGHT:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def decode(samples: Sequence[Sample]) -> UInt8[np.ndarray, "b 112 112 3"]:
    """The crops of some samples.

    Raises:
        ValueError: If one cannot be decoded or is not 112x112, naming its key.
    """
    crops = np.empty((len(samples), CROP_PX, CROP_PX, 3), np.uint8)
    for crop, sample in zip(crops, samples, strict=True):
        crop[:] = decode_crop(sample)
    return crops


def decode_into(path: Path, piece: tuple[int, Sequence[Sample]]) -> int:
    """Writes the crops of some samples into a file from a row on. Returns how many.

    Raises:
        ValueError: As `decode`.
    """
    row, samples = piece
    crops = decode(samples)
    with path.open("r+b", buffering=0) as file:
        file.seek(row * CROP_BYTES)
        left = memoryview(crops.tobytes())
        while left:
            left = left[file.write(left) :]
    return len(crops)


def pieces(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Samples in lists of a size, without what else is known of them; the last list may be shorter."""
    bare = (Sample(sample.key, sample.jpeg, sample.identity_id, {}) for sample in samples)
    while piece := list(islice(bare, size)):
        yield piece
