"""Close-ups: the middle 112 px of renders of 140, where a face is as large as the bundled generator draws it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from generation.world import circumstances_of

SIZE_PX = 112
CLOSE_UP_OF_PX = 140  # side of the render that a close-up is cut from
CLOSE_UP_TOP, CLOSE_UP_LEFT = 18, 14


def closer(pictures: UInt8[np.ndarray, "b 140 140 3"]) -> UInt8[np.ndarray, "b 112 112 3"]:
    """Close-ups: the middle of renders of 140 px."""
    rows, columns = (slice(start, start + SIZE_PX) for start in (CLOSE_UP_TOP, CLOSE_UP_LEFT))
    return np.ascontiguousarray(pictures[:, rows, columns])


def close_up_circumstances(
    attributes: Float32[np.ndarray, "b a"], seeds: Int64[np.ndarray, " b"], cells: int
) -> Float32[np.ndarray, "b n"]:
    """The circumstances of close-ups (`circumstances_of`), the wall at the middles of `cells` x `cells` equal parts.

    Raises:
        ValueError: If the table leaves the range of an attribute, or a seed is negative.
    """
    middles = (np.arange(cells) + 0.5) * (SIZE_PX / cells) - 0.5
    return circumstances_of(attributes, seeds, CLOSE_UP_TOP + middles, CLOSE_UP_LEFT + middles, CLOSE_UP_OF_PX)
