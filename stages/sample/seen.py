"""People taken from pictures: the vectors of those in which an embedder finds a face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from stages.records import Faces, Images


@runtime_checkable
class Embedder(Protocol):
    """What a sampler needs of an embedder: unit vectors of a space, a face found or not."""

    @property
    def space(self) -> str: ...

    def __call__(self, images: Images) -> Faces: ...


def first_seen(
    photograph: Callable[[range], Images], embedder: Embedder, n: int, max_tries: int, batch_size: int
) -> tuple[Float32[np.ndarray, "n d"], int]:
    """Unit vectors of the first n pictures that show a face, in the order of the pictures.

    A picture without a face is passed over, and the next one is looked at. Where generator and embedder give a picture
    the same bits in any batch, as those of the belt do, the result does not depend on the size of a batch, and the
    first people of many are the people of few.

    Args:
        photograph: Makes pictures by their numbers, counted from 0.
        n: People wanted, at least 1.
        max_tries: Pictures looked at for one person, at least 1.
        batch_size: Pictures made at a time, at least 1.
    Returns:
        The vectors, and how many pictures were passed over for them.
    Raises:
        ValueError: If `max_tries` pictures in a row show no face, or an argument is out of range.
    """
    if min(n, max_tries, batch_size) < 1:
        raise ValueError(f"n, max_tries, batch_size: expected at least 1, got {n}, {max_tries}, {batch_size}")
    vectors: list[Float32[np.ndarray, " d"]] = []
    last, start = -1, 0  # number of the last picture with a face; of the first picture not looked at
    while True:
        numbers = range(start, start + min(batch_size, n - len(vectors)))
        faces = embedder(photograph(numbers))
        for number, found, vector in zip(numbers, faces.found, faces.embeddings, strict=True):
            if found:
                vectors.append(vector)
                last = number
            if len(vectors) == n:
                return np.stack(vectors), last + 1 - n
            if number - last == max_tries:
                raise ValueError(
                    f"expected a face in at least 1 of max_tries={max_tries} pictures in a row, "
                    f"got none in pictures {last + 1} to {number}, after {len(vectors)} of {n} people"
                )
        start = numbers.stop


def check_space(space: str, embedder: Embedder) -> None:
    """Raises ValueError unless the embedder's vectors are of that space."""
    if not space or embedder.space != space:
        raise ValueError(
            f"space: expected that of the embedder, whose vectors the people are, {embedder.space!r}, got {space!r}"
        )
