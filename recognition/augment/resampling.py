"""Shrinking and enlarging as OpenCV does it: a resize is linear and separable, so y = R x C^T with two matrices.

The five kinds are those of `cv2.resize`, whose linear, cubic and lanczos4 look at 2, 4 and 8 pixels whatever the ratio:
they have no anti-aliasing when they shrink (PIL's and torchvision's have). Only area averages.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from recognition.augment.levels import Levels, rounded

NEAREST, LINEAR, AREA, CUBIC, LANCZOS4 = KINDS = ("nearest", "linear", "area", "cubic", "lanczos4")
_RADIUS = {LINEAR: 1, CUBIC: 2, LANCZOS4: 4}  # pixels looked at to each side


def there_and_back(
    levels: Levels, side: Int64[Tensor, "b 2"], down: Int64[Tensor, " b"], up: Int64[Tensor, " b"]
) -> Levels:
    """Each picture is resized to its own height and width, and back; rounded to 8 bits both times, as uint8 is.

    One product for the whole batch: the small pictures lie in the corner of a canvas of the full size, whose rest is
    multiplied by columns of zeros.

    Args:
        levels: The pictures.
        side: Height and width in pixels, at least 1 and at most the picture's, on the CPU.
        down: Index into `KINDS` of the way down, on the CPU.
        up: The same for the way back.
    """
    height, width = levels.shape[2:]
    small = _resized(levels, _smaller(height, levels.device), _smaller(width, levels.device), side, down)
    return _resized(small, _larger(height, levels.device), _larger(width, levels.device), side, up)


def _resized(levels: Tensor, rows: Tensor, columns: Tensor, side: Tensor, kind: Tensor) -> Tensor:
    kind, side = kind.to(levels.device), side.to(levels.device)
    row, column = rows[kind, side[:, 0]][:, None], columns[kind, side[:, 1]][:, None]
    return rounded(row @ levels @ column.transpose(2, 3))


@lru_cache(maxsize=4)
def _smaller(size_px: int, device: torch.device) -> Tensor:
    """(kind, size + 1, size, size): entry [k, n] takes a line of pixels to n pixels and zeros."""
    table = torch.zeros(len(KINDS), size_px + 1, size_px, size_px)
    for k, kind in enumerate(KINDS):
        for n in range(1, size_px + 1):
            table[k, n, :n] = torch.from_numpy(resize_matrix(size_px, n, kind))
    return table.to(device)


@lru_cache(maxsize=4)
def _larger(size_px: int, device: torch.device) -> Tensor:
    """(kind, size + 1, size, size): entry [k, n] takes the first n pixels of a line to all of it."""
    table = torch.zeros(len(KINDS), size_px + 1, size_px, size_px)
    for k, kind in enumerate(KINDS):
        for n in range(1, size_px + 1):
            table[k, n, :, :n] = torch.from_numpy(resize_matrix(n, size_px, kind))
    return table.to(device)


def resize_matrix(source: int, target: int, kind: str) -> Float64[np.ndarray, "target source"]:
    """The matrix by which `cv2.resize` takes a line of `source` pixels to one of `target`; rows sum to 1.

    Where a pixel is found by floor(), its argument is computed as OpenCV does, by the inverse of an inverse or in
    float32: the last bit decides.
    """
    if source == target:
        return np.eye(source)
    if kind == NEAREST:
        taken = np.floor(np.arange(target) * (1 / (target / source))).astype(int)
        return np.eye(source)[np.minimum(taken, source - 1)]
    if kind == AREA:
        return _area(source, target) if target < source else _area_enlarged(source, target)
    return _interpolated(source, target, kind)


def _area(source: int, target: int) -> np.ndarray:
    """Each pixel is the mean of the stretch of line that it covers."""
    ends = np.arange(target + 1) * (source / target)
    pixel = np.arange(source)
    covered = np.minimum(ends[1:, None], pixel + 1) - np.maximum(ends[:-1, None], pixel)
    return covered.clip(0) * (target / source)


def _area_enlarged(source: int, target: int) -> np.ndarray:
    """OpenCV's area when enlarging: pixels keep their areas, and are blended where a new pixel covers two of them."""
    left = np.floor(np.arange(target) * (1 / (target / source))).astype(int)
    share = (np.arange(target) + 1 - (left + 1) * (target / source)).clip(0).astype(np.float32) % 1
    return _two_or_more(source, [left, left + 1], [1 - share, share])


def _interpolated(source: int, target: int, kind: str) -> np.ndarray:
    """Pixel centres lie at halves; pixels beyond the border are the outermost ones."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    taps = [np.floor(centre).astype(int) + k for k in range(1 - _RADIUS[kind], 1 + _RADIUS[kind])]
    weights = [_kernel(kind, np.abs(centre - tap)) for tap in taps]
    return _two_or_more(source, taps, weights)


def _two_or_more(source: int, taps: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    matrix = np.zeros((len(taps[0]), source))
    for tap, weight in zip(taps, weights, strict=True):
        np.add.at(matrix, (np.arange(len(tap)), tap.clip(0, source - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True)


def _kernel(kind: str, d: np.ndarray) -> np.ndarray:
    """The weight of a pixel at distance d >= 0: a tent, Keys's cubic with a = -0.75, or Lanczos's window of 4."""
    if kind == LINEAR:
        return (1 - d).clip(0)
    if kind == LANCZOS4:
        return np.sinc(d) * np.sinc(d / 4)
    near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
