"""Pixels as networks take them: RGB bytes to (x - 127.5) / 127.5, channels first."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def as_input(pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """RGB bytes to the networks' range, [-1, 1], channels first."""
    return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def wide(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Channels last in memory, which convolutions are faster in."""
    return maps.contiguous(memory_format=torch.channels_last)
