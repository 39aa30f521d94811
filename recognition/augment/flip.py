"""The mirror image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recognition.augment import checks
from recognition.augment.levels import Augmentation, Levels, where


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirrors left and right.

    Args:
        p: Probability per picture.

    Raises:
        ValueError: If p is outside [0, 1].
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        checks.probabilities(self, "p")

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Draws one number for each picture."""
        uniform = torch.rand(len(levels), generator=generator)
        return where(uniform < self.p, levels, lambda x, _: x.flip(3))
