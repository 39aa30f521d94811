"""DigiFace's augmentation: what makes renders of a perfect camera look like photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from recognition.augment import checks, photometric
from recognition.augment.adaface import coarse, on_black
from recognition.augment.blurring import convolved, gaussian_kernels
from recognition.augment.draws import WINDOW_DRAWS, between, either_way, normal_noise, seeds
from recognition.augment.jpeg import jpeg
from recognition.augment.levels import Augmentation, Levels, rounded, where
from recognition.augment.warping import perspective

ACROSS_PX = 0.5  # of a motion blur: thinner than that, whole pixels cannot show its direction
_CORNERS = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@dataclass(frozen=True)
class DigiFaceAugment(Augmentation):
    """Mirror image and crop, then changes of appearance, then a warp, in the paper's order, on 8-bit levels.

    From the paper are the list, its order and every probability but the crop's; that "all images undergo random
    scaling, rotation and shift", after a change of aspect ratio (p = 0.1) and before each corner is shifted by itself;
    and, from its figure 6, the black canvas. It gives no strengths, and its code was never released: every range below
    is our choice, mild enough to look like the figure.

    Args:
        flip: Probability of the mirror image.
        crop: Probability of the crop, a rectangle that keeps its place on a black canvas. Ours: AdaFace's.
        blur: Probability of a Gaussian blur.
        noise: Probability of Gaussian noise, of its own in each channel.
        motion: Probability of motion blur: a Gaussian along a random direction.
        brightness: Probability of a change of brightness.
        contrast: Probability of a change of contrast.
        hue: Probability of a turn of the hue.
        saturation: Probability of a change of saturation.
        gray: Probability of a grey picture.
        low_resolution: Probability of being shrunk and enlarged again.
        jpeg: Probability of being compressed.
        warp: Probability of scaling, rotation, shift and shifted corners; 0 and `aspect` 0 is the paper's "appearance".
        aspect: Probability of a change of aspect ratio.
        crop_scale: Smallest and largest area kept, as a share of the picture.
        crop_ratio: Smallest and largest width / height of what is kept.
        blur_px: Smallest and largest standard deviation of the blur in pixels, in [0.1, 16].
        noise_levels: Smallest and largest standard deviation of the noise, in levels of 255.
        motion_px: Smallest and largest standard deviation of the motion blur along its direction, in [0.5, 16].
        brightness_change: Brightness is multiplied by a factor within 1 +- this, in [0, 1].
        contrast_change: The same for contrast.
        saturation_change: The same for saturation.
        hue_turns: Largest turn of the hue, either way, in [0, 0.5] of the colour circle.
        side_ratio: Smallest and largest share of the side that is shrunk to.
        jpeg_quality: Lowest and highest quality, whole numbers in [1, 100].
        warp_scale: Smallest and largest zoom, in [0.5, 2]; above 1 the face is larger.
        warp_rotate_deg: Largest rotation either way, in [0, 45].
        warp_shift: Largest shift along each axis either way, as a share of the side, in [0, 0.5].
        warp_corner: Largest shift of each corner along each axis, as a share of the side, in [0, 0.2].
        aspect_ratio: Smallest and largest stretch of width / height, in [0.5, 2]; the area stays.

    Raises:
        ValueError: If a field is out of range.

    References:
        DigiFace-1M (Bae et al., 2023), section 3.3, https://arxiv.org/abs/2210.02579
    """

    flip: float = 0.5
    crop: float = 0.2
    blur: float = 0.05
    noise: float = 0.035
    motion: float = 0.05
    brightness: float = 0.15
    contrast: float = 0.3
    hue: float = 0.1
    saturation: float = 0.1
    gray: float = 0.01
    low_resolution: float = 0.01
    jpeg: float = 0.05
    warp: float = 1.0
    aspect: float = 0.1
    crop_scale: Sequence[float] = (0.2, 1.0)
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3)
    blur_px: Sequence[float] = (0.5, 2.0)
    noise_levels: Sequence[float] = (2.0, 20.0)
    motion_px: Sequence[float] = (1.0, 3.0)
    brightness_change: float = 0.5
    contrast_change: float = 0.5
    saturation_change: float = 0.5
    hue_turns: float = 0.05
    side_ratio: Sequence[float] = (0.2, 1.0)
    jpeg_quality: Sequence[int] = (20, 90)
    warp_scale: Sequence[float] = (0.9, 1.1)
    warp_rotate_deg: float = 5.0
    warp_shift: float = 0.05
    warp_corner: float = 0.05
    aspect_ratio: Sequence[float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        checks.probabilities(self, "flip", "crop", "blur", "noise", "motion", "brightness", "contrast", "hue")
        checks.probabilities(self, "saturation", "gray", "low_resolution", "jpeg", "warp", "aspect")
        checks.probabilities(self, "brightness_change", "contrast_change", "saturation_change")
        checks.interval(self, "crop_scale", 0, 1)
        checks.interval(self, "crop_ratio", 0.01, 100)
        checks.interval(self, "blur_px", 0.1, 16)
        checks.interval(self, "noise_levels", 0, 255)
        checks.interval(self, "motion_px", ACROSS_PX, 16)
        checks.number(self, "hue_turns", 0, 0.5)
        checks.interval(self, "side_ratio", 0.01, 1)
        checks.interval(self, "jpeg_quality", 1, 100, int)
        checks.interval(self, "warp_scale", 0.5, 2)
        checks.number(self, "warp_rotate_deg", 0, 45)
        checks.number(self, "warp_shift", 0, 0.5)
        checks.number(self, "warp_corner", 0, 0.2)
        checks.interval(self, "aspect_ratio", 0.5, 2)

    def changed(self, levels: Levels, generator: torch.Generator) -> Levels:
        """Draws 61 numbers and a seed for each picture."""
        uniform = torch.rand(len(levels), 14 + WINDOW_DRAWS + 12 + 13, generator=generator)
        noise_seed = seeds(len(levels), generator)
        chance, window, strength, place = uniform.split([14, WINDOW_DRAWS, 12, 13], 1)
        levels = self._framed(levels, chance[:, :2], window)
        levels = self._taken(levels, chance[:, 2:5], strength[:, :4], noise_seed)
        levels = self._coloured(levels, chance[:, 5:10], strength[:, 4:8])
        levels = self._stored(levels, chance[:, 10:12], strength[:, 8:12])
        return self._warped(levels, chance[:, 12:], place)

    def _framed(self, levels: Levels, chance: Tensor, window: Tensor) -> Levels:
        levels = where(chance[:, 0] < self.flip, levels, lambda x, _: x.flip(3))
        return where(
            chance[:, 1] < self.crop,
            levels,
            lambda x, rows: on_black(x, window[rows], self.crop_scale, self.crop_ratio),
        )

    def _taken(self, levels: Levels, chance: Tensor, strength: Tensor, seed: Int64[Tensor, " b"]) -> Levels:
        """What lens and sensor do: blur, noise, motion."""
        blur_px, noise = between(strength[:, 0], *self.blur_px), between(strength[:, 1], *self.noise_levels)
        motion_px, angle = between(strength[:, 2], *self.motion_px), strength[:, 3] * math.pi

        def blurred(x: Tensor, rows: Tensor) -> Tensor:
            sigma = blur_px[rows].to(x.device)
            return convolved(x, gaussian_kernels(sigma, sigma, torch.zeros_like(sigma), self.blur_px[1]))

        def moved(x: Tensor, rows: Tensor) -> Tensor:
            along, direction = motion_px[rows].to(x.device), angle[rows].to(x.device)
            across = torch.full_like(along, ACROSS_PX)
            return convolved(x, gaussian_kernels(along, across, direction, self.motion_px[1]))

        def noisy(x: Tensor, rows: Tensor) -> Tensor:
            sigma = noise[rows].to(x.device)[:, None, None, None]
            return rounded(x + sigma * normal_noise(seed[rows].to(x.device), x.shape[1:]))

        levels = where(chance[:, 0] < self.blur, levels, blurred)
        levels = where(chance[:, 1] < self.noise, levels, noisy)
        return where(chance[:, 2] < self.motion, levels, moved)

    def _coloured(self, levels: Levels, chance: Tensor, strength: Float32[Tensor, "b 4"]) -> Levels:
        largest = [self.brightness_change, self.contrast_change, self.hue_turns, self.saturation_change]
        change = (2 * strength - 1) * torch.tensor(largest)
        steps = [
            (self.brightness, lambda x, c: photometric.brightness(x, 1 + c)),
            (self.contrast, lambda x, c: photometric.contrast(x, 1 + c)),
            (self.hue, photometric.shift_hue),
            (self.saturation, lambda x, c: photometric.saturation(x, 1 + c)),
        ]
        for column, (p, step) in enumerate(steps):
            amount = change[:, column]
            levels = where(
                chance[:, column] < p,
                levels,
                lambda x, rows, step=step, amount=amount: step(x, amount[rows].to(x.device)),  # type: ignore[misc]
            )
        return where(chance[:, 4] < self.gray, levels, lambda x, _: photometric.grey(x).expand(-1, 3, -1, -1))

    def _stored(self, levels: Levels, chance: Tensor, strength: Float32[Tensor, "b 4"]) -> Levels:
        lowest, highest = self.jpeg_quality
        quality = between(strength[:, 3], lowest, highest + 1).long().clamp(max=highest)
        levels = where(
            chance[:, 0] < self.low_resolution,
            levels,
            lambda x, rows: coarse(x, strength[rows, :3], self.side_ratio),
        )
        return where(chance[:, 1] < self.jpeg, levels, lambda x, rows: jpeg(x, quality[rows].to(x.device)))

    def _warped(self, levels: Levels, chance: Tensor, uniform: Float32[Tensor, "b 13"]) -> Levels:
        """All of the warp as one resampling."""
        stretched, warped = chance[:, 1] < self.aspect, chance[:, 0] < self.warp
        corners = self._corners(uniform, stretched, warped, levels.shape[2] / levels.shape[3])
        return where(stretched | warped, levels, lambda x, rows: perspective(x, corners[rows]))

    def _corners(self, uniform: Tensor, stretched: Tensor, warped: Tensor, height: float) -> Float32[Tensor, "b 4 2"]:
        """Where the corners come from, in shares of the sides; `height` is in widths, for a rotation without shear."""
        log_low, log_high = (math.log(ratio) for ratio in self.aspect_ratio)
        stretch = torch.where(stretched, between(uniform[:, 0], log_low, log_high), 0.0)
        zoom = torch.where(warped, between(uniform[:, 1], *self.warp_scale), 1.0)
        angle = torch.where(warped, either_way(uniform[:, 2], math.radians(self.warp_rotate_deg)), 0.0)
        # Each corner's shift is the picture's and its own.
        shift = either_way(uniform[:, None, 3:5], self.warp_shift)
        shift = shift + either_way(uniform[:, 5:13].view(-1, 4, 2), self.warp_corner)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        turn = torch.stack([torch.stack([cos, -sin * height], 1), torch.stack([sin / height, cos], 1)], 1)
        # Wider by sqrt(ratio) and lower by as much: the output's corner lies closer to the centre of the input.
        size = torch.stack([torch.exp(-stretch / 2), torch.exp(stretch / 2)], 1)
        centred = (torch.tensor(_CORNERS) - 0.5) * size[:, None]
        return centred @ turn.transpose(1, 2) + 0.5 + torch.where(warped[:, None, None], shift, 0.0)
