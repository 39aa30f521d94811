"""RandAugment as IDiff-Face has it: a mirror image, then operations drawn from a list, each with a random magnitude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from recognition.augment import checks, photometric
from recognition.augment.draws import pick
from recognition.augment.levels import Augmentation, Levels, where
from recognition.augment.warping import affine_nearest

STRONGEST = 30  # torchvision has 31 magnitudes, the first of which, 0, changes nothing


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """A number of operations for each picture, drawn with replacement from `OPERATIONS`, on 8-bit levels as PIL's.

    IDiff-Face's list is torchvision's RandAugment without ShearY and TranslateY and with Grayscale. It also draws each
    magnitude, from 1 to `magnitude`, where the paper and torchvision hold it fixed. Moved pixels are the nearest ones,
    and what comes from beyond the border is black.

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
        checks.whole(self, "magnitude", 1, STRONGEST)
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
        magnitude = (1 + pick(uniform[:, 1], self.magnitude)).double()
        sign = torch.where(uniform[:, 2] < 0.5, 1.0, -1.0).double()
        for index, operation in enumerate(OPERATIONS.values()):
            levels = where(
                drawn == index,
                levels,
                lambda x, rows, operation=operation: operation(x, magnitude[rows], sign[rows]),  # type: ignore[misc]
            )
        return levels


Magnitude = Float64[Tensor, " b"]  # whole numbers up to STRONGEST, on the CPU
Sign = Float64[Tensor, " b"]
Operation = Callable[[Levels, Magnitude, Sign], Levels]


def shear_x(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
    """The row at height y moves by up to 0.3 y to the left (sign 1): sheared about the top left corner."""
    return affine_nearest(levels, _matrix(levels, b=0.3 * sign * magnitude / STRONGEST))


def translate_x(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
    """By whole pixels to the right (sign 1), up to 150 / 331 of the width."""
    shift = (150 / 331 * levels.shape[3] * magnitude / STRONGEST).floor()
    return affine_nearest(levels, _matrix(levels, c=-sign * shift))


def rotate(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
    """Anticlockwise (sign 1) about the centre, up to 30 degrees."""
    angle = torch.deg2rad(30 * sign * magnitude / STRONGEST)
    cos, sin = angle.cos(), angle.sin()
    x, y = levels.shape[3] / 2, levels.shape[2] / 2
    return affine_nearest(
        levels, _matrix(levels, a=cos, b=-sin, c=x - cos * x + sin * y, d=sin, e=cos, f=y - sin * x - cos * y)
    )


def _matrix(levels: Levels, **entries: Tensor) -> Float64[Tensor, "b 6"]:
    """The identity but for the entries named: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f)."""
    identity = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 1.0, "f": 0.0}
    zero = torch.zeros(len(levels), dtype=torch.float64)
    return torch.stack([entries.get(name, zero + value) for name, value in identity.items()], 1)


def enhanced(enhance: Callable[[Levels, Tensor], Levels]) -> Operation:
    """An operation of PIL's ImageEnhance with a factor within 1 +- 0.9."""

    def operation(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
        return enhance(levels, (1 + 0.9 * sign * magnitude / STRONGEST).float().to(levels.device))

    return operation


def posterize(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
    """Down to 4 bits."""
    return photometric.posterize(levels, (8 - (4 * magnitude / STRONGEST).round()).float().to(levels.device))


def solarize(levels: Levels, magnitude: Magnitude, sign: Sign) -> Levels:
    """From level 0 on at the strongest."""
    return photometric.solarize(levels, (255 - 255 / STRONGEST * magnitude).float().to(levels.device))


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda levels, magnitude, sign: levels,
    "ShearX": shear_x,
    "TranslateX": translate_x,
    "Rotate": rotate,
    "Brightness": enhanced(photometric.brightness),
    "Color": enhanced(photometric.saturation),
    "Contrast": enhanced(photometric.contrast),
    "Sharpness": enhanced(photometric.sharpness),
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": lambda levels, magnitude, sign: photometric.autocontrast(levels),
    "Equalize": lambda levels, magnitude, sign: photometric.equalize(levels),
    "Grayscale": lambda levels, magnitude, sign: photometric.grey(levels).expand(-1, 3, -1, -1),
}
