"""A set that does not fit on the disk decoded: read and decoded again in every epoch.

Blocks of neighbouring pictures are read in a random order, since a disk reads neighbours fastest, and mixed in a
buffer. What comes out depends on seed, epoch and number of processes; each picture comes once, less the last partial
batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

import numpy as np
from jaxtyping import Int64, UInt8

from recognition.decoding import Workers, cores, decode, pieces
from recognition.formats.sample import LabelledSet, Sample
from recognition.train.batches import Share, shrunk
from recognition.train.pictures import Epoch, Unit, check_labels, subset_rows
from recognition.train.recipe import Recipe
from recognition.train.scan import Scan, scanned
from recognition.train.schedule import steps_per_epoch
from recognition.train.seeds import BUFFER, PARTS


class Stream:
    """A labelled set as `train` takes it, decoded on the way.

    Args:
        source: The set. Where its pictures lie person by person, block and buffer together must hold many people, or
            batches are of few: sets for streaming are written mixed (train shards).
        buffer: Pictures that are mixed, encoded, in each process.
        block: Neighbours that are read together.
        workers: Processes that decode, beside each that trains; None: one for each core.

    Raises:
        ValueError: If a number is below 1, or the labels are not those of at least 2 people.
    """

    def __init__(self, source: LabelledSet, buffer: int = 8192, block: int = 1024, workers: int | None = None) -> None:
        for name, value in (("buffer", buffer), ("block", block)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        check_labels(source.labels)
        self.source, self.buffer, self.block = source, buffer, block
        self.workers = Workers(workers or cores())

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        return self.source.labels

    def steps(self, recipe: Recipe) -> int:
        if recipe.batches == "pk":
            raise ValueError("batches: expected shuffled, as a stream cannot choose its pictures, got pk")
        return steps_per_epoch(len(self.source), recipe)

    def epoch(self, recipe: Recipe, number: int, share: Share) -> Epoch:
        steps = self.steps(recipe)
        size = share.size(min(recipe.batch_size, len(self.source)))
        mine = size * share.accumulate * steps
        rows = self.order(recipe.seed, number)[share.rank * mine : (share.rank + 1) * mine]
        rng = np.random.default_rng([recipe.seed, number, share.rank, BUFFER])

        def units(first: int) -> Iterator[Unit]:
            samples = mixed(self.source.read(rows.tolist()), self.buffer, rng)
            skipped = islice(samples, first * size * share.accumulate, None)  # read, but not decoded
            for samples_here, crops in self._decoded(pieces(skipped, size)):
                yield crops, self._labels(samples_here)

        return Epoch(steps, size * share.units, units)

    def order(self, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
        """All rows, block by block, the blocks in a random order."""
        starts = np.arange(0, len(self.source), self.block)
        np.random.default_rng([seed, epoch, PARTS]).shuffle(starts)
        ends = np.minimum(starts + self.block, len(self.source))
        return np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])

    @cached_property
    def _subset(self) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Int64[np.ndarray, " n"]]:
        rows = subset_rows(self.labels)
        return decode(list(self.source.read(rows.tolist()))), self.labels[rows]

    def subset(self) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Int64[np.ndarray, " n"]]:
        return self._subset

    def scan(self) -> Scan:
        """Of the subset alone: the others are not decoded yet."""
        images, labels = self._subset
        return scanned(images, labels, None)

    def notes(self, recipe: Recipe) -> list[str]:
        return shrunk(recipe, len(self.source))

    def tell(self, digest: hashlib._Hash) -> None:
        """All keys and labels, and at most 1000 encoded pictures."""
        digest.update("\n".join(self.source.keys).encode("utf-8", "surrogateescape"))  # a file's name may be no text
        digest.update(self.labels.tobytes())
        for sample in self.source.read(range(0, len(self.source), max(1, len(self.source) // 1000))):
            digest.update(sample.jpeg)

    def close(self) -> None:
        """Ends the workers."""
        self.workers.close()

    def _decoded(self, batches: Iterable[list[Sample]]) -> Iterator[tuple[list[Sample], np.ndarray]]:
        return self.workers.each(_with_crops, batches)

    def _labels(self, samples: list[Sample]) -> Int64[np.ndarray, " u"]:
        ids = np.array([sample.identity_id for sample in samples], np.int64)
        return np.searchsorted(self.source.classes, ids).astype(np.int64)


def mixed(samples: Iterable[Sample], buffer: int, rng: np.random.Generator) -> Iterator[Sample]:
    """The samples, each once: one of a full buffer at a time, at random, makes room for the next."""
    coming = iter(samples)
    held = list(islice(coming, buffer))
    for sample in coming:
        place = int(rng.integers(len(held)))
        out, held[place] = held[place], sample
        yield out
    rng.shuffle(held)
    yield from held


def _with_crops(samples: list[Sample]) -> tuple[list[Sample], np.ndarray]:
    """The samples without their bytes, and their crops."""
    return [Sample(sample.key, b"", sample.identity_id, {}) for sample in samples], decode(samples)
