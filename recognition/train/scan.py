"""One pass over all pictures of a set: which of them show nothing, and which are there under two labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

FLAT_LEVELS = 2  # a picture, or its middle, whose values lie so close together shows nothing
_BAND = slice(52, 60)  # rows of a crop, across the nose, that tell nearly all photographs apart
_BLOCK = 1024


@dataclass(frozen=True)
class Scan:
    """What one pass over all pictures found.

    Attributes:
        looked_at: Pictures.
        flat: Of them, those that show nothing: black, white, one colour.
        twins: Pairs of rows with the same picture and different labels, one pair for each picture that comes again.
    """

    looked_at: int
    flat: int
    twins: tuple[tuple[int, int], ...]


def scanned(
    images: UInt8[np.ndarray, "n 112 112 3"], labels: Int64[np.ndarray, " m"], rows: Int64[np.ndarray, " m"] | None
) -> Scan:
    """Looks at a band of every picture, and at the whole of those that may be the same.

    Args:
        images: Crops; a memory map is read block by block.
        labels: Class of each picture looked at.
        rows: The pictures looked at; None: all.
    """
    places = np.arange(len(images)) if rows is None else rows
    seen: dict[int, int] = {}
    flat, twins = 0, []
    for start in range(0, len(places), _BLOCK):
        here = places[start : start + _BLOCK]
        band = images[here, _BAND].reshape(len(here), -1)
        bare = np.ptp(band, 1) <= FLAT_LEVELS
        flat += int(bare.sum())
        for row in np.flatnonzero(~bare).tolist():
            one = seen.setdefault(hash(band[row].tobytes()), start + row)
            if labels[one] != labels[start + row] and np.array_equal(images[places[one]], images[places[start + row]]):
                twins.append((one, start + row))
    return Scan(len(places), flat, tuple(twins))
