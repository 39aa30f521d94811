"""Authentic people: embeddings of pictures that were there before, here of renders. The other samplers' yardstick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from stages.records import Chunk, Identity, Images, Variation
from stages.sample.seen import Embedder, check_space, first_seen

NOBODY = np.zeros(0, np.float32)


@runtime_checkable
class Sampler(Protocol):
    """Whose pictures are taken."""

    @property
    def space(self) -> str: ...

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n c"]: ...


@runtime_checkable
class Camera(Protocol):
    """A generator that photographs them."""

    @property
    def space(self) -> str: ...

    def __call__(self, chunk: Chunk) -> Images: ...


class Authentic:
    """People are the unit embeddings of one picture each of people whom no model was trained on.

    IDiff-Face's "authentic" condition: its generator given embeddings of photographs that it was not trained on. Here
    they are renders of people drawn by `rng`, which none of the streams that the bundled models were trained on
    repeats. These people are not sampled: a dataset of them leans on the pictures, so all that tells of a run says so.
    Somebody whose picture shows no face is passed over. The first n people of a longer draw are the n people of a
    shorter one.

    Args:
        people: Draws the people who are photographed.
        generator: Photographs them; not the generator that the vectors are for.
        planner: Plans the photographs; a person's first is taken.
        embedder: Finds and embeds the faces.
        space: The embedder's space, literally.
        max_tries: People photographed for one person, at least 1; that many without a face stop the draw.
        batch_size: Pictures made at a time, at least 1. It changes the memory needed, not the people.
    Raises:
        ValueError: If the spaces differ, or an argument is out of range.
    References:
        IDiff-Face (Boutros et al., 2023), https://arxiv.org/abs/2308.04995
    """

    source = "authentic: embeddings of renders of held-out people, who were not sampled"

    def __init__(
        self,
        people: Sampler,
        generator: Camera,
        planner: Callable[[int, int], list[Variation]],
        embedder: Embedder,
        space: str,
        max_tries: int = 20,
        batch_size: int = 64,
    ) -> None:
        check_space(space, embedder)
        if people.space != generator.space:
            raise ValueError(
                f"people: expected them in the generator's space {generator.space!r}, got {people.space!r}"
            )
        if max_tries < 1 or batch_size < 1:
            raise ValueError(f"max_tries, batch_size: expected at least 1, got {max_tries}, {batch_size}")
        self.space, self._people, self._generator, self._planner = space, people, generator, planner
        self._embedder, self._max_tries, self._batch_size = embedder, max_tries, batch_size

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n d"]:
        """Photographs people until n are seen.

        Raises:
            ValueError: If `max_tries` pictures in a row show no face.
        """
        whose, how = (int(seed) for seed in rng.integers(2**32, size=2))
        vectors, _ = first_seen(
            lambda numbers: self._photographs(numbers, whose, how),
            self._embedder,
            n,
            self._max_tries,
            self._batch_size,
        )
        return vectors

    def _photographs(self, numbers: range, whose: int, how: int) -> Images:
        drawn = self._people(numbers.stop, np.random.default_rng(whose))  # the first of more are those of fewer
        people = tuple(Identity(i, drawn[i], NOBODY) for i in numbers)
        return self._generator(Chunk(0, people, tuple(self._planner(i, how)[0] for i in numbers)))
