"""Batches of one shape: what a network says of a picture must not depend on how many pictures come with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

Network = Callable[[UInt8[np.ndarray, "b 112 112 3"]], Sequence[np.ndarray]]


def in_batches(network: Network, pictures: UInt8[np.ndarray, "n 112 112 3"], size: int) -> list[np.ndarray]:
    """Runs a network over pictures, `size` at a time; the last batch is filled up with its last picture.

    Returns:
        The network's outputs, each of n rows.
    """
    last = len(pictures) - 1
    starts = range(0, len(pictures), size)
    outputs = [network(pictures[np.minimum(np.arange(start, start + size), last)]) for start in starts]
    return [np.concatenate(parts)[: len(pictures)] for parts in zip(*outputs, strict=True)]
