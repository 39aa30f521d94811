"""Renders as close-ups: the framing that the bundled generator has learnt, so what its pictures are compared with."""

from __future__ import annotations

from typing import ClassVar

from generation.close_up import CLOSE_UP_OF_PX, SIZE_PX, closer
from stages.generate.rendered import Rendered
from stages.records import Chunk, Images


class CloseUp:
    """Photographs the people of a chunk at 140 px and keeps the middle 112 px of each picture.

    Args:
        space: The world's space, literally; vectors are raw in it, not unit.
        device: Of torch. Pictures of different devices are alike, not equal.
        threads: Threads of torch while it draws, at least 1.
    Raises:
        ValueError: As `Rendered`.
    """

    controls = Rendered.controls
    ranges: ClassVar = Rendered.ranges
    licence = Rendered.licence
    unit_vectors = Rendered.unit_vectors
    framing = "close-up"
    size_px = SIZE_PX

    def __init__(self, space: str, device: str = "cpu", threads: int = 1) -> None:
        self.space = space
        self._whole = Rendered(space, CLOSE_UP_OF_PX, device, threads)

    def __call__(self, chunk: Chunk) -> Images:
        return Images(chunk, closer(self._whole(chunk).pixels))
