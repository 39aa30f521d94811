"""What a training learns from: labelled crops that can be read in any order, in memory or mapped from the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from recognition.train.batches import Share, epoch_order, pk_order, shrunk, steps_of
from recognition.train.recipe import Recipe
from recognition.train.scan import Scan, scanned

Unit = tuple[np.ndarray, np.ndarray]  # uint8 (u, 112, 112, 3) RGB and int64 (u,)
SUBSET_PEOPLE, SUBSET = 128, 768  # people and pictures of the fixed subset that the first-minutes checks look at


@dataclass(frozen=True)
class Epoch:
    """An epoch, as one process sees it.

    Attributes:
        steps: Its steps.
        batch: Pictures of a step, of all processes together.
        units: The micro-batches of this process from a step on, in order: uint8 (u, 112, 112, 3) and int64 (u,).
    """

    steps: int
    batch: int
    units: Callable[[int], Iterator[Unit]]


@runtime_checkable
class Data(Protocol):
    """Labelled crops for `train`."""

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Class of each picture, 0 to classes - 1, none missing."""
        ...

    def steps(self, recipe: Recipe) -> int:
        """Steps of an epoch, which the schedule counts by."""
        ...

    def epoch(self, recipe: Recipe, number: int, share: Share) -> Epoch:
        """An epoch, counted from 0."""
        ...

    def subset(self) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Int64[np.ndarray, " n"]]:
        """A few pictures of a few people, always the same."""
        ...

    def scan(self) -> Scan:
        """One pass over all pictures, or over the few that can be had."""
        ...

    def notes(self, recipe: Recipe) -> list[str]:
        """What a user should know of how these pictures are batched."""
        ...

    def tell(self, digest: hashlib._Hash) -> None:
        """Adds to a hash what tells these pictures from others."""
        ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """Crops that can be read in any order.

    Args:
        images: Aligned RGB crops; an `np.memmap` is read batch by batch.
        every_label: Class of each crop; those of `rows` are 0 to classes - 1, none missing.
        rows: The crops that are trained on; None: all.

    Raises:
        ValueError: If shapes, types or labels are not these.
    """

    images: UInt8[np.ndarray, "n 112 112 3"]
    every_label: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " m"] | None = None

    def __post_init__(self) -> None:
        images = self.images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (112, 112, 3):
            raise ValueError(f"images: expected uint8 (n, 112, 112, 3), got {images.dtype} {images.shape}")
        if self.every_label.shape != (len(images),):
            raise ValueError(
                f"labels: expected one for each of the {len(images)} images, got shape {self.every_label.shape}"
            )
        check_labels(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        return self.every_label if self.rows is None else self.every_label[self.rows]

    def read(self, rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 112 112 3"]:
        """A copy of the crops of these rows."""
        # clip: the rows are in range, and this way numpy copies straight into the result without the interpreter's lock
        return np.take(self.images, rows if self.rows is None else self.rows[rows], axis=0, mode="clip")

    def steps(self, recipe: Recipe) -> int:
        return steps_of(self.labels, recipe)

    def epoch(self, recipe: Recipe, number: int, share: Share) -> Epoch:
        order = epoch_order(self.labels, recipe, number)

        def units(first: int) -> Iterator[Unit]:
            for batch in order[first:]:
                for micro in range(share.accumulate):
                    rows = share.rows(batch, micro)
                    yield self.read(rows), self.labels[rows]

        return Epoch(len(order), share.size(order.shape[1]) * share.units, units)

    def subset(self) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Int64[np.ndarray, " n"]]:
        rows = subset_rows(self.labels)
        return self.read(rows), self.labels[rows]

    def scan(self) -> Scan:
        """Of the rows that are trained on."""
        return scanned(self.images, self.labels, self.rows)

    def notes(self, recipe: Recipe) -> list[str]:
        if recipe.batches != "pk":
            return shrunk(recipe, len(self))
        report = pk_order(self.labels, recipe, 0)[1]
        return [f"batches: {report}"] if report.short or report.left_out else []

    def tell(self, digest: hashlib._Hash) -> None:
        """All labels and at most 1000 crops: enough to tell one set from another quickly."""
        digest.update(self.labels.tobytes())
        every = np.arange(len(self), dtype=np.int64)[:: max(1, len(self) // 1000)]
        digest.update(self.read(every).tobytes())


def check_labels(labels: Int64[np.ndarray, " n"]) -> None:
    """Raises ValueError unless every label from 0 to the highest occurs, and there are at least 2."""
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(f"labels: expected at least 2 classes, got {len(found)}")
    if found[0] != 0 or found[-1] != len(found) - 1:
        raise ValueError(f"labels: expected 0 to {len(found) - 1}, none missing, got {found[0]} to {found[-1]}")


def subset_rows(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """The first pictures of people spread over the whole set who have more than one; of anybody, if nobody has."""
    counts = np.bincount(labels)
    people = np.flatnonzero(counts > 1) if (counts > 1).any() else np.arange(len(counts))
    people = people[np.unique(np.linspace(0, len(people) - 1, SUBSET_PEOPLE).round().astype(int))]
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], people)
    each = SUBSET // len(people)
    rows = [order[start : start + min(each, counts[p])] for start, p in zip(starts, people, strict=True)]
    return np.sort(np.concatenate(rows)).astype(np.int64)
