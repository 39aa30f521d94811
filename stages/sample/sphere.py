"""Directions drawn evenly from the unit sphere: people for a generator whose training vectors fill their sphere."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32


class Sphere:
    """Unit vectors, uniform on the sphere: normal coordinates divided by their length (Muller, 1959).

    The first n people of a longer draw are the n people of a shorter one.

    Args:
        dimensions: Length of a vector, at least 2.
        space: Name of the space that the vectors are in, as the generator names it.
    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, dimensions: int, space: str) -> None:
        if dimensions < 2:
            raise ValueError(f"dimensions: expected at least 2, got {dimensions}")
        if not space:
            raise ValueError("space: expected the name of the generator's space, got ''")
        self.dimensions, self.space = dimensions, space
        self.source = f"sphere: directions drawn evenly in {space}"

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n c"]:
        directions = rng.standard_normal((n, self.dimensions))
        return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
