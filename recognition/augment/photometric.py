"""Brightness, contrast, colour, sharpness, hue and tone curves, as Pillow computes them on 8-bit pictures.

torchvision's ColorJitter and RandAugment call these on PIL images, and so do the published recipes. Every function
takes and gives whole levels, with one parameter for each picture on the pictures' device.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from recognition.augment.levels import Levels, rounded

PerPicture = Float32[Tensor, " b"]


def blended(degenerate: Tensor, levels: Levels, factor: PerPicture) -> Levels:
    """degenerate + factor (levels - degenerate), clipped and truncated as PIL's `Image.blend` does; factor 1 changes
    nothing, and beyond 1 the picture is pushed away from the degenerate one."""
    return (degenerate + factor[:, None, None, None] * (levels - degenerate)).clamp_(0, 255).floor_()


def grey(levels: Levels) -> Float32[Tensor, "b 1 h w"]:
    """PIL's "L": 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point. All its sums are below 2^24: exact in float32."""
    weights = torch.tensor([19595.0, 38470.0, 7471.0], device=levels.device)
    return (((levels * weights[:, None, None]).sum(1, keepdim=True) + 32768) / 65536).floor_()


def mean_grey(levels: Levels) -> Float32[Tensor, "b 1 1 1"]:
    """The mean of `grey`, to the nearest level; float64 keeps the sum exact for pictures of any size."""
    return (grey(levels).double().mean((1, 2, 3), keepdim=True) + 0.5).floor().float()


def brightness(levels: Levels, factor: PerPicture) -> Levels:
    """PIL's ImageEnhance.Brightness: 0 is black."""
    return blended(torch.zeros_like(levels), levels, factor)


def contrast(levels: Levels, factor: PerPicture) -> Levels:
    """PIL's ImageEnhance.Contrast: 0 is the picture's mean grey."""
    return blended(mean_grey(levels), levels, factor)


def saturation(levels: Levels, factor: PerPicture) -> Levels:
    """PIL's ImageEnhance.Color: 0 is a grey picture."""
    return blended(grey(levels), levels, factor)


def sharpness(levels: Levels, factor: PerPicture) -> Levels:
    """PIL's ImageEnhance.Sharpness: 0 is smoothed by its 3 x 3 kernel (5 in the centre, 1 elsewhere, over 13)."""
    return blended(_smoothed(levels), levels, factor)


def _smoothed(levels: Levels) -> Levels:
    """PIL's ImageFilter.SMOOTH, which leaves the outermost pixels as they are."""
    smooth = levels.clone()
    if min(levels.shape[2:]) >= 3:
        nine = F.avg_pool2d(levels, 3, stride=1) * 9
        # Sums over 13 are never half a level, so rounding to even, or up, is one.
        smooth[:, :, 1:-1, 1:-1] = ((nine + 4 * levels[:, :, 1:-1, 1:-1]) / 13).round_()
    return smooth


def shift_hue(levels: Levels, turns: PerPicture) -> Levels:
    """Turns the hue of the HSV colour circle by `turns` (1 is all the way round), on real numbers, then rounds.

    PIL does so in HSV of 8 bits, which loses colours: a turn of 0 changes its picture, but not this one.
    """
    value, least = levels.amax(1), levels.amin(1)
    chroma = value - least
    sixths = _hue_sixths(levels, value, chroma) + 6 * turns[:, None, None]
    # f(n) = V - C max(0, min(k, 4 - k, 1)) with k = (n + H / 60 deg) mod 6, for R, G, B: n = 5, 3, 1 (Smith, 1978).
    k = (sixths[:, None] + torch.tensor([5.0, 3.0, 1.0], device=levels.device)[:, None, None]) % 6
    return rounded(value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _hue_sixths(levels: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Hue in sixths of a turn from red; where two channels are largest, both formulas agree."""
    red, green, blue = levels.unbind(1)
    step = chroma.clamp(min=1)  # whole levels: chroma is 0, and the hue without effect, or at least 1
    return torch.where(
        value == red,
        (green - blue) / step,
        torch.where(value == green, 2 + (blue - red) / step, 4 + (red - green) / step),
    )


def posterize(levels: Levels, bits: PerPicture) -> Levels:
    """PIL's ImageOps.posterize: keeps the highest `bits` bits."""
    step = torch.exp2(8 - bits)[:, None, None, None]
    return (levels / step).floor_() * step


def solarize(levels: Levels, threshold: PerPicture) -> Levels:
    """PIL's ImageOps.solarize: levels from `threshold` on are inverted."""
    return torch.where(levels < threshold[:, None, None, None], levels, 255 - levels)


def autocontrast(levels: Levels) -> Levels:
    """PIL's ImageOps.autocontrast: each channel is stretched to 0 ... 255; a channel of one level stays."""
    low, high = levels.amin((2, 3)).double(), levels.amax((2, 3)).double()
    # float64, a true division (torch's 255 / x multiplies by 1 / x) and this order, as PIL computes it: the truncation
    # shows the last bit.
    scale = torch.div(torch.full_like(low, 255), (high - low).clamp(min=1))[:, :, None]
    table = _identity(levels) * scale + -low[:, :, None] * scale
    flat = (high <= low)[:, :, None]
    return _looked_up(torch.where(flat, _identity(levels), table.clamp_(0, 255).floor_()), levels)


def equalize(levels: Levels) -> Levels:
    """PIL's ImageOps.equalize: the histogram of each channel is made even."""
    count = _histogram(levels)
    last = count.gather(2, levels.amax((2, 3))[:, :, None].long())
    step = (count.sum(2, keepdim=True) - last) // 255
    below = count.cumsum(2) - count + step // 2
    table = torch.where(step == 0, _identity(levels).long(), (below // step.clamp(min=1)).clamp_(max=255))
    return _looked_up(table, levels)


def _histogram(levels: Levels) -> Int64[Tensor, "b 3 256"]:
    index = levels.flatten(2).long()
    count = torch.zeros(*index.shape[:2], 256, dtype=torch.int64, device=levels.device)
    return count.scatter_add_(2, index, torch.ones_like(index))


def _identity(levels: Levels) -> Tensor:
    return torch.arange(256, dtype=torch.float64, device=levels.device)


def _looked_up(table: Tensor, levels: Levels) -> Levels:
    """Every level replaced by its entry in the table (b, 3, 256) of its picture and channel."""
    return table.float().gather(2, levels.flatten(2).long()).view_as(levels)
