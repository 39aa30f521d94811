"""What JPEG does to a picture: YCbCr, 4:2:0, 8 x 8 cosine transform, quantisation, and back, for a batch at once.

The steps, tables and roundings are those of libjpeg(-turbo) with the defaults that Pillow saves and opens with: Annex
K's tables scaled by quality, box averages down and the triangle ("fancy") filter up for chroma. Entropy coding loses
nothing and is left out. References: ITU-T T.81; libjpeg's jcparam.c, jcsample.c, jdsample.c.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from recognition.augment.levels import Levels

# ITU-T T.81, tables K.1 and K.2.
_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
]
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
_BLOCK_PX = 16  # a minimum coded unit of 4:2:0


def jpeg(levels: Levels, quality: Int64[Tensor, " b"]) -> Levels:
    """Each picture as it comes back from a JPEG file of its quality in [1, 100]; `quality` on the pictures' device."""
    height, width = levels.shape[2:]
    luma, chroma = _encoded(levels)
    luma = _quantised(luma, tables(quality, _LUMA))[:, :, :height, :width]
    chroma = _quantised(chroma, tables(quality, _CHROMA))[:, :, : (height + 1) // 2, : (width + 1) // 2]
    return _to_rgb(luma, _enlarged(chroma)[:, :, :height, :width])


def tables(quality: Int64[Tensor, " b"], standard: list[list[int]]) -> Float32[Tensor, "b 8 8"]:
    """libjpeg's jpeg_set_quality: the standard table in per cent, within 1 ... 255 (baseline)."""
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    table = torch.tensor(standard, device=quality.device)
    return ((table * percent[:, None, None] + 50) // 100).clamp(1, 255).float()


def _encoded(levels: Levels) -> tuple[Tensor, Tensor]:
    """Luma (b, 1, h, w) and chroma (b, 2, h / 2, w / 2), whole levels, the border continued to whole units."""
    height, width = levels.shape[2:]
    whole = F.pad(levels, (0, -width % _BLOCK_PX, 0, -height % _BLOCK_PX), mode="replicate")
    matrix = torch.tensor(_TO_YCC, device=levels.device)
    ycc = torch.einsum("kc,bchw->bkhw", matrix, whole)
    luma = ycc[:, :1].round()
    chroma = (ycc[:, 1:] + 128.4999).floor_().clamp_(0, 255)  # halves go down
    # libjpeg rounds the mean of 4 by 1/4 and 1/2 in turn, so as to favour no side.
    bias = 1 + torch.arange(chroma.shape[3] // 2, device=levels.device) % 2
    return luma, ((F.avg_pool2d(chroma, 2) * 4 + bias) / 4).floor_()


def _quantised(plane: Tensor, table_b88: Tensor) -> Tensor:
    """The plane (b, c, h, w) by way of quantised coefficients of its 8 x 8 blocks."""
    b, c, height, width = plane.shape
    blocks = (plane - 128).view(b, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    dct, table = _dct(plane.device), table_b88[:, None, None, None]
    # libjpeg's transform gives whole eighths, and its halves go away from zero: at high quality many are halves.
    coefficients = (dct @ blocks @ dct.T * 8).round_() / 8
    steps = coefficients.sign() * (coefficients.abs() / table + 0.5).floor_()
    restored = dct.T @ (steps * table) @ dct
    return (restored.transpose(3, 4).reshape(b, c, height, width) + 128).round_().clamp_(0, 255)


def _dct(device: torch.device) -> Float32[Tensor, "8 8"]:
    """The orthonormal cosine transform: T.81 A.3.3 written as a matrix."""
    frequency, pixel = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * pixel + 1) * frequency * torch.pi / 16) / 2
    matrix[0] /= 2**0.5
    return matrix.float().to(device)


def _enlarged(chroma: Tensor) -> Tensor:
    """Twice as high and wide by the triangle filter, 3/4 and 1/4 along each axis, rounded as jdsample.c does."""
    edged = F.pad(chroma, (1, 1, 1, 1), mode="replicate")
    rows = torch.stack([3 * edged[:, :, 1:-1] + edged[:, :, :-2], 3 * edged[:, :, 1:-1] + edged[:, :, 2:]], 3)
    rows = rows.flatten(2, 3)
    left, right = 3 * rows[..., 1:-1] + rows[..., :-2] + 8, 3 * rows[..., 1:-1] + rows[..., 2:] + 7
    return (torch.stack([left, right], 4).flatten(3, 4) / 16).floor_()


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """JFIF's inverse; chroma's contribution is rounded before it is added, as libjpeg's tables have it."""
    cb, cr = chroma[:, 0] - 128, chroma[:, 1] - 128
    added = torch.stack([1.402 * cr, -0.344136286 * cb - 0.714136286 * cr, 1.772 * cb], 1)
    return (luma + added.round_()).clamp_(0, 255)
