"""The bundled recipes' augmentation: what aligned crops of one camera miss, in a few fused operations on real numbers.

What it does with a generator state must not change: the bundled weights were trained with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from recognition.augment.levels import Augmentation, Levels, normalised

SMALLEST_PX = 8  # below this a face is a smudge and its label is noise


@dataclass(frozen=True)
class Augment(Augmentation):
    """How strongly pictures are changed. Probabilities are per picture; 0 everywhere changes nothing.

    Args:
        flip: Probability of a mirror image.
        shift_px: Standard deviation of the shift along x and along y; a detector's landmarks miss by about 1.5 px.
        scale: Standard deviation of the logarithm of the zoom.
        rotate_deg: Standard deviation of the rotation.
        brightness: Largest change of brightness, as a share of the full range.
        contrast: Contrast is multiplied by a factor within exp(+-contrast).
        warmth: Each channel is multiplied by a factor within exp(+-warmth).
        low_resolution: Probability of being shrunk and enlarged again.
        low_resolution_px: Smallest size it is shrunk to, in [8, 112].
        blur: Probability of a Gaussian blur.
        blur_px: Largest standard deviation of the blur.
        erase: Probability of a rectangle of one random colour.
        erase_area: Largest share of the picture that the rectangle covers, in [0, 1].

    Raises:
        ValueError: If a strength is out of range; when called, if pictures are not square or are smaller than
            `low_resolution_px` where they may be shrunk.
    """

    flip: float = 0.5
    shift_px: float = 1.5
    scale: float = 0.03
    rotate_deg: float = 3.0
    brightness: float = 0.15
    contrast: float = 0.25
    warmth: float = 0.05
    low_resolution: float = 0.2
    low_resolution_px: int = 24
    blur: float = 0.1
    blur_px: float = 2.0
    erase: float = 0.2
    erase_area: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ValueError(f"Augment.{field.name}: expected a value of at least 0, got {value}")
        for name in ("flip", "low_resolution", "blur", "erase", "erase_area"):
            if getattr(self, name) > 1:
                raise ValueError(f"Augment.{name}: expected a value in [0, 1], got {getattr(self, name)}")
        if self.low_resolution > 0 and not SMALLEST_PX <= self.low_resolution_px <= 112:
            raise ValueError(f"Augment.low_resolution_px: expected a size in [8, 112], got {self.low_resolution_px}")

    def __call__(self, images: UInt8[Tensor, "b h w 3"], generator: torch.Generator) -> Float32[Tensor, "b 3 h w"]:
        """uint8 RGB crops -> what a backbone takes: (x - 127.5) / 127.5, changed, clamped to [-1, 1]."""
        return self._changed(normalised(images), generator)

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """As a step among others: it works on real numbers, and its results are not whole levels."""
        return self._changed((levels - 127.5) / 127.5, generator).mul_(127.5).add_(127.5)

    def _changed(self, x: Tensor, generator: torch.Generator) -> Tensor:
        self._check(x.shape[2], x.shape[3])
        b = len(x)
        normal = torch.randn(b, 4, generator=generator).to(x.device)
        drawn = torch.rand(b, 16, generator=generator)
        uniform = drawn.to(x.device)
        x = self._move(x, normal, uniform[:, 0])
        x = self._recolour(x, uniform[:, 1:6])
        x = self._smear(x, drawn[:, 6:10])
        return self._erase(x, uniform[:, 10:16], torch.rand(b, 3, 1, 1, generator=generator).to(x.device)).clamp_(-1, 1)

    def _check(self, height: int, width: int) -> None:
        if (self.low_resolution > 0 or self.blur > 0) and height != width:
            raise ValueError(f"images: expected square pictures for Augment's blur, got {height} x {width}")
        if self.low_resolution > 0 and width < self.low_resolution_px:
            raise ValueError(
                f"images: expected at least {self.low_resolution_px} x {self.low_resolution_px}, got {width}"
            )

    def _move(self, x: Tensor, normal_b4: Tensor, mirror_b: Tensor) -> Tensor:
        """Mirror, zoom, rotation and shift as one bilinear resampling; the border is continued outwards."""
        angle = normal_b4[:, 0] * math.radians(self.rotate_deg)
        zoom = torch.exp(normal_b4[:, 1] * self.scale)
        # In the grid's units the picture is 2 wide.
        shift_b2 = normal_b4[:, 2:] * self.shift_px * 2 / x.shape[-1]
        mirror = torch.where(mirror_b < self.flip, -1.0, 1.0)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        row_x = torch.stack([mirror * cos, -mirror * sin, shift_b2[:, 0]], 1)
        row_y = torch.stack([sin, cos, shift_b2[:, 1]], 1)
        grid = F.affine_grid(torch.stack([row_x, row_y], 1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _recolour(self, x: Tensor, uniform_b5: Tensor) -> Tensor:
        """Contrast about the picture's mean, brightness, and a gain for each channel, put together as one gain and one
        offset."""
        signed = (2 * uniform_b5 - 1)[:, :, None, None]
        contrast, warmth = torch.exp(signed[:, 0:1] * self.contrast), torch.exp(signed[:, 2:5] * self.warmth)
        mean = x.mean((1, 2, 3), keepdim=True)
        # From ((mean + (x - mean) contrast + 2 brightness) + 1) warmth - 1: in [-1, 1], black is -1.
        offset = (mean * (1 - contrast) + 2 * self.brightness * signed[:, 1:2] + 1) * warmth - 1
        return torch.addcmul(offset, x, contrast * warmth)

    def _smear(self, x: Tensor, uniform_b4: Tensor) -> Tensor:
        """Blur and loss of resolution: both linear and separable, so y = M x M^T with one matrix M for each picture.

        The draws are on the CPU, where it is known which pictures are meant without waiting for a GPU.
        """
        blurred, shrunk = uniform_b4[:, 0] < self.blur, uniform_b4[:, 2] < self.low_resolution
        rows = (blurred | shrunk).nonzero().squeeze(1)
        if len(rows) == 0:
            return x
        sigma_px = torch.where(blurred, self.blur_px * uniform_b4[:, 1], 0.0)[rows]
        sizes = self.low_resolution_px + uniform_b4[:, 3] * (x.shape[-1] - self.low_resolution_px)
        sizes = torch.where(shrunk, sizes, float(x.shape[-1]))[rows].long()
        rows = rows.to(x.device)
        shrink = _shrinkers(x.shape[-1], x.device)[sizes.to(x.device)]
        matrix = (shrink @ _blurs(sigma_px.to(x.device), x.shape[-1]))[:, None]
        return x.index_copy(0, rows, matrix @ x[rows] @ matrix.transpose(2, 3))

    def _erase(self, x: Tensor, uniform_b6: Tensor, colour_b311: Tensor) -> Tensor:
        """One rectangle in one colour. Zhong et al. (2020), algorithm 1, without redrawing:
        https://arxiv.org/abs/1708.04896"""
        area = uniform_b6[:, 1] * self.erase_area * (uniform_b6[:, 0] < self.erase)
        aspect = torch.exp((2 * uniform_b6[:, 2] - 1) * math.log(3.0))
        inside = _band((area * aspect).sqrt(), uniform_b6[:, 3], x.shape[2])[:, None, :, None]
        inside = inside & _band((area / aspect).sqrt(), uniform_b6[:, 4], x.shape[3])[:, None, None, :]
        return torch.where(inside, 2 * colour_b311 - 1, x)


