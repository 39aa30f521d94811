"""People of the procedural face world: its own identity vectors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from generation.world import SPACE, sample_people


class WorldPeople:
    """Draws identity vectors of the world: raw, independent standard normal coordinates.

    Args:
        space: The world's space, literally. Vectors of another version of the world would look plausible and be wrong.
    Raises:
        ValueError: If `space` is not the space of the world at hand.
    """

    source = "world: traits drawn in the procedural face world"

    def __init__(self, space: str) -> None:
        if space != SPACE:
            raise ValueError(f"space: expected {SPACE!r}, the world at hand, got {space!r}")
        self.space = space

    def __call__(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n c"]:
        return sample_people(n, rng)
