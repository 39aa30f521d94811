"""RandAugment as IDiff-Face has it: a mirror image, then operations drawn from a list, each with a random magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from recognition.augment import checks, photometric
from recognition.augment.draws import pick
from recognition.augment.levels import Augmentation, Levels, where
from recognition.augment.warping import affine_nearest

BINS = 31  # torchvision's num_magnitude_bins: magnitude 30 is the strongest


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """A number of operations for each picture, drawn with replacement from `OPERATIONS`, on 8-bit levels as PIL's.

    IDiff-Face's list is torchvision's RandAugment without ShearY and TranslateY and with Grayscale. It also draws each
    magnitude, from 1 to `magnitude`, where the paper and torchvision hold it fixed. Moved pixels are the nearest ones, and
    what comes from beyond the border is black.

    Args:
        operations: Number of operations for each picture, in [0, 16].
        magnitude: Largest magnitude drawn, in [1, 30]. Strengths at 30: shear 0.3, shift 150 / 331 of the width,
            rotation 30 degrees, factors of brightness, colour, contrast and sharpness 1 +- 0.9, posterize to 4 bits,
            solarize from level 0.
        flip: Probability of the mirror image, which comes first.

    Raises:
        ValueError: If a field is out of range.

    References:
        RandAugment (Cubuk et al., 2020), https://arxiv.org/abs/1909.13719; IDiff-Face (Boutros et al., 2023),
        https://arxiv.org/abs/2308.04995, face_recognition_training/utils/rand_augment.py in fdbtrs/IDiff-Face
    """

    operations: int = 4
    magnitude: int = 16
    flip: float = 0.5

    def __post_init__(self) -> None:
        checks.whole(self, "operations", 0, 16)
        checks.whole(self, "magnitude", 1, BINS - 1)
        checks.probabilities(self, "flip")

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Draws 1 number and 3 for each operation for each picture."""
        mirrored = torch.rand(len(levels), generator=generator)
        uniform = torch.rand(len(levels), self.operations, 3, generator=generator)
        levels = where(mirrored < self.flip, levels, lambda x, _: x.flip(3))
        for slot in range(self.operations):
            levels = self._one_each(levels, uniform[:, slot])
        return levels

    def _one_each(self, levels: Levels, uniform: Float32[Tensor, "b 3"]) -> Levels:
        """One operation on every picture: those that drew the same one are changed together."""
        drawn = pick(uniform[:, 0], len(OPERATIONS))
        share = (1 + pick(uniform[:, 1], self.magnitude)) / (BINS - 1)
        sign = torch.where(uniform[:, 2] < 0.5, 1.0, -1.0)
        for index, operation in enumerate(OPERATIONS.values()):
            levels = where(
                drawn == index,
                levels,
                lambda x, rows, operation=operation: operation(x, share[rows], sign[rows]),  # type: ignore[misc]
            )
        return levels


Share = Float32[Tensor, " b"]
Operation = Callable[[Levels, Share, Share], Levels]


def _shear_x(levels: Levels, share: Share, sign: Share) -> Levels:
    """The row at height y moves by 0.3 share y to the left (sign 1): sheared about the top left corner."""
    return affine_nearest(levels, _matrix(levels, b=0.3 * share * sign))


def _translate_x(levels: Levels, share: Share, sign: Share) -> Levels:
    """By whole pixels to the right (sign 1), up to 150 / 331 of the width."""
    shift = (150 / 331 * levels.shape[3] * share).floor()
    return affine_nearest(levels, _matrix(levels, c=-shift * sign))


def _rotate(levels: Levels, share: Share, sign: Share) -> Levels:
    """Anticlockwise (sign 1) about the centre, up to 30 degrees."""
    angle = (share * sign).double() * math.radians(30)
    cos, sin = angle.cos(), angle.sin()
    x, y = levels.shape[3] / 2, levels.shape[2] / 2
    moved_x, moved_y = x - cos * x + sin * y, y - sin * x - cos * y
    return affine_nearest(levels, _matrix(levels, a=cos, b=-sin, c=moved_x, d=sin, e=cos, f=moved_y))


def _matrix(levels: Levels, **entries: Tensor) -> Float64[Tensor, "b 6"]:
    """The identity but for the entries named: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    identity = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 1.0, "f": 0.0}
    columns = [entries[k].double() if k in entries else torch.full((len(levels),), v) for k, v in identity.items()]
    return torch.stack([column.double() for column in columns], 1)


def _enhanced(enhance: Callable[[Levels, Share], Levels]) -> Operation:
    """An operation of PIL's ImageEnhance with a factor of 1 +- 0.9 share."""
    return lambda levels, share, sign: enhance(levels, (1 + 0.9 * share * sign).to(levels.device))


def _posterize(levels: Levels, share: Share, sign: Share) -> Levels:
    return photometric.posterize(levels, (8 - (4 * share).round()).to(levels.device))


def _solarize(levels: Levels, share: Share, sign: Share) -> Levels:
    return photometric.solarize(levels, (255 * (1 - share)).to(levels.device))


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda levels, share, sign: levels,
    "ShearX": _shear_x,
    "TranslateX": _translate_x,
    "Rotate": _rotate,
    "Brightness": _enhanced(photometric.brightness),
    "Color": _enhanced(photometric.saturation),
    "Contrast": _enhanced(photometric.contrast),
    "Sharpness": _enhanced(photometric.sharpness),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": lambda levels, share, sign: photometric.autocontrast(levels),
    "Equalize": lambda levels, share, sign: photometric.equalize(levels),
    "Grayscale": lambda levels, share, sign: photometric.grey(levels).expand(-1, 3, -1, -1),
}