def _band(share_b: Tensor, place_b: Tensor, size_px: int) -> Tensor:
    """(b, size_px) bool: which pixels lie in a band that covers `share` of the side, placed inside the picture by
    `place`."""
    length = share_b.clamp(max=1) * size_px
    start = place_b * (size_px - length)
    pixel = torch.arange(size_px, device=share_b.device) + 0.5
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])


@lru_cache(maxsize=4)
def _shrinkers(size_px: int, device: torch.device) -> Tensor:
    """(size_px + 1, size_px, size_px): entry n takes a line of pixels to n pixels (area average) and back (linear)."""
    eye = torch.eye(size_px)[None]
    small = torch.stack([_shrinker(eye, n) for n in range(1, size_px)])
    return torch.cat([torch.zeros_like(eye), small, eye]).to(device)


def _shrinker(eye: Tensor, pixels: int) -> Tensor:
    down = F.interpolate(eye, size=pixels, mode="area")
    return F.interpolate(down, size=eye.shape[-1], mode="linear", align_corners=False)[0].T


def _blurs(sigma_px_b: Tensor, size_px: int) -> Tensor:
    """(b, size_px, size_px): Gaussian blurs whose weights sum to 1 at every pixel; sigma 0 is the identity."""
    pixel = torch.arange(size_px, device=sigma_px_b.device, dtype=torch.float32)
    squared = (pixel[:, None] - pixel) ** 2
    weight = torch.exp(-squared / (2 * sigma_px_b.clamp(min=1e-3) ** 2)[:, None, None])
    return weight / weight.sum(-1, keepdim=True)
