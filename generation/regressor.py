"""The bundled regressor: what a photograph of the world is like, read from its pixels alone.

It sees the whole picture, for pose and light, and the eyes and the mouth cut out of the aligned crop of the face, where
they are always in one place. Without them a network as small as this does not learn a smile: in the whole picture a
smile moves two pixels, and a turn of the head twenty.

It reads what a generator was asked for: pose, expression, gaze, age, light, camera, glasses and hat. It has learnt them
from renders, where they are exact, of two framings: whole pictures, and close-ups.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generation.layers import Residual, conv

SIZE_PX = 112

NUMBERS: tuple[str, ...] = (
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "smile",
    "mouth_open",
    "brow_raise",
    "eye_closure",
    "gaze_yaw_deg",
    "gaze_pitch_deg",
    "age_years",
    "light_azimuth_deg",
    "light_elevation_deg",
    "light_warmth",
    "ambient",
    "exposure_ev",
    "white_balance",
    "blur_px",
    "low_resolution_px",
)
CLASSES: dict[str, int] = {"glasses": 4, "hat": 4}
LOGARITHMIC = "low_resolution_px"  # read as log2, up to the side of the picture, where it has no effect any more


EYES = slice(28, 66), slice(18, 94)  # rows and columns of an aligned crop
MOUTH = slice(74, 112), slice(26, 86)


class _Detail(nn.Module):
    """A part of the face at full resolution, whatever its brightness and contrast: 64 features."""

    def __init__(self, window: tuple[slice, slice]) -> None:
        super().__init__()
        self.window = window
        rows, columns = (-(-(span.stop - span.start) // 4) for span in window)  # halved twice
        self.trunk = nn.Sequential(
            conv(3, 16),
            conv(16, 32, stride=2),
            Residual(32),
            conv(32, 64, stride=2),
            conv(64, 64),
            nn.Conv2d(64, 16, 1),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 64),
            nn.ReLU(inplace=True),
        )

    def forward(self, crops: Tensor) -> Tensor:
        seen = crops[:, :, self.window[0], self.window[1]]
        level = seen.mean((1, 2, 3), keepdim=True)
        contrast = (seen - level).square().mean((1, 2, 3), keepdim=True).add(1e-3).sqrt()
        return self.trunk((seen - level) / contrast)


class Regressor(nn.Module):
    """Maps RGB pictures and the aligned crops of their faces, (x - 127.5) / 127.5, to what is in them.

    Gives standardised numbers, and the logits of glasses and hat.

    Args:
        mean, std: Of the numbers it is trained on, in the order of `NUMBERS`; low resolution as log2. The defaults are
            for a model whose state is loaded next.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " a"] | None = None, std: Float[Tensor, " a"] | None = None) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 24, 5, 4, 2, bias=False),  # 28x28
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            conv(24, 32),
            conv(32, 64, stride=2),  # 14x14
            Residual(64),
            conv(64, 128, stride=2),  # 7x7: sees the whole head
            Residual(128),
        )
        self.places = nn.Conv2d(128, 16, 1)  # where things are is what pose and light are about: not averaged
        self.eyes, self.mouth = _Detail(EYES), _Detail(MOUTH)
        self.out = nn.Sequential(
            nn.Linear(16 * 7 * 7 + 128 + 2 * 64, 160),
            nn.ReLU(inplace=True),
            nn.Linear(160, len(NUMBERS) + sum(CLASSES.values())),
        )
        self.register_buffer("mean", torch.zeros(len(NUMBERS)) if mean is None else mean.clone())
        self.register_buffer("std", torch.ones(len(NUMBERS)) if std is None else std.clone())

    def forward(
        self, pixels: Float[Tensor, "b 3 112 112"], crops: Float[Tensor, "b 3 112 112"]
    ) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b g"], Float[Tensor, "b h"]]:
        far = self.trunk(pixels)
        seen = [self.places(far).flatten(1), far.mean((2, 3)), self.eyes(crops), self.mouth(crops)]
        numbers, glasses, hat = self.out(torch.cat(seen, 1)).float().split([len(NUMBERS), *CLASSES.values()], 1)
        return numbers, glasses, hat


class InUnits(nn.Module):
    """The regressor as it is exported: numbers in the attributes' own units, probabilities of the classes."""

    logarithmic: Tensor

    def __init__(self, regressor: Regressor) -> None:
        super().__init__()
        self.regressor = regressor
        place = NUMBERS.index(LOGARITHMIC)
        self.register_buffer("logarithmic", torch.arange(len(NUMBERS)) == place, persistent=False)

    def forward(
        self, pixels: Float[Tensor, "b 3 112 112"], crops: Float[Tensor, "b 3 112 112"]
    ) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b g"], Float[Tensor, "b h"]]:
        numbers, glasses, hat = self.regressor(pixels, crops)
        numbers = numbers * self.regressor.std + self.regressor.mean
        numbers = torch.where(self.logarithmic, torch.exp(math.log(2) * numbers.clamp(max=10)), numbers)
        return numbers, glasses.softmax(1), hat.softmax(1)
