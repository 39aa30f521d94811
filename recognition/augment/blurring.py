"""Gaussian blurs, round and along a line."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from recognition.augment.levels import Levels, rounded


def gaussian_kernels(
    along_px: Float32[Tensor, " b"], across_px: Float32[Tensor, " b"], angle: Float32[Tensor, " b"], largest_px: float
) -> Float32[Tensor, "b k k"]:
    """Gaussians of covariance R diag(along^2, across^2) R^T, sampled at whole pixels up to 3 `largest_px`; sums 1.

    Args:
        along_px: Standard deviation in the direction of `angle`, above 0.
        across_px: Standard deviation across it, above 0.
        angle: In radians, from the x axis towards the y axis, which points down.
        largest_px: Largest standard deviation possible: it fixes the size, so that a picture's is not its batch's.
    """
    radius = math.ceil(3 * largest_px)
    offset = torch.arange(-radius, radius + 1, device=angle.device, dtype=torch.float32)
    y, x = offset[:, None], offset[None, :]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = (cos * x + sin * y) / along_px[:, None, None], (cos * y - sin * x) / across_px[:, None, None]
    weight = torch.exp(-(along**2 + across**2) / 2)
    return weight / weight.sum((1, 2), keepdim=True)


def convolved(levels: Levels, kernels: Float32[Tensor, "b k k"]) -> Levels:
    """Each picture with its own kernel (point-symmetric, odd); the picture is mirrored about its outermost pixels, as
    by `cv2.filter2D`; rounded to 8 bits."""
    b, _, height, width = levels.shape
    radius = kernels.shape[1] // 2
    rows, columns = _mirrored(height, radius, levels.device), _mirrored(width, radius, levels.device)
    wide = levels[:, :, rows][:, :, :, columns].reshape(1, b * 3, height + 2 * radius, width + 2 * radius)
    out = F.conv2d(wide, kernels[:, None].repeat_interleave(3, 0), groups=b * 3)
    return rounded(out.view_as(levels))


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Indices of -radius ... size - 1 + radius, mirrored as often as it takes for a picture smaller than the radius."""
    period = max(2 * size - 2, 1)
    index = torch.arange(-radius, size + radius, device=device).abs() % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
