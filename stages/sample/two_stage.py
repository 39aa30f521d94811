"""Two stages: the generator makes pictures of nobody asked for, and whoever is seen in them is a person."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from stages.records import Chunk, Identity, Images, Variation
from stages.sample.seen import Embedder, check_space, first_seen

NOBODY = np.zeros(0, np.float32)


@runtime_checkable
class Unconditional(Protocol):
    """A generator that also makes pictures of nobody asked for, a seed each."""

    @property
    def space(self) -> str: ...

    def strangers(self, seeds: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w 3"]: ...


class TwoStage:
    """People are the unit embeddings of a generator's unconditional pictures (IDiff-Face's two-stage sampling).

    Such vectors lie where the generator's own faces lie, which the sphere's do not. A picture in which no face is found
    is passed over. The first n people of a longer draw are the n people of a shorter one.

    Args:
        generator: Makes the pictures; conditioned on the same space afterwards.
        embedder: Finds and embeds the faces.
        space: The space of both, literally.
        max_tries: Pictures looked at for one person, at least 1; that many without a face stop the draw.
        batch_size: Pictures made at a time, at least 1. It changes the memory needed, not the people.
    Raises:
        ValueError: If the spaces differ, or an argument is out of range.
    References:
        IDiff-Face (Boutros et al., 2023), https://arxiv.org/abs/2308.04995
    """

    def __init__(
        self, generator: Unconditional, embedder: Embedder, space: str, max_tries: int = 20, batch_size: int = 64
    ) -> None:
        check_space(space, embedder)
        if generator.space != space:
            raise ValueError(f"generator: expected one conditioned on {space!r}, got {generator.space!r}")
        if max_tries < 1 or batch_size < 1:
            raise ValueError(f"max_tries, batch_size: expected at least 1, got {max_tries}, {batch_size}")
        self.space, self._generator, self._embedder = space, generator, embedder
        self._max_tries, self._batch_size = max_tries, batch_size
        self._passed_over: int | None = None

    @property
    def source(self) -> str:
        """What the people are; after a draw also how many pictures showed no face."""
        told = "two-stage: embeddings of the generator's unconditional pictures"
        return told if self._passed_over is None else f"{told}, {self._passed_over} without a face passed over"

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n d"]:
        """Draws n people.

        Raises:
            ValueError: If `max_tries` pictures in a row show no face.
        """
        base = int(rng.integers(2**63))
        people, self._passed_over = first_seen(
            lambda numbers: self._strangers(numbers, base), self._embedder, n, self._max_tries, self._batch_size
        )
        return people

    def _strangers(self, numbers: range, base: int) -> Images:
        seeds = np.array([_seed(base, number) for number in numbers], np.int64)
        rows = tuple(Variation(f"{i:06d}_000", i, int(seed), {}) for i, seed in zip(numbers, seeds, strict=True))
        chunk = Chunk(0, tuple(Identity(i, NOBODY, NOBODY) for i in numbers), rows)
        return Images(chunk, self._generator.strangers(seeds))


def _seed(base: int, number: int) -> int:
    """63 bits for picture `number`, whatever else is drawn."""
    return int(np.random.SeedSequence(base, spawn_key=(number,)).generate_state(1, np.uint64)[0] >> np.uint64(1))
