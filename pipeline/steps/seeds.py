"""Seeds of a run: streams of random numbers that must not repeat each other."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str) -> int:
    """Another seed of 32 bits, for one purpose: streams of a run that must not repeat each other."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1)[0])
