"""The world's verification sets, written as insightface `.bin` files: what `benchmarks` reads as it reads LFW.

Their people come from a stream of random numbers of their own, so no bundled model and no run has ever seen them.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from stages.embed.align import crop

from benchmarks.bins import write_bin
from generation.world import attribute_table, render
from generation.world.scenes import PROTOCOLS, protocol_pairs

PROTOCOL_STREAM = 7_003  # of SeedSequence, beside the seed and the protocol's place
JPEG_QUALITY = 95
BLOCK = 256  # pictures rendered at a time


def write_protocols(folder: Path, pairs: int, seed: int, folds: int = 10) -> None:
    """Writes `<name>.bin` for each protocol of the world that `folder` does not hold yet.

    Faces are aligned by their exact landmarks: a protocol measures a recogniser, not a detector.

    Args:
        folder: Where they go; made if missing.
        pairs: Pairs of each, half of one person and half of two; a multiple of 2 * folds.
        seed: Of people, attributes and pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(PROTOCOLS):
        path = folder / f"{name}.bin"
        if path.exists():
            continue
        plan = protocol_pairs(name, pairs, folds, np.random.default_rng([PROTOCOL_STREAM, seed, place]))
        people, attributes = plan.people[plan.person], attribute_table(plan.attributes)
        jpegs: list[bytes] = []
        for start in range(0, len(people), BLOCK):
            rows = slice(start, start + BLOCK)
            drawn = render(people[rows], attributes[rows], plan.seeds[rows])
            jpegs += [_jpeg(aligned) for aligned in crop(drawn.pixels, drawn.landmarks)]
        write_bin(path, jpegs, plan.same)


def _jpeg(crop: UInt8[np.ndarray, "112 112 3"]) -> bytes:
    _, encoded = cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])  # OpenCV is BGR
    return encoded.tobytes()
