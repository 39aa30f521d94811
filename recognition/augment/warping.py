"""Moving pixels: affine maps to the nearest pixel as Pillow's, and perspective ones, interpolated.

What comes from beyond the border is black.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Float64
from torch import Tensor
from torch.nn import functional as F

from recognition.augment.levels import Levels, rounded


def affine_nearest(levels: Levels, matrix: Float64[Tensor, "b 6"]) -> Levels:
    """PIL's `Image.transform(size, AFFINE, (a, b, c, d, e, f), NEAREST)`: the pixel at (x, y) comes from
    (a x + b y + c, d x + e y + f), pixel centres at halves.

    In 16-bit fixed point, as PIL counts: rounding decides which neighbour is the nearest.

    Args:
        levels: The pictures.
        matrix: Output to input, in pixels, on the CPU in float64.
    """
    b, _, height, width = levels.shape
    a, bb, c, d, e, f = matrix.unbind(1)
    fixed = torch.stack([a, bb, c + (a + bb) / 2, d, e, f + (d + e) / 2], 1).mul(65536).add(0.5).floor().long()
    a, bb, c, d, e, f = fixed.to(levels.device)[:, :, None, None].unbind(1)
    x = torch.arange(width, device=levels.device)
    y = torch.arange(height, device=levels.device)[:, None]
    from_x, from_y = (a * x + bb * y + c) >> 16, (d * x + e * y + f) >> 16
    known = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    index = from_y.clamp(0, height - 1) * width + from_x.clamp(0, width - 1)
    taken = levels.flatten(2).gather(2, index.view(b, 1, -1).expand(-1, 3, -1)).view_as(levels)
    return taken * known[:, None]


def perspective(levels: Levels, corners: Float32[Tensor, "b 4 2"]) -> Levels:
    """The picture's corners come from `corners`, straight lines stay straight; bilinear, rounded to 8 bits.

    Args:
        levels: The pictures.
        corners: (x, y) in the input of the output's top left, top right, bottom right and bottom left corner, in
            shares of the picture's width and height; convex, on the CPU.
    """
    height, width = levels.shape[2:]
    matrix = _square_to(corners.double()).float().to(levels.device)
    u = (torch.arange(width, device=levels.device) + 0.5) / width
    v = (torch.arange(height, device=levels.device) + 0.5) / height
    point = torch.stack([u.expand(height, -1), v[:, None].expand(-1, width), torch.ones_like(u).expand(height, -1)], -1)
    x, y, z = torch.einsum("bij,hwj->bhwi", matrix, point).unbind(-1)
    grid = torch.stack([x / z, y / z], -1) * 2 - 1
    return rounded(F.grid_sample(levels, grid, mode="bilinear", padding_mode="zeros", align_corners=False))


def _square_to(corners: Float64[Tensor, "b 4 2"]) -> Float64[Tensor, "b 3 3"]:
    """The projective map that takes the unit square to the corners: Heckbert (1989), section 2.2.3, in closed form."""
    p0, p1, p2, p3 = corners.unbind(1)
    d1, d2, excess = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    area = _cross(d1, d2)
    g, h = (_cross(excess, d2) / area)[:, None], (_cross(d1, excess) / area)[:, None]
    rows = torch.stack([p1 - p0 + g * p1, p3 - p0 + h * p3, p0], 2)
    return torch.cat([rows, torch.stack([g, h, torch.ones_like(g)], 2)], 1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
