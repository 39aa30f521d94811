"""Pictures between steps: float32 RGB with channels first, in levels from 0 (black) to 255.

The published recipes work on 8-bit pictures, so their operations here take whole levels and give whole levels: each one
clips and rounds (or truncates) where its original does when it writes uint8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

Levels = Float32[Tensor, "b 3 h w"]


class Augmentation(ABC):
    """A change of a batch of pictures; its subclasses are frozen dataclasses whose fields decide what it does."""

    def __call__(self, images: UInt8[Tensor, "b h w 3"], generator: torch.Generator) -> Float32[Tensor, "b 3 h w"]:
        """uint8 RGB crops -> what a backbone takes: (x - 127.5) / 127.5, changed, in [-1, 1], on the same device.

        To be called outside autocast, whose half precision has too few bits for 256 levels.

        Args:
            images: The crops.
            generator: On the CPU; the only source of what is random.
        """
        levels = images.permute(0, 3, 1, 2).contiguous().float()
        return self.changed(levels, generator).sub_(127.5).div_(127.5)

    @abstractmethod
    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """One step: levels in [0, 255] -> levels in [0, 255]. It may write over `levels`."""


def normalised(images: UInt8[Tensor, "b h w 3"]) -> Float32[Tensor, "b 3 h w"]:
    """uint8 RGB crops -> (x - 127.5) / 127.5 in [-1, 1], channels first."""
    return images.permute(0, 3, 1, 2).contiguous().float().sub_(127.5).div_(127.5)


def rounded(levels: Levels) -> Levels:
    """To the nearest whole level in [0, 255], in place, as when a picture is written as uint8."""
    return levels.round_().clamp_(0, 255)


def where(
    chosen: Bool[Tensor, " b"], levels: Levels, change: Callable[[Tensor, Int64[Tensor, " n"]], Tensor]
) -> Levels:
    """Changes the chosen pictures, in place: `change(their levels, their rows)` runs once, on all of them together.

    `chosen` and the rows are on the CPU, where the draws are, so that a GPU is never waited for.
    """
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == 0:
        return levels
    on_device = rows.to(levels.device)
    return levels.index_copy_(0, on_device, change(levels[on_device], rows))
