"""Selection: people unlike everyone kept before them. Exact, in candidate order, whatever the block size."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from recognition.neighbours import select_unlike


def unlike_everyone_kept(
    references: Float32[np.ndarray, "n d"], max_cosine: float, wanted: int
) -> Int64[np.ndarray, " k"]:
    """The candidates whose cosine to every candidate kept before is at most `max_cosine`, until `wanted` are kept.

    Args:
        references: Unit vectors of the candidates, in the embedder's space.
        max_cosine: Largest cosine between two people, in [-1, 1].
        wanted: How many people to keep, at least 1.
    Returns:
        Rows of the kept candidates, ascending; fewer than `wanted` where the candidates do not hold more.
    Raises:
        ValueError: If an argument is out of range.
    """
    if wanted < 1:
        raise ValueError(f"wanted: expected at least 1, got {wanted}")
    return select_unlike(references, max_cosine, wanted)
