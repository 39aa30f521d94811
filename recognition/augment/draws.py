"""From uniform numbers in [0, 1) to the parameters of augmentations; and noise that is a function of a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor

ATTEMPTS = 10  # torchvision's number of tries before a window is given up
WINDOW_DRAWS = 2 * ATTEMPTS + 2


def between(uniform: Float[Tensor, "*s"], low: float, high: float) -> Float[Tensor, "*s"]:
    """Evenly spread over [low, high)."""
    return low + uniform * (high - low)


def either_way(uniform: Float[Tensor, "*s"], largest: float) -> Float[Tensor, "*s"]:
    """Evenly spread over [-largest, largest)."""
    return between(uniform, -largest, largest)


def pick(uniform: Float[Tensor, "*s"], count: int) -> Int64[Tensor, "*s"]:
    """One of 0 ... count - 1, all equally likely."""
    return (uniform * count).long().clamp_(max=count - 1)


def windows(
    uniform: Float32[Tensor, "b n"],
    size: tuple[int, int],
    scale: Sequence[float],
    ratio: Sequence[float],
    strict: bool = False,
) -> tuple[Int64[Tensor, "b 4"], Bool[Tensor, " b"]]:
    """A random rectangle for each picture, as in torchvision's RandomResizedCrop and RandomErasing: of `ATTEMPTS` tries
    (area evenly spread, logarithm of width / height evenly spread) the first that fits.

    All tries are drawn for every picture, so that each uses up the same number of draws.

    Args:
        uniform: `WINDOW_DRAWS` draws for each picture.
        size: Height and width of the pictures in pixels.
        scale: Smallest and largest area, as a share of the picture.
        ratio: Smallest and largest width / height.
        strict: Whether a window must be smaller than the picture in height and width.

    Returns:
        (top, left, height, width) in pixels, and whether any try fitted: at least 1 pixel and at most the picture.
    """
    height, width = size
    area = between(uniform[:, :ATTEMPTS], *scale) * height * width
    aspect = between(uniform[:, ATTEMPTS : 2 * ATTEMPTS], math.log(ratio[0]), math.log(ratio[1])).exp()
    wide, high = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (wide > 0) & (wide <= width - strict) & (high > 0) & (high <= height - strict)
    first = fits.int().argmax(1, keepdim=True)
    high, wide = high.gather(1, first).squeeze(1), wide.gather(1, first).squeeze(1)
    top = _place(uniform[:, -2], height - high)
    left = _place(uniform[:, -1], width - wide)
    return torch.stack([top, left, high, wide], 1), fits.any(1)


def _place(uniform: Tensor, free: Tensor) -> Tensor:
    """One of 0 ... free; where the window does not fit, and is not used, 0."""
    return (uniform * (free + 1)).long().minimum(free).clamp_(min=0)


def inside(window: Int64[Tensor, "b 4"], size: tuple[int, int]) -> Bool[Tensor, "b 1 h w"]:
    """Which pixels of a picture lie in its window (top, left, height, width)."""
    top, left, high, wide = window[:, :, None].unbind(1)
    y, x = torch.arange(size[0], device=window.device), torch.arange(size[1], device=window.device)
    rows, columns = (y >= top) & (y < top + high), (x >= left) & (x < left + wide)
    return rows[:, None, :, None] & columns[:, None, None, :]


def seeds(count: int, generator: torch.Generator) -> Int64[Tensor, " b"]:
    """A seed for each picture's noise: one draw each, however much noise it is."""
    return torch.randint(2**63 - 1, (count,), generator=generator)


def normal_noise(seed: Int64[Tensor, " n"], shape: Sequence[int]) -> Float32[Tensor, "n ..."]:
    """Standard normal noise of `shape` for each seed, on the seeds' device: Box and Muller's transform of SplitMix64.

    A `torch.Generator` would shift the draws of all later pictures by the noise of one, and differ between devices.

    References:
        Steele, Lea and Flood (2014), https://doi.org/10.1145/2714064.2660195
    """
    index = torch.arange(1, math.prod(shape) + 1, device=seed.device)
    bits = _mixed(seed[:, None] + index * _signed(0x9E3779B97F4A7C15))
    radius = (-2 * torch.log(_unit(bits >> 40) + 2.0**-25)).sqrt()
    return (radius * torch.cos(2 * math.pi * _unit(bits >> 16))).view(-1, *shape)


def _mixed(z: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """SplitMix64's finaliser; int64 multiplication wraps as uint64's does, and the masks make its shifts logical."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    return z ^ ((z >> 31) & (2**33 - 1))


def _unit(bits: Tensor) -> Tensor:
    """The lowest 24 bits as a float32 in [0, 1)."""
    return (bits & (2**24 - 1)).float() * 2.0**-24


def _signed(unsigned: int) -> int:
    return unsigned - 2**64
