"""Random erasing: a rectangle of each chosen picture is painted over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from recognition.augment import checks
from recognition.augment.draws import WINDOW_DRAWS, inside, normal_noise, seeds, windows
from recognition.augment.levels import Augmentation, Levels, where


@dataclass(frozen=True)
class Erase(Augmentation):
    """Paints a rectangle over, with the parameters and defaults of torchvision's RandomErasing.

    torchvision erases what is already normalised, and so does `value` speak of (x - 127.5) / 127.5: 0 is mid grey. Its
    order is therefore last in a `Compose`: mid grey is level 127.5, which the steps that want whole levels truncate.
    A picture none of whose 10 tries fits strictly inside stays as it is, as there.

    Args:
        p: Probability per picture.
        scale: Smallest and largest area erased, as a share of the picture, in [0, 1].
        ratio: Smallest and largest height / width of the rectangle, in [0.01, 100].
        value: The colour, in [-1, 1]; or "random": standard normal noise for each value, clipped to [-1, 1].

    Raises:
        ValueError: If a field is out of range.

    References:
        Zhong et al. (2020), algorithm 1, https://arxiv.org/abs/1708.04896
    """

    p: float = 0.5
    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    value: float | str = 0.0

    def __post_init__(self) -> None:
        checks.probabilities(self, "p")
        checks.interval(self, "scale", 0, 1)
        checks.interval(self, "ratio", 0.01, 100)
        if self.value != "random":
            checks.number(self, "value", -1, 1)

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Draws 23 numbers and a seed for each picture."""
        uniform = torch.rand(len(levels), 1 + WINDOW_DRAWS, generator=generator)
        seed = seeds(len(levels), generator)
        height, width = levels.shape[2:]
        # Strictly inside, as torchvision asks; its ratio is height / width, that of `windows` width / height.
        upright = (1 / self.ratio[1], 1 / self.ratio[0])
        window, fits = windows(uniform[:, 1:], (height, width), self.scale, upright, strict=True)
        chosen = (uniform[:, 0] < self.p) & fits
        return where(chosen, levels, lambda x, rows: self._painted(x, window[rows], seed[rows]))

    def _painted(self, levels: Tensor, window: Int64[Tensor, "b 4"], seed: Int64[Tensor, " b"]) -> Tensor:
        erased = inside(window.to(levels.device), (levels.shape[2], levels.shape[3]))
        if self.value == "random":
            colour = normal_noise(seed.to(levels.device), levels.shape[1:]).clamp_(-1, 1)
        else:
            colour = torch.tensor(float(self.value), device=levels.device)
        return torch.where(erased, colour * 127.5 + 127.5, levels)
