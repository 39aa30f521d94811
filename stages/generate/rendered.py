"""The procedural face world as a generator: exact about who and how, no realism, no weights, no photographs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from generation.world import ATTRIBUTES, CONTROLS, SPACE, attribute_table, render
from stages.records import Chunk, Images


class Rendered:
    """Photographs the people of a chunk. A picture depends on its person, attributes and seed alone.

    Args:
        space: The world's space, literally; vectors are raw in it, not unit.
        size_px: Side of the pictures, 16 to 256.
        device: Of torch. Pictures of different devices are alike, not equal.
        threads: Threads of torch while it draws, at least 1. They change the speed, not the pictures.
    Raises:
        ValueError: If an argument is out of range, or `space` is not the space of the world at hand.
    """

    controls = CONTROLS
    ranges: ClassVar = {name: (attribute.low, attribute.high) for name, attribute in ATTRIBUTES.items()}
    licence = "this project's own: drawn by its code, from no photograph, asset or weight"
    unit_vectors = False
    framing = "whole"

    def __init__(self, space: str, size_px: int = 112, device: str = "cpu", threads: int = 1) -> None:
        if space != SPACE:
            raise ValueError(f"space: expected {SPACE!r}, the world at hand, got {space!r}")
        if not 16 <= size_px <= 256:
            raise ValueError(f"size_px: expected 16 to 256, got {size_px}")
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        if device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device: expected 'cpu' where torch sees no CUDA device, got {device!r}")
        self.space, self.size_px, self.device, self.threads = space, size_px, device, threads

    def __call__(self, chunk: Chunk) -> Images:
        vector_of = {person.id: person.vector for person in chunk.identities}
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        rendering = render(
            np.stack([vector_of[row.identity_id] for row in chunk.variations]),
            attribute_table([row.attributes for row in chunk.variations]),
            np.array([row.seed for row in chunk.variations], dtype=np.int64),
            self.size_px,
            self.device,
        )
        torch.set_num_threads(before)  # of the process, in which a recogniser may be trained next
        return Images(chunk, rendering.pixels)
