"""AdaFace's augmentation: crop, low resolution, photometric, then a mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from recognition.augment import checks, photometric
from recognition.augment.draws import WINDOW_DRAWS, between, inside, pick, windows
from recognition.augment.levels import Augmentation, Levels, where
from recognition.augment.resampling import KINDS, there_and_back


@dataclass(frozen=True)
class AdaFaceAugment(Augmentation):
    """The three augmentations of AdaFace, each with its own probability, in its order, on 8-bit levels as its.

    Crop: a rectangle keeps its place on a black canvas. Low resolution: down by a random share of the side and back,
    each way with one of OpenCV's five interpolations. Photometric: torchvision's ColorJitter on PIL images, that is
    brightness, contrast and saturation in random order. The authors' code sets each probability to 0 by default and to
    0.2 in their commands. It is right for RGB; their own pictures are BGR, so there red and blue swap grey weights.

    Args:
        crop: Probability of the crop.
        low_resolution: Probability of low resolution.
        photometric: Probability of the change of colours.
        flip: Probability of the mirror image.
        crop_scale: Smallest and largest area kept, as a share of the picture.
        crop_ratio: Smallest and largest width / height of what is kept.
        side_ratio: Smallest and largest share of the side that is shrunk to.
        brightness: Brightness is multiplied by a factor within 1 +- this, in [0, 1].
        contrast: The same for contrast, about the picture's mean grey.
        saturation: The same for the distance from grey.

    Raises:
        ValueError: If a field is out of range.

    References:
        AdaFace (Kim et al., 2022), https://arxiv.org/abs/2204.00964; dataset/augmenter.py in mk-minchul/AdaFace
    """

    crop: float = 0.2
    low_resolution: float = 0.2
    photometric: float = 0.2
    flip: float = 0.5
    crop_scale: Sequence[float] = (0.2, 1.0)
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3)
    side_ratio: Sequence[float] = (0.2, 1.0)
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5

    def __post_init__(self) -> None:
        checks.probabilities(self, "crop", "low_resolution", "photometric", "flip")
        checks.probabilities(self, "brightness", "contrast", "saturation")
        checks.interval(self, "crop_scale", 0, 1)
        checks.interval(self, "crop_ratio", 0.01, 100)
        checks.interval(self, "side_ratio", 0.01, 1)

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Draws 35 numbers for each picture."""
        uniform = torch.rand(len(levels), 4 + WINDOW_DRAWS + 3 + 6, generator=generator)
        chance, window, low, colour = uniform.split([4, WINDOW_DRAWS, 3, 6], 1)
        levels = where(
            chance[:, 0] < self.crop,
            levels,
            lambda x, rows: on_black(x, window[rows], self.crop_scale, self.crop_ratio),
        )
        levels = where(
            chance[:, 1] < self.low_resolution, levels, lambda x, rows: coarse(x, low[rows], self.side_ratio)
        )
        levels = where(chance[:, 2] < self.photometric, levels, lambda x, rows: self._jittered(x, colour[rows]))
        return where(chance[:, 3] < self.flip, levels, lambda x, _: x.flip(3))

    def _jittered(self, levels: Levels, uniform: Float32[Tensor, "b 6"]) -> Levels:
        """Three blends, each picture's in an order of its own: the order of three random keys."""
        order = uniform[:, 3:].argsort(1).to(levels.device)
        strength = torch.tensor([self.brightness, self.contrast, self.saturation])
        factor = (1 + (2 * uniform[:, :3] - 1) * strength).to(levels.device)
        for slot in order.unbind(1):
            levels = photometric.blended(_degenerate(levels, slot), levels, factor.gather(1, slot[:, None])[:, 0])
        return levels


def _degenerate(levels: Levels, operation: Tensor) -> Tensor:
    """What is blended with: black (0, brightness), the mean grey (1, contrast) or the grey picture (2, saturation)."""
    operation = operation[:, None, None, None]
    mean, grey = photometric.mean_grey(levels), photometric.grey(levels)
    return torch.where(operation == 2, grey, torch.where(operation == 1, mean, torch.zeros_like(mean)))


def on_black(
    levels: Levels,
    uniform: Float32[Tensor, "b draws"],
    scale: Sequence[float],
    ratio: Sequence[float],
) -> Levels:
    """Keeps a random rectangle of each picture where it is and blackens the rest.

    Where none of 10 tries fits, the largest rectangle of an allowed ratio in the centre, as in torchvision's
    RandomResizedCrop: for square pictures and a ratio of 1 in range, all of it.
    """
    size = (levels.shape[2], levels.shape[3])
    window, fits = windows(uniform, size, scale, ratio)
    window = torch.where(fits[:, None], window, torch.tensor(_central(size, ratio)))
    return levels * inside(window.to(levels.device), size)


def _central(size: tuple[int, int], ratio: Sequence[float]) -> tuple[int, int, int, int]:
    height, width = size
    high = min(height, max(1, round(width / ratio[0])))
    wide = min(width, max(1, round(height * ratio[1])))
    return (height - high) // 2, (width - wide) // 2, high, wide


def coarse(levels: Levels, uniform: Float32[Tensor, "b 3"], side_ratio: Sequence[float]) -> Levels:
    """Down to a random share of the side and back, the interpolation of each way drawn from OpenCV's five."""
    size = torch.tensor(levels.shape[2:])
    side = (between(uniform[:, :1], *side_ratio) * size).long().clamp(min=1).minimum(size)
    return there_and_back(levels, side, pick(uniform[:, 1], len(KINDS)), pick(uniform[:, 2], len(KINDS)))
